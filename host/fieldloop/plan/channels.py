"""FDT, fused depthwise tiling: a path of operators in slices of channels, as moves.

    x whole ──fan-out──> [slice] ──channel by channel──> [slice] ──fan-in──> sums ──> y whole
                                                         └─ or at its channels' place in y

Part after part goes through the whole path, so only one slice of each tensor inside is ever held.
All parts share the slices' stores, which the first part, the widest, sizes.
"""

from __future__ import annotations

from dataclasses import replace

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import OpKind
from fieldloop.ir.shapes import macs
from fieldloop.ir.tensor import DType, Tensor
from fieldloop.plan.channel_paths import (
    ChannelPath,
    Role,
    Stage,
    channel_path,
    outside,
)
from fieldloop.plan.maps import Map
from fieldloop.plan.parts import part_numbers
from fieldloop.plan.program import Box, Builder, Move, Piece, root_of
from fieldloop.plan.types import StepKind

_SUM_BYTES = 4  # an accumulator: int32 or float32


def emit_channels(
    builder: Builder, first: int, last: int, parts: int, keep: frozenset[str] = frozenset()
) -> None:
    """Adds the moves of operators first to last (included), cut into `parts` slices of channels.

    Raises CannotTileError where they are no path, or have fewer channels than parts.
    """
    path = channel_path(builder.graph, first, last, keep)
    cuts = path.cuts(parts)
    writer = _Writer(builder, path, widest=cuts[0][1])
    for begin, count in cuts:
        writer.part(begin, count)


def channel_parts(graph: Graph, first: int, last: int) -> list[int]:
    """Numbers of parts worth trying: the least one for each width of the widest slice."""
    return part_numbers(channel_path(graph, first, last).units)


def channel_macs(graph: Graph, first: int, last: int) -> int:
    """Multiply-accumulates of the path, in however many parts: the operators', less those of rows
    that nobody reads.
    """
    stages = channel_path(graph, first, last).stages
    ops = [graph.ops[stage.index] for stage in stages]
    return sum(
        macs(op, graph.tensors) * stage.y_rows // stage.y.rows
        for op, stage in zip(ops, stages, strict=True)
    )


def channel_ram(graph: Graph, first: int, last: int, parts: int) -> int:
    """Bytes of arena of the path alone: whole tensors, and the widest slices on both sides of an
    operator. An estimate: the layout may do better.
    """
    path = channel_path(graph, first, last)
    count = path.cuts(parts)[0][1]
    end = graph.tensors[graph.ops[last].output]
    fan_in = path.stages[-1].role is Role.FAN_IN
    whole = {name for stage in path.stages for name in outside(graph, stage)}
    fixed = sum(graph.tensors[name].bytes for name in whole)
    fixed += max(end.size * _SUM_BYTES if fan_in else 0, end.bytes)
    most = held = 0
    for stage in path.stages:
        made = 0
        if stage is not path.stages[-1] or _sums_apart(graph, stage):
            made = _slice_bytes(graph, stage, count)
        most = max(most, made if stage.in_place else held + made)
        held = made
    return fixed + most


def _is_mean(graph: Graph, stage: Stage) -> bool:
    return graph.ops[stage.index].kind is OpKind.MEAN


def _sums_apart(graph: Graph, stage: Stage) -> bool:
    """A mean whose sums are larger than its elements, so that they fit no place among those."""
    out = graph.tensors[graph.ops[stage.index].output]
    return _is_mean(graph, stage) and out.dtype is not DType.FLOAT32


def _slice_bytes(graph: Graph, stage: Stage, count: int) -> int:
    """Of the slice that a stage makes (of its sums, where they are larger)."""
    size = graph.tensors[graph.ops[stage.index].output].dtype.bytes
    elements = stage.y_rows * stage.y.width * count * stage.y_per
    return elements * (_SUM_BYTES if _is_mean(graph, stage) else size)


