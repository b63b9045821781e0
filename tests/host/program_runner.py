"""Runs the moves of a program in numpy on stores of real bytes: what the steps would compute.

The arithmetic of a box is the reference's for one operator (ir/int8_ops.py, float_ops.py) on the
piece of the input and the slice of the constants that the move names. Beside the values it counts
how often each weight is used and each element of an output is finished.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fieldloop.ir import fixed_math as fm
from fieldloop.ir.float_ops import run_float_op
from fieldloop.ir.graph import Graph
from fieldloop.ir.int8_ops import dequantize, quantize, run_int8_op
from fieldloop.ir.moves import run_move
from fieldloop.ir.op import BINARY, MOVES, MeanFixed, Op, OpKind, Requant
from fieldloop.ir.tensor import Array, DType, Tensor
from fieldloop.ir.windows import convolve
from fieldloop.plan.maps import map_of
from fieldloop.plan.program import Move, Piece, Program, activations
from fieldloop.plan.types import StepKind


class Runner:
    """The stores of a program, full of garbage until moves write them."""

    def __init__(self, graph: Graph, program: Program, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.graph = graph
        self.program = program
        self.stores = [rng.integers(0, 256, s.bytes).astype(np.uint8) for s in program.stores]
        self.weights_used = {
            i: np.zeros(graph.tensors[op.inputs[1]].shape, np.int64)
            for i, op in enumerate(graph.ops)
            if op.kind in (OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D, OpKind.FULLY_CONNECTED)
        }
        self.finished: dict[int, Array] = {}  # operator -> times, [rows, channels]

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """What stays at the end, for one sample."""
        for name, value in inputs.items():
            place = self.program.places[name]
            self.write(place, value.reshape(1, -1), self.graph.tensors[name].dtype)
        for move in self.program.moves:
            if move.kind is StepKind.OP:
                self._whole(move)
            else:
                assert move.kind is StepKind.TILE
                self._tile(move)
        return {name: self.tensor(name) for name in self.program.stays}

    def tensor(self, name: str) -> Array:
        tensor = self.graph.tensors[name]
        return self.read(self.program.places[name], tensor.dtype).reshape(tensor.shape)

    def _bytes(self, piece: Piece) -> Array:
        """Where the bytes of a piece lie in its store: [pixels, channels * size]."""
        assert piece.offset >= 0
        assert piece.end <= len(self.stores[piece.store])
        assert piece.offset % piece.size == 0
        assert self.program.stores[piece.store].alignment % piece.size == 0
        starts = piece.offset + np.arange(piece.pixels) * piece.step * piece.size
        return starts[:, None] + np.arange(piece.channels * piece.size)

    def read(self, piece: Piece, dtype: DType) -> Array:
        """Elements [pixels, channels]."""
        assert dtype.bytes == piece.size
        raw = np.ascontiguousarray(self.stores[piece.store][self._bytes(piece)])
        return raw.view(dtype.value)

    def write(self, piece: Piece, value: Array, dtype: DType) -> None:
        assert dtype.bytes == piece.size
        made = np.ascontiguousarray(value, dtype.value)
        assert made.shape == (piece.pixels, piece.channels)
        self.stores[piece.store][self._bytes(piece)] = made.view(np.uint8)

    def _whole(self, move: Move) -> None:
        op = self.graph.ops[move.op]
        values = self._constants(op)
        for name, piece in zip(activations(self.graph, op), move.reads, strict=True):
            dtype = self.graph.tensors[name].dtype
            values[name] = _wide(self.read(piece, dtype)).reshape(self.graph.tensors[name].shape)
        made = _compute(op, dict(self.graph.tensors), values)
        assert move.y is not None
        self.write(move.y, made.reshape(1, -1), self.graph.tensors[op.output].dtype)
        if move.op in self.weights_used:
            self.weights_used[move.op] += 1

    def _constants(self, op: Op) -> dict[str, Array]:
        made = {}
        for name in op.inputs:
            data = self.graph.tensors[name].data
            if data is not None:
                made[name] = _wide(data)
        return made

    # ---- boxes

    def _tile(self, move: Move) -> None:
        graph, op = self.graph, self.graph.ops[move.op]
        assert move.x is not None
        assert move.y is not None
        assert (move.out.row, move.inp.row) == (0, 0)  # these programs cut channels, not rows
        x = _wide(self.read(move.x, graph.tensors[op.inputs[0]].dtype))
        if op.kind is not OpKind.EMBEDDING:
            assert x.shape[1] == move.inp.channels
        self._count_weights(move, op)
        out = graph.tensors[op.output]
        if move.partial:
            self._sum(move, op, x)
            if not move.last:
                return
        else:
            made = self._box(move, op, x)
            self.write(move.y, made.reshape(move.y.pixels, move.y.channels), out.dtype)
        seen = map_of(out.shape)
        assert seen is not None
        times = self.finished.setdefault(move.op, np.zeros((seen.rows, seen.channels), np.int64))
        channels = slice(move.out.channel, move.out.channel + move.out.channels)
        times[: move.out.rows, channels] += 1

    def _box(self, move: Move, op: Op, x: Array) -> Array:
        """The elements of a box, in the shape that the operator gives them."""
        graph = self.graph
        tensors = dict(graph.tensors)
        values = self._constants(op)
        out = tensors[op.output]
        seen = map_of(out.shape)
        assert seen is not None
        channels = slice(move.out.channel, move.out.channel + move.out.channels)
        x_name = op.inputs[0]
        if op.kind is OpKind.FULLY_CONNECTED:
            assert move.map_hw == (1, 1)
            x_shape: tuple[int, ...] = (move.inp.rows, move.inp.channels)
            y_shape: tuple[int, ...] = (move.out.rows, move.out.channels)
        elif op.kind is OpKind.EMBEDDING:
            x_shape, y_shape = (move.inp.rows,), (move.out.rows, move.out.channels)
            values[op.inputs[1]] = values[op.inputs[1]][:, channels]
        elif op.window is None:
            x_shape = y_shape = (1, move.out.rows, seen.width, move.out.channels)
        else:
            width = tensors[x_name].shape[2]
            x_shape = (1, move.inp.rows, width, move.inp.channels)
            y_shape = (1, move.out.rows, seen.width, move.out.channels)
        if op.kind in BINARY:
            assert move.z is not None
            other = self.read(move.z, tensors[op.inputs[1]].dtype)
            values[op.inputs[1]] = _wide(other).reshape(x_shape)
        values[x_name] = x.reshape(x_shape)
        if op.inputs[0] == op.inputs[-1] and op.kind in BINARY:
            assert move.x == move.z
        if op.kind in (OpKind.CONV2D, OpKind.FULLY_CONNECTED):
            values[op.inputs[1]] = values[op.inputs[1]][channels]
        elif op.kind is OpKind.DEPTHWISE_CONV2D:
            values[op.inputs[1]] = values[op.inputs[1]][..., channels]
        if move.op in self.weights_used and len(op.inputs) > 2:
            values[op.inputs[2]] = values[op.inputs[2]][channels]
        if isinstance(op.fixed, Requant) and len(op.fixed.factors) > 1:
            op = replace(op, fixed=replace(op.fixed, factors=op.fixed.factors[channels]))
        tensors[x_name] = replace(tensors[x_name], shape=x_shape)
        tensors[op.output] = replace(out, shape=y_shape)
        return _compute(op, tensors, values)

    def _sum(self, move: Move, op: Op, x: Array) -> None:
        """Adds a part to its accumulators, and finishes them after the last."""
        tensors = self.graph.tensors
        real = tensors[op.output].dtype is DType.FLOAT32
        kind = DType.FLOAT32 if real else DType.INT32
        quant = tensors[op.inputs[0]].quant
        assert move.y is not None
        zero = 0 if quant is None else quant.zero_point
        x = x.astype(np.float64) - zero  # sums of int8 products are exact in float64
        if op.kind is OpKind.MEAN:
            added = x.sum(axis=0, keepdims=True)
        else:
            added = self._weighted_sum(move, op, x)
        if not move.first:
            added = added + self.read(move.y, kind)
        self.write(move.y, added if real else fm.wrap32(added.astype(np.int64)), kind)
        if move.last:
            assert move.z is not None
            made = self._finish(move, op, _wide(self.read(move.y, kind)))
            self.write(move.z, made, tensors[op.output].dtype)

    def _weighted_sum(self, move: Move, op: Op, x: Array) -> Array:
        """[pixels, channels] of the part of a fan-in."""
        w = self._constants(op)[op.inputs[1]].astype(np.float64)
        quant = self.graph.tensors[op.inputs[1]].quant
        if quant is not None:
            w = w - quant.zero_point
        part = slice(move.inp.channel, move.inp.channel + move.inp.channels)
        assert (move.out.channel, move.out.channels) == (0, w.shape[0])
        if op.kind is OpKind.FULLY_CONNECTED:
            assert move.inp.rows == move.map_hw[0]
            columns = w.reshape(w.shape[0], *move.map_hw, -1)[..., part]
            return x.reshape(1, -1) @ columns.reshape(w.shape[0], -1).T
        assert op.window is not None
        out = self.graph.tensors[op.output].shape
        width = self.graph.tensors[op.inputs[0]].shape[2]
        image = x.reshape(1, move.inp.rows, width, -1)
        made = convolve(op, image, w[..., part], (move.out.rows, out[2]))
        return made.reshape(-1, made.shape[3])

    def _finish(self, move: Move, op: Op, total: Array) -> Array:
        tensors = self.graph.tensors
        out = tensors[op.output]
        if op.kind is OpKind.MEAN:
            seen = map_of(tensors[op.inputs[0]].shape)
            assert seen is not None
            if out.dtype is DType.FLOAT32:
                return np.clip(total / (seen.rows * seen.width), op.clamp.lo, op.clamp.hi)
            assert isinstance(op.fixed, MeanFixed)
            y = fm.requantize(total, op.fixed.out.multiplier, op.fixed.out.shift)
        else:
            if len(op.inputs) > 2:
                total = total + self._constants(op)[op.inputs[2]]
            if out.dtype is DType.FLOAT32:
                return np.clip(total, op.clamp.lo, op.clamp.hi)
            assert isinstance(op.fixed, Requant)
            total = fm.wrap32(total)
            multipliers = np.array([f.multiplier for f in op.fixed.factors], np.int64)
            shifts = np.array([f.shift for f in op.fixed.factors], np.int64)
            scale = fm.requantize_once if op.fixed.single_rounding else fm.requantize
            y = scale(total, multipliers, shifts)
        assert out.quant is not None
        y = y + out.quant.zero_point
        return np.clip(y, op.fixed.act_min, op.fixed.act_max)

    def _count_weights(self, move: Move, op: Op) -> None:
        if move.op not in self.weights_used:
            return
        used = self.weights_used[move.op]
        channels = slice(move.out.channel, move.out.channel + move.out.channels)
        part = slice(move.inp.channel, move.inp.channel + move.inp.channels)
        if op.kind is OpKind.DEPTHWISE_CONV2D:
            used[..., channels] += 1
        elif op.kind is OpKind.CONV2D:
            used[channels, :, :, part] += 1
        else:
            columns = used.reshape(used.shape[0], *move.map_hw, -1)  # a view
            columns[channels, :, :, part] += 1


def _wide(value: Array) -> Array:
    """As the reference has it between operators: real numbers in float64."""
    if value.dtype == np.float32:
        return value.astype(np.float64)
    return value.astype(np.int64) if value.dtype == np.int32 else value


def _compute(op: Op, tensors: dict[str, Tensor], values: dict[str, Array]) -> Array:
    if op.kind in MOVES or op.kind is OpKind.EMBEDDING:
        return run_move(op, tensors, values)
    if op.kind is OpKind.QUANTIZE:
        return quantize(values[op.inputs[0]], tensors[op.output])
    if op.kind is OpKind.DEQUANTIZE:
        return dequantize(values[op.inputs[0]], tensors[op.inputs[0]])
    if tensors[op.output].dtype is DType.INT8:
        return run_int8_op(op, tensors, values)
    return run_float_op(op, tensors, values)
