"""The scratch in the model's arena: its size to the byte, and the same training anywhere."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from nets import LINEAR, SELECTORS, Net, NetBuilder, finish, random_config, random_net
from test_learner import residual_net, samples, small_net

from fieldloop.compiler import compile_graph
from fieldloop.errors import UsageError
from fieldloop.image.writer import write_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import OpKind
from fieldloop.plan import learning
from fieldloop.plan.planner import plan_graph, plan_learning
from fieldloop.plan.types import Plan, PlanKind
from fieldloop.plan.verify import PlanError, verify
from fieldloop.plan.way import saved_tensors
from fieldloop.runtime import Learner, LearnerConfig, LearnerSizes, Model, learner_sizes
from fieldloop.runtime.core import VARIANTS

Array = np.ndarray[Any, Any]
ZOO = ["har", "strokes", "kws", "vww", "resnet8"]


@functools.cache
def net_of(name: str | int) -> Net:
    if name == "residual":
        return residual_net()
    return random_net(name) if isinstance(name, int) else small_net(layers=int(name[-1]))


NETS: list[str | int] = ["small1", "small2", "small3", "small4", "residual", *range(24)]


def layers_of(net: Net) -> list[str]:
    """Of an image, in the order of its operators."""
    return sorted((t.op for t in net.trainables), key=[op.name for op in net.graph.ops].index)


@functools.cache
def zoo_net(name: str, layers: int) -> tuple[Graph, tuple[str, ...], bytes]:
    """A network of the zoo that learns with so many layers, with weights that nobody trained."""
    torch = pytest.importorskip("torch")
    from fieldloop.frontends.torch_frontend import from_torch
    from fieldloop.zoo import networks, registry

    torch.manual_seed(0)
    graph = from_torch(networks[name]().eval(), torch.zeros(1, *registry.entry(name).shape))
    shape = graph.tensors[graph.inputs[0]].shape[1:]
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    compiled = compile_graph(graph, x, learn=layers)
    return compiled.graph, tuple(t.op for t in compiled.trainables), compiled.image


def settings_of(seed: int, **changes: Any) -> LearnerConfig:
    return replace(random_config(seed, "int16" if seed % 3 == 2 else "f32"), **changes)


# ---- how much


def test_the_usual_settings_are_the_learners() -> None:
    for field in fields(learning.Usual):
        assert getattr(learning.USUAL, field.name) == getattr(LearnerConfig(), field.name)


@pytest.mark.parametrize("name", NETS, ids=str)
def test_the_scratch_is_what_the_core_says(name: str | int) -> None:
    net, model = net_of(name), Model(net_of(name).image)
    layers = layers_of(net)
    for seed in range(40):
        for count in range(1, len(layers) + 1):
            config = settings_of(seed, layers=count)
            planned = learning.scratch_bytes(net.graph, layers[-count:], config)
            assert planned == learner_sizes(model, config).scratch_bytes
            assert planned <= learning.worst_bytes(net.graph, layers[-count:])
    for selector in SELECTORS:
        for deltas in ("f32", "int16"):
            config = LearnerConfig(selector=selector, deltas=deltas, mask=(0.5,) * 16)
            planned = learning.scratch_bytes(net.graph, layers, config)
            assert planned == learner_sizes(model, config).scratch_bytes


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ZOO)
def test_the_scratch_of_the_zoo_is_what_the_core_says(name: str, layers: int) -> None:
    graph, ops, image = zoo_net(name, layers)
    model = Model(image)
    needed, _, worst = learning.offers(graph, ops)
    assert needed == learner_sizes(model, LearnerConfig()).scratch_bytes
    for seed in range(30):
        config = settings_of(seed)
        planned = learning.scratch_bytes(graph, ops, config)
        assert planned == learner_sizes(model, config).scratch_bytes <= worst


def test_where_nothing_can_learn_there_is_no_scratch() -> None:
    net = NetBuilder(np.random.default_rng(3), (1, 8))
    net.weighted(OpKind.FULLY_CONNECTED, 6).softmax()
    graph = net.weighted(OpKind.FULLY_CONNECTED, 5, clamp=LINEAR).graph()
    first, _, head = (op.name for op in graph.ops)
    # 5 deltas; a row of 6 where there is a batch; and a list, which the papers' rule of k needs:
    # the usual one keeps all of so small a head.
    assert learning.worst_bytes(graph, [head]) == 5 * 4 + 6 * 4 + 5 * 2
    assert learning.scratch_bytes(graph, [head]) == 5 * 4
    assert learning.scratch_bytes(graph, [first, head]) == 0  # a softmax is in the way
    assert learning.worst_bytes(graph, [first, head]) == 0


# ---- what it costs


def before(graph: Graph, layers: Sequence[str], sizes: LearnerSizes) -> int:
    """RAM to learn when the learner brings its scratch: an arena without, and a block with."""
    keep = saved_tensors(graph, layers)
    arena = plan_graph(graph, PlanKind.LEARN, keep=keep).arena_bytes
    scratch = -(-sizes.scratch_bytes // 4) * 4
    return sum(-(-n // 16) * 16 for n in (arena, sizes.state_bytes)) + scratch


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ZOO)
def test_one_plan_for_all_of_it_never_costs_more(name: str, layers: int) -> None:
    graph, ops, image = zoo_net(name, layers)
    model = Model(image)
    sizes = learner_sizes(model, LearnerConfig())
    total = model.plan_bytes("LEARN") + sizes.total_bytes
    assert total <= before(graph, ops, sizes)
    if layers == 1:  # the head's deltas cost nothing beside a forward pass
        assert sizes.lent_bytes == sizes.scratch_bytes > 0
        assert sizes.total_bytes == sizes.state_bytes
        assert model.plan_bytes("LEARN") == model.plan_bytes("INFER")


ARENAS = {  # alone, with the usual scratch, with the worst one -> scratch that is planned
    (500, 500, 500): "worst",
    (500, 600, 600): "worst",
    (500, 600, 601): "usual",
    (500, 500, 900): "usual",
    (512, 2820, 9000): "usual",
    (512, 2821, 9000): "none",
    (498, 2820, 9000): "usual",  # a learner's own block begins at a multiple of 16
    (513, 2836, 9000): "usual",
}


@pytest.mark.parametrize("arenas", ARENAS, ids=str)
def test_room_for_the_scratch_is_planned_where_it_pays(arenas: tuple[int, int, int]) -> None:
    net = net_of("small4")
    needed, usual, worst = learning.offers(net.graph, layers_of(net))
    assert (needed, usual, worst) == (2308, 2308, 2944)
    alone, usually, always = arenas
    sizes = {0: alone, usual: usually, worst: always}

    def make(keep: frozenset[str], scratch: int) -> Plan:
        assert keep == planned(net)[1]
        return Plan(PlanKind.LEARN, sizes[scratch], {}, learner_scratch=(0, scratch))

    chosen = plan_learning(net.graph, layers_of(net), make)
    expected = {"none": 0, "usual": usual, "worst": worst}[ARENAS[arenas]]
    assert chosen.learner_scratch == (0, expected)
    assert chosen.arena_bytes == sizes[expected]


# ---- the same training wherever it lies


def with_scratch(net: Net, lent: int) -> Net:
    return finish(net.graph, net.trainables, net.rehearsal, lent=lent)


def parts_of(net: Net, config: LearnerConfig) -> tuple[int, int]:
    """Bytes of the deltas with the row, and of the kept entries, of this configuration."""
    model = Model(net.image)
    dense = learner_sizes(model, replace(config, selector="dense")).scratch_bytes
    return dense, learner_sizes(model, config).scratch_bytes - dense


def block_of(sizes: LearnerSizes) -> int:
    """State, what of the scratch is not lent, gradients of a batch."""
    own = sizes.scratch_bytes - sizes.lent_bytes
    end = -(-sizes.state_bytes // 16) * 16 + own if own else sizes.state_bytes
    return -(-end // 4) * 4 + sizes.batch_bytes if sizes.batch_bytes else end


def learned(net: Net, config: LearnerConfig, count: int = 10) -> tuple[LearnerSizes, bytes]:
    """Sizes, and the state after so many samples less the uid of the image in it."""
    learner = Learner(Model(net.image), config)
    labels = np.random.default_rng(3).integers(0, learner.classes, count)
    learner.run(samples(net, count, 3), labels)
    state = learner.state
    return learner.sizes, state[:16] + state[32:]


WAYS = {
    "sgd": LearnerConfig(selector="tinyprop", memory=3, replays=2, lr=3.0),
    "batch": LearnerConfig(selector="tinyprop", memory=3, batch=4, optimizer="momentum"),
    "int16": LearnerConfig(selector="tinyprop", replays=2, deltas="int16", weights="int16"),
    "channel": LearnerConfig(selector="topk", unit="channel", bias_mode="dense", replays=2),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETS, ids=str)
def test_it_learns_the_same_wherever_the_scratch_lies(name: str | int, way: str) -> None:
    net, config = net_of(name), WAYS[way]
    deltas, kept = parts_of(net, config)
    alone, state = learned(with_scratch(net, 0), config)
    assert alone.lent_bytes == 0 and alone.scratch_bytes == deltas + kept
    fits = {
        max(min(deltas, kept) - 1, 0): 0,  # where all is kept there is no list
        deltas: deltas,
        deltas + kept: deltas + kept,
        deltas + kept + 37: deltas + kept,
    }
    if kept < deltas:
        fits[kept] = kept
    for lent, expected in fits.items():
        sizes, same = learned(with_scratch(net, lent), config)
        assert sizes.lent_bytes == expected
        assert sizes.scratch_bytes == deltas + kept
        assert sizes.state_bytes == alone.state_bytes
        assert sizes.total_bytes == block_of(sizes)
        assert same == state


@pytest.mark.parametrize("layers", [1, 3])
def test_kernels_may_work_where_the_learner_does(layers: int) -> None:
    """Their scratch lies behind the activations, from there on the learner's, if it is high."""
    _, _, image = zoo_net("kws", layers)
    states = []
    for kernels in VARIANTS:
        model = Model(image, variant=kernels)
        learner = Learner(model, LearnerConfig(memory=2, replays=1, lr=3.0))
        if layers == 3:
            assert model.plan_bytes("LEARN") == Model(image).plan_bytes("LEARN")
            assert model.scratch_bytes() > 0 or kernels == "plain"
        xs = np.random.default_rng(9).integers(-128, 128, (6, model.inputs[0].size))
        learner.run(xs.astype(np.int8), np.arange(6) * 2 % 12)
        states.append(learner.state)
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("name", ["small4", "residual", 0, 1, 6, 11], ids=str)
def test_nothing_in_the_arena_is_relied_on_between_two_samples(name: str | int) -> None:
    net = net_of(name)
    config = LearnerConfig(memory=4, replays=3, d_thr=0.02, lr=3.0)
    model, other = Model(net.image), Model(net.image)
    learner, undisturbed = Learner(model, config), Learner(other, config)
    assert learner.sizes.lent_bytes > 0
    rng = np.random.default_rng(8)
    left: list[Array] = []
    for x, y in zip(samples(net, 12, 8), rng.integers(0, learner.classes, 12), strict=True):
        learner.step(x, int(y))
        undisturbed.step(x, int(y))
        assert learner.state == undisturbed.state
        model.predict_int8(x)
        arena = model.tensor(model.input_tensors[0])
        arena[...] = rng.integers(-128, 128, arena.shape)
        if rng.random() < 0.5:  # another arena, of zeros; nobody comes back to the old one
            left.append(model._arena)
            model.bind("LEARN")
            left[-1][:] = 0xA5
    assert len(left) > 2 and all((arena == 0xA5).all() for arena in left)


