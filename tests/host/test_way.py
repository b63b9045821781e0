"""The way back: what takes part, what of the forward pass it reads, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from random_graphs import Grower, samples_for

from fieldloop.compiler import compile_graph
from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, OpKind, Window
from fieldloop.plan.learning import USUAL, delta_words
from fieldloop.plan.planner import plan_learning
from fieldloop.plan.verify import verify
from fieldloop.plan.way import (
    MAX_OPS,
    NoWayError,
    saved_tensors,
    trainable_layers,
    walk_back,
)
from fieldloop.runtime import Learner, LearnerConfig, Model

PIXEL = Window((1, 1))


class Maker:
    """A graph of convolutions of one pixel, pools and additions."""

    def __init__(self) -> None:
        self.grower = Grower(np.random.default_rng(5))
        self.build = self.grower.build
        self.x = self.build.input("x", (1, 4, 4, 2))

    def conv(self, name: str, x: str, channels: int = 2) -> str:
        weights = self.grower.weights(channels, 1, 1, self.build.shape(x)[3])
        return self.build.add(name, OpKind.CONV2D, [x], window=PIXEL, weights=weights)

    def relu(self, x: str) -> str:
        return self.build.clamp("relu", x, Clamp(0.0), private=True) or ""

    def pool(self, name: str, kind: OpKind, x: str, size: int, stride: int) -> str:
        window = Window((size, size), (stride, stride))
        return self.build.add(name, kind, [x], window=window)

    def done(self, x: str, *, softmax: bool = True) -> Graph:
        return self.build.graph([self.grower.head(x, softmax=softmax)])


def residual(*, softmax: bool = True) -> Graph:
    """a -> b -> c, with a's output added to c's; then a side way is added."""
    m = Maker()
    a = m.relu(m.conv("a", m.x))
    c = m.conv("c", m.relu(m.conv("b", a)))
    side = m.conv("side", m.x)
    total = m.build.add("sum", OpKind.ADD, [a, c])
    total = m.build.add("sum2", OpKind.ADD, [total, side])
    return m.done(m.conv("d", total), softmax=softmax)


def names(graph: Graph, tensors: frozenset[str]) -> set[str]:
    """Tensors by the names of the operators that make them; inputs by their own."""
    makers = {op.output: op.name for op in graph.ops}
    return {makers.get(t, t) for t in tensors}


def test_only_what_leads_to_a_trained_layer_takes_part() -> None:
    graph = residual()
    hops = walk_back(graph, ["a", "head"])
    assert [hop.op.name for hop in hops] == [
        *("head", "flatten", "d", "sum2", "sum", "c", "b", "a"),
    ]
    down = {hop.op.name: hop.down for hop in hops}
    out = {op.name: op.output for op in graph.ops}
    assert down["sum2"] == (out["sum"],)  # the side way trains nothing
    assert down["sum"] == (out["c"], out["a"])  # what is made last comes first
    assert down["a"] == ()
    # what is masked, and the inputs of trained layers; neither b's input twice nor the side way
    read = names(graph, saved_tensors(graph, ["a", "head"]))
    assert read == {"x", "a", "b", "c", "sum", "sum2", "d", "flatten", "head"}
    assert names(graph, saved_tensors(graph, ["head"])) == {"flatten", "head"}


def test_deltas_share_the_room_of_those_that_are_dead() -> None:
    graph = residual()
    size = {op.name: graph.tensors[op.output].size for op in graph.ops}
    hops = walk_back(graph, ["a", "head"])
    # at the addition there are its own and a copy; below it one more, while a's waits
    assert delta_words(graph, hops, USUAL) == 3 * size["a"]
    assert delta_words(graph, walk_back(graph, ["d", "head"]), USUAL) == size["head"] + size["d"]


def test_pools_are_fused_where_nobody_else_reads_the_convolution() -> None:
    def fused(size: int, stride: int, *, also: bool) -> list[str]:
        m = Maker()
        a = m.conv("a", m.x)
        pooled = m.pool("pool", OpKind.AVG_POOL, a, size, stride)
        if also:
            other = m.pool("other", OpKind.MAX_POOL, a, size, stride)
            pooled = m.build.add("sum", OpKind.ADD, [pooled, other])
        graph = m.done(pooled)
        hops = walk_back(graph, ["a", "head"])
        assert {hop.op.name: hop.pool for hop in hops}["a"] is next(
            (hop.op for hop in hops if hop.fused), None
        )
        return [hop.op.name for hop in hops if hop.fused]

    assert fused(2, 2, also=False) == ["pool"]
    assert fused(2, 3, also=False) == ["pool"]
    assert fused(2, 1, also=False) == []  # windows overlap
    assert fused(2, 2, also=True) == []


def test_where_there_is_no_way() -> None:
    m = Maker()
    a = m.conv("a", m.x)
    gate = m.build.add("gate", OpKind.MUL, [a, m.conv("b", a)])
    graph = m.done(m.conv("c", gate))
    assert [op.name for op in trainable_layers(graph)] == ["head", "c"]
    with pytest.raises(NoWayError, match="mul gate lies between"):
        walk_back(graph, ["head", "a"])
    with pytest.raises(NoWayError, match=r"expected layers with weights .* got \['gate'\]"):
        walk_back(graph, ["head", "gate"])
    with pytest.raises(NoWayError, match="got none"):
        walk_back(graph, [])
    with pytest.raises(UsageError, match=r"\['a'\] cannot be trained"):
        compile_graph(graph, samples_for(graph, 0, 10), learn=["a", "head"])


def deep(layers: int) -> Graph:
    m = Maker()
    x = m.x
    for i in range(layers):
        x = m.conv(f"l{i}", x)
    return m.done(x)


def test_a_walk_has_a_limit() -> None:
    graph = deep(MAX_OPS)
    with pytest.raises(NoWayError, match=f"at most {MAX_OPS}, so train layers above it"):
        walk_back(graph, ["l0"])
    assert len(walk_back(graph, ["l2", "head"])) == MAX_OPS
    calibration = samples_for(graph, 0, 10)
    with pytest.raises(UsageError, match="at most 16 layers, got 17"):
        compile_graph(graph, calibration, learn=[f"l{i}" for i in range(17)])
    assert len(compile_graph(graph, calibration, learn=99).trainables) == 16


def test_a_residual_network_is_planned_and_learns() -> None:
    graph = residual(softmax=False)  # a learner never runs what comes after the logits
    x = samples_for(graph, 0, 40)
    compiled = compile_graph(graph, x, learn=99)
    layers = [t.op for t in compiled.trainables]
    assert sorted(layers) == ["a", "b", "c", "d", "head", "side"]
    verify(compiled.graph, compiled.plans[1], keep=saved_tensors(compiled.graph, layers))
    assert plan_learning(compiled.graph, layers) == compiled.plans[1]
    model = Model(compiled.image)
    learner = Learner(model, LearnerConfig(selector="tinyprop", lr=30.0, replays=0))
    before = learner.weights()
    learner.run(samples_for(graph, 1, 30), np.arange(30) % learner.classes)
    assert learner.stats.trained > 10
    order = [op.name for op in compiled.graph.ops]
    assert {order[op] for op in learner.weights()} == set(layers)
    for op, (w, _) in learner.weights().items():
        assert (w != before[op][0]).any()
    touched = learner.watermark(samples_for(graph, 2, 8), np.arange(8) % learner.classes)
    assert touched == (learner.plan.arena, learner.sizes.total_bytes)


def test_what_takes_no_part_may_be_computed_in_tiles() -> None:
    """A side way after the lowest trained layer, which no backward pass reads."""
    m = Maker()
    a = m.relu(m.conv("a", m.x))
    side = m.conv("narrow", m.relu(m.conv("wide", m.x, 40)))
    graph = m.done(m.conv("d", m.build.add("sum", OpKind.ADD, [a, side])), softmax=False)
    x, wide = samples_for(graph, 0, 40), next(op for op in graph.ops if op.name == "wide").output
    learned = []
    for tiling in ("none", "auto"):
        compiled = compile_graph(graph, x, learn=["a", "d", "head"], tiling=tiling)
        assert (wide in compiled.plans[1].offsets) == (tiling == "none")
        learner = Learner(Model(compiled.image), LearnerConfig(replays=0))
        learner.run(x, np.arange(40) % learner.classes)
        learned.append(learner.state[32:])  # behind the model's name
    assert learned[0] == learned[1]
    trained = compile_graph(graph, x, learn=["wide", "head"], tiling="auto")
    assert wide in trained.plans[1].offsets
