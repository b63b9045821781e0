"""Finds the paths of channels in a graph, by asking of every stretch of its order."""

from __future__ import annotations

from fieldloop.ir.graph import Graph
from fieldloop.plan.channel_paths import channel_path
from fieldloop.plan.program import CannotTileError


def channel_paths(
    graph: Graph, critical: int, keep: frozenset[str] = frozenset()
) -> list[tuple[int, int]]:
    """Paths (first, last) that operator `critical` is in, longest first."""
    found = []
    for first in range(critical + 1):
        for last in range(max(first + 1, critical), len(graph.ops)):
            try:
                channel_path(graph, first, last, keep)
                found.append((first, last))
            except CannotTileError:
                pass
    return sorted(found, key=lambda path: (path[0] - path[1], path))
