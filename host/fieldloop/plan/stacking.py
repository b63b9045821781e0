"""Where stores lie: offsets such that no two live hulls meet at any time, as low as they go.

The hulls of two stores move over time (occupancy.py), so what separates them is a distance for
each of the two ways round: `apart[i][j]` is the least offset of i minus offset of j with which i
lies above j at all times. It may be negative: an output that grows while its input shrinks may
begin below the input's first byte. A layout chooses, for each pair that is ever live together,
which one is above.

1. The most live bytes at one time bound every layout from below.
2. First fit in several orders: each store at the lowest offset that no placed store forbids; then,
   a few times, what ends at the peak is placed first; then small changes to the best order.
3. Where that leaves a gap: a better bound from stores that all meet each other (cliques.py).
4. Branch and bound (branching.py): where there is a shift of the stores' origins that makes every
   distance positive, "above" has no cycles, and some optimal layout is made by taking the stores
   in ascending order of shifted offset and putting each on top of the placed ones (push all down,
   sort, repeat: offsets only fall). At a time with stack height h and r live bytes still to come,
   h + r bounds what can come of a branch.
5. What is still open goes to an integer program (milp.py).

Every search is cut off by a count, never by a clock: results repeat on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fieldloop.plan.apart import Offsets, Problem, aligned, problem_of
from fieldloop.plan.branching import branch_and_bound, origins
from fieldloop.plan.cliques import clique_bound
from fieldloop.plan.milp import solve_layout
from fieldloop.plan.occupancy import Occupancy
from fieldloop.plan.program import Store

MAX_REPAIRS, MAX_SHUFFLES = 40, 400
QUICK_REPAIRS, QUICK_SHUFFLES = 4, 40
QUICK_PLACED = 800  # stores that shuffles place, all together


@dataclass(frozen=True, slots=True)
class Stacking:
    """Offset of each store; `peak`: highest byte ever live; `bound`: no layout is below it where
    of each two stores one is always above the other; `optimal`: the two are equal.
    """

    offsets: Offsets
    peak: int
    bound: int
    optimal: bool


def stack(stores: Sequence[Store], occ: Occupancy, *, exact: bool = True) -> Stacking:
    """The best layout found. `exact` = False: heuristics only, for a search that asks often."""
    return arrange(problem_of([store.alignment for store in stores], occ), occ, exact=exact)


def arrange(problem: Problem, occ: Occupancy, *, exact: bool = True) -> Stacking:
    """The same, of a problem."""
    best = heuristic(problem, occ, exact=exact)
    if exact and problem.peak(best) > problem.bound:
        shift = origins(problem)
        proven = False
        if shift is not None:
            problem = replace(problem, bound=clique_bound(problem, problem.peak(best)))
            best, proven = branch_and_bound(problem, occ, shift, best)
        bound = problem.peak(best)
        if not proven:
            best, bound = solve_layout(problem, best)
        problem = replace(problem, bound=bound)
    peak = problem.peak(best)
    return Stacking(best, peak, problem.bound, optimal=peak == problem.bound)


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


def heuristic(problem: Problem, occ: Occupancy, *, exact: bool) -> Offsets:
    """First fit in several orders, each repaired, the best one shuffled; stops at the bound."""
    best: Offsets | None = None
    for order in _orders(problem, occ):
        offsets = _repaired(problem, order, MAX_REPAIRS if exact else QUICK_REPAIRS)
        if best is None or problem.peak(offsets) < problem.peak(best):
            best = offsets
        if problem.peak(best) == problem.bound:
            return best
    quick = min(QUICK_SHUFFLES, QUICK_PLACED // max(1, len(problem.tops)))
    return _shuffled(problem, best or (), MAX_SHUFFLES if exact else quick)


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


def _shuffled(problem: Problem, best: Offsets, tries: int) -> Offsets:
    """First fit in the order of the offsets, with one store after the other moved elsewhere in
    it; a move that is no worse stays. The moves look random, and are the same every time.
    """
    count = len(best)
    draw = random.Random(0).random  # the one method that no version of Python may change
    order = sorted(range(count), key=lambda i: (best[i], i))
    reached = problem.peak(best)
    for _ in range(tries):
        if reached == problem.bound:
            break
        other = order.copy()
        store = other.pop(int(draw() * count))
        other.insert(int(draw() * count), store)
        offsets = first_fit(problem, other)
        height = problem.peak(offsets)
        if height <= reached:
            order = other
            if height < reached:
                best, reached = offsets, height
    return best


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
