"""The host's learner around the core: floats in, evaluation, early stop, what it tells."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from nets import Net
from test_learner import samples, small_net

from fieldloop.errors import FieldloopError, UsageError, VersionError
from fieldloop.image.writer import RehearsalSet
from fieldloop.runtime import Learner, LearnerConfig, Model


def rehearsing_net(count: int = 24) -> Net:
    rng = np.random.default_rng(6)
    x = rng.integers(-128, 128, (count, 8, 8, 1)).astype(np.int8)
    return small_net(layers=3, rehearsal=RehearsalSet(x, np.arange(count) % 5))


def opened(net: Net, **settings: Any) -> Learner:
    return Learner(Model(net.image), LearnerConfig(lr=3.0, **settings))


def test_floats_are_the_int8_samples_they_mean() -> None:
    net = rehearsing_net()
    by_float, by_int8 = opened(net), opened(net)
    q = samples(net, 12, 1)
    real = by_float.model.inputs[0].dequantize(q)
    labels = np.arange(12) % 5
    assert by_float.run(real, labels) == by_int8.run(q, labels)
    assert by_float.state == by_int8.state
    assert by_float.step(real[0].astype(np.float64), 1) == by_int8.step(q[0], 1)
    quantized = by_float.quantize(real[3])
    assert quantized is not None and (quantized == q[3].reshape(-1)).all()


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e300])
def test_a_sample_that_is_not_finite_is_refused_and_counted(poison: float) -> None:
    net = rehearsing_net()
    learner = opened(net, memory=4)
    real = learner.model.inputs[0].dequantize(samples(net, 3, 2)).astype(np.float64)
    learner.run(real, [0, 1, 2])
    weights, stats = learner.weights(), learner.stats
    real[1].reshape(-1)[7] = poison
    first, bad, last = learner.run(real, [3, 4, 0])
    assert math.isnan(bad.error) and (bad.predicted, bad.trained, bad.kept) == (-1, False, 0)
    assert math.isfinite(first.error) and math.isfinite(last.error)
    assert learner.stats.refused == stats.refused + 1
    assert learner.stats.samples == stats.samples + 2
    assert learner.quantize(real[1]) is None
    assert learner.stats.refused == stats.refused + 2
    assert weights.keys() == learner.weights().keys()


def test_what_lies_beyond_the_range_is_clamped_and_counted() -> None:
    net = rehearsing_net()
    learner = opened(net)
    real = learner.model.inputs[0].dequantize(samples(net, 1, 2))[0]
    assert learner.quantize(real) is not None and learner.stats.clamped == 0
    q = learner.quantize(np.where(np.arange(64).reshape(real.shape) % 2, 1e6, -1e6))
    assert q is not None and set(q.tolist()) == {-128, 127}
    assert learner.stats.clamped == 1


def test_evaluation_looks_at_what_is_held_out_and_changes_nothing() -> None:
    net = rehearsing_net()
    learner = opened(net, holdout=3)
    learner.run(samples(net, 10, 3), np.arange(10) % 5)
    state = learner.state
    right, total = learner.evaluate()
    assert total == 24 // 3
    assert learner.state == state
    assert net.rehearsal is not None
    held = np.arange(24) % 3 == 2
    classes = learner.model.classify(net.rehearsal.samples)
    assert right == int((classes == net.rehearsal.labels)[held].sum())
    assert opened(net).evaluate()[1] == 24
    with pytest.raises(UsageError, match="nothing to evaluate on"):
        opened(small_net()).evaluate()


def test_fit_stops_early_and_keeps_the_best() -> None:
    net = rehearsing_net()
    xs, ys = samples(net, 15, 4), np.arange(15) % 5
    plain = opened(net, holdout=4, replays=2)
    fit = plain.fit(xs, ys, epochs=6)
    assert len(fit.evaluations) == 6 and fit.held_out == 6 and not fit.stopped
    assert fit.best == int(np.argmax(fit.evaluations))
    assert plain.evaluate()[0] == max(fit.evaluations)
    patient = opened(net, holdout=4, replays=2)
    short = patient.fit(xs, ys, epochs=40, patience=2)
    assert short.stopped and len(short.evaluations) == short.best + 3 < 40
    assert patient.evaluate()[0] == short.evaluations[short.best] == max(short.evaluations)
    with pytest.raises(UsageError, match="patience of 1 or more"):
        patient.fit(xs, ys, patience=0)


def test_what_is_refused_has_changed_nothing() -> None:
    """A bad label is found before the first sample is learned, and so is a fit without a split."""
    net = rehearsing_net()
    learner = opened(net)
    x, fresh = samples(net, 3, 5), learner.state
    for bad in (5, -1, 1.5, None, "1"):
        with pytest.raises(UsageError, match=r"label: expected 0\.\.4, got"):
            learner.run(x, [0, 1, bad])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="expected one sample to quantise, got 3"):
        learner.quantize(x.astype(np.float32))
    assert learner.state == fresh
    without = small_net(layers=3)
    alone = opened(without)
    fresh = alone.state
    with pytest.raises(UsageError, match="nothing to evaluate on"):
        alone.fit(samples(without, 3, 5), [0, 1, 2])
    assert alone.state == fresh
    alone.close()
    with pytest.raises(UsageError, match="closed"):
        alone.watermark(samples(without, 3, 5), [0, 1, 2])
    for shares in (0.5, None, "1", ("a",), (2.0,)):
        with pytest.raises(UsageError, match="mask: expected at most"):
            opened(net, selector="mask", mask=shares)


def test_a_batch_is_flushed() -> None:
    net = rehearsing_net()
    learner = opened(net, batch=100, selector="dense", replays=0)
    before = learner.weights()
    learner.run(samples(net, 7, 5), np.arange(7) % 5)
    assert learner.stats.updates == 0
    for op, (w, _) in learner.weights().items():
        assert (w == before[op][0]).all()
    learner.flush()
    assert learner.stats.updates == 1
    assert any((w != before[op][0]).any() for op, (w, _) in learner.weights().items())
    state = learner.state
    learner.flush()  # there is nothing more
    assert learner.state == state


def test_layers_tell_what_they_kept() -> None:
    net = rehearsing_net()
    learner = opened(net, selector="topk", s_max=0.25, s_min=0.0)
    learner.run(samples(net, 20, 6), np.arange(20) % 5)
    stats, layers = learner.stats, learner.layer_stats()
    assert [layer.op for layer in layers] == sorted(learner.weights(), reverse=True)
    entries = [5, 96, 256]  # the head; a convolution behind a pool of 2 x 2; one without
    for layer, each in zip(layers, entries, strict=True):
        assert layer.entries == each * stats.trained
        assert layer.ratio == pytest.approx(1.0 if each == 5 else 0.25)  # all of a small head
        w, _ = learner.weights()[layer.op]
        assert layer.weights == w.size
        assert layer.saturated == int((np.abs(w.astype(int)) >= 127).sum())
    assert sum(layer.clipped for layer in layers) == stats.clipped


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"selector": "loss", "layers": 2},
        {"weights": "int16", "memory": 3},
        {"weights": "f32", "optimizer": "momentum"},
        {"optimizer": "adam", "selector": "loss"},
    ],
    ids=str,
)
def test_a_state_opens_the_learner_it_came_from(settings: dict[str, Any]) -> None:
    net = rehearsing_net()
    learner = opened(net, **settings)
    learner.run(samples(net, 9, 7), np.arange(9) % 5)
    again = Learner.of_state(Model(net.image), learner.state)
    assert again.state == learner.state
    x = samples(net, 20, 8)
    assert (again.model.predict_int8(x) == learner.model.predict_int8(x)).all()


def test_states_that_nobody_can_open() -> None:
    net = rehearsing_net()
    model, state = Model(net.image), opened(net).state
    with pytest.raises(VersionError, match="expected version 2, got 1"):
        Learner.of_state(model, state[:4] + b"\1\0" + state[6:])
    for at in (52, 53):  # weights, optimizer
        with pytest.raises(FieldloopError, match="damaged"):
            Learner.of_state(model, state[:at] + b"\3" + state[at + 1 :])
    with pytest.raises(FieldloopError, match="expected one from"):
        Learner.of_state(model, b"FLS1")


def test_the_plan_adds_up() -> None:
    learner = opened(rehearsing_net(), weights="f32", optimizer="adam", batch=4, memory=5)
    plan, sizes = learner.plan, learner.sizes
    assert plan.total == plan.arena + sizes.total_bytes
    assert plan.arena == learner.model.arena_bytes
    head, conv, depthwise = (layer.weights for layer in learner.layer_stats())
    biases = 5 + 6 + 4
    padded = sum(-(-n // 4) * 4 for n in (head, conv, depthwise))
    assert plan.weights == padded + 4 * (head + conv + depthwise) + 4 * biases
    assert plan.optimizer == 8 * (head + 5)
    assert plan.memory == 4 * 5 + 5 * (2 + 64)
    assert plan.state > plan.weights + plan.optimizer + plan.memory
    assert plan.batch > 0 and plan.lent <= plan.scratch
    assert all(value >= 0 for value in asdict(plan).values())


def test_settings_are_refused_in_the_cores_words() -> None:
    net = rehearsing_net()
    with pytest.raises(UsageError, match="learner: d_thr: not below d_max, nothing would ever be"):
        opened(net, d_max=0.1, d_thr=0.2)
    with pytest.raises(UsageError, match="fewer trainable layers"):
        opened(net, layers=4)
    with pytest.raises(UsageError, match=r"mask: expected at most 16 shares of 0 to 1"):
        opened(net, selector="mask", mask=(1.5,))
