"""What the learner does not train: it says so when sizes are asked for, and nothing is learned."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nets import LINEAR, NetBuilder, finish

from fieldloop.errors import FieldloopError
from fieldloop.image.writer import Trainable
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Concat, Op, OpKind, Requant, Window
from fieldloop.ir.tensor import DType, Quant, Tensor
from fieldloop.plan.way import NoWayError, logits_op, walk_back
from fieldloop.runtime import Learner, LearnerConfig, Model

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core"))
from more_ops import Maker


def dense() -> Graph:
    maker = Maker(np.random.default_rng(1))
    while True:
        graph = maker.fully_connected()
        if graph.tensors["x"].shape[0] == 1 and len(graph.tensors["y"].shape) == 2:
            return graph


def learner(graph: Graph) -> Learner:
    return Learner(Model(finish(graph, [Trainable("op", 1e-3)]).image), LearnerConfig(lr=1.0))


def with_a_zero_point(graph: Graph) -> Graph:
    tensors = dict(graph.tensors)
    w = tensors["w"]
    assert w.quant is not None
    tensors["w"] = replace(w, quant=Quant((max(w.quant.scales),), 3))
    if "b" in tensors:
        tensors["b"] = replace(tensors["b"], quant=None)
    fixed = graph.ops[0].fixed
    assert isinstance(fixed, Requant)
    op = replace(graph.ops[0], fixed=replace(fixed, factors=fixed.factors[:1]))
    return replace(graph, tensors=tensors, ops=(op,))


def two_layers() -> Graph:
    net = NetBuilder(np.random.default_rng(3), (1, 6))
    net.weighted(OpKind.FULLY_CONNECTED, 5)
    net.weighted(OpKind.FULLY_CONNECTED, 3, clamp=LINEAR)
    return net.graph()


def with_another_reader(graph: Graph, place: int) -> Graph:
    """A concat takes the hidden layer, too, as its input `place`."""
    hidden = graph.tensors[graph.ops[0].output]
    x = graph.tensors[graph.inputs[0]]
    table = Tensor("table", (256,), DType.INT8, None, np.arange(-128, 128).astype(np.int8))
    first = Tensor("first", x.shape, DType.INT8, hidden.quant)
    constant = np.zeros((1, 1), np.int8)
    parts = [Tensor(f"c{i}", (1, 1), DType.INT8, hidden.quant, constant) for i in range(4)]
    names = ["first", *(t.name for t in parts)]
    names[place] = hidden.name
    used = [t for t in parts if t.name in names]
    width = x.shape[1] + hidden.shape[1] + 3
    wide = Tensor("wide", (1, width), DType.INT8, hidden.quant)
    tensors = {**graph.tensors, **{t.name: t for t in (table, first, wide, *used)}}
    ops = (
        graph.ops[0],
        Op("first", OpKind.TABLE, (x.name, "table"), "first"),
        Op("wide", OpKind.CONCAT, tuple(names), "wide", attrs=Concat(1)),
        graph.ops[1],
    )
    return Graph("branch", tensors, ops, graph.inputs, (*graph.outputs, "wide"))


def test_the_plain_layer_learns() -> None:
    graph = dense()
    learner(graph).step(np.zeros(graph.tensors["x"].shape, np.int8), 0)


def test_weights_with_a_zero_point_are_not_trained() -> None:
    with pytest.raises(FieldloopError):
        learner(with_a_zero_point(dense()))


def test_groups_are_not_trained() -> None:
    with pytest.raises(FieldloopError):
        learner(Maker(np.random.default_rng(2)).grouped_conv2d())


@pytest.mark.parametrize("place", [1, 3, 4])
def test_what_a_concat_reads_beside_the_way_changes_nothing(place: int) -> None:
    # the logits do not depend on it; masters, because rounding depends on operators' numbers
    graph = two_layers()
    trainables = [Trainable(op.name, 1e-3) for op in graph.ops]
    branch = with_another_reader(graph, place)
    xs = np.random.default_rng(1).integers(-128, 128, (10, 1, 6)).astype(np.int8)
    learned = []
    for each in (graph, branch):
        config = LearnerConfig(lr=30.0, d_thr=0.0, weights="f32", bias_mode="dense")
        one = Learner(Model(finish(each, trainables).image), config)
        for i, x in enumerate(xs):
            one.train(x, i % 3)
        learned.append([w.tobytes() for w, _ in one.weights().values()])
    assert learned[0] == learned[1]


# ---- ways that nobody walks: the planner and the core say so alike


def on_the_way(kind: str) -> Graph:
    """Two layers with something between them that has no way back."""
    net = NetBuilder(np.random.default_rng(5), (1, 4, 4, 2))
    net.weighted(OpKind.CONV2D, 3, Window((1, 1)))
    hidden = net.last
    if kind == "softmax":
        net.flatten().softmax()
    elif kind == "itself":
        net.add(hidden)
    elif kind == "broadcast":
        net.pool(OpKind.AVG_POOL, Window((4, 4), (4, 4)))
        pooled = net.last
        net.at(hidden).add(pooled)
    elif kind == "concat":
        quant = net.tensors[hidden].quant
        net.tensors["both"] = Tensor("both", (1, 4, 4, 6), DType.INT8, quant)
        net.ops.append(Op("both", OpKind.CONCAT, (hidden, hidden), "both", attrs=Concat(3)))
        net.at("both")
    elif kind == "long":
        for _ in range(24):
            net.flatten()
            net.weighted(OpKind.FULLY_CONNECTED, 3, out_scale=0.05)
    net.weighted(OpKind.FULLY_CONNECTED, 3, clamp=LINEAR)
    return net.graph()


def beside_the_way() -> Graph:
    """A layer that leads to a second output only."""
    graph = two_layers()
    other = NetBuilder(np.random.default_rng(6), (1, 6))
    other.weighted(OpKind.FULLY_CONNECTED, 4)
    aside = replace(other.ops[0], name="aside", output="aside", inputs=("x", "wa", "ba"))
    tensors = dict(graph.tensors)
    for old, new in (("w0", "wa"), ("b0", "ba"), (other.ops[0].output, "aside")):
        tensors[new] = replace(other.tensors[old], name=new)
    x = other.tensors["x"]
    tensors["x"] = replace(graph.tensors["x"], quant=x.quant)
    ops = (aside, *graph.ops)
    return Graph("aside", tensors, ops, graph.inputs, (*graph.outputs, "aside"))


NO_WAY = {
    "softmax": lambda: (on_the_way("softmax"), "conv2d0"),
    "a tensor added to itself": lambda: (on_the_way("itself"), "conv2d0"),
    "a sum with broadcasting": lambda: (on_the_way("broadcast"), "conv2d0"),
    "concat": lambda: (on_the_way("concat"), "conv2d0"),
    "more operators than are walked": lambda: (on_the_way("long"), "conv2d0"),
    "a layer that does not lead to the logits": lambda: (beside_the_way(), "aside"),
}


@pytest.mark.parametrize("case", NO_WAY)
def test_where_there_is_no_way_back_nothing_learns(case: str) -> None:
    graph, lowest = NO_WAY[case]()
    head = logits_op(graph)
    assert head is not None
    with pytest.raises(NoWayError):
        walk_back(graph, [lowest, head.name])
    trainables = [Trainable(name, 1e-3) for name in (lowest, head.name)]
    trainables.sort(key=lambda t: [op.name for op in graph.ops].index(t.op))
    model = Model(finish(graph, trainables).image)
    with pytest.raises(FieldloopError):
        Learner(model, LearnerConfig(lr=1.0))
    if lowest != "aside":  # which is counted from the output like the others
        Learner(model, LearnerConfig(lr=1.0, layers=1))


def test_the_longest_way_is_walked() -> None:
    # 48 operators: 46 between the convolution and the head
    net = NetBuilder(np.random.default_rng(5), (1, 4, 4, 2))
    net.weighted(OpKind.CONV2D, 3, Window((1, 1)))
    for _ in range(23):
        net.flatten()
        net.weighted(OpKind.FULLY_CONNECTED, 3, out_scale=0.05, w_scales=(0.001, 0.002))
    graph = net.weighted(OpKind.FULLY_CONNECTED, 3, clamp=LINEAR).graph()
    assert len(graph.ops) == 48
    names = [graph.ops[0].name, graph.ops[-1].name]
    model = Model(finish(graph, [Trainable(name, 1e-3) for name in names]).image)
    one = Learner(model, LearnerConfig(lr=1.0))
    one.train(np.zeros((1, 4, 4, 2), np.int8), 1)
    assert one.stats.trained == 1


def test_scales_under_which_a_delta_could_leave_its_range_are_refused() -> None:
    # an L1 norm of 2 grows by 4 * 128 * scale in each of three layers; 1e30 is the end
    for scale, batch, optimizer, fits in (
        (1.5e7, 1, "sgd", True),
        (1.6e7, 1, "sgd", False),
        (2.3e6, 256, "sgd", True),
        (2.5e6, 256, "sgd", False),
        (6e5, 1, "momentum", True),
        (8e5, 1, "momentum", False),
    ):
        net = NetBuilder(np.random.default_rng(7), (1, 4))
        scales = {"per_channel": False, "w_scales": (scale, scale), "bias": False}
        for _ in range(3):
            net.weighted(OpKind.FULLY_CONNECTED, 4, **scales)  # type: ignore[arg-type]
        net.weighted(OpKind.FULLY_CONNECTED, 4, clamp=LINEAR, **scales)  # type: ignore[arg-type]
        graph = net.graph()
        trainables = [Trainable(op.name, 1e-3) for op in (graph.ops[0], graph.ops[-1])]
        model = Model(finish(graph, trainables).image)
        config = LearnerConfig(
            lr=1.0,
            batch=batch,
            optimizer=optimizer,  # type: ignore[arg-type]
            beta1=0.9999,
        )
        if fits:
            Learner(model, config)
        else:
            with pytest.raises(FieldloopError):
                Learner(model, config)
