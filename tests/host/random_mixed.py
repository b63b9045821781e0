"""Random graphs of every operator, int8 and float32 in one graph, several inputs and outputs."""

from __future__ import annotations

import math

import numpy as np

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import (
    Attrs,
    Clamp,
    Concat,
    Fixed,
    Mean,
    Op,
    OpKind,
    Pad,
    Requant,
    Slice,
    Transpose,
    Unary,
    UnaryKind,
    Window,
)
from fieldloop.ir.shapes import broadcast, output_shape
from fieldloop.ir.tensor import Array, DType, Quant, Tensor, as_float32
from fieldloop.quantize.fixedpoint import (
    activation_range,
    add_params,
    mean_params,
    mul_params,
    softmax_params,
    weighted_factors,
)

CLAMPS = (Clamp(), Clamp(), Clamp(0.0), Clamp(0.0, 6.0), Clamp(-1.0, 1.0))
I8, I32, F32 = DType.INT8, DType.INT32, DType.FLOAT32
LARGEST = 4_000  # elements of one value
WEIGHTED = (OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D, OpKind.FULLY_CONNECTED)
BINARY = (OpKind.ADD, OpKind.SUB, OpKind.MUL, OpKind.MINIMUM, OpKind.MAXIMUM)
MOVES = (OpKind.CONCAT, OpKind.PAD, OpKind.TRANSPOSE, OpKind.SLICE, OpKind.RESHAPE)
POOLS = (OpKind.MAX_POOL, OpKind.AVG_POOL)
# the bare conversions are rarer: each makes the rest of its branch another dtype
KINDS = (*WEIGHTED, *BINARY, *MOVES, *POOLS, OpKind.MEAN, OpKind.SOFTMAX, OpKind.TABLE)