@pytest.mark.parametrize("name", ["small4", "small2", "residual", 0, 1, 6, 11], ids=str)
def test_what_was_saved_and_the_outputs_are_there_after_a_step(name: str | int) -> None:
    net = net_of(name)
    keep = saved_tensors(net.graph, layers_of(net))
    nets = [net, with_scratch(net, 0)]
    models = [Model(n.image) for n in nets]
    config = LearnerConfig(selector="tinyprop", replays=0)
    learners = [Learner(model, config) for model in models]
    assert learners[0].sizes.lent_bytes > 0
    names = [tensor.name for tensor in net.graph.activations]  # as an image numbers them
    tensors = [t for t, name in enumerate(names) if name in keep | set(net.graph.outputs)]
    assert tensors
    for x in samples(net, 5, 9):
        for model, learner in zip(models, learners, strict=True):
            model.predict_int8(x)
            learner.train(x, 1)
        for t in tensors:
            assert (models[0].tensor(t) == models[1].tensor(t)).all()


def test_a_model_bound_to_infer_does_not_learn() -> None:
    net = net_of("small4")
    model = Model(net.image)
    learner = Learner(model, LearnerConfig(memory=4))
    x = samples(net, 3, 1)
    learner.step(x[0], 1)
    state = learner.state
    model.bind("INFER")
    with pytest.raises(UsageError):
        learner.step(x[1], 1)
    with pytest.raises(UsageError):
        learner.train(x[1], 1)
    assert learner.state == state
    model.bind("LEARN")
    learner.step(x[1], 1)
    assert learner.stats.samples == 2


