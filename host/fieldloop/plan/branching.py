"""Branch and bound over layouts (see stacking.py, 4.)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fieldloop.plan.apart import Offsets, Problem
from fieldloop.plan.occupancy import APART, Occupancy

MAX_NODES = 20_000
MAX_STORES = 128  # of more, the search sees too little
MAX_COLUMNS = 128  # times that bound a branch


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


def branch_and_bound(
    problem: Problem, occ: Occupancy, shift: tuple[int, ...], best: Offsets
) -> tuple[Offsets, bool]:
    """The best layout found, `best` to begin with, and whether it is proven optimal.

    `shift`: as `origins` has it.
    """
    if problem.peak(best) == problem.bound or len(problem.tops) > MAX_STORES:
        return best, problem.peak(best) == problem.bound
    search = _Search(problem, occ, shift, best)
    search.run()
    return search.best, search.ended


class _Search:
    """Depth-first branch and bound over orders of ascending shifted offsets."""

    def __init__(
        self, problem: Problem, occ: Occupancy, shift: tuple[int, ...], best: Offsets
    ) -> None:
        self.problem = problem
        self.best = best
        self.best_peak = problem.peak(best)
        self.nodes = 0
        self.shift = shift
        self.apart = np.array(problem.apart, np.int64)
        self.tops = np.array(problem.tops, np.int64)
        self.alignments = np.array(problem.alignments, np.int64)
        columns = _busiest(occ)
        self.hi: NDArray[np.int64] = occ.hi[:, columns].astype(np.int64)
        self.length: NDArray[np.int64] = self.hi - occ.lo[:, columns]

    @property
    def ended(self) -> bool:
        """True when nothing better was left out."""
        return self.best_peak == self.problem.bound or self.nodes <= MAX_NODES

    def run(self) -> None:
        count = len(self.tops)
        offsets = np.full(count, -1, np.int64)
        height = np.zeros(self.hi.shape[1], np.int64)
        low = np.zeros(count, np.int64)
        self._descend(offsets, low, height, self.length.sum(axis=0), min(self.shift), 0)

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
    """The times that bound branches: of each set of stores that are live together the one with
    the most bytes, of those the MAX_COLUMNS with the most.
    """
    total = occ.live_bytes
    order = np.argsort(-total, kind="stable")
    sets = np.packbits((occ.hi > occ.lo)[:, order], axis=0)
    _, index = np.unique(sets, axis=1, return_index=True)
    times: NDArray[np.int64] = order[np.sort(index)[:MAX_COLUMNS]]
    return times
