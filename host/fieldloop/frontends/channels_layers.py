"""A source that counts channels first, rebuilt with channels last: what computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fieldloop.frontends.builder import Constant
from fieldloop.frontends.channels import Shape, Value, index, order_of, row_major
from fieldloop.frontends.channels_first import MAX_ELEMENTS, ChannelsFirst, Operand
from fieldloop.ir.op import Clamp, Mean, OpKind, Pad, Requant, Unary, UnaryKind, Window
from fieldloop.ir.tensor import Array, DType

Pads = tuple[tuple[int, ...], tuple[int, ...]]  # before and after each axis of the window


def pooled_sizes(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Pads,
    *,
    ceil_mode: bool,
) -> tuple[tuple[int, ...], Pads]:
    """Positions of a pool along each axis, and the padding that gives just those.

    With `ceil_mode` the last window may hang over the edge, but has to start before it.
    """
    out, after = [], []
    for n, k, s, before, behind in zip(sizes, kernel, stride, *pads, strict=True):
        room = n + before + behind - k
        count = room // s + 1
        if ceil_mode and room % s and (room // s + 1) * s < n + before:
            count += 1
        out.append(count)
        after.append(max(behind, (count - 1) * s + k - n - before))
    return tuple(out), (pads[0], tuple(after))


class ChannelsFirstLayers(ChannelsFirst):
    """Operators in the source's terms; each returns the value it makes."""

    def picture(self, x: Value) -> str:
        """[n, c, l] or [n, c, h, w] as [1, h, w, c]."""
        if len(x.shape) not in (3, 4) or x.shape[0] != 1:
            raise self.refuse(
                f"its input has shape {x.shape}", "expected N, C, L or N, C, H, W with N = 1"
            )
        return self.ordered(x, (0, -1, 2, 1) if len(x.shape) == 3 else (0, 2, 3, 1))

    def pictured(self, name: str) -> tuple[int, ...]:
        """The spatial sizes and channels of a tensor of the graph, the source's way round."""
        _, h, w, c = self.build.shape(name)
        return (1, c, h, w)

    def _like(self, name: str, rank: int) -> Value:
        """The value of a windowed operator."""
        n, c, h, w = self.pictured(name)
        shape: Shape = (n, c, w) if rank == 3 else (n, c, h, w)
        return self.made(name, shape, (0, -1, 2, 1) if rank == 3 else (0, 2, 3, 1))

    @staticmethod
    def _flat_window(
        kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], pads: Pads
    ) -> Window:
        """Windows of a signal have height 1."""
        if len(kernel) == 1:
            before, after = (0, pads[0][0]), (0, pads[1][0])
            kernel, stride, dilation = (1, *kernel), (1, *stride), (1, *dilation)
        else:
            before, after = (pads[0][0], pads[0][1]), (pads[1][0], pads[1][1])
        return Window(
            (kernel[0], kernel[1]),
            (stride[0], stride[1]),
            (dilation[0], dilation[1]),
            (before[0], after[0], before[1], after[1]),
        )

    def conv(
        self,
        x: Value,
        w: Constant,
        b: Constant | None,
        *,
        stride: Sequence[int],
        dilation: Sequence[int],
        pads: Pads,
        groups: int,
    ) -> Value:
        """w: [c_out, c_in / groups, (kh,) kw]."""
        rank = len(x.shape)
        if w.data.ndim != rank:
            raise self.refuse(
                f"weights {w.data.shape} for an input {x.shape}", "expected as many dimensions"
            )
        name = self.picture(x)
        channels = x.shape[1]
        c_out, c_in = w.data.shape[:2]
        if groups < 1 or channels != c_in * groups or c_out % groups:
            raise self.refuse(
                f"weights {w.data.shape} and {groups} groups for {channels} channels",
                "expected [c_out, channels / groups, ...] and c_out a multiple of the groups",
            )
        if min(*pads[0], *pads[1]) < 0:
            raise self.refuse(f"pads {pads}", "expected pads of 0 or more")
        if rank == 3:
            w = w.with_axis(2)
        window = self._flat_window(w.data.shape[4 - len(stride) :], stride, dilation, pads)
        name, window = self._take_pad(x, name, window)
        if groups == channels and groups > 1:
            kind, weights, groups = OpKind.DEPTHWISE_CONV2D, w.transpose((1, 2, 3, 0)), 1
        else:
            kind, weights = OpKind.CONV2D, w.transpose((0, 2, 3, 1))
        made = self.build.add(
            self.wanted, kind, [name], window=window, weights=weights, bias=b, groups=groups
        )
        return self._like(made, rank)

    def _take_pad(self, x: Value, name: str, window: Window) -> tuple[str, Window]:
        """Zeros put around by an operator of their own belong to the window."""
        op = self.build.ops.get(name)
        if op is None or not isinstance(op.attrs, Pad) or not x.private or op.attrs.value != 0.0:
            return name, window
        before, after = op.attrs.before, op.attrs.after
        if len(before) != 4 or before[0] or after[0] or before[3] or after[3]:
            return name, window
        top, bottom, left, right = window.pads
        pads = (top + before[1], bottom + after[1], left + before[2], right + after[2])
        return op.inputs[0], replace(window, pads=pads)

    def pool(
        self,
        kind: OpKind,
        x: Value,
        *,
        kernel: Sequence[int],
        stride: Sequence[int],
        pads: Pads,
        ceil_mode: bool = False,
        count_include_pad: bool = False,
    ) -> Value:
        """A max or average pool; padding that counts is put there by an operator of its own."""
        rank = len(x.shape)
        if min(*kernel, *stride) < 1 or min(*pads[0], *pads[1]) < 0:
            raise self.refuse(
                f"kernel {tuple(kernel)}, stride {tuple(stride)}, pads {pads}",
                "expected sizes of 1 or more and pads of 0 or more",
            )
        if count_include_pad and kind is OpKind.AVG_POOL and any((*pads[0], *pads[1])):
            x = self.pad(x, (0, 0, *pads[0]), (0, 0, *pads[1]))
            none = (0,) * len(pads[0])
            pads = (none, none)
        name = self.picture(x)
        _, pads = pooled_sizes(x.shape[2:], kernel, stride, pads, ceil_mode=ceil_mode)
        window = self._flat_window(kernel, stride, (1,) * len(kernel), pads)
        of = self._type(name)
        if of["dtype"] is DType.INT8:  # the largest of integers is one of them
            of["fixed"] = Requant(-128, 127)
        return self._like(self.build.add(self.wanted, kind, [name], window=window, **of), rank)

    def mean(self, x: Value, axes: Sequence[int], *, keep: bool) -> Value:
        """Over axes of the source."""
        chosen = {a for a in axes if x.shape[a] > 1}
        kept = tuple(1 if a in chosen else n for a, n in enumerate(x.shape))
        shape = tuple(n for a, n in enumerate(kept) if keep or a not in axes)
        if not chosen:
            return self.reshape(x, shape)
        name, layout = self.aligned(x)
        places = tuple(i for i, a in enumerate(layout) if a in chosen)
        sizes = self.build.shape(name)
        others = [sizes[i] for i in (1, 2) if i not in places] if len(sizes) == 4 else [2]
        if set(places) <= {1, 2} and all(n == 1 for n in others):
            window = Window((sizes[1], sizes[2]), (sizes[1], sizes[2]))
            made = self.build.add(self.wanted, OpKind.AVG_POOL, [name], window=window)
        else:
            made = self.build.add(self.wanted, OpKind.MEAN, [name], attrs=Mean(places, keep=True))
        return self.reshape(self.made(made, kept, layout), shape)

    def peak(self, x: Value) -> Value:
        """The largest element of each channel of a picture, sizes kept."""
        sizes = x.shape[2:]
        none = (0,) * len(sizes)
        return self.pool(OpKind.MAX_POOL, x, kernel=sizes, stride=sizes, pads=(none, none))

    def linear(self, x: Value, w: Constant, b: Constant | None) -> Value:
        """x [..., c_in], w [c_out, c_in]."""
        if w.data.ndim != 2 or not x.shape or w.data.shape[1] != x.shape[-1]:
            raise self.refuse(
                f"weights {w.data.shape} for an input {x.shape}", "expected [c_out, c_in]"
            )
        shape = (*x.shape[:-1], w.data.shape[0])
        if math.prod(x.shape[:-1]) == 1:
            name = x.name
            if self.build.shape(name)[0] != 1:
                name = self.in_order(x, x.order, (1, math.prod(x.shape)))
            if x.order != row_major(x.shape):
                w = w.take(index(x.order))
            made = self.build.add(self.wanted, OpKind.FULLY_CONNECTED, [name], weights=w, bias=b)
            return Value(made, shape, row_major(shape))
        last = len(x.shape) - 1
        name, layout = self.aligned(x, last=last)
        sizes = self.build.shape(name)
        if len(sizes) != 4:
            rows = math.prod(sizes[1:-1])
            name = self.build.add(
                f"{self.wanted}_reshape", OpKind.RESHAPE, [name], shape=(1, 1, rows, sizes[-1])
            )
        made = self.build.add(
            self.wanted,
            OpKind.CONV2D,
            [name],
            window=Window((1, 1)),
            weights=w.with_axis(1).with_axis(1),
            bias=b,
        )
        return self.made(made, shape, layout)

    def scale_shift(self, x: Value, scale: Array, shift: Array, axis: int) -> Value:
        """x * scale + shift, one number (float64) for each entry of an axis of the source."""
        if len(x.shape) <= axis or len(scale) != x.shape[axis]:
            raise self.refuse(
                f"{len(scale)} channels for an input {x.shape}", "expected one number a channel"
            )
        name, layout = self.aligned(x, last=axis)
        made = self.build.scale_shift(
            self.wanted, name, scale, shift, private=x.private and name == x.name
        )
        self.folded.add(made)
        return self.made(made, x.shape, layout)

    def clamp(self, x: Value, lo: float, hi: float) -> Value:
        if not lo <= hi:
            raise self.refuse(f"a clamp to [{lo}, {hi}]", "expected lo <= hi")
        made = self.build.clamp(self.wanted, x.name, Clamp(lo, hi), private=x.private)
        self.folded.add(made)
        return Value(made, x.shape, x.order)

    def unary(self, x: Value, kind: UnaryKind, a: float = 0.0, b: float = 0.0) -> Value:
        if not (math.isfinite(a) and math.isfinite(b)):
            raise self.refuse(f"its numbers are {a} and {b}", "expected finite ones")
        made = self.build.add(self.wanted, OpKind.UNARY, [x.name], attrs=Unary(kind, a, b))
        return Value(made, x.shape, x.order)

    def softmax(self, x: Value, axis: int) -> Value:
        name, layout = self.aligned(x, last=axis)
        return self.made(self.build.add(self.wanted, OpKind.SOFTMAX, [name]), x.shape, layout)

    def embedding(self, x: Value, table: Constant) -> Value:
        """Rows of a table [entries, width] for indices of any shape."""
        if table.data.ndim != 2 or not 1 <= len(x.shape) <= 3:
            raise self.refuse(
                f"a table {table.data.shape} for indices {x.shape}", "expected [entries, width]"
            )
        indices = x.shape if x.shape[0] == 1 else (1, *x.shape)
        name = self.in_order(x, row_major(x.shape), indices)
        rows = self.build.constant(f"{self.wanted}.table", table)
        made = self.build.add(self.wanted, OpKind.EMBEDDING, [name, rows])
        shape = (*x.shape, table.data.shape[1])
        return Value(made, shape, row_major(shape))

    # ---- two operands

    def binary(self, kind: OpKind, a: Operand, b: Operand) -> Value:
        """Broadcast as numpy does; one operand may be a constant."""
        if isinstance(a, Value) and isinstance(b, Value):
            return self._computed(kind, a, b)
        if isinstance(a, Value) and isinstance(b, Constant):
            return self._with_constant(kind, a, b)
        if isinstance(a, Constant) and isinstance(b, Value):
            if kind is OpKind.SUB:  # c - x = x * -1 + c
                b = self._with_constant(OpKind.MUL, b, Constant(np.array(-1.0)))
                return self._with_constant(OpKind.ADD, b, a)
            return self._with_constant(kind, b, a)
        raise self.refuse("both operands are constants", "expected a computed value")

    def _computed(self, kind: OpKind, a: Value, b: Value) -> Value:
        try:
            shape = np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            raise self.refuse(
                f"shapes {a.shape} and {b.shape}", "expected shapes that broadcast"
            ) from None
        if math.prod(shape) > MAX_ELEMENTS:
            raise self.refuse(f"shape {shape}", f"expected at most {MAX_ELEMENTS} elements")
        if a.shape == b.shape and a.order == b.order:
            right = self.in_order(b, b.order, self.build.shape(a.name))
            made = self.build.add(self.wanted, kind, [a.name, right])
            return Value(made, shape, a.order)
        left, right = (
            self.reshape(v, (1,) * (len(shape) - len(v.shape)) + v.shape) for v in (a, b)
        )
        if left.shape == shape:
            first, layout = self.aligned(left)
            second = self.ordered(right, layout)
        elif right.shape == shape:
            second, layout = self.aligned(right)
            first = self.ordered(left, layout)
        else:
            chosen = self._preferred(shape, None, ())
            if chosen is None:
                raise self.refuse(f"shape {shape}", "expected at most 4 dimensions")
            layout = chosen
            first, second = self.ordered(left, layout), self.ordered(right, layout)
        return self.made(self.build.add(self.wanted, kind, [first, second]), shape, layout)

    def _with_constant(self, kind: OpKind, x: Value, c: Constant) -> Value:
        data = c.data
        try:
            fits = np.broadcast_shapes(x.shape, data.shape) == x.shape
        except ValueError:
            fits = False
        if not fits:
            raise self.refuse(
                f"a constant {data.shape} for a value {x.shape}",
                "expected a constant that is broadcast to the value's shape",
            )
        if data.size == 1 and kind in (OpKind.MINIMUM, OpKind.MAXIMUM):
            edge = float(data.reshape(-1)[0])
            return self.clamp(
                x, *((-math.inf, edge) if kind is OpKind.MINIMUM else (edge, math.inf))
            )
        name, layout = self.aligned(x)
        if x.private and name == x.name and self.build.weights_of(name) is not None:
            factors = self._per_channel(kind, x, data, layout)
            if factors is not None and self.build.fold(name, *factors):
                self.folded.add(name)
                return replace(x, order=order_of(x.shape, layout))
        other = self.operand(c, x.shape, layout)
        return self.made(self.build.add(self.wanted, kind, [name, other]), x.shape, layout)

    @staticmethod
    def _per_channel(
        kind: OpKind, x: Value, data: Array, layout: Sequence[int]
    ) -> tuple[Array, Array] | None:
        """The operation as scale and shift of the last axis, where it is one."""
        padded = data.reshape((1,) * (len(x.shape) - data.ndim) + data.shape)
        axis = layout[-1]
        if axis < 0 or any(n > 1 for a, n in enumerate(padded.shape) if a != axis):
            return None
        row = np.broadcast_to(padded.reshape(-1).astype(np.float64), (x.shape[axis],))
        zero, one = np.zeros(len(row)), np.ones(len(row))
        return {
            OpKind.ADD: (one, row),
            OpKind.SUB: (one, -row),
            OpKind.MUL: (row, zero),
        }.get(kind)

    # ---- between integers and reals

    def dequantized(self, x: Value) -> Value:
        made = self.build.add(self.wanted, OpKind.DEQUANTIZE, [x.name], dtype=DType.FLOAT32)
        return Value(made, x.shape, x.order)
