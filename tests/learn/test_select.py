"""How many gradients, and whether at all: worked examples 1 and 4, and what must hold.

Which ones: test_cut.py. Budgets and losses: test_allot.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from cuts import f32, kept
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldloop.runtime.core import core

ffi, lib = core()


def ratio(
    s_min: float = 0.1, s_max: float = 0.9, zeta: float = 0.5, rule: int = lib.FL_K_INTEGER
) -> object:
    return ffi.new("fl_ratio_t *", [s_min, s_max, zeta, rule])


def l1(delta: np.ndarray) -> float:
    return lib.fl_l1_norm(ffi.cast("float *", delta.ctypes.data), delta.size)


def test_worked_example_1_ratio_sequence() -> None:
    table = [  # delta, Y, Ymax, alpha, S, k truncated, k integer
        ([0.6, -0.3, -0.2, -0.1], 1.2, 1.2, 1.00, 0.90, 3, 4),
        ([0.15, -0.09, -0.04, -0.02], 0.3, 1.2, 0.25, 0.30, 1, 1),
        ([0.45, -0.25, -0.15, -0.05], 0.9, 1.2, 0.75, 0.70, 2, 3),
    ]
    y_max = ffi.new("float *", 0.0)
    for values, y, highest, alpha, s, k_trunc, k_integer in table:
        delta = np.array(values, np.float32)
        assert l1(delta) == pytest.approx(y, abs=1e-5)
        got = lib.fl_propagation_rate(l1(delta), y_max, 1.0)
        assert y_max[0] == pytest.approx(highest, abs=1e-5)
        assert got == pytest.approx(alpha, abs=1e-5)
        assert lib.fl_ratio_q15(ratio(), got, 0) / 32768 == pytest.approx(s, abs=1e-4)
        assert lib.fl_keep_count(ratio(rule=lib.FL_K_TRUNC_F32), got, 0, 4) == k_trunc
        assert lib.fl_keep_count(ratio(), got, 0, 4) == k_integer
        for k in (k_trunc, k_integer):  # magnitudes descend
            assert kept(f32(delta), k) == list(range(k))


@pytest.mark.parametrize(
    ("alpha", "expected"), [(0.5, (5, 4, 4)), (1.0, (9, 7, 7))], ids=["half", "full"]
)
def test_damping_of_the_mlp(alpha: float, expected: tuple[int, ...]) -> None:
    # n*S = 5.0, 4.0, 4.0 and 9.0 sit on integer boundaries, where truncated floats go wrong
    sizes = (10, 16, 32)
    got = tuple(lib.fl_keep_count(ratio(), alpha, p, n) for p, n in enumerate(sizes))
    assert got == expected


@pytest.mark.parametrize(
    ("alpha", "expected"), [(0.5, (4, 3, 3)), (1.0, (9, 7, 7))], ids=["half", "full"]
)
def test_damping_of_the_mlp_in_truncated_float32(alpha: float, expected: tuple[int, ...]) -> None:
    # 0.1 + 0.5 * (0.9 - 0.1) is 0.49999997 in float32: 5.0, 4.0, 4.0 lose one each
    compat = ratio(rule=lib.FL_K_TRUNC_F32)
    step = np.float32
    s = [step(0.1) + step(alpha) * (step(0.9) - step(0.1))]
    s += [s[0] * step(0.5), s[0] * step(0.5) * step(0.5)]
    assert tuple(int(step(n) * v) for n, v in zip((10, 16, 32), s, strict=True)) == expected
    got = tuple(lib.fl_keep_count(compat, alpha, p, n) for p, n in enumerate((10, 16, 32)))
    assert got == expected


def test_truncation_in_float32_is_what_the_papers_code_does() -> None:
    # section 1.5: exact arithmetic says 3 and 7; float32 says 2 and 6
    compat = ratio(zeta=1.0, rule=lib.FL_K_TRUNC_F32)
    exact = ratio(zeta=1.0)
    for y, truncated, integer in ((0.3, 2, 3), (0.9, 6, 7)):
        alpha = float(np.float32(y) / np.float32(1.2))
        assert lib.fl_keep_count(compat, alpha, 0, 10) == truncated
        assert lib.fl_keep_count(exact, alpha, 0, 10) == integer


@pytest.mark.parametrize(
    ("y", "metric", "trains"),
    [(1.6, 1.0, True), (1.0, 0.6625, True), (0.8, 0.55, True), (0.4, 0.325, False)],
)
def test_worked_example_4_skip(y: float, metric: float, trains: bool) -> None:
    y_max = ffi.new("float *", 1.6)
    alpha = lib.fl_propagation_rate(y, y_max, 1.0)
    decision = lib.fl_decision(alpha, 0.1, 1.0)
    assert decision == pytest.approx(metric, abs=1e-6)
    assert (decision > 0.5) is trains


def test_a_metric_exactly_at_the_threshold_skips() -> None:
    y_max = ffi.new("float *", 1.0)
    alpha = lib.fl_propagation_rate(0.5, y_max, 1.0)
    assert lib.fl_decision(alpha, 0.0, 1.0) == 0.5
    assert not lib.fl_decision(alpha, 0.0, 1.0) > 0.5


unit = st.floats(0, 1, width=32)


@given(unit, unit, unit, st.integers(0, 6), st.integers(1, 65535), st.sampled_from([0, 1]))
@settings(max_examples=300, deadline=None)
def test_k_is_monotone_bounded_and_damped(
    a: float, b: float, zeta: float, p: int, n: int, rule: int
) -> None:
    s_min, s_max = sorted((a, b))
    r = ratio(s_min, s_max, zeta, rule)
    alphas = np.linspace(0, 1, 17)
    counts = [lib.fl_keep_count(r, alpha, p, n) for alpha in alphas]
    assert counts == sorted(counts)
    assert counts[0] >= 1 and counts[-1] <= n
    # S never above s_max zeta^p: half a Q15 step for each of the p + 2 roundings
    s = lib.fl_ratio_q15(r, 1.0, p) / 32768
    assert s <= s_max * zeta**p + (p + 2) / 65536
    assert all(
        lib.fl_keep_count(r, 1.0, q + 1, n) <= lib.fl_keep_count(r, 1.0, q, n) for q in range(p)
    )


@given(st.lists(st.floats(0, 2, width=32), min_size=1, max_size=30), st.integers(-20, 20))
@settings(max_examples=100, deadline=None)
def test_the_maximum_never_falls_and_a_common_factor_changes_nothing(
    errors: list[float], exponent: int
) -> None:
    one, scaled = ffi.new("float *"), ffi.new("float *")
    highest = 0.0
    for y in errors:
        if 0 < y < 1e-25:
            continue  # scaling a subnormal is not exact
        alpha = lib.fl_propagation_rate(y, one, 1.0)
        assert 0 <= alpha <= 1
        assert one[0] == max(highest, y)
        highest = one[0]
        assert lib.fl_propagation_rate(y * 2.0**exponent, scaled, 1.0) == alpha


@given(st.integers(0, 2**32 - 1), st.integers(-30, 30), st.sampled_from([0, 1]))
@settings(max_examples=60, deadline=None)
def test_a_common_factor_of_all_deltas_changes_no_selection(
    seed: int, exponent: int, rule: int
) -> None:
    """A factor of two's power, so that the deltas themselves scale exactly."""
    rng = np.random.default_rng(seed)
    one, scaled = ffi.new("float *"), ffi.new("float *")
    for size in (10, 64, 300, 300, 300):
        delta = (rng.normal(size=size) * rng.uniform(0.1, 3)).astype(np.float32)
        delta[rng.random(size) < 0.3] = 0
        larger = delta * np.float32(2.0**exponent)
        alpha = lib.fl_propagation_rate(l1(delta), one, 1.0)
        assert lib.fl_propagation_rate(l1(larger), scaled, 1.0) == alpha
        for p in range(3):
            k = lib.fl_keep_count(ratio(rule=rule), alpha, p, size)
            assert kept(f32(larger), k) == kept(f32(delta), k)


def test_forgetting_lets_the_maximum_fall() -> None:
    y_max = ffi.new("float *", 1.0)
    assert lib.fl_propagation_rate(0.25, y_max, 0.5) == 0.5
    assert y_max[0] == 0.5
