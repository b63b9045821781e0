"""FDT: what paths are found, what ends them, what they cost."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from channel_finder import channel_paths
from random_mixed import I32, inputs_for
from test_channels import check, check_all, network

from fieldloop.frontends.builder import GraphBuilder
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Op, OpKind, Unary, UnaryKind, Window
from fieldloop.ir.shapes import macs
from fieldloop.ir.tensor import Tensor
from fieldloop.plan.channel_paths import channel_path
from fieldloop.plan.channels import (
    channel_macs,
    channel_parts,
    channel_ram,
    emit_channels,
)
from fieldloop.plan.program import Builder, CannotTileError

# ---- which paths there are


def dense(*sizes: int, relu: bool = False) -> Graph:
    """Fully connected layers in float32 of these sizes."""
    rng = np.random.default_rng(len(sizes))
    build = GraphBuilder("dense")
    x = build.input("x", (1, sizes[0]))
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        w = rng.normal(size=(after, before)) / before
        x = build.add(
            f"fc{i}", OpKind.FULLY_CONNECTED, [x], weights=w, bias=rng.normal(size=after)
        )
        if relu:
            x = build.add(f"relu{i}", OpKind.UNARY, [x], attrs=Unary(UnaryKind.LEAKY_RELU, 0.1))
    return build.graph([x])


def least(graph: Graph, first: int, last: int) -> int:
    return min(channel_ram(graph, first, last, n) for n in (1, *channel_parts(graph, first, last)))


def untiled(graph: Graph) -> int:
    """Most bytes of an input and its output, of a chain."""
    return max(
        graph.tensors[op.inputs[0]].bytes + graph.tensors[op.output].bytes for op in graph.ops
    )


@pytest.mark.parametrize(
    ("hidden", "out", "most"),
    [(1000, 10, 0.12), (150, 20, 0.6), (200, 30, 0.8), (300, 100, 0.6), (19391, 10, 0.11)],
)
def test_dense_chains(hidden: int, out: int, most: float) -> None:
    """Fan-out, function, fan-in, of 100 inputs."""
    graph = dense(100, hidden, out, relu=True)
    assert channel_paths(graph, 1) == [(0, 2), (0, 1), (1, 2)]
    assert channel_paths(graph, 3) == [(2, 3)]
    assert least(graph, 0, 2) <= most * untiled(graph)
    check(graph, 0, 2, 3, inputs_for(graph, hidden, 1))


def test_dense_chain_with_a_reshape() -> None:
    build = GraphBuilder("reshaped")
    rng = np.random.default_rng(0)
    x = build.input("x", (1, 100))
    y = build.add("a", OpKind.FULLY_CONNECTED, [x], weights=rng.normal(size=(500, 100)))
    y = build.add("r", OpKind.RESHAPE, [y], shape=(1, 1, 500))
    y = build.add("b", OpKind.FULLY_CONNECTED, [y], weights=rng.normal(size=(100, 500)))
    graph = build.graph([y])
    assert channel_paths(graph, 0) == [(0, 2)]
    check(graph, 0, 2, 3, inputs_for(graph, 3, 1))


def test_pointwise_and_pool_behind_a_depthwise() -> None:
    build = GraphBuilder("kws")
    rng = np.random.default_rng(0)
    x = build.input("x", (1, 32, 8, 1))
    same = Window((3, 3), pads=(1, 1, 1, 1))
    y = build.add("a", OpKind.CONV2D, [x], window=same, weights=rng.normal(size=(32, 3, 3, 1)))
    y = build.add(
        "b", OpKind.DEPTHWISE_CONV2D, [y], window=same, weights=rng.normal(size=(1, 3, 3, 32))
    )
    y = build.add(
        "c", OpKind.CONV2D, [y], window=Window((1, 1)), weights=rng.normal(size=(64, 1, 1, 32))
    )
    y = build.add("d", OpKind.AVG_POOL, [y], window=Window((16, 4), stride=(16, 4)))
    graph = build.graph([y])
    assert channel_paths(graph, 2) == [(0, 2), (1, 2), (2, 3)]
    assert channel_paths(graph, 0) == [(0, 2), (0, 1)]
    check_all(graph, inputs_for(graph, 1, 1), most=3)


@pytest.mark.parametrize(("pads", "most"), [((0, 0, 0, 0), 0.4), ((1, 1, 1, 1), 0.45)])
def test_convolution_and_depthwise_with_a_stride(
    pads: tuple[int, int, int, int], most: float
) -> None:
    build = GraphBuilder("strided")
    rng = np.random.default_rng(0)
    x = build.input("x", (1, 32, 32, 3))
    window = Window((3, 3), pads=pads)
    y = build.add("a", OpKind.CONV2D, [x], window=window, weights=rng.normal(size=(32, 3, 3, 3)))
    window = Window((3, 3), stride=(2, 2), pads=pads)
    y = build.add(
        "b", OpKind.DEPTHWISE_CONV2D, [y], window=window, weights=rng.normal(size=(1, 3, 3, 32))
    )
    graph = build.graph([y])
    assert least(graph, 0, 1) <= most * untiled(graph)


def test_the_widest_parts_come_first() -> None:
    graph = dense(10, 23, 3)
    path = channel_path(graph, 0, 1)
    assert path.cuts(4) == ((0, 6), (6, 6), (12, 6), (18, 5))
    assert channel_parts(graph, 0, 1) == [2, 3, 4, 5, 6, 8, 12, 23]
    with pytest.raises(CannotTileError, match="24 parts"):
        emit_channels(Builder(graph), 0, 1, 24)


def test_rows_that_no_pool_reads_are_not_computed() -> None:
    graph = network("cifar10")
    path = channel_path(graph, 2, 3)  # 13 rows, pooled by twos
    assert [stage.y_rows for stage in path.stages] == [12, 6]
    assert channel_macs(graph, 2, 3) * 13 == macs(graph.ops[2], graph.tensors) * 12
    check(graph, 2, 3, 16, inputs_for(graph, 0, 1))


# ---- what is refused


def refused(graph: Graph, first: int, last: int, keep: frozenset[str] = frozenset()) -> str:
    with pytest.raises(CannotTileError) as caught:
        channel_path(graph, first, last, keep)
    return str(caught.value)


def test_a_fan_in_of_real_numbers_keeps_the_order_of_its_sums() -> None:
    assert "another order" in refused(network("magic_wand"), 3, 4)  # 14 pixels, flattened
    assert "another order" in refused(network("cifar10"), 1, 2)  # 3 by 3 taps
    channel_path(network("text_class"), 1, 2)


def test_what_must_stay_whole_ends_a_path() -> None:
    graph = dense(10, 20, 30, 5)
    hidden = graph.ops[0].output
    assert "must stay whole" in refused(graph, 0, 1, frozenset({hidden}))
    assert channel_paths(graph, 0, frozenset({hidden})) == []
    shown = dataclasses.replace(graph, outputs=(hidden, *graph.outputs))
    assert "must stay whole" in refused(shown, 0, 1)
    assert "no chain" in refused(graph, 1, 1)
    assert "fan-in ends" in refused(graph, 0, 2)


def test_a_second_reader_ends_a_path() -> None:
    graph = network("resnet8_int8")
    branches = [i for i, op in enumerate(graph.ops) if len(graph.consumers(op.output)) > 1]
    assert branches
    for i in branches:
        assert "alone" in refused(graph, i, i + 1)
        assert all(last <= i for _, last in channel_paths(graph, i))


def test_a_fan_in_has_one_sample() -> None:
    rng = np.random.default_rng(0)
    build = GraphBuilder("samples")
    x = build.input("x", (1, 6, 4, 3))
    y = build.add("a", OpKind.MAX_POOL, [x], window=Window((1, 1)))
    y = build.add("b", OpKind.MAX_POOL, [y], window=Window((1, 1)))
    y = build.add("r", OpKind.RESHAPE, [y], shape=(24, 3))
    y = build.add("c", OpKind.FULLY_CONNECTED, [y], weights=rng.normal(size=(5, 3)))
    y = build.add("d", OpKind.UNARY, [y], attrs=Unary(UnaryKind.TANH))
    graph = build.graph([y])
    assert "several samples" in refused(graph, 1, 3)
    assert channel_paths(graph, 3) == [(3, 4)]  # a fan-out has many
    check_all(graph, inputs_for(graph, 0, 1))


@pytest.mark.parametrize(
    ("index", "entry", "taken"),
    [((7,), (4,), True), ((1, 7), (4,), True), ((2, 7), (4,), False), ((7,), (3, 4), False)],
)
def test_embeddings_whose_entries_are_pixels(
    index: tuple[int, ...], entry: tuple[int, ...], taken: bool
) -> None:
    rng = np.random.default_rng(0)
    table = Tensor("t", (9, *entry), data=rng.normal(size=(9, *entry)).astype(np.float32))
    tensors = (
        Tensor("i", index, I32),
        table,
        Tensor("e", (*index, *entry)),
        Tensor("y", (*index, *entry)),
    )
    ops = (
        Op("look", OpKind.EMBEDDING, ("i", "t"), "e"),
        Op("tanh", OpKind.UNARY, ("e",), "y", attrs=Unary(UnaryKind.TANH)),
    )
    graph = Graph("entries", {t.name: t for t in tensors}, ops, ("i",), ("y",))
    if taken:
        assert channel_paths(graph, 0) == [(0, 1)]
        check(graph, 0, 1, 3, inputs_for(graph, 0, 1))
    else:
        assert "not rows of channels" in refused(graph, 0, 1)
