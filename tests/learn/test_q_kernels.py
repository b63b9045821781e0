"""The 16-bit deltas: C = numpy on every byte, no overflow in reach, close to real numbers."""

from __future__ import annotations

import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import q_reference as q
from q_reference import Array, F, Rule, Trained, Window

from fieldloop import paths
from fieldloop.runtime.core import compiler, core

ffi, lib = core()
WORD = q.WORD_LIMIT


def c(array: Array | None, ctype: str) -> Any:
    return ffi.NULL if array is None else ffi.cast(ctype, array.ctypes.data)


def bits(v: Any) -> int:
    return int(F(v).view(np.uint32))


def words_of(rng: np.random.Generator, *shape: int) -> Array:
    """Small and large words, extremes and zeros."""
    exact = rng.standard_normal(shape) * WORD / 3 * 2.0 ** -rng.integers(0, 16, shape)
    words = np.clip(np.round(exact), -WORD, WORD).astype(np.int32)
    words[rng.random(shape) < 0.1] = rng.choice([-WORD, WORD])
    words[rng.random(shape) < 0.2] = 0
    return words


# ---- words, exponents, scales ----


def test_output_deltas_become_words() -> None:
    rng = np.random.default_rng(1)
    halves = (np.arange(-4, 4) + 0.5) / 32768
    around = np.nextafter(F(0.5 / 32768), F([0, 1]), dtype=F)
    edges = [0, -0.0, 1, -1, 32766.5 / 32768, 32767.5 / 32768, 1e-45, -1e-40, 2.0**-16, 2.0**-17]
    values = np.concatenate([halves, around, edges, rng.uniform(-1, 1, 5000)]).astype(F)
    values = np.concatenate([values, (values * F(2.0**-12))])
    made = values.copy()
    lib.fl_q_from_f32(c(made, "fl_word_t *"), made.size)
    assert np.array_equal(made.view(np.int32), q.q_from_f32(values))
    assert np.abs(made.view(np.int32) / 32768 - values).max() <= 1 / 32768


def test_the_l1_norm_is_exact() -> None:
    words = np.full(65535, -WORD, np.int32)
    assert lib.fl_q_l1(c(words, "int32_t *"), words.size) == 65535 * WORD == q.q_l1(words)
    assert lib.fl_q_l1(ffi.NULL, 0) == 0


def test_real_numbers_are_rounded_to_nearest() -> None:
    rng = np.random.default_rng(2)
    edges = [0, 1, 2, 3, 2**24 - 1, 2**24, 2**24 + 1, 2**24 + 3, 2**25 + 6, 2**31, 2**32 - 1]
    edges += [2**32 - 128, 2**32 - 129, *rng.integers(0, 2**32, 60).tolist()]
    edges += (rng.integers(0, 2**32, 60) >> rng.integers(0, 32, 60)).tolist()
    for exponent in [*range(-185, -110), *range(-60, 60, 7), *range(85, 130), -100000, 100000]:
        for total in edges:
            got = lib.fl_q_real(total, exponent)
            assert bits(got) == bits(q.q_real(total, exponent)), (total, exponent)
            assert math.isfinite(got)


def row_scales(values: Array) -> Any:
    return ffi.new("fl_row_scales_t *", [c(values, "float *"), int(values.size > 1)])


@pytest.mark.parametrize("top", [1.0, 0.0371, 3.4e38, 1e-30, 1.2e-38, 7e-42, 1e-45], ids=str)
def test_scales_become_mantissas_of_one_exponent(top: float) -> None:
    rng = np.random.default_rng(3)
    scales = (F(top) * 2.0 ** -rng.uniform(0, 30, 40)).astype(F)
    scales[11] = top
    exponent = lib.fl_q_scale_exponent(row_scales(scales), scales.size)
    assert exponent == q.q_scale_exponent(scales)
    mantissas = [lib.fl_q_mantissa(float(s), exponent) for s in scales]
    assert mantissas == [q.q_mantissa(s, exponent) for s in scales]
    assert 2**14 <= mantissas[11] == max(mantissas) <= 2**15
    exact = scales.astype(np.float64) / 2.0**exponent
    assert np.abs(mantissas - exact).max() <= 0.5
    alone = scales[:1].copy()
    assert lib.fl_q_scale_exponent(row_scales(alone), 9) == q.q_scale_exponent(alone)


