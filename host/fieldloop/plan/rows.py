"""Tiling by rows: the moves of a path (row_paths.py), with a cache of rows or with a halo.

With a cache, rows are pulled: before an operator makes its next rows, those before it make what
these read. A window holds the rows of one tensor that somebody still reads; before new rows come,
what is left moves to its front. Without a cache, tile after tile makes all it needs by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from fieldloop.ir.op import BINARY, OpKind
from fieldloop.plan.parts import shares
from fieldloop.plan.program import Box, Builder, CannotTileError, Move, Piece
from fieldloop.plan.row_paths import RowPath, Stage
from fieldloop.plan.types import StepKind


def emit_stream(builder: Builder, path: RowPath, rows: int) -> int:
    """Row streaming: every operator makes at most `rows` rows at a time, each row once, and none
    that nobody reads. Returns the multiply-accumulates.
    """
    writer = _Writer(builder, path)
    last = path.stages[-1]
    made = dict.fromkeys(writer.maker, 0)
    readers = {root: [s for s in path.stages if root in s.reads] for root in writer.maker}
    summed = 0  # rows that the last operator has taken in

    def next_read(root: str) -> int:
        """The first row that a reader's next rows read."""
        firsts = []
        for stage in readers[root]:
            at = summed if stage.sums else made[stage.makes]
            firsts.append(at if stage.sums else int(stage.firsts[at]))
        return min(firsts, default=2**31)

    def pull(root: str, end: int) -> None:
        stage = writer.maker[root]
        while made[root] < end:
            a = made[root]
            b = min(end, a + rows)
            fetch(stage, b)
            writer.make_room(root, min(next_read(writer.owner(root)), made[writer.owner(root)]))
            writer.tile(stage, a, b)
            made[root] = b

    def fetch(stage: Stage, behind: int) -> None:
        for root in stage.reads:
            if root in writer.maker:
                pull(root, behind if stage.sums else int(stage.ends[behind]))

    if last.sums:
        while summed < last.inp.rows:
            b = min(last.inp.rows, summed + rows)
            fetch(last, b)
            writer.sum(last, summed, b)
            summed = b
    else:
        pull(last.makes, last.out.rows)
    for root in path.outer:  # what others read to its end
        if not (last.sums and root == last.makes):
            pull(root, writer.maker[root].out.rows)
    return writer.finish()


def emit_tiles(builder: Builder, path: RowPath, parts: int) -> int:
    """FFMT: `parts` tiles of the last operator's rows, each computed with its halo. Returns the
    multiply-accumulates.
    """
    if parts > path.height:
        name = path.stages[-1].op.name
        raise CannotTileError(f"{name} has {path.height} rows for {parts} tiles")
    if len(path.outer) > 1:
        raise CannotTileError(f"{path.outer[0]} is needed by others too")
    writer = _Writer(builder, path)
    for stage, a, b in _tile_rows(path, parts):
        if stage.sums:
            writer.sum(stage, a, b)
        elif a < b:
            writer.refill(stage.makes, a)
            writer.tile(stage, a, b)
    return writer.finish()


def _tile_rows(path: RowPath, parts: int) -> Iterator[tuple[Stage, int, int]]:
    """Tile after tile, the rows [a, b) that every operator makes for it, in order."""
    for first, count in shares(path.height, parts):
        yield from _one_tile(path, first, first + count)


def _one_tile(path: RowPath, row: int, end: int) -> list[tuple[Stage, int, int]]:
    wanted = {path.stages[-1].makes: (row, end)}
    found = []
    for stage in reversed(path.stages):
        a, b = wanted[stage.makes]
        found.append((stage, a, b))
        if not stage.sums:
            a, b = int(stage.firsts[a]), int(stage.ends[b])
        for root in stage.reads:
            before = wanted.get(root, (a, b))
            wanted[root] = (min(a, before[0]), max(b, before[1]))
    return found[::-1]


def tile_macs(path: RowPath, parts: int) -> int:
    """Multiply-accumulates of `parts` tiles."""
    return sum(stage.macs_of(max(0, b - a)) for stage, a, b in _tile_rows(path, parts))


