"""FDT: what paths are found, and that their slices compute what the whole operators do."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
from program_runner import Runner
from random_mixed import F32, I8, I32, MixedGrower, inputs_for, mixed_graph

from fieldloop.frontends.builder import GraphBuilder
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, Mean, Op, OpKind, Requant, Unary, UnaryKind, Window
from fieldloop.ir.reference import run
from fieldloop.ir.shapes import macs
from fieldloop.ir.tensor import Array, DType, Quant, Tensor
from fieldloop.plan.channel_paths import Role, channel_path
from fieldloop.plan.channels import (
    channel_macs,
    channel_parts,
    channel_paths,
    channel_ram,
    emit_channels,
    is_channel_path,
)
from fieldloop.plan.program import Builder, CannotTileError, Program
from fieldloop.quantize.fixedpoint import mean_params, softmax_params
from fieldloop.sources import read_source

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared"))
TFLITE = SHARED / "models" / "tflite"


def program_of(graph: Graph, first: int, last: int, parts: int) -> Program:
    """The whole graph, with one path of it in slices."""
    builder = Builder(graph)
    for index in range(first):
        builder.whole_op(index)
    emit_channels(builder, first, last, parts)
    for index in range(last + 1, len(graph.ops)):
        builder.whole_op(index)
    return builder.done()


def check(graph: Graph, first: int, last: int, parts: int, inputs: dict[str, Array]) -> None:
    """A path cut into parts gives the untiled outputs, and does nothing twice."""
    runner = Runner(graph, program_of(graph, first, last, parts), seed=parts)
    got = runner.run(inputs)
    expected = run(graph, inputs)
    for name in graph.outputs:
        value = expected[name]
        if value.dtype == np.float32:
            scale = float(np.abs(value[np.isfinite(value)]).max(initial=1.0))
            np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5 * scale)
        else:
            np.testing.assert_array_equal(got[name], value)
    for used in runner.weights_used.values():
        assert (used == 1).all()
    path = channel_path(graph, first, last)
    assert sorted(runner.finished) == [stage.index for stage in path.stages]
    for stage in path.stages:
        times = runner.finished[stage.index]
        assert (times[: stage.y_rows] == 1).all()
        assert not times[stage.y_rows :].any()
    assert path.stages[-1].y_rows == path.stages[-1].y.rows


def check_all(graph: Graph, inputs: dict[str, Array], *, most: int = 64) -> set[tuple[int, int]]:
    """Every path of a graph in every number of parts (at most `most` of them); the paths."""
    found = {path for i in range(len(graph.ops)) for path in channel_paths(graph, i)}
    for first, last in sorted(found):
        units = channel_path(graph, first, last).units
        for parts in range(1, min(units, most) + 1):
            check(graph, first, last, parts, inputs)
    return found


# ---- random chains

STARTS = (OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D, OpKind.MAX_POOL, OpKind.ADD)
INSIDE = (
    OpKind.DEPTHWISE_CONV2D,
    OpKind.MAX_POOL,
    OpKind.AVG_POOL,
    OpKind.ADD,
    OpKind.MUL,
    OpKind.MAXIMUM,
    OpKind.TABLE,
    OpKind.RESHAPE,
)
ENDS = (OpKind.CONV2D, OpKind.FULLY_CONNECTED, OpKind.MEAN, OpKind.RESHAPE, OpKind.SOFTMAX)


def chain(seed: int, *, dtype: DType) -> Graph:
    """A start, operators that work channel by channel, some ends: FDT takes most such chains."""
    rng = np.random.default_rng(seed)
    grower = MixedGrower(rng, plain=False)
    grower.input((1, grower.int(5, 11), grower.int(4, 9), grower.int(1, 4)), dtype)
    if dtype is I8 and rng.random() < 0.2:
        grower.input((1, grower.int(3, 20)), I32)  # and its embedding
    else:
        grow(grower, STARTS[rng.integers(len(STARTS))])
    for _ in range(grower.int(1, 5)):
        grow(grower, INSIDE[rng.integers(len(INSIDE))])
    for _ in range(3):
        grow(grower, ENDS[rng.integers(len(ENDS))])
    return grower.graph()


def grow(grower: MixedGrower, kind: OpKind) -> None:
    """One more operator on the last value, where it fits."""
    x = grower.values[-1]
    tensor = grower.tensors[x]
    shape, real = tensor.shape, tensor.dtype is F32
    if kind in (OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D, OpKind.FULLY_CONNECTED):
        grower.weighted(kind, x, Clamp(-2.0, 2.0))
    elif kind in (OpKind.ADD, OpKind.MUL, OpKind.MAXIMUM):
        grower.binary(kind, x, Clamp())
    elif kind in (OpKind.MAX_POOL, OpKind.AVG_POOL) and len(shape) == 4:
        window = grower.window(shape[1:3], pool=True)
        fixed = None if real else Requant(-100, 100)
        grower.put(kind, [x], tensor.quant, tensor.dtype, window=window, fixed=fixed)
    elif kind is OpKind.TABLE and not real:
        data = grower.rng.integers(-128, 128, 256).astype(np.int8)
        table = grower.constant(f"entries{len(grower.ops)}", data)
        grower.put(kind, [x, table], grower.quant(0.05), I8)
        if grower.rng.random() < 0.2:
            grower.put(OpKind.DEQUANTIZE, [grower.values[-1]], None, F32)
    elif kind is OpKind.TABLE:
        grower.put(OpKind.UNARY, [x], None, F32, attrs=Unary(UnaryKind.TANH))
        if grower.rng.random() < 0.2:
            grower.put(OpKind.QUANTIZE, [grower.values[-1]], grower.quant(0.02), I8)
    elif kind is OpKind.RESHAPE:
        made = (1, tensor.size // shape[-1], 1, shape[-1])
        if grower.rng.random() < 0.5:
            made = (1, tensor.size)
        grower.put(kind, [x], tensor.quant, tensor.dtype, shape=made)
    elif kind is OpKind.MEAN and len(shape) > 2:
        axes = tuple(range(1, len(shape) - 1))
        attrs = Mean(axes, bool(grower.rng.random() < 0.5))
        if real:
            grower.put(kind, [x], None, F32, attrs=attrs)
            return
        out = grower.quant(0.04)
        count = math.prod(shape[1:-1])
        fixed = mean_params(grower.quant_of(x), out, count, Clamp())
        grower.put(kind, [x], out, I8, fixed=fixed, attrs=attrs)
    elif kind is OpKind.SOFTMAX and not real:
        fixed = softmax_params(grower.quant_of(x))
        grower.put(kind, [x], Quant((1.0 / 256.0,), -128), I8, fixed=fixed)


@pytest.mark.parametrize("dtype", [I8, F32], ids=["int8", "float32"])
def test_every_path_of_random_chains(dtype: DType) -> None:
    """Slices compute what the whole operators do; each weight and each element once."""
    paths, roles, kinds = 0, set(), set()
    for seed in range(150):
        graph = chain(seed, dtype=dtype)
        for first, last in check_all(graph, inputs_for(graph, seed, 1), most=9):
            paths += 1
            path = channel_path(graph, first, last)
            roles |= {path.stages[0].role, path.stages[-1].role}
            kinds |= {graph.ops[i].kind for i in range(first, last + 1)}
    assert paths > 200
    assert roles == set(Role)
    assert kinds >= {*STARTS, *INSIDE, *ENDS} - {OpKind.SOFTMAX, OpKind.TABLE}


def test_every_path_of_random_graphs() -> None:
    """Of every operator, int8 and float32 in one graph: most operators end a path."""
    paths = 0
    for seed in range(500):
        graph = mixed_graph(seed, depth=14)
        paths += len(check_all(graph, inputs_for(graph, seed, 1), most=5))
    assert paths > 150


# ---- real networks


def network(name: str) -> Graph:
    path = TFLITE / f"{name}.tflite"
    if not path.is_file():
        pytest.skip("no models beside the clone; set FIELDLOOP_SHARED")
    return read_source(path).imported.graph


@pytest.mark.parametrize(
    ("name", "first", "last", "parts"),
    [
        ("text_class", 0, 1, (2, 7, 16)),  # embedding, mean
        ("text_class", 0, 2, (3, 16)),  # and a fan-in of real sums
        ("magic_wand", 0, 1, (3, 8)),  # a depthwise of one input channel, pool
        ("cifar10", 0, 1, (5, 32)),  # convolution, pool
        ("micro_speech", 1, 2, (3, 8)),  # depthwise, flattened fan-in
        ("ad01_int8", 3, 4, (2, 64)),  # dense, dense
        ("ad01_int8", 4, 5, (8,)),
        ("vww_96_int8", 2, 3, (2, 16)),  # pointwise, depthwise
        ("vww_96_int8", 1, 2, (3,)),  # depthwise, pointwise fan-in
        ("vww_96_int8", 26, 29, (64,)),  # pointwise, pool, reshape, dense
        ("kws_ref_model", 8, 9, (4, 64)),  # pointwise, pool
        ("mnist_cnn_int8", 2, 4, (5,)),  # convolution, mean, dense
    ],
)
def test_paths_of_real_networks(name: str, first: int, last: int, parts: tuple[int, ...]) -> None:
    graph = network(name)
    assert (first, last) in channel_paths(graph, last)
    assert (first, last) in channel_paths(graph, first)
    for n in parts:
        check(graph, first, last, n, inputs_for(graph, n, 1))


@pytest.mark.parametrize(
    ("name", "first", "last", "bytes_"),
    [
        ("text_class", 0, 1, 2_112),
        ("magic_wand", 0, 1, 4_392),  # 24 bytes less: two rows that the pool never reads
        ("cifar10", 0, 1, 44_688),
        ("micro_speech", 1, 2, 2_476),
        ("vww_96_int8", 2, 3, 29_952),
    ],
)
def test_ram_of_the_published_paths(name: str, first: int, last: int, bytes_: int) -> None:
    graph = network(name)
    parts = channel_parts(graph, first, last)
    assert min(channel_ram(graph, first, last, n) for n in parts) == bytes_


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
        is_channel_path(graph, first, last, keep)
    return str(caught.value)


def test_a_fan_in_of_real_numbers_keeps_the_order_of_its_sums() -> None:
    assert "another order" in refused(network("magic_wand"), 3, 4)  # 14 pixels, flattened
    assert "another order" in refused(network("cifar10"), 1, 2)  # 3 by 3 taps
    is_channel_path(network("text_class"), 1, 2)


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
