"""Paths that can be computed some rows at a time: which operators, and which rows when.

A path is a stretch of the graph's order, chain or not: what it makes for itself alone never exists
whole. Rows of its last operator are asked for, a few an iteration, and every operator before makes
the rows that this takes:

* with a cache (streaming fusion), each row is made once; the rows that a later iteration needs
  again stay in a window,
* without (FFMT, feature-map tiles), the rows where two tiles overlap, the halo, are made twice.

The last operator may also be a sum over all rows (a pool or mean over the whole map, a fully
connected layer): then the rows of its input are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import BINARY, WEIGHTED, WINDOWED, Mean, Op, OpKind, Window
from fieldloop.ir.shapes import macs
from fieldloop.ir.tensor import Tensor
from fieldloop.plan.maps import MAX_FIELD, Map, map_of, op_window
from fieldloop.plan.program import IN_PLACE, CannotTileError, activations, lives, root_of

Rows = npt.NDArray[np.int64]

_ROW_BY_ROW = BINARY | {
    OpKind.TABLE,
    OpKind.UNARY,
    OpKind.QUANTIZE,
    OpKind.DEQUANTIZE,
    OpKind.EMBEDDING,
}


@dataclass(frozen=True, slots=True)
class Stage:
    """One operator of a path. `reads`, `makes`: the tensors that own the bytes (roots)."""

    index: int
    op: Op
    window: Window | None
    reads: tuple[str, ...]
    makes: str
    inp: Map
    out: Map
    sums: bool  # over all rows of the input: the end of the path
    macs: int
    firsts: Rows  # [row]: first input row that output row `row` reads; beyond the last one: all
    ends: Rows  # [end]: behind the last input row that output rows below `end` read

    @property
    def height(self) -> int:
        """Rows that are asked for: of the output, or of the input that it sums."""
        return self.inp.rows if self.sums else self.out.rows

    def macs_of(self, rows: int) -> int:
        """Multiply-accumulates of so many of these rows."""
        return self.macs // self.height * rows


def _reach(window: Window | None, inp: Map, out: Map) -> tuple[Rows, Rows]:
    """Stage.firsts and Stage.ends."""
    rows = np.arange(out.rows + 1, dtype=np.int64)
    if window is None:
        return rows, rows
    top, stride, extent = window.pads[0], window.stride[0], window.extent[0]
    firsts = np.maximum(0, rows * stride - top)
    firsts[-1] = inp.rows
    ends = np.clip((rows - 1) * stride - top + extent, 0, inp.rows)
    ends[0] = 0
    return firsts, ends


@dataclass(frozen=True, slots=True)
class RowPath:
    """Operators first..last of the graph's order, row by row."""

    graph: Graph
    first: int
    last: int
    turned: bool
    stages: tuple[Stage, ...]
    given: tuple[str, ...]  # roots from outside that are read
    inner: tuple[str, ...]  # roots made here and needed nowhere else
    outer: tuple[str, ...]  # roots made here that others need whole, the last operator's included
    shared: dict[str, str]  # inner root -> the root in whose rows it lives: an operator in place

    @property
    def sums(self) -> bool:
        return self.stages[-1].sums

    @property
    def height(self) -> int:
        """Rows that the last operator is asked for."""
        return self.stages[-1].height


def row_path(graph: Graph, first: int, last: int, keep: frozenset[str] = frozenset()) -> RowPath:
    """The path of operators first..last; CannotTileError where there is none."""
    ops = graph.ops[first : last + 1]
    if ops[-1].kind is OpKind.RESHAPE:
        raise CannotTileError(f"{ops[-1].name} moves nothing")
    turned = _is_turned(graph, ops)
    made: dict[str, Map] = {}
    stages = []
    for index, op in enumerate(ops, start=first):
        if op.kind is OpKind.RESHAPE:
            continue
        stages.append(_stage(graph, index, op, turned, made, is_last=index == last))
        made[stages[-1].makes] = stages[-1].out
    life = lives(graph, keep)
    outer = [name for name in dict.fromkeys(s.makes for s in stages) if life[name].last > last]
    end = stages[-1].makes
    if end not in outer:
        raise CannotTileError(f"{end} is read by nobody behind {ops[-1].name}")
    read_here = {name for s in stages for name in s.reads}
    for name in outer:
        if name != end and name not in read_here:
            raise CannotTileError(f"{name} and {end} are two ends")
    given = tuple(dict.fromkeys(n for s in stages for n in s.reads if n not in made))
    inner = tuple(s.makes for s in stages if s.makes not in outer)
    for name in inner:
        if name not in read_here:
            raise CannotTileError(f"{name} is read by nobody")
    return RowPath(
        graph,
        first,
        last,
        turned,
        tuple(stages),
        given,
        inner,
        tuple(outer),
        _shared(stages, inner),
    )


def _is_turned(graph: Graph, ops: tuple[Op, ...]) -> bool:
    """Maps of one row: their columns are the rows."""
    windowed = [op for op in ops if op.kind in WINDOWED]
    if not windowed:
        return False
    shape = graph.tensors[windowed[0].inputs[0]].shape
    return shape[1] == 1 and shape[2] > 1


