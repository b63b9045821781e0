"""The 16-bit deltas in numpy: what fl_backward_q.h promises, one function for each of C's.

A delta is an array of words, integers of -32767..32767, and an exponent: word * 2^exponent. Sums
are int64 here and must fit 32 bits; every sum of integers, so no order matters. Spots are rows
(y, x, word) of an integer array. Arrays that C writes to are written to in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
F = np.float32

WORD_LIMIT = 32767
LARGEST = float(np.finfo(F).max)
ABOVE_ANY_STEP = 1 << 62  # of 2^-32


@dataclass(frozen=True)
class Window:
    """Of a convolution; `pads` are top and left."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)
    multiplier: int = 1


@dataclass(frozen=True)
class Rule:
    """fl_step_rule_t of plain SGD; `w_scale` holds one scale, or one for each row."""

    lr: float
    x_scale: float
    x_zero: int
    w_scale: Array
    key: int
    max_step: int

    def row_scale(self, row: int) -> Any:
        return F(self.w_scale.ravel()[row if self.w_scale.size > 1 else 0])


@dataclass(frozen=True)
class Trained:
    """fl_trained_t: flat arrays; element j of row r at r * row_stride + j * step."""

    w: Array
    low: Array | None
    row_stride: int
    step: int = 1


def shifted(v: Array | int, by: int) -> Any:
    """v / 2^by, halves away from zero."""
    v = np.asarray(v, np.int64)
    half = 1 << (by - 1) if by else 0
    return np.sign(v) * ((np.abs(v) + half) >> by)


def fits_32_bits(sums: Array) -> None:
    assert np.abs(sums).max(initial=0) < 2**31, "a sum left 32 bits"


# ---- words, exponents, scales ----


def q_from_f32(delta: Array) -> Array:
    """The words; their exponent is -15."""
    exact = np.asarray(delta, F).astype(np.float64) * 32768
    words = np.sign(exact) * np.floor(np.abs(exact) + 0.5)
    return np.clip(words, -WORD_LIMIT, WORD_LIMIT).astype(np.int64)


def q_l1(delta: Array) -> int:
    return int(np.abs(delta.astype(np.int64)).sum())


def q_real(total: int, exponent: int) -> Any:
    exact = math.ldexp(float(total), max(min(exponent, 200), -1000))
    return F(min(exact, LARGEST))


def q_scale_exponent(scales: Array) -> int:
    """`scales`: of the rows that there are (one for all will do as well)."""
    largest = float(np.asarray(scales, F).max())
    return math.frexp(largest)[1] - 15 if largest > 0 else -163


def q_mantissa(scale: Any, exponent: int) -> int:
    fraction, e = math.frexp(float(F(scale)))
    digits, drop = int(math.ldexp(fraction, 24)), exponent - (e - 24)
    return int(shifted(digits, drop)) if digits and drop < 32 else 0


def q_headroom(l1: int, entries: int, bound: int) -> int:
    r = 0
    while (l1 >> r) + entries >= 2**31 // bound - 1:
        r += 1
    return r


def q_scaled(word: Array | int, mantissa: int, r: int) -> Any:
    return shifted(np.asarray(word, np.int64) * mantissa, 15 + r)


# ---- propagation: delta_in is added to ----


def landings(
    window: Window, spots: Array, size: tuple[int, ...]
) -> Iterator[tuple[int, int, Array, Array, Array]]:
    """For each tap: (ky, kx, which spots have it on the map, iy, ix)."""
    for ky in range(window.kernel[0]):
        iy = spots[:, 0] * window.stride[0] - window.pads[0] + ky * window.dilation[0]
        for kx in range(window.kernel[1]):
            ix = spots[:, 1] * window.stride[1] - window.pads[1] + kx * window.dilation[1]
            on = (iy >= 0) & (iy < size[0]) & (ix >= 0) & (ix < size[1])
            yield ky, kx, on, iy[on], ix[on]


def q_spots_conv2d_input(
    window: Window, spots: Array, w_row: Array, mantissa: int, r: int, delta_in: Array
) -> None:
    """w_row [kh, kw, in_c]; delta_in [in_h, in_w, in_c]."""
    t = q_scaled(spots[:, 2], mantissa, r)
    for ky, kx, on, iy, ix in landings(window, spots, delta_in.shape):
        np.add.at(delta_in, (iy, ix), t[on, None] * w_row[ky, kx].astype(np.int64))
    fits_32_bits(delta_in)