class _Writer:
    """Windows, whole tensors and accumulators of a path, and the moves between them."""

    def __init__(self, builder: Builder, path: RowPath) -> None:
        self.builder = builder
        self.path = path
        self.macs = 0  # of the moves so far
        self.maker = {s.makes: s for s in path.stages if not s.sums}
        self.reader = {root: s for s in reversed(path.stages) for root in s.reads}
        self.whole: dict[str, Piece] = {}
        for root in path.given:
            self.whole[root] = builder.whole(root)
        self.window: dict[str, int] = {}  # of inner roots that have one: the store
        self.base: dict[str, int] = {}  # the row at its front
        self.filled: dict[str, int] = {}  # behind the last row in it
        for root in path.inner:
            if self.owner(root) == root:
                tensor = builder.tensor(root)
                self.window[root] = builder.new(f"{root} (rows)", 0, tensor.dtype.bytes)
                self.base[root] = self.filled[root] = 0
        for root in path.outer:
            if root in self.maker:
                self.whole[root] = builder.whole(root)
        self.sums: Piece | None = None
        if path.sums:
            out = path.stages[-1].out
            store = builder.new(f"{path.stages[-1].makes} (sums)", 4 * out.channels, 4)
            self.sums = Piece(store, 0, 1, out.channels, out.channels, 4)

    def owner(self, root: str) -> str:
        """The root in whose rows a root lives."""
        while root in self.path.shared:
            root = self.path.shared[root]
        return root

    def make_room(self, root: str, first: int) -> None:
        """Nobody reads rows of the window before `first`: the others move to its front."""
        root = self.owner(root)
        if root not in self.window:
            return
        base, filled = self.base[root], self.filled[root]
        if first <= base:
            return
        if first < filled:
            x = self._rows(root, first, filled)
            y = Piece(x.store, 0, x.pixels, x.step, x.channels, x.size)
            self.builder.add(Move(StepKind.COPY, self.reader[root].index, x=x, y=y))
        self.base[root] = first

    def refill(self, root: str, first: int) -> None:
        """The window begins anew with row `first`."""
        root = self.owner(root)
        if root in self.window:
            self.base[root] = self.filled[root] = first

    def _rows(self, root: str, a: int, b: int, stage: Stage | None = None) -> Piece:
        """Rows [a, b) of a root; `stage`: as its reader sees them, for what comes from outside."""
        tensor = self.builder.tensor(root)
        size = tensor.dtype.bytes
        seen = self.maker[root].out if stage is None or root in self.maker else stage.inp
        at = self.owner(root)
        if at in self.whole:
            whole = self.whole[at]
            store, offset = whole.store, whole.offset + a * seen.row_elements * size
        else:
            store, offset = self.window[at], (a - self.base[at]) * seen.row_elements * size
        piece = Piece(store, offset, (b - a) * seen.width, seen.channels, seen.channels, size)
        if at not in self.whole:
            self.builder.stores[store].bytes = max(self.builder.stores[store].bytes, piece.end)
        return piece

    def tile(self, stage: Stage, a: int, b: int) -> None:
        """Rows [a, b) of an operator's output."""
        self.macs += stage.macs_of(b - a)
        first, end = int(stage.firsts[a]), int(stage.ends[b])
        at = self.owner(stage.makes)
        if at in self.window:
            self.filled[at] = max(self.filled[at], b)
        z = None
        if stage.op.kind in BINARY:
            z = self._rows(stage.reads[1], first, end, stage)
        embeds = stage.op.kind is OpKind.EMBEDDING
        self.builder.add(
            Move(
                StepKind.TILE,
                stage.index,
                out=Box(a, b - a, 0, stage.out.channels),
                inp=Box(first, end - first, 0, 1 if embeds else stage.inp.channels),
                x=self._rows(stage.reads[0], first, end, stage),
                y=self._rows(stage.makes, a, b),
                z=z,
                map_hw=(1, 1) if stage.op.kind is OpKind.FULLY_CONNECTED else (0, 0),
                turned=self.path.turned and not embeds,
            )
        )

    def sum(self, stage: Stage, a: int, b: int) -> None:
        """Takes rows [a, b) of its input into an operator's accumulators."""
        assert self.sums is not None
        self.macs += stage.macs_of(b - a)
        last = b == stage.inp.rows
        z = None
        if last:
            size = self.builder.tensor(stage.makes).dtype.bytes
            z = Piece(self.sums.store, 0, 1, stage.out.channels, stage.out.channels, size)
        flat = stage.op.kind is OpKind.FULLY_CONNECTED
        self.builder.add(
            Move(
                StepKind.TILE,
                stage.index,
                out=Box(0, 1, 0, stage.out.channels),
                inp=Box(a, b - a, 0, stage.inp.channels),
                x=self._rows(stage.reads[0], a, b, stage),
                y=self.sums,
                z=z,
                map_hw=(stage.inp.rows, stage.inp.width) if flat else (0, 0),
                partial=True,
                first=a == 0,
                last=last,
                turned=self.path.turned and not flat,
            )
        )

    def finish(self) -> int:
        """Places of what the path leaves behind under other names; the multiply-accumulates."""
        builder = self.builder
        if self.sums is not None:
            builder.alias(self.path.stages[-1].makes, self.sums)
        for op in builder.graph.ops[self.path.first : self.path.last + 1]:
            if op.kind is OpKind.RESHAPE and op.inputs[0] in builder.places:
                builder.alias(op.output, builder.places[op.inputs[0]])
        return self.macs
