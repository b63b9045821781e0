"""Buffer layout: offsets such that no two live buffers overlap, as low as they go.

1. The most bytes live at one step bound every layout from below.
2. Greedy: buffers in several orders, each at the lowest gap that fits (first fit); then, a few
   times, the buffers that end at the peak are placed first.
3. If no order meets the bound and there are few buffers: branch and bound. Some optimal layout is
   made by taking the buffers in the order of their offsets and putting each on top of those it
   meets (push all down, sort, repeat: offsets only fall). So only such orders are searched; for a
   step whose stack is at height h with r bytes still to come, max(h, offset reached) + r bounds
   what can come of a branch. The search is cut off by a count, never by a clock: results repeat.
"""

from __future__ import annotations

from collections.abc import Sequence

from fieldloop.plan.lifetimes import lower_bound
from fieldloop.plan.types import Buffer

MAX_EXACT_BUFFERS = 64
MAX_NODES = 20_000
MAX_REPAIRS = 40

Offsets = tuple[int, ...]


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def peak(items: Sequence[Buffer], offsets: Sequence[int]) -> int:
    """Highest end."""
    return max((o + b.bytes for b, o in zip(items, offsets, strict=True)), default=0)


def first_fit(items: Sequence[Buffer], order: Sequence[int]) -> Offsets:
    """Places the buffers in `order`, each at the lowest offset free at all its steps."""
    offsets = [0] * len(items)
    placed: list[int] = []
    for i in order:
        taken = sorted((offsets[j], items[j].bytes) for j in placed if items[j].meets(items[i]))
        offset = 0
        for start, length in taken:
            if start >= _aligned(offset, items[i].alignment) + items[i].bytes:
                break
            offset = max(offset, start + length)
        offsets[i] = _aligned(offset, items[i].alignment)
        placed.append(i)
    return tuple(offsets)


def _orders(items: Sequence[Buffer]) -> list[list[int]]:
    span = [b.last - b.first + 1 for b in items]
    n = range(len(items))
    return [
        sorted(n, key=lambda i: (-items[i].bytes, items[i].first)),
        sorted(n, key=lambda i: (-items[i].bytes, -items[i].first)),
        sorted(n, key=lambda i: (-items[i].bytes * span[i], items[i].first)),
        sorted(n, key=lambda i: (-span[i], -items[i].bytes)),
        sorted(n, key=lambda i: (items[i].first, -items[i].bytes)),
    ]


def _repaired(items: Sequence[Buffer], order: list[int], bound: int) -> Offsets:
    """First fit in `order`, and in orders that begin with what stood highest before."""
    best = offsets = first_fit(items, order)
    for _ in range(MAX_REPAIRS):
        height = peak(items, offsets)
        if height == bound:
            return offsets
        highest = [i for i in order if offsets[i] + items[i].bytes == height]
        order = [*highest, *(i for i in order if i not in highest)]
        offsets = first_fit(items, order)
        if peak(items, offsets) < peak(items, best):
            best = offsets
    return best


def lay_out(items: Sequence[Buffer]) -> Offsets:
    """The best layout found; proven optimal when it meets the bound or the search ended."""
    buffers = tuple(items)
    bound = lower_bound(buffers)
    best = first_fit(buffers, range(len(buffers)))
    for order in _orders(buffers):
        if peak(buffers, best) == bound:
            return best
        best = min(best, _repaired(buffers, order, bound), key=lambda o: peak(buffers, o))
    if peak(buffers, best) > bound and len(buffers) <= MAX_EXACT_BUFFERS:
        best = _Search(buffers, bound, best).run()
    return best


class _Search:
    """Depth-first branch and bound over orders of ascending offsets."""

    def __init__(self, items: tuple[Buffer, ...], bound: int, best: Offsets) -> None:
        self.items = items
        self.bound = bound
        self.best = best
        self.best_peak = peak(items, best)
        self.nodes = 0
        self.steps = sorted({b.first for b in items})  # where sets of live buffers are largest
        self.at = [
            [s for s, step in enumerate(self.steps) if b.first <= step <= b.last] for b in items
        ]

    def run(self) -> Offsets:
        waiting = [
            sum(b.bytes for b in self.items if b.first <= step <= b.last) for step in self.steps
        ]
        self._descend([-1] * len(self.items), [0] * len(self.steps), waiting, 0, 0)
        return self.best

    def _descend(
        self, offsets: list[int], stack: list[int], waiting: list[int], floor: int, height: int
    ) -> None:
        """offsets: -1 = not placed; stack, waiting: per step, height reached and bytes to come."""
        self.nodes += 1
        open_items = [i for i, offset in enumerate(offsets) if offset < 0]
        if not open_items:
            self.best, self.best_peak = tuple(offsets), height
            return
        moves = []
        for i in open_items:
            item = self.items[i]
            offset = _aligned(max(stack[s] for s in self.at[i]), item.alignment)
            if offset >= floor:
                moves.append((offset, -item.bytes, i))
        for offset, _, i in sorted(moves):
            if self.best_peak == self.bound or self.nodes > MAX_NODES:
                return
            item = self.items[i]
            new_stack, new_waiting = stack.copy(), waiting.copy()
            for s in self.at[i]:
                new_stack[s] = offset + item.bytes
                new_waiting[s] -= item.bytes
            least = max(
                max(h, offset) + r if r else h for h, r in zip(new_stack, new_waiting, strict=True)
            )
            if least >= self.best_peak:
                continue
            offsets[i] = offset
            self._descend(
                offsets, new_stack, new_waiting, offset, max(height, offset + item.bytes)
            )
            offsets[i] = -1
