"""One operator each and one step over it, for the tests of what the reader refuses.

Tensors lie at multiples of 256 bytes, behind them is free room up to LIMIT, which a first step
touches: so no change of a place is refused for the arena's size alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from patch import Patch
from test_tiles_core import QUANT
from tile_maker import Arena

from fieldloop.image import format as f
from fieldloop.image.format import Section as S
from fieldloop.image.format import StepFlag as Flag
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
from fieldloop.plan.types import More, Step, StepKind
from fieldloop.quantize.fixedpoint import add_params, factor, softmax_params

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
