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
from fieldloop.ir.op import Concat, Op, OpKind, Requant
from fieldloop.ir.tensor import DType, Quant, Tensor
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
def test_what_a_concat_reads_too_is_a_branch(place: int) -> None:
    graph = two_layers()
    trainables = [Trainable(op.name, 1e-3) for op in graph.ops]
    Learner(Model(finish(graph, trainables).image), LearnerConfig(lr=1.0))
    branch = with_another_reader(graph, place)
    model = Model(finish(branch, trainables).image)
    with pytest.raises(FieldloopError):
        Learner(model, LearnerConfig(lr=1.0))
