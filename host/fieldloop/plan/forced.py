"""Tilings by decree: every path of the graph that takes so many parts is cut into them.

This is for tests and measurements: whatever the number of parts, the bytes must stay the same. A
plan like that may well need more arena than the untiled one.
"""

from __future__ import annotations

from fieldloop.ir.graph import Graph
from fieldloop.plan.channel_paths import channel_path
from fieldloop.plan.program import CannotTileError
from fieldloop.plan.row_paths import row_path
from fieldloop.plan.tilings import Tiling, TilingKind

LONGEST_HALO = 4  # operators of a path of tiles with halo: each one more computes more twice


def forced_tilings(
    graph: Graph, kind: TilingKind, parts: int, keep: frozenset[str] = frozenset()
) -> tuple[Tiling, ...]:
    """The longest paths from the first operator on, each after the other. `parts`: slices, tiles,
    or (streaming) rows at a time.
    """
    tilings: list[Tiling] = []
    first = 0
    while first < len(graph.ops):
        last = _longest(graph, kind, parts, first, keep)
        if last is None:
            first += 1
            continue
        tilings.append(Tiling(first, last, kind, parts))
        first = last + 1
    return tuple(tilings)


def _longest(
    graph: Graph, kind: TilingKind, parts: int, first: int, keep: frozenset[str]
) -> int | None:
    end = len(graph.ops)
    if kind is TilingKind.FFMT:
        end = min(end, first + LONGEST_HALO)
    for last in range(end - 1, first - 1, -1):
        try:
            if kind is TilingKind.FDT:
                if channel_path(graph, first, last, keep).units >= parts:
                    return last
                continue
            path = row_path(graph, first, last, keep)
        except CannotTileError:
            continue
        if kind is TilingKind.STREAM and path.height > 1:
            return last
        if kind is TilingKind.FFMT and path.height >= parts and len(path.outer) == 1:
            return last
    return None
