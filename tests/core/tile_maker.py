"""Tiled plans of one operator, written by hand: random boxes in random order.

Nothing here plans: every tensor has a place of its own, accumulators and pieces lie behind them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from fieldloop.image.writer import write_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import WEIGHTED, Op, OpKind
from fieldloop.ir.tensor import DType, Tensor
from fieldloop.plan.maps import Map, map_of, op_window, rows_needed
from fieldloop.plan.types import Plan, PlanKind, Step, StepKind

BINARY = (OpKind.ADD, OpKind.SUB, OpKind.MUL, OpKind.MINIMUM, OpKind.MAXIMUM)
ONE_TO_ONE = (OpKind.TABLE, OpKind.QUANTIZE, OpKind.DEQUANTIZE, OpKind.UNARY)
POOLS = (OpKind.MAX_POOL, OpKind.AVG_POOL)
Span = tuple[int, int]


class NoTilesError(Exception):
    """An operator, or one of its shapes, that tiles do not take."""


def cut(rng: np.random.Generator, size: int, most: int = 4) -> list[Span]:
    """0..size in random pieces."""
    count = int(rng.integers(1, min(size, most) + 1))
    inner = rng.choice(np.arange(1, size), count - 1, replace=False) if count > 1 else []
    ends = [0, *sorted(int(i) for i in inner), size]
    return list(itertools.pairwise(ends))


@dataclass(slots=True)
class Arena:
    """Places one behind the other, each at a multiple of `align`."""

    graph: Graph
    align: int = 4
    end: int = 0
    offsets: dict[str, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def take(self, size: int) -> int:
        at = -(-self.end // self.align) * self.align
        self.end = at + size
        return at

    def whole(self, *names: str) -> None:
        for name in names:
            self.offsets[name] = self.take(self.graph.tensors[name].bytes)

    def make_room(self, size: int) -> None:
        """Room behind everything, the last byte of which a first step touches."""
        last = self.take(size) + size - 1
        self.steps.insert(0, Step(StepKind.COPY, 0, x=last, y=last, z=1))

    def image(self) -> bytes:
        plan = Plan(PlanKind.INFER, self.end, self.offsets, tuple(self.steps))
        return write_image(self.graph, [plan])


@dataclass(slots=True)
class Tiler:
    """Steps of the only operator of a graph; `maps`: of its input and output."""

    rng: np.random.Generator
    arena: Arena
    turned: bool = False

    @property
    def op(self) -> Op:
        return self.arena.graph.ops[0]

    def tensor(self, name: str) -> Tensor:
        return self.arena.graph.tensors[name]

    @property
    def x(self) -> Tensor:
        return self.tensor(self.op.inputs[0])

    @property
    def y(self) -> Tensor:
        return self.tensor(self.op.output)

    def map(self, tensor: Tensor) -> Map:
        seen = map_of(tensor.shape, turned=self.turned)
        if seen is None:
            raise NoTilesError(tensor.shape)
        return seen

    def at(self, tensor: Tensor, seen: Map, row: int, channel: int) -> int:
        """Where a box of a tensor that is held whole begins."""
        elements = row * seen.row_elements + channel
        return self.arena.offsets[tensor.name] + elements * tensor.dtype.bytes

    def rows(self, seen: Map, first: int, end: int, height: int) -> Span:
        a, b = rows_needed(op_window(self.op, turned=self.turned), first, end, height)
        if a >= b:
            raise NoTilesError("a box that reads padding alone")
        return a, b

    def boxes(self, seen: Map, unit: int = 1) -> list[tuple[Span, Span]]:
        rows = cut(self.rng, seen.rows)
        channels = [(unit * a, unit * b) for a, b in cut(self.rng, seen.channels // unit)]
        boxes = list(itertools.product(rows, channels))
        self.rng.shuffle(boxes)  # type: ignore[arg-type]
        return [tuple((int(a), int(b)) for a, b in box) for box in boxes]  # type: ignore[misc]

    def tile(
        self, xm: Map, ym: Map, rows: Span, channels: Span, x_rows: Span, x_channels: Span,
        **rest: object,
    ) -> None:  # fmt: skip
        fields: dict[str, object] = {
            "row": rows[0],
            "rows": rows[1] - rows[0],
            "channel": channels[0],
            "channels": channels[1] - channels[0],
            "x_row": x_rows[0],
            "x_rows": x_rows[1] - x_rows[0],
            "x_channel": x_channels[0],
            "x_channels": x_channels[1] - x_channels[0],
            "x": self.at(self.x, xm, x_rows[0], x_channels[0]),
            "y": self.at(self.y, ym, rows[0], channels[0]),
            "x_step": xm.channels,
            "y_step": ym.channels,
            "turned": self.turned,
        }
        self.arena.steps.append(Step(StepKind.TILE, 0, **{**fields, **rest}))  # type: ignore

    def parts(
        self, xm: Map, ym: Map, rows: Span, channels: Span, parts: list[tuple[Span, Span]],
        **rest: object,
    ) -> None:  # fmt: skip
        """One box of the output in several PARTIAL steps, one for each part of the input."""
        n = (rows[1] - rows[0]) * ym.width * (channels[1] - channels[0])
        acc = self.arena.take(4 * n)
        to = self.at(self.y, ym, rows[0], channels[0])
        # the elements on their accumulators first, and from there in rows of pixels
        direct = channels != (0, ym.channels) or self.rng.random() < 0.5
        for i, (x_rows, x_channels) in enumerate(parts):
            self.tile(
                xm,
                ym,
                rows,
                channels,
                x_rows,
                x_channels,
                y=acc,
                y_step=channels[1] - channels[0],
                z=to if direct else acc,
                z_step=ym.channels,
                partial=True,
                first=i == 0,
                last=i == len(parts) - 1,
                **rest,
            )
        if not direct:
            size = n * self.y.dtype.bytes
            self.arena.steps.append(Step(StepKind.COPY, 0, x=acc, y=to, z=size))

    # ---- operators

    def weighted(self, partial: bool) -> None:
        xm, ym = self.map(self.x), self.map(self.y)
        depthwise = self.op.kind is OpKind.DEPTHWISE_CONV2D
        multiplier = ym.channels // xm.channels if depthwise else 1
        if self.op.groups > 1:
            raise NoTilesError("groups")
        for rows, channels in self.boxes(ym, multiplier):
            x_rows = self.rows(ym, *rows, xm.rows)
            if depthwise:
                seen = channels[0] // multiplier, channels[1] // multiplier
                self.tile(xm, ym, rows, channels, x_rows, seen)
            elif partial:
                parts = [(x_rows, part) for part in cut(self.rng, xm.channels)]
                self.parts(xm, ym, rows, channels, parts)
            else:
                self.tile(xm, ym, rows, channels, x_rows, (0, xm.channels))

    def fully_connected(self, partial: bool) -> None:
        w = self.tensor(self.op.inputs[1])
        samples = self.x.size // w.shape[1]
        xm, ym = Map(samples, 1, w.shape[1]), Map(samples, 1, w.shape[0])
        if not partial:
            for rows, channels in self.boxes(ym):
                self.tile(xm, ym, rows, channels, rows, (0, xm.channels), map_hw=(1, 1))
            return
        if samples != 1:
            raise NoTilesError("several samples")
        shapes = [
            (h, v)
            for h in range(1, w.shape[1] + 1)
            for v in range(1, w.shape[1] // h + 1)
            if w.shape[1] % (h * v) == 0
        ]
        h, v = shapes[self.rng.integers(len(shapes))]
        xm = Map(h, v, w.shape[1] // (h * v))
        for channels in cut(self.rng, ym.channels):
            # ascending in a float: by rows, or by channels of one pixel
            by_rows = h * v > 1 and (self.real or self.rng.random() < 0.5)
            whole = [(0, xm.channels)]
            split = whole if by_rows and self.real else cut(self.rng, xm.channels)
            spans = cut(self.rng, h) if by_rows else [(0, h)]
            parts = list(itertools.product(spans, split))
            self.parts(xm, ym, (0, 1), channels, parts, map_hw=(h, v))

    @property
    def real(self) -> bool:
        return self.x.dtype is DType.FLOAT32

    def pool(self, partial: bool) -> None:
        xm, ym = self.map(self.x), self.map(self.y)
        window = op_window(self.op, turned=self.turned)
        assert window is not None
        if partial:
            whole = window.pads[0] == window.pads[2] == 0 and window.kernel[1] <= xm.width
            if self.op.kind is OpKind.MAX_POOL or (ym.rows, ym.width) != (1, 1) or not whole:
                raise NoTilesError("not one window on the map")
            if window.kernel[0] > xm.rows:
                raise NoTilesError("padding")
            for channels in cut(self.rng, ym.channels):
                parts = [(rows, channels) for rows in cut(self.rng, window.kernel[0])]
                self.parts(xm, ym, (0, 1), channels, parts)
            return
        for rows, channels in self.boxes(ym):
            x_rows = self.rows(ym, *rows, xm.rows)
            self.tile(xm, ym, rows, channels, x_rows, channels)

    def mean(self) -> None:
        xm = self.map(self.x)
        axes = set(self.op.attrs.axes)  # type: ignore[union-attr]
        last = len(self.x.shape) - 1
        if last in axes or any(n > 1 and i not in axes for i, n in enumerate(self.x.shape[:-1])):
            raise NoTilesError("other axes")
        ym = Map(1, 1, xm.channels)
        for channels in cut(self.rng, ym.channels):
            parts = [(rows, channels) for rows in cut(self.rng, xm.rows)]
            self.parts(xm, ym, (0, 1), channels, parts)

    def elements(self, in_place: bool) -> None:
        xm, ym = self.map(self.x), self.map(self.y)
        binary = self.op.kind in BINARY
        if binary and self.tensor(self.op.inputs[1]).shape != self.x.shape != self.y.shape:
            raise NoTilesError("broadcast")
        second = self.tensor(self.op.inputs[1]) if binary else self.x
        if xm != ym or second.shape != self.y.shape:
            raise NoTilesError("broadcast")
        for rows, channels in self.boxes(ym):
            z = self.at(second, xm, rows[0], channels[0]) if binary else 0
            z_step = xm.channels if binary else 0
            rest: dict[str, int] = {"z": z, "z_step": z_step}
            self.tile(xm, ym, rows, channels, rows, channels, **rest)
        if in_place:
            # every box where its input is, then all of it to the output at once
            if self.op.kind in (OpKind.QUANTIZE, OpKind.DEQUANTIZE):
                raise NoTilesError("elements of two sizes")
            given = self.arena.offsets[self.x.name] - self.arena.offsets[self.y.name]
            self.arena.steps = [
                Step(**{**{n: getattr(s, n) for n in s.__slots__}, "y": s.y + given})
                for s in self.arena.steps
            ]
            x, y = self.arena.offsets[self.x.name], self.arena.offsets[self.y.name]
            self.arena.steps.append(Step(StepKind.COPY, 0, x=x, y=y, z=self.y.bytes))

    def embedding(self) -> None:
        table = self.tensor(self.op.inputs[1])
        n, width = self.x.size, table.size // table.shape[0]
        xm, ym = Map(n, 1, 1), Map(n, 1, width)
        for rows, channels in self.boxes(ym):
            self.tile(xm, ym, rows, channels, rows, (0, 1))


def tiled(graph: Graph, rng: np.random.Generator, *, align: int = 4, room: int = 0) -> bytes:
    """The image of a graph of one operator under random tiles of it. Raises NoTilesError.

    `room`: bytes behind everything, the last of which a first step touches.
    """
    arena = Arena(graph, align)
    op = graph.ops[0]
    arena.whole(*dict.fromkeys((*graph.inputs, op.output)))
    x = graph.tensors[op.inputs[0]].shape
    flat = len(x) == 4 and x[1] == 1 and op.kind not in (OpKind.FULLY_CONNECTED, OpKind.EMBEDDING)
    turns = flat and (op.kind not in WEIGHTED or 1 in op.window.kernel)  # type: ignore[union-attr]
    turns = turns and (op.kind is OpKind.MEAN or graph.tensors[op.output].shape[:2] == (1, 1))
    tiler = Tiler(rng, arena, turned=bool(turns and rng.random() < 0.5))
    choice = bool(rng.random() < 0.5)
    if op.kind is OpKind.FULLY_CONNECTED:
        tiler.fully_connected(choice)
    elif op.kind in WEIGHTED:
        partial = choice and op.kind is OpKind.CONV2D
        one_pixel = op.window is not None and op.window.kernel == (1, 1)
        tiler.weighted(partial and (not tiler.real or one_pixel))
    elif op.kind in POOLS:
        tiler.pool(choice)
    elif op.kind is OpKind.MEAN:
        tiler.mean()
    elif op.kind in BINARY or op.kind in ONE_TO_ONE:
        tiler.elements(choice)
    elif op.kind is OpKind.EMBEDDING:
        tiler.embedding()
    else:
        raise NoTilesError(op.kind)
    if room:
        arena.make_room(room)
    return arena.image()
