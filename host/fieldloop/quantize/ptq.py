"""Post-training quantisation of a float graph to int8, as TensorFlow Lite does it.

Activations: one asymmetric scale a tensor, from calibrated ranges that always hold zero. Weights:
symmetric in -127..127, one scale per output channel. Biases: int32 at s_x * s_w. Pools and
reshapes keep their input's quantisation; a softmax ends at 1/256, -128.

An output channel whose weights are all zero has no range of its own. It gets the largest scale of
its layer, so that a class that starts from nothing and is learned in the field has the same room
as those that were trained (with a tiny scale its row would saturate after a few steps).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import POOLS, WEIGHTED, Fixed, Op, OpKind, Requant
from fieldloop.ir.tensor import Array, DType, Quant, Tensor, as_float32
from fieldloop.quantize.calibrate import Range, calibrate
from fieldloop.quantize.fixedpoint import (
    activation_range,
    add_params,
    softmax_params,
    weighted_factors,
)

SOFTMAX_OUTPUT = Quant((1.0 / 256.0,), -128)
_CHANNEL_AXIS = {OpKind.CONV2D: 0, OpKind.DEPTHWISE_CONV2D: 3, OpKind.FULLY_CONNECTED: 0}
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """An int8 graph, and what calibration saw of the float one (by tensor name)."""

    graph: Graph
    ranges: Mapping[str, Range]


def activation_quant(lo: float, hi: float) -> Quant:
    """Asymmetric int8 for real values in [lo, hi], widened to hold zero exactly."""
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    if hi - lo < 1e-30:
        return Quant((as_float32(1.0 / 255.0),), 0)  # always zero: any scale will do
    scale = as_float32((hi - lo) / 255.0)
    zero_point = int(np.clip(np.rint(-128.0 - lo / scale), -128, 127))
    return Quant((scale,), zero_point)


def weight_quant(w: Array, axis: int) -> Quant:
    """Symmetric int8, one scale per channel along `axis`."""
    others = tuple(i for i in range(w.ndim) if i != axis)
    largest = np.abs(w.astype(np.float64)).max(axis=others)
    top = float(largest.max())
    fallback = top if top > 0.0 else 1.0
    scales = np.where(largest > 0.0, largest, fallback) / 127.0
    # A scale far below its layer's would need biases and factors beyond 32 bits.
    scales = np.maximum(scales, fallback / 127.0 * 2.0**-20)
    return Quant(tuple(as_float32(s) for s in scales), 0, axis)


def quantize_graph(
    graph: Graph,
    samples: Mapping[str, Array],
    *,
    percentile: float = 100.0,
    headroom: Mapping[str, float] | None = None,
) -> Quantized:
    """The int8 graph of a float one, calibrated over `samples`.

    `headroom` widens the calibrated range of single tensors by a factor >= 1 (logits that will
    grow while new classes are learned).
    """
    ranges = calibrate(graph, samples, percentile=percentile)
    quants = _activation_quants(graph, ranges, headroom or {})
    tensors = {
        t.name: replace(t, dtype=DType.INT8, quant=quants[t.name]) for t in graph.activations
    }
    ops = [_quantize_op(op, graph, quants, tensors) for op in graph.ops]
    quantized = Graph(graph.name, tensors, tuple(ops), graph.inputs, graph.outputs)
    return Quantized(quantized, ranges)


def _activation_quants(
    graph: Graph, ranges: Mapping[str, Range], headroom: Mapping[str, float]
) -> dict[str, Quant]:
    quants: dict[str, Quant] = {}

    def calibrated(name: str) -> Quant:
        room = headroom.get(name, 1.0)
        if not room >= 1.0:
            raise UsageError(f"headroom of {name}: expected a factor >= 1, got {room}")
        return activation_quant(ranges[name].lo * room, ranges[name].hi * room)

    for name in graph.inputs:
        quants[name] = calibrated(name)
    for op in graph.ops:
        if op.kind in POOLS or op.kind is OpKind.RESHAPE:
            quants[op.output] = quants[op.inputs[0]]
        elif op.kind is OpKind.SOFTMAX:
            quants[op.output] = SOFTMAX_OUTPUT
        else:
            quants[op.output] = calibrated(op.output)
    return quants


def _quantize_op(
    op: Op, graph: Graph, quants: Mapping[str, Quant], tensors: dict[str, Tensor]
) -> Op:
    """The int8 operator; its constants are added to `tensors`."""
    out = quants[op.output]
    fixed: Fixed | None
    if op.kind is OpKind.RESHAPE:
        return op
    if op.kind is OpKind.SOFTMAX:
        fixed = softmax_params(quants[op.inputs[0]])
    elif op.kind is OpKind.ADD:
        fixed = add_params(quants[op.inputs[0]], quants[op.inputs[1]], out, op.clamp)
    elif op.kind in WEIGHTED:
        return _quantize_weighted(op, graph, quants, tensors)
    else:
        fixed = Requant(*activation_range(op.clamp, out))
    return replace(op, fixed=fixed)


def _quantize_weighted(
    op: Op, graph: Graph, quants: Mapping[str, Quant], tensors: dict[str, Tensor]
) -> Op:
    x, out = quants[op.inputs[0]], quants[op.output]
    weights = graph.tensors[op.inputs[1]]
    assert weights.data is not None
    axis = _CHANNEL_AXIS[op.kind]
    w = weight_quant(weights.data, axis)
    broadcast = [1] * weights.data.ndim
    broadcast[axis] = -1
    scales = np.array(w.scales, np.float64)
    q = np.rint(weights.data.astype(np.float64) / scales.reshape(broadcast))
    w_data = np.clip(q, -127, 127).astype(np.int8)
    w_name = f"{op.name}.weights"
    tensors[w_name] = replace(weights, name=w_name, dtype=DType.INT8, quant=w, data=w_data)

    # The device's layers always have a bias: the learner trains it.
    bias_scales = tuple(as_float32(x.scale * s) for s in w.scales)
    real = np.zeros(len(scales))
    if len(op.inputs) > 2:
        bias = graph.tensors[op.inputs[2]].data
        assert bias is not None
        real = bias.astype(np.float64)
    b = np.clip(np.rint(real / (x.scale * scales)), _INT32.min, _INT32.max).astype(np.int32)
    b_name = f"{op.name}.bias"
    tensors[b_name] = Tensor(b_name, b.shape, DType.INT32, Quant(bias_scales, 0, 0), b)

    fixed = Requant(
        *activation_range(op.clamp, out),
        weighted_factors(x, w, out, fully_connected=op.kind is OpKind.FULLY_CONNECTED),
    )
    return replace(op, inputs=(op.inputs[0], w_name, b_name), fixed=fixed)
