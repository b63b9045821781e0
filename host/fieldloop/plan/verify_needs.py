"""What a step of a tiled plan must find and what it makes: fl_image.h's rules, for the verifier.

Nothing here is the planner's: the maps and the rows that a window reaches are worked out anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fieldloop.errors import FieldloopError
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import BINARY, WEIGHTED, Mean, Op, OpKind
from fieldloop.ir.tensor import DType
from fieldloop.plan.types import Step

WIDTHS = {DType.INT8: 1, DType.INT32: 4, DType.FLOAT32: 4}
SUM_BYTES = 4
# A box of these may be written where their first input's lies.
IN_PLACE = BINARY | {OpKind.TABLE, OpKind.UNARY}
_ELEMENTS = IN_PLACE | {OpKind.QUANTIZE, OpKind.DEQUANTIZE}


class PlanError(FieldloopError):
    """A plan that would compute something else than its graph."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows, columns and channels of a tensor, row-major."""

    rows: int
    width: int
    channels: int


@dataclass(frozen=True, slots=True)
class Part:
    """Elements of a tensor of `of` channels: those of `pixels` pixels from `pixel` on, channels
    [channel, channel + channels), each of `size` bytes.
    """

    tensor: str
    pixel: int
    pixels: int
    of: int
    channel: int
    channels: int
    size: int


@dataclass(frozen=True, slots=True)
class Share:
    """What a partial step adds to its sums: `rows` x `channels` of `total` such cells. `order`:
    where in the whole kernel's order of adding it begins, and behind what it ends.
    """

    rows: tuple[int, int]
    channels: tuple[int, int]
    total: int
    order: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a tile reads at x (and z: a second operand), and what it makes."""

    x: Part
    z: Part | None
    out: Part
    share: Share | None


def shape_grid(shape: tuple[int, ...], *, turned: bool) -> Grid:
    """The map of a shape (fl_image.h, "maps")."""
    if turned:
        if len(shape) != 4 or shape[:2] != (1, 1):
            raise PlanError(f"a map of shape {shape} cannot be turned")
        return Grid(shape[2], 1, shape[3])
    if len(shape) == 4 and shape[0] != 1:
        raise PlanError(f"shape {shape} is no map, but several")
    if len(shape) == 1:
        return Grid(1, 1, shape[0])
    if len(shape) == 2 or (len(shape) == 3 and shape[0] == 1):
        return Grid(shape[-2], 1, shape[-1])
    return Grid(shape[-3], shape[-2], shape[-1])


def needs(graph: Graph, op: Op, step: Step) -> Needs:
    """Of a TILE step. PlanError where its operator has no such box."""
    rule = _RULES.get(op.kind)
    if rule is None:
        raise PlanError(f"{op.kind.value} has no tiles")
    if (step.first or step.last) and not step.partial:
        raise PlanError("the first or last of no partial sums")
    if step.turned:
        _may_turn(op)
    seen, made, share = rule(graph, op, step)
    _inside("output", made, step.row, step.rows, step.channel, step.channels)
    _inside("input", seen, step.x_row, step.x_rows, step.x_channel, step.x_channels)
    x, out = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    read = Part(
        x.name,
        step.x_row * seen.width,
        step.x_rows * seen.width,
        seen.channels,
        step.x_channel,
        step.x_channels,
        WIDTHS[x.dtype],
    )
    box = Part(
        out.name,
        step.row * made.width,
        step.rows * made.width,
        made.channels,
        step.channel,
        step.channels,
        WIDTHS[out.dtype],
    )
    z = None
    if op.kind in BINARY:
        z = Part(
            op.inputs[1], read.pixel, read.pixels, read.of, read.channel, read.channels, read.size
        )
    return Needs(read, z, box, share)


def _inside(what: str, grid: Grid, row: int, rows: int, channel: int, channels: int) -> None:
    if not (0 <= row < row + rows <= grid.rows and 0 <= channel < channel + channels):
        raise PlanError(f"rows {row}..{row + rows} of the {what}, which has {grid.rows}")
    if channel + channels > grid.channels:
        raise PlanError(
            f"channels {channel}..{channel + channels} of the {what}, which has {grid.channels}"
        )


def _may_turn(op: Op) -> None:
    """Weights stay as they are: a window that is turned may have one row, or one column."""
    if op.kind in (OpKind.FULLY_CONNECTED, OpKind.EMBEDDING):
        raise PlanError(f"{op.kind.value} has no window to turn")
    if op.kind in WEIGHTED and op.window is not None and 1 not in op.window.kernel:
        raise PlanError(f"a window of {op.window.kernel} weights cannot be turned")


Rule = Callable[[Graph, Op, Step], tuple[Grid, Grid, Share | None]]


def _grids(graph: Graph, op: Op, step: Step) -> tuple[Grid, Grid]:
    x, out = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    return shape_grid(x.shape, turned=step.turned), shape_grid(out.shape, turned=step.turned)


def _axes(op: Op, step: Step) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(stride, padding before, extent) of rows and of columns."""
    window = op.window
    assert window is not None
    both = [
        (window.stride[i], window.pads[2 * i], (window.kernel[i] - 1) * window.dilation[i] + 1)
        for i in (1, 0)
    ]
    return (both[0], both[1]) if step.turned else (both[1], both[0])


