"""RAM against work: the drafts of the searches that nobody else beats in everything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fieldloop.ir.graph import Graph
from fieldloop.plan.search import Goal, Progress, Search
from fieldloop.plan.tilings import Draft, Tiling


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One way to compute a graph. `macs`: of one run; `added`: about the instructions of a
    Cortex-M4 that its steps and windows cost beside them; `steps`: without loops.
    """

    ram_bytes: int
    macs: int
    added: int
    steps: int
    draft: Draft

    @property
    def tilings(self) -> tuple[Tiling, ...]:
        return self.draft.tilings


def pareto(
    graph: Graph,
    *,
    modes: Iterable[str] = ("fdt", "ffmt", "auto"),
    mac_limit: float | None = None,
    progress: Progress | None = None,
) -> list[Point]:
    """The front, the least RAM first; the last point is the untiled plan or better.

    The points are what the searches met on their way: other fronts may be further out.
    """
    points: list[Point] = []
    for mode in modes:
        limit = mac_limit if mode == "ffmt" else None
        search = Search(graph, Goal(mode, limit), progress)
        search.run()
        for made in search.built.values():
            if made is not None:
                points.append(
                    Point(made.peak, made.macs, made.overhead, len(made.program.moves), made)
                )
    return _front(points)


def _front(points: list[Point]) -> list[Point]:
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.ram_bytes, p.macs, p.added)):
        if not any(p.macs <= point.macs and p.added <= point.added for p in front):
            front.append(point)
    return front
