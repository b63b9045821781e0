"""The reference: runs a graph on a batch in numpy, each operator by the dtype of its tensors.

Real numbers are float64 between operators, integers are exactly the device's. Calibration and
tests read it; it is written to be read, not to be fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fieldloop.errors import UsageError
from fieldloop.ir.float_ops import run_float_op
from fieldloop.ir.graph import Graph
from fieldloop.ir.int8_ops import dequantize, quantize, run_int8_op
from fieldloop.ir.moves import run_move
from fieldloop.ir.op import BINARY, MOVES, Concat, Mean, Op, OpKind, Transpose
from fieldloop.ir.tensor import Array, DType, Tensor

Visit = Callable[[str, Array], None]


def batch_of(graph: Graph, inputs: Mapping[str, Array]) -> int:
    """The number of samples in `inputs`: arrays [n * shape[0], *shape[1:]] of each input."""
    if set(inputs) != set(graph.inputs):
        raise UsageError(
            f"graph {graph.name}: expected inputs {sorted(graph.inputs)}, got {sorted(inputs)}"
        )
    sizes = set()
    for name, value in inputs.items():
        rows, *expected = graph.tensors[name].shape
        if list(value.shape[1:]) != expected or value.ndim == 0 or value.shape[0] % rows:
            each = f"n * {rows}" if rows > 1 else "n"
            raise UsageError(
                f"input {name}: expected shape [{', '.join(map(str, [each, *expected]))}], "
                f"got {list(value.shape)}; images are NHWC"
            )
        sizes.add(value.shape[0] // rows)
    if len(sizes) != 1 or 0 in sizes:
        raise UsageError(f"graph {graph.name}: expected one batch size >= 1, got {sorted(sizes)}")
    return int(sizes.pop())


def run(graph: Graph, inputs: Mapping[str, Array], visit: Visit | None = None) -> dict[str, Array]:
    """Outputs [n, ...] for inputs [n, ...]: float32, int8 or int32, as the graph says.

    `visit` sees each activation (float64, int8 or int32): once for the whole batch, or, where an
    operator moves elements of the first axis, once for each sample.
    """
    count = batch_of(graph, inputs)
    if count == 1 or keeps_batch(graph):
        return _run_once(graph, inputs, visit)
    rows = {name: graph.tensors[name].shape[0] for name in graph.inputs}
    made = [
        _run_once(
            graph,
            {name: x[i * rows[name] : (i + 1) * rows[name]] for name, x in inputs.items()},
            visit,
        )
        for i in range(count)
    ]
    return {name: np.concatenate([one[name] for one in made]) for name in graph.outputs}


def keeps_batch(graph: Graph) -> bool:
    """True where the first axis of every activation is one of samples that never meet."""
    if len({t.shape[0] for t in graph.activations}) != 1:
        return False
    for op in graph.ops:
        if isinstance(op.attrs, Transpose) and op.attrs.axes[0] != 0:
            return False
        if isinstance(op.attrs, Mean) and 0 in op.attrs.axes:
            return False
        if isinstance(op.attrs, Concat) and op.attrs.axis == 0:
            return False
        ins = [graph.tensors[name] for name in op.inputs]
        if any(len(t.shape) == 1 and t.size > 1 for t in ins if not t.is_constant):
            return False
        if op.kind in BINARY:
            dims = len(graph.tensors[op.output].shape)
            for t in ins:
                if t.is_constant and len(t.shape) == dims and t.shape[0] != 1:
                    return False
                if not t.is_constant and len(t.shape) < dims:
                    return False
    return True


def _run_once(graph: Graph, inputs: Mapping[str, Array], visit: Visit | None) -> dict[str, Array]:
    values: dict[str, Array] = {}

    def put(name: str, value: Array) -> None:
        values[name] = value
        if visit is not None:
            visit(name, value)

    for name in graph.inputs:
        put(name, _given(graph.tensors[name], inputs[name]))
    last_use = {name: i for i, op in enumerate(graph.ops) for name in op.inputs}
    for i, op in enumerate(graph.ops):
        for name in op.inputs:
            data = graph.tensors[name].data
            if data is not None:
                values[name] = data.astype(np.float64) if data.dtype == np.float32 else data
        put(op.output, _run_op(op, graph.tensors, values))
        for name in set(op.inputs):
            if last_use[name] == i and name not in graph.outputs:
                values.pop(name, None)
    return {
        name: value.astype(np.float32) if value.dtype == np.float64 else value
        for name, value in ((name, values[name]) for name in graph.outputs)
    }


def _given(tensor: Tensor, value: Array) -> Array:
    """An input as the operators want it; integers must come as what they are."""
    if tensor.dtype is DType.FLOAT32:
        return np.asarray(value, np.float64)
    if tensor.dtype is DType.INT8 and value.dtype != np.int8:
        raise UsageError(f"input {tensor.name}: expected int8, got {value.dtype}")
    if value.dtype.kind not in "iu":
        raise UsageError(f"input {tensor.name}: expected integers, got {value.dtype}")
    return value.astype(tensor.dtype.value)


def _run_op(op: Op, tensors: Mapping[str, Tensor], values: Mapping[str, Array]) -> Array:
    if op.kind in MOVES or op.kind is OpKind.EMBEDDING:
        return run_move(op, tensors, values)
    if op.kind is OpKind.QUANTIZE:
        return quantize(values[op.inputs[0]], tensors[op.output])
    if op.kind is OpKind.DEQUANTIZE:
        return dequantize(values[op.inputs[0]], tensors[op.inputs[0]])
    if tensors[op.output].dtype is DType.INT8:
        return run_int8_op(op, tensors, values)
    return run_float_op(op, tensors, values)
