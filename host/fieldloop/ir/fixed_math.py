"""Fixed-point arithmetic of TensorFlow Lite Micro (gemmlowp, double rounding), on int64 arrays.

Values stay inside int32 where the device's do; int64 only holds the products.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int64]

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def saturating_rounding_doubling_high_mul(a: Int, b: Int | int) -> Int:
    """round(a * b / 2**31), halves away from zero for positive products and towards it below."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    high = np.where(nudged >= 0, nudged >> 31, -((-nudged) >> 31))  # C division truncates
    return np.asarray(np.minimum(high, INT32_MAX), np.int64)


def rounding_divide_by_pot(x: Int, exponent: Int | int) -> Int:
    """round(x / 2**exponent), halves away from zero."""
    x, exponent = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    mask = (np.int64(1) << exponent) - 1
    threshold = (mask >> 1) + (x < 0)
    return np.asarray((x >> exponent) + ((x & mask) > threshold), np.int64)


def wrap32(x: Int) -> Int:
    """What is left of x in 32 bits, two's complement."""
    return np.asarray(((x + 2**31) & (2**32 - 1)) - 2**31, np.int64)


def requantize_once(acc: Int, multiplier: Int | int, shift: Int | int) -> Int:
    """LiteRT's single rounding: (acc * multiplier + 2**(30 - shift)) >> (31 - shift)."""
    right = 31 - np.asarray(shift, np.int64)
    product = np.asarray(acc, np.int64) * np.asarray(multiplier, np.int64)
    return np.asarray((product + (np.int64(1) << (right - 1))) >> right, np.int64)


def requantize(acc: Int, multiplier: Int | int, shift: Int | int) -> Int:
    """MultiplyByQuantizedMultiplier: acc * multiplier / 2**31 * 2**shift."""
    shift = np.asarray(shift, np.int64)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    high = saturating_rounding_doubling_high_mul(
        wrap32(np.asarray(acc, np.int64) << left), multiplier
    )
    return rounding_divide_by_pot(high, right)


def rescale_pot(x: Int, exponent: int) -> Int:
    """gemmlowp's SaturatingRoundingMultiplyByPOT: x * 2**exponent."""
    if exponent <= 0:
        return rounding_divide_by_pot(x, -exponent)
    return np.asarray(np.clip(np.asarray(x, np.int64) << exponent, INT32_MIN, INT32_MAX))


# exp(-2**k) for k = -2 .. 4 in Q0.31
_EXP_STEPS = (
    (-2, 1672461947),
    (-1, 1302514674),
    (0, 790015084),
    (1, 290630308),
    (2, 39332535),
    (3, 720401),
    (4, 242),
)


def exp_on_negative_values(a: Int, integer_bits: int = 5) -> Int:
    """exp of a <= 0 in Q(integer_bits), 5 or 4 of them, as Q0.31."""
    mul = saturating_rounding_doubling_high_mul
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    reduced = (a & (quarter - 1)) - quarter  # in [-1/4, 0)
    # Taylor expansion around -1/8
    x = rescale_pot(reduced, integer_bits) + (1 << 28)
    x2 = mul(x, x)
    x3 = mul(x2, x)
    x4_over_4 = rescale_pot(mul(x2, x2), -2)
    tail = rescale_pot(mul(x4_over_4 + x3, 715827883) + x2, -1)
    result = 1895147668 + mul(x + tail, 1895147668)
    remainder = reduced - a
    for exponent, factor in _EXP_STEPS:
        if exponent >= integer_bits:
            break  # that bit is the sign
        bit = np.int64(1) << (fraction_bits + exponent)
        result = np.where(remainder & bit, mul(result, factor), result)
    return np.where(a == 0, INT32_MAX, result).astype(np.int64)


def reciprocal(x: Int, integer_bits: int) -> tuple[Int, Int]:
    """1 / x for x >= 1 in Q(integer_bits): a Q0.31 fraction and the bits to shift it right by."""
    x = np.asarray(x, np.int64)
    headroom = 32 - np.frexp(x.astype(np.float64))[1].astype(np.int64)  # leading zeros
    fraction = (x << headroom) - (np.int64(1) << 31)  # x = (1 + fraction), fraction in [0, 1)
    return reciprocal_of_one_plus(fraction)[0], integer_bits - headroom


def reciprocal_of_one_plus(fraction: Int) -> tuple[Int, Int]:
    """1 / (1 + fraction) of a Q0.31 fraction: as Q0.31, and twice that as Q2.29 (unsaturated)."""
    mul = saturating_rounding_doubling_high_mul
    # Newton-Raphson
    half_denominator = (fraction + INT32_MAX + 1) >> 1
    r = 1515870810 + mul(half_denominator, -1010580540)
    for _ in range(3):
        error = (1 << 29) - mul(half_denominator, r)
        r = r + rescale_pot(mul(r, error), 2)
    return rescale_pot(r, 1), r
