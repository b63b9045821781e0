"""Which quantisation each activation gets, and which tensors have to share one.

A move or a pool hands on what it reads: its output has its input's quantisation, so their tensors
form a class. Concatenations, minima and maxima want one quantisation for all they read; a value
that is read by nobody else joins their class, another one keeps its own and is looked up in a
table on the way. A class holds the ranges of those of its tensors that something computes.

Fixed by what computes them: a softmax ends at 1/256, -128 (the kernel), a sigmoid at the same and
a tanh at 1/128, 0 (their whole range, to the step). What feeds only one of those two is cut where
they do not change any more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import POOLS, WEIGHTED, Op, OpKind, Pad, Unary, UnaryKind
from fieldloop.ir.tensor import DType, Quant, as_float32
from fieldloop.quantize.calibrate import Range
from fieldloop.quantize.weights import CHANNEL_AXIS, SMALLEST_SCALE, weight_quant

SOFTMAX_OUTPUT = Quant((1.0 / 256.0,), -128)
INHERITS = POOLS | {OpKind.RESHAPE, OpKind.PAD, OpKind.TRANSPOSE, OpKind.SLICE}
UNIFIES = frozenset({OpKind.CONCAT, OpKind.MINIMUM, OpKind.MAXIMUM})
_WHOLE = {UnaryKind.SIGMOID: (0.0, 255.0 / 256.0), UnaryKind.TANH: (-1.0, 127.0 / 128.0)}
_ENDS = {UnaryKind.SIGMOID: 6.25, UnaryKind.TANH: 3.2}
# A value that others read, too, may give away this much of its resolution to join.
_JOINS_AT = 1.25
# Padding further out than this many times the range stands for infinity, and saturates.
_FAR = 16.0
# Largest factors to an output's scale: beyond, one step of the input is many of the output's.
_MOST, _MOST_WEIGHTED = 2.0**18, 2.0**8
_LEAST_SOFTMAX_SCALE = 2.0**-24


def activation_quant(lo: float, hi: float) -> Quant:
    """Asymmetric int8 for real values in [lo, hi], widened to hold zero exactly."""
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    if not math.isfinite(hi - lo):
        raise UsageError(f"range: expected finite ends, got {lo} to {hi}")
    if hi - lo < 255.0 * SMALLEST_SCALE:
        return Quant((as_float32(1.0 / 255.0),), 0)  # always zero: any scale will do
    scale = as_float32((hi - lo) / 255.0)
    zero_point = int(np.clip(np.rint(-128.0 - lo / scale), -128, 127))
    return Quant((scale,), zero_point)


@dataclass(slots=True)
class _Class:
    """Tensors of one quantisation."""

    members: set[str]
    lo: float = 0.0
    hi: float = 0.0
    fixed: Quant | None = None
    least_scale: float = field(default=0.0)

    def quant(self) -> Quant:
        if self.fixed is not None:
            return self.fixed
        made = activation_quant(self.lo, self.hi)
        if made.scale >= self.least_scale:
            return made
        return Quant((as_float32(self.least_scale),), made.zero_point)

    def widened(self, other: _Class) -> float:
        """How many times wider the range is together with the other's."""
        own = self.hi - self.lo
        both = max(self.hi, other.hi) - min(self.lo, other.lo)
        return both / own if own > 0.0 else math.inf


def activation_quants(
    graph: Graph, ranges: Mapping[str, Range], headroom: Mapping[str, float]
) -> dict[str, Quant]:
    """A quantisation for every float32 activation of a graph."""
    return _Assignment(graph, ranges, headroom).run()