def q_spots_depthwise_conv2d_input(
    window: Window, spots: Array, c: int, w: Array, mantissa: int, r: int, delta_in: Array
) -> None:
    """w [kh, kw, out_c], of which channel c is read."""
    t = q_scaled(spots[:, 2], mantissa, r)
    plane = delta_in[:, :, c // window.multiplier]
    for ky, kx, on, iy, ix in landings(window, spots, plane.shape):
        np.add.at(plane, (iy, ix), t[on] * int(w[ky, kx, c]))
    fits_32_bits(plane)


def q_rows_fully_connected_input(
    delta: Array,
    rows: Array | None,
    w: Array,
    w_scale: Array,
    scale_exponent: int,
    r: int,
    delta_in: Array,
) -> None:
    """w [rows, cols]; `rows` None: all of them."""
    for i in range(len(delta)) if rows is None else rows.tolist():
        scale = w_scale.ravel()[i if w_scale.size > 1 else 0]
        t = int(q_scaled(int(delta[i]), q_mantissa(scale, scale_exponent), r))
        delta_in += t * w[i].astype(np.int64)
    fits_32_bits(delta_in)


def q_normalise(sums: Array) -> int:
    h = 0
    while np.abs(shifted(sums, h)).max(initial=0) > WORD_LIMIT:
        h += 1
    sums[...] = shifted(sums, h)
    return h


def q_add(a: Array, ea: int, b: Array, eb: int) -> int:
    """a += b; returns the exponent of a."""
    e = max(ea, eb)
    total = shifted(a, min(e - ea, 32)) + shifted(b, min(e - eb, 32))
    if np.abs(total).max(initial=0) > WORD_LIMIT:
        total = shifted(total, 1)
        e += 1
    a[...] = total
    return e


# ---- one row of weights: row is added to ----


def q_spots_conv2d_row(
    window: Window, spots: Array, x: Array, x_zero: int, r: int, row: Array
) -> None:
    """x [in_h, in_w, in_c]; row [kh, kw, in_c]."""
    t = shifted(spots[:, 2], r)
    centred = x.astype(np.int64) - x_zero
    for ky, kx, on, iy, ix in landings(window, spots, x.shape):
        row[ky, kx] += t[on] @ centred[iy, ix]
    fits_32_bits(row)


def q_spots_depthwise_conv2d_row(
    window: Window, spots: Array, c: int, x: Array, x_zero: int, r: int, row: Array
) -> None:
    """row [kh, kw]"""
    plane = x[:, :, c // window.multiplier, None]
    q_spots_conv2d_row(window, spots, plane, x_zero, r, row[:, :, None])


# ---- steps ----


def steps(factor: Any, exponent: int, sums: Array) -> Array:
    """|factor * 2^exponent * sum| in 2^-32, truncated; what is far too large saturates."""
    fraction, e = math.frexp(float(factor))
    shift = e - 24 + exponent + 32
    product = np.abs(sums.astype(np.int64)) * int(math.ldexp(fraction, 24))
    if shift <= 0:
        return product >> min(-shift, 63)
    shift = min(shift, 62)
    fits = product <= ABOVE_ANY_STEP >> shift
    return np.where(fits, np.where(fits, product, 0) << shift, ABOVE_ANY_STEP)


def mix(x: Array) -> Array:
    x = (x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
    return x ^ (x >> 16)


def random_bits(key: int, index: Array | int) -> Any:
    spread = np.asarray(index, np.uint64) * 0x9E3779B9
    return mix((key + spread) & 0xFFFFFFFF).astype(np.int64)


def q_step_row(rule: Rule, trained: Trained, row: int, sums: Array, exponent: int) -> int:
    """Returns how many weights moved less than asked for."""
    steps_of_one = 1 if trained.low is None else 256
    factor = F(F(rule.lr) * F(rule.x_scale)) / rule.row_scale(row)
    index = row * trained.row_stride + np.arange(sums.size, dtype=np.int64) * trained.step
    fixed = steps(factor, exponent + (0 if trained.low is None else 8), sums)
    limit = rule.max_step * steps_of_one
    cut = fixed > limit << 32
    fixed = np.minimum(fixed, limit << 32)
    step = (fixed >> 32) + (random_bits(rule.key, index) < (fixed & 0xFFFFFFFF))
    before = trained.w[index].astype(np.int64) * steps_of_one
    if trained.low is not None:
        before += trained.low[index]
    wanted = before - np.sign(sums) * step
    after = np.clip(wanted, -127 * steps_of_one, 127 * steps_of_one)
    after = np.where(step == 0, before, after)  # -128 stays until it is moved
    if trained.low is None:
        trained.w[index] = after
    else:
        high = (after + 128) >> 8
        trained.w[index] = high
        trained.low[index] = after - 256 * high
    return int((cut | ((step != 0) & (after != wanted))).sum())


def q_step_fully_connected_row(
    rule: Rule, trained: Trained, row: int, delta: int, exponent: int, x: Array
) -> int:
    centred = x.ravel().astype(np.int64) - rule.x_zero
    return q_step_row(rule, trained, row, int(delta) * centred, exponent)


def q_step_bias(rule: Rule, row: int, total: int, exponent: int, index: int, b: int) -> int:
    """The bias after its step."""
    if total == 0:
        return b
    factor = float(F(rule.lr) / F(F(rule.x_scale) * rule.row_scale(row)))
    fixed = math.floor(abs(total) * Fraction(factor) * Fraction(2) ** (exponent + 32))
    step = (fixed >> 32) + int(random_bits(rule.key, index) < (fixed & 0xFFFFFFFF))
    return max(min(b - (step if total > 0 else -step), 1 << 30), -(1 << 30))
