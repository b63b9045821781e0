"""Fixed point: the multipliers TensorFlow Lite would make, and the arithmetic on them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldloop.errors import UsageError
from fieldloop.ir import fixed_math as fm
from fieldloop.ir.op import Clamp
from fieldloop.ir.tensor import Quant, as_float32
from fieldloop.quantize.fixedpoint import (
    activation_range,
    add_params,
    quantize_multiplier,
    round_half_away,
    softmax_params,
    weighted_factors,
)


@pytest.mark.parametrize(
    ("real", "expected"),
    [
        (0.0, (0, 0)),
        (0.5, (1 << 30, 0)),
        (1.0, (1 << 30, 1)),
        (0.75, (3 << 29, 0)),
        (0.0072474273418460, (1992157658, -7)),
        # the mantissa rounds up to 2**31: halved, one more shift
        (1.0 - 2.0**-40, (1 << 30, 1)),
        (2.0**-32, (1 << 30, -31)),
        (2.0**-33, (0, 0)),
        ((1 - 2.0**-31) * 2.0**30, (2**31 - 1, 30)),
    ],
)
def test_quantize_multiplier_of_known_factors(real: float, expected: tuple[int, int]) -> None:
    assert quantize_multiplier(real) == expected


@given(st.floats(2.0**-31, 2.0**29))
def test_quantize_multiplier_is_within_half_a_step(real: float) -> None:
    multiplier, shift = quantize_multiplier(real)
    assert 2**30 <= multiplier < 2**31
    assert -31 <= shift <= 30
    assert abs(math.ldexp(multiplier, shift - 31) / real - 1.0) <= 2.0**-31


@pytest.mark.parametrize("real", [2.0**30, math.inf, math.nan, -0.5])
def test_quantize_multiplier_refuses(real: float) -> None:
    with pytest.raises(UsageError, match="fixed point: expected"):
        quantize_multiplier(real)


def test_rounding_is_away_from_zero() -> None:
    assert [round_half_away(v) for v in (-2.5, -0.5, 0.5, 1.5, 2.4)] == [-3, -1, 1, 2, 2]


def test_activation_range() -> None:
    quant = Quant((as_float32(0.1),), -10)
    assert activation_range(Clamp(), quant) == (-128, 127)
    assert activation_range(Clamp(0.0), quant) == (-10, 127)
    assert activation_range(Clamp(0.0, 6.0), quant) == (-10, 50)
    assert activation_range(Clamp(0.0, 60.0), quant) == (-10, 127)


def test_scales_are_multiplied_in_float64_but_for_uint8() -> None:
    # A pair whose float32 product is not its float64 product, far enough to change the multiplier.
    x, w = Quant((as_float32(0.0123),)), Quant((as_float32(0.00345),))
    out = Quant((as_float32(0.067),))
    (rounded,) = weighted_factors(x, w, out, in_float32=True)
    (exact,) = weighted_factors(x, w, out)
    single = float(np.float32(x.scale) * np.float32(w.scale)) / out.scale
    assert (rounded.multiplier, rounded.shift) == quantize_multiplier(single)
    assert (exact.multiplier, exact.shift) == quantize_multiplier(x.scale * w.scale / out.scale)
    assert rounded != exact


def test_add_and_softmax_parameters() -> None:
    a, b, out = (Quant((as_float32(s),)) for s in (0.5, 0.25, 0.6))
    add = add_params(a, b, out, Clamp(0.0))
    assert (add.a.multiplier, add.a.shift) == (1 << 30, 0)
    assert (add.b.multiplier, add.b.shift) == (1 << 30, -1)
    assert (add.act_min, add.left_shift) == (0, 20)
    softmax = softmax_params(Quant((as_float32(0.1),)))
    # 0.1 * 2**26 = 0.8 * 2**23
    assert softmax.input_left_shift == 23
    assert softmax.diff_min == -((31 << 26) >> 23)
    with pytest.raises(UsageError, match="softmax: input scale"):
        softmax_params(Quant((2.0**-27,)))
    with pytest.raises(UsageError, match="add: output scale"):
        add_params(a, b, Quant((2.0**-20,)), Clamp())


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 31))
def test_rounding_divide_is_the_nearest_integer(x: int, exponent: int) -> None:
    expected = round_half_away(x / 2**exponent)
    assert int(fm.rounding_divide_by_pot(np.int64(x), exponent)) == expected


@given(st.integers(-(2**24), 2**24), st.floats(2.0**-20, 2.0**5))
def test_requantize_is_close_to_the_real_product(acc: int, real: float) -> None:
    multiplier, shift = quantize_multiplier(real)
    got = int(fm.requantize(np.array([acc]), multiplier, shift)[0])
    assert abs(got - acc * real) <= 1.0 + abs(acc * real) * 2.0**-29


def test_exp_and_reciprocal_are_accurate() -> None:
    a = -np.concatenate([np.arange(0, 1 << 20, 997), np.arange(0, 31 << 26, 1 << 19)])
    exact = np.exp(a / 2.0**26)
    # what a Taylor expansion of degree 4 leaves over at 1/8 from its centre
    bound = (1 / 8) ** 5 / 120 + 2.0**-27
    assert np.abs(fm.exp_on_negative_values(a) / 2.0**31 - exact).max() < bound
    x = np.arange(1 << 19, 1 << 30, 1 << 20)  # Q12.19
    fraction, bits = fm.reciprocal(x, 12)
    got = fraction / 2.0**31 / 2.0**bits
    assert np.abs(got * (x / 2.0**19) - 1.0).max() < 1e-7
