"""Tiles that the reader refuses: each case breaks one rule, and all else about it fits.

Every base is one operator and one step over it. Its tensors lie at multiples of 256 bytes, behind
them is free room up to LIMIT, which a first step touches: so no change of a place is refused for
the arena's size alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from core_runner import check_image
from patch import Patch
from test_tiles_core import QUANT, channels, network, streamed
from tile_maker import Arena

from fieldloop.image import format as f
from fieldloop.image.format import Section as S
from fieldloop.image.format import StepFlag as Flag
from fieldloop.image.writer import write_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import (
    Clamp,
    Concat,
    Mean,
    MeanFixed,
    Op,
    OpKind,
    Requant,
    Unary,
    UnaryKind,
    Window,
)
from fieldloop.ir.tensor import DType, Quant, Tensor
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.types import More, Plan, PlanKind, Step, StepKind
from fieldloop.quantize.fixedpoint import add_params, factor, softmax_params

BAD, NEW, GOOD = "FL_EBADMSG", "FL_ENOTSUP", "FL_OK"
I8, F32 = DType.INT8, DType.FLOAT32
X, Z, Y, FREE, LIMIT = 0, 256, 512, 1024, 4096
NOWHERE = 0xFFFFFFFF
PARTIAL = Flag.PARTIAL | Flag.FIRST | Flag.LAST
Shape = tuple[int, ...]


def arena_of(graph: Graph, *steps: Step) -> Arena:
    arena = Arena(graph, end=LIMIT)
    for name in graph.activations:
        arena.offsets[name.name] = {"x": X, "z": Z}.get(name.name, Y)
    touch = Step(StepKind.COPY, 0, x=LIMIT - 1, y=LIMIT - 1, z=1)
    arena.steps = [touch, *steps]
    return arena


def graph_of(op: Op, shapes: dict[str, Shape], dtypes: dict[str, DType] | None = None) -> Graph:
    """`shapes`: of x, z and y. Weights come as w, a table as t."""
    tensors = {}
    for name, shape in shapes.items():
        dtype = (dtypes or {}).get(name, I8)
        quant = QUANT if dtype is I8 else None
        data = None
        if name in "wt":
            numpy_type = np.float32 if dtype is F32 else np.int8
            data = np.ones(shape, numpy_type)
            quant = Quant((0.25,), 0) if dtype is I8 else None
        if name == "t" and dtype is I8:
            quant = QUANT
        tensors[name] = Tensor(name, shape, dtype, quant, data)
    inputs = tuple(n for n in op.inputs if n in "xz" and n in shapes)
    return Graph("one", tensors, (op,), inputs, (op.output,))


FACTOR = Requant(-128, 127, (factor(0.25),))
CLAMP = Requant(-128, 127)


def tile(box: Shape, inp: Shape, steps: Shape, **rest: Any) -> Step:
    """`box`: row, rows, channel, channels; `inp`: of the input; `steps`: of x, y and z."""
    x_step, y_step, z_step = (*steps, 0)[:3]
    fields = {"x": X, "y": Y, "x_step": x_step, "y_step": y_step, "z_step": z_step, **rest}
    return Step(StepKind.TILE, 0, *box, *inp, **fields)  # type: ignore[arg-type]


def conv(real: bool = False) -> Arena:
    """Rows 2 and 3 of a 3x3 convolution."""
    window = Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    op = Op("op", OpKind.CONV2D, ("x", "w"), "y", window, Clamp(), None if real else FACTOR)
    shapes = {"x": (1, 6, 2, 4), "w": (3, 3, 3, 4), "y": (1, 6, 2, 3)}
    dtypes = dict.fromkeys("xwy", F32 if real else I8)
    scale = 4 if real else 1
    step = tile((2, 2, 0, 3), (1, 4, 0, 4), (4, 3), x=X + 8 * scale, y=Y + 12 * scale)
    return arena_of(graph_of(op, shapes, dtypes), step)


def conv_sum(real: bool = False) -> Arena:
    """Two of the four channels, summed at FREE and finished into the output."""
    arena = conv(real)
    scale = 4 if real else 1
    box, inp = (2, 2, 0, 3), (1, 4, 2, 2)
    places = {"x": X + 10 * scale, "y": FREE, "z": Y + 12 * scale}
    flags = {"partial": True, "first": True, "last": True}
    arena.steps[1] = tile(box, inp, (4, 3, 3), **places, **flags)
    return arena


def grouped() -> Arena:
    window = Window((1, 1))
    op = Op("op", OpKind.CONV2D, ("x", "w"), "y", window, Clamp(), FACTOR, groups=2)
    shapes = {"x": (1, 4, 2, 4), "w": (4, 1, 1, 2), "y": (1, 4, 2, 4)}
    return arena_of(graph_of(op, shapes), tile((0, 4, 0, 4), (0, 4, 0, 4), (4, 4)))


def row_conv() -> Arena:
    """A convolution along a map of one row, turned."""
    window = Window((1, 3), (1, 1), (1, 1), (0, 0, 1, 1))
    op = Op("op", OpKind.CONV2D, ("x", "w"), "y", window, Clamp(), FACTOR)
    shapes = {"x": (1, 1, 6, 4), "w": (3, 1, 3, 4), "y": (1, 1, 6, 3)}
    step = tile((2, 2, 0, 3), (1, 4, 0, 4), (4, 3), x=X + 4, y=Y + 6, turned=True)
    return arena_of(graph_of(op, shapes), step)


def column_conv() -> Arena:
    """Under a window of one column, which turned is one of one row."""
    window = Window((3, 1), (1, 1), (1, 1), (1, 1, 0, 0))
    op = Op("op", OpKind.CONV2D, ("x", "w"), "y", window, Clamp(), FACTOR)
    shapes = {"x": (1, 1, 6, 4), "w": (3, 3, 1, 4), "y": (1, 1, 6, 3)}
    step = tile((2, 2, 0, 3), (2, 2, 0, 4), (4, 3), x=X + 8, y=Y + 6, turned=True)
    return arena_of(graph_of(op, shapes), step)


def square_conv() -> Arena:
    """The same map under a window of three rows, whole."""
    window = Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    op = Op("op", OpKind.CONV2D, ("x", "w"), "y", window, Clamp(), FACTOR)
    shapes = {"x": (1, 1, 6, 4), "w": (3, 3, 3, 4), "y": (1, 1, 6, 3)}
    return arena_of(graph_of(op, shapes), tile((0, 1, 0, 3), (0, 1, 0, 4), (4, 3)))


def turned_square() -> Callable[[Patch], None]:
    """Rows of it, turned: the window's weights would have to be, too."""
    return change(
        flags=Flag.TURNED, row=2, rows=2, x_row=1, x_rows=4, x=X + 4, y=Y + 6
    )  # fmt: skip


