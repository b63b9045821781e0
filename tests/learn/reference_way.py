"""The way back, in numpy: which operators it passes, and how a delta goes through them.

A delta's words are float32, or int64 holding 16 bits with one power of two for all of them. The
order of every float32 addition is that of the C core: channel by channel, pooled positions
ascending, and within a pool's window row by row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import POOLS, WEIGHTED, Op, OpKind

Array = np.ndarray[Any, Any]
F = np.float32

MAPS = (OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D)


@dataclass(frozen=True)
class Stop:
    """An operator on the way back."""

    op: Op
    number: int  # in the model
    inputs: tuple[str, ...]  # those that get a delta: something trained lies above them
    is_head: bool  # makes the logits
    pool: Op | None = None  # fused: this operator's delta is that of the pool's output
    pool_is_head: bool = False

    @property
    def delta(self) -> str:
        """Name of the tensor whose delta arrives here."""
        return self.pool.output if self.pool else self.op.output


def find_head(graph: Graph) -> Op:
    """The operator that makes the logits: the output, before a softmax and reshapes."""
    op = graph.producer(graph.outputs[0])
    while op is not None and op.kind in (OpKind.SOFTMAX, OpKind.RESHAPE):
        op = graph.producer(op.inputs[0])
    assert op is not None
    return op


def way_back(graph: Graph, head: Op, trained: set[str]) -> list[Stop]:
    """From `head` to the lowest trained operator; a fused pool has no stop of its own."""

    def feeds(op: Op) -> tuple[str, ...]:
        return op.inputs if op.kind is OpKind.ADD else op.inputs[:1]

    leads: set[str] = set()  # tensors that something trained takes part in
    for op in graph.ops:
        if op.name in trained or any(name in leads for name in feeds(op)):
            leads.add(op.output)
    arrives = {head.output}
    walk: list[Op] = []
    numbers = {op.name: i for i, op in enumerate(graph.ops)}
    for op in reversed(graph.ops[: numbers[head.name] + 1]):
        if op.output in arrives and op.output in leads:
            walk.append(op)
            arrives |= {name for name in feeds(op) if name in leads}
    fused: dict[str, Op] = {}
    for pool in walk:
        if pool.kind not in POOLS:
            continue
        assert pool.window is not None
        below = graph.producer(pool.inputs[0])
        apart = all(s >= k for s, k in zip(pool.window.stride, pool.window.kernel, strict=True))
        alone = sum(pool.inputs[0] in feeds(op) for op in walk) == 1
        if below in walk and below is not None and below.kind in MAPS and apart and alone:
            fused[below.name] = pool
    return [
        Stop(
            op,
            numbers[op.name],
            tuple(name for name in feeds(op) if name in leads),
            op is head,
            fused.get(op.name),
            fused.get(op.name) is head,
        )
        for op in walk
        if op not in fused.values()
    ]


class Facts:
    """What a graph says of its operators."""

    graph: Graph

    def quant(self, name: str) -> Any:
        return self.graph.tensors[name].quant

    def rows(self, op: Op) -> int:
        shape = self.graph.tensors[op.inputs[1]].shape
        return shape[3] if op.kind is OpKind.DEPTHWISE_CONV2D else shape[0]

    def by_row(self, op: Op, w: Array) -> Array:
        """[rows, weights of a row]"""
        rows = self.rows(op)
        return w.reshape(-1, rows).T if op.kind is OpKind.DEPTHWISE_CONV2D else w.reshape(rows, -1)

    def scales(self, op: Op) -> Array:
        return np.broadcast_to(np.array(self.quant(op.inputs[1]).scales, F), (self.rows(op),))

    def macs(self, op: Op) -> int:
        if op.kind not in WEIGHTED:
            return 0
        return self.graph.tensors[op.output].size * self.row_size(op)

    def row_size(self, op: Op) -> int:
        return self.graph.tensors[op.inputs[1]].size // self.rows(op)


# ---- windows ----


@functools.cache
def axis_taps(place: int, kernel: int, stride: int, dilation: int, pad: int, size: int) -> Any:
    """Slices (taps, inputs) of one axis: the taps of an output's window that lie on the input."""
    first = place * stride - pad
    taps = [k for k in range(kernel) if 0 <= first + k * dilation < size]
    if not taps:
        return slice(0, 0), slice(0, 0)
    start = first + taps[0] * dilation
    return slice(taps[0], taps[-1] + 1), slice(start, first + taps[-1] * dilation + 1, dilation)


def window_taps(op: Op, y: int, x: int, size: tuple[int, ...]) -> tuple[Any, Any, Any, Any]:
    """(taps, inputs) of the rows, and of the columns."""
    w = op.window
    assert w is not None
    rows = axis_taps(y, w.kernel[0], w.stride[0], w.dilation[0], w.pads[0], size[0])
    columns = axis_taps(x, w.kernel[1], w.stride[1], w.dilation[1], w.pads[2], size[1])
    return (*rows, *columns)


def divided(word: Any, count: int) -> Any:
    """An average's share: float32, or a word rounded, halves away from zero."""
    if isinstance(word, np.floating):
        return word / F(count)
    magnitude = (2 * abs(int(word)) + count) // (2 * count)
    return magnitude if word >= 0 else -magnitude


# ---- spots: outputs of one channel, each with its delta ----