class _Writer:
    """The stores of a path, and the moves of one part after the other."""

    def __init__(self, builder: Builder, path: ChannelPath, *, widest: int) -> None:
        self.builder = builder
        self.path = path
        graph = builder.graph
        for stage in path.stages:
            for name in outside(graph, stage):
                builder.whole(name)
        self.end = path.stages[-1]
        out = self._out(self.end)
        self.stores: dict[int, int] = {}  # stage's operator -> the store of its slices or sums
        for stage in path.stages[:-1]:
            if stage.in_place:
                self.stores[stage.index] = self.stores[self._before(stage).index]
                continue
            made = self._out(stage)
            sums = _is_mean(graph, stage)
            self.stores[stage.index] = builder.new(
                f"{made.name} slice",
                _slice_bytes(graph, stage, widest),
                _SUM_BYTES if sums else made.dtype.bytes,
            )
        if self.end.role is Role.FAN_IN:
            store = builder.new(f"{out.name} sums", out.size * _SUM_BYTES, _SUM_BYTES)
            self.stores[self.end.index] = store
            self.whole = builder.alias(out.name, Piece(store, 0, 1, 1, 1, _SUM_BYTES))
            return
        self.whole = builder.whole(out.name)
        if _sums_apart(graph, self.end):
            self.stores[self.end.index] = builder.new(
                f"{out.name} sums", _slice_bytes(graph, self.end, widest), _SUM_BYTES
            )

    def _out(self, stage: Stage) -> Tensor:
        graph = self.builder.graph
        return graph.tensors[graph.ops[stage.index].output]

    def _before(self, stage: Stage) -> Stage:
        return self.path.stages[self.path.stages.index(stage) - 1]

    def part(self, begin: int, count: int) -> None:
        """The moves of units [begin, begin + count)."""
        given: Piece | None = None  # the slice that the stage before made
        for stage in self.path.stages:
            if stage.role is Role.FAN_IN:
                assert given is not None
                self._fan_in(stage, given, begin, count)
            else:
                given = self._slice(stage, given, begin, count)

    def _slice(self, stage: Stage, given: Piece | None, begin: int, count: int) -> Piece:
        graph = self.builder.graph
        op = graph.ops[stage.index]
        channel, channels = begin * stage.y_per, count * stage.y_per
        x_channel, x_channels = begin * stage.x_per, count * stage.x_per
        if stage.role is Role.FAN_OUT:
            x_channel, x_channels = 0, stage.x.channels
        reads = []
        for name, is_slice in zip(op.inputs, stage.inside, strict=False):
            pixels = stage.x_rows * stage.x.width
            if is_slice:
                assert given is not None
                piece = Piece(
                    given.store, given.offset, pixels, x_channels, x_channels, given.size
                )
            else:
                whole = self.builder.whole(root_of(graph, name))
                piece = _among(whole, graph.tensors[name], stage.x, pixels, x_channel, x_channels)
            reads.append(piece)
        made = self._out(stage)
        pixels = stage.y_rows * stage.y.width
        if stage is self.end:
            y = _among(self.whole, made, stage.y, pixels, channel, channels)
        else:
            store = self.stores[stage.index]
            y = Piece(store, 0, pixels, channels, channels, made.dtype.bytes)
        move = Move(
            StepKind.TILE,
            stage.index,
            out=Box(0, stage.y_rows, channel, channels),
            inp=Box(0, stage.x_rows, x_channel, x_channels),
            x=reads[0],
            y=y,
            z=reads[1] if len(reads) > 1 else None,
            map_hw=(1, 1) if op.kind is OpKind.FULLY_CONNECTED else (0, 0),
        )
        if _is_mean(graph, stage):
            store = self.stores.get(stage.index, y.store)
            offset = y.offset if store == y.store else 0
            sums = Piece(store, offset, 1, channels, channels, _SUM_BYTES)
            move = replace(move, y=sums, z=y, partial=True, first=True, last=True)
        self.builder.add(move)
        return y

    def _fan_in(self, stage: Stage, given: Piece, begin: int, count: int) -> None:
        op = self.builder.graph.ops[stage.index]
        made = self._out(stage)
        x_channel, x_channels = begin * stage.x_per, count * stage.x_per
        pixels, channels = stage.y_rows * stage.y.width, stage.y.channels
        is_last = begin + count == self.path.units
        fully = op.kind is OpKind.FULLY_CONNECTED
        self.builder.add(
            Move(
                StepKind.TILE,
                stage.index,
                out=Box(0, stage.y_rows, 0, channels),
                inp=Box(0, stage.x_rows, x_channel, x_channels),
                x=Piece(
                    given.store,
                    given.offset,
                    stage.x_rows * stage.x.width,
                    x_channels,
                    x_channels,
                    given.size,
                ),
                y=Piece(self.whole.store, 0, pixels, channels, channels, _SUM_BYTES),
                z=_among(self.whole, made, stage.y, pixels, 0, channels) if is_last else None,
                map_hw=(stage.x.rows, stage.x.width) if fully else (0, 0),
                partial=True,
                first=begin == 0,
                last=is_last,
            )
        )


def _among(
    whole: Piece, tensor: Tensor, seen: Map, pixels: int, channel: int, channels: int
) -> Piece:
    """Channels of the first pixels of a whole tensor, seen as a map."""
    size = tensor.dtype.bytes
    step = seen.channels if pixels > 1 else channels
    return Piece(whole.store, whole.offset + channel * size, pixels, step, channels, size)