def depthwise() -> Arena:
    """Channels 2 and 3 of four, two of each input channel."""
    window = Window((1, 1))
    op = Op("op", OpKind.DEPTHWISE_CONV2D, ("x", "w"), "y", window, Clamp(), FACTOR)
    shapes = {"x": (1, 4, 2, 2), "w": (1, 1, 1, 4), "y": (1, 4, 2, 4)}
    step = tile((0, 4, 2, 2), (0, 4, 1, 1), (2, 4), x=X + 1, y=Y + 2)
    return arena_of(graph_of(op, shapes), step)


def depthwise_of_one() -> Arena:
    """Channels 1 and 2 of four, all of which read the only channel."""
    window = Window((3, 1), (1, 1), (1, 1), (1, 1, 0, 0))
    op = Op("op", OpKind.DEPTHWISE_CONV2D, ("x", "w"), "y", window, Clamp(), FACTOR)
    shapes = {"x": (1, 4, 2, 1), "w": (1, 3, 1, 4), "y": (1, 4, 2, 4)}
    return arena_of(graph_of(op, shapes), tile((1, 1, 1, 2), (0, 3, 0, 1), (1, 4), y=Y + 9))


def full(samples: int = 3) -> Arena:
    """Two outputs of all but the first sample."""
    op = Op("op", OpKind.FULLY_CONNECTED, ("x", "w"), "y", None, Clamp(), FACTOR)
    shapes = {"x": (samples, 12), "w": (4, 12), "y": (samples, 4)}
    rows = max(1, samples - 1)
    first = samples - rows
    box, inp = (first, rows, 1, 2), (first, rows, 0, 12)
    step = tile(box, inp, (12, 4), x=X + 12 * first, y=Y + 4 * first + 1, map_hw=(1, 1))
    return arena_of(graph_of(op, shapes), step)


def full_sum() -> Arena:
    """The last of three rows of two pixels of two channels."""
    arena = full(1)
    flags = {"partial": True, "first": True, "last": True}
    box, inp = (0, 1, 1, 2), (2, 1, 0, 2)
    places = {"x": X + 8, "y": FREE, "z": Y + 1}
    arena.steps[1] = tile(box, inp, (2, 2, 4), **places, map_hw=(3, 2), **flags)
    return arena


def max_pool(kind: OpKind = OpKind.MAX_POOL) -> Arena:
    """The second row of windows, channels 1 and 2."""
    op = Op("op", kind, ("x",), "y", Window((2, 2), (2, 2)), Clamp(), CLAMP)
    shapes = {"x": (1, 6, 4, 4), "y": (1, 3, 2, 4)}
    step = tile((1, 1, 1, 2), (2, 2, 1, 2), (4, 4), x=X + 33, y=Y + 9)
    return arena_of(graph_of(op, shapes), step)


def avg_sum(
    kernel: tuple[int, int] = (4, 2),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    stride: tuple[int, int] = (5, 2),
) -> Arena:
    """Rows 1 and 2 of the four that one window covers."""
    window = Window(kernel, stride, (1, 1), pads)
    op = Op("op", OpKind.AVG_POOL, ("x",), "y", window, Clamp(), CLAMP)
    shapes = {"x": (1, 6, 3, 4), "y": (1, *window.output_size(6, 3), 4)}
    flags = {"partial": True, "first": True, "last": True}
    places = {"x": X + 12, "y": FREE, "z": Y}
    step = tile((0, 1, 0, 4), (1, 2, 0, 4), (4, 4, 4), **places, **flags)
    return arena_of(graph_of(op, shapes), step)


