"""The float reference: runs a float graph on a batch in numpy, in float64.

Calibration and tests read it; it is written to be read, not to be fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Op, OpKind
from fieldloop.ir.tensor import Array, Tensor
from fieldloop.ir.windows import windows


def batch_of(graph: Graph, inputs: Mapping[str, Array]) -> int:
    """The common batch size of `inputs`, checked against the graph's input shapes."""
    if set(inputs) != set(graph.inputs):
        raise UsageError(
            f"graph {graph.name}: expected inputs {sorted(graph.inputs)}, got {sorted(inputs)}"
        )
    sizes = set()
    for name, value in inputs.items():
        expected = graph.tensors[name].shape[1:]
        if value.shape[1:] != expected or value.ndim != len(expected) + 1:
            raise UsageError(
                f"input {name}: expected shape [n, {', '.join(map(str, expected))}], "
                f"got {list(value.shape)}; images are NHWC"
            )
        sizes.add(value.shape[0])
    if len(sizes) != 1 or 0 in sizes:
        raise UsageError(f"graph {graph.name}: expected one batch size >= 1, got {sorted(sizes)}")
    return int(sizes.pop())


def run(
    graph: Graph,
    inputs: Mapping[str, Array],
    visit: Callable[[str, Array], None] | None = None,
) -> dict[str, Array]:
    """Outputs [n, ...] of a float graph for inputs [n, ...]; `visit` sees each activation once."""
    batch_of(graph, inputs)
    values: dict[str, Array] = {}

    def put(name: str, value: Array) -> None:
        values[name] = value
        if visit is not None:
            visit(name, value)

    for name in graph.inputs:
        put(name, np.asarray(inputs[name], np.float64))
    last_use = {name: i for i, op in enumerate(graph.ops) for name in op.inputs}
    for i, op in enumerate(graph.ops):
        put(op.output, _run_op(op, graph.tensors, values))
        for name in set(op.inputs):
            if last_use[name] == i and name not in graph.outputs:
                values.pop(name, None)
    return {name: values[name].astype(np.float32) for name in graph.outputs}


def _run_op(op: Op, tensors: Mapping[str, Tensor], values: Mapping[str, Array]) -> Array:
    x = values[op.inputs[0]]  # [n, ...]
    out = tensors[op.output].shape
    constants = [tensors[n].data for n in op.inputs[1:]]
    if op.kind is OpKind.ADD:
        y = x + values[op.inputs[1]]
    elif op.kind is OpKind.RESHAPE:
        return np.asarray(x.reshape(x.shape[0], *out[1:]))
    elif op.kind is OpKind.SOFTMAX:
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return np.asarray(e / e.sum(axis=-1, keepdims=True))
    elif op.kind is OpKind.FULLY_CONNECTED:
        assert constants[0] is not None
        y = x.reshape(x.shape[0], -1) @ constants[0].T.astype(np.float64)
    else:
        y = _run_windowed(op, x, out, constants[0] if constants else None)
    if len(constants) == 2:
        assert constants[1] is not None
        y = y + constants[1].astype(np.float64)
    return np.asarray(np.clip(y, op.clamp.lo, op.clamp.hi))


def _run_windowed(op: Op, x: Array, out: tuple[int, ...], w: Array | None) -> Array:
    assert op.window is not None
    size = (out[1], out[2])
    if op.kind is OpKind.MAX_POOL:
        return np.asarray(windows(x, op.window, size, -np.inf).max(axis=(4, 5)))
    patches = windows(x, op.window, size, 0.0)  # [n, oh, ow, c, kh, kw]
    if op.kind is OpKind.AVG_POOL:
        ones = np.ones((1, *x.shape[1:3], 1))
        count = windows(ones, op.window, size, 0.0).sum(axis=(4, 5))
        return np.asarray(patches.sum(axis=(4, 5)) / count)
    assert w is not None
    if op.kind is OpKind.CONV2D:
        return np.asarray(np.tensordot(patches, w.astype(np.float64), ([4, 5, 3], [1, 2, 3])))
    multiplier = out[3] // x.shape[3]
    kernel = w[0].reshape(*w.shape[1:3], x.shape[3], multiplier).astype(np.float64)
    y = np.einsum("nyxchw,hwcm->nyxcm", patches, kernel)
    return np.asarray(y.reshape(*y.shape[:3], out[3]))