def _reached_rows(op: Op, step: Step, seen: Grid) -> None:
    stride, before, extent = _axes(op, step)[0]
    first = max(0, step.row * stride - before)
    behind = min(seen.rows, (step.row + step.rows - 1) * stride - before + extent)
    if (step.x_row, step.x_row + step.x_rows) != (first, behind):
        raise PlanError(
            f"input rows {step.x_row}..{step.x_row + step.x_rows} where the box takes "
            f"{first}..{behind}"
        )


def _no_map(step: Step) -> None:
    if step.map_hw not in ((0, 0), (1, 1)):
        raise PlanError(f"a map {step.map_hw} of no fully connected layer")


def _conv(graph: Graph, op: Op, step: Step) -> tuple[Grid, Grid, Share | None]:
    seen, made = _grids(graph, op, step)
    _no_map(step)
    if op.groups != 1:
        raise PlanError("a convolution in groups has no tiles")
    _reached_rows(op, step, seen)
    first, behind = step.x_channel, step.x_channel + step.x_channels
    if not step.partial:
        if (first, behind) != (0, seen.channels):
            raise PlanError(f"channels {first}..{behind} of {seen.channels} of the input alone")
        return seen, made, None
    assert op.window is not None
    last_tap = (math.prod(op.window.kernel) - 1) * seen.channels
    share = Share((0, 1), (first, behind), seen.channels, (first, last_tap + behind))
    return seen, made, share


