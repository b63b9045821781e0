"""Random graphs of one operator of image version 1.1, int8, and of every operator in float32."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from single_ops import Maker as BaseMaker

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import (
    WEIGHTED,
    Clamp,
    Concat,
    Mean,
    MeanFixed,
    MulFixed,
    Op,
    OpKind,
    Pad,
    Requant,
    Slice,
    Transpose,
    Unary,
    UnaryKind,
)
from fieldloop.ir.tensor import DType, Quant, Tensor, as_float32
from fieldloop.quantize.fixedpoint import (
    activation_range,
    add_params,
    factor,
    quantize_multiplier,
)

Shape = tuple[int, ...]


class Maker(BaseMaker):
    """One method an operator; `real=True` gives the float32 operator."""

    def any_shape(self, most: int = 6) -> Shape:
        return tuple(self.int(1, most) for _ in range(self.int(1, 4)))

    def tensor(self, name: str, shape: Shape, quant: Quant | None, real: bool) -> Tensor:
        if real:
            return Tensor(name, shape, DType.FLOAT32)
        return Tensor(name, shape, DType.INT8, quant)

    def one(self, tensors: list[Tensor], op: Op) -> Graph:
        inputs = tuple(n for n in op.inputs if n in {t.name for t in tensors if t.data is None})
        return self.graph(tensors, op, inputs)

    # ---- two inputs

    def broadcast_shapes(self) -> tuple[Shape, Shape, Shape]:
        out = self.any_shape()
        shapes = []
        for _ in range(2):
            shape = tuple(1 if self.rng.random() < 0.3 else n for n in out)
            if self.rng.random() < 0.3:
                shape = shape[self.int(0, len(shape) - 1) :]
            shapes.append(shape)
        if self.rng.random() < 0.4:
            shapes = [out, out]
        made = np.broadcast_shapes(*shapes)
        return shapes[0], shapes[1], tuple(int(n) for n in made)

    def binary(self, kind: OpKind, real: bool) -> Graph:
        shapes = self.broadcast_shapes()
        a, b = self.quant(-9, 0), self.quant(-9, 0)
        clamp, fixed, out = self.clamp(), None, a
        if kind in (OpKind.MINIMUM, OpKind.MAXIMUM):
            b, clamp = a, Clamp()
            fixed = Requant(*activation_range(clamp, out))
        elif kind is OpKind.MUL:
            spread = math.log2(a.scale * b.scale)
            out = self.quant(spread - 2, spread + 14)
            real_factor = float(np.float64(a.scale) * np.float64(b.scale) / np.float64(out.scale))
            fixed = MulFixed(*activation_range(clamp, out), factor(real_factor))
        else:
            low = math.log2(max(a.scale, b.scale)) - 12
            out = self.quant(low, low + 16)
            fixed = add_params(a, b, out, clamp)
        tensors = [
            self.tensor(n, s, q, real) for n, s, q in zip("aby", shapes, (a, b, out), strict=True)
        ]
        op = Op("op", kind, ("a", "b"), "y", None, clamp, None if real else fixed)
        return self.one(tensors, op)

    def add_broadcast(self, real: bool = False) -> Graph:
        return self.binary(OpKind.ADD, real)

    def sub(self, real: bool = False) -> Graph:
        return self.binary(OpKind.SUB, real)

    def mul(self, real: bool = False) -> Graph:
        return self.binary(OpKind.MUL, real)

    def minimum(self, real: bool = False) -> Graph:
        return self.binary(OpKind.MINIMUM, real)

    def maximum(self, real: bool = False) -> Graph:
        return self.binary(OpKind.MAXIMUM, real)

    # ---- moves

    def concat(self, real: bool = False, count: int | None = None) -> Graph:
        shape, quant = self.any_shape(4), self.quant()
        axis = self.int(0, len(shape) - 1)
        tensors, total = [], 0
        for i in range(count or self.int(1, 10)):
            part = (*shape[:axis], self.int(1, 4), *shape[axis + 1 :])
            total += part[axis]
            tensors.append(self.tensor(f"x{i}", part, quant, real))
        out = (*shape[:axis], total, *shape[axis + 1 :])
        names = tuple(t.name for t in tensors)
        tensors.append(self.tensor("y", out, quant, real))
        return self.one(tensors, Op("op", OpKind.CONCAT, names, "y", attrs=Concat(axis)))

    def pad(self, real: bool = False) -> Graph:
        shape, quant = self.any_shape(), self.quant()
        before = tuple(self.int(0, 3) for _ in shape)
        after = tuple(self.int(0, 3) for _ in shape)
        q = self.int(-128, 127)
        value = (
            0.0 if self.rng.random() < 0.5 else as_float32((q - quant.zero_point) * quant.scale)
        )
        out = tuple(b + n + a for b, n, a in zip(before, shape, after, strict=True))
        tensors = [self.tensor("x", shape, quant, real), self.tensor("y", out, quant, real)]
        op = Op("op", OpKind.PAD, ("x",), "y", attrs=Pad(before, after, value))
        return self.one(tensors, op)

    def transpose(self, real: bool = False) -> Graph:
        shape, quant = self.any_shape(), self.quant()
        axes = tuple(int(i) for i in self.rng.permutation(len(shape)))
        out = tuple(shape[i] for i in axes)
        tensors = [self.tensor("x", shape, quant, real), self.tensor("y", out, quant, real)]
        return self.one(tensors, Op("op", OpKind.TRANSPOSE, ("x",), "y", attrs=Transpose(axes)))

    def slice(self, real: bool = False) -> Graph:
        shape, quant = self.any_shape(8), self.quant()
        begin = tuple(self.int(0, n - 1) for n in shape)
        end = tuple(self.int(b + 1, n) for b, n in zip(begin, shape, strict=True))
        stride = tuple(self.int(1, 3) for _ in shape)
        out = tuple(-(-(e - b) // s) for b, e, s in zip(begin, end, stride, strict=True))
        tensors = [self.tensor("x", shape, quant, real), self.tensor("y", out, quant, real)]
        op = Op("op", OpKind.SLICE, ("x",), "y", attrs=Slice(begin, end, stride))
        return self.one(tensors, op)

    def embedding(self, real: bool = False, index: DType = DType.INT32) -> Graph:
        rows, quant = self.int(1, 9), self.quant()
        table = (rows, *self.any_shape(4)[:2])
        shape = (self.int(1, 7),)
        if real:
            data = self.rng.normal(size=table).astype(np.float32)
            entries = Tensor("table", table, DType.FLOAT32, None, data)
        else:
            data = self.rng.integers(-128, 128, table).astype(np.int8)
            entries = Tensor("table", table, DType.INT8, quant, data)
        x = Tensor("x", shape, index, self.quant() if index is DType.INT8 else None)
        y = self.tensor("y", (*shape, *table[1:]), quant, real)
        return self.one([x, entries, y], Op("op", OpKind.EMBEDDING, ("x", "table"), "y"))

    # ---- over axes, and one to one

    def mean(self, real: bool = False) -> Graph:
        shape, quant = self.any_shape(9), self.quant(-9, 0)
        chosen = [i for i in range(len(shape)) if self.rng.random() < 0.5]
        axes = tuple(chosen) or (self.int(0, len(shape) - 1),)
        keep = bool(self.rng.random() < 0.5)
        low = math.log2(quant.scale) - 3
        out, count = self.quant(low, low + 5), math.prod(shape[i] for i in axes)
        left = tuple(n for i, n in enumerate(shape) if i not in axes) or (1,)
        kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
        multiplier, shift = quantize_multiplier(quant.scale / out.scale)
        fold = min(count.bit_length() - 1, 32, 31 + shift)
        scale = replace(factor(1.0), multiplier=(multiplier << fold) // count, shift=shift - fold)
        tensors = [
            self.tensor("x", shape, quant, real),
            self.tensor("y", kept if keep else left, out, real),
        ]
        fixed = None if real else MeanFixed(-128, 127, scale)
        return self.one(
            tensors, Op("op", OpKind.MEAN, ("x",), "y", fixed=fixed, attrs=Mean(axes, keep))
        )

    def table(self) -> Graph:
        shape = self.any_shape()
        data = self.rng.integers(-128, 128, 256).astype(np.int8)
        tensors = [
            Tensor("x", shape, DType.INT8, self.quant()),
            Tensor("table", (256,), DType.INT8, None, data),
            Tensor("y", shape, DType.INT8, self.quant()),
        ]
        return self.one(tensors, Op("op", OpKind.TABLE, ("x", "table"), "y"))

    def quantize(self) -> Graph:
        shape = self.any_shape()
        tensors = [
            Tensor("x", shape, DType.FLOAT32),
            Tensor("y", shape, DType.INT8, self.quant(-7, -3)),
        ]
        return self.one(tensors, Op("op", OpKind.QUANTIZE, ("x",), "y"))

    def dequantize(self) -> Graph:
        shape = self.any_shape()
        tensors = [
            Tensor("x", shape, DType.INT8, self.quant()),
            Tensor("y", shape, DType.FLOAT32),
        ]
        return self.one(tensors, Op("op", OpKind.DEQUANTIZE, ("x",), "y"))

    def unary(self, kind: UnaryKind | None = None) -> Graph:
        shape = self.any_shape(9)
        kinds = list(UnaryKind)
        kind = kind or kinds[self.int(0, len(kinds) - 1)]
        a, b = {
            UnaryKind.CLIP: (-0.5, 1.5),
            UnaryKind.LEAKY_RELU: (as_float32(0.3), 0.0),
            UnaryKind.HARDSIGMOID: (as_float32(0.2), 0.5),
            UnaryKind.ELU: (1.0, 0.0),
        }.get(kind, (0.0, 0.0))
        tensors = [Tensor("x", shape, DType.FLOAT32), Tensor("y", shape, DType.FLOAT32)]
        return self.one(tensors, Op("op", OpKind.UNARY, ("x",), "y", attrs=Unary(kind, a, b)))

    # ---- variants of those of version 1.0

    def grouped_conv2d(self) -> Graph:
        groups, inner = self.int(2, 4), self.int(1, 5)
        x = self.map_shape(groups * inner)
        window = self.window(x[1], x[2], pool=False)
        channels = groups * self.int(1, 6)
        out = (1, *window.output_size(x[1], x[2]), channels)
        w = (channels, *window.kernel, inner)
        return self.weighted(OpKind.CONV2D, x, w, out, 0, window, groups=groups)

    def softmax_of_any_rank(self) -> Graph:
        graph = self.softmax()
        shape = self.any_shape(9)
        tensors = [replace(t, shape=shape) for t in graph.tensors.values()]
        return self.graph(tensors, graph.ops[0], ("x",))

    def in_float(self, graph: Graph) -> Graph:
        """The float32 graph of an int8 one: same shapes, weights brought to real numbers."""
        op = graph.ops[0]
        tensors = []
        for t in graph.tensors.values():
            data = t.data
            if data is not None and op.kind in WEIGHTED:
                data = (data * np.float32(1 / (64 if data.dtype == np.int8 else 30000))).astype(
                    np.float32
                )
            tensors.append(Tensor(t.name, t.shape, DType.FLOAT32, None, data))
        return self.graph(tensors, replace(op, fixed=None), graph.inputs)
