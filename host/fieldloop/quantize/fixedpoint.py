"""Real factors to fixed point, exactly as TensorFlow Lite prepares them.

The device never divides by a scale: every real factor of a quantised operator becomes a 31-bit
multiplier and a shift here, once, in float64 from the float32 scales that the image carries.
"""

from __future__ import annotations

import math

import numpy as np

from fieldloop.errors import UsageError
from fieldloop.ir.op import AddFixed, Clamp, Factor, MeanFixed, MulFixed, SoftmaxFixed
from fieldloop.ir.tensor import Quant

SOFTMAX_INTEGER_BITS = 5
ADD_LEFT_SHIFT = 20
MAX_SHIFT = 30


def round_half_away(value: float) -> int:
    """C's round(): TensorFlow Lite's rounding of reals on the host."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def quantize_multiplier(real: float) -> tuple[int, int]:
    """`(multiplier, shift)`: real ~ multiplier / 2**31 * 2**shift, multiplier in [2**30, 2**31).

    Factors below 2**-32 become (0, 0), as in TensorFlow Lite; those above 2**30 are refused.
    """
    if not (math.isfinite(real) and real >= 0):
        raise UsageError(f"fixed point: expected a finite factor >= 0, got {real!r}")
    if real == 0.0:
        return 0, 0
    mantissa, shift = math.frexp(real)
    multiplier = round_half_away(mantissa * 2.0**31)
    if multiplier == 2**31:
        multiplier //= 2
        shift += 1
    if shift < -31:
        return 0, 0
    if shift > MAX_SHIFT:
        raise UsageError(
            f"fixed point: expected a factor below 2**{MAX_SHIFT}, got {real!r}; "
            "the output's range is far too small for the input's"
        )
    return multiplier, shift


def factor(real: float) -> Factor:
    """quantize_multiplier as a Factor."""
    return Factor(*quantize_multiplier(real))


def weighted_factors(
    x: Quant, w: Quant, out: Quant, *, in_float32: bool = False
) -> tuple[Factor, ...]:
    """Accumulator to output, one factor per weight scale: s_x * s_w / s_out.

    `in_float32`: the two scales are multiplied in float32, as LiteRT does for uint8. tflite-micro
    multiplies them in float64, in every layer: bench/sweep.py found one output in 70,400 of ad01
    that the other product misses, and where the two differ it is always the float64 one.
    """
    if w.axis is None and in_float32:
        product = np.float32(x.scale) * np.float32(w.scale)
        return (factor(float(product) / out.scale),)
    return tuple(factor(x.scale * scale / out.scale) for scale in w.scales)


def activation_range(clamp: Clamp, out: Quant) -> tuple[int, int]:
    """The int8 clamp of a real one."""

    def edge(real: float, limit: int) -> int:
        if math.isinf(real):
            return limit
        # in float32, as TensorFlow Lite does
        with np.errstate(over="ignore"):
            steps = float(np.float32(real) / np.float32(out.scale))
        if math.isinf(steps):
            return -128 if steps < 0.0 else 127
        return min(max(out.zero_point + round_half_away(steps), -128), 127)

    return edge(clamp.lo, -128), edge(clamp.hi, 127)


def add_params(a: Quant, b: Quant, out: Quant, clamp: Clamp) -> AddFixed:
    """Of an addition or a subtraction: both operands at twice the larger scale, shifted left by
    20 bits; then to the output's.
    """
    twice_max = 2.0 * max(a.scale, b.scale)
    out_factor = factor(twice_max / ((1 << ADD_LEFT_SHIFT) * out.scale))
    if out_factor.shift > 0:
        raise UsageError(
            f"add: output scale {out.scale!r} is too small for input scales {a.scale!r}, "
            f"{b.scale!r}"
        )
    return AddFixed(
        *activation_range(clamp, out),
        factor(a.scale / twice_max),
        factor(b.scale / twice_max),
        out_factor,
        left_shift=ADD_LEFT_SHIFT,
    )


def mul_params(a: Quant, b: Quant, out: Quant, clamp: Clamp) -> MulFixed:
    """The factor s_a * s_b / s_out."""
    return MulFixed(*activation_range(clamp, out), factor(a.scale * b.scale / out.scale))


def mean_params(x: Quant, out: Quant, count: int, clamp: Clamp) -> MeanFixed:
    """s_x / s_out divided by `count` in integers, so the multiplier may be below 2**30."""
    multiplier, shift = quantize_multiplier(x.scale / out.scale)
    room = min(count.bit_length() - 1, 32, 31 + shift)
    return MeanFixed(
        *activation_range(clamp, out), Factor((multiplier << room) // count, shift - room)
    )


def softmax_params(x: Quant, beta: float = 1.0) -> SoftmaxFixed:
    """softmax(beta x), differences in Q5.26."""
    real = min(beta * x.scale * (1 << (31 - SOFTMAX_INTEGER_BITS)), 2.0**31 - 1.0)
    if real <= 1.0:
        raise UsageError(f"softmax: input scale {x.scale!r} is too small, expected above 2**-26")
    multiplier, left_shift = quantize_multiplier_above_one(real)
    span = ((1 << SOFTMAX_INTEGER_BITS) - 1) * (1 << (31 - SOFTMAX_INTEGER_BITS))
    radius = math.floor(span / (1 << left_shift))
    return SoftmaxFixed(input_multiplier=multiplier, input_left_shift=left_shift, diff_min=-radius)


def quantize_multiplier_above_one(real: float) -> tuple[int, int]:
    """As quantize_multiplier, for factors in (1, 2**31): the shift may be 31."""
    mantissa, shift = math.frexp(real)
    multiplier = round_half_away(mantissa * 2.0**31)
    if multiplier == 2**31:
        return multiplier // 2, shift + 1
    return multiplier, shift