def mean(axes: tuple[int, ...] = (1, 2), out: Shape = (1, 4)) -> Arena:
    """Rows 1 and 2 of a mean over the map."""
    fixed = MeanFixed(-128, 127, factor(0.25))
    op = Op("op", OpKind.MEAN, ("x",), "y", None, Clamp(), fixed, Mean(axes, False))
    flags = {"partial": True, "first": True, "last": True}
    places = {"x": X + 13, "y": FREE, "z": Y + 1}
    step = tile((0, 1, 1, 2), (1, 2, 1, 2), (4, 2, 4), **places, **flags)
    return arena_of(graph_of(op, {"x": (1, 6, 3, 4), "y": out}), step)


def add(b: Shape = (1, 6, 3, 4)) -> Arena:
    """Rows 1 and 2, channels 1 and 2 of a sum."""
    fixed = add_params(QUANT, QUANT, QUANT, Clamp())
    op = Op("op", OpKind.ADD, ("x", "z"), "y", None, Clamp(), fixed)
    shapes = {"x": (1, 6, 3, 4), "z": b, "y": (1, 6, 3, 4)}
    places = {"x": X + 13, "y": Y + 13, "z": Z + 13}
    step = tile((1, 2, 1, 2), (1, 2, 1, 2), (4, 4, 4), **places)
    return arena_of(graph_of(op, shapes), step)


def constant(place: int) -> Arena:
    """A sum whose first or second summand is a constant."""
    arena = add()
    tensors = dict(arena.graph.tensors)
    name = "xz"[place]
    tensors[name] = Tensor(name, (1, 6, 3, 4), I8, QUANT, np.ones((1, 6, 3, 4), np.int8))
    graph = Graph("one", tensors, arena.graph.ops, ("zx"[place],), ("y",))
    return arena_of(graph, arena.steps[1])


def unary() -> Arena:
    op = Op("op", OpKind.UNARY, ("x",), "y", attrs=Unary(UnaryKind.TANH))
    shapes = {"x": (1, 3, 2, 2), "y": (1, 3, 2, 2)}
    graph = graph_of(op, shapes, dict.fromkeys("xy", F32))
    return arena_of(graph, tile((0, 2, 0, 2), (0, 2, 0, 2), (2, 2)))


def table(shape: Shape = (1, 3, 2, 2)) -> Arena:
    op = Op("op", OpKind.TABLE, ("x", "t"), "y")
    graph = graph_of(op, {"x": shape, "t": (256,), "y": shape})
    rows, channels = shape[1], shape[3]
    return arena_of(graph, tile((0, rows, 0, channels), (0, rows, 0, channels), (channels,) * 2))


def long_table() -> Arena:
    """A map whose pixels, 65535 apart, end after 2^32 bytes."""
    arena = table((1, 2, 32769, 1))
    arena.offsets.update(x=0, y=65540)
    arena.end = 2 * 65540 + LIMIT
    end = arena.end - 1
    touch = Step(StepKind.COPY, 0, x=end, y=end, z=1)
    arena.steps = [touch, tile((0, 2, 0, 1), (0, 2, 0, 1), (1, 1), y=65540)]
    return arena


def quantize() -> Arena:
    op = Op("op", OpKind.QUANTIZE, ("x",), "y")
    graph = graph_of(op, {"x": (1, 3, 2, 2), "y": (1, 3, 2, 2)}, {"x": F32})
    return arena_of(graph, tile((0, 2, 0, 2), (0, 2, 0, 2), (2, 2)))


def embedding() -> Arena:
    op = Op("op", OpKind.EMBEDDING, ("x", "t"), "y")
    graph = graph_of(op, {"x": (1, 5), "t": (7, 4), "y": (1, 5, 4)}, {"x": DType.INT32})
    step = tile((1, 3, 1, 2), (1, 3, 0, 1), (1, 4), x=X + 4, y=Y + 5)
    return arena_of(graph, step)


def softmax() -> Arena:
    op = Op("op", OpKind.SOFTMAX, ("x",), "y", fixed=softmax_params(QUANT))
    graph = graph_of(op, {"x": (2, 4), "y": (2, 4)})
    tensors = {**graph.tensors, "y": Tensor("y", (2, 4), I8, Quant((1 / 256,), -128))}
    graph = Graph("one", tensors, graph.ops, ("x",), ("y",))
    return arena_of(graph, Step(StepKind.OP, 0))


def concat() -> Arena:
    op = Op("op", OpKind.CONCAT, ("x", "z"), "y", attrs=Concat(0))
    graph = graph_of(op, {"x": (2, 4), "z": (2, 4), "y": (4, 4)})
    return arena_of(graph, Step(StepKind.OP, 0))


def batch() -> Arena:
    """Two samples of a map: no map."""
    op = Op("op", OpKind.UNARY, ("x",), "y", attrs=Unary(UnaryKind.TANH))
    shapes = {"x": (2, 3, 2, 2), "y": (2, 3, 2, 2)}
    return arena_of(graph_of(op, shapes, dict.fromkeys("xy", F32)), Step(StepKind.OP, 0))