@dataclass(frozen=True)
class Spot:
    y: int
    x: int
    value: Any


def clamp_passes(op: Op, q: Array) -> Array:
    """Where the clamp folded into `op` lets a delta through."""
    low, high = op.fixed.act_min, op.fixed.act_max  # type: ignore[union-attr]
    return (low < q.astype(int)) & (q.astype(int) < high)


def has_clamp(pool: Op) -> bool:
    return (pool.fixed.act_min, pool.fixed.act_max) != (-128, 127)  # type: ignore[union-attr]


def is_masked(op: Op) -> bool:
    return has_clamp(op) if op.kind in POOLS else op.kind is not OpKind.RESHAPE


def masked(stop: Stop, words: Array, saved: dict[str, Array]) -> Array:
    """The delta after the clamps of the operator, and of the pool that is fused into it."""
    op, pool = stop.op, stop.pool
    passes = np.ones(words.shape, bool)
    if pool is not None:
        q = saved[pool.output].ravel()
        if has_clamp(pool) and not stop.pool_is_head:
            passes &= clamp_passes(pool, q)
        if pool.kind is OpKind.MAX_POOL:
            passes &= clamp_passes(op, q)  # its outputs are outputs of the convolution
    elif not stop.is_head and is_masked(op):
        passes &= clamp_passes(op, saved[op.output].ravel())
    return np.where(passes, words, words.dtype.type(0))


def expand(stop: Stop, words: Array, channels: int, saved: dict[str, Array]) -> list[list[Spot]]:
    """Spots of each channel, in order; words [positions * channels] that are 0 make none."""
    by_channel = words.reshape(-1, channels).T
    if stop.op.kind is OpKind.FULLY_CONNECTED:
        return [[Spot(0, 0, v) for v in column if v != 0] for column in by_channel]
    op, pool = stop.op, stop.pool
    q = saved[op.output][0]  # [h, w, channels]
    if pool is None:
        width = q.shape[1]
        return [
            [Spot(int(i) // width, int(i) % width, column[i]) for i in np.flatnonzero(column)]
            for column in by_channel
        ]
    width = saved[pool.output].shape[2]
    passes = clamp_passes(op, q)
    spots: list[list[Spot]] = [[] for _ in range(channels)]
    for c, column in enumerate(by_channel):
        for i in np.flatnonzero(column):
            _, rows, _, columns = window_taps(pool, int(i) // width, int(i) % width, q.shape)
            patch = q[rows, columns, c]
            if pool.kind is OpKind.MAX_POOL:
                y, x = divmod(int(patch.argmax()), patch.shape[1])  # the first of equals
                spots[c].append(Spot(rows.start + y, columns.start + x, column[i]))
                continue
            share = divided(column[i], patch.size)
            for y, x in np.ndindex(patch.shape):
                place = rows.start + y, columns.start + x
                if share != 0 and passes[(*place, c)]:
                    spots[c].append(Spot(*place, share))
    return spots


# ---- operators, each with its way back: all of them ADD to `into` ----


def spots_to_input(
    stop: Stop,
    spots: list[list[Spot]],
    w: Array,
    scaled: Callable[[Any, int], Any],
    into: Array,
) -> None:
    """`scaled(value, channel)`: a spot's delta times the scale of the channel's weights."""
    kind = stop.op.kind
    wide = w.astype(into.dtype)
    for c, mine in enumerate(spots):
        for spot in mine:
            t = scaled(spot.value, c)
            if kind is OpKind.FULLY_CONNECTED:
                into += (t * wide[c]).reshape(into.shape)
                continue
            ky, iy, kx, ix = window_taps(stop.op, spot.y, spot.x, into.shape)
            if kind is OpKind.CONV2D:
                into[iy, ix] += t * wide[c, ky, kx]
            else:
                source = c * into.shape[2] // w.shape[3]
                into[iy, ix, source] += t * wide[0, ky, kx, c]


def spots_to_row(op: Op, c: int, spots: list[Spot], x: Array, w: Array) -> Array:
    """Gradient of channel c's weights w; x: the input less its zero point."""
    depthwise = op.kind is OpKind.DEPTHWISE_CONV2D
    row = np.zeros(w.shape[1:3] if depthwise else w.shape[1:], x.dtype)
    for spot in spots:
        if op.kind is OpKind.FULLY_CONNECTED:
            row += spot.value * x.ravel()
            continue
        ky, iy, kx, ix = window_taps(op, spot.y, spot.x, x.shape)
        source = x[iy, ix, c * x.shape[2] // w.shape[3]] if depthwise else x[iy, ix]
        row[ky, kx] += spot.value * source
    return row


def pool_to_input(op: Op, x: Array, words: Array, into: Array) -> None:
    """A pool with windows that may overlap. x [h, w, c]: its int8 input."""
    shape = (-1, into.shape[2])
    assert op.window is not None
    width = op.window.output_size(*x.shape[:2])[1]
    for i, values in enumerate(words.reshape(shape)):
        _, rows, _, columns = window_taps(op, i // width, i % width, x.shape)
        for c in np.flatnonzero(values):
            patch = x[rows, columns, c]
            if op.kind is OpKind.AVG_POOL:
                into[rows, columns, c] += divided(values[c], patch.size)
            else:
                y, xx = divmod(int(patch.argmax()), patch.shape[1])
                into[rows.start + y, columns.start + xx, c] += values[c]