class _Assignment:
    def __init__(
        self, graph: Graph, ranges: Mapping[str, Range], headroom: Mapping[str, float]
    ) -> None:
        self.graph = graph
        self.ranges = ranges
        self.headroom = headroom
        self.of: dict[str, _Class] = {}
        self.readers: dict[str, list[Op]] = {}
        for op in graph.ops:
            for name in op.inputs:
                self.readers.setdefault(name, []).append(op)

    def run(self) -> dict[str, Quant]:
        unknown = sorted(set(self.headroom) - set(self.ranges))
        if unknown:
            raise UsageError(f"headroom: {unknown[0]} is no float activation of the graph")
        graph = self.graph
        for name in graph.inputs:
            if graph.tensors[name].dtype is DType.FLOAT32:
                self.of[name] = _Class({name}, *self._calibrated(name))
        for op in graph.ops:
            if graph.tensors[op.output].dtype is DType.FLOAT32:
                self._output(op)
        for op in graph.ops:
            if op.kind in UNIFIES and op.output in self.of:
                self._unify(op)
        self._floors()
        return {name: self.of[name].quant() for name in self.of}

    def _output(self, op: Op) -> None:
        if op.kind in INHERITS:
            shared = self.of[op.inputs[0]]
            shared.members.add(op.output)
            self.of[op.output] = shared
            if isinstance(op.attrs, Pad) and shared.fixed is None:
                value = op.attrs.value
                if abs(value) <= _FAR * max(-shared.lo, shared.hi):
                    shared.lo, shared.hi = min(shared.lo, value), max(shared.hi, value)
            return
        made = _Class({op.output})
        if op.kind is OpKind.SOFTMAX:
            made.fixed = SOFTMAX_OUTPUT
            made.hi = 255.0 / 256.0
        elif isinstance(op.attrs, Unary) and op.attrs.kind in _WHOLE:
            made.lo, made.hi = _WHOLE[op.attrs.kind]
        elif op.kind is OpKind.EMBEDDING:
            table = self.graph.tensors[op.inputs[1]].data
            assert table is not None
            made.lo, made.hi = min(float(table.min()), 0.0), max(float(table.max()), 0.0)
        else:
            made.lo, made.hi = self._calibrated(op.output)
        self.of[op.output] = made

    def _calibrated(self, name: str) -> tuple[float, float]:
        room = self.headroom.get(name, 1.0)
        if not room >= 1.0:
            raise UsageError(f"headroom of {name}: expected a factor >= 1, got {room}")
        lo, hi = min(self.ranges[name].lo * room, 0.0), max(self.ranges[name].hi * room, 0.0)
        readers = self.readers.get(name, [])
        if len(readers) == 1 and name not in self.graph.outputs:
            attrs = readers[0].attrs
            end = _ENDS.get(attrs.kind) if isinstance(attrs, Unary) else None
            if end is not None:
                lo, hi = max(lo, -end), min(hi, end)
        return lo, hi

    def _unify(self, op: Op) -> None:
        made = self.of[op.output]
        given = [self.of[name] for name in op.inputs if name in self.of]
        constants = any(self.graph.tensors[name].is_constant for name in op.inputs)
        if given[0].fixed is not None and not constants:
            if all(each.fixed == given[0].fixed for each in given):
                for each in given:
                    self._join(self.of[op.output], each)
            return
        for each in given:
            made = self.of[op.output]
            if each is made or each.fixed is not None or made.fixed is not None:
                continue
            if self._feeds_only(each, op):
                # The extremum of what is cut to the output's range is the extremum, cut.
                self._join(made, each, widens=op.kind is OpKind.CONCAT)
            elif each.widened(made) <= _JOINS_AT:
                self._join(made, each)

    def _feeds_only(self, given: _Class, op: Op) -> bool:
        """Whether nothing that computes reads a class but `op`, and nobody outside."""
        for name in given.members:
            if name in self.graph.outputs or name in self.graph.inputs:
                return False
            for reader in self.readers.get(name, []):
                if reader is not op and reader.output not in given.members:
                    return False
        return True

    def _join(self, made: _Class, other: _Class, *, widens: bool = True) -> None:
        if made is other:
            return
        if widens:
            made.lo, made.hi = min(made.lo, other.lo), max(made.hi, other.hi)
        made.fixed = made.fixed or other.fixed
        made.members |= other.members
        for name in other.members:
            self.of[name] = made

    def _floors(self) -> None:
        """Raises scales that are too small for what is computed into them, or out of them."""
        for _ in range(len(self.graph.ops)):
            changed = False
            for op in self.graph.ops:
                target, least = self._least(op)
                if target is None or target.fixed is not None:
                    continue
                if target.quant().scale < least * (1.0 - 1e-6):
                    target.least_scale = least
                    changed = True
            if not changed:
                break

    def _least(self, op: Op) -> tuple[_Class | None, float]:
        """A class, and the smallest scale that an operator lets it have."""
        name = next((name for name in op.inputs if name in self.of), None)
        if op.output not in self.of or name is None:
            return None, 0.0
        x, out = self.of[name], self.of[op.output]
        if op.kind is OpKind.SOFTMAX:
            return x, _LEAST_SOFTMAX_SCALE
        if op.kind in (OpKind.ADD, OpKind.SUB):
            return out, max(self._scale(name) for name in op.inputs) / _MOST
        if op.kind is OpKind.MUL:
            return out, self._scale(op.inputs[0]) * self._scale(op.inputs[1]) / _MOST
        if op.kind is OpKind.MEAN:
            return out, x.quant().scale / _MOST
        if op.kind in WEIGHTED:
            w = self.graph.tensors[op.inputs[1]].data
            assert w is not None
            top = max(weight_quant(w, CHANNEL_AXIS[op.kind]).scales)
            return out, x.quant().scale * top / _MOST_WEIGHTED
        return None, 0.0

    def _scale(self, name: str) -> float:
        """The scale of an operand, which may be a constant."""
        if name in self.of:
            return self.of[name].quant().scale
        data = self.graph.tensors[name].data
        assert data is not None
        return activation_quant(float(data.min()), float(data.max())).scale
