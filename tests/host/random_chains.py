"""Random chains of operators that tiling by channels takes somewhere."""

from __future__ import annotations

import math

import numpy as np
from random_mixed import F32, I8, I32, MixedGrower

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, Mean, OpKind, Requant, Unary, UnaryKind
from fieldloop.ir.tensor import DType, Quant
from fieldloop.quantize.fixedpoint import mean_params, softmax_params

STARTS = (OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D, OpKind.MAX_POOL, OpKind.ADD)
INSIDE = (
    OpKind.DEPTHWISE_CONV2D,
    OpKind.MAX_POOL,
    OpKind.AVG_POOL,
    OpKind.ADD,
    OpKind.MUL,
    OpKind.MAXIMUM,
    OpKind.TABLE,
    OpKind.RESHAPE,
)
ENDS = (OpKind.CONV2D, OpKind.FULLY_CONNECTED, OpKind.MEAN, OpKind.RESHAPE, OpKind.SOFTMAX)


def chain(seed: int, *, dtype: DType) -> Graph:
    """A start, operators that work channel by channel, some ends: FDT takes most such chains."""
    rng = np.random.default_rng(seed)
    grower = MixedGrower(rng, plain=False)
    grower.input((1, grower.int(5, 11), grower.int(4, 9), grower.int(1, 4)), dtype)
    if dtype is I8 and rng.random() < 0.2:
        grower.input((1, grower.int(3, 20)), I32)  # and its embedding
    else:
        grow(grower, STARTS[rng.integers(len(STARTS))])
    for _ in range(grower.int(1, 5)):
        grow(grower, INSIDE[rng.integers(len(INSIDE))])
    for _ in range(3):
        grow(grower, ENDS[rng.integers(len(ENDS))])
    return grower.graph()


def grow(grower: MixedGrower, kind: OpKind) -> None:
    """One more operator on the last value, where it fits."""
    x = grower.values[-1]
    tensor = grower.tensors[x]
    shape, real = tensor.shape, tensor.dtype is F32
    if kind in (OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D, OpKind.FULLY_CONNECTED):
        grower.weighted(kind, x, Clamp(-2.0, 2.0))
    elif kind in (OpKind.ADD, OpKind.MUL, OpKind.MAXIMUM):
        grower.binary(kind, x, Clamp())
    elif kind in (OpKind.MAX_POOL, OpKind.AVG_POOL) and len(shape) == 4:
        window = grower.window(shape[1:3], pool=True)
        fixed = None if real else Requant(-100, 100)
        grower.put(kind, [x], tensor.quant, tensor.dtype, window=window, fixed=fixed)
    elif kind is OpKind.TABLE and not real:
        data = grower.rng.integers(-128, 128, 256).astype(np.int8)
        table = grower.constant(f"entries{len(grower.ops)}", data)
        grower.put(kind, [x, table], grower.quant(0.05), I8)
        if grower.rng.random() < 0.2:
            grower.put(OpKind.DEQUANTIZE, [grower.values[-1]], None, F32)
    elif kind is OpKind.TABLE:
        grower.put(OpKind.UNARY, [x], None, F32, attrs=Unary(UnaryKind.TANH))
        if grower.rng.random() < 0.2:
            grower.put(OpKind.QUANTIZE, [grower.values[-1]], grower.quant(0.02), I8)
    elif kind is OpKind.RESHAPE:
        made = (1, tensor.size // shape[-1], 1, shape[-1])
        if grower.rng.random() < 0.5:
            made = (1, tensor.size)
        grower.put(kind, [x], tensor.quant, tensor.dtype, shape=made)
    elif kind is OpKind.MEAN and len(shape) > 2:
        axes = tuple(range(1, len(shape) - 1))
        attrs = Mean(axes, bool(grower.rng.random() < 0.5))
        if real:
            grower.put(kind, [x], None, F32, attrs=attrs)
            return
        out = grower.quant(0.04)
        count = math.prod(shape[1:-1])
        fixed = mean_params(grower.quant_of(x), out, count, Clamp())
        grower.put(kind, [x], out, I8, fixed=fixed, attrs=attrs)
    elif kind is OpKind.SOFTMAX and not real:
        fixed = softmax_params(grower.quant_of(x))
        grower.put(kind, [x], Quant((1.0 / 256.0,), -128), I8, fixed=fixed)
