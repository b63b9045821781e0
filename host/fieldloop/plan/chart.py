"""What lies where in the arena, when: the data of a memory map, whatever draws it.

A chart has a column for each step, or for the fullest of several where there are many, and a band
for each piece of arena that is somebody's: a buffer of an untiled plan, a store of a tiled one.
Every operator is one unit wide, so that charts of one graph stand beside each other; operators
that run by turns share theirs, and so do the steps of one.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fieldloop.ir.graph import Graph
from fieldloop.plan.lifetimes import buffers
from fieldloop.plan.occupancy import occupancy
from fieldloop.plan.program import Program
from fieldloop.plan.types import Plan, StepKind

Ints = NDArray[np.int64]


class BandKind(enum.Enum):
    """What a band holds."""

    INPUT = "input"
    TENSOR = "whole tensor"
    TILE = "tile"
    CACHE = "row cache"
    SUMS = "accumulators"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """`lo`, `hi`: int64 [columns], live arena bytes of each column; equal where nothing is.

    Of all steps, shown or not: `bytes`, the most that is ever live; `start`, `end` of all that
    ever is; `first`, `last` step, where 0 is the caller writing the inputs.
    """

    name: str
    kind: BandKind
    lo: Ints
    hi: Ints
    bytes: int
    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Columns [first, end) that belong to one operator, or to several that run by turns; `units`:
    how wide they are together.
    """

    names: tuple[str, ...]
    first: int
    end: int
    units: int

    def label(self, width: int) -> str:
        """The operator, or the first and the last of them, in at most `width` letters."""
        if len(self.names) == 1:
            return cut(self.names[0], width)
        room = (width - 4) // 2
        return f"{cut(self.names[0], room)} to {cut(self.names[-1], room)}"


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """`peak`: highest live byte, reached in column `fullest`; `steps`: all that there are."""

    title: str
    bands: tuple[Band, ...]
    stretches: tuple[Stretch, ...]
    columns: int
    steps: int
    peak: int
    fullest: int

    @property
    def edges(self) -> list[float]:
        """Left edge of each column, and the right one of the last, in units."""
        found, at = [], 0
        for stretch in self.stretches:
            count = stretch.end - stretch.first
            found += [at + stretch.units * i / count for i in range(count)]
            at += stretch.units
        return [*found, float(at)]


def cut(name: str, width: int) -> str:
    """A name in at most `width` letters: its end, of several that TFLite joined the last."""
    last = name.rpartition(";")[2] or name
    if len(last) <= width:
        return last
    return "..." + last[3 - width :] if width > 6 else ""


def chart_of_plan(
    graph: Graph, plan: Plan, title: str, *, keep: frozenset[str] = frozenset(), most: int = 1000
) -> Chart:
    """An untiled plan; `keep` as it was given to the planner; `most`: columns."""
    items = buffers(graph, keep=keep)
    times = len(graph.ops) + 2
    lo, hi = np.zeros((len(items), times), np.int64), np.zeros((len(items), times), np.int64)
    for i, item in enumerate(items):
        start = plan.offsets[item.tensors[0]]
        lo[i, item.first : item.last + 1] = start
        hi[i, item.first : item.last + 1] = start + item.bytes
    names = [" = ".join(item.tensors) for item in items]
    kinds = [_kind_of(graph, item.tensors) for item in items]
    return _chart(title, names, kinds, lo, hi, [*range(len(graph.ops))], graph, most)


def chart_of_program(
    graph: Graph, program: Program, offsets: Sequence[int], title: str, *, most: int = 1000
) -> Chart:
    """A tiled plan whose store i lies at offsets[i]."""
    occupied = occupancy(program)
    live = occupied.hi > occupied.lo
    shift = np.array(offsets, np.int64).reshape(-1, 1)
    lo = np.where(live, occupied.lo + shift, 0).astype(np.int64)
    hi = np.where(live, occupied.hi + shift, 0).astype(np.int64)
    names, kinds = [], []
    for number, store in enumerate(program.stores):
        whole = [name for name, piece in program.places.items() if piece.store == number]
        names.append(" = ".join(whole) or store.name)
        kinds.append(_kind_of_store(graph, program, number, whole))
    return _chart(title, names, kinds, lo, hi, [m.op for m in program.moves], graph, most)


