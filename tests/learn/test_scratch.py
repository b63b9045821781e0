"""The scratch in the model's arena: its size to the byte, and the same training anywhere."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from nets import LINEAR, Net, NetBuilder, finish, random_net
from test_learner import random_config, samples, small_net

from fieldloop.compiler import compile_graph
from fieldloop.errors import UsageError
from fieldloop.image.writer import write_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import OpKind
from fieldloop.plan import learning
from fieldloop.plan.planner import backward_reads, plan_graph, plan_learning
from fieldloop.plan.types import Plan, PlanKind
from fieldloop.plan.verify import PlanError, verify
from fieldloop.runtime import Learner, LearnerConfig, LearnerSizes, Model, learner_sizes

Array = np.ndarray[Any, Any]
WORST = LearnerConfig(selector="tinyprop", s_max=1.0, zeta=1.0)
ZOO = ["har", "strokes", "kws", "resnet8"]


@functools.cache
def net_of(name: str | int) -> Net:
    return random_net(name) if isinstance(name, int) else small_net(layers=int(name[-1]))


NETS: list[str | int] = ["small1", "small2", "small3", "small4", *range(24)]


def layers_of(net: Net) -> list[str]:
    return [t.op for t in net.trainables]


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


# ---- how much


def test_the_usual_settings_are_the_learners() -> None:
    usual = LearnerConfig()
    assert (usual.s_max, usual.zeta) == (learning.S_MAX, learning.ZETA)


@pytest.mark.parametrize("name", NETS, ids=str)
def test_the_scratch_is_what_the_core_says(name: str | int) -> None:
    net, model = net_of(name), Model(net_of(name).image)
    layers = sorted(layers_of(net), key=[op.name for op in net.graph.ops].index)
    worst = learning.scratch_bytes(net.graph, layers)
    assert worst == learner_sizes(model, WORST).scratch_bytes
    rng = np.random.default_rng(1)
    for count in range(1, len(layers) + 1):
        for _ in range(5):
            s_max, zeta = float(rng.random()), float(rng.random())
            config = replace(WORST, layers=count, s_min=0.0, s_max=s_max, zeta=zeta)
            planned = learning.scratch_bytes(net.graph, layers[-count:], s_max=s_max, zeta=zeta)
            assert planned == learner_sizes(model, config).scratch_bytes <= worst
    for seed in range(10):
        for count in range(len(layers) + 1):
            config = replace(random_config(seed), layers=count)
            assert learner_sizes(model, config).scratch_bytes <= worst


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("name", ZOO)
def test_the_scratch_of_the_zoo_is_what_the_core_says(name: str, layers: int) -> None:
    graph, ops, image = zoo_net(name, layers)
    model = Model(image)
    assert learning.scratch_bytes(graph, ops) == learner_sizes(model, WORST).scratch_bytes
    usual = learning.scratch_bytes(graph, ops, s_max=learning.S_MAX, zeta=learning.ZETA)
    assert usual == learner_sizes(model, LearnerConfig()).scratch_bytes


def test_where_nothing_can_learn_there_is_no_scratch() -> None:
    net = NetBuilder(np.random.default_rng(3), (1, 8))
    net.weighted(OpKind.FULLY_CONNECTED, 6).softmax()
    graph = net.weighted(OpKind.FULLY_CONNECTED, 5, clamp=LINEAR).graph()
    first, _, head = (op.name for op in graph.ops)
    assert learning.scratch_bytes(graph, [head]) == 5 * 4 + 5 * 2
    assert learning.scratch_bytes(graph, [first, head]) == 0  # a softmax is in the way


# ---- what it costs


def before(graph: Graph, layers: list[str], sizes: LearnerSizes) -> int:
    """RAM to learn when the learner brings its scratch: an arena without, and a block with."""
    names = [op.name for op in graph.ops]
    head = max(layers, key=names.index)
    keep = backward_reads(graph, min(layers, key=names.index), head)
    arena = plan_graph(graph, PlanKind.LEARN, keep=keep).arena_bytes
    return arena + -(-sizes.state_bytes // 16) * 16 + sizes.scratch_bytes


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("name", ZOO)
def test_one_plan_for_all_of_it_never_costs_more(name: str, layers: int) -> None:
    graph, ops, image = zoo_net(name, layers)
    model = Model(image)
    sizes = learner_sizes(model, LearnerConfig())
    total = model.plan_bytes("LEARN") + sizes.total_bytes
    assert total <= before(graph, list(ops), sizes)
    if layers == 1:  # the head's deltas cost nothing beside a forward pass
        assert sizes.lent_bytes == sizes.scratch_bytes > 0
        assert sizes.total_bytes == sizes.state_bytes
        assert model.plan_bytes("LEARN") == model.plan_bytes("INFER")


ARENAS = {  # alone, with the usual scratch, with the worst one -> scratch that is planned
    (500, 500, 500): "worst",
    (500, 600, 600): "worst",
    (500, 600, 601): "usual",
    (500, 500, 900): "usual",
    (498, 3548, 9000): "usual",
    (498, 3549, 9000): "none",
    (512, 3552, 9000): "usual",
    (512, 3562, 9000): "none",  # the kernels' scratch would begin at 3568
}


@pytest.mark.parametrize("arenas", ARENAS, ids=str)
def test_room_for_the_scratch_is_planned_where_it_pays(arenas: tuple[int, int, int]) -> None:
    net = net_of("small4")
    needed, usual, worst = learning.offers(net.graph, layers_of(net))
    assert (needed, usual, worst) == (3050, 3052, 3472)
    alone, usually, always = arenas
    sizes = {0: alone, usual: usually, worst: always}

    def make(keep: frozenset[str], scratch: int) -> Plan:
        assert keep == planned(net)[1]
        return Plan(PlanKind.LEARN, sizes[scratch], {}, learner_scratch=(0, scratch))

    chosen = plan_learning(net.graph, layers_of(net), net.graph.ops[-1].name, make)
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


def learned(net: Net, config: LearnerConfig, count: int = 10) -> tuple[LearnerSizes, bytes]:
    """Sizes, and the state after so many samples less the uid of the image in it."""
    learner = Learner(Model(net.image), config)
    labels = np.random.default_rng(3).integers(0, learner.classes, count)
    learner.run(samples(net, count, 3), labels)
    state = learner.state
    return learner.sizes, state[:16] + state[32:]


@pytest.mark.parametrize("name", NETS, ids=str)
def test_it_learns_the_same_wherever_the_scratch_lies(name: str | int) -> None:
    net = net_of(name)
    config = replace(random_config(5), selector="tinyprop", memory=3, replays=2)
    deltas, kept = parts_of(net, config)
    alone, state = learned(with_scratch(net, 0), config)
    assert alone.lent_bytes == 0 and alone.scratch_bytes == deltas + kept
    assert alone.total_bytes == -(-alone.state_bytes // 16) * 16 + deltas + kept
    fits = {
        min(deltas, kept) - 1: 0,
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
        if sizes.lent_bytes == sizes.scratch_bytes:
            assert sizes.total_bytes == sizes.state_bytes == alone.state_bytes
        else:
            assert sizes.total_bytes == alone.total_bytes - sizes.lent_bytes
        assert same == state


@pytest.mark.parametrize("name", ["small4", 0, 1, 6, 11], ids=str)
def test_nothing_in_the_arena_is_relied_on_between_two_samples(name: str | int) -> None:
    net = net_of(name)
    config = replace(random_config(7), memory=4, replays=3, d_thr=0.02)
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


@pytest.mark.parametrize("name", ["small4", "small2", 0, 1, 6, 11], ids=str)
def test_what_was_saved_and_the_outputs_are_there_after_a_step(name: str | int) -> None:
    net = net_of(name)
    names = [op.name for op in net.graph.ops]
    keep = backward_reads(net.graph, min(layers_of(net), key=names.index), names[-1])
    nets = [net, with_scratch(net, 0)]
    models = [Model(n.image) for n in nets]
    config = LearnerConfig(d_thr=0.0, d_min=-1.0, replays=0)
    learners = [Learner(model, config) for model in models]
    assert learners[0].sizes.lent_bytes > 0
    tensors = [
        t
        for t in range(len(net.graph.tensors))
        if list(net.graph.tensors)[t] in keep | set(net.graph.outputs)
    ]
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
    names = [op.name for op in net.graph.ops]
    keep = backward_reads(net.graph, min(layers_of(net), key=names.index), names[-1])
    plan = plan_graph(net.graph, PlanKind.LEARN, keep=keep, learner_scratch=64)
    return plan, keep


def test_what_the_backward_pass_reads_is_not_lent() -> None:
    net = net_of("small4")
    plan, keep = planned(net)
    verify(net.graph, plan, keep=keep)
    config = LearnerConfig(layers=1, selector="dense")
    graph = net.graph
    logits = plan.offsets[graph.ops[-2].output]
    places = {name: plan.offsets[name] for name in keep}
    declined = 0
    for at in range(0, plan.arena_bytes, 16):
        wrong = replace(plan, learner_scratch=(at, 32))
        meets = [n for n, o in places.items() if o < at + 32 and at < o + graph.tensors[n].bytes]
        end = max(at + 32, *(o + graph.tensors[n].bytes for n, o in plan.offsets.items()))
        wrong = replace(wrong, arena_bytes=end)
        if meets:
            with pytest.raises(PlanError):
                verify(graph, wrong, keep=keep)
        image = write_image(
            graph, [plan_graph(graph, PlanKind.INFER), wrong], trainables=net.trainables
        )
        sizes = learner_sizes(Model(image), config)
        if at < logits + 5 and logits < at + 32:
            assert sizes.lent_bytes == 0
            declined += 1
    assert declined