class MixedGrower:
    """Grows a graph on values that are there; every choice comes from `rng`.

    `plain`: only what TensorFlow Lite Micro has too. `dtypes`: of the inputs.
    """

    def __init__(self, rng: np.random.Generator, *, plain: bool) -> None:
        self.rng = rng
        self.plain = plain
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[Op] = []
        self.inputs: list[str] = []
        self.values: list[str] = []

    def int(self, low: int, high: int) -> int:
        """Uniform in low..high, both included."""
        return int(self.rng.integers(low, high + 1))

    def quant(self, scale: float) -> Quant:
        """A quantisation of about that scale."""
        return Quant(
            (as_float32(scale * 2.0 ** self.rng.uniform(-0.5, 0.5)),), self.int(-128, 127)
        )

    def constant(self, name: str, data: Array, quant: Quant | None = None) -> str:
        dtype = {"f": F32, "i": I8 if data.dtype.itemsize == 1 else I32}[data.dtype.kind]
        self.tensors[name] = Tensor(name, data.shape, dtype, quant, data)
        return name

    def input(self, shape: tuple[int, ...], dtype: DType) -> None:
        name = f"x{len(self.inputs)}"
        quant = self.quant(0.05) if dtype is I8 else None
        self.tensors[name] = Tensor(name, shape, dtype, quant)
        self.inputs.append(name)
        if dtype is I32:
            self.lookup(name)
        else:
            self.values.append(name)

    def put(
        self,
        kind: OpKind,
        inputs: list[str],
        quant: Quant | None,
        dtype: DType,
        *,
        window: Window | None = None,
        clamp: Clamp | None = None,
        fixed: Fixed | None = None,
        attrs: Attrs | None = None,
        groups: int = 1,
        shape: tuple[int, ...] | None = None,
    ) -> bool:
        """Appends an operator, if its output is not too large."""
        name = f"{kind.value}{len(self.ops)}"
        op = Op(name, kind, tuple(inputs), name, window, clamp or Clamp(), fixed, attrs, groups)
        made = shape or output_shape(op, self.tensors)
        if math.prod(made) > LARGEST:
            return False
        self.tensors[name] = Tensor(name, made, dtype, quant)
        self.ops.append(op)
        self.values.append(name)
        return True

    def lookup(self, index: str) -> None:
        entries = (self.int(2, 20), self.int(1, 4))
        quant = self.quant(0.05)
        data = self.rng.integers(-128, 128, entries).astype(np.int8)
        table = self.constant(f"{index}.table", data, quant)
        self.put(OpKind.EMBEDDING, [index, table], quant, I8)

    # ---- one more operator

    def step(self) -> None:
        x = self.values[max(self.int(-2, len(self.values) - 1), self.int(0, len(self.values) - 1))]
        tensor = self.tensors[x]
        real = tensor.dtype is F32
        if not self.plain and self.rng.random() < 0.1:
            if real:
                self.put(OpKind.QUANTIZE, [x], self.quant(0.05), I8)
            else:
                self.put(OpKind.DEQUANTIZE, [x], None, F32)
            return
        kind = KINDS[self.rng.integers(len(KINDS))]
        clamp = CLAMPS[self.rng.integers(len(CLAMPS))]
        if kind in WEIGHTED:
            self.weighted(kind, x, clamp)
        elif kind in BINARY:
            self.binary(kind, x, clamp)
        elif kind in MOVES:
            self.move(kind, x)
        elif kind in POOLS:
            if len(tensor.shape) == 4 and tensor.shape[0] == 1:
                fixed = None if real else Requant(*activation_range(clamp, self.quant_of(x)))
                window = self.window(tensor.shape[1:3], pool=True)
                self.put(
                    kind, [x], tensor.quant, tensor.dtype, window=window, clamp=clamp, fixed=fixed
                )
        elif kind is OpKind.MEAN:
            self.mean(x)
        elif kind is OpKind.SOFTMAX:
            out = None if real else Quant((1.0 / 256.0,), -128)
            fixed = None if real else softmax_params(self.quant_of(x))
            self.put(kind, [x], out, tensor.dtype, fixed=fixed)
        elif real:
            unary = Unary(list(UnaryKind)[self.int(0, 8)], 0.25, 0.5)  # not EXP: values explode
            if not (self.plain and unary.kind in (UnaryKind.CLIP, UnaryKind.HARDSIGMOID)):
                a = 1.0 if unary.kind is UnaryKind.ELU else unary.a
                self.put(OpKind.UNARY, [x], None, F32, attrs=Unary(unary.kind, a, unary.b))
        elif not self.plain:
            data = self.rng.integers(-128, 128, 256).astype(np.int8)
            table = self.constant(f"entries{len(self.ops)}", data)
            self.put(OpKind.TABLE, [x, table], self.quant(0.05), I8)

    def quant_of(self, name: str) -> Quant:
        quant = self.tensors[name].quant
        assert quant is not None
        return quant

    def window(self, size: tuple[int, ...], *, pool: bool) -> Window:
        rng = self.rng
        while True:
            kernel = (self.int(1, 3), self.int(1, 3))
            dilation = (1, 1) if pool else (self.int(1, 2), self.int(1, 2))
            stride = (self.int(1, 2), self.int(1, 2))
            pads = tuple(
                self.int(0, kernel[side // 2] - 1) if rng.random() < 0.5 else 0
                for side in range(4)
            )
            window = Window(kernel, stride, dilation, pads)  # type: ignore[arg-type]
            out = window.output_size(size[0], size[1])
            last = [(out[i] - 1) * stride[i] - pads[2 * i] < size[i] for i in range(2)]
            if min(out) >= 1 and all(last):
                return window

    def weighted(self, kind: OpKind, x: str, clamp: Clamp) -> None:
        shape, dtype = self.tensors[x].shape, self.tensors[x].dtype
        name = f"{kind.value}{len(self.ops)}"
        window, groups, axis = None, 1, 0
        if kind is OpKind.FULLY_CONNECTED:
            w_shape: tuple[int, ...] = (self.int(1, 9), math.prod(shape[1:]))
        elif len(shape) != 4 or shape[0] != 1:
            return
        else:
            window = self.window(shape[1:3], pool=False)
            if kind is OpKind.CONV2D:
                groups = self.int(1, 3)
                groups = groups if shape[3] % groups == 0 else 1
                w_shape = (groups * self.int(1, 4), *window.kernel, shape[3] // groups)
            else:
                w_shape, axis = (1, *window.kernel, shape[3] * self.int(1, 2)), 3
        channels, taps = w_shape[axis], math.prod(w_shape) // w_shape[axis]
        if dtype is F32:
            w = self.rng.normal(size=w_shape) / math.sqrt(taps)
            names = [x, self.constant(f"{name}.w", w.astype(np.float32))]
            b = self.rng.normal(size=channels).astype(np.float32)
            names += [self.constant(f"{name}.b", b)] if self.rng.random() < 0.7 else []
            self.put(kind, names, None, F32, window=window, clamp=clamp, groups=groups)
            return
        scales = tuple(as_float32(s) for s in 2.0 ** self.rng.uniform(-8, -6, channels))
        per_channel = self.rng.random() < 0.7
        w_quant = Quant(scales, 0, axis) if per_channel else Quant(scales[:1])
        data = self.rng.integers(-127, 128, w_shape).astype(np.int8)
        quant = self.quant_of(x)
        out = self.quant(quant.scale * max(scales) * math.sqrt(taps) * 74)
        names = [x, self.constant(f"{name}.w", data, w_quant)]
        if self.rng.random() < 0.7:
            b = self.rng.integers(-4000, 4000, channels).astype(np.int32)
            b_scales = tuple(as_float32(quant.scale * s) for s in w_quant.scales)
            b_quant = Quant(b_scales, 0, 0 if per_channel else None)
            names.append(self.constant(f"{name}.b", b, b_quant))
        factors = weighted_factors(quant, w_quant, out)
        fixed = Requant(*activation_range(clamp, out), factors)
        self.put(kind, names, out, I8, window=window, clamp=clamp, fixed=fixed, groups=groups)

    def binary(self, kind: OpKind, x: str, clamp: Clamp) -> None:
        a = self.tensors[x]
        one_quant = kind in (OpKind.MINIMUM, OpKind.MAXIMUM)
        fitting = [
            v
            for v in self.values
            if self.tensors[v].dtype is a.dtype
            and broadcast(a.shape, self.tensors[v].shape) is not None
            and (not one_quant or self.tensors[v].quant == a.quant)
        ]
        y = fitting[self.int(0, len(fitting) - 1)]
        if self.rng.random() < 0.3:  # a constant, of some of the axes
            shape = tuple(n if self.rng.random() < 0.5 else 1 for n in a.shape)
            quant = a.quant if one_quant or a.quant is None else self.quant(a.quant.scale)
            data: Array = self.rng.normal(size=shape).astype(np.float32)
            if a.dtype is I8:
                data = self.rng.integers(-128, 128, shape).astype(np.int8)
            y = self.constant(f"constant{len(self.ops)}", data, quant)
        if a.dtype is F32:
            self.put(kind, [x, y], None, F32, clamp=Clamp() if one_quant else clamp)
            return
        p, q = self.quant_of(x), self.quant_of(y)
        if one_quant:
            self.put(kind, [x, y], p, I8, fixed=Requant(-128, 127))
        elif kind is OpKind.MUL:
            out = self.quant(p.scale * q.scale * 60)
            fixed: Fixed = mul_params(p, q, out, clamp)
            self.put(kind, [x, y], out, I8, clamp=clamp, fixed=fixed)
        else:
            out = self.quant(1.4 * max(p.scale, q.scale))
            self.put(kind, [x, y], out, I8, clamp=clamp, fixed=add_params(p, q, out, clamp))

    def move(self, kind: OpKind, x: str) -> None:
        t = self.tensors[x]
        shape = t.shape
        names, attrs, made = [x], None, None
        if kind is OpKind.RESHAPE:
            order = self.rng.permutation(len(shape))
            made = tuple(shape[i] for i in order) if self.rng.random() < 0.5 else (1, t.size)
        elif kind is OpKind.TRANSPOSE:
            attrs = Transpose(tuple(int(i) for i in self.rng.permutation(len(shape))))
        elif kind is OpKind.PAD:
            before = tuple(self.int(0, 2) if i else 0 for i in range(len(shape)))
            after = tuple(self.int(0, 2) if i else 0 for i in range(len(shape)))
            attrs = Pad(before, after)
        elif kind is OpKind.SLICE:
            begin = tuple(self.int(0, (n - 1) // 2) for n in shape)
            end = tuple(self.int(b + 1, n) for b, n in zip(begin, shape, strict=True))
            attrs = Slice(begin, end, tuple(self.int(1, 2) for _ in shape))
        else:
            axis = self.int(0, len(shape) - 1)
            fitting = [
                v
                for v in self.values
                if (o := self.tensors[v]).dtype is t.dtype
                and o.quant == t.quant
                and len(o.shape) == len(shape)
                and all(i == axis or o.shape[i] == shape[i] for i in range(len(shape)))
            ]
            count = self.int(1, 6)
            names = [fitting[self.int(0, len(fitting) - 1)] for _ in range(count)]
            attrs = Concat(axis)
        self.put(kind, names, t.quant, t.dtype, attrs=attrs, shape=made)

    def mean(self, x: str) -> None:
        t = self.tensors[x]
        chosen = tuple(i for i in range(len(t.shape)) if self.rng.random() < 0.5)
        axes = chosen or (len(t.shape) - 1,)
        attrs = Mean(axes, bool(self.rng.random() < 0.6))
        if t.dtype is F32:
            self.put(OpKind.MEAN, [x], None, F32, attrs=attrs)
            return
        p = self.quant_of(x)
        out = self.quant(p.scale * 0.7)
        count = math.prod(t.shape[i] for i in axes)
        fixed = mean_params(p, out, count, Clamp())
        self.put(OpKind.MEAN, [x], out, I8, fixed=fixed, attrs=attrs)

    def graph(self) -> Graph:
        """What nobody reads are the outputs; inputs that nobody reads are left out."""
        read = {name for op in self.ops for name in op.inputs}
        outputs = tuple(v for v in self.values if v not in read and v not in self.inputs)
        inputs = tuple(name for name in self.inputs if name in read)
        kept = {*read, *outputs}
        tensors = {n: t for n, t in self.tensors.items() if n in kept}
        return Graph("mixed", tensors, tuple(self.ops), inputs, outputs)


def mixed_graph(
    seed: int, *, depth: int = 12, dtypes: tuple[DType, ...] = (I8, F32, I32), plain: bool = False
) -> Graph:
    """A graph of `depth` random operators over inputs of the given dtypes."""
    grower = MixedGrower(np.random.default_rng(seed), plain=plain)
    for dtype in dtypes:
        shape = (1, grower.int(2, 7), grower.int(2, 7), grower.int(1, 4))
        grower.input(shape if dtype is not I32 else shape[:2], dtype)
    while len(grower.ops) < depth:
        grower.step()
    return grower.graph()


def inputs_for(graph: Graph, seed: int, count: int) -> dict[str, Array]:
    """Random inputs [count * rows, ...]; indices reach a little outside of their tables."""
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for name in graph.inputs:
        t = graph.tensors[name]
        shape = (count * t.shape[0], *t.shape[1:])
        if t.dtype is F32:
            made[name] = rng.normal(size=shape).astype(np.float32)
        elif t.dtype is I32:
            made[name] = rng.integers(-2, 24, shape).astype(np.int32)
        else:
            made[name] = rng.integers(-128, 128, shape).astype(np.int8)
    return made
