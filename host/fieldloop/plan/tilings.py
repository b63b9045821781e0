"""Ways to compute a stretch of operators, and the programs they make."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fieldloop.ir.graph import Graph
from fieldloop.ir.shapes import macs
from fieldloop.plan.channels import channel_macs, emit_channels
from fieldloop.plan.costs import move_cost
from fieldloop.plan.occupancy import Occupancy, occupancy
from fieldloop.plan.program import (
    IN_PLACE,
    Builder,
    Piece,
    Program,
    Store,
    activations,
    lives,
    root_of,
)
from fieldloop.plan.row_paths import row_path
from fieldloop.plan.rows import emit_stream, emit_tiles
from fieldloop.plan.stacking import Stacking, stack

SCRATCH = "(learner)"  # in a program's places: what the learner uses once the forward pass is over


class TilingKind(enum.Enum):
    """How a stretch of operators is computed."""

    FDT = "fdt"  # slices of channels; `amount`: how many
    FFMT = "ffmt"  # rows with a halo that is computed again; `amount`: tiles
    STREAM = "stream"  # rows, each once, through windows; `amount`: rows at a time
    IN_PLACE = "in_place"  # one operator that writes where it reads


@dataclass(frozen=True, slots=True, order=True)
class Tiling:
    """Operators first..last of the graph's order."""

    first: int
    last: int
    kind: TilingKind = TilingKind.STREAM
    amount: int = 1

    def with_amount(self, amount: int) -> Tiling:
        return replace(self, amount=amount)


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """A graph with some of its operators tiled, laid out."""

    graph: Graph
    tilings: tuple[Tiling, ...]
    program: Program
    occupied: Occupancy
    stacking: Stacking
    macs: int
    overhead: int  # about the instructions of a Cortex-M4 that tiling adds, beside macs

    @property
    def peak(self) -> int:
        return self.stacking.peak

    @property
    def merit(self) -> tuple[int, int]:
        """What is compared: the arena, then the overhead."""
        return self.peak, self.overhead


def can_be_in_place(graph: Graph, index: int, keep: frozenset[str] = frozenset()) -> bool:
    """May an operator write its output over its first input, which nobody needs again?"""
    op = graph.ops[index]
    if op.kind not in IN_PLACE or graph.tensors[op.inputs[0]].is_constant:
        return False
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    root = root_of(graph, op.inputs[0])
    reads = [root_of(graph, name) for name in activations(graph, op)]
    return (
        x.shape == y.shape
        and x.dtype == y.dtype
        and reads.count(root) == 1
        and lives(graph, keep)[root].last == index
    )


def draft(
    graph: Graph,
    tilings: Sequence[Tiling],
    *,
    keep: frozenset[str] = frozenset(),
    scratch: int = 0,
    exact: bool = False,
) -> Draft:
    """The program of a graph with disjoint tilings, and where its stores lie.

    `scratch`: bytes that the learner needs beside `keep` at the end. CannotTileError where a
    tiling does not fit the graph.
    """
    builder = Builder(graph)
    for name in graph.inputs:
        builder.whole(name)
    tiled = {tiling.first: tiling for tiling in tilings}
    work = 0
    index = 0
    while index < len(graph.ops):
        tiling = tiled.get(index)
        if tiling is None:
            builder.whole_op(index)
            work += macs(graph.ops[index], graph.tensors)
            index += 1
            continue
        work += emit(builder, tiling, keep)
        index = tiling.last + 1
    program = builder.done(keep)
    if scratch:
        program = with_scratch(program, scratch)
    occupied = occupancy(program)
    stacking = stack(program.stores, occupied, exact=exact)
    added = sum(move_cost(graph, move) for move in program.moves)
    return Draft(graph, tuple(tilings), program, occupied, stacking, work, added)


def emit(builder: Builder, tiling: Tiling, keep: frozenset[str]) -> int:
    """Adds a tiling's moves; its multiply-accumulates."""
    graph = builder.graph
    if tiling.kind is TilingKind.IN_PLACE:
        builder.whole_op(tiling.first, in_place=True)
        return macs(graph.ops[tiling.first], graph.tensors)
    if tiling.kind is TilingKind.FDT:
        emit_channels(builder, tiling.first, tiling.last, tiling.amount, keep)
        return channel_macs(graph, tiling.first, tiling.last)
    path = row_path(graph, tiling.first, tiling.last, keep)
    if tiling.kind is TilingKind.STREAM:
        return emit_stream(builder, path, tiling.amount)
    return emit_tiles(builder, path, tiling.amount)


def with_scratch(program: Program, size: int) -> Program:
    """The program with `size` bytes more that only the caller uses, at the end."""
    words = -(-size // 4)
    store = len(program.stores)
    piece = Piece(store, 0, 1, words, words, 4)
    return replace(
        program,
        stores=(*program.stores, Store(SCRATCH, 4 * words, 16)),
        places={**program.places, SCRATCH: piece},
        stays=(*program.stays, SCRATCH),
    )
