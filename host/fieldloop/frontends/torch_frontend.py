"""PyTorch -> the graph, through torch.export (the aten operators of a module in eval mode).

torch counts channels first, the graph last: `channels_first` and `channels_layers` hold what that
means. Here is the walk over torch's graph; `torch_operators` has a handler for each operator.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import numpy as np
import torch
from torch.export.graph_signature import OutputKind

from fieldloop.errors import UsageError
from fieldloop.frontends.builder import Constant, UnsupportedModelError
from fieldloop.frontends.channels import Value
from fieldloop.frontends.channels_layers import ChannelsFirstLayers
from fieldloop.frontends.imported import Imported
from fieldloop.frontends.torch_operators import HANDLERS, PICTURES, SUPPORTED, VIEWS
from fieldloop.ir.graph import Graph
from fieldloop.ir.tensor import Array, DType

_IDENTITY = {
    "clone",
    "alias",
    "contiguous",
    "detach",
    "dropout",
    "dropout_",
    "feature_dropout",
    "alpha_dropout",
    "lift_fresh_copy",
}
_CHECKS = {"_assert_tensor_metadata", "sym_size", "_assert_scalar"}  # they compute nothing
_INDICES = {torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8}


def from_torch(
    module: torch.nn.Module, example_input: torch.Tensor | tuple[torch.Tensor, ...]
) -> Graph:
    """The float graph of a module; only the first sample's shape of the example is read.

    Inputs and outputs with four dimensions are NHWC in the graph (`to_nhwc` turns samples);
    `import_torch` also tells how each value lies. The module itself is left as it is.
    UnsupportedModelError names what cannot be taken over.
    """
    return import_torch(module, example_input).graph


def import_torch(
    module: torch.nn.Module, example_input: torch.Tensor | tuple[torch.Tensor, ...]
) -> Imported:
    """`from_torch`, with the map from the graph's tensors to torch's values by node name."""
    examples = example_input if isinstance(example_input, tuple) else (example_input,)
    singles = tuple(_single(x) for x in examples)
    name = type(module).__name__
    module = copy.deepcopy(module).to("cpu").eval()
    try:
        with torch.no_grad():
            # No decompositions, but in-place operators become ordinary ones.
            program = torch.export.export(module, singles).run_decompositions({})
    except Exception as error:  # torch.export raises whatever tracing met
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnsupportedModelError(
            f"{name}: torch.export cannot trace it ({reason}); expected a module without "
            "control flow that depends on data"
        ) from error
    return TorchWalk(name, program).run()


def to_nhwc(samples: torch.Tensor | Array) -> Array:
    """Samples as a graph of pictures or signals takes them: channels last.

    [n, c, h, w] becomes [n, h, w, c] and [n, c, l] becomes [n, 1, l, c]; the rest stays. Where a
    module reads [n, t, c], `Imported.values` says so and this function is not the right one.
    """
    x = samples.detach().cpu().numpy() if isinstance(samples, torch.Tensor) else samples
    if x.ndim == 4:
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    return np.ascontiguousarray(x.transpose(0, 2, 1)[:, None]) if x.ndim == 3 else x


def _single(example: torch.Tensor) -> torch.Tensor:
    kind = torch.int64 if example.dtype in _INDICES else torch.float32
    return example[:1].detach().to("cpu", kind)


class TorchWalk:
    """One pass over an exported program. `source` makes the graph."""

    def __init__(self, name: str, program: torch.export.ExportedProgram) -> None:
        self.program = program
        self.source = ChannelsFirstLayers(name)
        self.values: dict[Any, Value] = {}
        self.parts: dict[Any, list[Value]] = {}  # of nodes that make several values
        self.constants: dict[Any, tuple[str, torch.Tensor]] = {}

    def run(self) -> Imported:
        graph = self.program.graph
        for node in list(graph.nodes):
            if self._is_identity(node):
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
        graph.eliminate_dead_code()
        signature = self.program.graph_signature
        weights = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        outputs: list[str] = []
        for node in graph.nodes:
            if node.op == "placeholder" and node.name in weights:
                path = weights[node.name]
                held = self.program.state_dict.get(path, self.program.constants.get(path))
                assert isinstance(held, torch.Tensor)
                self.constants[node] = (path, held.detach())
            elif node.op == "placeholder":
                self._input(node)
            elif node.op == "call_function" and operator_name(node) not in _CHECKS:
                self._call(node)
            elif node.op == "output":
                # by position: the nodes that were passed over had other names
                outputs = [
                    self._output(result)
                    for result, spec in zip(node.args[0], signature.output_specs, strict=True)
                    if spec.kind is OutputKind.USER_OUTPUT
                ]
        if len(set(outputs)) != len(outputs):
            raise UnsupportedModelError(
                f"{self.source.build.name}: two outputs are one value; return it once"
            )
        made = self.source.build.graph(outputs)
        return Imported(made, "torch", self.source.value_maps(made.tensors))

    def _is_identity(self, node: Any) -> bool:
        if node.op != "call_function":
            return False
        if node.target is operator.getitem:  # the first result of a batch normalisation
            return bool(node.args[1] == 0) and operator_name(node.args[0]) in _FIRST_RESULT
        name = operator_name(node)
        if name in VIEWS:
            return shape_of(node) == shape_of(node.args[0])
        if name in ("_to_copy", "to"):
            return bool(node.meta["val"].dtype == node.args[0].meta["val"].dtype)
        return name in _IDENTITY

    # ---- nodes

    def _input(self, node: Any) -> None:
        self.source.enter(f"node {node.name!r}", "input", node.name)
        shape, kind = shape_of(node), node.meta["val"].dtype
        pictures = len(shape) == 4 or (len(shape) == 3 and _feeds_pictures(node))
        dtype = DType.FLOAT32 if kind == torch.float32 else DType.INT32
        value = self.source.input(node.name, shape, channels_last=pictures, dtype=dtype)
        self._keep(node, value, ())

    def _call(self, node: Any) -> None:
        name = operator_name(node)
        self.source.enter(f"node {node.name!r}", str(node.target), node.name)
        if node.target is operator.getitem:
            self._keep(node, self.parts[node.args[0]][node.args[1]], ())
            return
        if all(x in self.constants for x in node.all_input_nodes):
            self._fold(node)
            return
        if isinstance(node.meta["val"], torch.Tensor) and node.meta["val"].dtype != torch.float32:
            raise self.source.refuse(
                f"its values are {node.meta['val'].dtype}", "expected float32 throughout"
            )
        handler = HANDLERS.get(name)
        if handler is None:
            raise self.source.refuse(
                "this operator has no counterpart on the device", f"use {SUPPORTED}"
            )
        try:
            made = handler(self, node)
        except UsageError as error:
            raise self.source.refuse(str(error), "change the layer") from error
        if isinstance(made, list):
            self.parts[node] = made
            return
        if made.shape != shape_of(node):
            raise self.source.refuse(
                f"torch says {shape_of(node)}, fieldloop {made.shape}", "report this"
            )
        self._keep(node, made, [self.values[x] for x in node.all_input_nodes if x in self.values])

    def _keep(self, node: Any, value: Value, inputs: Any) -> None:
        alone = len(node.users) == 1
        views = [x for x in inputs if x.name == value.name]
        private = alone and all(x.private for x in views)
        self.values[node] = Value(value.name, value.shape, value.order, private)
        self.source.record(value, node.name, inputs, _dtype_name(node))

    def _fold(self, node: Any) -> None:
        """Computes what depends on parameters alone."""

        def real(argument: Any) -> Any:
            return self.constants[argument][1] if argument in self.constants else argument

        size = int(np.prod(shape_of(node), dtype=np.int64))
        if size > 2**26:
            raise self.source.refuse(f"a constant of {size} elements", "expected at most 2**26")
        args = torch.fx.node.map_arg(node.args, real)
        kwargs = torch.fx.node.map_arg(node.kwargs, real)
        with torch.no_grad():
            held = node.target(*args, **kwargs)
        if not isinstance(held, torch.Tensor):
            raise self.source.refuse("several constants at once", "expected one")
        paths = [self.constants[x][0] for x in node.all_input_nodes]
        self.constants[node] = (paths[0] if paths else node.name, held)

    def _output(self, node: Any) -> str:
        self.source.enter(f"node {node.name!r}", "output", node.name)
        if node not in self.values:
            raise self.source.refuse("a constant is returned", "return computed values")
        made = self.source.output(self.values[node])
        self.source.record(made, node.name, (), _dtype_name(node))
        return made.name

    # ---- arguments, for the handlers

    def value(self, argument: Any) -> Value:
        """A computed value."""
        if argument in self.values:
            return self.values[argument]
        raise self.source.refuse(
            "it reads a number or a parameter", "only values computed from the input can"
        )

    def constant(self, argument: Any) -> Constant | None:
        """A parameter or buffer; None stays None."""
        if argument is None:
            return None
        if argument not in self.constants:
            raise self.source.refuse("its weights are computed in the network", "use parameters")
        return Constant(self.constants[argument][1].to(torch.float64).numpy())

    def weights(self, argument: Any) -> Constant:
        """Parameters that have to be there; the operator is named after the module they are of."""
        found = self.constant(argument)
        if found is None:
            raise self.source.refuse("it has no weights", "expected parameters")
        self.source.wanted = self.constants[argument][0].rpartition(".")[0] or self.source.wanted
        return found

    def operand(self, argument: Any) -> Value | Constant:
        """A computed value, a parameter or a number."""
        if argument in self.values:
            return self.values[argument]
        if isinstance(argument, int | float):
            return Constant(np.array(float(argument)))
        found = self.constant(argument)
        assert found is not None
        return found


# Operators of several results of which the first alone is a value of the network.
_FIRST_RESULT = {
    "_native_batch_norm_legit_no_training",
    "native_batch_norm",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "max_pool2d_with_indices",
}


def operator_name(node: Any) -> str:
    """`conv2d` of torch.ops.aten.conv2d.default."""
    return str(node.target).removeprefix("aten.").split(".")[0]


def shape_of(node: Any) -> tuple[int, ...]:
    value = node.meta["val"]
    value = value[0] if isinstance(value, tuple | list) else value
    return tuple(int(n) for n in value.shape)


def _dtype_name(node: Any) -> str:
    value = node.meta["val"]
    return str((value[0] if isinstance(value, tuple | list) else value).dtype).split(".")[1]


def _feeds_pictures(node: Any) -> bool:
    """Whether the first layer behind a value wants channels last: convolutions, pools, norms."""
    seen, front = {node}, [node]
    while front:
        ahead = []
        for user in [u for n in front for u in n.users]:
            name = operator_name(user)
            if name in PICTURES:
                return True
            # what works element by element leaves the question open; everything else closes it
            if (
                user not in seen
                and user.op == "call_function"
                and len(user.meta["val"].shape if hasattr(user.meta["val"], "shape") else ()) == 3
                and name not in ("permute", "transpose", "linear", "softmax", *VIEWS)
            ):
                seen.add(user)
                ahead.append(user)
        front = ahead
    return False