# ---- plans that lend what is not theirs


def planned(net: Net) -> tuple[Plan, frozenset[str]]:
    keep = saved_tensors(net.graph, layers_of(net))
    plan = plan_graph(net.graph, PlanKind.LEARN, keep=keep, learner_scratch=64)
    return plan, keep


@pytest.mark.parametrize("name", ["small2", "small4", "residual", 2, 5, 9], ids=str)
def test_what_the_backward_pass_reads_is_not_lent(name: str | int) -> None:
    """The core's judgement of a loan, wherever it lies, is the planner's."""
    net = net_of(name)
    plan, keep = planned(net)
    graph = net.graph
    verify(graph, plan, keep=keep)
    config = LearnerConfig(selector="topk", s_min=0.0, s_max=0.01)  # lists of a few bytes
    declined = 0
    for at in range(0, plan.arena_bytes, 16):
        wrong = replace(plan, learner_scratch=(at, 32))
        meets = any(
            plan.offsets[n] < at + 32 and at < plan.offsets[n] + graph.tensors[n].bytes
            for n in keep
        )
        end = max(at + 32, *(o + graph.tensors[n].bytes for n, o in plan.offsets.items()))
        wrong = replace(wrong, arena_bytes=end)
        if meets:
            with pytest.raises(PlanError):
                verify(graph, wrong, keep=keep)
        image = write_image(
            graph, [plan_graph(graph, PlanKind.INFER), wrong], trainables=net.trainables
        )
        assert (learner_sizes(Model(image), config).lent_bytes == 0) == meets
        declined += meets
    assert declined
