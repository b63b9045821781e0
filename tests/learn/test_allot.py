"""One budget for all layers, the loss of a sample, and Deutel et al.'s rate."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import c

from fieldloop.runtime.core import core

ffi, lib = core()
Array = np.ndarray[Any, Any]
STEPS = 1 << 24  # of a missing probability


def allot(
    entry: list[int], n: list[int], alpha: float, s_min: float = 0.1, s_max: float = 0.9
) -> list[int]:
    """Kept entries of each layer; `entry`: MACs of one entry."""
    costs = np.array([e * m for e, m in zip(entry, n, strict=True)], np.uint64)
    sizes, kept = np.array(n, np.uint32), np.full(len(n) + 1, 0xDEADBEEF, np.uint32)
    arrays = (c(costs, "uint64_t *"), c(sizes, "uint32_t *"))
    lib.fl_allot(*arrays, len(n), s_min, s_max, alpha, c(kept, "uint32_t *"))
    assert kept[-1] == 0xDEADBEEF
    return [int(k) for k in kept[:-1]]


# ---- the budget ----


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        # costs 640, 16000, 8000: 24640 in all, half of it 12320. The head's share of a third is
        # more than it wants; 11680 are left, 5840 for each of the others: 58 of 100, 29 of 40.
        (0.5, [10, 58, 29]),
        # nine tenths, 22176: 8000 for the third, 21536 - 8000 = 13536 for the second, 135
        (1.0, [10, 100 + 35, 40]),
        # a tenth, 2464: 640 for the head, 912 for each of the others: 9 entries of 100, 4 of 200
        (0.0, [10, 9, 4]),
    ],
)
def test_worked_example(alpha: float, expected: list[int]) -> None:
    assert allot([64, 100, 200], [10, 160, 40], alpha) == expected


def test_the_cheapest_layer_is_served_first_wherever_it_stands() -> None:
    assert allot([200, 100, 64], [40, 160, 10], 0.5) == [29, 58, 10]


def test_one_layer_gets_all_that_is_granted() -> None:
    assert allot([7], [1000], 0.5) == [500]
    assert allot([7], [1000], 1.0, 1.0, 1.0) == [1000]
    assert allot([1], [3], 0.5, 0.0, 1.0) == [2]  # 1.5 MACs: half up


def test_every_layer_keeps_one() -> None:
    assert allot([1000, 2000], [5, 5], 0.0, 0.0, 1.0) == [1, 1]


layers = st.lists(
    st.tuples(st.integers(1, 1 << 20), st.integers(1, 65535)), min_size=1, max_size=16
)
unit = st.floats(0, 1, width=32)


@given(layers, unit, unit)
@settings(max_examples=200, deadline=None)
def test_a_budget_is_kept_spent_and_fair(
    wanted: list[tuple[int, int]], alpha: float, s_max: float
) -> None:
    entry, n = [e for e, _ in wanted], [m for _, m in wanted]
    kept = allot(entry, n, alpha, 0.0, s_max)
    total = sum(e * m for e, m in wanted)
    ratio = ffi.new("fl_ratio_t *", [0.0, s_max, 1.0, lib.FL_K_INTEGER])
    budget = (total * lib.fl_ratio_q15(ratio, alpha, 0) + (1 << 14)) >> 15
    assert all(1 <= k <= m for k, m in zip(kept, n, strict=True))
    # no more than the budget, but for a first entry where a share is less than one
    assert sum((k - 1) * e for k, e in zip(kept, entry, strict=True)) <= budget
    cut_short = [k * e for k, e, m in zip(kept, entry, n, strict=True) if k < m]
    if cut_short:
        # all of it, but for what is left of every share that holds no whole entry more
        spent = sum(k * e for k, e in zip(kept, entry, strict=True))
        assert spent + sum(entry) + len(n) >= budget
        # whoever is cut short gets as much as whoever is served in full, to an entry
        full = [m * e for k, e, m in zip(kept, entry, n, strict=True) if k == m and k > 1]
        short = [(k + 1) * e for k, e, m in zip(kept, entry, n, strict=True) if k < m and k > 1]
        assert not full or not short or min(short) >= max(full)


@given(layers, unit, unit)
@settings(max_examples=100, deadline=None)
def test_more_error_never_grants_a_layer_less(
    wanted: list[tuple[int, int]], a: float, b: float
) -> None:
    entry, n = [e for e, _ in wanted], [m for _, m in wanted]
    less, more = sorted((a, b))
    few, many = allot(entry, n, less, 0.0, 1.0), allot(entry, n, more, 0.0, 1.0)
    assert all(k <= m for k, m in zip(few, many, strict=True))
    assert allot(entry, n, 1.0, 0.0, 1.0) == n


# ---- the loss ----


def losses(steps: Array) -> Array:
    """Of missing probabilities in steps of 2^-24."""
    return np.array([lib.fl_loss(float(i) / STEPS) for i in steps], np.float32)


def sampled() -> Array:
    """Around every power of two and every edge of the logarithm's reduction, and in between."""
    powers = [STEPS >> i for i in range(25)]
    edges = [round(STEPS * (1 - 2.0**-i * 0.5**0.5)) for i in range(24)]
    around = [
        e + d for e in (*powers, *(STEPS - p for p in powers), *edges) for d in range(-40, 41)
    ]
    between = np.random.default_rng(4).integers(0, STEPS, 40000)
    steps = np.unique(np.concatenate([around, between, between + 1]))
    return steps[(steps >= 0) & (steps < STEPS)]


