"""The int8 reference: runs a quantised graph in numpy, equal to the C core on every byte.

One corner of the golden triangle; TensorFlow Lite Micro's reference kernels say what is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fieldloop.errors import UsageError
from fieldloop.ir import fixed_math as fm
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import AddFixed, Op, OpKind, Requant, SoftmaxFixed
from fieldloop.ir.reference import batch_of
from fieldloop.ir.tensor import Array, Tensor
from fieldloop.ir.windows import windows

_ACCUMULATOR_BITS = 12  # integer bits of the softmax's sum


def run_int8(
    graph: Graph,
    inputs: Mapping[str, Array],
    visit: Callable[[str, Array], None] | None = None,
) -> dict[str, Array]:
    """int8 outputs [n, ...] of a quantised graph for int8 inputs [n, ...]."""
    batch_of(graph, inputs)
    values: dict[str, Array] = {}
    for name in graph.inputs:
        if inputs[name].dtype != np.int8:
            raise UsageError(f"input {name}: expected int8, got {inputs[name].dtype}")
        values[name] = inputs[name]
        if visit is not None:
            visit(name, values[name])
    for op in graph.ops:
        values[op.output] = _run_op(op, graph.tensors, values)
        if visit is not None:
            visit(op.output, values[op.output])
    return {name: values[name] for name in graph.outputs}


def _zero_point(tensor: Tensor) -> int:
    assert tensor.quant is not None
    return tensor.quant.zero_point


def _run_op(op: Op, tensors: Mapping[str, Tensor], values: Mapping[str, Array]) -> Array:
    x = values[op.inputs[0]]
    out = tensors[op.output]
    if op.kind is OpKind.RESHAPE:
        return np.asarray(x.reshape(x.shape[0], *out.shape[1:]))
    if op.fixed is None:
        raise UsageError(f"operator {op.name}: this graph is not quantised")
    if isinstance(op.fixed, SoftmaxFixed):
        return _softmax(x, op.fixed)
    if isinstance(op.fixed, AddFixed):
        summands = [
            values[name].astype(np.int64) - _zero_point(tensors[name]) for name in op.inputs
        ]
        y = _add(summands[0], summands[1], op.fixed) + _zero_point(out)
    elif op.kind is OpKind.MAX_POOL:
        assert op.window is not None
        size = (out.shape[1], out.shape[2])
        y = windows(x.astype(np.int64), op.window, size, -128).max(axis=(4, 5))
    elif op.kind is OpKind.AVG_POOL:
        y = _avg_pool(op, x.astype(np.int64), out)
    else:
        assert isinstance(op.fixed, Requant)
        y = _weighted(op, tensors, x, op.fixed) + _zero_point(out)
    return np.asarray(np.clip(y, op.fixed.act_min, op.fixed.act_max), np.int8)


def _weighted(op: Op, tensors: Mapping[str, Tensor], x: Array, fixed: Requant) -> Array:
    out = tensors[op.output]
    # Products and sums of int8 values are exact in float64, and its matrix product is fast.
    real = x.astype(np.float64) - _zero_point(tensors[op.inputs[0]])
    data = tensors[op.inputs[1]].data
    assert data is not None
    w = data.astype(np.float64)
    if op.kind is OpKind.FULLY_CONNECTED:
        acc = real.reshape(x.shape[0], -1) @ w.T
    else:
        assert op.window is not None
        patches = windows(real, op.window, (out.shape[1], out.shape[2]), 0.0)
        if op.kind is OpKind.CONV2D:
            acc = np.tensordot(patches, w, axes=([4, 5, 3], [1, 2, 3]))
        else:
            kernel = w[0].reshape(*w.shape[1:3], x.shape[3], -1)
            acc = np.einsum("nyxchw,hwcm->nyxcm", patches, kernel)
            acc = acc.reshape(*acc.shape[:3], out.shape[3])
    total = acc.astype(np.int64)
    if len(op.inputs) > 2:
        bias = tensors[op.inputs[2]].data
        assert bias is not None
        total = total + bias.astype(np.int64)
    multipliers = np.array([f.multiplier for f in fixed.factors], np.int64)
    shifts = np.array([f.shift for f in fixed.factors], np.int64)
    return fm.requantize(total, multipliers, shifts)


def _avg_pool(op: Op, x: Array, out: Tensor) -> Array:
    assert op.window is not None
    size = (out.shape[1], out.shape[2])
    total = windows(x, op.window, size, 0).sum(axis=(4, 5))
    count = windows(np.ones((1, *x.shape[1:3], 1), np.int64), op.window, size, 0).sum(axis=(4, 5))
    # Halves away from zero: C division truncates.
    rounded = np.where(total > 0, total + count // 2, total - count // 2)
    return np.asarray(np.sign(rounded) * (np.abs(rounded) // count))


def _add(a: Array, b: Array, fixed: AddFixed) -> Array:
    scaled = [
        fm.requantize(value << fixed.left_shift, factor.multiplier, factor.shift)
        for value, factor in ((a, fixed.a), (b, fixed.b))
    ]
    return fm.requantize(scaled[0] + scaled[1], fixed.out.multiplier, fixed.out.shift)


def _softmax(x: Array, fixed: SoftmaxFixed) -> Array:
    mul = fm.saturating_rounding_doubling_high_mul
    diff = x.astype(np.int64) - x.max(axis=-1, keepdims=True).astype(np.int64)
    counts = diff >= fixed.diff_min
    scaled = mul(np.where(counts, diff, 0) << fixed.input_left_shift, fixed.input_multiplier)
    exps = fm.exp_on_negative_values(scaled)  # Q0.31
    terms = np.where(counts, fm.rescale_pot(exps, -_ACCUMULATOR_BITS), 0)
    scale, bits = fm.reciprocal(terms.sum(axis=-1, keepdims=True), _ACCUMULATOR_BITS)
    y = fm.rounding_divide_by_pot(mul(exps, scale), bits + 31 - 8) - 128
    return np.where(counts, np.clip(y, -128, 127), -128).astype(np.int8)
