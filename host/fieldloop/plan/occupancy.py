"""Which bytes of which store are live when: from the moves of a program alone.

Time 0 is the caller writing the inputs, time t + 1 is moves[t], and the last time is the caller
reading what stays. At each time a store is given one stretch [lo, hi), the hull of its bytes that
a later move needs, or that the move itself reads or writes. The hulls follow from two walks:

Backwards: a read extends what is needed before it. A write over the low or the high end of it
shrinks it, if it leaves no bytes out; strided writes leave it as it is, which is safe.
Forwards: nothing is live that was not written yet since the store was last empty. This is what
bounds a store that is filled in strides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fieldloop.plan.program import Piece, Program

Ints = NDArray[np.int32]

APART = -(1 << 30)  # a distance: the two are never live together
_FAR = 1 << 29  # no store is as large
_NONE = (_FAR, -_FAR)  # an empty hull: smaller than any other under min, max

Hull = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Live hulls. `lo`, `hi`: int32 [stores, times], bytes from the store's start; 0, 0 = none."""

    lo: Ints
    hi: Ints

    @property
    def live_bytes(self) -> NDArray[np.int64]:
        """int64 [times]: bytes of all hulls together."""
        total: NDArray[np.int64] = (self.hi.astype(np.int64) - self.lo).sum(axis=0)
        return total

    @property
    def tops(self) -> Ints:
        """int32 [stores]: the highest end that is ever live."""
        top: Ints = self.hi.max(axis=1, initial=0)
        return top

    def distances(self) -> Ints:
        """int32 [stores, stores]: [i, j] is the least offset of i minus offset of j with which i
        lies above j whenever both are live; APART where they never are.
        """
        live = self.hi > self.lo
        lo = np.where(live, self.lo, _FAR).astype(np.int32)
        hi = np.where(live, self.hi, -_FAR).astype(np.int32)
        count = len(lo)
        found = np.full((count, count), APART, np.int32)
        for i in range(count):
            then = np.flatnonzero(live[i])
            if then.size:
                a, b = then[0], then[-1] + 1  # most stores live for a small part of the time
                found[i] = (hi[:, a:b] - lo[i, a:b]).max(axis=1)
        found[found < -(_FAR >> 1)] = APART
        np.fill_diagonal(found, APART)
        return found


@dataclass(slots=True)
class _Event:
    """What happens to one store at one time: the hull of what is read, and what is written."""

    time: int
    reads: Hull
    writes: Hull
    dense: tuple[Hull, ...]  # of what is written: the stretches without holes


def occupancy(program: Program) -> Occupancy:
    """The live hulls of a program's stores."""
    times = len(program.moves) + 2
    lo = np.zeros((len(program.stores), times), np.int32)
    hi = np.zeros_like(lo)
    for store, events in enumerate(_events(program)):
        if events:
            lo[store], hi[store] = _hulls(events, times)
    return Occupancy(lo, hi)


def _events(program: Program) -> list[list[_Event]]:
    """Of each store, in the order of time."""
    events: list[list[_Event]] = [[] for _ in program.stores]
    spans: dict[int, tuple[Piece, Hull, bool]] = {}  # by identity: loops use their pieces again
    for time, reads, writes in _accesses(program):
        for piece, written in (*((p, False) for p in reads), *((p, True) for p in writes)):
            known = spans.get(id(piece))
            if known is None:
                known = spans[id(piece)] = (piece, (piece.offset, piece.end), piece.dense)
            _, hull, dense = known
            of_store = events[piece.store]
            if not of_store or of_store[-1].time != time:
                of_store.append(_Event(time, _NONE, _NONE, ()))
            event = of_store[-1]
            if not written:
                event.reads = _joined(event.reads, hull)
            else:
                event.writes = _joined(event.writes, hull)
                if dense:
                    event.dense = (*event.dense, hull)
    return events


def _accesses(program: Program) -> Iterator[tuple[int, tuple[Piece, ...], tuple[Piece, ...]]]:
    yield 0, (), tuple(program.places[name] for name in program.inputs)
    for time, move in enumerate(program.moves, start=1):
        yield time, move.read, move.written
    stays = tuple(program.places[name] for name in program.stays)
    yield len(program.moves) + 1, stays, ()


def _hulls(events: list[_Event], times: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One store's hulls at all times."""
    count = len(events)
    during = [_NONE] * count
    before = [_NONE] * count
    needed = _NONE
    for k in range(count - 1, -1, -1):
        event = events[k]
        during[k] = _joined(_joined(needed, event.writes), event.reads)
        for stretch in event.dense:
            needed = _without(needed, stretch)
        needed = before[k] = _joined(needed, event.reads)
    # Runs of constant hulls: up to the event, at the event, up to the next one...
    lows, highs, lengths = [0], [0], [events[0].time]
    written = _NONE
    for k, event in enumerate(events):
        if before[k] == _NONE:
            written = _NONE
        written = _joined(written, event.writes)
        now = _joined(_met(during[k], written), event.reads)
        end = events[k + 1].time if k + 1 < count else times
        after = _met(before[k + 1], written) if k + 1 < count else _NONE
        for hull, length in ((now, 1), (after, end - event.time - 1)):
            empty = hull[0] >= hull[1]
            lows.append(0 if empty else hull[0])
            highs.append(0 if empty else hull[1])
            lengths.append(length)
    return np.repeat(lows, lengths), np.repeat(highs, lengths)


def _joined(a: Hull, b: Hull) -> Hull:
    return (a[0] if a[0] < b[0] else b[0], a[1] if a[1] > b[1] else b[1])


def _met(a: Hull, b: Hull) -> Hull:
    met = (a[0] if a[0] > b[0] else b[0], a[1] if a[1] < b[1] else b[1])
    return met if met[0] < met[1] else _NONE


def _without(hull: Hull, stretch: Hull) -> Hull:
    """What is left of a hull where a stretch covers one of its ends."""
    lo, hi = hull
    if stretch[0] <= lo < stretch[1]:
        lo = stretch[1]
    if stretch[0] < hi <= stretch[1]:
        hi = stretch[0]
    return (lo, hi) if lo < hi else _NONE
