"""Small tiled plans, written step by step without the planner: what its verifier must accept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fieldloop.compiler import compile_graph
from fieldloop.frontends.builder import Constant, GraphBuilder
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Mean, OpKind, Unary, UnaryKind, Window
from fieldloop.ir.tensor import DType
from fieldloop.plan.types import More, Plan, PlanKind, Step, StepKind

TILE, COPY, LOOP, OP = StepKind.TILE, StepKind.COPY, StepKind.LOOP, StepKind.OP


@dataclass(frozen=True, slots=True)
class Case:
    graph: Graph
    plan: Plan
    keep: frozenset[str] = frozenset()


def box(
    op: int,
    rows: tuple[int, int],
    channels: tuple[int, int],
    x_rows: tuple[int, int],
    x_channels: tuple[int, int],
    *,
    x: tuple[int, int],
    y: tuple[int, int],
    z: tuple[int, int] = (0, 0),
    sums: str = "",
    **more: object,
) -> Step:
    """A TILE step: (first, count) of rows and channels; (offset, step) of x, y and z; `sums`:
    "f", "l" for the first and last of partial sums, "p" for those between.
    """
    return Step(
        TILE, op, *rows, *channels, *x_rows, *x_channels,
        x=x[0], y=y[0], z=z[0], x_step=x[1], y_step=y[1], z_step=z[1],
        partial=bool(sums), first="f" in sums, last="l" in sums, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def plan(arena: int, offsets: dict[str, int], steps: list[Step], **more: object) -> Plan:
    return Plan(PlanKind.INFER, arena, offsets, tuple(steps), **more)  # type: ignore[arg-type]


def build(shape: tuple[int, ...], dtype: DType = DType.FLOAT32) -> tuple[GraphBuilder, str]:
    builder = GraphBuilder("hand")
    return builder, builder.input("x", shape, dtype)


def weights(*shape: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(sum(shape)).normal(size=shape)


def two_boxes() -> Case:
    """A 3x3 convolution, padded, in two boxes of rows."""
    b, x = build((1, 6, 4, 2))
    window = Window((3, 3), pads=(1, 1, 1, 1))
    y = b.add("y", OpKind.CONV2D, [x], window=window, weights=weights(3, 3, 3, 2))
    row_x, row_y = 4 * 2 * 4, 4 * 3 * 4
    at = 6 * row_x
    steps = [
        box(0, (0, 3), (0, 3), (0, 4), (0, 2), x=(0, 2), y=(at, 3)),
        box(0, (3, 3), (0, 3), (2, 4), (0, 2), x=(2 * row_x, 2), y=(at + 3 * row_y, 3)),
    ]
    return Case(b.graph([y]), plan(at + 6 * row_y, {"x": 0, "y": at}, steps))


def channels_of_boxes() -> Case:
    """The same in boxes of rows and channels, each at its channels' place."""
    whole = two_boxes()
    steps = []
    for step in whole.plan.steps:
        for channel, channels in ((0, 2), (2, 1)):
            steps.append(
                box(0, (step.row, 3), (channel, channels), (step.x_row, 4), (0, 2),
                    x=(step.x, 2), y=(step.y + 4 * channel, 3))
            )  # fmt: skip
    return Case(whole.graph, plan(whole.plan.arena_bytes, dict(whole.plan.offsets), steps))


def streamed() -> Case:
    """A convolution and a depthwise one row by row; the window between holds three rows, and is
    shifted by copies: written out at both ends, a loop between.
    """
    b, x = build((1, 8, 4, 2))
    window = Window((3, 3), pads=(1, 1, 1, 1))
    a = b.add("a", OpKind.CONV2D, [x], window=window, weights=weights(2, 3, 3, 2))
    y = b.add("y", OpKind.DEPTHWISE_CONV2D, [a], window=window, weights=weights(1, 3, 3, 2))
    row = 4 * 2 * 4
    cache, out = 8 * row, 11 * row

    def first(i: int, slot: int, n: int, more: More = More()) -> Step:  # noqa: B008
        start = max(0, i - 1)
        return box(0, (i, 1), (0, 2), (start, n), (0, 2), x=(start * row, 2),
                   y=(cache + slot * row, 2), more=more)  # fmt: skip

    def second(i: int, n: int, more: More = More()) -> Step:  # noqa: B008
        return box(1, (i, 1), (0, 2), (max(0, i - 1), n), (0, 2), x=(cache, 2),
                   y=(out + i * row, 2), more=more)  # fmt: skip

    shift = Step(COPY, 1, x=cache + row, y=cache, z=2 * row)
    steps = [
        first(0, 0, 2), first(1, 1, 3), second(0, 2),
        Step(LOOP, 3, rows=5),
        first(2, 2, 3, More(row=1, x_row=1, x=row)),
        second(1, 3, More(row=1, x_row=1, y=row)),
        shift,
        first(7, 2, 2), second(6, 3), shift, second(7, 2),
    ]  # fmt: skip
    return Case(b.graph([y]), plan(19 * row, {"x": 0, "y": out}, steps))


