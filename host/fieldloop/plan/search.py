"""The search: which operators are tiled how, so that the whole graph needs the least arena.

Every stretch of the graph's order is computed in one of several ways (candidates.py), each with an
estimate of the bytes that live while it runs. The arena is about the largest of them, so the best
division of the order is a bottleneck path: the least ceiling under which the order can be covered
within the budget of multiply-accumulates, and under that ceiling the division with the least
overhead. What is promising is built and laid out; only the real arena counts. In the end every
tiling gets the widest slices, and the most rows at a time, that this arena allows.

Nothing here looks at a clock: the result is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
from fieldloop.plan.candidates import Candidate, Candidates
from fieldloop.plan.channels import channel_parts
from fieldloop.plan.program import CannotTileError
from fieldloop.plan.row_paths import row_path
from fieldloop.plan.tilings import Draft, Tiling, TilingKind, draft

MODES: dict[str, frozenset[TilingKind]] = {
    "none": frozenset(),
    "fdt": frozenset({TilingKind.FDT}),
    "ffmt": frozenset({TilingKind.FFMT}),
    "auto": frozenset({TilingKind.FDT, TilingKind.STREAM, TilingKind.IN_PLACE}),
}
CEILINGS = 12  # above the least one that are tried
LOOKS = 64  # of the ceilings up to twice the least one
STARTS = 5  # of the divisions are improved
ROUNDS = 6  # of small changes
WORK = 250_000  # moves that are written before no more changes are tried
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Goal:
    """`mac_limit`: multiply-accumulates, as a multiple of the graph's; None: as the mode has it
    (any number for FFMT, which can do nothing without, else 1).
    """

    mode: str = "auto"
    mac_limit: float | None = None
    keep: frozenset[str] = frozenset()
    scratch: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"tiling: expected one of {', '.join(MODES)}, got {self.mode!r}")
        if self.mac_limit is not None and not 1.0 <= self.mac_limit < float("inf"):
            raise UsageError(
                f"mac_limit: expected a factor of 1 or more, got {self.mac_limit}: a plan may use "
                "that many times the multiply-accumulates of the untiled model"
            )
        if self.mac_limit is not None and self.mode == "none":
            raise UsageError("mac_limit: it is for tiled plans; choose a tiling, ffmt or auto")

    @property
    def kinds(self) -> frozenset[TilingKind]:
        kinds = MODES[self.mode]
        if self.mode == "auto" and self.mac_limit is not None and self.mac_limit > 1.0:
            kinds |= {TilingKind.FFMT}
        return kinds

    def budget(self, graph: Graph) -> int | None:
        """Multiply-accumulates that may be added; None: any number."""
        if self.mac_limit is None:
            return None if self.mode == "ffmt" else 0
        work = graph.macs()
        return int(work * self.mac_limit) - work


def best_draft(graph: Graph, goal: Goal, progress: Progress | None = None) -> Draft:
    """The draft of least arena; of equal ones the one with the least overhead. Without tilings
    where none is better. Never worse than a mode, or a limit, that allows less.
    """
    goals = [goal]
    if goal.mode == "auto":
        goals.append(replace(goal, mode="fdt", mac_limit=None))
        if TilingKind.FFMT in goal.kinds:
            goals.append(replace(goal, mac_limit=None))
    return min(
        (Search(graph, each, progress).run() for each in goals), key=lambda made: made.merit
    )


class Search:
    """One search. `built`: every draft it laid out, None where the tilings cannot be had."""

    def __init__(self, graph: Graph, goal: Goal, progress: Progress | None) -> None:
        self.graph = graph
        self.goal = goal
        self.progress = progress
        self.work = 0  # moves of all drafts
        self.built: dict[tuple[Tiling, ...], Draft | None] = {}
        plain = self.build(())
        assert plain is not None
        self.plain = plain

    def build(self, tilings: Sequence[Tiling], *, exact: bool = False) -> Draft | None:
        """The draft, laid out quickly; None where the tilings cannot be had."""
        key = tuple(sorted(tilings))
        if exact or key not in self.built:
            try:
                made: Draft | None = draft(
                    self.graph,
                    key,
                    keep=self.goal.keep,
                    scratch=self.goal.scratch,
                    exact=exact,
                )
            except CannotTileError:
                made = None
            if made is not None:
                self.work += len(made.program.moves)
                if not self._affords(made):
                    made = None
            if exact:
                return made
            self.built[key] = made
        return self.built[key]

    def run(self) -> Draft:
        best = self.plain
        if self.goal.kinds:
            found = self.divisions()
            for number, tilings in enumerate(found):
                if self.progress is not None:
                    self.progress("plan", number, len(found) + STARTS)
                self.build(tilings)
            starts = sorted(
                (d for d in self.built.values() if d is not None), key=lambda made: made.merit
            )
            for number, start in enumerate(starts[:STARTS]):
                if self.progress is not None:
                    self.progress("plan", len(found) + number, len(found) + STARTS)
                improved = self.improved(start)
                best = min(best, improved, key=lambda made: made.merit)
        exact = self.build(best.tilings, exact=True)
        return exact if exact is not None and exact.peak <= best.peak else best

    def improved(self, best: Draft) -> Draft:
        """Small changes to the tilings, as long as one of them is better."""
        for _ in range(ROUNDS):
            before = best
            for tiling in before.tilings:
                for changed in self._near(tiling, best.tilings):
                    if tiling not in best.tilings or self.work > WORK:
                        break
                    others = [
                        t
                        for t in best.tilings
                        if t != tiling
                        and all(t.last < c.first or c.last < t.first for c in changed)
                    ]
                    made = self.build([*others, *changed])
                    if made is not None and made.merit < best.merit:
                        best = made
            if best is before:
                break
        return best

    def _near(self, tiling: Tiling, all_: Sequence[Tiling]) -> list[tuple[Tiling, ...]]:
        """What may stand in the place of a tiling, and of what it then meets."""
        near: list[tuple[Tiling, ...]] = [()]
        near += [(tiling.with_amount(n),) for n in self._others(tiling)]
        if tiling.kind is not TilingKind.STREAM:
            return near
        first, last = tiling.first, tiling.last
        after = next((t for t in sorted(all_) if t.first > last), None)
        if after is not None:
            near.append((replace(tiling, last=after.last),))
        if first > 0:
            near.append((replace(tiling, first=first - 1),))
        if last + 1 < len(self.graph.ops):
            near.append((replace(tiling, last=last + 1),))
        for cut in range(first, last):
            left, right = replace(tiling, last=cut), replace(tiling, first=cut + 1)
            near += [(left,), (right,), (left, right)]
            if cut + 1 < last:
                near.append((left, replace(tiling, first=cut + 2)))
        return near

    def divisions(self) -> list[tuple[Tiling, ...]]:
        """Divisions of the order under the least ceilings, by both estimates."""
        found: dict[tuple[Tiling, ...], None] = {}
        every = Candidates(self.graph, self.goal.kinds, self.goal.keep).all
        for candidates in (every, [replace(c, ram=c.safe) for c in every]):
            for tilings in self._under_ceilings(candidates):
                found.setdefault(tuple(_sharpest(tiling) for tiling in tilings))
                found.setdefault(tilings)
        return list(found)

    def _under_ceilings(self, candidates: Sequence[Candidate]) -> list[tuple[Tiling, ...]]:
        by_last: list[list[Candidate]] = [[] for _ in self.graph.ops]
        for candidate in candidates:
            by_last[candidate.last].append(candidate)
        ceilings = sorted({c.ram for c in candidates})
        budget = self.goal.budget(self.graph)
        low, high = 0, len(ceilings) - 1
        while low < high:  # the least ceiling that can be had
            middle = (low + high) // 2
            if _cover(by_last, ceilings[middle], budget) is None:
                low = middle + 1
            else:
                high = middle
        found: dict[tuple[Tiling, ...], None] = {}
        near = [c for c in ceilings[low:] if c <= 2 * ceilings[low]]
        for ceiling in near[:: -(-len(near) // LOOKS)]:
            cover = _cover(by_last, ceiling, budget)
            if cover is not None:
                found.setdefault(tuple(c.tiling for c in cover if c.tiling is not None))
            if len(found) > CEILINGS:
                break
        return list(found)

    def _affords(self, made: Draft) -> bool:
        budget = self.goal.budget(self.graph)
        return budget is None or made.macs - self.graph.macs() <= budget

    def _others(self, tiling: Tiling) -> list[int]:
        """Other amounts of a tiling, the one with the least overhead first."""
        if tiling.kind is TilingKind.IN_PLACE:
            return []
        if tiling.kind is TilingKind.FDT:
            parts = channel_parts(self.graph, tiling.first, tiling.last)
            return [n for n in parts if n != tiling.amount]
        if tiling.kind is TilingKind.FFMT:
            return list(range(2, tiling.amount))
        path = row_path(self.graph, tiling.first, tiling.last, self.goal.keep)
        return [n for n in reversed(ROWS) if n != tiling.amount and n < max(2, path.height)]


def _sharpest(tiling: Tiling) -> Tiling:
    """One row at a time: the least arena, if not the least overhead."""
    return tiling.with_amount(1) if tiling.kind is TilingKind.STREAM else tiling


def _cover(
    by_last: Sequence[Sequence[Candidate]], ceiling: int, budget: int | None
) -> list[Candidate] | None:
    """The cheapest candidates that cover the order in turn, none above the ceiling; None where
    there are none within the budget.
    """
    found = _cheapest(by_last, ceiling, 0)
    if found is None or budget is None or _more_macs(found) <= budget:
        return found
    weight = 1
    while weight < 1 << 40:  # the more a multiply-accumulate counts, the fewer are added
        found = _cheapest(by_last, ceiling, weight)
        if found is not None and _more_macs(found) <= budget:
            return found
        weight *= 4
    return None


def _more_macs(cover: Sequence[Candidate]) -> int:
    return sum(candidate.more_macs for candidate in cover)


def _cheapest(
    by_last: Sequence[Sequence[Candidate]], ceiling: int, weight: int
) -> list[Candidate] | None:
    """The cover of least cost, `weight` for each multiply-accumulate that is added."""
    best: list[tuple[int, Candidate | None] | None] = [(0, None)]
    for ends in by_last:
        least: tuple[int, Candidate | None] | None = None
        for candidate in ends:
            before = best[candidate.first]
            if candidate.ram > ceiling or before is None:
                continue
            cost = before[0] + candidate.cost + weight * max(0, candidate.more_macs)
            if least is None or cost < least[0]:
                least = (cost, candidate)
        best.append(least)
    cover: list[Candidate] = []
    at = len(by_last)
    while at > 0:
        entry = best[at]
        if entry is None or entry[1] is None:
            return None
        cover.append(entry[1])
        at = entry[1].first
    return cover[::-1]