def looped(times: int = 3) -> Arena:
    """Rows 1 to `times` of a 3x3 convolution, one an iteration."""
    arena = conv()
    more = More(row=1, x_row=1, x=8, y=6)
    step = tile((1, 1, 0, 3), (0, 3, 0, 4), (4, 3), y=Y + 6, more=more)
    arena.steps[1:] = [Step(StepKind.LOOP, 1, rows=times), step]
    return arena


def loop_of(base: Callable[[], Arena], times: int, **more: int) -> Callable[[], Arena]:
    """The step of a base, so many times."""

    def make() -> Arena:
        arena = base()
        step = replace(arena.steps[1], more=More(**more))
        arena.steps[1:] = [Step(StepKind.LOOP, 1, rows=times), step]
        return arena

    return make


def padded(kind: OpKind, rows: int = 4) -> Callable[[], Arena]:
    """A window over two rows, in so much padding that every place of it reads both."""

    def make() -> Arena:
        window = Window((5, 1), (1, 1), (1, 1), (rows - 1, rows - 1, 0, 0))
        pool = kind in (OpKind.MAX_POOL, OpKind.AVG_POOL)
        inputs = ("x",) if pool else ("x", "w")
        op = Op("op", kind, inputs, "y", window, Clamp(), CLAMP if pool else FACTOR)
        made = window.output_size(2, 1)[0]
        shapes = {"x": (1, 2, 1, 1), "w": (1, 5, 1, 1), "y": (1, made, 1, 1)}
        if pool:
            del shapes["w"]
        return arena_of(graph_of(op, shapes), tile((0, 1, 0, 1), (0, 2, 0, 1), (1, 1)))

    return make


def nested(inner: StepKind) -> Arena:
    """A loop over a copy and, perhaps, another loop."""
    arena = conv()
    other = Step(inner, 1, rows=2) if inner is StepKind.LOOP else arena.steps[0]
    arena.steps = [Step(StepKind.LOOP, 3, rows=2), arena.steps[0], other, arena.steps[1]]
    return arena


WINDOWED = (OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D, OpKind.MAX_POOL, OpKind.AVG_POOL)


# ---- changes


def steps_of(p: Patch) -> Any:
    return p.section(S.TILES, f.PLAN_STEP, skip=f.TILES.itemsize)


def change(at: int = 1, **fields: int) -> Callable[[Patch], None]:
    """Fields of a step; 1 is the first that means anything."""

    def spoil(p: Patch) -> None:
        for name, value in fields.items():
            steps_of(p)[name][at] = value

    return spoil


def nothing(p: Patch) -> None:
    """Changes nothing."""


WHOLE = {"kind": 1, "row": 0, "rows": 1, "channel": 0, "channels": 4, "x_channels": 4}
TILED = {**WHOLE, "x_rows": 1, "x_step": 4, "y_step": 4, "x": X, "y": Y}

