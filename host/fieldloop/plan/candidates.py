"""What may be done with every stretch of a graph's order, and what it is worth, by estimate."""

from __future__ import annotations

from dataclasses import dataclass

from fieldloop.ir.graph import Graph
from fieldloop.plan.channel_paths import channel_path, outside
from fieldloop.plan.channels import channel_parts, channel_ram
from fieldloop.plan.costs import COPIED_BYTE, STEP, tile_cost
from fieldloop.plan.parts import MOST_PARTS, part_numbers
from fieldloop.plan.program import CannotTileError, activations, lives, root_of
from fieldloop.plan.row_paths import RowPath, row_path
from fieldloop.plan.row_tables import live_bytes, row_table
from fieldloop.plan.rows import tile_macs
from fieldloop.plan.tilings import Tiling, TilingKind, can_be_in_place

ROWS = (1, 2, 4, 8)  # at a time, of row streaming; the search widens further what it takes


@dataclass(frozen=True, slots=True)
class Candidate:
    """Operators first..last computed in one way; `tiling` None: one operator, as it is.

    `ram`: about the bytes live while it runs; `safe`: the same where stores meet less well (see
    live_bytes). `more_macs`: beyond those of the graph. `cost`: see costs.py.
    """

    first: int
    last: int
    tiling: Tiling | None
    ram: int
    safe: int
    more_macs: int
    cost: int


class Candidates:
    """All of a graph, by kind."""

    def __init__(
        self,
        graph: Graph,
        kinds: frozenset[TilingKind],
        keep: frozenset[str] = frozenset(),
    ) -> None:
        self.graph = graph
        self.keep = keep
        self.life = lives(graph, keep)
        self.all: list[Candidate] = []
        for index in range(len(graph.ops)):
            self._one(index, kinds)
        for first in range(len(graph.ops)):
            for last in range(first, len(graph.ops)):
                if kinds & {TilingKind.STREAM, TilingKind.FFMT}:
                    self._rows(first, last, kinds)
                if TilingKind.FDT in kinds and last > first:
                    self._channels(first, last)

    def through(self, first: int, last: int, counted: tuple[str, ...] = ()) -> int:
        """Bytes that live before operators first..last and behind them."""
        return sum(
            life.bytes
            for root, life in self.life.items()
            if life.first < first and life.last > last and root not in counted
        )

    def _one(self, index: int, kinds: frozenset[TilingKind]) -> None:
        op = self.graph.ops[index]
        roots = {root_of(self.graph, name) for name in (*activations(self.graph, op), op.output)}
        used = sum(self.life[root].bytes for root in roots)
        ram = used + self.through(index, index, tuple(roots))
        self.all.append(Candidate(index, index, None, ram, ram, 0, 0))
        if TilingKind.IN_PLACE in kinds and can_be_in_place(self.graph, index, self.keep):
            less = self.life[root_of(self.graph, op.inputs[0])].bytes
            tiling = Tiling(index, index, TilingKind.IN_PLACE)
            self.all.append(Candidate(index, index, tiling, ram - less, ram - less, 0, 1))

    def _gone(self, given: tuple[str, ...], last: int) -> frozenset[str]:
        return frozenset(root for root in given if self.life[root].last <= last)

    def _rows(self, first: int, last: int, kinds: frozenset[TilingKind]) -> None:
        try:
            path = row_path(self.graph, first, last, self.keep)
        except CannotTileError:
            return
        if TilingKind.STREAM in kinds:
            for rows in ROWS:
                if rows == 1 or rows < path.height:
                    self.all.append(self._stream(path, rows))
        if TilingKind.FFMT in kinds and len(path.outer) == 1:
            for parts in _counts(path.height):
                self.all.append(self._halo(path, parts))

    def _stream(self, path: RowPath, rows: int) -> Candidate:
        """A path of rows, `rows` at a time."""
        table = row_table(path, rows, cached=True)
        ram, safe = live_bytes(table, self._gone(path.given, path.last))
        cost = 0
        for stage in path.stages:
            pixels = stage.out.width * min(rows, stage.height)
            each = tile_cost(self.graph, stage.op, pixels, stage.out.channels)
            cost += each * -(-stage.height // rows)
        for root in path.inner:
            if root not in path.shared:
                height = int(table.end[root][-1])
                _, kept = table.window(root)
                if kept:
                    size = self.life[root].bytes // max(1, height)
                    cost += -(-height // rows) * (STEP + COPIED_BYTE * kept * size)
        through = self.through(path.first, path.last, path.given)
        return Candidate(
            path.first,
            path.last,
            Tiling(path.first, path.last, TilingKind.STREAM, rows),
            ram + through,
            safe + through,
            min(0, table.macs - sum(s.macs for s in path.stages)),
            cost,
        )

    def _halo(self, path: RowPath, parts: int) -> Candidate:
        table = row_table(path, -(-path.height // parts), cached=False)
        ram, safe = live_bytes(table, self._gone(path.given, path.last))
        through = self.through(path.first, path.last, path.given)
        return Candidate(
            path.first,
            path.last,
            Tiling(path.first, path.last, TilingKind.FFMT, parts),
            ram + through,
            safe + through,
            tile_macs(path, parts) - sum(s.macs for s in path.stages),
            parts * sum(tile_cost(self.graph, s.op, 0, s.out.channels) for s in path.stages),
        )

    def _channels(self, first: int, last: int) -> None:
        try:
            path = channel_path(self.graph, first, last, self.keep)
            given = tuple(name for s in path.stages for name in outside(self.graph, s))
            through = self.through(first, last, given)
            for parts in channel_parts(self.graph, first, last):
                ram = channel_ram(self.graph, first, last, parts) + through
                tiling = Tiling(first, last, TilingKind.FDT, parts)
                cost = 0
                for stage in path.stages:
                    pixels = stage.y_rows * stage.y.width
                    channels = -(-stage.y.channels // parts)
                    op = self.graph.ops[stage.index]
                    cost += parts * tile_cost(self.graph, op, pixels, channels)
                self.all.append(Candidate(first, last, tiling, ram, ram, 0, cost))
        except CannotTileError:
            return


def _counts(height: int) -> list[int]:
    """Numbers of tiles worth trying, single rows among them."""
    return part_numbers(height) + [height] * (height > MOST_PARTS)
