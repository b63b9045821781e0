"""Weights and biases of a layer as integers: symmetric int8 with a scale per output channel.

An output channel whose weights are all zero has no range of its own. It gets the largest scale of
its layer, so that a class that starts from nothing and is learned in the field has the same room
as those that were trained (with a tiny scale its row would saturate after a few steps).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fieldloop.errors import UsageError
from fieldloop.ir.op import Op, OpKind, Requant
from fieldloop.ir.tensor import Array, Quant, as_float32
from fieldloop.quantize.fixedpoint import activation_range, weighted_factors
from fieldloop.quantize.options import Method

CHANNEL_AXIS = {OpKind.CONV2D: 0, OpKind.DEPTHWISE_CONV2D: 3, OpKind.FULLY_CONNECTED: 0}
# Scales stay between these, so that the product of two of them is a normal float32.
SMALLEST_SCALE, LARGEST_WEIGHT = 2.0**-60, 2.0**60
_INT32 = np.iinfo(np.int32)
# Parts of the largest weight that are tried as the end of the range.
_PARTS = np.linspace(1.0, 0.5, 26)


@dataclass(frozen=True, slots=True, eq=False)
class Int8Layer:
    """A layer as the device has it."""

    weights: npt.NDArray[np.int8]
    weight_quant: Quant
    bias: npt.NDArray[np.int32]
    bias_quant: Quant
    fixed: Requant


def weight_quant(
    w: Array, axis: int, method: Method = Method.MINMAX, headroom: float = 1.0
) -> Quant:
    """Symmetric int8, one scale per channel along `axis`; `headroom` times wider than it needs."""
    rows = np.moveaxis(w.astype(np.float64), axis, 0).reshape(w.shape[axis], -1)
    largest = np.abs(rows).max(axis=1)
    top = float(largest.max())
    if not top < LARGEST_WEIGHT:
        raise UsageError(f"weights: expected finite ones below 2**60, got {top:.3g}")
    if method is Method.MSE:
        largest = largest * _least_error_parts(rows, largest)
    largest = largest * headroom
    top = float(largest.max())
    fallback = top if top > 0.0 else 1.0
    scales = np.where(largest > 0.0, largest, fallback) / 127.0
    # A scale far below its layer's would need biases and factors beyond 32 bits.
    scales = np.maximum(scales, max(fallback / 127.0 * 2.0**-20, SMALLEST_SCALE))
    return Quant(tuple(as_float32(s) for s in scales), 0, axis)


def _least_error_parts(rows: Array, largest: Array) -> Array:
    """The part of each row's largest weight at which rounding and clipping cost least."""
    best = np.ones(len(rows))
    least = np.full(len(rows), np.inf)
    safe = np.where(largest > 0.0, largest, 1.0)
    for part in _PARTS:
        step = (safe * part / 127.0)[:, None]
        made = np.clip(np.rint(rows / step), -127, 127) * step
        error = np.square(rows - made).sum(axis=1)
        better = error < least
        best[better], least[better] = part, error[better]
    return best


def int8_layer(
    op: Op,
    w: Array,
    bias: Array | None,
    x: Quant,
    out: Quant,
    method: Method = Method.MINMAX,
    headroom: float = 1.0,
) -> Int8Layer:
    """A weighted operator between two quantisations, from its real weights and bias [c_out]."""
    axis = CHANNEL_AXIS[op.kind]
    quant = weight_quant(w, axis, method, headroom)
    broadcast = [1] * w.ndim
    broadcast[axis] = -1
    scales = np.array(quant.scales, np.float64)
    q = np.rint(w.astype(np.float64) / scales.reshape(broadcast))
    # The device's layers always have a bias: the learner trains it.
    real = np.zeros(len(scales)) if bias is None else bias.astype(np.float64)
    b = np.clip(np.rint(real / (x.scale * scales)), _INT32.min, _INT32.max)
    fixed = Requant(
        *activation_range(op.clamp, out),
        weighted_factors(x, quant, out),
    )
    return Int8Layer(
        np.clip(q, -127, 127).astype(np.int8),
        quant,
        b.astype(np.int32),
        Quant(tuple(as_float32(x.scale * s) for s in quant.scales), 0, 0),
        fixed,
    )