def test_a_scale_just_below_a_power_of_two_rounds_up_to_it() -> None:
    scale = float(np.nextafter(F(1), F(0)))
    exponent = lib.fl_q_scale_exponent(row_scales(np.array([scale], F)), 1)
    assert (exponent, lib.fl_q_mantissa(scale, exponent)) == (-15, 2**15)
    assert lib.fl_q_mantissa(0.0, exponent) == 0


def test_a_word_is_scaled_with_one_rounding() -> None:
    rng = np.random.default_rng(4)
    words = [0, 1, -1, WORD, -WORD, *words_of(rng, 60).tolist()]
    for mantissa in [0, 1, 2**14, 2**15 - 1, 2**15, *rng.integers(0, 2**15, 20).tolist()]:
        for r in range(32):
            got = [lib.fl_q_scaled(word, mantissa, r) for word in words]
            assert got == q.q_scaled(np.array(words), mantissa, r).tolist()
    assert lib.fl_q_scaled(3, 2**14, 0) == 2 and lib.fl_q_scaled(-3, 2**14, 0) == -2  # 1.5


@pytest.mark.parametrize("bound", [128, 255])
def test_headroom_is_the_least_shift_that_will_do(bound: int) -> None:
    rng = np.random.default_rng(5)
    limit = 2**31 // bound - 1
    for entries in (1, 10, 4000, 65535):
        edges = [0, limit - entries - 1, limit - entries, 2 * (limit - entries), 65535 * WORD]
        for l1 in [*edges, *rng.integers(0, 65535 * WORD, 50).tolist()]:
            r = lib.fl_q_headroom(l1, entries, bound)
            assert r == q.q_headroom(l1, entries, bound)
            assert (l1 >> r) + entries < limit
            assert r == 0 or (l1 >> (r - 1)) + entries >= limit


def test_sums_become_words_again() -> None:
    rng = np.random.default_rng(6)
    tops = [0, 1, WORD, WORD + 1, 65534, 65535, 65536, 2**30, 2**31 - 1, 2**31 - 2**15]
    for top in [*tops, *rng.integers(0, 2**31, 200).tolist()]:
        sums = rng.integers(-top, top + 1, 50).astype(np.int32)
        sums[7] = rng.choice([-top, top])
        expected = sums.astype(np.int64)
        h = q.q_normalise(expected)
        assert lib.fl_q_normalise(c(sums, "int32_t *"), sums.size) == h
        assert np.array_equal(sums, expected)
        assert np.abs(sums).max() <= WORD
        assert h == 0 or np.abs(sums).max() >= WORD // 2  # no digit was given away


@pytest.mark.parametrize("gap", [-70000, -40, -16, -15, -3, -1, 0, 1, 2, 15, 16, 40, 70000])
def test_two_deltas_are_added(gap: int) -> None:
    rng = np.random.default_rng(7)
    for large in (False, True):
        a, b = words_of(rng, 200), words_of(rng, 200)
        if not large:
            a, b = a // 4, b // 4
        expected = a.astype(np.int64)
        e = q.q_add(expected, -20, b, -20 + gap)
        exact = a.astype(float) + b.astype(float) * 2.0 ** min(gap, 900)
        ea = ffi.new("int32_t *", -20)
        lib.fl_q_add(c(a, "int32_t *"), ea, c(b, "int32_t *"), -20 + gap, a.size)
        assert ea[0] == e and np.array_equal(a, expected)
        assert np.abs(a).max() <= WORD
        if gap < 900:
            assert np.abs(a * 2.0 ** (e + 20) - exact).max() <= 1.5 * 2.0 ** (e + 20)


