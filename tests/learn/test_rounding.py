"""Stochastic rounding: unbiased, saturating, and a function of its key alone."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from kernels import core

_, lib = core()
DRAWS = 100_000


def bits(count: int, seed: int = 1) -> list[int]:
    key = lib.fl_random_key(seed, 0, 0)
    return [lib.fl_random(key, i) for i in range(count)]


@pytest.mark.parametrize("value", [0.5, 0.1, -0.25, 3.9, -7.3, 1e-3, 0.99999994, 100.00001])
def test_the_mean_is_the_value(value: float) -> None:
    value = float(np.float32(value))
    drawn = np.array([lib.fl_round_stochastic(value, b) for b in bits(DRAWS)])
    fraction = abs(value) - np.floor(abs(value))
    sigma = np.sqrt(fraction * (1 - fraction) / DRAWS)
    assert abs(drawn.mean() - value) <= 4 * sigma + 1e-9
    assert set(drawn) <= {int(np.floor(value)), int(np.ceil(value))}


def test_a_step_far_below_one_keeps_its_chance() -> None:
    # floor(w - step + u) in f32 would never move w = 100 by 2^-20; here it moves once in 2^20
    value = 2.0**-20
    edge = 2**32 // 2**20
    assert lib.fl_round_stochastic(value, edge - 1) == 1
    assert lib.fl_round_stochastic(value, edge) == 0
    assert lib.fl_round_stochastic(-value, edge - 1) == -1


@given(st.integers(-(2**24), 2**24), st.integers(0, 2**32 - 1))
def test_whole_numbers_stay(value: int, random: int) -> None:
    assert lib.fl_round_stochastic(float(value), random) == value


def test_it_saturates() -> None:
    for huge in (1e30, float("inf")):
        assert lib.fl_round_stochastic(huge, 0) == 2147483520
        assert lib.fl_round_stochastic(-huge, 0) == -2147483520


def test_bits_are_uniform_and_uncorrelated() -> None:
    drawn = np.array(bits(DRAWS), np.uint32)
    assert len(set(drawn.tolist())) == DRAWS  # a bijection of the index
    ones = np.unpackbits(drawn.view(np.uint8)).reshape(DRAWS, 32).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 4.5 * 0.5 / DRAWS**0.5
    counts = np.bincount(drawn >> 24, minlength=256)
    chi2 = ((counts - DRAWS / 256) ** 2 / (DRAWS / 256)).sum()
    assert 160 < chi2 < 370  # 255 degrees of freedom, beyond 1e-5 on both sides
    u = drawn / 2**32
    for lag in (1, 2, 16, 64):
        correlation = np.corrcoef(u[:-lag], u[lag:])[0, 1]
        assert abs(correlation) < 4.5 / DRAWS**0.5


def test_streams_and_steps_and_seeds_differ() -> None:
    keys = {
        lib.fl_random_key(seed, t, s) for seed in range(8) for t in range(64) for s in range(8)
    }
    assert len(keys) == 8 * 64 * 8
    a = np.array([lib.fl_random(lib.fl_random_key(1, t, 0), 5) for t in range(4000)]) / 2**32
    b = np.array([lib.fl_random(lib.fl_random_key(1, t, 1), 5) for t in range(4000)]) / 2**32
    assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / 4000**0.5
    assert abs(a.mean() - 0.5) < 4.5 * 0.29 / 4000**0.5


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_uniform_below_n(n: int) -> None:
    drawn = np.array([lib.fl_random_below(b, n) for b in bits(20_000)])
    assert drawn.min() == 0 and drawn.max() == n - 1
    assert abs(drawn.mean() - (n - 1) / 2) < 4.5 * n / 12**0.5 / 20_000**0.5 + 1e-9


def test_none_of_none() -> None:
    assert lib.fl_random_below(0xFFFFFFFF, 0) == 0


def test_known_answers() -> None:
    # any other value here would change what every board has learned so far
    key = lib.fl_random_key(1, 2, 3)
    known = (2315771274, 3141513217, 1663113593)
    assert (key, lib.fl_random(key, 0), lib.fl_random(key, 1)) == known


def test_the_reference_draws_the_same_bits() -> None:
    for seed, t, stream in ((0, 0, 0), (1, 2, 3), (2**32 - 1, 2**32 - 1, 2**32 - 1)):
        key = lib.fl_random_key(seed, t, stream)
        assert reference.random_key(seed, t, stream) == key
        indices = np.array([0, 1, 65535, 2**32 - 1])
        expected = [lib.fl_random(key, int(i)) for i in indices]
        assert reference.random_bits(key, indices).tolist() == expected
