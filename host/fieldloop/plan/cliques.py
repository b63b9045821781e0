"""A bound of the peak from stores of which each two are live together at some time.

Such stores lie in some order, each above the one before: the peak is at least the cheapest path
through all of them, where going up from j to i costs apart[i][j], plus the top of the last. They
need not all be live at one time, so this often proves what the most live bytes do not: windows of
rows that are full one after the other, say.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fieldloop.plan.apart import Problem
from fieldloop.plan.occupancy import APART

MAX_MEMBERS = 11  # a path through n takes 2^n n^2
MAX_TRIES = 40


def clique_bound(problem: Problem, enough: int) -> int:
    """No layout whose "above" has no cycles is below it. Stops at `enough`, the peak of a layout.

    Members join by their size as long as the bound grows.
    """
    apart = np.array(problem.apart, np.int64)
    count = len(problem.tops)
    order = sorted(range(count), key=lambda i: (-problem.tops[i], -len(problem.rivals[i]), i))
    best = problem.bound
    tries = 0
    for begin in order[:2]:
        members, reached = [begin], problem.tops[begin]
        for i in order:
            joins = i not in members and all(apart[i, j] != APART for j in members)
            if not joins or len(members) == MAX_MEMBERS or tries == MAX_TRIES:
                continue
            tries += 1
            longer = cheapest_stack(apart, problem.tops, [*members, i])
            if longer > reached:
                members, reached = [*members, i], longer
            if reached >= enough:
                return reached
        best = max(best, reached)
    return best


def cheapest_stack(apart: NDArray[np.int64], tops: Sequence[int], members: Sequence[int]) -> int:
    """The least peak over all orders of the members, from neighbours alone (Held and Karp)."""
    n = len(members)
    rise = apart[np.ix_(members, members)].T  # [below, above]
    never = np.int64(1 << 40)
    least = np.full((1 << n, n), never)  # [set of members, topmost of them]: its offset
    for k in range(n):
        least[1 << k, k] = 0
    masks = np.arange(1 << n)
    for mask in masks[1:]:
        topmost = least[mask]
        reach = (topmost[:, None] + rise).min(axis=0)
        for above in range(n):
            if not mask >> above & 1:
                now = mask | 1 << above
                least[now, above] = min(least[now, above], max(0, reach[above]))
    return int((least[-1] + np.array([tops[i] for i in members], np.int64)).min())