def _depthwise(graph: Graph, op: Op, step: Step) -> tuple[Grid, Grid, Share | None]:
    seen, made = _grids(graph, op, step)
    _whole_sums(op, step)
    _reached_rows(op, step, seen)
    each = made.channels // seen.channels
    wanted = (step.channel // each, step.channels // each)
    if seen.channels == 1:  # any channels come from the only one
        wanted = (0, 1)
    elif step.channel % each or step.channels % each:
        raise PlanError(f"channels that are no multiples of the multiplier {each}")
    if (step.x_channel, step.x_channels) != wanted:
        raise PlanError(
            f"input channel {step.x_channel}, {step.x_channels} of them: not the box's"
        )
    return seen, made, None


def _whole_sums(op: Op, step: Step) -> None:
    _no_map(step)
    if step.partial:
        raise PlanError(f"{op.kind.value} has no partial sums")


def _same_channels(step: Step) -> None:
    if (step.x_channel, step.x_channels) != (step.channel, step.channels):
        raise PlanError("input channels that are not the box's")


def _same_rows(step: Step) -> None:
    if (step.x_row, step.x_rows) != (step.row, step.rows):
        raise PlanError("input rows that are not the box's")


def _dense(graph: Graph, op: Op, step: Step) -> tuple[Grid, Grid, Share | None]:
    outputs, columns = graph.tensors[op.inputs[1]].shape
    samples = math.prod(graph.tensors[op.inputs[0]].shape) // columns
    made = Grid(samples, 1, outputs)
    if not step.partial:
        if step.map_hw != (1, 1):
            raise PlanError(f"a map {step.map_hw} of a sample that is read whole")
        _same_rows(step)
        if (step.x_channel, step.x_channels) != (0, columns):
            raise PlanError("some input channels of a fully connected layer alone")
        return Grid(samples, 1, columns), made, None
    height, width = step.map_hw
    if samples != 1 or height < 1 or width < 1 or columns % (height * width):
        raise PlanError(f"{samples} samples of {columns} elements are no map {step.map_hw}")
    seen = Grid(height, width, columns // (height * width))
    row, behind = step.x_row, step.x_row + step.x_rows
    first, last = step.x_channel, step.x_channel + step.x_channels
    order = (
        row * width * seen.channels + first,
        (behind * width - 1) * seen.channels + last,
    )
    return seen, made, Share((row, behind), (first, last), height * seen.channels, order)


def _rows_share(step: Step, total: int) -> Share:
    rows = step.x_row, step.x_row + step.x_rows
    return Share(rows, (0, 1), total, rows)


def _pool(graph: Graph, op: Op, step: Step) -> tuple[Grid, Grid, Share | None]:
    seen, made = _grids(graph, op, step)
    _same_channels(step)
    _no_map(step)
    if not step.partial:
        _reached_rows(op, step, seen)
        return seen, made, None
    (_, top, height), (_, left, width) = _axes(op, step)
    if op.kind is not OpKind.AVG_POOL or (made.rows, made.width) != (1, 1):
        raise PlanError("a pool in parts is an average of one row and column")
    if top or left or height > seen.rows or width > seen.width:
        raise PlanError("a pool in parts has all its taps on the map")
    if step.x_row + step.x_rows > height:
        raise PlanError(f"rows {step.x_row}..{step.x_row + step.x_rows} of a window of {height}")
    return seen, made, _rows_share(step, height)


def _mean(graph: Graph, op: Op, step: Step) -> tuple[Grid, Grid, Share | None]:
    x = graph.tensors[op.inputs[0]]
    seen = shape_grid(x.shape, turned=step.turned)
    _same_channels(step)
    _no_map(step)
    assert isinstance(op.attrs, Mean)
    averaged = {i for i in range(len(x.shape) - 1) if x.shape[i] > 1}
    if len(x.shape) - 1 in op.attrs.axes or not averaged <= set(op.attrs.axes):
        raise PlanError("a mean that leaves more than the channels has no tiles")
    if not step.partial:
        raise PlanError("a mean has tiles in parts only")
    return seen, Grid(1, 1, seen.channels), _rows_share(step, seen.rows)


def _elements(graph: Graph, op: Op, step: Step) -> tuple[Grid, Grid, Share | None]:
    seen, made = _grids(graph, op, step)
    _whole_sums(op, step)
    _same_rows(step)
    _same_channels(step)
    if op.kind in BINARY:
        for name in op.inputs:
            tensor = graph.tensors[name]
            if tensor.data is not None or tensor.shape != graph.tensors[op.output].shape:
                raise PlanError("tiles of two inputs that are not activations of one shape")
    return seen, made, None


def _embedding(graph: Graph, op: Op, step: Step) -> tuple[Grid, Grid, Share | None]:
    _whole_sums(op, step)
    _same_rows(step)
    count = math.prod(graph.tensors[op.inputs[0]].shape)
    entry = math.prod(graph.tensors[op.inputs[1]].shape[1:])
    return Grid(count, 1, 1), Grid(count, 1, entry), None


_RULES: dict[OpKind, Rule] = {
    OpKind.CONV2D: _conv,
    OpKind.DEPTHWISE_CONV2D: _depthwise,
    OpKind.FULLY_CONNECTED: _dense,
    OpKind.MAX_POOL: _pool,
    OpKind.AVG_POOL: _pool,
    OpKind.MEAN: _mean,
    OpKind.EMBEDDING: _embedding,
    **dict.fromkeys(_ELEMENTS, _elements),
}
