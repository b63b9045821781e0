"""The acceptance tests of the learner that the research file asks for (its section 10): dense
gradients at a ratio of one, skips, multiply-accumulates, rounding, effort and accuracy.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fixed_nets import HEADER, residual_net, samples, small_net
from kernels import c
from nets import SELECTORS, random_net

from fieldloop.errors import UsageError
from fieldloop.runtime import Learner, LearnerConfig, Model, learner_sizes
from fieldloop.runtime.core import core

Array = np.ndarray[Any, Any]
ffi, lib = core()
NO_REPLAYS = LearnerConfig(replays=0)


def settings(**changes: Any) -> LearnerConfig:
    return dataclasses.replace(NO_REPLAYS, **changes)


# ---- 2: a ratio of one is dense training ----


@pytest.mark.parametrize("deltas", ["f32", "int16"])
@pytest.mark.parametrize("unit", ["element", "channel"])
@pytest.mark.parametrize("selector", [s for s in SELECTORS if s != "dense"])
def test_a_ratio_of_one_is_dense_training(selector: str, unit: str, deltas: str) -> None:
    net = residual_net()
    xs, ys = samples(net, 20, 1), np.arange(20) % 4
    dense = settings(selector="dense", deltas=deltas, seed=5)
    everything = dataclasses.replace(
        dense, selector=selector, unit=unit, s_min=1.0, s_max=1.0, zeta=1.0, mask=(1.0,) * 16
    )
    # TinyPropv2 skips: with this threshold only samples without an error, and there are none
    skipping = settings(skip="off" if selector == "budget" else "auto", d_thr=0.0)
    everything = dataclasses.replace(everything, skip=skipping.skip, d_thr=skipping.d_thr)
    results = []
    for config in (dense, everything):
        learner = Learner(Model(net.image), config)
        learner.run(xs, ys)
        stats = learner.stats
        assert stats.trained == 20
        assert stats.backward_macs == stats.dense_backward_macs > 0
        results.append((learner.weights(), stats))
    (expected, dense_stats), (found, stats) = results
    assert stats == dense_stats
    for op, (w, b) in expected.items():
        assert (w == found[op][0]).all()
        assert b is not None and (b == found[op][1]).all()


# ---- 6: skips ----


@pytest.mark.parametrize(
    "mode",
    [
        {},
        {"selector": "budget"},
        {"selector": "dense", "skip": "on"},
        {"selector": "loss", "skip": "on", "unit": "channel"},
        {"optimizer": "momentum", "weights": "int16"},
        {"optimizer": "adam", "weights": "f32"},
        {"optimizer": "momentum", "batch": 3},
        {"deltas": "int16", "weights": "int16"},
    ],
    ids=str,
)
def test_a_skip_changes_no_byte_of_weights_or_optimizer(mode: dict[str, Any]) -> None:
    net = small_net(layers=3)
    model = Model(net.image)
    learner = Learner(model, settings(d_thr=0.5, lr=0.3, **mode))
    xs = samples(net, 300, 3)
    worst = int(np.argmin(model.predict_int8(xs[:1])[0]))
    assert learner.train(xs[0], worst).trained  # alpha = 1 on the first sample
    moved = skipped = 0
    for x in xs[1:]:
        before, counted = learner.state, learner.stats
        largest = np.frombuffer(before[HEADER:], np.float32)[0]
        step = learner.train(x, int(np.argmax(model.predict_int8(x)[0])))
        assert step.trained == (step.error > 0.5 * max(largest, step.error))
        if step.trained:
            moved += learner.state[HEADER + 8 :] != before[HEADER + 8 :]
            continue
        skipped += 1
        assert step.kept == 0
        # behind the header: maxima, layer counters, weights, moments
        assert learner.state[HEADER:] == before[HEADER:]
        after = learner.stats
        assert after.skipped == counted.skipped + 1
        assert (after.trained, after.updates) == (counted.trained, counted.updates)
        assert after.backward_macs == counted.backward_macs
    assert skipped > 100
    assert learner.stats.skipped == skipped


@pytest.mark.parametrize("deltas", ["f32", "int16"])
@pytest.mark.parametrize("selector", SELECTORS)
def test_the_first_sample_trains(selector: str, deltas: str) -> None:
    for seed in range(6):
        net = random_net(seed)
        config = settings(selector=selector, deltas=deltas, skip="on", d_thr=0.99, mask=(1.0,))
        learner = Learner(Model(net.image), config)
        step = learner.train(samples(net, 1, seed)[0], 1)
        assert step.trained == (step.error > 0)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"d_max": 0.4, "d_thr": 0.5}, "d_thr: not below d_max, nothing would ever be trained"),
        ({"d_max": 0.5, "d_thr": 0.5}, "d_thr: not below d_max"),
        ({"selector": "dense", "skip": "on", "d_max": 0.05}, "d_thr: not below d_max"),
        ({"selector": "budget", "d_max": 0.05}, "d_thr: not below d_max"),
        ({"d_min": 0.6, "d_thr": 0.5}, "d_thr: below d_min, nothing would ever be skipped"),
        ({"d_min": 0.6, "d_max": 0.5}, "d_min: above d_max"),
        ({"skip": "off"}, "skip: tinypropv2 without it is tinyprop"),
        ({"s_min": 0.9, "s_max": 0.1}, "s_min: above s_max"),
        ({"s_max": 1.5}, "s_min, s_max"),
        ({"s_min": -0.1}, "s_min, s_max"),
        ({"zeta": 1.01}, "zeta"),
        ({"zeta": float("nan")}, "zeta"),
        ({"rho": 0.0}, "rho"),
        ({"lr": 0.0}, "lr"),
        ({"lr": float("inf")}, "lr"),
        ({"d_thr": float("nan")}, "d_min, d_max, d_thr"),
        ({"floor": 0}, "floor"),
        ({"batch": 0}, "batch"),
        ({"batch": 257}, "batch"),
        ({"max_step": 0}, "max_step"),
        ({"max_step": 255}, "max_step"),
        ({"beta1": 1.0}, "beta1, beta2"),
        ({"beta2": float("nan")}, "beta1, beta2"),
        ({"rank": "activation"}, "rank: activation ranks channels"),
        ({"deltas": "int16", "optimizer": "adam"}, "deltas: int16 goes with SGD"),
        ({"deltas": "int16", "batch": 2}, "deltas: int16 goes with SGD"),
        ({"deltas": "int16", "weights": "f32"}, "deltas: int16 goes with SGD"),
        ({"selector": "mask"}, "mask: all zero, nothing would ever be trained"),
        (
            {"selector": "mask", "layers": 2, "mask": (0.0, 0.0, 1.0)},
            "mask: all zero, nothing would ever be trained",
        ),
        ({"holdout": 1}, "holdout: 1 leaves nothing"),
        ({"layers": 17}, "layers"),
        ({"replays": 257}, "replays"),
        ({"memory": 65536}, "memory"),
        ({"memory": -1}, "memory"),
        ({"selector": "tinypropv3"}, "selector"),
        ({"k_rule": "round"}, "k_rule"),
    ],
    ids=str,
)
def test_degenerate_settings_are_refused_with_the_reason(
    wrong: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UsageError) as refused:
        learner_sizes(Model(small_net().image), settings(**wrong))
    assert reason in str(refused.value)


def test_more_layers_than_the_image_has_are_refused() -> None:
    with pytest.raises(UsageError):
        learner_sizes(Model(small_net(layers=2).image), settings(layers=3))


# ---- 7: multiply-accumulates are the formulas ----


@dataclass(frozen=True)
class Cost:
    """Of a layer, from its shapes. dense: 2 k m; convolution: 2 k C_in K_h K_w; depthwise: 2 k K_h
    K_w; under an average, each kept entry stands for a window of outputs.
    """

    entries: int  # of its delta: of the pool's output where one is fused
    channels: int
    row: int  # m, C_in K_h K_w, K_h K_w
    window: int = 1
    lowest: bool = False  # nothing to propagate to

    def macs(self, updated: int, propagated: int) -> int:
        return self.row * self.window * (updated + (0 if self.lowest else propagated))


# small_net from the output backwards: 96 -> 5; conv 3x3x4 -> 6 on 8x8 under a maximum of 2x2;
# depthwise 3x3 on 8x8x4; conv 3x3x1 -> 4 on 8x8
SMALL = [Cost(5, 5, 96), Cost(4 * 4 * 6, 6, 36), Cost(256, 4, 9), Cost(256, 4, 9)]
# residual_net: 9 -> 4; 6 -> 9; conv 3x3x4 -> 6 on 5x4 under an average of all; conv 1x1 4 -> 4
# and depthwise 3x3 on 5x4x4; conv 3x3x2 -> 4 on 10x9 under a maximum of 2x2
RESIDUAL = [
    Cost(4, 4, 9),
    Cost(9, 9, 6),
    Cost(6, 6, 36, window=20),
    Cost(80, 4, 4),
    Cost(80, 4, 9),
    Cost(80, 4, 18, lowest=True),
]


def counted(learner: Learner, xs: Array) -> tuple[list[int], list[int]]:
    """Kept gradients and MACs of each sample."""
    kept, macs, before = [], [], 0
    for x in xs:
        kept.append(learner.train(x, 1).kept)
        macs.append(learner.stats.backward_macs - before)
        before = learner.stats.backward_macs
    return kept, macs


@pytest.mark.parametrize("k_rule", ["integer", "trunc_f32"])
@pytest.mark.parametrize("deltas", ["f32", "int16"])
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_macs_of_a_static_ratio_are_the_formulas(layers: int, deltas: str, k_rule: str) -> None:
    net = small_net(layers=4)
    costs = [*SMALL[: layers - 1], dataclasses.replace(SMALL[layers - 1], lowest=True)]
    config = settings(selector="topk", s_max=0.25, layers=layers, deltas=deltas, k_rule=k_rule)
    learner = Learner(Model(net.image), config)
    kept, macs = counted(learner, samples(net, 3, 4))
    half = 0.5 if k_rule == "integer" else 0.0
    ks = [max(int(cost.entries * 0.25 + half), 1) for cost in costs]
    ks[0] = max(ks[0], min(costs[0].entries, 16) if k_rule == "integer" else 2)
    assert kept == [sum(ks)] * 3
    assert macs == [sum(cost.macs(k, k) for cost, k in zip(costs, ks, strict=True))] * 3
    stats = learner.stats
    assert stats.dense_backward_macs == 3 * sum(
        cost.macs(cost.entries, cost.entries) for cost in costs
    )
    forward = [(5, 96), (384, 36), (256, 9), (256, 9)]
    assert stats.forward_macs == 3 * sum(n * row for n, row in forward)


@pytest.mark.parametrize("unit", ["element", "channel"])
@pytest.mark.parametrize("selector", SELECTORS)
def test_macs_of_every_selector_are_the_formulas(selector: str, unit: str) -> None:
    net = residual_net()
    mask = (0.5, 1.0, 0.5, 0.0, 0.25, 1.0)
    config = settings(selector=selector, unit=unit, mask=mask, zeta=0.7, floor=2)
    learner = Learner(Model(net.image), config)
    dense = sum(cost.macs(cost.entries, cost.entries) for cost in RESIDUAL)
    before = learner.layer_stats()
    total = 0
    for i, x in enumerate(samples(net, 8, 6)):
        step = learner.train(x, i % 4)
        now = learner.layer_stats()
        kept = [a.kept - b.kept for a, b in zip(now, before, strict=True)]
        before = now
        assert step.kept == sum(kept)
        if step.trained:
            assert all(cost.entries >= k for cost, k in zip(RESIDUAL, kept, strict=True))
            propagated = [cost.entries for cost in RESIDUAL] if selector == "mask" else kept
            total += sum(
                cost.macs(*ks) for cost, *ks in zip(RESIDUAL, kept, propagated, strict=True)
            )
            if unit == "channel" and selector != "mask":
                positions = [cost.entries // cost.channels for cost in RESIDUAL]
                assert all(k % p == 0 for k, p in zip(kept, positions, strict=True))
            if selector == "mask":
                assert kept == [2, 9, 3, 0, 20, 80]
            if selector == "dense":
                assert kept == [cost.entries for cost in RESIDUAL]
        assert learner.stats.backward_macs == total
        assert learner.stats.dense_backward_macs == (i + 1) * dense
    assert total > 0
    assert [s.entries for s in before] == [
        learner.stats.trained * cost.entries for cost in RESIDUAL
    ]


@pytest.mark.parametrize("deltas", ["f32", "int16"])
def test_a_mask_hands_down_nothing_to_layers_that_it_leaves_out(deltas: str) -> None:
    net = residual_net()
    learners = [
        Learner(Model(net.image), settings(selector="mask", mask=mask, deltas=deltas))
        for mask in ((1.0, 0.5), (1.0, 0.5, *[0.0] * 3, 1.0))
    ]
    for i, x in enumerate(samples(net, 8, 6)):
        for learner in learners:
            learner.train(x, i % 4)
    short, long = learners
    updated = [s.kept for s in short.layer_stats()]
    assert updated[0] > 0 and updated[1] > 0 and not any(updated[2:])
    head, second = RESIDUAL[:2]
    assert short.stats.backward_macs == short.stats.trained * (
        head.macs(head.entries, head.entries) + second.macs(updated[1] // short.stats.trained, 0)
    )
    assert long.stats.backward_macs > short.stats.backward_macs
    assert [s.entries for s in short.layer_stats()] == [s.entries for s in long.layer_stats()]


# ---- 9: stochastic rounding ----


@pytest.mark.parametrize("step", [0.5, -0.013, 2.75, -1e-3])
@pytest.mark.parametrize("weights", ["int8", "int16"])
@pytest.mark.parametrize("deltas", ["f32", "int16"])
def test_the_mean_of_many_steps_is_the_step(step: float, weights: str, deltas: str) -> None:
    draws, unit = 100_000, 1 if weights == "int8" else 256

    def run(key: int) -> Array:
        w, low = np.zeros(draws, np.int8), np.zeros(draws, np.int8)
        clipped, scale = ffi.new("uint64_t *"), np.array([0.5], np.float32)
        rule = ffi.new("fl_step_rule_t *")
        rule.lr, rule.x_scale, rule.key, rule.max_step = 0.5, abs(step), key, 32
        rule.w_scale.scale, rule.clipped = c(scale, "float *"), clipped
        trained = ffi.new("fl_trained_t *")
        trained.w, trained.row_stride, trained.step = c(w, "int8_t *"), draws, 1
        if weights == "int16":
            trained.low = c(low, "int8_t *")
        sign = -1 if step < 0 else 1
        if deltas == "f32":
            g = np.full(draws, sign, np.float32)
            lib.fl_step_row(rule, trained, 0, c(g, "float *"), draws)
        else:
            sums = np.full(draws, sign * 4096, np.int32)
            lib.fl_q_step_row(rule, trained, 0, c(sums, "int32_t *"), -12, draws)
        assert clipped[0] == 0
        return w.astype(np.int64) * unit + low

    moved = run(7)
    asked = float(np.float32(abs(step))) * unit
    fraction = asked - np.floor(asked)
    sigma = (fraction * (1 - fraction) / draws) ** 0.5
    assert abs(-moved.mean() * np.sign(step) - asked) <= 4 * sigma + 1e-6
    assert len(set(moved.tolist())) == (2 if fraction else 1)
    assert (run(7) == moved).all()  # the same draws under one seed
    assert not fraction or (run(8) != moved).any()