def _kind_of(graph: Graph, tensors: Sequence[str]) -> BandKind:
    if any(name in graph.inputs for name in tensors):
        return BandKind.INPUT
    return BandKind.OUTPUT if any(n in graph.outputs for n in tensors) else BandKind.TENSOR


def _kind_of_store(graph: Graph, program: Program, number: int, whole: Sequence[str]) -> BandKind:
    moves = program.moves
    if any(m.partial and m.y is not None and m.y.store == number for m in moves):
        return BandKind.SUMS
    if whole:
        return _kind_of(graph, whole)
    copied = [m.y for m in moves if m.kind is StepKind.COPY]
    if any(piece is not None and piece.store == number for piece in copied):
        return BandKind.CACHE
    return BandKind.TILE


def _chart(
    title: str,
    names: Sequence[str],
    kinds: Sequence[BandKind],
    lo: Ints,
    hi: Ints,
    op_of_step: Sequence[int],
    graph: Graph,
    most: int,
) -> Chart:
    """`op_of_step`: of each step but the first and the last, which are the caller's."""
    spans = _spans(op_of_step, len(graph.ops))
    shown, stretches = _columns(spans, graph, _fullness(lo, hi), most)
    bands = []
    for i, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        live = np.flatnonzero(hi[i] > lo[i])
        if live.size:
            size = int((hi[i] - lo[i]).max())
            start, end = int(lo[i, live].min()), int(hi[i].max())
            life = int(live[0]), int(live[-1])
            bands.append(Band(name, kind, lo[i, shown], hi[i, shown], size, start, end, *life))
    fullest = int(_fullness(lo, hi)[shown].argmax())
    steps, peak = lo.shape[1], int(hi.max(initial=0))
    return Chart(title, tuple(bands), stretches, len(shown), steps, peak, fullest)


@dataclass(frozen=True, slots=True)
class _Span:
    """Steps [first, end) of operators `ops`; none of the caller."""

    ops: tuple[int, ...]
    first: int
    end: int


def _spans(op_of_step: Sequence[int], count: int) -> list[_Span]:
    """Operators whose steps alternate are one span. `count`: operators."""
    of_op: dict[int, tuple[int, int]] = {}
    for step, op in enumerate(op_of_step, start=1):
        of_op[op] = (of_op.get(op, (step, step))[0], step + 1)
    merged: list[_Span] = []
    for op, (first, end) in sorted(of_op.items(), key=lambda item: item[1]):
        if merged and first < merged[-1].end:
            last = merged[-1]
            merged[-1] = _Span((*last.ops, op), last.first, max(last.end, end))
        else:
            merged.append(_Span((op,), first, end))
    times = len(op_of_step) + 2
    return [_Span((), 0, 1), *merged, _Span((), times - 1, times)]


def _fullness(lo: Ints, hi: Ints) -> Ints:
    """Of each time a number to compare by: its highest live byte, then how many are live."""
    live = (hi - lo).sum(axis=0)
    weight: Ints = hi.max(axis=0, initial=0) * (live.max(initial=0) + 1) + live
    return weight


def _columns(
    spans: Sequence[_Span], graph: Graph, fullness: Ints, most: int
) -> tuple[Ints, tuple[Stretch, ...]]:
    """The times to show, of each span as many as its units allow, and what they belong to."""
    starts = [-1, *(min(span.ops) for span in spans[1:-1]), len(graph.ops), len(graph.ops) + 1]
    units = [max(1, b - a) for a, b in itertools.pairwise(starts)]
    shown: list[int] = []
    stretches = []
    for span, wide in zip(spans, units, strict=True):
        steps = span.end - span.first
        count = min(steps, max(1, most * wide // sum(units)))
        names = tuple(graph.ops[op].name for op in sorted(span.ops))
        names = names or ("(inputs)" if span.first == 0 else "(outputs)",)
        stretches.append(Stretch(names, len(shown), len(shown) + count, wide))
        for i in range(count):
            a, b = (span.first + steps * n // count for n in (i, i + 1))
            shown.append(a + int(fullness[a:b].argmax()))
    return np.array(shown, np.int64), tuple(stretches)
