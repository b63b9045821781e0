"""Buffer layout of an untiled plan: offsets such that no two live buffers overlap, as low as
they go. A buffer is a store whose bytes are all live from its first step to its last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fieldloop.plan import stacking
from fieldloop.plan.apart import Offsets, Problem, problem_of
from fieldloop.plan.occupancy import Occupancy
from fieldloop.plan.stacking import Stacking, arrange
from fieldloop.plan.types import Buffer


def peak(items: Sequence[Buffer], offsets: Sequence[int]) -> int:
    """Highest end."""
    return max((o + b.bytes for b, o in zip(items, offsets, strict=True)), default=0)


def first_fit(items: Sequence[Buffer], order: Sequence[int]) -> Offsets:
    """Places the buffers in `order`, each at the lowest offset free at all its steps."""
    return stacking.first_fit(_problem(items)[0], order)


def lay_out(items: Sequence[Buffer]) -> Offsets:
    """The best layout found."""
    return layout_of(items).offsets


def layout_of(items: Sequence[Buffer]) -> Stacking:
    """The best layout found, and what is proven about it."""
    return arrange(*_problem(items))


def _problem(items: Sequence[Buffer]) -> tuple[Problem, Occupancy]:
    """Only steps at which some buffer begins: sets of live buffers are largest there."""
    steps = sorted({item.first for item in items})
    hi = np.zeros((len(items), len(steps)), np.int32)
    for i, item in enumerate(items):
        hi[i, [s for s, step in enumerate(steps) if item.first <= step <= item.last]] = item.bytes
    occ = Occupancy(np.zeros_like(hi), hi)
    return problem_of([item.alignment for item in items], occ), occ
