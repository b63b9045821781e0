"""Tiling by rows: which paths there are, that each row is made once, and what windows hold."""

from __future__ import annotations

import numpy as np
import pytest
from random_graphs import random_graph

from fieldloop.frontends.builder import Constant, GraphBuilder
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Mean, OpKind, Window
from fieldloop.ir.tensor import DType
from fieldloop.plan.program import Builder, CannotTileError, lives
from fieldloop.plan.row_paths import row_path
from fieldloop.plan.row_tables import live_bytes, row_table
from fieldloop.plan.rows import emit_stream, emit_tiles, tile_macs
from fieldloop.plan.search import Goal
from fieldloop.plan.tiled import plan_tiled
from fieldloop.plan.tilings import Tiling, TilingKind, draft
from fieldloop.plan.types import PlanKind, StepKind
from fieldloop.plan.verify import verify

SAME = Window((3, 3), pads=(1, 1, 1, 1))


def weights(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def chain(*, rows: int = 12, depth: int = 3, stride: int = 1) -> Graph:
    """Convolutions one after the other on a map [1, rows, 5, 4]."""
    build = GraphBuilder("chain")
    x = build.input("x", (1, rows, 5, 4))
    for _ in range(depth):
        window = Window((3, 3), stride=(stride, 1), pads=(1, 1, 1, 1))
        x = build.add("conv", OpKind.CONV2D, [x], window=window, weights=weights(4, 3, 3, 4))
    return build.graph([x])


def residual() -> Graph:
    """x -> conv -> conv -> + x' -> conv, where x' is a convolution that both branches read."""
    build = GraphBuilder("residual")
    given = build.input("x", (1, 10, 5, 4))
    w = weights(4, 3, 3, 4)
    x = build.add("conv", OpKind.CONV2D, [given], window=SAME, weights=w)
    y = build.add("conv", OpKind.CONV2D, [x], window=SAME, weights=w)
    y = build.add("conv", OpKind.CONV2D, [y], window=SAME, weights=w)
    z = build.add("add", OpKind.ADD, [y, x])
    return build.graph([build.add("conv", OpKind.CONV2D, [z], window=SAME, weights=w)])


def rows_made(graph: Graph, tilings: list[Tiling]) -> dict[int, list[int]]:
    """Of each operator, the rows its steps make, in their order."""
    made: dict[int, list[int]] = {}
    for move in draft(graph, tilings).program.moves:
        if move.kind is StepKind.TILE:
            made.setdefault(move.op, []).extend(range(move.out.row, move.out.row + move.out.rows))
    return made


@pytest.mark.parametrize("graph", [chain(), chain(stride=2), residual()], ids=lambda g: g.name)
@pytest.mark.parametrize("rows", [1, 2, 5, 64])
def test_streaming_makes_each_row_once_and_in_order(graph: Graph, rows: int) -> None:
    last = len(graph.ops) - 1
    made = rows_made(graph, [Tiling(0, last, TilingKind.STREAM, rows)])
    for index, op in enumerate(graph.ops):
        assert made[index] == list(range(graph.tensors[op.output].shape[1]))
    assert emit_stream(Builder(graph), row_path(graph, 0, last), rows) == graph.macs()


def test_a_chain_of_windows_needs_three_rows_each() -> None:
    graph = chain(rows=40, depth=4)
    row = 5 * 4 * 4
    program = draft(graph, [Tiling(0, 3)]).program
    windows = [store.bytes for store in program.stores if store.name.endswith("(rows)")]
    assert windows == [3 * row] * 3
    # the input leaves as the output comes: the arena is one map, two rows of distance, windows
    assert draft(graph, [Tiling(0, 3)]).peak <= (40 + 2) * row + 3 * 3 * row


def test_one_operator_streams_over_its_own_input() -> None:
    graph = chain(rows=40, depth=1)
    row = 5 * 4 * 4
    assert draft(graph, []).peak == 80 * row
    assert draft(graph, [Tiling(0, 0)]).peak == 42 * row  # 3x3: two rows are still read
    assert draft(graph, [Tiling(0, 0, amount=4)]).peak == 45 * row


@pytest.mark.parametrize("parts", [2, 3, 4, 12])
def test_tiles_compute_their_halo_again(parts: int) -> None:
    graph = chain(depth=2)
    path = row_path(graph, 0, 1)
    made = rows_made(graph, [Tiling(0, 1, TilingKind.FFMT, parts)])
    assert made[1] == list(range(12))
    assert len(made[0]) == 12 + 2 * (parts - 1)  # a row above and below each cut
    done = tile_macs(path, parts)
    assert done == graph.macs() // 24 * (len(made[0]) + len(made[1])) and done > graph.macs()
    with pytest.raises(CannotTileError, match="12 rows for 13 tiles"):
        emit_tiles(Builder(graph), path, 13)


def test_rows_that_nobody_reads_are_not_made() -> None:
    build = GraphBuilder("valid")
    x = build.input("x", (1, 13, 4, 2))
    x = build.add("conv", OpKind.CONV2D, [x], window=Window((1, 1)), weights=weights(2, 1, 1, 2))
    x = build.add("pool", OpKind.MAX_POOL, [x], window=Window((2, 2), stride=(2, 2)))
    graph = build.graph([x])
    assert rows_made(graph, [Tiling(0, 1)])[0] == list(range(12))
    assert emit_stream(Builder(graph), row_path(graph, 0, 1), 1) == graph.macs() // 13 * 12


def test_a_mean_and_a_flattened_layer_end_a_path_as_sums() -> None:
    for end in ("mean", "dense"):
        build = GraphBuilder(end)
        x = build.input("x", (1, 9, 4, 2))
        x = build.add("conv", OpKind.CONV2D, [x], window=SAME, weights=weights(3, 3, 3, 2))
        if end == "mean":
            x = build.add("mean", OpKind.MEAN, [x], attrs=Mean((1, 2)))
        else:
            x = build.add("fc", OpKind.FULLY_CONNECTED, [x], weights=weights(5, 108))
        graph = build.graph([x])
        moves = draft(graph, [Tiling(0, 1)]).program.moves
        sums = [move for move in moves if move.partial]
        assert [move.inp.row for move in sums] == list(range(9))
        assert [move.first for move in sums] == [True, *[False] * 8]
        assert [move.last for move in sums] == [*[False] * 8, True]
        assert draft(graph, [Tiling(0, 1)]).peak < draft(graph, []).peak


def test_what_is_no_path_says_why() -> None:
    graph = residual()
    kept = graph.ops[1].output
    with pytest.raises(CannotTileError, match="two ends"):
        row_path(graph, 0, 4, frozenset({graph.ops[4].output, kept})) and row_path(
            _two_heads(), 0, 2
        )
    build = GraphBuilder("softmax")
    x = build.input("x", (1, 4, 4, 2))
    graph = build.graph([build.add("softmax", OpKind.SOFTMAX, [x])])
    with pytest.raises(CannotTileError, match="not computed row by row"):
        row_path(graph, 0, 0)
    build = GraphBuilder("mixes")
    x = build.input("x", (1, 4, 4, 2))
    x = build.add("fc", OpKind.FULLY_CONNECTED, [x], weights=weights(6, 32))
    x = build.add("fc", OpKind.FULLY_CONNECTED, [x], weights=weights(3, 6))
    with pytest.raises(CannotTileError, match="mixes rows"):
        row_path(build.graph([x]), 0, 1)


@pytest.mark.parametrize("maker", ["pool", "embedding"])
def test_other_rows_than_the_maker_s_end_a_path(maker: str) -> None:
    """A mean of a reshaped map, a convolution over an embedding of a map of indices."""
    build = GraphBuilder(maker)
    if maker == "pool":
        x = build.input("x", (1, 4, 8, 2))
        x = build.add("pool", OpKind.MAX_POOL, [x], window=Window((2, 2), pads=(0, 1, 0, 1)))
        x = build.add("reshape", OpKind.RESHAPE, [x], shape=(1, 32, 1, 2))
        x = build.add("mean", OpKind.MEAN, [x], attrs=Mean((1, 2)))
    else:
        x = build.input("x", (1, 4, 5), dtype=DType.INT32)
        table = build.constant("table", Constant(weights(9, 8)))
        x = build.add("embedding", OpKind.EMBEDDING, [x, table])
        x = build.add("conv", OpKind.CONV2D, [x], window=SAME, weights=weights(2, 3, 3, 8))
    graph = build.graph([x])
    with pytest.raises(CannotTileError, match="other rows"):
        row_path(graph, 0, len(graph.ops) - 1)
    for mode in ("auto", "ffmt"):
        planned = plan_tiled(graph, PlanKind.INFER, Goal(mode))
        verify(graph, planned.plan)


def _two_heads() -> Graph:
    build = GraphBuilder("heads")
    x = build.input("x", (1, 6, 4, 2))
    w = weights(2, 3, 3, 2)
    x = build.add("conv", OpKind.CONV2D, [x], window=SAME, weights=w)
    heads = [build.add("conv", OpKind.CONV2D, [x], window=SAME, weights=w) for _ in range(2)]
    return build.graph(heads)


@pytest.mark.parametrize("seed", range(30))
def test_the_estimate_is_near_what_is_live(seed: int) -> None:
    """An estimate to search by; windows that are never full at one time make it larger."""
    graph = random_graph(seed, depth=5, softmax=False)
    for first in range(len(graph.ops)):
        for last in range(first, len(graph.ops)):
            try:
                path = row_path(graph, first, last)
            except CannotTileError:
                continue
            gone = frozenset(n for n in path.given if lives(graph)[n].last <= last)
            guess, _ = live_bytes(row_table(path, 1, cached=True), gone)
            made = draft(graph, [Tiling(first, last)])
            times = [
                time
                for time, move in enumerate(made.program.moves, start=1)
                if first <= move.op <= last
            ]
            stores = {
                piece.store
                for move in made.program.moves
                if first <= move.op <= last
                for piece in (*move.read, *move.written)
            }
            live = (made.occupied.hi - made.occupied.lo)[sorted(stores)][:, times]
            most = int(live.sum(axis=0).max())
            assert most / 2 <= guess <= 4 * most, (first, last)


def test_a_path_is_written_into_a_program_that_goes_on() -> None:
    graph = chain(depth=3)
    builder = Builder(graph)
    emit_stream(builder, row_path(graph, 0, 1), 2)
    builder.whole_op(2)
    program = builder.done()
    assert [move.op for move in program.moves if move.kind is StepKind.OP] == [2]
    assert graph.ops[0].output not in program.places
    assert graph.ops[1].output in program.places