CASES: list[tuple[Callable[[], Arena], Callable[[Patch], None], str]] = [
    # what a step is
    (conv, change(kind=4), NEW),
    (conv, change(flags=16), NEW),
    (conv, change(kind=0, flags=1), NEW),
    (conv, change(kind=0), GOOD),
    (conv, change(at=0, flags=8), NEW),
    (conv, change(op=1), BAD),
    (conv, change(kind=0, op=1), BAD),
    (conv, change(at=0, op=1), BAD),
    (softmax, change(**TILED), NEW),
    (concat, change(**TILED), NEW),
    # copies
    (conv, change(at=0, x=LIMIT), BAD),
    (conv, change(at=0, y=LIMIT), BAD),
    (conv, change(at=0, x=0, y=1, z=LIMIT), BAD),
    (conv, change(at=0, x=1, y=0, z=LIMIT), BAD),
    (conv, change(at=0, x=0, y=0, z=LIMIT), GOOD),
    (conv, change(at=0, z=NOWHERE), BAD),
    (conv, change(at=0, x=NOWHERE, z=2), BAD),
    # loops
    (looped, change(flags=1), NEW),
    (looped, change(rows=0), BAD),
    (looped, change(op=0), BAD),
    (looped, change(op=2), BAD),
    (looped, change(op=0xFFFF), BAD),
    (looped, change(at=0, kind=3, op=2, rows=1), BAD),  # a loop around the loop
    (looped, change(at=0, kind=3, op=1, rows=1), BAD),
    (looped, change(rows=5), BAD),  # its last row needs one less
    (lambda: looped(2), change(at=2, x_row_more=2), BAD),
    (looped, change(at=2, x_row_more=0, x_more=0), BAD),
    (looped, change(at=2, row_more=0, x_row_more=1), BAD),
    (looped, change(at=2, row_more=-1), BAD),
    (looped, change(at=2, channel_more=-1), BAD),
    (looped, change(at=2, channel_more=32767), BAD),
    (looped, change(at=2, x_channel_more=1), BAD),
    (looped, change(at=2, x_more=-1), BAD),
    (looped, change(at=2, y_more=-Y), BAD),
    (looped, change(at=2, y_more=LIMIT), BAD),
    (looped, change(at=2, x_more=2**31 - 1), BAD),
    (looped, change(at=2, y_more=-(2**31)), BAD),
    (looped, change(at=2, z_more=-1), BAD),
    # ... that come back to where they began by running over
    (loop_of(full_sum, 5), nothing, GOOD),
    (loop_of(full_sum, 5, row=16384), nothing, BAD),
    (loop_of(full_sum, 5, channel=16384), nothing, BAD),
    (loop_of(full_sum, 5, x_row=16384), nothing, BAD),
    (loop_of(full_sum, 5, x_channel=16384), nothing, BAD),
    (loop_of(full_sum, 5, x=2**30), nothing, BAD),
    (loop_of(full_sum, 5, y=2**30), nothing, BAD),
    (loop_of(full_sum, 5, z=2**30), nothing, BAD),
    # ... whose windows keep pace with their rows, where there are any between the ends
    *((loop_of(padded(kind), 3, row=1), nothing, BAD) for kind in WINDOWED),
    *((loop_of(padded(kind), 2, row=1), nothing, GOOD) for kind in WINDOWED),
    # ... and whose pieces do not meet, nor lose their alignment, between the ends
    (loop_of(conv, 3, x=300), nothing, GOOD),
    (loop_of(conv, 3, x=516), nothing, BAD),
    (loop_of(conv, 3, x=516, y=-300), change(at=2, y=Y + 312), BAD),
    (loop_of(conv, 4, x=300, y=-10), change(at=2, x=0, y=450), GOOD),
    (loop_of(conv, 4, x=150, y=-10), change(at=2, x=0, y=330), BAD),
    (loop_of(add, 3, z=300), nothing, GOOD),
    (loop_of(add, 3, z=256), nothing, GOOD),  # just where it may
    (loop_of(add, 3, z=250), nothing, BAD),
    (loop_of(add, 3, x=300), nothing, GOOD),
    (loop_of(add, 3, x=510), nothing, BAD),
    (loop_of(add, 3, x=512), nothing, GOOD),  # just where it may
    (loop_of(table, 3, y=2), change(at=2, y=X), BAD),
    (loop_of(conv_sum, 3, z=500), nothing, GOOD),
    (loop_of(conv_sum, 3, z=501), nothing, BAD),
    (loop_of(conv_sum, 3, z=-242), nothing, GOOD),
    (loop_of(conv_sum, 3, z=-243), nothing, BAD),
    (loop_of(conv_sum, 3, x=514), change(at=2, y=2048), BAD),
    (loop_of(conv_sum, 3, x=300), change(at=2, y=2048), GOOD),
    (loop_of(conv_sum, 3, y=-512), nothing, BAD),
    (loop_of(conv_sum, 3, y=4), nothing, GOOD),
    (loop_of(conv_sum, 3, y=2), nothing, BAD),
    (loop_of(lambda: conv(True), 3, x=4), nothing, GOOD),
    (loop_of(lambda: conv(True), 3, x=2), nothing, BAD),
    (loop_of(lambda: conv(True), 3, y=2), nothing, BAD),
    (loop_of(lambda: conv(True), 3, z=2), nothing, BAD),
    (loop_of(lambda: conv_sum(True), 3, z=2), nothing, BAD),
    (loop_of(conv_sum, 3, z=1), nothing, GOOD),
    (loop_of(avg_sum, 3, x_row=1, x=12), change(at=2, x_row=0), GOOD),
    (loop_of(mean, 3, x_row=1, x=12), nothing, GOOD),
    (loop_of(conv, 3), change(at=2, kind=2, z=1, x_row_more=1), GOOD),
    (loop_of(conv, 3), change(rows=0), BAD),
    (lambda: nested(StepKind.COPY), nothing, GOOD),
    (lambda: nested(StepKind.LOOP), nothing, BAD),
    # its first row needs one less
    (lambda: looped(2), change(at=2, row=0, x_row_more=0), BAD),
    # boxes
    (conv, change(rows=0, x_rows=2), BAD),
    (conv, change(channels=0), BAD),
    (conv, change(channels=4, y_step=4), BAD),
    (conv, change(channel=1), BAD),
    (conv, change(row=5, x_row=4, x_rows=2), BAD),
    (conv, change(row=5, rows=1, x_row=4, x_rows=2), GOOD),
    (conv, change(x_rows=0), BAD),
    (conv, change(x_row=0), BAD),
    (conv, change(x_row=2), BAD),
    (conv, change(x_rows=3), BAD),
    (conv, change(x_rows=5), BAD),
    (conv, change(x_channel=1, x_channels=3), BAD),
    (conv, change(x_channels=3), BAD),
    (conv, change(row=0, x_row=0, x_rows=3), GOOD),
    (conv_sum, nothing, GOOD),
    (conv_sum, change(x_channel=3), BAD),
    (conv_sum, change(x_channel=3, x_channels=1), GOOD),
    (conv_sum, change(flags=Flag.PARTIAL), GOOD),
    (conv_sum, change(x_rows=3), BAD),
    (conv, change(flags=Flag.FIRST), BAD),
    (conv, change(flags=Flag.LAST), BAD),
    (grouped, nothing, BAD),
    (depthwise, nothing, GOOD),
    (depthwise, change(channel=1), BAD),
    (depthwise, change(channels=1), BAD),
    (depthwise, change(x_channel=0), BAD),
    (depthwise, change(x_rows=3), BAD),
    (depthwise, change(flags=PARTIAL, x=X, y=FREE, z=Y, z_step=4), BAD),
    (full, nothing, GOOD),
    (full, change(x_row=0), BAD),
    (full, change(x_rows=1), BAD),
    (full, change(x_channels=11), BAD),
    (full, change(flags=PARTIAL, y=FREE, z=Y, z_step=4), BAD),
    (full, change(flags=Flag.TURNED), BAD),
    (full_sum, nothing, GOOD),
    (full_sum, change(map_h=0), BAD),
    (full_sum, change(map_h=5), BAD),
    (full_sum, change(map_h=65535, map_w=65535), BAD),
    (full_sum, change(x_row=3), BAD),
    (full_sum, change(x_channel=1), BAD),
    (full_sum, change(row=1), BAD),
    (max_pool, nothing, GOOD),
    (max_pool, change(x_channel=0), BAD),
    (max_pool, change(x_channels=1), BAD),
    (max_pool, change(x_row=1), BAD),
    (max_pool, change(flags=PARTIAL, x=X, y=FREE, z=Y, z_step=4), BAD),
    (lambda: max_pool(OpKind.AVG_POOL), nothing, GOOD),
    (lambda: max_pool(OpKind.AVG_POOL), change(x_channel=0), BAD),
    (lambda: max_pool(OpKind.AVG_POOL), change(x_row=1), BAD),
    (lambda: max_pool(OpKind.AVG_POOL), change(flags=PARTIAL, y=FREE, z=Y, z_step=4), BAD),
    (avg_sum, nothing, GOOD),
    (avg_sum, change(x_row=3, x_rows=2), BAD),
    (avg_sum, change(x_channel=1, x_channels=3), BAD),
    (lambda: avg_sum(pads=(1, 0, 0, 0)), nothing, BAD),
    (lambda: avg_sum(pads=(0, 0, 1, 0)), nothing, BAD),
    (lambda: avg_sum((7, 2), (0, 1, 0, 0)), nothing, BAD),
    (lambda: avg_sum((4, 4), (0, 0, 0, 1)), nothing, BAD),
    (lambda: avg_sum(stride=(2, 2)), nothing, BAD),
    (lambda: avg_sum(stride=(5, 1)), nothing, BAD),
    (depthwise_of_one, nothing, GOOD),
    (depthwise_of_one, change(x_rows=2), BAD),
    (depthwise_of_one, change(x_channel=1), BAD),
    (depthwise_of_one, change(flags=PARTIAL, x=X, y=FREE, z=Y, z_step=4), BAD),
    (mean, nothing, GOOD),
    (mean, change(flags=0, y=Y, y_step=4), BAD),
    (mean, change(x_channel=0), BAD),
    (mean, change(x_channels=1), BAD),
    (mean, change(rows=2), BAD),
    (mean, change(x_rows=6), BAD),
    (lambda: mean((1,), (1, 3, 4)), nothing, BAD),
    (lambda: mean((1, 2, 3), (1,)), nothing, BAD),
    (lambda: mean((0, 1, 2), (4,)), nothing, GOOD),
    (embedding, nothing, GOOD),
    (embedding, change(x_row=2), BAD),
    (embedding, change(x_rows=2), BAD),
    (embedding, change(x_channel=1), BAD),
    (embedding, change(flags=PARTIAL, y=FREE, z=Y, z_step=4), BAD),
    (embedding, change(flags=Flag.TURNED), BAD),
    (add, nothing, GOOD),
    (add, change(x_row=0), BAD),
    (add, change(x_rows=1), BAD),
    (add, change(x_channel=0), BAD),
    (add, change(x_channels=3), BAD),
    (add, change(flags=PARTIAL, y=FREE, z=Y, z_step=4), BAD),
    (lambda: add((1, 1, 1, 4)), nothing, BAD),
    (lambda: add((6, 3, 4)), nothing, BAD),
    (lambda: constant(0), nothing, BAD),
    (lambda: constant(1), nothing, BAD),
    (batch, change(kind=1, rows=1, channels=2, x_rows=1, x_channels=2), BAD),
    # turned
    (row_conv, nothing, GOOD),
    (row_conv, change(x_rows=5), BAD),
    (row_conv, change(flags=0), BAD),
    (column_conv, nothing, GOOD),
    (square_conv, nothing, GOOD),
    (square_conv, turned_square(), BAD),
    (conv, change(flags=Flag.TURNED), BAD),
    (unary, change(flags=Flag.TURNED), BAD),
    # pieces
    (conv, change(x_step=3), BAD),
    (conv, change(y_step=2), BAD),
    (conv, change(x_step=0), BAD),
    (conv, change(x=LIMIT - 31), BAD),
    (conv, change(x=LIMIT - 32), GOOD),
    (conv, change(x=NOWHERE), BAD),
    (conv, change(y=LIMIT - 11), BAD),
    (conv, change(y=LIMIT - 12), GOOD),
    (conv, change(x=Y), BAD),
    (conv, change(x=Y - 19), BAD),
    (conv, change(x=Y - 20), GOOD),
    (conv, change(x=Y + 24), GOOD),
    (conv, change(x=Y + 23), BAD),
    (lambda: conv(True), nothing, GOOD),
    (lambda: conv(True), change(x=X + 34), BAD),
    (lambda: conv(True), change(y=Y + 50), BAD),
    (conv_sum, change(y=FREE + 1), BAD),
    (conv_sum, change(y=FREE + 2), BAD),
    (conv_sum, change(y=LIMIT - 44), BAD),
    (conv_sum, change(y=LIMIT - 48), GOOD),
    (conv_sum, change(y=4), BAD),  # over x
    (conv_sum, change(z=LIMIT - 11), BAD),
    (conv_sum, change(z=LIMIT - 11, flags=Flag.PARTIAL | Flag.FIRST), GOOD),
    (conv_sum, change(z_step=2), BAD),
    (conv_sum, change(z=12), BAD),  # over x
    (conv_sum, change(z=FREE), GOOD),
    (conv_sum, change(z=FREE, z_step=12), GOOD),
    (conv_sum, change(z=FREE, z_step=13), BAD),
    (conv_sum, change(z=FREE + 1), BAD),
    (conv_sum, change(z=FREE + 48), GOOD),
    (lambda: conv_sum(True), nothing, GOOD),
    (lambda: conv_sum(True), change(z=FREE), GOOD),
    (lambda: conv_sum(True), change(z=Y + 50), BAD),
    (lambda: conv_sum(True), change(z=FREE, z_step=4), BAD),
    (add, change(y=X + 13), GOOD),
    (add, change(y=X + 13, y_step=5), BAD),
    (add, change(y=X + 14), BAD),
    (add, change(y=Z + 13), GOOD),
    (add, change(y=Z + 13, y_step=5), BAD),
    (add, change(y=Z + 14), BAD),
    (add, change(z=LIMIT - 21), BAD),
    (add, change(z=LIMIT - 22), GOOD),
    (add, change(z_step=1), BAD),
    (long_table, nothing, GOOD),
    (long_table, change(x_step=65535), BAD),
    (table, change(y=X), GOOD),
    (table, change(y=X + 1), BAD),
    (unary, change(y=X), GOOD),
    (unary, change(y=X + 4), BAD),
    (quantize, nothing, GOOD),
    (quantize, change(y=X), BAD),
    (quantize, change(x=X + 1), BAD),
    (embedding, change(x=X + 2), BAD),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_one_rule_stands_against_it(case: int) -> None:
    make, spoil, expected = CASES[case]
    patch = Patch(make().image())
    spoil(patch)
    assert check_image(patch.bytes()) == expected, CASES[case]


def test_the_bases_are_good() -> None:
    bases = {make for make, _, _ in CASES if make.__name__ not in ("<lambda>", "make")} - {grouped}
    assert len(bases) > 15
    for make in bases:
        assert check_image(make().image()) == GOOD, make.__name__


# ---- sections, plans, and what whole operators need


def plan_of(p: Patch, nth: int = 0) -> tuple[Any, Any]:
    return p.plan(nth)


def test_one_section_a_plan() -> None:
    graph = max_pool().graph
    plan = Plan(PlanKind.INFER, LIMIT, {"x": X, "y": LIMIT - 24}, (Step(StepKind.OP, 0),))
    image = write_image(graph, [plan], meta={"room": "for another section of the same size" * 3})
    assert check_image(image) == GOOD

    def verdict(spoil: Callable[[Patch], object]) -> str:
        patch = Patch(image)
        spoil(patch)
        return check_image(patch.bytes())

    def second(p: Patch) -> None:
        i, j = p.where(S.TILES), p.where(S.META)
        for field in ("type", "offset", "bytes"):
            p.table[field][j] = p.table[field][i]

    def of_kind(kind: int) -> Callable[[Patch], None]:
        return lambda p: p.section(S.TILES, f.TILES)["kind"].__setitem__(0, kind)

    def size(change: int, count: int | None = None) -> Callable[[Patch], None]:
        def spoil(p: Patch) -> None:
            row = p.where(S.TILES)
            p.table["bytes"][row] = int(p.table["bytes"][row]) + change
            if count is not None:
                p.section(S.TILES, f.TILES)["count"][0] = count

        return spoil

    assert verdict(second) == BAD
    assert verdict(of_kind(1)) == BAD  # no plan for learning
    assert verdict(of_kind(7)) == GOOD  # of a newer version, skipped
    assert verdict(size(-64, 0)) == BAD
    assert verdict(size(-64)) == BAD
    assert verdict(size(1)) == BAD
    assert verdict(size(64)) == BAD
    assert verdict(size(64, 2)) != GOOD  # what lies behind is no step
    assert verdict(lambda p: p.table["bytes"].__setitem__(p.where(S.TILES), 8)) == BAD
    assert verdict(lambda p: p.section(S.TILES, f.TILES)["count"].__setitem__(0, 2**26)) == BAD


def test_at_most_65535_steps() -> None:
    graph = max_pool().graph
    steps = (Step(StepKind.OP, 0),) * 65535
    image = write_image(graph, [Plan(PlanKind.INFER, LIMIT, {"x": X, "y": LIMIT - 24}, steps)])
    assert check_image(image) == GOOD
    patch = Patch(image + bytes(64))
    patch.header["total_bytes"] += 64
    row = patch.where(S.TILES)
    start = int(patch.table["offset"][row])
    patch.table["bytes"][row] += 64
    patch.section(S.TILES, f.TILES)["count"][0] = 65536
    end = start + int(patch.table["bytes"][row])
    assert end <= len(patch.raw)
    assert check_image(patch.bytes()) == NEW


def test_places_of_whole_tensors() -> None:
    """By operator: its input (place 0) or its output (-1) loses its place."""
    graph = network()

    def verdict(image: bytes, op: int = 0, place: int | None = None) -> str:
        patch = Patch(image)
        if place is not None:
            t = int(patch.ops["out"][op, 0] if place < 0 else patch.ops["in"][op, place])
            assert plan_of(patch)[1][t] != NOWHERE
            plan_of(patch)[1][t] = NOWHERE
        return check_image(patch.bytes())

    image = streamed(graph).image()
    assert verdict(image) == GOOD
    assert verdict(image, 4, 0) == BAD  # the head is run whole
    assert verdict(image, 2, 0) == BAD
    assert verdict(image, 2, -1) == BAD
    image = channels(graph).image()
    assert verdict(image, 0, -1) == BAD
    assert verdict(image, 2, -1) == GOOD  # its slices have places of their own
    # inputs and outputs lie somewhere even where no step runs whole over them
    for place in (0, -1):
        assert verdict(conv().image(), 0, place) == BAD
    # without tiles everything lies somewhere
    image = write_image(graph, [plan_graph(graph, PlanKind.INFER)])
    assert verdict(image, 1, -1) == BAD


def test_whole_operators_overlap_as_they_may() -> None:
    def verdict(arena: Arena, **places: int) -> str:
        arena.offsets.update(places)
        arena.steps[1] = Step(StepKind.OP, 0)
        return check_image(arena.image())

    assert verdict(add(), y=X) == GOOD
    assert verdict(add(), y=Z) == GOOD
    assert verdict(add(), y=X + 4) == BAD
    assert verdict(add((1, 1, 1, 4)), y=X) == GOOD
    assert verdict(add((1, 1, 1, 4)), y=Z) == BAD
    assert verdict(table(), y=X) == GOOD
    assert verdict(unary(), y=X) == GOOD
    assert verdict(unary(), y=X + 4) == BAD
    assert verdict(softmax(), y=X) == BAD
    assert verdict(quantize(), y=X) == BAD
    assert verdict(conv(), y=X) == BAD
    assert verdict(max_pool(), y=X) == BAD


def test_the_arena_is_as_large_as_what_lies_in_it() -> None:
    def verdict(limit: int, *steps: Step) -> str:
        arena = conv()
        arena.steps = list(steps)
        arena.end = limit
        return check_image(arena.image())

    tile = conv().steps[1]
    high = Step(StepKind.COPY, 0, x=Y + 36, y=X, z=100)
    assert verdict(Y + 36, tile) == GOOD  # the output's end
    assert verdict(Y + 37, tile) == BAD
    assert verdict(Y + 136, tile, high) == GOOD
    assert verdict(Y + 135, tile, high) == BAD
    assert verdict(Y + 137, tile, high) == BAD
    loop = [Step(StepKind.LOOP, 1, rows=3), Step(StepKind.COPY, 0, x=Y, z=36, more=More(x=9))]
    assert verdict(Y + 54, *loop) == GOOD
    assert verdict(Y + 53, *loop) == BAD
    sums = conv_sum().steps[1]
    assert verdict(FREE + 48, sums) == GOOD
    assert verdict(FREE + 47, sums) == BAD
    assert verdict(FREE + 49, sums) == BAD


def test_scratch_of_the_learner() -> None:
    graph = network()
    infer = plan_graph(graph, PlanKind.INFER)
    learn = plan_graph(graph, PlanKind.LEARN)
    end = learn.arena_bytes

    def verdict(nth: int, scratch: int, size: int, arena: int = 0) -> str:
        patch = Patch(write_image(graph, [infer, learn]))
        head = plan_of(patch, nth)[0]
        head["learner_scratch"], head["learner_scratch_bytes"] = scratch, size
        if arena:
            head["arena_bytes"] = arena
        return check_image(patch.bytes())

    last = end // 16 * 16
    assert verdict(1, 0, 0) == GOOD
    assert verdict(1, 16, 0) == GOOD
    assert verdict(1, 16, 20) == GOOD
    assert verdict(0, 16, 20) == BAD
    assert verdict(1, 8, 20) == BAD
    assert verdict(1, last, end - last + 1) == BAD
    assert verdict(1, last, end - last + 1, end + 1) == GOOD
    assert verdict(1, last, end - last + 1, end + 2) == BAD
    assert verdict(1, 16, 2**32 - 16) == BAD
    assert verdict(1, 2**32 - 16, 16) == BAD
    assert verdict(1, 2**32 - 16, 20) == BAD
