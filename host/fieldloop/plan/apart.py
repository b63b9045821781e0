"""A layout problem: how far apart stores lie that are live together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fieldloop.plan.occupancy import APART, Ints, Occupancy

Offsets = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """A layout problem: stores by number, all sizes in bytes."""

    alignments: tuple[int, ...]
    tops: tuple[int, ...]  # highest end ever live, from the store's start
    apart: tuple[
        tuple[int, ...], ...
    ]  # Occupancy.distances; APART where the order does not matter
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


def problem_of(alignments: Sequence[int], occ: Occupancy) -> Problem:
    """The distances and the bound that follow from who is live when."""
    tops = occ.tops
    apart = _between_multiples(occ.distances(), alignments)
    rivals = tuple(tuple(np.flatnonzero(row != APART).tolist()) for row in apart)
    bound = max(int(occ.live_bytes.max(initial=0)), int(tops.max(initial=0)))
    return Problem(
        tuple(alignments), tuple(tops.tolist()), tuple(map(tuple, apart.tolist())), rivals, bound
    )


def aligned(offset: int, alignment: int) -> int:
    """The next multiple."""
    return -(-offset // alignment) * alignment


def _between_multiples(apart: Ints, alignments: Sequence[int]) -> Ints:
    """Distances that offsets can have: multiples of what two alignments have in common."""
    sizes = np.array(alignments, np.int32)
    common = np.gcd.outer(sizes, sizes)
    rounded: Ints = np.where(apart == APART, APART, -(-apart // common) * common)
    return rounded
