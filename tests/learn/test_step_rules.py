"""How rows and biases are written, against numpy: optimizers, kinds of weight, every bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from kernels import Array, Rule, Trained, core, step_bias, step_fully_connected_row, step_row

_, lib = core()
f32 = np.float32
KINDS = ["int8", "int16", "f32"]
OPTIMIZERS = ["sgd", "momentum", "adam"]


def rounded(v: np.float32, bits: int) -> int:
    """Magnitude and sign apart; the fraction is compared with the bits."""
    m = abs(float(v))
    whole = math.floor(m)
    whole += bits < int((m - whole) * 2.0**32)
    return -whole if v < 0 else whole


def factor_of(rule: Rule, row: int, optimizer: str) -> np.float32:
    scale = rule.w_scale[row if rule.w_scale.size > 1 else 0]
    if optimizer == "adam":
        return f32(f32(rule.lr) / scale)
    return f32(f32(f32(rule.lr) * f32(rule.x_scale)) / scale)


def reference_step(rule: Rule, m1: Array, m2: Array, at: int, g: np.float32, kind: str) -> f32:
    """The step in front of its factor; moments are brought up to date."""
    if kind == "sgd":
        return g
    b1, b2 = f32(rule.beta1), f32(rule.beta2)
    if kind == "momentum":
        m1[at] = f32(b1 * m1[at]) + g
        return m1[at]
    one = f32(1)
    m1[at] = f32(b1 * m1[at]) + f32(f32(one - b1) * g)
    m2[at] = f32(b2 * m2[at]) + f32(f32(f32(one - b2) * g) * g)
    deviation = np.sqrt(f32(m2[at] / f32(one - f32(rule.decay2))))
    return f32(m1[at] / f32(one - f32(rule.decay1))) / f32(deviation + f32(1e-7))


def reference_move(rule: Rule, t: Trained, at: int, s: np.float32) -> int:
    """Moves flat weight `at`; 1 where something held it back."""
    w = t.w.reshape(-1)
    most = f32(rule.max_step)
    cut = int(abs(s) > most)
    s = f32(np.clip(s, -most, most))
    if t.master is not None:
        master = t.master.reshape(-1)
        wanted = f32(master[at] - s)
        master[at] = np.clip(wanted, f32(-127), f32(127))
        # halves away from zero
        w[at] = int(math.copysign(math.floor(abs(float(master[at])) + 0.5), master[at]))
        return cut | int(master[at] != wanted)
    bits = lib.fl_random(rule.key, at)
    if t.low is not None:
        low = t.low.reshape(-1)
        move = rounded(f32(s * f32(256)), bits)
        value = int(w[at]) * 256 + int(low[at])
        kept = max(-127 * 256, min(127 * 256, value - move))
        if move:
            w[at] = (kept + 128) >> 8
            low[at] = kept - 256 * int(w[at])
        return cut | int(move != 0 and kept != value - move)
    move = rounded(s, bits)
    kept = max(-127, min(127, int(w[at]) - move))
    if move:
        cut |= int(kept != int(w[at]) - move)
        w[at] = kept
    return cut


def make_trained(
    rng: np.random.Generator, kind: str, optimizer: str, rows: int, n: int, depthwise: bool
) -> Trained:
    shape = (n, rows) if depthwise else (rows, n)
    w = rng.integers(-127, 128, shape).astype(np.int8)
    t = Trained(w, depthwise=depthwise)
    if kind == "int16":
        t.low = rng.integers(-128, 128, shape).astype(np.int8)
        t.low[abs(w.astype(int)) == 127] = 0
    if kind == "f32":
        t.master = np.clip(w + rng.uniform(-0.49, 0.49, shape), -127, 127).astype(f32)
    if optimizer != "sgd":
        t.moment1 = rng.normal(size=shape).astype(f32)
    if optimizer == "adam":
        t.moment2 = rng.uniform(0, 2, shape).astype(f32)
    return t


def copy_of(t: Trained) -> Trained:
    def same(a: Array | None) -> Array | None:
        return None if a is None else a.copy()

    return Trained(
        t.w.copy(), same(t.low), same(t.master), same(t.moment1), same(t.moment2), t.depthwise
    )


def bytes_of(t: Trained) -> list[bytes | None]:
    parts = (t.w, t.low, t.master, t.moment1, t.moment2)
    return [None if a is None else a.tobytes() for a in parts]


def flat(a: Array | None) -> Array:
    return np.zeros(0, f32) if a is None else a.reshape(-1)


def make_rule(rng: np.random.Generator, rows: int, optimizer: str) -> Rule:
    size = 1 if rng.random() < 0.3 else rows
    return Rule(
        w_scale=rng.uniform(0.002, 0.02, size).astype(f32),
        lr=float(10.0 ** rng.uniform(-4, 0)),
        x_scale=float(rng.uniform(0.01, 0.5)),
        x_zero=int(rng.integers(-128, 128)),
        key=int(rng.integers(0, 2**32)),
        max_step=int(rng.choice([1, 2, 8, 100, 254])),
        beta1=float(rng.choice([0.0, 0.5, 0.9])),
        beta2=float(rng.choice([0.0, 0.9, 0.999])),
        decay1=float(rng.uniform(0.0, 0.99)),
        decay2=float(rng.uniform(0.0, 0.999)),
    )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_stepped_as_the_rule_says(kind: str, optimizer: str, seed: int) -> None:
    rng = np.random.default_rng([seed, KINDS.index(kind), OPTIMIZERS.index(optimizer)])
    rows, n = int(rng.integers(1, 6)), int(rng.integers(1, 60))
    t = make_trained(rng, kind, optimizer, rows, n, bool(seed % 2))
    rule = make_rule(rng, rows, optimizer)
    expected, cut = copy_of(t), 0
    m1, m2 = flat(expected.moment1), flat(expected.moment2)
    for row in rng.permutation(rows):
        g = (rng.normal(size=n) * 10.0 ** rng.integers(-6, 3, n)).astype(f32)
        g[rng.random(n) < 0.2] = 0.0
        step_row(rule, t, int(row), g)
        factor = factor_of(rule, int(row), optimizer)
        for j in range(n):
            at = j * rows + int(row) if t.depthwise else int(row) * n + j
            if optimizer == "sgd" and g[j] == 0:
                continue
            value = f32(f32(rule.x_scale) * g[j]) if optimizer == "adam" else g[j]
            s = f32(factor * reference_step(rule, m1, m2, at, value, optimizer))
            cut += reference_move(rule, expected, at, s)
    assert bytes_of(t) == bytes_of(expected)
    assert int(rule.clipped[0]) == cut


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("kind", KINDS)
def test_a_fully_connected_row_needs_no_gradient(kind: str, seed: int) -> None:
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    rows, n = int(rng.integers(1, 6)), int(rng.integers(1, 200))
    t = make_trained(rng, kind, "sgd", rows, n, depthwise=False)
    rule = make_rule(rng, rows, "sgd")
    expected, cut = copy_of(t), 0
    for row in range(rows):
        x = rng.integers(-128, 128, n).astype(np.int8)
        x[rng.random(n) < rng.choice([0.1, 0.9])] = rule.x_zero
        delta = f32(rng.normal() * 10.0 ** rng.integers(-4, 2))
        step_fully_connected_row(rule, t, row, float(delta), x)
        g = f32(factor_of(rule, row, "sgd") * delta)
        for j in range(n):
            centred = int(x[j]) - rule.x_zero
            if centred:
                cut += reference_move(rule, expected, row * n + j, f32(g * f32(centred)))
    assert bytes_of(t) == bytes_of(expected)
    assert int(rule.clipped[0]) == cut


@pytest.mark.parametrize("kind", KINDS)
def test_steps_of_every_size_move_a_fully_connected_row_as_the_rule_says(kind: str) -> None:
    # the loops compare bits with bounds first: from never to always, subnormal and infinite
    rng = np.random.default_rng(3)
    n = 300
    x = rng.integers(-128, 128, n).astype(np.int8)
    moved = 0
    for exponent in (-149, -140, -126, -45, -40, -34, -32, -20, -9, -8, -7, -1, 0, 7, 8, 60, 127):
        for sign in (1.0, -1.0):
            rule = Rule(np.ones(1, f32), lr=1.0, x_scale=1.0, x_zero=-128, key=exponent + 200)
            t = make_trained(rng, kind, "sgd", 1, n, depthwise=False)
            expected, cut = copy_of(t), 0
            delta = f32(sign * 2.0**exponent * (1.0 if exponent == -149 else 1.25))
            step_fully_connected_row(rule, t, 0, float(delta), x)
            with np.errstate(over="ignore"):
                for j in range(n):
                    centred = int(x[j]) + 128
                    if centred:
                        s = f32(delta * f32(centred))
                        cut += reference_move(rule, expected, j, s)
            assert bytes_of(t) == bytes_of(expected), exponent
            assert int(rule.clipped[0]) == cut
            moved += cut
    assert moved > n


def test_nothing_moves_by_nothing() -> None:
    for kind in KINDS:
        rng = np.random.default_rng(1)
        t = make_trained(rng, kind, "sgd", 1, 4, depthwise=False)
        before = bytes_of(t)
        rule = Rule(np.ones(1, f32), max_step=1)
        step_row(rule, t, 0, np.array([0.0, -0.0, 0.0, 0.0], f32))
        step_fully_connected_row(rule, t, 0, 1.0, np.zeros(4, np.int8))
        step_fully_connected_row(rule, t, 0, 0.0, np.full(4, 77, np.int8))
        assert bytes_of(t) == before
        assert rule.clipped[0] == 0


def test_a_weight_of_minus_128_stays_until_it_moves() -> None:
    # factory weights may hold it; a step that rounds to 0 is no reason to touch it
    w = np.full((1, 64), -128, np.int8)
    step_row(Rule(np.ones(1, f32), lr=1e-9), Trained(w), 0, np.ones(64, f32))
    assert (w == -128).all()
    step_row(Rule(np.ones(1, f32), lr=2.0), Trained(w), 0, np.ones(64, f32))  # by +1
    assert (w == -127).all()


def test_what_holds_a_weight_back_is_counted_once() -> None:
    w = np.array([[0, 126, 127, -126, 5]], np.int8)
    rule = Rule(np.ones(1, f32), lr=1.0, x_scale=1.0, max_step=2)
    step_row(rule, Trained(w), 0, np.array([1.0, -3.0, -2.0, 300.0, 2.0], f32))
    assert w.tolist() == [[-1, 127, 127, -127, 3]]
    assert rule.clipped[0] == 3  # the second and the fourth by both rules


@pytest.mark.parametrize("gradient", [1e30, -1e30, math.inf, -math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_is_too_large(kind: str, gradient: float) -> None:
    rng = np.random.default_rng(2)
    t = make_trained(rng, kind, "sgd", 1, 5, depthwise=False)
    rule = Rule(np.ones(1, f32), lr=1.0, x_scale=1.0, max_step=254)
    step_row(rule, t, 0, np.full(5, gradient, f32))
    assert (t.w == (-127 if gradient > 0 else 127)).all()
    assert t.master is None or (t.master == t.w).all()
    assert rule.clipped[0] == 5


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_biases_step_as_their_rule_says(optimizer: str) -> None:
    rng = np.random.default_rng(OPTIMIZERS.index(optimizer))
    rows = 30
    b = rng.integers(-(2**30), 2**30, rows).astype(np.int32)
    moments = {"sgd": None, "momentum": np.zeros((1, rows), f32), "adam": np.zeros((2, rows), f32)}
    m = moments[optimizer]
    expected = b.astype(object)
    m1, m2 = (np.zeros(rows, f32), np.zeros(rows, f32))
    for step in range(10):
        rule = make_rule(rng, rows, optimizer)
        for row in range(rows):
            total = f32(0 if (row + step) % 5 == 0 else rng.normal() * 10.0 ** rng.integers(-5, 4))
            step_bias(rule, row, float(total), 1000 + row, b, m)
            if total == 0:
                continue
            scale = rule.w_scale[row if rule.w_scale.size > 1 else 0]
            factor = f32(f32(rule.lr) / f32(f32(rule.x_scale) * scale))
            s = f32(factor * reference_step(rule, m1, m2, row, total, optimizer))
            move = rounded(s, lib.fl_random(rule.key, 1000 + row))
            expected[row] = max(-(2**30), min(2**30, expected[row] - move))
    assert b.tolist() == expected.tolist()
    if m is not None:
        assert m[0].tobytes() == m1.tobytes()
        assert len(m) == 1 or m[1].tobytes() == m2.tobytes()


@pytest.mark.parametrize("total", [1e30, -1e30, math.inf])
def test_biases_stop_at_their_clamp(total: float) -> None:
    b = np.array([7], np.int32)
    for _ in range(3):
        step_bias(Rule(np.ones(1, f32)), 0, total, 0, b, None)
    assert b.tolist() == [-(2**30) if total > 0 else 2**30]


def test_adam_bounds_a_gradient_that_could_overflow_its_square() -> None:
    t = make_trained(np.random.default_rng(0), "int8", "adam", 1, 4, depthwise=False)
    rule = Rule(np.ones(1, f32), lr=0.5, x_scale=1.0)
    step_row(rule, t, 0, np.array([1e38, -1e38, np.inf, -np.inf], f32))
    assert t.moment1 is not None and t.moment2 is not None
    assert np.isfinite(t.moment1).all() and np.isfinite(t.moment2).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_master_just_below_a_half_is_nearest_to_nothing(sign: int) -> None:
    """0.5 more would be rounded up to 1."""
    t = make_trained(np.random.default_rng(0), "f32", "sgd", 1, 1, depthwise=False)
    assert t.master is not None
    t.master[:], t.w[:] = sign * 0.5, sign
    rule = Rule(np.ones(1, f32), lr=1.0, x_scale=1.0)
    step_row(rule, t, 0, np.full(1, sign * 2.0**-25, f32))
    assert abs(t.master[0]) == f32(0.5 - 2.0**-25)
    assert t.w[0] == 0


@pytest.mark.parametrize("total", [1e38, -1e38, math.inf])
def test_adam_bounds_what_a_bias_is_given(total: float) -> None:
    b = np.array([7], np.int32)
    moments = np.zeros((2, 1), f32)
    for _ in range(3):
        step_bias(Rule(np.ones(1, f32)), 0, total, 0, b, moments)
    assert np.isfinite(moments).all()
    assert abs(moments[0, 0]) <= 1e15 and moments[1, 0] > 0


def test_the_square_root_is_correctly_rounded() -> None:
    rng = np.random.default_rng(0)
    bits = np.concatenate(
        [
            rng.integers(0, 0x7F800000, 60_000),
            rng.integers(0x3F800000, 0x40800000, 60_000),  # every mantissa matters twice
            rng.integers(0, 1 << 23, 2000),  # subnormal
            np.array([0, 1, 2, 3, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x3F800000, 0x7F800000]),
            np.arange(0x3F7FFF00, 0x3F800100),
        ]
    ).astype(np.uint32)
    values = bits.view(f32)
    got = np.array([lib.fl_square_root(float(v)) for v in values], f32)
    assert got.tobytes() == np.sqrt(values).tobytes()
