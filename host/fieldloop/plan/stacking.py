"""Where stores lie: offsets such that no two live hulls meet at any time, as low as they go.

The hulls of two stores move over time (occupancy.py), so what separates them is a distance for
each of the two ways round: `apart[i][j]` is the least offset of i minus offset of j with which i
lies above j at all times. It may be negative: an output that grows while its input shrinks may
begin below the input's first byte. A layout chooses, for each pair that is ever live together,
which one is above.

1. The most live bytes at one time bound every layout from below.
2. First fit in several orders: each store at the lowest offset that no placed store forbids; then,
   a few times, what ends at the peak is placed first.
3. Branch and bound (_Search): where there is a shift of the stores' origins that makes every
   distance positive, "above" has no cycles, and some optimal layout is made by taking the stores
   in ascending order of shifted offset and putting each on top of the placed ones (push all down,
   sort, repeat: offsets only fall). At a time with stack height h and r live bytes still to come,
   h + r bounds what can come of a branch.
4. What is still open goes to an integer program (milp.py).

Every search is cut off by a count, never by a clock: results repeat on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fieldloop.plan.occupancy import APART, Occupancy
from fieldloop.plan.program import Store

MAX_NODES = 20_000
MAX_REPAIRS = 40
QUICK_REPAIRS = 4

Offsets = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stacking:
    """Offset of each store; `peak`: highest byte ever live; no layout is below `bound`;
    `optimal`: proven, among layouts where of each two stores one is always above the other.
    """

    offsets: Offsets
    peak: int
    bound: int
    optimal: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """A layout problem: stores by number, all sizes in bytes."""

    alignments: tuple[int, ...]
    tops: tuple[int, ...]  # highest end ever live, from the store's start
    apart: tuple[tuple[int, ...], ...]  # see above; APART where the order does not matter
    rivals: tuple[tuple[int, ...], ...]  # of each store: those ever live together with it
    bound: int

    def peak(self, offsets: Sequence[int]) -> int:
        """Highest end."""
        return max((o + top for o, top in zip(offsets, self.tops, strict=True)), default=0)

    def sound(self, offsets: Sequence[int]) -> bool:
        """True when the offsets keep all distances and alignments."""
        return all(
            offset >= 0
            and offset % self.alignments[i] == 0
            and all(
                offset - offsets[j] >= self.apart[i][j] or offsets[j] - offset >= self.apart[j][i]
                for j in self.rivals[i]
            )
            for i, offset in enumerate(offsets)
        )


def stack(stores: Sequence[Store], occ: Occupancy, *, exact: bool = True) -> Stacking:
    """The best layout found. `exact` = False: heuristics only, for a search that asks often."""
    problem = problem_of([store.alignment for store in stores], occ)
    best = heuristic(problem, occ, MAX_REPAIRS if exact else QUICK_REPAIRS)
    bound = problem.bound
    optimal = problem.peak(best) == bound
    if exact and not optimal:
        best, optimal = _Search(problem, occ, best).run()
        if optimal:
            bound = problem.peak(best)
    return Stacking(best, problem.peak(best), bound, optimal)


def problem_of(alignments: Sequence[int], occ: Occupancy) -> Problem:
    """The distances and the bound that follow from who is live when."""
    tops = occ.tops
    apart = occ.distances()
    rivals = tuple(tuple(np.flatnonzero(row != APART).tolist()) for row in apart)
    bound = max(int(occ.live_bytes.max(initial=0)), int(tops.max(initial=0)))
    return Problem(
        tuple(alignments), tuple(tops.tolist()), tuple(map(tuple, apart.tolist())), rivals, bound
    )


def aligned(offset: int, alignment: int) -> int:
    """The next multiple."""
    return -(-offset // alignment) * alignment


def first_fit(problem: Problem, order: Sequence[int]) -> Offsets:
    """Places the stores in `order`, each at the lowest offset that the placed ones leave."""
    offsets = [-1] * len(problem.tops)
    for i in order:
        above = problem.apart[i]
        forbidden = sorted(
            (offsets[j] - problem.apart[j][i], offsets[j] + above[j])
            for j in problem.rivals[i]
            if offsets[j] >= 0
        )
        alignment = problem.alignments[i]
        offset = 0
        for a, b in forbidden:  # both ends are free
            if offset <= a:
                break
            if offset < b:
                offset = aligned(b, alignment)
        offsets[i] = offset
    return tuple(offsets)


def heuristic(problem: Problem, occ: Occupancy, repairs: int) -> Offsets:
    """First fit in several orders, each repaired; the first that meets the bound, or the best."""
    best: Offsets | None = None
    for order in _orders(problem, occ):
        offsets = _repaired(problem, order, repairs)
        if best is None or problem.peak(offsets) < problem.peak(best):
            best = offsets
        if problem.peak(best) == problem.bound:
            break
    return best or ()


def _orders(problem: Problem, occ: Occupancy) -> list[list[int]]:
    n = range(len(problem.tops))
    live = occ.hi > occ.lo
    size = (occ.hi - occ.lo).max(axis=1, initial=0).tolist()
    span = live.sum(axis=1).tolist()
    first = live.argmax(axis=1).tolist() if live.shape[1] else [0 for _ in n]
    total = occ.live_bytes
    worst = (total == total.max(initial=0)) if total.size else total.astype(bool)
    at_worst = (live & worst).any(axis=1).tolist()
    return [
        sorted(n, key=lambda i: (-size[i], first[i])),
        sorted(n, key=lambda i: (not at_worst[i], -size[i], first[i])),
        sorted(n, key=lambda i: (not at_worst[i], -span[i], -size[i])),
        sorted(n, key=lambda i: (-size[i], -first[i])),
        sorted(n, key=lambda i: (-size[i] * span[i], first[i])),
        sorted(n, key=lambda i: (-span[i], -size[i])),
        sorted(n, key=lambda i: (first[i], -size[i])),
    ]


def _repaired(problem: Problem, order: list[int], repairs: int) -> Offsets:
    """First fit in `order`, and in orders that begin with what stood highest before."""
    best = offsets = first_fit(problem, order)
    least = problem.peak(best)
    seen = {tuple(order)}
    for _ in range(repairs):
        height = problem.peak(offsets)
        if height == problem.bound:
            return offsets
        highest = [i for i in order if offsets[i] + problem.tops[i] == height]
        order = [*highest, *(i for i in order if i not in highest)]
        if tuple(order) in seen:
            break
        seen.add(tuple(order))
        offsets = first_fit(problem, order)
        if problem.peak(offsets) < least:
            best, least = offsets, problem.peak(offsets)
    return best


def origins(problem: Problem) -> tuple[int, ...] | None:
    """A shift of every store's origin with which all distances are positive: apart[i][j] +
    shift[i] - shift[j] >= 1. None where there is none: then "above" may go in a circle.

    Bellman-Ford: shift[j] <= shift[i] + apart[i][j] - 1 for all pairs.
    """
    count = len(problem.tops)
    apart = np.array(problem.apart, np.int64).reshape(count, count)
    weight = np.where(apart == APART, 1 << 40, apart - 1)
    shift = np.zeros(count, np.int64)
    for _ in range(count + 1):
        lower = np.minimum(shift, (shift[:, None] + weight).min(axis=0)) if count else shift
        if (lower == shift).all():
            return tuple(shift.tolist())
        shift = lower
    return None


class _Search:
    """Depth-first branch and bound over orders of ascending shifted offsets."""

    def __init__(self, problem: Problem, occ: Occupancy, best: Offsets) -> None:
        self.problem = problem
        self.best = best
        self.best_peak = problem.peak(best)
        self.nodes = 0
        self.shift = origins(problem)
        self.apart = np.array(problem.apart, np.int64)
        self.tops = np.array(problem.tops, np.int64)
        self.alignments = np.array(problem.alignments, np.int64)
        columns = _busiest(occ)
        self.hi: NDArray[np.int64] = occ.hi[:, columns].astype(np.int64)
        self.length: NDArray[np.int64] = self.hi - occ.lo[:, columns]

    def run(self) -> tuple[Offsets, bool]:
        """The best layout, and whether it is proven optimal."""
        if self.shift is None:
            return self.best, False
        count = len(self.tops)
        offsets = np.full(count, -1, np.int64)
        height = np.zeros(self.hi.shape[1], np.int64)
        low = np.zeros(count, np.int64)
        self._descend(offsets, low, height, self.length.sum(axis=0), min(self.shift), 0)
        return self.best, self.best_peak == self.problem.bound or self.nodes <= MAX_NODES

    def _descend(
        self,
        offsets: NDArray[np.int64],
        low: NDArray[np.int64],
        height: NDArray[np.int64],
        waiting: NDArray[np.int64],
        floor: int,
        peak: int,
    ) -> None:
        """offsets: -1 = not placed; low: on top of the placed ones; height, waiting: per time,
        the stack so far and the live bytes to come; floor: least shifted offset from here on.
        """
        self.nodes += 1
        todo = np.flatnonzero(offsets < 0)
        if not todo.size:
            self.best, self.best_peak = tuple(offsets.tolist()), peak
            return
        assert self.shift is not None
        moves = sorted(
            (int(low[i]) + self.shift[i], -int(self.tops[i]), int(i))
            for i in todo
            if low[i] + self.shift[i] >= floor
        )
        # what is not placed at its lowest shifted offset now comes later, and not lower
        for shifted, _, i in moves:
            if self.best_peak == self.problem.bound or self.nodes > MAX_NODES:
                return
            offset = shifted - self.shift[i]
            live = self.length[i] > 0
            new_height = np.where(live, offset + self.hi[i], height)
            new_waiting = waiting - self.length[i]
            new_peak = max(peak, offset + int(self.tops[i]))
            least = max(new_peak, int((new_height + new_waiting).max(initial=0)))
            if least >= self.best_peak:
                continue
            new_low = np.maximum(low, offset + self.apart[:, i])
            new_low = -(-new_low // self.alignments) * self.alignments
            others = todo[todo != i]
            if others.size and int((new_low + self.tops)[others].max()) >= self.best_peak:
                continue
            offsets[i] = offset
            self._descend(offsets, new_low, new_height, new_waiting, shifted, new_peak)
            offsets[i] = -1


def _busiest(occ: Occupancy) -> NDArray[np.int64]:
    """Times that differ in what is live; of equal neighbours one."""
    if not occ.lo.shape[1]:
        return np.zeros(0, np.int64)
    both = np.concatenate([occ.lo, occ.hi])
    _, index = np.unique(both, axis=1, return_index=True)
    times: NDArray[np.int64] = np.sort(index).astype(np.int64)
    return times