def _shared(stages: list[Stage], inner: tuple[str, ...]) -> dict[str, str]:
    """Roots that live in the rows of what an operator makes of them in place."""
    readers: dict[str, int] = {}
    for stage in stages:
        for name in stage.reads:
            readers[name] = readers.get(name, 0) + 1
    shared = {}
    for stage in stages:
        x = stage.reads[0]
        if stage.op.kind in IN_PLACE and x in inner and readers[x] == 1 and stage.inp == stage.out:
            shared[x] = stage.makes
    return shared


def _stage(
    graph: Graph, index: int, op: Op, turned: bool, made: Mapping[str, Map], *, is_last: bool
) -> Stage:
    """`made`: the maps of the roots that operators of the path before this one make."""

    def refuse(why: str) -> CannotTileError:
        return CannotTileError(f"{op.name} ({op.kind.value}): {why}")

    tensors = graph.tensors
    names = activations(graph, op)
    x, y = tensors[op.inputs[0]], tensors[op.output]
    out, inp = _seen(y, turned), _seen(x, turned)
    sums = False
    if inp is None or out is None:
        raise refuse("several samples")
    if op.kind in BINARY:
        if len(names) != 2 or any(tensors[n].shape != y.shape for n in names):
            raise refuse("its inputs have other shapes than its output")
        if names[0] == names[1]:
            raise refuse("both inputs are one tensor")
    elif op.kind is OpKind.EMBEDDING:
        inp = Map(x.size, 1, 1)
        if out.rows * out.width != x.size:
            raise refuse("its output has no row for each index")
        out = Map(x.size, 1, out.channels)
        if tensors[op.inputs[1]].size // tensors[op.inputs[1]].shape[0] != out.channels:
            raise refuse("its entries are no row of channels")
    elif op.kind is OpKind.FULLY_CONNECTED:
        if out.rows * out.width == 1 and is_last:
            inp, sums = _flattened(graph, op, turned), True
        elif turned or inp.width != 1 or inp.channels != tensors[op.inputs[1]].shape[1]:
            raise refuse("it mixes rows")
    elif op.kind is OpKind.MEAN or _is_global(op, inp, out):
        sums = is_last and _sums_rows(op, x.shape, inp, out)
        if not sums and op.kind is OpKind.MEAN:
            raise refuse("it averages over other axes than rows and columns, or is not the last")
    elif op.kind not in WINDOWED and op.kind not in _ROW_BY_ROW:
        raise refuse("it is not computed row by row")
    if op.groups > 1:
        raise refuse("groups")
    if op.kind in _ROW_BY_ROW and op.kind is not OpKind.EMBEDDING and inp != out:
        raise refuse("its input and output are not one map")
    window = None if sums else op_window(op, turned=turned)
    if turned and op.kind in WEIGHTED and op.window is not None and min(op.window.kernel) > 1:
        raise refuse("its window cannot be turned")
    if window is not None and window.pads[0] >= window.extent[0]:
        raise refuse("padding as high as its window")
    reads = tuple(root_of(graph, name) for name in names)
    if any(made.get(root, inp) != inp for root in reads):
        raise refuse("it sees other rows than the operator that makes them")
    for size in (inp.rows, inp.width, inp.channels, out.rows, out.channels):
        if size > MAX_FIELD:
            raise refuse(f"{size} is too large for a step")
    makes = root_of(graph, op.output)
    firsts, ends = _reach(window, inp, out)
    work = macs(op, tensors)
    return Stage(index, op, window, reads, makes, inp, out, sums, work, firsts, ends)


def _seen(tensor: Tensor, turned: bool) -> Map | None:
    """The map of a tensor in a path whose maps of height and width are turned."""
    return map_of(tensor.shape, turned=turned and len(tensor.shape) == 4)


def _is_global(op: Op, inp: Map, out: Map) -> bool:
    return (
        op.kind is OpKind.AVG_POOL
        and op.window is not None
        and out.rows * out.width == 1
        and sorted(op.window.kernel) == sorted((inp.rows, inp.width))
        and not any(op.window.pads)
    )


def _sums_rows(op: Op, shape: tuple[int, ...], inp: Map, out: Map) -> bool:
    if op.kind is OpKind.AVG_POOL:
        return True
    assert isinstance(op.attrs, Mean)
    others = {axis for axis in range(len(shape) - 1) if shape[axis] > 1}
    return (
        others <= set(op.attrs.axes)
        and len(shape) - 1 not in op.attrs.axes
        and out.rows * out.width == 1
        and inp.channels == out.channels
    )


def _flattened(graph: Graph, op: Op, turned: bool) -> Map:
    """The map whose elements, in their order, a fully connected layer reads."""
    root = graph.tensors[root_of(graph, op.inputs[0])]
    seen = _seen(root, turned)
    if seen is None or seen.rows * seen.row_elements != graph.tensors[op.inputs[1]].shape[1]:
        raise CannotTileError(f"{op.name} ({op.kind.value}): several samples")
    return seen
