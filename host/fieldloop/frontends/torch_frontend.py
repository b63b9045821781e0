"""PyTorch -> the graph, through torch.export (the aten operators of a module in eval mode).

torch keeps images as NCHW, the graph as NHWC. Values are turned around once, at their operator's
weights: the graph itself holds no transpose. `_Value.chw` remembers, for a value whose elements
lie in another order than torch believes, what that order is; a linear layer that reads a flattened
image gets its columns reordered.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.export.graph_signature import OutputKind

from fieldloop.frontends.builder import GraphBuilder, UnsupportedModelError, unsupported
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, OpKind, Window
from fieldloop.ir.tensor import Array

_IDENTITY = {"clone", "alias", "contiguous", "detach", "dropout", "dropout_", "feature_dropout"}
_CHECKS = {"_assert_tensor_metadata"}  # they compute nothing


def from_torch(
    module: torch.nn.Module, example_input: torch.Tensor | tuple[torch.Tensor, ...]
) -> Graph:
    """The float graph of a module; only the first sample's shape of the example is read.

    Inputs and outputs with four dimensions are NHWC in the graph (`to_nhwc` turns samples). The
    module itself is left as it is. UnsupportedModelError names what cannot be taken over.
    """
    examples = example_input if isinstance(example_input, tuple) else (example_input,)
    singles = tuple(x[:1].detach().to("cpu", torch.float32) for x in examples)
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
    return _Importer(name, program).run()


def to_nhwc(samples: torch.Tensor | Array) -> Array:
    """Samples as the graph takes them: [n, c, h, w] becomes [n, h, w, c], the rest stays."""
    x = samples.detach().cpu().numpy() if isinstance(samples, torch.Tensor) else samples
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x.ndim == 4 else x


@dataclass(frozen=True, slots=True)
class _Value:
    """A tensor of the graph for a node of torch's. chw: None where the elements' order agrees."""

    name: str
    shape: tuple[int, ...]  # torch's
    chw: tuple[int, int, int] | None


def _image_order(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """How a 4-D value's NHWC order differs from torch's, if it does."""
    _, c, h, w = shape
    return None if c == 1 or h * w == 1 else (c, h, w)


def _graph_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 4:
        return (shape[0], shape[2], shape[3], shape[1])
    return shape


def _pair(value: Any) -> tuple[int, int]:
    numbers = [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
    return (numbers[0], numbers[-1])


class _Importer:
    def __init__(self, name: str, program: torch.export.ExportedProgram) -> None:
        self.program = program
        self.build = GraphBuilder(name)
        self.values: dict[Any, _Value] = {}
        self.constants: dict[Any, tuple[str, torch.Tensor]] = {}
        self.handlers: dict[str, Callable[[Any], _Value]] = {
            "conv2d": self.conv2d,
            "linear": self.linear,
            "_native_batch_norm_legit_no_training": self.batch_norm,
            "relu": self.activation,
            "relu6": self.activation,
            "hardtanh": self.activation,
            "clamp": self.activation,
            "clamp_min": self.activation,
            "clamp_max": self.activation,
            "max_pool2d": self.max_pool,
            "avg_pool2d": self.avg_pool,
            "adaptive_avg_pool2d": self.adaptive_avg_pool,
            "mean": self.mean,
            "add": self.add,
            "softmax": self.softmax,
            "_softmax": self.softmax,
            "view": self.reshape,
            "_unsafe_view": self.reshape,
            "reshape": self.reshape,
            "flatten": self.reshape,
            "squeeze": self.reshape,
            "unsqueeze": self.reshape,
        }

    # ---- the walk

    def run(self) -> Graph:
        graph = self.program.graph
        signature = self.program.graph_signature
        for node in list(graph.nodes):
            if self.is_identity(node):
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
        graph.eliminate_dead_code()
        weights = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        outputs: list[_Value] = []
        for node in graph.nodes:
            if node.op == "placeholder" and node.name in weights:
                path = weights[node.name]
                held = self.program.state_dict.get(path, self.program.constants.get(path))
                assert isinstance(held, torch.Tensor)
                self.constants[node] = (path, held.detach())
            elif node.op == "placeholder":
                self.values[node] = self.input(node)
            elif node.op == "call_function" and self.operator_name(node) not in _CHECKS:
                self.values[node] = self.call(node)
            elif node.op == "output":
                # by position: the nodes that were passed over had other names
                outputs = [
                    self.output(result)
                    for result, spec in zip(node.args[0], signature.output_specs, strict=True)
                    if spec.kind is OutputKind.USER_OUTPUT
                ]
        return self.build.graph([value.name for value in outputs])

    def is_identity(self, node: Any) -> bool:
        if node.op != "call_function":
            return False
        if node.target is operator.getitem:  # the first result of a batch normalisation
            return bool(node.args[1] == 0)
        name = self.operator_name(node)
        if self.handlers.get(name) == self.reshape:
            return self.shape_of(node) == self.shape_of(node.args[0])
        return name in _IDENTITY

    @staticmethod
    def operator_name(node: Any) -> str:
        """`conv2d` of torch.ops.aten.conv2d.default."""
        return str(node.target).removeprefix("aten.").split(".")[0]

    def refuse(self, node: Any, why: str, instead: str) -> UnsupportedModelError:
        return unsupported(f"node {node.name!r}", str(node.target), why, instead)

    def input(self, node: Any) -> _Value:
        shape = self.shape_of(node)
        if len(shape) > 4:
            raise self.refuse(node, f"input of shape {shape}", "expected at most 4 dimensions")
        name = self.build.input(node.name, _graph_shape(shape))
        return _Value(name, shape, _image_order(shape) if len(shape) == 4 else None)

    def output(self, node: Any) -> _Value:
        value = self.value(node, node)
        if node.op == "placeholder" or value.name in self.build.inputs:
            raise self.refuse(node, "an input is returned as it came", "expected an operator")
        if value.chw is not None and len(value.shape) != 4:
            raise self.refuse(
                node,
                "a flattened image is returned, and images are NHWC here",
                "return it before the flatten, or after a linear layer",
            )
        return value

    def call(self, node: Any) -> _Value:
        handler = self.handlers.get(self.operator_name(node))
        if handler is None:
            raise self.refuse(
                node,
                "this operator has no counterpart on the device",
                "use conv2d, linear, batch norm, ReLU, ReLU6, hardtanh, max or average pooling, "
                "add, flatten, reshape or softmax",
            )
        value = node.meta["val"]
        dtype = (value[0] if isinstance(value, tuple | list) else value).dtype
        if dtype != torch.float32:
            raise self.refuse(node, f"its values are {dtype}", "expected float32 throughout")
        return handler(node)

    # ---- arguments

    def shape_of(self, node: Any) -> tuple[int, ...]:
        value = node.meta["val"]
        value = value[0] if isinstance(value, tuple | list) else value
        return tuple(int(n) for n in value.shape)

    def value(self, node: Any, argument: Any) -> _Value:
        if argument in self.values:
            return self.values[argument]
        raise self.refuse(
            node, "it reads a number or a parameter", "only values computed from the input can"
        )

    def is_private(self, node: Any) -> bool:
        """True when one operator alone reads a value, and what it is a reshape of."""
        while len(node.users) == 1:
            if self.handlers.get(self.operator_name(node)) != self.reshape:
                return True
            node = node.args[0]
        return False

    def constant(self, node: Any, argument: Any) -> torch.Tensor | None:
        if argument is None:
            return None
        if argument not in self.constants:
            raise self.refuse(
                node, "its weights are computed in the network", "expected parameters"
            )
        return self.constants[argument][1].to(torch.float64)

    def argument(self, node: Any, position: int, default: Any) -> Any:
        """A positional argument of an aten operator; keyword-only ones are read by name."""
        return node.args[position] if len(node.args) > position else default

    def layer_name(self, node: Any, weights: Any) -> str:
        """The module's own name (`features.0`), from its weights; else the node's."""
        path = self.constants[weights][0] if weights in self.constants else ""
        return path.rpartition(".")[0] or node.name

    def image(self, node: Any) -> _Value:
        value = self.value(node, node.args[0])
        if len(value.shape) != 4:
            raise self.refuse(
                node, f"its input has shape {value.shape}", "expected N, C, H, W with N = 1"
            )
        return value

    def made(self, node: Any, name: str, chw: tuple[int, int, int] | None = None) -> _Value:
        """The value of an operator; of images the order follows from the shape."""
        shape = self.shape_of(node)
        if self.build.shape(name) != _graph_shape(shape):
            raise self.refuse(
                node, f"torch says {shape}, the graph {self.build.shape(name)}", "report this"
            )
        return _Value(name, shape, _image_order(shape) if len(shape) == 4 else chw)

    # ---- operators

    def conv2d(self, node: Any) -> _Value:
        x = self.image(node)
        w, b = self.constant(node, node.args[1]), self.constant(node, self.argument(node, 2, None))
        assert w is not None
        stride = _pair(self.argument(node, 3, 1))
        padding = self.argument(node, 4, 0)
        dilation = _pair(self.argument(node, 5, 1))
        groups = int(self.argument(node, 6, 1))
        kernel = (int(w.shape[2]), int(w.shape[3]))
        if padding == "same":
            totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            top, left = totals[0] // 2, totals[1] // 2
            pads = (top, totals[0] - top, left, totals[1] - left)
        else:
            ph, pw = (0, 0) if padding == "valid" else _pair(padding)
            pads = (ph, ph, pw, pw)
        channels = x.shape[1]
        if groups == 1:
            kind, weights = OpKind.CONV2D, w.permute(0, 2, 3, 1)
        elif groups == channels:
            kind, weights = OpKind.DEPTHWISE_CONV2D, w[:, 0].permute(1, 2, 0)[None]
        else:
            raise self.refuse(
                node,
                f"{groups} groups for {channels} channels",
                f"expected 1 group, or {channels} (depthwise)",
            )
        name = self.build.add(
            self.layer_name(node, node.args[1]),
            kind,
            [x.name],
            window=Window(kernel, stride, dilation, pads),
            weights=weights.numpy(),
            bias=None if b is None else b.numpy(),
        )
        return self.made(node, name)

    def linear(self, node: Any) -> _Value:
        x = self.value(node, node.args[0])
        w, b = self.constant(node, node.args[1]), self.constant(node, self.argument(node, 2, None))
        assert w is not None
        if len(x.shape) != 2:
            raise self.refuse(
                node, f"its input has shape {x.shape}", "expected N, C: flatten it first"
            )
        weights = w.numpy()
        if x.chw is not None:
            weights = weights.reshape(-1, *x.chw).transpose(0, 2, 3, 1).reshape(len(weights), -1)
        name = self.build.add(
            self.layer_name(node, node.args[1]),
            OpKind.FULLY_CONNECTED,
            [x.name],
            weights=weights,
            bias=None if b is None else b.numpy(),
        )
        return self.made(node, name)

    def batch_norm(self, node: Any) -> _Value:
        x = self.value(node, node.args[0])
        gamma, beta, mean, var = (self.constant(node, node.args[i]) for i in range(1, 5))
        assert mean is not None and var is not None
        scale = 1.0 / torch.sqrt(var + float(node.args[6]))
        scale = scale if gamma is None else scale * gamma
        shift = -mean * scale
        shift = shift if beta is None else shift + beta
        name = self.build.scale_shift(
            self.layer_name(node, node.args[3]),
            x.name,
            scale.numpy(),
            shift.numpy(),
            private=self.is_private(node.args[0]),
        )
        if name is None:
            raise self.refuse(
                node,
                "batch norm that follows no convolution or linear layer of its own",
                "move it right behind one",
            )
        return self.made(node, name, x.chw)

    def activation(self, node: Any) -> _Value:
        x = self.value(node, node.args[0])
        kind = self.operator_name(node)
        lo, hi = {"relu": (0.0, None), "relu6": (0.0, 6.0), "hardtanh": (-1.0, 1.0)}.get(
            kind, (None, None)
        )
        if kind in ("hardtanh", "clamp"):
            lo, hi = self.argument(node, 1, lo), self.argument(node, 2, hi)
        elif kind == "clamp_min":
            lo = node.args[1]
        elif kind == "clamp_max":
            hi = node.args[1]
        clamp = Clamp(-np.inf if lo is None else float(lo), np.inf if hi is None else float(hi))
        name = self.build.clamp(node.name, x.name, clamp, private=self.is_private(node.args[0]))
        if name is None:
            raise self.refuse(
                node,
                "an activation that follows no layer of its own",
                "move it right behind a convolution, a linear layer or an addition",
            )
        return self.made(node, name, x.chw)

    def pool_window(self, node: Any, *, dilation: Any, ceil_mode: bool) -> Window:
        x, out = self.image(node).shape, self.shape_of(node)
        kernel = _pair(node.args[1])
        stride = _pair(self.argument(node, 2, None) or kernel)
        ph, pw = _pair(self.argument(node, 3, 0))
        if _pair(dilation) != (1, 1):
            raise self.refuse(node, f"dilation {dilation} of a pool", "expected 1")
        bottom, right = ph, pw
        if ceil_mode:  # the last window may hang over the edge
            bottom = max(ph, (out[2] - 1) * stride[0] + kernel[0] - x[2] - ph)
            right = max(pw, (out[3] - 1) * stride[1] + kernel[1] - x[3] - pw)
        return Window(kernel, stride, pads=(ph, bottom, pw, right))

    def max_pool(self, node: Any) -> _Value:
        window = self.pool_window(
            node,
            dilation=self.argument(node, 4, 1),
            ceil_mode=bool(self.argument(node, 5, False)),
        )
        x = self.image(node)
        return self.made(node, self.build.add(node.name, OpKind.MAX_POOL, [x.name], window=window))

    def avg_pool(self, node: Any) -> _Value:
        window = self.pool_window(node, dilation=1, ceil_mode=bool(self.argument(node, 4, False)))
        padding = _pair(self.argument(node, 3, 0))
        if padding != (0, 0) and self.argument(node, 5, True):
            raise self.refuse(
                node, "padding counts towards the average", "set count_include_pad=False"
            )
        if self.argument(node, 6, None) is not None:
            raise self.refuse(node, "divisor_override is set", "leave it at None")
        x = self.image(node)
        return self.made(node, self.build.add(node.name, OpKind.AVG_POOL, [x.name], window=window))

    def adaptive_avg_pool(self, node: Any) -> _Value:
        x, out = self.image(node), self.shape_of(node)
        if x.shape[2] % out[2] or x.shape[3] % out[3]:
            raise self.refuse(
                node,
                f"windows of unequal size ({x.shape[2:]} to {out[2:]})",
                "choose an output size that divides the input's",
            )
        kernel = (x.shape[2] // out[2], x.shape[3] // out[3])
        window = Window(kernel, kernel)
        return self.made(node, self.build.add(node.name, OpKind.AVG_POOL, [x.name], window=window))

    def mean(self, node: Any) -> _Value:
        x = self.image(node)
        dims = {d % 4 for d in (self.argument(node, 1, None) or [])}
        if dims != {2, 3}:
            raise self.refuse(node, f"mean over dimensions {sorted(dims)}", "expected [2, 3]")
        window = Window((x.shape[2], x.shape[3]))
        name = self.build.add(node.name, OpKind.AVG_POOL, [x.name], window=window)
        if not self.argument(node, 2, False):
            name = self.build.add(
                f"{node.name}_flat", OpKind.RESHAPE, [name], shape=self.shape_of(node)
            )
        return self.made(node, name)

    def add(self, node: Any) -> _Value:
        a, b = self.value(node, node.args[0]), self.value(node, node.args[1])
        if a.shape != b.shape:
            raise self.refuse(
                node, f"shapes {a.shape} and {b.shape} differ", "expected two equal shapes"
            )
        if a.chw != b.chw:
            raise self.refuse(
                node,
                "one side is a flattened image, the other is not",
                "add before the flatten",
            )
        if node.kwargs.get("alpha", 1) != 1:
            raise self.refuse(node, f"alpha = {node.kwargs['alpha']}", "expected 1")
        name = self.build.add(node.name, OpKind.ADD, [a.name, b.name])
        return self.made(node, name, a.chw)

    def softmax(self, node: Any) -> _Value:
        x = self.value(node, node.args[0])
        rank = len(x.shape)
        if int(node.args[1]) % rank != 1 or rank not in (2, 4):
            raise self.refuse(
                node, f"softmax over dimension {node.args[1]} of {x.shape}", "expected dim=1"
            )
        name = self.build.add(node.name, OpKind.SOFTMAX, [x.name])
        return self.made(node, name, x.chw)

    def reshape(self, node: Any) -> _Value:
        x, shape = self.value(node, node.args[0]), self.shape_of(node)
        if len(shape) > 4 or not shape or shape[0] != x.shape[0]:
            raise self.refuse(
                node, f"shape {x.shape} to {shape}", "expected the batch first and at most 4 dims"
            )
        if len(shape) == 4 and x.chw != _image_order(shape):
            raise self.refuse(
                node,
                f"shape {x.shape} to {shape} reorders pixels, and images are NHWC here",
                "expected a flatten, or one channel",
            )
        name = self.build.add(node.name, OpKind.RESHAPE, [x.name], shape=_graph_shape(shape))
        return self.made(node, name, x.chw)