# ---- spots ----


@dataclass(frozen=True)
class Case:
    window: Window
    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    spots: Array
    x: Array
    w: Array  # [kh, kw, in_c] of one channel; depthwise [kh, kw, out_c]
    channel: int

    def c_params(self) -> Any:
        p = ffi.new("fl_conv_params_t *")
        p.kernel_h, p.kernel_w = self.window.kernel
        p.stride_h, p.stride_w = self.window.stride
        p.dilation_h, p.dilation_w = self.window.dilation
        p.pad_top, p.pad_left = self.window.pads
        p.depth_multiplier = self.window.multiplier
        return p

    def c_dims(self) -> Any:
        return ffi.new("fl_map_dims_t *", [*self.in_shape, *self.out_shape])

    def c_spots(self) -> Any:
        spots = ffi.new("fl_spot_t[]", max(len(self.spots), 1))
        for at, (y, x, word) in zip(spots, self.spots.tolist(), strict=False):
            at.y, at.x, at.delta.q = y, x, word
        return spots


def any_case(seed: int, *, depthwise: bool) -> Case:
    rng = np.random.default_rng(seed)
    kernel = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    dilation = (int(rng.choice([1, 1, 2])), int(rng.choice([1, 1, 1, 3])))
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    # up to a window that sees nothing but padding
    pads = (int(rng.integers(0, span[0] + 1)), int(rng.integers(0, span[1] + 1)))
    size = (span[0] + int(rng.integers(0, 6)), span[1] + int(rng.integers(0, 6)))
    after = (int(rng.integers(0, span[0] + 2)), int(rng.integers(0, span[1] + 2)))
    out = [(size[i] + pads[i] + after[i] - span[i]) // stride[i] + 1 for i in (0, 1)]
    multiplier = int(rng.integers(1, 4)) if depthwise else 1
    in_c = int(rng.integers(1, 12))
    out_c = in_c * multiplier if depthwise else int(rng.integers(1, 5))
    places = [(y, x) for y in range(out[0]) for x in range(out[1])]
    # an average pool has several spots in one place; a channel without any is a case too
    chosen = rng.integers(0, len(places), int(rng.integers(0, 2 * len(places))))
    spots = np.array([places[i] for i in np.sort(chosen)], np.int64).reshape(-1, 2)
    words = words_of(rng, len(spots), 1)
    return Case(
        Window(kernel, stride, dilation, pads, multiplier),
        (*size, in_c),
        (out[0], out[1], out_c),
        np.hstack([spots, words]),
        rng.integers(-128, 128, (*size, in_c)).astype(np.int8),
        rng.integers(-128, 128, (*kernel, out_c if depthwise else in_c)).astype(np.int8),
        int(rng.integers(out_c)),
    )


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("kind", ["conv2d", "depthwise_conv2d"])
def test_spots_equal_numpy(kind: str, seed: int) -> None:
    depthwise = kind != "conv2d"
    case = any_case(seed, depthwise=depthwise)
    rng = np.random.default_rng(1000 + seed)
    mantissa, r = int(rng.integers(2**15 + 1)), int(rng.choice([0, 0, 1, 4]))
    channel = [case.channel] if depthwise else []
    head = [case.c_params(), case.c_dims(), case.c_spots(), len(case.spots), *channel]

    before = rng.integers(-(2**24), 2**24, case.in_shape).astype(np.int32)
    made, expected = before.copy(), before.astype(np.int64)
    w, delta_in = c(case.w, "int8_t *"), c(made, "int32_t *")
    getattr(lib, f"fl_q_spots_{kind}_input")(*head, w, mantissa, r, delta_in)
    arguments = [case.window, case.spots, *channel, case.w, mantissa, r, expected]
    getattr(q, f"q_spots_{kind}_input")(*arguments)
    assert np.array_equal(made, expected)

    zero = int(rng.choice([-128, 127, 0, 3]))
    shape = case.window.kernel if depthwise else case.w.shape
    before = rng.integers(-(2**24), 2**24, shape).astype(np.int32)
    made, expected = before.copy(), before.astype(np.int64)
    x, row = c(case.x, "int8_t *"), c(made, "int32_t *")
    getattr(lib, f"fl_q_spots_{kind}_row")(*head, x, zero, r, row)
    arguments = [case.window, case.spots, *channel, case.x, zero, r, expected]
    getattr(q, f"q_spots_{kind}_row")(*arguments)
    assert np.array_equal(made, expected)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("listed", [False, True])
def test_fully_connected_equals_numpy(seed: int, listed: bool) -> None:
    rng = np.random.default_rng(seed)
    rows, cols = int(rng.integers(1, 30)), int(rng.integers(1, 40))
    w = rng.integers(-128, 128, (rows, cols)).astype(np.int8)
    scales = rng.uniform(0.001, 0.1, rows if seed % 2 else 1).astype(F)
    delta, r = words_of(rng, rows), int(rng.choice([0, 3]))
    kept = np.flatnonzero(rng.random(rows) < 0.6).astype(np.uint16) if listed else None
    exponent = q.q_scale_exponent(scales)
    made = rng.integers(-(2**20), 2**20, cols).astype(np.int32)
    expected = made.astype(np.int64)
    q.q_rows_fully_connected_input(delta, kept, w, scales, exponent, r, expected)
    lib.fl_q_rows_fully_connected_input(
        c(delta, "int32_t *"),
        c(kept, "uint16_t *"),
        rows if kept is None else kept.size,
        c(w, "int8_t *"),
        row_scales(scales),
        exponent,
        r,
        cols,
        c(made, "int32_t *"),
    )
    assert np.array_equal(made, expected)


# ---- no overflow in reach ----


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n", [1, 3, 514, 1023, 8000, 65535])
def test_the_worst_words_stay_in_32_bits(n: int, sign: int) -> None:
    """Every product has one sign and the largest size, and all of them meet in one sum."""
    for word in (WORD, 2**14 + 1, 257, 1):
        spots = np.zeros((n, 3), np.int64)
        spots[:, 2] = word * sign
        window = Window((1, 1))
        x, w = np.full((1, 1, 5), 127, np.int8), np.full((1, 1, 5), -128, np.int8)
        case = Case(window, (1, 1, 5), (1, 1, 1), spots, x, w, 0)
        head = [case.c_params(), case.c_dims(), case.c_spots(), n]

        r = lib.fl_q_headroom(n * word, n, 128)
        made, expected = np.zeros((1, 1, 5), np.int32), np.zeros((1, 1, 5), np.int64)
        lib.fl_q_spots_conv2d_input(*head, c(w, "int8_t *"), 2**15, r, c(made, "int32_t *"))
        q.q_spots_conv2d_input(window, spots, w, 2**15, r, expected)  # asserts 32 bits
        assert np.array_equal(made, expected)
        assert r == 0 or np.abs(expected).max() > 2**28  # the shift was not a waste

        r = lib.fl_q_headroom(n * word, n, 255)
        made, expected = np.zeros((1, 1, 5), np.int32), np.zeros((1, 1, 5), np.int64)
        lib.fl_q_spots_conv2d_row(*head, c(x, "int8_t *"), -128, r, c(made, "int32_t *"))
        q.q_spots_conv2d_row(window, spots, x, -128, r, expected)
        assert np.array_equal(made, expected)
        assert r == 0 or np.abs(expected).max() > 2**28


def test_any_words_stay_in_32_bits() -> None:
    """The bound of fl_q_headroom itself, over all shapes of a delta that rounding likes least."""
    rng = np.random.default_rng(8)
    for bound in (128, 255):
        for _ in range(300):
            n = int(rng.integers(1, 65536))
            top = int(2 ** rng.uniform(0, 15))
            words = rng.integers(top // 2, top + 1, n) if rng.random() < 0.5 else np.full(n, top)
            r = q.q_headroom(int(words.sum()), n, bound)
            words = np.minimum(words | 1 << max(r - 1, 0), WORD)  # as many as can be round up
            r = lib.fl_q_headroom(int(words.sum()), n, bound)
            scaled = [lib.fl_q_scaled(int(word), 2**15, r) for word in np.unique(words)]
            counts = np.unique(words, return_counts=True)[1]
            assert int(np.abs(scaled) @ counts) * bound < 2**31


# ---- close to real numbers ----


@pytest.mark.parametrize("seed", range(10))
def test_a_propagated_delta_is_close_to_float64(seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels, in_c, size = 16, 8, (8, 8)
    window = Window((3, 3), pads=(1, 1))
    real = rng.standard_normal((*size, channels)) * 2.0 ** -rng.uniform(0, 10)
    exponent = math.frexp(np.abs(real).max())[1] - 15
    words = np.clip(np.round(real / 2.0**exponent), -WORD, WORD).astype(np.int64)
    w = rng.integers(-127, 128, (channels, 3, 3, in_c)).astype(np.int8)
    scales = rng.uniform(0.002, 0.02, channels).astype(F)
    e = q.q_scale_exponent(scales)
    r = q.q_headroom(q.q_l1(words), words.size, 128)
    sums = np.zeros((*size, in_c), np.int32)
    exact = np.zeros((*size, in_c))
    for channel in range(channels):
        places = np.indices(size).reshape(2, -1).T
        spots = np.hstack([places, words[:, :, channel].reshape(-1, 1)])
        case = Case(window, (*size, in_c), (*size, channels), spots, sums, w[channel], channel)
        lib.fl_q_spots_conv2d_input(
            case.c_params(),
            case.c_dims(),
            case.c_spots(),
            len(spots),
            c(w[channel], "int8_t *"),
            lib.fl_q_mantissa(float(scales[channel]), e),
            r,
            c(sums, "int32_t *"),
        )
        weights = w[channel].astype(np.float64) * float(scales[channel])
        for ky, kx, on, iy, ix in q.landings(window, spots, sums.shape):
            delta = real[:, :, channel].ravel()[on]
            np.add.at(exact, (iy, ix), delta[:, None] * weights[ky, kx])
    h = lib.fl_q_normalise(c(sums, "int32_t *"), sums.size)
    got = sums * 2.0 ** (exponent + e + 15 + r + h)
    assert np.linalg.norm(got - exact) <= 3 * 2.0**-13 * np.linalg.norm(exact)


# ---- steps ----


def a_rule(rng: np.random.Generator, rows: int, lr: float, max_step: int = 32) -> Rule:
    scales = rng.uniform(0.002, 0.02, rows).astype(F)
    return Rule(
        lr, 0.02, int(rng.choice([-128, 0, 11])), scales, int(rng.integers(2**32)), max_step
    )


def c_rule(rule: Rule) -> tuple[Any, Any]:
    """fl_step_rule_t and its counter; the caller keeps `rule` and both alive."""
    clipped = ffi.new("uint64_t *")
    u = ffi.new("fl_step_rule_t *")
    u.lr, u.x_scale, u.x_zero, u.key = rule.lr, rule.x_scale, rule.x_zero, rule.key
    u.max_step, u.clipped = rule.max_step, clipped
    u.w_scale = row_scales(rule.w_scale)[0]
    return u, clipped


def c_trained(trained: Trained) -> Any:
    t = ffi.new("fl_trained_t *")
    t.w, t.low = c(trained.w, "int8_t *"), c(trained.low, "int8_t *")
    t.row_stride, t.step = trained.row_stride, trained.step
    return t


def some_weights(rng: np.random.Generator, n: int, wide: bool, *where: int) -> Trained:
    w = rng.integers(-127, 128, n).astype(np.int8)
    w[rng.random(n) < 0.02] = -128
    low = rng.integers(-128, 128, n).astype(np.int8) if wide else None
    if low is not None:
        low[w == 127] = np.minimum(low[w == 127], 0)
        low[w == -127] = np.maximum(low[w == -127], 0)
    return Trained(w, low, *where)


def copy(t: Trained) -> Trained:
    return Trained(t.w.copy(), None if t.low is None else t.low.copy(), t.row_stride, t.step)


def same(a: Trained, b: Trained) -> bool:
    lows = a.low is None or np.array_equal(a.low, b.low)  # type: ignore[arg-type]
    return np.array_equal(a.w, b.w) and lows


RATES = [1e-38, 1e-12, 1e-6, 1e-3, 0.03, 1.0, 50.0, 1e6, 1e30]


@pytest.mark.parametrize("wide", [False, True], ids=["int8", "int16"])
@pytest.mark.parametrize("lr", RATES)
def test_a_row_is_stepped_as_in_numpy(lr: float, wide: bool) -> None:
    rng = np.random.default_rng(11)
    moved = 0
    for exponent in (-15, -30, -9, 3, -60, 60):
        for max_step in (1, 32, 254):
            rule = a_rule(rng, 3, lr, max_step)
            n = 40
            layout = (n, 1) if rng.random() < 0.5 else (1, 3)
            trained = some_weights(rng, 3 * n, wide, *layout)
            sums = rng.integers(-(2**31) + 1, 2**31, n) >> rng.integers(0, 32, n)
            sums[:3] = 0, 2**31 - 1, -(2**31) + 1
            made, expected, row = copy(trained), copy(trained), int(rng.integers(3))
            clipped = q.q_step_row(rule, expected, row, sums, exponent)
            u, counter = c_rule(rule)
            narrow = sums.astype(np.int32)
            lib.fl_q_step_row(u, c_trained(made), row, c(narrow, "int32_t *"), exponent, n)
            assert same(made, expected) and counter[0] == clipped
            moved += int((made.w != trained.w).sum())
    assert moved > 0 or lr < 1e-12


@pytest.mark.parametrize("wide", [False, True], ids=["int8", "int16"])
@pytest.mark.parametrize("lr", RATES)
def test_a_fully_connected_row_is_the_same_without_the_detour(lr: float, wide: bool) -> None:
    rng = np.random.default_rng(12)
    for exponent in (-15, -30, -9, 3, -60, 60):
        for delta in (WORD, -WORD, 1, -300, 0):
            rule = a_rule(rng, 3, lr)
            trained = some_weights(rng, 3 * 50, wide, 50)
            x = rng.integers(-128, 128, 50).astype(np.int8)
            x[::5] = rule.x_zero
            made, expected = copy(trained), copy(trained)
            clipped = q.q_step_fully_connected_row(rule, expected, 1, delta, exponent, x)
            u, counter = c_rule(rule)
            arguments = [delta, exponent, c(x, "int8_t *"), x.size]
            lib.fl_q_step_fully_connected_row(u, c_trained(made), 1, *arguments)
            assert same(made, expected) and counter[0] == clipped


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("wide", [False, True], ids=["int8", "int16"])
def test_every_size_of_step_is_numpys(wide: bool, sign: int) -> None:
    """From steps of 2^-40 to what saturates, on rows long enough to move now and then."""
    n = 3000
    zero = -128 if sign > 0 else 127
    x = np.full(n, -1 - zero, np.int8)  # the widest input
    low = np.zeros(n, np.int8) if wide else None
    moved = 0
    for exponent in range(-72, 30):
        rule = Rule(1.0, 1.0, zero, np.ones(1, F), 99, 254)
        for word, total in ((WORD, 2**31 - 1), (3, 77)):
            made = Trained(np.zeros(n, np.int8), None if low is None else low.copy(), n)
            expected = copy(made)
            sums = np.full(n, sign * total, np.int32)
            u, counter = c_rule(rule)
            t = c_trained(made)
            lib.fl_q_step_row(u, t, 0, c(sums, "int32_t *"), exponent, n)
            clipped = q.q_step_row(rule, expected, 0, sums, exponent)
            lib.fl_q_step_fully_connected_row(u, t, 0, word, exponent, c(x, "int8_t *"), n)
            clipped += q.q_step_fully_connected_row(rule, expected, 0, word, exponent, x)
            assert same(made, expected) and counter[0] == clipped
            moved += int(np.any(made.w != 0) or (low is not None and np.any(made.low != 0)))
    assert moved > 100


def test_steps_are_right_on_average() -> None:
    rng = np.random.default_rng(13)
    n = 60_000
    for wide in (False, True):
        rule = a_rule(rng, 1, 0.05)
        sum_, exponent = 1234, -15
        step = 0.05 * 0.02 / float(rule.w_scale[0]) * sum_ * 2.0**exponent
        assert 1e-3 < step < 0.1
        low = np.zeros(n, np.int8) if wide else None
        trained = Trained(np.zeros(n, np.int8), low, n)
        sums = np.full(n, sum_, np.int32)
        u, _ = c_rule(rule)
        lib.fl_q_step_row(u, c_trained(trained), 0, c(sums, "int32_t *"), exponent, n)
        value = trained.w + (0 if low is None else low / 256)
        unit = 1 / 256 if wide else 1
        fraction = step / unit - np.floor(step / unit)
        sigma = unit * np.sqrt(fraction * (1 - fraction) / n)
        assert abs(value.mean() + step) < 4 * sigma + 1e-6


def test_what_is_cut_is_counted_once() -> None:
    rule = Rule(1.0, 1.0, 0, np.ones(1, F), 1, 10)
    w = np.array([0, 0, 120, -120, 120, 127, -127], np.int8)
    sums = np.array([10, 11, -9, 9, -11, 5, 5], np.int32)
    u, clipped = c_rule(rule)
    lib.fl_q_step_row(u, c_trained(Trained(w, None, 7)), 0, c(sums, "int32_t *"), 0, 7)
    assert w.tolist() == [-10, -10, 127, -127, 127, 122, -127]
    assert clipped[0] == 5


@pytest.mark.parametrize("lr", [*RATES, 1e34])
def test_a_bias_is_stepped_as_in_numpy(lr: float) -> None:
    rng = np.random.default_rng(14)
    for exponent in (-15, -40, -80, -150, 0, 20, 60):
        for total in (0, 1, -1, 12345, -(2**31) + 1, 2**31 - 1, *rng.integers(-9999, 9999, 9)):
            for b in (0, 1 << 30, -(1 << 30), 2**31 - 1, -(2**31)):
                rule, index = a_rule(rng, 2, lr), int(rng.integers(2**20))
                u, _ = c_rule(rule)
                made = ffi.new("int32_t *", b)
                lib.fl_q_step_bias(u, 1, int(total), exponent, index, made)
                assert made[0] == q.q_step_bias(rule, 1, int(total), exponent, index, b)


# ---- under sanitizers ----


def test_nothing_is_read_beside_an_array_and_nothing_overflows(tmp_path: Path) -> None:
    root = paths.core_dir()
    sources = [*(root / "learn").glob("q_*.c"), *(root / "base").glob("*.c")]
    command = [
        *(compiler(), "-std=c99", "-O1", "-g", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"),
        "-fsanitize=address,undefined,alignment,float-cast-overflow",
        *("-fno-sanitize-recover=all", f"-I{root / 'include'}", f"-I{root}"),
        *(Path(__file__).with_name("fuzz_q.c"), root / "learn" / "random.c", *sorted(sources)),
        *("-o", tmp_path / "fuzz_q"),
    ]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([tmp_path / "fuzz_q", "2000"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.startswith("2000 ")
