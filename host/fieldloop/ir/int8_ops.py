"""Every int8 operator in numpy, equal to the C core and to TensorFlow Lite Micro on every byte."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fieldloop.ir import fixed_math as fm
from fieldloop.ir.arithmetic import check_fixed
from fieldloop.ir.op import (
    AddFixed,
    Mean,
    MeanFixed,
    MulFixed,
    Op,
    OpKind,
    Requant,
    SoftmaxFixed,
)
from fieldloop.ir.tensor import Array, Tensor
from fieldloop.ir.windows import convolve, windows

_ACCUMULATOR_BITS = 12  # integer bits of the softmax's sum


def run_int8_op(op: Op, tensors: Mapping[str, Tensor], values: Mapping[str, Array]) -> Array:
    """The int8 output [n, ...] of one operator; `values` are int8 and int32, constants too."""
    check_fixed(op, tensors)
    x = values[op.inputs[0]]
    if op.kind is OpKind.TABLE:
        return np.asarray(values[op.inputs[1]][x.astype(np.int64) + 128])
    if isinstance(op.fixed, SoftmaxFixed):
        return _softmax(x, op.fixed)
    if op.fixed is None:
        return _extremum(op, values)
    y = _real_op(op, tensors, values)
    return np.asarray(np.clip(y, op.fixed.act_min, op.fixed.act_max), np.int8)


def _real_op(op: Op, tensors: Mapping[str, Tensor], values: Mapping[str, Array]) -> Array:
    """The output before its clamp, int64."""
    x = values[op.inputs[0]].astype(np.int64)
    out = tensors[op.output]
    fixed = op.fixed
    if op.kind in (OpKind.MINIMUM, OpKind.MAXIMUM):
        return _extremum(op, values)
    if isinstance(fixed, AddFixed | MulFixed):
        a, b = (_centred(tensors[name], values[name]) for name in op.inputs)
        if isinstance(fixed, MulFixed):
            y = fm.requantize(a * b, fixed.out.multiplier, fixed.out.shift)
        else:
            y = _sum(a, b, fixed, -1 if op.kind is OpKind.SUB else 1)
    elif isinstance(fixed, MeanFixed):
        assert isinstance(op.attrs, Mean)
        total = _centred(tensors[op.inputs[0]], x).sum(axis=op.attrs.axes, keepdims=op.attrs.keep)
        total = fm.wrap32(np.asarray(total))
        y = fm.requantize(total, fixed.out.multiplier, fixed.out.shift)
        y = y.reshape(out.shape) if y.ndim == 0 else y
    elif op.kind is OpKind.MAX_POOL:
        assert op.window is not None
        size = (out.shape[1], out.shape[2])
        return np.asarray(windows(x, op.window, size, -128).max(axis=(4, 5)))
    elif op.kind is OpKind.AVG_POOL:
        return _avg_pool(op, x, out)
    else:
        assert isinstance(fixed, Requant)
        y = _weighted(op, tensors, values, fixed)
    return y + _zero_point(out)


def quantize(real: Array, out: Tensor) -> Array:
    """int8 of real numbers: in float32, halves away from zero, as QUANTIZE does it."""
    assert out.quant is not None
    steps = real.astype(np.float32) / np.float32(out.quant.scale)
    steps = np.clip(np.nan_to_num(steps, nan=0.0), -512.0, 512.0).astype(np.float64)
    whole = np.copysign(np.floor(np.abs(steps) + 0.5), steps) + out.quant.zero_point
    return np.asarray(np.clip(whole, -128, 127), np.int8)


def dequantize(q: Array, x: Tensor) -> Array:
    """Real numbers of int8: float32 products, kept as float64."""
    assert x.quant is not None
    steps = q.astype(np.float32) - np.float32(x.quant.zero_point)
    return np.asarray((np.float32(x.quant.scale) * steps).astype(np.float64))


def _zero_point(tensor: Tensor) -> int:
    assert tensor.quant is not None
    return tensor.quant.zero_point


def _centred(tensor: Tensor, value: Array) -> Array:
    return np.asarray(value.astype(np.int64) - _zero_point(tensor))


def _extremum(op: Op, values: Mapping[str, Array]) -> Array:
    pick: Callable[[Array, Array], Array]
    pick = np.minimum if op.kind is OpKind.MINIMUM else np.maximum
    return pick(values[op.inputs[0]], values[op.inputs[1]])


def _weighted(
    op: Op, tensors: Mapping[str, Tensor], values: Mapping[str, Array], fixed: Requant
) -> Array:
    # Products and sums of int8 values are exact in float64, and its matrix product is fast.
    x = _centred(tensors[op.inputs[0]], values[op.inputs[0]]).astype(np.float64)
    w = values[op.inputs[1]].astype(np.float64)
    quant = tensors[op.inputs[1]].quant
    if quant is not None and quant.zero_point:
        w = w - quant.zero_point
    if op.kind is OpKind.FULLY_CONNECTED:
        acc = x.reshape(x.shape[0], -1) @ w.T
    else:
        acc = convolve(op, x, w, (tensors[op.output].shape[1], tensors[op.output].shape[2]))
    total = acc.astype(np.int64)
    if len(op.inputs) > 2:
        total = total + values[op.inputs[2]]
    total = fm.wrap32(total)
    multipliers = np.array([f.multiplier for f in fixed.factors], np.int64)
    shifts = np.array([f.shift for f in fixed.factors], np.int64)
    if fixed.single_rounding:
        return fm.requantize_once(total, multipliers, shifts)
    return fm.requantize(total, multipliers, shifts)


def _avg_pool(op: Op, x: Array, out: Tensor) -> Array:
    assert op.window is not None
    size = (out.shape[1], out.shape[2])
    total = windows(x, op.window, size, 0).sum(axis=(4, 5))
    count = windows(np.ones((1, *x.shape[1:3], 1), np.int64), op.window, size, 0).sum(axis=(4, 5))
    # Halves away from zero: C division truncates.
    rounded = np.where(total > 0, total + count // 2, total - count // 2)
    return np.asarray(np.sign(rounded) * (np.abs(rounded) // count))


def _sum(a: Array, b: Array, fixed: AddFixed, sign: int) -> Array:
    scaled = [
        fm.requantize(value << fixed.left_shift, factor.multiplier, factor.shift)
        for value, factor in ((a, fixed.a), (b, fixed.b))
    ]
    return fm.requantize(scaled[0] + sign * scaled[1], fixed.out.multiplier, fixed.out.shift)


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
