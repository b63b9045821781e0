"""The learner as a whole: equal to its numpy reference on every byte, and what must hold."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from fixed_nets import HEADER, residual_net, samples, small_net
from nets import LINEAR, SELECTORS, Net, NetBuilder, finish, random_config, random_net
from reference import ReferenceLearner

from fieldloop.errors import FieldloopError, UsageError
from fieldloop.image.writer import Trainable
from fieldloop.ir.op import OpKind, Window
from fieldloop.runtime import Learner, LearnerConfig, Model, learner_sizes
from fieldloop.runtime.core import core

Array = np.ndarray[Any, Any]
ffi, lib = core()


def pair(net: Net, config: LearnerConfig) -> tuple[Learner, ReferenceLearner]:
    """The same settings in C and in numpy; the number of trained layers is what can be."""
    learner = Learner(Model(net.image), config)
    uid = bytes.fromhex(learner.model.uid)
    return learner, ReferenceLearner(net.graph, net.trainables, config, uid, net.rehearsal)


def compare_runs(seed: int, config: LearnerConfig) -> None:
    net = random_net(seed)
    rng = np.random.default_rng(seed)
    if rng.random() < 0.3:
        config = dataclasses.replace(config, layers=int(rng.integers(len(net.trainables))) + 1)
    learner, reference = pair(net, config)
    assert learner.state == reference.state()

    labels = rng.integers(0, learner.classes, 12)
    for i, (x, y) in enumerate(zip(samples(net, 12, seed), labels, strict=True)):
        step = learner.step(x, int(y))
        error, kept = reference.step(x, int(y))
        assert (step.error, step.kept) == (float(error), kept)
        assert learner.state == reference.state(), f"after sample {i}"
        if i == 6:
            learner.flush()
            reference.flush()
            assert learner.state == reference.state(), "after the flush"
    # the learned weights are what inference runs with, too
    x = samples(net, 3, seed + 1)
    saved = [reference.forward(sample)[net.graph.outputs[0]].ravel() for sample in x]
    assert (learner.model.predict_int8(x) == np.stack(saved)).all()
    before = learner.state
    if reference.evaluate()[1]:
        assert learner.evaluate() == reference.evaluate()
    else:
        with pytest.raises(UsageError, match="nothing to evaluate"):
            learner.evaluate()
    assert learner.state == before


@pytest.mark.parametrize("seed", range(96))
def test_golden_triangle(seed: int) -> None:
    compare_runs(seed, random_config(seed))


@pytest.mark.parametrize("seed", range(200, 248))
def test_golden_triangle_of_16_bit_deltas(seed: int) -> None:
    compare_runs(seed, random_config(seed, "int16"))


@pytest.mark.parametrize("deltas", ["f32", "int16"])
@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("width", [4, 19])
def test_every_selector_is_its_reference_on_one_deep_net(
    width: int, selector: str, deltas: str
) -> None:
    """A net with a residual block and two fused pools, all of it trained."""
    net = residual_net(width)
    config = LearnerConfig(
        selector=selector,  # type: ignore[arg-type]
        deltas=deltas,  # type: ignore[arg-type]
        mask=(0.5, 1.0, 0.3, 0.0, 0.7, 0.5) if selector == "mask" else (),
        zeta=0.8,
        lr=3.0,
        replays=0,
    )
    learner, reference = pair(net, config)
    for i, x in enumerate(samples(net, 12 if width == 4 else 4, 1)):
        learner.train(x, i % 4)
        reference.train(x, i % 4)
        assert learner.state == reference.state(), f"after sample {i}"
    assert learner.stats.trained > 0


def test_the_random_nets_and_settings_cover_every_way_back() -> None:
    seen = set()
    for seed in range(96):
        net, config = random_net(seed), random_config(seed)
        reference = ReferenceLearner(net.graph, net.trainables, config, b"", net.rehearsal)
        for stop in reference.way:
            seen.add((stop.op.kind, stop.op.name in reference.layers))
            seen.add((stop.op.kind, stop.pool and stop.pool.kind))
            seen.add((stop.op.kind, len(stop.inputs)))
        seen |= {config.selector, config.optimizer, config.weights, config.batch, config.unit}
    weighted = (OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D, OpKind.FULLY_CONNECTED)
    assert {(kind, trained) for kind in weighted for trained in (True, False)} <= seen
    pools = (OpKind.MAX_POOL, OpKind.AVG_POOL)
    assert {(kind, pool) for kind in weighted[:2] for pool in pools} <= seen
    assert {(pool, False) for pool in pools} <= seen
    assert {(OpKind.ADD, 1), (OpKind.ADD, 2)} <= seen
    assert {*SELECTORS, "momentum", "adam", "int16", "f32", 5, "channel"} <= seen


@pytest.mark.parametrize("selector", ["tinypropv2", "tinyprop", "dense", "topk"])
def test_two_runs_make_the_same_bytes_and_another_seed_makes_others(selector: str) -> None:
    net = small_net()
    xs, ys = samples(net, 40, 2), np.arange(40) % 5

    def run(seed: int) -> bytes:
        config = LearnerConfig(selector=selector, memory=8, seed=seed)  # type: ignore[arg-type]
        learner = Learner(Model(net.image), config)
        learner.run(xs, ys)
        assert learner.stats.trained > 0
        return learner.state

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_the_defaults_are_the_cores() -> None:
    theirs, ours = ffi.new("fl_learner_config_t *"), ffi.new("fl_learner_config_t *")
    lib.fl_learner_defaults(theirs)
    LearnerConfig().fill(ours)
    assert bytes(ffi.buffer(theirs)) == bytes(ffi.buffer(ours))


@pytest.mark.parametrize("memory", [0, 7])
@pytest.mark.parametrize("selector", ["tinypropv2", "dense", "topk"])
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_arena_is_touched_to_its_last_byte(layers: int, selector: str, memory: int) -> None:
    net = small_net(layers=layers)
    config = LearnerConfig(selector=selector, memory=memory, replays=2)  # type: ignore[arg-type]
    model = Model(net.image)
    learner = Learner(model, config)
    sizes = learner.sizes
    arena, block = learner.watermark(samples(net, 8, 5), np.arange(8) % 5)
    # learning stops at the logits: the outputs are the forward pass's own to touch
    assert max(arena, model.watermark()) == model.arena_bytes
    assert block == sizes.total_bytes
    assert len(learner.state) == sizes.state_bytes
    assert model.arena_bytes == model.plan_bytes("LEARN")


@pytest.mark.parametrize("seed", range(20))
def test_the_arena_of_random_nets_is_touched_to_its_last_byte(seed: int) -> None:
    net, config = random_net(seed), random_config(seed)
    model = Model(net.image)
    learner = Learner(model, config)
    arena, block = learner.watermark(samples(net, 3, seed), [0, 1, 0])
    # what the plan would lend to a learner of fewer needs nobody touches
    if learner.sizes.lent_bytes:
        assert max(arena, model.watermark()) == model.arena_bytes
    assert block == learner.sizes.total_bytes


def test_an_arena_too_small_or_misaligned_is_refused() -> None:
    model = Model(small_net().image)
    learner = Learner(model)
    config = ffi.new("fl_learner_config_t *")
    LearnerConfig().fill(config)
    need = learner.sizes.total_bytes
    memory = ffi.new("uint8_t[]", need + 32)
    base = int(ffi.cast("uintptr_t", memory))
    start = ffi.cast("uint8_t *", base + -base % 16)
    other = ffi.new("fl_learner_t *")
    init = lib.fl_learner_init
    assert init(other, model.handle, config, start, need - 1) == lib.FL_ENOMEM
    assert init(other, model.handle, config, start + 4, need) == lib.FL_EALIGN
    config.s_max = 2.0
    assert init(other, model.handle, config, start, need) == lib.FL_EINVAL
    config.s_max = 0.9
    assert not any(bytes(ffi.buffer(other)))  # refusals leave no trace
    model.bind("INFER")
    assert init(other, model.handle, config, start, need) == lib.FL_EINVAL
    model.bind("LEARN")
    assert init(other, model.handle, config, start, need) == 0
    # the input lies in the arena that the run overwrites
    step = ffi.new("fl_step_t *")
    x = lib.fl_model_input(model.handle, 0)
    assert lib.fl_learner_step(other, x, 0, step) == lib.FL_EINVAL
    assert lib.fl_learner_train(other, x, 0, step) == 0
    assert lib.fl_learner_train(other, x, 5, step) == lib.FL_EINVAL
    model.owner = None
    learner.close()


def test_a_sample_without_a_finite_error_changes_nothing() -> None:
    # logits of a few 1e36 a step: some samples' logits leave the range of f32
    builder = NetBuilder(np.random.default_rng(1), (1, 96))
    builder.weighted(OpKind.FULLY_CONNECTED, 5, clamp=LINEAR, w_scales=(1e35, 2e35))
    graph = builder.graph()
    net = finish(graph, [Trainable(graph.ops[0].name, 1.0)])
    learner = Learner(Model(net.image), LearnerConfig(memory=4, replays=3))
    before = learner.state
    xs = samples(net, 40, 6)
    finite = 0
    for i, x in enumerate(xs):
        learner.reset()
        step = learner.step(x, i % 5)
        if np.isfinite(step.error):
            finite += 1
            continue
        assert not step.trained and step.kept == 0
        stats = learner.stats
        assert (stats.refused, stats.replayed, stats.remembered) == (1, 0, 0)
        assert learner.state[HEADER:] == before[HEADER:]
    assert 0 < finite < 40


def test_reset_goes_back_to_the_factory() -> None:
    net = small_net()
    model = Model(net.image)
    xs = samples(net, 20, 7)
    factory = model.predict_int8(xs)
    learner = Learner(model, LearnerConfig(memory=5, lr=30.0))
    fresh = learner.state
    assert (model.predict_int8(xs) == factory).all()
    learner.run(xs, np.arange(20) % 5)
    assert (model.predict_int8(xs) != factory).any()
    learned = learner.state
    learner.reset()
    assert learner.state == fresh
    assert (model.predict_int8(xs) == factory).all()
    learner.run(xs, np.arange(20) % 5)
    assert learner.state == learned
    learner.close()
    assert (model.predict_int8(xs) == factory).all()


@pytest.mark.parametrize(
    "mode",
    [
        {},
        {"selector": "loss", "deltas": "int16", "weights": "int16"},
        {"optimizer": "momentum", "weights": "f32", "selector": "random"},
        {"optimizer": "adam", "weights": "int16", "unit": "channel"},
        {"optimizer": "adam", "batch": 3},
    ],
    ids=str,
)
def test_a_loaded_state_goes_on_as_if_never_interrupted(mode: dict[str, Any]) -> None:
    net = small_net()
    xs, ys = samples(net, 30, 8), np.arange(30) % 5
    config = LearnerConfig(memory=6, seed=11, **mode)

    def run(learner: Learner, part: slice) -> Learner:
        learner.run(xs[part], ys[part])
        learner.flush()  # a state does not hold a batch that is not finished
        return learner

    whole = run(run(Learner(Model(net.image), config), slice(13)), slice(13, None))
    first = run(Learner(Model(net.image), config), slice(13))
    # another seed in the settings: the state brings its own
    second = Learner(Model(net.image), dataclasses.replace(config, seed=12))
    second.train(xs[20], 1)  # what a batch has gathered goes, too
    second.load(first.state)
    assert run(second, slice(13, None)).state == whole.state


def test_states_of_others_are_refused_and_change_nothing() -> None:
    net = small_net()
    learner = Learner(Model(net.image), LearnerConfig(memory=4))
    learner.run(samples(net, 6, 9), np.arange(6) % 5)
    good = learner.state
    other_model = Learner(Model(small_net(logits_scale=0.09).image), LearnerConfig(memory=4))
    strangers = {
        "model": other_model.state,
        "memory": Learner(Model(net.image), LearnerConfig(memory=5)).state,
        "layers": Learner(Model(net.image), LearnerConfig(memory=4, layers=1)).state,
    }
    damaged = {
        "empty": b"",
        "short": good[: HEADER - 1],
        "truncated": good[:-1],
        "long": good + b"\0",
        "magic": b"FLS2" + good[4:],
        "version": good[:4] + b"\3" + good[5:],
        "infinite maximum": good[:HEADER] + np.float32(np.inf).tobytes() + good[HEADER + 4 :],
        "negative maximum": good[:HEADER] + np.float32(-1).tobytes() + good[HEADER + 4 :],
        "full memory": good[:116] + (5).to_bytes(4, "little") + good[120:],
    }
    for name, state in strangers.items():
        with pytest.raises(UsageError):
            learner.load(state)
        assert learner.state == good, name
    for name, state in damaged.items():
        with pytest.raises(FieldloopError):
            learner.load(state)
        assert learner.state == good, name


def test_wrong_samples_and_labels_are_refused() -> None:
    net = small_net()
    model = Model(net.image)
    learner = Learner(model)
    x = samples(net, 1, 10)
    for label in (-1, 5, 2**40):
        with pytest.raises(UsageError, match="label"):
            learner.step(x, label)
    for wrong in (x[:, :7], np.zeros((2, 63), np.int8), x.astype(np.int32), np.zeros(0, np.int8)):
        with pytest.raises(UsageError, match="input"):
            model.predict_int8(wrong)
    with pytest.raises(UsageError, match="label for each"):
        learner.run(x, [1, 2])
    newer = Learner(model)
    with pytest.raises(UsageError, match="another learner"):
        learner.step(x, 1)
    newer.step(x, 1)


def test_what_cannot_be_walked_back_is_refused() -> None:
    def two_convolutions() -> NetBuilder:
        net, window = NetBuilder(np.random.default_rng(1), (1, 6, 6, 2)), Window((1, 1))
        return net.weighted(OpKind.CONV2D, 3, window).weighted(OpKind.CONV2D, 4, window)

    def refuse(net: NetBuilder, layer: int, lr_scale: float = 1e-3, lr: float = 1.0) -> None:
        graph = net.graph()
        made = finish(graph, [Trainable(graph.ops[layer].name, lr_scale)])
        with pytest.raises(UsageError, match="way back"):
            learner_sizes(Model(made.image), LearnerConfig(lr=lr))

    graph = two_convolutions().graph()
    low, high = (Trainable(op.name, 1e-3) for op in graph.ops)
    learner_sizes(Model(finish(graph, [low, high]).image), LearnerConfig())
    refuse(two_convolutions(), 1, lr_scale=3e38, lr=100.0)
    same = two_convolutions()
    refuse(same.add(same.last), 0)
    behind = two_convolutions().softmax().weighted(OpKind.FULLY_CONNECTED, 3, clamp=LINEAR)
    refuse(behind, 0)


def test_the_memory_is_balanced_and_takes_the_first_samples_at_once() -> None:
    net = small_net()
    learner = Learner(Model(net.image), LearnerConfig(memory=12, replays=0))
    xs = samples(net, 300, 11)

    def held() -> list[int]:
        counted = [0] * 5
        start = len(learner.state) - 12 * (64 + 2)
        for y in np.frombuffer(learner.state, np.uint16, 12, start)[: learner.stats.remembered]:
            counted[y] += 1
        return counted

    for i in range(12):
        learner.step(xs[i], 0)
        assert learner.stats.remembered == i + 1
    assert held() == [12, 0, 0, 0, 0]
    for i in range(12, 100):
        learner.step(xs[i], 1)
    assert held() == [6, 6, 0, 0, 0]
    for i in range(100, 300):
        learner.step(xs[i], i % 5)
    assert max(held()) <= 4 and min(held()) >= 2 and sum(held()) == 12


def test_every_sample_of_a_class_has_the_same_chance_to_stay() -> None:
    net = small_net()
    stays = np.zeros(40)
    xs = samples(net, 40, 12)
    for seed in range(300):
        config = LearnerConfig(memory=4, replays=0, seed=seed, d_thr=0.999)
        learner = Learner(Model(net.image), config)
        learner.run(xs, [2] * 40)
        kept = np.frombuffer(learner.state[-4 * 64 :], np.int8).reshape(4, -1)
        for sample in kept:
            stays[[(x.ravel() == sample).all() for x in xs]] += 1
    assert stays.sum() == 300 * 4
    # 30 expected for each, standard deviation sqrt(300 * 0.1 * 0.9) = 5.2
    assert stays.min() > 30 - 4.5 * 5.2 and stays.max() < 30 + 4.5 * 5.2


def test_labels_and_shapes_travel() -> None:
    model = Model(small_net().image)
    assert model.labels == ("a", "b", "c", "d", "e")
    assert model.inputs[0].shape == (1, 8, 8, 1)
    assert model.outputs[0].shape == (1, 5)
    assert model.macs == 5 * 96 + 384 * 36 + 2 * 256 * 9
    real = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)
    quantised = model.inputs[0].quantize(real)
    assert (model.predict_int8(real) == model.predict_int8(quantised)).all()
    np.testing.assert_allclose(model.predict(real).sum(axis=1), 1, atol=0.05)
    assert "int8" in repr(model)
