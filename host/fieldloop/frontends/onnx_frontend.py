"""ONNX -> the graph: float models, and quantised ones of both kinds (QDQ and QOperator).

ONNX counts channels first, like torch: `channels_first` and `channels_layers` hold what it means.
Here is the walk over the file's nodes. `onnx_operators`, `onnx_moves` and `onnx_quantized` have a
handler for each operator; `qdq` makes int8 operators of what lies between quantised values.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fieldloop.errors import UsageError
from fieldloop.frontends import onnx_moves, onnx_operators, onnx_quantized
from fieldloop.frontends.builder import Constant, UnsupportedModelError
from fieldloop.frontends.channels import Value
from fieldloop.frontends.channels_layers import ChannelsFirstLayers
from fieldloop.frontends.imported import Imported
from fieldloop.frontends.onnx_file import Declared, Node, OnnxFile, read_file
from fieldloop.frontends.onnx_fold import FOLDS, CannotFoldError, shape_slice
from fieldloop.frontends.qdq import lower
from fieldloop.ir.tensor import Array, DType, Quant

HANDLERS = {
    **onnx_operators.HANDLERS,
    **onnx_moves.HANDLERS,
    **onnx_quantized.HANDLERS,
}
_DTYPES = {"float32": DType.FLOAT32, "int8": DType.INT8, "uint8": DType.INT8} | dict.fromkeys(
    ("int32", "int64"), DType.INT32
)
# A value that an input has before them lies as the source has it; before others channels go last.
_SOURCE_ORDER = {"Transpose", "Reshape", "Flatten", "MatMul", "Gemm", "Gather", "Softmax"}
# They take integers as they are; what computes wants real numbers.
_ANY_DTYPE = {*onnx_moves.HANDLERS, *onnx_quantized.HANDLERS, "MaxPool", "Gather"}
_PICTURES = {
    "Conv",
    "QLinearConv",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "BatchNormalization",
}

# What handlers and numpy raise where a damaged file lacks an input or has an impossible attribute.
_MISFITS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    StopIteration,
    TypeError,
    ValueError,
)


def read_onnx(data: bytes, outputs: Sequence[str] = ()) -> Imported:
    """The graph of an .onnx file, float32 or int8 as the file is.

    `outputs` cuts the graph: it ends at these values instead of the model's outputs. A dimension
    that is not fixed is 1 where it is the batch. UnsupportedModelError names what is in the way.
    """
    return OnnxWalk(read_file(data), outputs).run()


def unknown_operators(data: bytes) -> dict[str, int]:
    """Operators of an .onnx file that no reader exists for, and how many nodes have them."""
    known = {*HANDLERS, *FOLDS}
    return dict(Counter(n.operator for n in read_file(data).nodes if n.operator not in known))


class OnnxWalk:
    """One pass over a file's nodes. `source` makes the graph."""

    def __init__(self, file: OnnxFile, outputs: Sequence[str]) -> None:
        self.file = file
        self.opset = file.opset
        self.source = ChannelsFirstLayers(file.name)
        # By name: computed values, dequantised constants, and arrays as the file has them.
        self.values: dict[str, Value | Constant | Array] = dict(file.constants)
        self.kinds: dict[str, str] = {}  # int8 or uint8 (less 128 in the graph), by name
        self.outputs = tuple(outputs) or file.outputs
        self.readers: Counter[str] = Counter(self.outputs)
        self._nodes = self._needed()
        self._users: dict[str, list[Node]] = defaultdict(list)
        for node in self._nodes:
            for name in filter(None, node.inputs):
                self.readers[name] += 1
                self._users[name].append(node)

    def _needed(self) -> list[Node]:
        """The nodes that the outputs depend on, in the file's order."""
        if not self.outputs:
            raise UnsupportedModelError("model: it has no outputs; expected at least one")
        if len(set(self.outputs)) != len(self.outputs):
            raise UnsupportedModelError("model: an output is named twice; name each once")
        needed, kept, made = set(self.outputs), [], set()
        for node in reversed(self.file.nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(node.inputs)
                made.update(node.outputs)
        known = made | set(self.file.constants) | {i.name for i in self.file.inputs}
        for name in self.outputs:
            if name not in known:
                names = [n for node in self.file.nodes for n in node.outputs if n]
                raise UnsupportedModelError(
                    f"model: no value is called {name!r}; expected one of "
                    f"{', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
                )
        self._wanted_inputs = needed
        return kept[::-1]

    def run(self) -> Imported:
        for declared in self.file.inputs:
            if declared.name in self._wanted_inputs:
                self._input(declared)
        for node in self._nodes:
            self._call(node)
        build = self.source.build
        outputs = [self._output(name) for name in self.outputs]
        if len(set(outputs)) != len(outputs):
            raise UnsupportedModelError("model: two outputs are one value; cut one with --outputs")
        notes = lower(build, outputs)
        graph = build.graph(outputs)
        return Imported(graph, "onnx", self.source.value_maps(graph.tensors), notes)

    # ---- nodes

    def _input(self, declared: Declared) -> None:
        name, shape = declared.name, declared.shape
        self.source.enter(f"input {name!r}", "input", name)
        if declared.dtype not in _DTYPES:
            raise self.source.refuse(
                f"elements of {declared.dtype}", f"expected {', '.join(_DTYPES)}"
            )
        if shape is None or not shape or any(n is None for n in shape[1:]):
            raise self.source.refuse(
                f"its shape is {'unknown' if shape is None else list(shape)}",
                "fix every dimension but the batch, "
                "python -m onnxruntime.tools.make_dynamic_shape_fixed",
            )
        fixed = tuple(1 if n is None else n for n in shape)
        value = self.source.input(
            name,
            fixed,
            channels_last=self._pictures(name, len(fixed)),
            dtype=_DTYPES[declared.dtype],
        )
        self.kinds[name] = declared.dtype
        self._keep(name, value, ())

    def _pictures(self, name: str, rank: int) -> bool:
        """Whether the first layer behind an input wants channels last."""
        seen, front = {name}, [name]
        while front:
            users = [node for value in front for node in self._users[value]]
            if any(node.operator in _PICTURES for node in users):
                return True
            passed = [node for node in users if node.operator not in _SOURCE_ORDER]
            if users and not passed:
                return False
            front = [out for node in passed for out in node.outputs if out not in seen]
            seen.update(front)
        return rank == 4

    def _call(self, node: Node) -> None:
        wanted = next((name for name in node.outputs if name), node.name)
        self.source.enter(f"node {node.name!r}", node.operator, wanted)
        if node.domain not in ("", "com.microsoft"):
            raise self.source.refuse(f"domain {node.domain!r}", self._way_out(node))
        for name in node.inputs:
            if name and name not in self.values:
                raise self.source.refuse(
                    f"it reads {name!r}, which nothing makes before", "is the file damaged?"
                )
        try:
            with np.errstate(all="ignore"):  # constants that are not finite are refused later
                made = self._made(node)
        except CannotFoldError as error:
            raise self.source.refuse(str(error), "fold constants before the export") from error
        except UsageError as error:
            raise self.source.refuse(str(error), self._way_out(node)) from error
        except _MISFITS as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise self.source.refuse(
                f"attributes or inputs that do not fit it ({reason})", "is the file damaged?"
            ) from error
        inputs = [v for n in node.inputs if isinstance(v := self.values.get(n), Value)]
        for name, value in zip(node.outputs, made, strict=False):
            if name in self.values and name:
                raise self.source.refuse(f"{name!r} is made twice", "is the file damaged?")
            if isinstance(value, Value):
                if name not in self.kinds and node.inputs:  # integers that were moved
                    self.kinds[name] = self.kinds.get(node.inputs[0], "float32")
                self._keep(name, value, inputs)
            elif name:
                self.values[name] = value

    def _made(self, node: Node) -> list[Value | Constant | Array]:
        held = [self.values[name] for name in node.inputs if name]
        arrays = [self.values[name] if name else None for name in node.inputs]
        if node.operator == "QuantizeLinear" and isinstance(arrays[0], Constant):
            # Quantised again: onnxruntime's tool does so to constants that two operators share.
            arrays[0] = arrays[0].data.astype(np.float32)
        if node.operator in FOLDS and all(a is None or isinstance(a, np.ndarray) for a in arrays):
            return [np.asarray(FOLDS[node.operator](node, arrays, self.opset))]  # type: ignore
        if node.operator == "Shape" and held and isinstance(held[0], Value):
            return [shape_slice(node, held[0].shape)]
        handler = HANDLERS.get(node.operator)
        if handler is None:
            raise self.source.refuse("it has no counterpart on the device", self._way_out(node))
        if node.operator not in _ANY_DTYPE:
            self._check_reals(node)
        made = handler(self, node)
        return made if isinstance(made, list) else [made]

    def _check_reals(self, node: Node) -> None:
        for name in node.inputs:
            value = self.values.get(name)
            if not isinstance(value, Value):
                continue
            dtype = self.source.build.tensors[value.name].dtype
            if dtype is not DType.FLOAT32:
                raise self.source.refuse(
                    f"it reads {name!r}, integers ({dtype.value}) without a scale",
                    "expected float32; quantise the model with Q and DQ pairs",
                )

    def _way_out(self, node: Node) -> str:
        """How to go on without this node."""
        before = [n for n in node.inputs if isinstance(self.values.get(n), Value)]
        if not before:
            return "change the network"
        return f"cut the graph before it with --outputs {','.join(dict.fromkeys(before))}"

    def _keep(self, name: str, value: Value, inputs: Sequence[Value]) -> None:
        alone = self.readers[name] == 1
        private = alone and all(x.private for x in inputs if x.name == value.name)
        self.values[name] = Value(value.name, value.shape, value.order, private)
        self._record(name, value, inputs)

    def _record(self, name: str, value: Value, inputs: Sequence[Value]) -> None:
        kind = self.kinds.get(name, "float32")
        dtype = self.source.build.tensors[value.name].dtype
        if dtype is DType.FLOAT32:
            kind = "float32"
        offset = -128 if dtype is DType.INT8 and kind == "uint8" else 0
        self.source.record(value, name, inputs, kind, offset)

    def _output(self, name: str) -> str:
        self.source.enter(f"output {name!r}", "output", name)
        value = self.values.get(name)
        if not isinstance(value, Value):
            raise self.source.refuse("it does not depend on an input", "name a computed value")
        made = self.source.output(value)
        self._record(name, made, ())
        return made.name

    # ---- quantised values

    def assign(self, x: Value, quant: Quant) -> None:
        """Says what the integers of a value mean, where nothing has said so yet."""
        build = self.source.build
        name = x.name
        tensor = build.tensors[name]
        if tensor.quant == quant:
            return
        if tensor.quant is not None:
            raise self.source.refuse(
                f"it reads {tensor.quant} as {quant}", "expected one scale and zero point"
            )
        while True:  # through what was moved, back to the input
            build.tensors[name] = replace(build.tensors[name], quant=quant)
            op = build.ops.get(name)
            if op is None:
                return
            if len(op.inputs) != 1:
                raise self.source.refuse("integers whose scale is unknown", "quantise the inputs")
            name = op.inputs[0]

    # ---- arguments, for the handlers

    def value(self, node: Node, place: int = 0) -> Value:
        """A computed input."""
        name = node.inputs[place] if len(node.inputs) > place else ""
        value = self.values.get(name)
        if not isinstance(value, Value):
            raise self.source.refuse(
                f"input {place} is {'a constant' if name else 'missing'}",
                "expected a computed value",
            )
        return value

    def constant(self, node: Node, place: int) -> Constant | None:
        """A constant input as real numbers; None where it is absent."""
        name = node.inputs[place] if len(node.inputs) > place else ""
        value = self.values.get(name) if name else None
        if value is None:
            return None
        if isinstance(value, Value):
            raise self.source.refuse(
                f"input {place} is computed in the network", "expected a constant"
            )
        return value if isinstance(value, Constant) else Constant(value.astype(np.float64))

    def weights(self, node: Node, place: int) -> Constant:
        """A constant input that has to be there."""
        value = self.constant(node, place)
        if value is None:
            raise self.source.refuse(f"input {place} is missing", "expected a constant")
        return value

    def array(self, node: Node, place: int) -> Array | None:
        """A constant input as the file has it: shapes, axes, scales."""
        name = node.inputs[place] if len(node.inputs) > place else ""
        value = self.values.get(name) if name else None
        if value is None:
            return None
        if not isinstance(value, np.ndarray):
            raise self.source.refuse(
                f"input {place} is computed in the network", "expected a constant"
            )
        return value

    def arrays(self, node: Node) -> list[Array | None]:
        """All inputs behind the first, which may be a value."""
        return [None, *(self.array(node, i) for i in range(1, len(node.inputs)))]

    def operand(self, node: Node, place: int) -> Value | Constant:
        name = node.inputs[place] if len(node.inputs) > place else ""
        if isinstance(value := self.values.get(name), Value):
            return value
        return self.weights(node, place)
