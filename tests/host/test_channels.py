"""FDT: slices of channels compute what the whole operators do."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from channel_finder import channel_paths
from program_runner import Runner
from random_chains import ENDS, INSIDE, STARTS, chain
from random_mixed import F32, I8, inputs_for, mixed_graph

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import OpKind
from fieldloop.ir.reference import run
from fieldloop.ir.tensor import Array, DType
from fieldloop.plan.channel_paths import Role, channel_path
from fieldloop.plan.channels import (
    channel_parts,
    channel_ram,
    emit_channels,
)
from fieldloop.plan.program import Builder, Program
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


# ---- random graphs


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
