"""Which chains of operators run in slices of channels, and what a slice of each is.

    fan-out          channel by channel           fan-in
    whole -> slice   slice -> slice -> slice  ->  sums of the whole output
                                      or     ->  the slice's place in the whole output

A fan-out reads its whole input and makes some channels (rows of its weights). What follows works
on each channel alone. A fan-in adds one slice's share to accumulators (columns of its weights).
So no weight is read twice and nothing is computed twice, however many parts there are. A path may
also begin in the middle: slices of a whole tensor are read where they lie.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import BINARY, POOLS, Mean, Op, OpKind
from fieldloop.ir.tensor import DType, Tensor
from fieldloop.plan.maps import MAX_FIELD, Map, map_of, rows_needed
from fieldloop.plan.parts import shares
from fieldloop.plan.program import IN_PLACE, CannotTileError, root_of

ELEMENTWISE = BINARY | {OpKind.TABLE, OpKind.UNARY, OpKind.QUANTIZE, OpKind.DEQUANTIZE}
_INSIDE = ELEMENTWISE | POOLS | {OpKind.DEPTHWISE_CONV2D, OpKind.MEAN, OpKind.RESHAPE}


class Role(enum.Enum):
    """What an operator does with slices."""

    FAN_OUT = "fan-out"  # reads all channels, makes a slice
    SLICE = "slice"  # makes a slice from the slice of the same channels
    FAN_IN = "fan-in"  # adds a slice's share to the sums of its whole output


@dataclass(frozen=True, slots=True)
class Stage:
    """One operator of a path, reshapes left out.

    `index`: in the graph's order. `x`, `y`: the maps it reads and writes, of which the first
    `x_rows`, `y_rows` rows matter. `x_per`, `y_per`: channels of a slice for each unit that is cut
    (SLICE, FAN_IN: x; FAN_OUT, SLICE: y). `inside`: inputs that are slices, by position.
    `in_place`: a slice may be written where that of its first input lies.
    """

    index: int
    role: Role
    x: Map
    y: Map
    x_rows: int
    y_rows: int
    x_per: int
    y_per: int
    inside: tuple[bool, ...]
    in_place: bool


@dataclass(frozen=True, slots=True)
class ChannelPath:
    """A chain that is cut into slices of `units`: channels, or several that stay together."""

    stages: tuple[Stage, ...]
    units: int

    def cuts(self, parts: int) -> tuple[tuple[int, int], ...]:
        """(first, count) of each part: the wider ones come first, and differ by one."""
        if not 1 <= parts <= self.units:
            raise CannotTileError(f"{self.units} channels do not make {parts} parts")
        return shares(self.units, parts)


def channel_path(
    graph: Graph, first: int, last: int, keep: frozenset[str] = frozenset()
) -> ChannelPath:
    """Operators first to last (both included) as a path; CannotTileError where they are none.

    `keep`: tensors that must stay whole, as outputs do.
    """
    if not 0 <= first < last < len(graph.ops):
        raise CannotTileError(f"operators {first} to {last} are no chain")
    for index in range(first, last):
        _check_link(graph, index, keep)
    drafts = list(_drafts(graph, first, last))
    units = drafts[0].y.channels // drafts[0].y_per
    return ChannelPath(tuple(_only_needed(graph, drafts)), units)


# ---- from operators to stages


def _refuse(op: Op, why: str) -> CannotTileError:
    return CannotTileError(f"{op.name} ({op.kind.value}): {why}")


def _check_link(graph: Graph, index: int, keep: frozenset[str]) -> None:
    """The output of an operator is read by the next one alone, and nobody else wants it."""
    op, after = graph.ops[index], graph.ops[index + 1]
    if graph.consumers(op.output) != (after,):
        raise _refuse(op, f"its output is not for {after.name} alone")
    if op.output in graph.outputs or op.output in keep:
        raise _refuse(op, "its output must stay whole")


def _map(op: Op, tensor: Tensor) -> Map:
    made = map_of(tensor.shape)
    if made is None:
        raise _refuse(op, "several samples of a map")
    if max(made.rows, made.width, made.channels) > MAX_FIELD:
        raise _refuse(op, "its map is too large for a step")
    if tensor.dtype is DType.INT32:
        raise _refuse(op, "integers of 32 bits")
    return made


def _drafts(graph: Graph, first: int, last: int) -> Iterator[Stage]:
    """The stages, each with all its rows."""
    at: Stage | None = None  # the stage before
    flat = False  # a reshape hides the channels from what follows
    for index in range(first, last + 1):
        op = graph.ops[index]
        if op.kind is OpKind.RESHAPE:
            if at is None or index == last:
                raise _refuse(op, "a path neither begins nor ends with a reshape")
            flat = graph.tensors[op.output].shape[-1] != at.y.channels
            continue
        if at is None:
            at = _fan_out(graph, index) or _slice(graph, index, None)
        elif op.kind in (OpKind.CONV2D, OpKind.FULLY_CONNECTED):
            if index != last:
                raise _refuse(op, "a fan-in ends a path")
            if flat and op.kind is not OpKind.FULLY_CONNECTED:
                raise _refuse(op, "a reshape before it mixes the channels")
            at = _fan_in(graph, index, at)
        elif flat:
            raise _refuse(op, "a reshape before it mixes the channels")
        else:
            at = _slice(graph, index, at)
        yield at


def _fan_out(graph: Graph, index: int) -> Stage | None:
    """A stage that reads all channels; None for an operator that needs only its slice's."""
    op = graph.ops[index]
    x, out = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    if op.kind is OpKind.CONV2D:
        if op.groups > 1:
            raise _refuse(op, "a convolution in groups")
        seen = _map(op, x)
    elif op.kind is OpKind.FULLY_CONNECTED:
        seen = Map(out.shape[0], 1, x.size // out.shape[0])
        if max(seen.rows, seen.channels) > MAX_FIELD:
            raise _refuse(op, "its input is too large for a step")
    elif op.kind is OpKind.EMBEDDING:
        seen = Map(x.size, 1, 1)
        made = _map(op, out)
        if len(graph.tensors[op.inputs[1]].shape) != 2 or (made.rows, made.width) != (x.size, 1):
            raise _refuse(op, "its entries are not rows of channels")
    elif op.kind is OpKind.DEPTHWISE_CONV2D and x.shape[-1] == 1:
        seen = _map(op, x)
    else:
        return None
    y = _map(op, out)
    return Stage(index, Role.FAN_OUT, seen, y, seen.rows, y.rows, 0, 1, (False,), False)


def _slice(graph: Graph, index: int, before: Stage | None) -> Stage:
    """A stage that works channel by channel; `before` made its slice, None: its input is whole."""
    op = graph.ops[index]
    if op.kind not in _INSIDE:
        raise _refuse(op, "does not work channel by channel")
    names = op.inputs[:2] if op.kind in BINARY else op.inputs[:1]
    tensors = [graph.tensors[name] for name in names]
    out = graph.tensors[op.output]
    x, y = _map(op, tensors[0]), _map(op, out)
    if op.kind in BINARY and any(t.is_constant or t.shape != out.shape for t in tensors):
        raise _refuse(op, "its inputs are not two activations of one shape")
    if isinstance(op.attrs, Mean):
        dims = len(tensors[0].shape)
        rest = [i for i in range(dims - 1) if tensors[0].shape[i] > 1]
        if dims - 1 in op.attrs.axes or not set(rest) <= set(op.attrs.axes):
            raise _refuse(op, "does not average all pixels of each channel")
    sliced = None if before is None else graph.ops[index - 1].output
    inside = tuple(name == sliced for name in names)
    x_per = 1 if before is None else before.y_per
    y_per = x_per * (y.channels // x.channels)
    in_place = op.kind in IN_PLACE and inside in ((True,), (True, False))
    return Stage(index, Role.SLICE, x, y, x.rows, y.rows, x_per, y_per, inside, in_place)


def _fan_in(graph: Graph, index: int, before: Stage) -> Stage:
    op = graph.ops[index]
    out = graph.tensors[op.output]
    if op.kind is OpKind.CONV2D:
        x = _map(op, graph.tensors[op.inputs[0]])
        if op.groups > 1:
            raise _refuse(op, "a convolution in groups")
    else:
        x = before.y  # columns of the weights: pixels of channels, as before any reshape
        if out.shape[0] != 1:
            raise _refuse(op, "sums of several samples")
    y = _map(op, out)
    taps = (x.rows, x.width) if op.window is None else op.window.kernel
    if out.dtype is DType.FLOAT32 and taps != (1, 1):
        # The whole kernel adds tap by tap; slices would add channel by channel.
        raise _refuse(op, "its sums of real numbers would be added in another order")
    return Stage(index, Role.FAN_IN, x, y, x.rows, y.rows, before.y_per, 0, (True,), False)


def _only_needed(graph: Graph, drafts: list[Stage]) -> list[Stage]:
    """Rows of slices that no later operator reads (below the last window) are not made."""
    made: list[Stage] = []
    below: Stage | None = None  # the stage that reads what this one makes
    for stage in reversed(drafts):
        wanted = stage.y.rows if below is None or below.x != stage.y else below.x_rows
        op = graph.ops[stage.index]
        x_rows = stage.x.rows
        if op.kind is not OpKind.MEAN and not (
            op.kind is OpKind.FULLY_CONNECTED and stage.role is Role.FAN_IN
        ):
            x_rows = rows_needed(op.window, 0, wanted, x_rows)[1]
        below = replace(stage, x_rows=x_rows, y_rows=wanted)
        made.append(below)
    return made[::-1]


def outside(graph: Graph, stage: Stage) -> tuple[str, ...]:
    """Roots of the whole tensors that a stage reads beside its slices."""
    names = graph.ops[stage.index].inputs
    return tuple(
        root_of(graph, names[i]) for i, is_slice in enumerate(stage.inside) if not is_slice
    )
