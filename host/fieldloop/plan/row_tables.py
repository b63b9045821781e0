"""What a path of rows costs, worked out on arrays alone: rows made, MACs, about the bytes at once.

The search asks this of thousands of paths; rows.py writes the moves of the few it takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fieldloop.plan.row_paths import RowPath, Rows, Stage


@dataclass(frozen=True, slots=True)
class RowTable:
    """Rows [start, end) of every root made in the path that are there, or made, for iteration i.

    `rows`: of the last operator's output (its input, where it sums), an iteration. `needed`: of
    every root that is read, the first row that iteration i or a later one reads.
    """

    path: RowPath
    rows: int
    cached: bool
    start: dict[str, Rows]
    end: dict[str, Rows]
    needed: dict[str, Rows]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the path."""
        total = 0
        for stage in self.path.stages:
            if stage.sums:
                total += stage.macs
            else:
                total += stage.macs_of(
                    int((self.end[stage.makes] - self.start[stage.makes]).sum())
                )
        return total

    def window(self, root: str) -> tuple[int, int]:
        """Rows that the window of an inner root has room for, and how many of them it keeps
        from one iteration to the next.
        """
        start, end = self.start[root], self.end[root]
        if not self.cached:
            return max(1, int((end - start).max())), 0
        kept = int(np.maximum(0, end[:-1] - self.needed[root][1:]).max(initial=0))
        most = kept + min(self.rows, int(end[-1]))
        for stage in self.path.stages:
            if root in stage.reads:
                most = max(most, _read_at_once(stage, self.rows))
        return min(most, int(end[-1])), kept


def _read_at_once(stage: Stage, rows: int) -> int:
    """Input rows behind `rows` rows of output (of input, of an operator that sums)."""
    if stage.window is None:
        return rows
    return (rows - 1) * stage.window.stride[0] + stage.window.extent[0]


def row_table(path: RowPath, rows: int, *, cached: bool) -> RowTable:
    """`rows`: of the last operator's output (its input, where it sums), an iteration."""
    last = path.stages[-1]
    count = -(-path.height // rows)
    ends = np.minimum(path.height, np.arange(1, count + 1, dtype=np.int64) * rows)
    starts = np.concatenate(([0], ends[:-1]))
    start: dict[str, Rows] = {}
    end: dict[str, Rows] = {}
    needed: dict[str, Rows] = {}
    wanted: dict[str, Rows] = {}  # rows that readers ask for

    def ask(root: str, first: Rows, behind: Rows) -> None:
        if root in wanted:
            wanted[root] = np.maximum(wanted[root], behind)
            needed[root] = np.minimum(needed[root], first)
        else:
            wanted[root], needed[root] = behind, first

    for stage in reversed(path.stages):
        if stage is last:
            a, b = starts, ends
        else:
            b = wanted[stage.makes].copy()
            if stage.makes in path.outer:
                b[-1] = stage.out.rows  # others read it to its end
            if cached:
                b = np.maximum.accumulate(b)
                a = np.concatenate(([0], b[:-1]))
            else:
                a = needed[stage.makes]
        if not stage.sums:
            start[stage.makes], end[stage.makes] = a, b
            first, behind = stage.firsts[a], stage.ends[b]
        else:
            first, behind = a, b
        for root in stage.reads:
            ask(root, first, behind)
    return RowTable(path, rows, cached, start, end, needed)


def live_bytes(table: RowTable, gone: frozenset[str]) -> tuple[int, int]:
    """About the least bytes that the path needs at once, its whole inputs and outputs included.

    `gone`: inputs that nobody reads behind the path. Estimates to choose by, the layout decides:
    the second is for an output larger than the input that leaves. It may grow below that only if
    the input lies high, which what comes before may not allow.
    """
    path = table.path
    tensors = path.graph.tensors
    held = 0
    passing: dict[str, int] = {}  # windows that hold nothing from one iteration to the next
    for root in path.inner:
        if root in path.shared:
            continue
        rows, kept = table.window(root)
        size = rows * _row_bytes(path, root)
        if kept:
            held += size
        else:
            passing[root] = size
    most = 0
    for stage in path.stages:
        roots = {path.shared.get(r, r) for r in (*stage.reads, stage.makes)}
        most = max(most, sum(passing.get(root, 0) for root in roots))
    held += most
    if path.sums:
        held += 4 * tensors[path.stages[-1].makes].size
    ends = [name for name in path.outer if not (path.sums and name == path.stages[-1].makes)]
    held += sum(tensors[name].bytes for name in ends[:-1])
    stays = [name for name in path.given if name not in gone]
    held += sum(tensors[name].bytes for name in stays)
    leaving = [name for name in path.given if name in gone]
    out = tensors[ends[-1]].bytes if ends else 0
    if not leaving:
        return held + out, held + out
    held += sum(tensors[name].bytes for name in leaving[1:])
    size = tensors[leaving[0]].bytes
    if not ends:
        return held + size, held + size
    met = held + max(out, size + max(0, _lag(table, leaving[0], ends[-1])))
    return met, (held + out + size if out > size else met)


def _lag(table: RowTable, given: str, made: str) -> int:
    """By how much the output has to lie below the input so that it never overtakes it, bytes."""
    path = table.path
    written = table.end[made] * _row_bytes(path, made)
    left = table.needed[given]
    if len(path.stages) > 1:  # by the time the output is written, this iteration has read
        left = np.concatenate((left[1:], [2**31]))
    return int((written - left * _read_row_bytes(path, given)).max())


def _row_bytes(path: RowPath, root: str) -> int:
    stage = _maker(path, root)
    return stage.out.row_elements * path.graph.tensors[root].dtype.bytes


def _read_row_bytes(path: RowPath, root: str) -> int:
    """Bytes of a row of something from outside, as its first reader sees it."""
    stage = next(s for s in path.stages if root in s.reads)
    return stage.inp.row_elements * path.graph.tensors[root].dtype.bytes


def _maker(path: RowPath, root: str) -> Stage:
    return next(s for s in path.stages if s.makes == root)