def sliced_graph() -> Graph:
    """Fan-out, channel by channel, fan-in."""
    b, x = build((1, 4, 4, 3))
    one = Window((1, 1))
    a = b.add("a", OpKind.CONV2D, [x], window=one, weights=weights(8, 1, 1, 3))
    window = Window((3, 3), stride=(2, 2), pads=(0, 1, 0, 1))
    d = b.add("d", OpKind.DEPTHWISE_CONV2D, [a], window=window, weights=weights(1, 3, 3, 8))
    return b.graph([b.add("y", OpKind.CONV2D, [d], window=one, weights=weights(5, 1, 1, 8))])


@lru_cache
def int8_graph() -> Graph:
    samples = np.random.default_rng(0).normal(size=(9, 4, 4, 3))
    return compile_graph(sliced_graph(), samples, learn=0).graph


def sliced(graph: Graph) -> Case:
    """Four slices of two channels; the finished elements lie on the sums."""
    size = graph.tensors["x"].dtype.bytes
    a = -(-16 * 3 * size // 4) * 4
    d = a + 16 * 2 * size
    sums = -(-(d + 4 * 2 * size) // 4) * 4
    steps = []
    for i in range(4):
        steps += [
            box(0, (0, 4), (2 * i, 2), (0, 4), (0, 3), x=(0, 3), y=(a, 2)),
            box(1, (0, 2), (2 * i, 2), (0, 4), (2 * i, 2), x=(a, 2), y=(d, 2)),
            box(2, (0, 2), (0, 5), (0, 2), (2 * i, 2), x=(d, 2), y=(sums, 5),
                z=(sums, 5) if i == 3 else (0, 0), sums="f" if i == 0 else "l" if i == 3 else "p"),
        ]  # fmt: skip
    return Case(graph, plan(sums + 4 * 5 * 4, {"x": 0, "y": sums}, steps))


def flattened() -> Case:
    """A function in place, whole; then a layer of all rows and columns, in sums of rows."""
    b, x = build((1, 6, 3, 2))
    r = b.add("r", OpKind.UNARY, [x], attrs=Unary(UnaryKind.TANH))
    f = b.add("f", OpKind.RESHAPE, [r], shape=(1, 36))
    y = b.add("y", OpKind.FULLY_CONNECTED, [f], weights=weights(4, 36))
    steps = [Step(OP, 0)]
    for i, kind in enumerate("fpl"):
        z = (160, 4) if kind == "l" else (0, 0)
        steps.append(
            box(2, (0, 1), (0, 4), (2 * i, 2), (0, 2), x=(48 * i, 2), y=(144, 4), z=z, sums=kind,
                map_hw=(6, 3))
        )  # fmt: skip
    return Case(b.graph([y]), plan(176, {"x": 0, "r": 0, "f": 0, "y": 160}, steps))


def averaged(kind: OpKind) -> Case:
    """A pool or a mean over a whole map, row by row, of two slices of channels."""
    b, x = build((1, 5, 3, 6))
    if kind is OpKind.MEAN:
        y = b.add("y", kind, [x], attrs=Mean((1, 2)))
    else:
        y = b.add("y", kind, [x], window=Window((5, 3)))
    steps = []
    for channel, channels in ((0, 4), (4, 2)):
        for row in range(5):
            z = (376 + 4 * channel, channels) if row == 4 else (0, 0)
            steps.append(
                box(0, (0, 1), (channel, channels), (row, 1), (channel, channels),
                    x=(72 * row + 4 * channel, 6), y=(360, channels), z=z,
                    sums="f" if row == 0 else "l" if row == 4 else "p")
            )  # fmt: skip
    return Case(b.graph([y]), plan(400, {"x": 0, "y": 376}, steps))


def looked_up() -> Case:
    """Entries of a table by slices, their mean, and a layer."""
    b, x = build((1, 7), DType.INT32)
    table = b.constant("table", Constant(weights(9, 4)))
    e = b.add("e", OpKind.EMBEDDING, [x, table])
    m = b.add("m", OpKind.MEAN, [e], attrs=Mean((1,)))
    y = b.add("y", OpKind.FULLY_CONNECTED, [m], weights=weights(3, 4))
    steps = []
    for i in range(2):
        place = (84 + 8 * i, 2)
        steps += [
            box(0, (0, 7), (2 * i, 2), (0, 7), (0, 1), x=(0, 1), y=(28, 2)),
            box(1, (0, 1), (2 * i, 2), (0, 7), (2 * i, 2), x=(28, 2), y=place, z=place, sums="fl"),
        ]
    steps.append(box(2, (0, 1), (0, 3), (0, 1), (0, 4), x=(84, 4), y=(28, 3), map_hw=(1, 1)))
    return Case(b.graph([y]), plan(100, {"x": 0, "m": 84, "y": 28}, steps))


def added() -> Case:
    """Two rows at a time: a convolution, and its sum with the input, written over it."""
    b, x = build((1, 4, 3, 2))
    a = b.add("a", OpKind.CONV2D, [x], window=Window((1, 1)), weights=weights(2, 1, 1, 2))
    y = b.add("y", OpKind.ADD, [a, x])
    steps = []
    for i in (0, 2):
        at = 24 * i
        steps += [
            box(0, (i, 2), (0, 2), (i, 2), (0, 2), x=(at, 2), y=(96 + at, 2)),
            box(1, (i, 2), (0, 2), (i, 2), (0, 2), x=(96 + at, 2), y=(96 + at, 2), z=(at, 2)),
        ]
    return Case(b.graph([y]), plan(192, {"x": 0, "y": 96}, steps))


def multiplied() -> Case:
    """A depthwise convolution that makes two channels of each, one input channel at a time."""
    b, x = build((1, 3, 3, 3))
    window = Window((3, 3), pads=(1, 1, 1, 1))
    y = b.add("y", OpKind.DEPTHWISE_CONV2D, [x], window=window, weights=weights(1, 3, 3, 6))
    steps = [
        box(0, (0, 3), (2 * i, 2), (0, 3), (i, 1), x=(4 * i, 3), y=(108 + 8 * i, 6))
        for i in range(3)
    ]
    return Case(b.graph([y]), plan(324, {"x": 0, "y": 108}, steps))


def turned() -> Case:
    """A map of one row as one of one column, in a loop."""
    b, x = build((1, 1, 9, 2))
    y = b.add("y", OpKind.CONV2D, [x], window=Window((1, 3)), weights=weights(3, 1, 3, 2))
    step = box(0, (0, 1), (0, 3), (0, 3), (0, 2), x=(0, 2), y=(72, 3), turned=True,
               more=More(row=1, x_row=1, x=8, y=12))  # fmt: skip
    steps = [Step(LOOP, 1, rows=7), step]
    return Case(b.graph([y]), plan(156, {"x": 0, "y": 72}, steps))


def whole() -> Case:
    """Operators one after the other, in place where they may be."""
    b, x = build((1, 3, 3, 2))
    window = Window((3, 3), pads=(1, 1, 1, 1))
    a = b.add("a", OpKind.CONV2D, [x], window=window, weights=weights(2, 3, 3, 2))
    r = b.add("r", OpKind.UNARY, [a], attrs=Unary(UnaryKind.ABS))
    s = b.add("s", OpKind.ADD, [r, x])
    f = b.add("f", OpKind.RESHAPE, [s], shape=(1, 18))
    y = b.add("y", OpKind.SOFTMAX, [f])
    offsets = {"x": 0, "a": 72, "r": 72, "s": 72, "f": 72, "y": 0}
    return Case(b.graph([y]), plan(144, offsets, [Step(OP, i) for i in range(5)]))


CASES: dict[str, Callable[[], Case]] = {
    "two boxes": two_boxes,
    "channels of boxes": channels_of_boxes,
    "streamed": streamed,
    "sliced float32": lambda: sliced(sliced_graph()),
    "sliced int8": lambda: sliced(int8_graph()),
    "flattened": flattened,
    "average pool": lambda: averaged(OpKind.AVG_POOL),
    "mean": lambda: averaged(OpKind.MEAN),
    "looked up": looked_up,
    "added": added,
    "multiplied": multiplied,
    "turned": turned,
    "whole": whole,
}
