"""Every operator on real numbers, in float64: written to be read, not to be fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fieldloop.ir.op import POOLS, WEIGHTED, Mean, Op, OpKind, Unary, UnaryKind
from fieldloop.ir.tensor import Array, Tensor
from fieldloop.ir.windows import convolve, windows

_BINARY: dict[OpKind, Callable[[Array, Array], Array]] = {
    OpKind.ADD: np.add,
    OpKind.SUB: np.subtract,
    OpKind.MUL: np.multiply,
    OpKind.MINIMUM: np.minimum,
    OpKind.MAXIMUM: np.maximum,
}


def run_float_op(op: Op, tensors: Mapping[str, Tensor], values: Mapping[str, Array]) -> Array:
    """The output of one operator that computes; `values` are float64, constants among them."""
    x = values[op.inputs[0]]  # [n, ...]
    out = tensors[op.output].shape
    if op.kind is OpKind.SOFTMAX:
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return np.asarray(e / e.sum(axis=-1, keepdims=True))
    if isinstance(op.attrs, Unary):
        return unary(op.attrs, x)
    if op.kind in _BINARY:
        y = _BINARY[op.kind](x, values[op.inputs[1]])
    elif op.kind in POOLS:
        y = _pool(op, x, out)
    elif op.kind in WEIGHTED:
        w = values[op.inputs[1]]
        if op.kind is OpKind.FULLY_CONNECTED:
            y = x.reshape(x.shape[0], -1) @ w.T
        else:
            y = convolve(op, x, w, (out[1], out[2]))
        if len(op.inputs) > 2:
            y = y + values[op.inputs[2]]
    else:
        assert isinstance(op.attrs, Mean)
        y = x.mean(axis=op.attrs.axes, keepdims=op.attrs.keep)
        y = y.reshape(out) if y.ndim == 0 else y
    return np.asarray(np.clip(y, op.clamp.lo, op.clamp.hi))


def unary(function: Unary, x: Array) -> Array:
    """A function of each real number; float64 in, float64 out."""
    a, b = function.a, function.b
    kind = function.kind
    if kind is UnaryKind.RELU:
        y = np.maximum(x, 0.0)
    elif kind is UnaryKind.CLIP:
        y = np.clip(x, a, b)
    elif kind is UnaryKind.LEAKY_RELU:
        y = np.where(x < 0.0, a * x, x)
    elif kind is UnaryKind.SIGMOID:
        e = np.exp(-np.abs(x))  # never overflows
        y = np.where(x < 0.0, e, 1.0) / (1.0 + e)
    elif kind is UnaryKind.TANH:
        y = np.tanh(x)
    elif kind is UnaryKind.HARDSWISH:
        y = x * np.clip(x + 3.0, 0.0, 6.0) / 6.0
    elif kind is UnaryKind.HARDSIGMOID:
        y = np.clip(a * x + b, 0.0, 1.0)
    elif kind is UnaryKind.ELU:
        y = np.where(x < 0.0, a * np.expm1(np.minimum(x, 0.0)), x)
    elif kind is UnaryKind.ABS:
        y = np.abs(x)
    else:
        assert kind is UnaryKind.EXP
        y = np.exp(x)
    return np.asarray(y)


def _pool(op: Op, x: Array, out: tuple[int, ...]) -> Array:
    assert op.window is not None
    size = (out[1], out[2])
    if op.kind is OpKind.MAX_POOL:
        return np.asarray(windows(x, op.window, size, -np.inf).max(axis=(4, 5)))
    total = windows(x, op.window, size, 0.0).sum(axis=(4, 5))
    count = windows(np.ones((1, *x.shape[1:3], 1)), op.window, size, 0.0).sum(axis=(4, 5))
    return np.asarray(total / count)
