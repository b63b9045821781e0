"""Functions of one int8 value as tables of 256, entry by entry as the reference kernels do it.

TensorFlow Lite Micro's integer arithmetic for int8; LiteRT's reference kernels for what came as
uint8 (less 128, zero points too). Every function here returns int8 [256], for q of -128 to 127.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fieldloop.errors import UsageError
from fieldloop.ir import fixed_math as fm
from fieldloop.ir.tensor import Quant
from fieldloop.quantize.fixedpoint import quantize_multiplier, round_half_away

Int = npt.NDArray[np.int64]
Int8 = npt.NDArray[np.int8]

ALL = np.arange(-128, 128, dtype=np.int64)
_INTEGER_BITS = 4  # of the argument of logistic and tanh
_HALF = 1 << 30


def _int8(q: Int, low: int = -128, high: int = 127) -> Int8:
    return np.clip(q, low, high).astype(np.int8)


def identity() -> Int8:
    """The same integer under another quantisation."""
    return ALL.astype(np.int8)


def rescale(x: Quant, out: Quant, *, low: int = -128, high: int = 127) -> Int8:
    """QUANTIZE from int8 to int8: the factor s_x / s_out in float64."""
    return _scaled(x, out, x.scale / out.scale, low, high)


def relu(x: Quant, out: Quant, *, low: int, high: int) -> Int8:
    """RELU and its kin: the factor in float32, then the clamp."""
    return _scaled(x, out, _ratio(x.scale, out.scale), low, high)


def _scaled(x: Quant, out: Quant, factor: float, low: int, high: int) -> Int8:
    multiplier, shift = quantize_multiplier(factor)
    y = fm.requantize(ALL - x.zero_point, multiplier, shift) + out.zero_point
    return _int8(y, low, high)


def clamp(low: int, high: int) -> Int8:
    """RELU6 of TensorFlow Lite Micro: no rescaling at all."""
    return _int8(ALL, low, high)


def leaky_relu(x: Quant, out: Quant, alpha: float) -> Int8:
    """LEAKY_RELU: two factors, both in float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        slope = np.float32(x.scale) * np.float32(alpha) / np.float32(out.scale)
    below = _signed_factor(float(slope))
    return _two_slopes(ALL - x.zero_point, _ratio(x.scale, out.scale), below, out)


def prelu(x: Quant, out: Quant, alpha: Quant, slope: int) -> Int8:
    """PRELU with the slope alpha.scale * slope (its zero point is already taken off)."""
    multiplier, shift = quantize_multiplier(x.scale * alpha.scale / out.scale)
    return _two_slopes(
        ALL - x.zero_point,
        x.scale / out.scale,
        lambda value: fm.requantize(value * slope, multiplier, shift),
        out,
    )


def _two_slopes(value: Int, above: float, below: Callable[[Int], Int], out: Quant) -> Int8:
    multiplier, shift = quantize_multiplier(above)
    y = np.where(value >= 0, fm.requantize(value, multiplier, shift), below(value))
    return _int8(y + out.zero_point)


def _signed_factor(factor: float) -> Callable[[Int], Int]:
    if not math.isfinite(factor):
        raise UsageError(f"expected a finite factor, got {factor!r}")
    multiplier, shift = quantize_multiplier(abs(factor))
    sign = -1 if factor < 0.0 else 1
    return lambda value: sign * fm.requantize(value, multiplier, shift)


def absolute(x: Quant, out: Quant) -> Int8:
    """ABS: the factor in float32, where the scales differ."""
    value = np.abs(ALL - x.zero_point)
    if x.scale != out.scale:
        value = fm.requantize(value, *quantize_multiplier(_ratio(x.scale, out.scale)))
    return _int8(value + out.zero_point)


def logistic(x: Quant) -> Int8:
    """LOGISTIC; the output's scale is 1/256 and its zero point -128."""

    def function(value: Int) -> Int:
        exps = fm.exp_on_negative_values(-np.abs(value), _INTEGER_BITS)
        y, _ = fm.reciprocal_of_one_plus(exps)
        y = np.where(value < 0, fm.INT32_MAX - y, y)
        y = np.where(value == 0, _HALF, y)
        return fm.rounding_divide_by_pot(y, 31 - 8) - 128

    return _of_q4(x, function)


def tanh(x: Quant) -> Int8:
    """TANH; the output's scale is 1/128 and its zero point 0."""

    def function(value: Int) -> Int:
        # tanh(a) = (1 - e) / (1 + e), e = exp(-2 |a|): the same bits with one integer bit more
        exps = fm.exp_on_negative_values(-np.abs(value), _INTEGER_BITS + 1)
        _, twice = fm.reciprocal_of_one_plus(exps)
        y = fm.rescale_pot(twice - (1 << 29), 2)
        y = np.where(value == 0, 0, np.where(value < 0, -y, y))
        return fm.rounding_divide_by_pot(y, 31 - 7)

    return _of_q4(x, function)