def test_the_loss_is_within_one_ulp_and_monotone() -> None:
    steps = sampled()
    got = losses(steps)
    exact = -np.log1p(-steps / STEPS)
    ulp = np.spacing(exact.astype(np.float32)).astype(np.float64)
    assert (np.abs(got - exact) <= ulp).all()
    assert (np.diff(got) >= 0).all()


def test_the_ends_of_the_loss() -> None:
    assert lib.fl_loss(0.0) == 0.0
    assert not np.signbit(lib.fl_loss(0.0))
    least = lib.fl_loss(1 - 2.0**-24)
    assert least == pytest.approx(24 * np.log(2), rel=1e-6)
    assert lib.fl_loss(1.0) == least


@given(unit)
def test_the_loss_of_any_missing_probability(missing: float) -> None:
    p = max(1.0 - missing, 2.0**-24)
    assert lib.fl_loss(missing) == pytest.approx(-np.log(p), rel=2.0**-22, abs=2.0**-24)


# ---- Deutel et al. ----


@pytest.mark.parametrize(("error", "kept"), [(0.0, 6), (0.2, 17), (0.6, 40), (1.2, 64)])
def test_worked_example_5_rate(error: float, kept: int) -> None:
    # research, section 4: lambda 0.1..1 of 64 structures; the largest error so far is 1
    largest = ffi.new("float *", 1.0)
    rate = lib.fl_propagation_rate(error, largest, 1.0)
    ratio = ffi.new("fl_ratio_t *", [0.1, 1.0, 1.0, lib.FL_K_TRUNC_F32])
    assert [lib.fl_keep_count(ratio, rate, p, 64) for p in range(4)] == [kept] * 4
    exact = (Fraction(1, 10) + Fraction(9, 10) * Fraction(str(min(error, 1.0)))) * 64
    assert kept == int(exact)
    nearest = ffi.new("fl_ratio_t *", [0.1, 1.0, 1.0, lib.FL_K_INTEGER])
    assert lib.fl_keep_count(nearest, rate, 3, 64) == int(exact + Fraction(1, 2))


def test_the_rate_is_of_the_largest_loss_so_far() -> None:
    largest = ffi.new("float *", 0.0)
    rates = [
        lib.fl_propagation_rate(lib.fl_loss(missing), largest, 1.0)
        for missing in (0.5, 0.9, 0.75, 0.9, 0.0)
    ]
    assert rates == [1.0, 1.0, pytest.approx(np.log(4) / np.log(10)), 1.0, 0.0]
    assert largest[0] == lib.fl_loss(0.9)