def _of_q4(x: Quant, function: Callable[[Int], Int]) -> Int8:
    """`function` of x in Q4.27; beyond what that holds, the ends."""
    fraction, shift = math.frexp(x.scale * 2.0 ** (31 - _INTEGER_BITS))
    multiplier = min(round_half_away(fraction * 2.0**31), fm.INT32_MAX)
    radius = math.floor(min(((1 << _INTEGER_BITS) - 1) * 2.0 ** (31 - _INTEGER_BITS - shift), 1e9))
    value = ALL - x.zero_point
    inside = np.abs(value) < radius
    in_q4 = fm.requantize(np.where(inside, value, 0), multiplier, max(min(shift, 31), -62))
    y = np.where(inside, function(in_q4), np.where(value <= -radius, -128, 127))
    return _int8(y)


def hard_swish(x: Quant, out: Quant) -> Int8:
    """HARD_SWISH: 16-bit fixed point with saturating shifts."""
    hires = np.float32(1.0 / 128.0) * np.float32(x.scale)
    with np.errstate(over="ignore"):
        to_out = float(hires / np.float32(out.scale))
        to_reluish = float(hires / (np.float32(3.0) / np.float32(32768.0)))
    out_multiplier, out_shift = quantize_multiplier(to_out)
    reluish_multiplier, reluish_shift = quantize_multiplier(to_reluish)
    if out_shift > 0:
        raise UsageError(
            f"hard swish: output scale {out.scale!r} is too small for input scale {x.scale!r}"
        )
    value = (ALL - x.zero_point) << 7
    preshift = _high_mul_16(value, _downscaled(out_multiplier))
    reluish = value
    if reluish_shift > 0:
        reluish = _saturating_shift_16(reluish, reluish_shift - 1)
    reluish = _high_mul_16(reluish, _downscaled(reluish_multiplier))
    if reluish_shift > 0:
        reluish = _saturating_shift_16(reluish, 1)
    elif reluish_shift < 0:
        reluish = fm.rounding_divide_by_pot(reluish, -reluish_shift)
    reluish = (reluish + (1 << 15)) >> 1
    product = reluish * preshift
    y = np.sign(product) * (np.abs(product) >> 15)  # truncates: no rounding here
    return _int8(fm.rounding_divide_by_pot(y, -out_shift) + out.zero_point)


def _high_mul_16(a: Int, b: int) -> Int:
    """round(a * b / 2**15), halves away from zero for positive products and towards it below."""
    product = a * b
    nudged = product + np.where(product >= 0, 1 << 14, 1 - (1 << 14))
    return np.asarray(np.sign(nudged) * (np.abs(nudged) >> 15))


def _downscaled(multiplier: int) -> int:
    return min((multiplier + (1 << 15)) >> 16, 0x7FFF)


def _saturating_shift_16(value: Int, shift: int) -> Int:
    return np.asarray(np.clip(value << shift, -(1 << 15), (1 << 15) - 1), np.int64)


def of_reals(x: Quant, out: Quant, function: Callable[[float], float]) -> Int8:
    """A float function of the real value, as TensorFlow Lite fills its tables: in float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        inverse = np.float32(1.0) / np.float32(out.scale)
        reals = np.float32(x.scale) * (ALL - x.zero_point).astype(np.float32)
        made = np.array([_float32(function, float(real)) for real in reals], np.float32)
        steps = np.nan_to_num((made * inverse).astype(np.float64), nan=0.0)
    rounded = np.copysign(np.floor(np.minimum(np.abs(steps), 1e9) + 0.5), steps)
    return _int8(rounded.astype(np.int64) + out.zero_point)


def _float32(function: Callable[[float], float], real: float) -> float:
    try:
        return function(real)
    except OverflowError:
        return math.inf


def elu(real: float) -> float:
    # exp in float32, as the kernel has it: exp(x) - 1 loses digits near 0, and so must we
    return float(np.float32(math.exp(real))) - 1.0 if real < 0.0 else real


def sigmoid(real: float) -> float:
    return float(np.float32(1.0) / (np.float32(1.0) + np.float32(math.exp(min(-real, 88.0)))))


def concat_rescale(x: Quant, out: Quant) -> Int8:
    """What LiteRT's uint8 CONCATENATION does to an input of another quantisation (float32)."""
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.float32(x.scale) * (np.float32(1.0) / np.float32(out.scale))
        # Bytes as LiteRT has them: the products are rounded to float32 before they are added.
        bias = np.float32(-(x.zero_point + 128)) * scale
        steps = (ALL + 128).astype(np.float32) * scale + bias
    wide = np.nan_to_num(steps.astype(np.float64), nan=0.0)
    rounded = np.copysign(np.floor(np.minimum(np.abs(wide), 1e9) + 0.5), wide)
    return _int8(rounded.astype(np.int64) + out.zero_point)


def _ratio(a: float, b: float) -> float:
    """a / b in float32."""
    with np.errstate(over="ignore"):
        return float(np.float32(a) / np.float32(b))
