"""A source that counts channels first, rebuilt with channels last: layouts and movements.

Frontends of torch and ONNX call these operators in the source's own terms (shapes and axes as the
source has them). Reshapes and transposes cost nothing here: they change a `Value`, and the graph
moves elements only where an operator needs them elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fieldloop.frontends.builder import Constant, GraphBuilder, UnsupportedModelError, unsupported
from fieldloop.frontends.channels import (
    Order,
    Shape,
    Value,
    axes_in_memory,
    common_runs,
    order_of,
    row_major,
    source_axes,
    transposed,
)
from fieldloop.frontends.imported import ValueMap
from fieldloop.ir.op import CONCAT_MAX, Concat, OpKind, Pad, Slice, Transpose
from fieldloop.ir.tensor import Array, DType, Quant

MAX_ELEMENTS = 2**24  # of one value: far beyond any device
Operand = Value | Constant

# Channels last, by rank; -1 is an axis of 1 that the source has not. One-dimensional signals are
# pictures of height 1.
_PREFERRED = {2: (0, 1), 3: (0, -1, 2, 1), 4: (0, 2, 3, 1)}


class ChannelsFirst:
    """Layouts and movements; `ChannelsFirstLayers` adds what computes."""

    def __init__(self, name: str) -> None:
        self.build = GraphBuilder(name)
        self.node, self.operator, self.wanted = "", "", "value"
        self.folded: set[str] = set()  # tensors that the present node changed
        self.values: dict[str, ValueMap] = {}

    # ---- the walk's bookkeeping

    def enter(self, node: str, operator: str, wanted: str) -> None:
        """Before each node: who it is, and how its operator is to be called."""
        self.node, self.operator, self.wanted = node, operator, wanted
        self.folded.clear()

    def refuse(self, why: str, instead: str) -> UnsupportedModelError:
        return unsupported(self.node, self.operator, why, instead)

    def record(
        self, value: Value, source: str, inputs: Sequence[Value], dtype: str, offset: int = 0
    ) -> None:
        """Notes which value of the source a tensor holds; a view of an input has none."""
        for name in self.folded - {value.name}:
            self.values.pop(name, None)  # changed on the way to something else
        if any(value.name == x.name for x in inputs) and value.name not in self.folded:
            return
        axes = source_axes(value)
        if axes is None:
            self.values.pop(value.name, None)
            return
        if value.order == row_major(value.shape):
            axes = None
        self.values[value.name] = ValueMap(source, value.shape, dtype, axes, offset)

    def value_maps(self, tensors: Mapping[str, object]) -> dict[str, ValueMap]:
        return {name: value for name, value in self.values.items() if name in tensors}

    def input(
        self,
        name: str,
        shape: Shape,
        *,
        channels_last: bool,
        dtype: DType = DType.FLOAT32,
        quant: Quant | None = None,
    ) -> Value:
        """An input of the model; `channels_last`: its tensor has the axes of a picture."""
        if math.prod(shape) > MAX_ELEMENTS:
            raise self.refuse(f"shape {shape}", f"expected at most {MAX_ELEMENTS} elements")
        if channels_last and len(shape) in (3, 4) and shape[0] == 1:
            axes: tuple[int, ...] = _PREFERRED[len(shape)]
        elif 1 <= len(shape) <= 4 and (shape[0] == 1 or len(shape) == 1):
            axes = tuple(range(len(shape))) if len(shape) > 1 else (-1, 0)
        else:
            raise self.refuse(
                f"input of shape {shape}", "expected a batch of 1 and at most 4 dimensions"
            )
        made = self.build.input(name, self._sizes(shape, axes), dtype, quant)
        return Value(made, shape, order_of(shape, axes))

    # ---- layouts

    @staticmethod
    def _sizes(shape: Shape, axes: Sequence[int]) -> Shape:
        return tuple(shape[a] if a >= 0 else 1 for a in axes)

    def made(self, name: str, shape: Shape, axes: Sequence[int]) -> Value:
        """The value of an operator whose tensor's axes are the source's `axes`."""
        if math.prod(shape) > MAX_ELEMENTS:
            raise self.refuse(f"shape {shape}", f"expected at most {MAX_ELEMENTS} elements")
        return Value(name, shape, order_of(shape, axes))

    def aligned(
        self, x: Value, *, last: int | None = None, need: Sequence[int] = ()
    ) -> tuple[str, tuple[int, ...]]:
        """A tensor whose axes are axes of the source, and which ones (-1: an axis of 1 besides).

        `last`: the source's axis that has to come last. `need`: axes that have to be there even
        where their size is 1.
        """

        def fits(axes: Sequence[int]) -> bool:
            return (last is None or axes[-1] == last) and all(a in axes for a in need)

        now = self.build.shape(x.name)
        axes = axes_in_memory(x, now)
        if axes is not None and len(now) > 1 and now[0] == 1 and fits(axes):
            return x.name, tuple(axes)
        preferred = self._preferred(x.shape, last, need)
        in_memory = source_axes(x)
        if in_memory is not None:
            kept = self._with_batch(
                [a for a in in_memory if x.shape[a] > 1 or a in need or a == last], x.shape, last
            )
            for choice in (preferred, kept):
                if choice is not None and fits(choice) and order_of(x.shape, choice) == x.order:
                    return self.ordered(x, choice), choice
        if preferred is None:
            raise self.refuse(f"shape {x.shape}", "expected at most 4 dimensions, the batch first")
        return self.ordered(x, preferred), preferred

    def _preferred(
        self, shape: Shape, last: int | None, need: Sequence[int]
    ) -> tuple[int, ...] | None:
        axes = _PREFERRED.get(len(shape))
        if axes is not None and shape[0] == 1 and last in (None, axes[-1]):
            return axes
        rest = [a for a in range(len(shape)) if shape[a] > 1 or a in need or a == last]
        return self._with_batch(rest, shape, last)

    @staticmethod
    def _with_batch(axes: Sequence[int], shape: Shape, last: int | None) -> tuple[int, ...] | None:
        """The axes behind a first one of size 1, `last` at the end; None for more than four."""
        batch = 0 if shape and shape[0] == 1 else -1
        rest = [a for a in axes if a not in (batch, last)]
        if last is not None:
            rest.append(last)
        if not rest:
            rest = [-1]
        return (batch, *rest) if len(rest) <= 3 else None

    def ordered(self, x: Value, axes: Sequence[int]) -> str:
        """The value as a tensor whose axes are the source's `axes`."""
        return self.in_order(x, order_of(x.shape, axes), self._sizes(x.shape, axes))

    def in_order(self, x: Value, order: Order, shape: Shape) -> str:
        """The value as a tensor of `shape` whose elements lie in `order`."""
        name = x.name
        if x.order != order:
            name = self._moved(x, order)
        if self.build.shape(name) != shape:
            name = self.build.add(
                f"{self.wanted}_reshape", OpKind.RESHAPE, [name], shape=shape, **self._type(name)
            )
        return name

    def _type(self, name: str) -> dict[str, object]:
        tensor = self.build.tensors[name]
        return {"dtype": tensor.dtype, "quant": tensor.quant}

    def _moved(self, x: Value, order: Order) -> str:
        """Transposes, three axes at a time, behind the batch."""
        both = common_runs(x.order, order)
        if both is None:
            raise self.refuse(
                f"the elements of {x.shape} lie in an order that no transpose makes",
                "reshape along whole axes",
            )
        have, want = both
        groups = _groups([have.index(run) for run in want])
        # groups: runs that stay together, named by their place in `have`
        now = sorted(groups)
        sizes = {group: math.prod(have[i][0] for i in group) for group in groups}
        name = x.name
        if len(groups) <= 3:
            return self._transpose(name, [sizes[g] for g in now], [now.index(g) for g in groups])
        for group in reversed(groups):  # to the front, one by one
            at = now.index(group)
            if at == 0:
                continue
            front = math.prod(sizes[g] for g in now[:at])
            back = math.prod(sizes[g] for g in now[at + 1 :])
            name = self._transpose(name, [front, sizes[group], back], [1, 0, 2])
            now.insert(0, now.pop(at))
        return name

    def _transpose(self, name: str, sizes: Sequence[int], axes: Sequence[int]) -> str:
        kind = self._type(name)
        shape = (1, *sizes)
        if self.build.shape(name) != shape:
            name = self.build.add(
                f"{self.wanted}_reshape", OpKind.RESHAPE, [name], shape=shape, **kind
            )
        attrs = Transpose((0, *(a + 1 for a in axes)))
        return self.build.add(
            f"{self.wanted}_transpose", OpKind.TRANSPOSE, [name], attrs=attrs, **kind
        )

    def output(self, x: Value) -> Value:
        """The value as an output of the model: made by an operator, its axes the source's."""
        if len(x.shape) <= 2 or axes_in_memory(x, self.build.shape(x.name)) is None:
            shape = x.shape if x.shape and x.shape[0] == 1 else (1, *x.shape)
            if len(shape) > 4:
                raise self.refuse(f"an output of shape {x.shape}", "expected 4 dimensions at most")
            order = row_major(x.shape)
            x = Value(self.in_order(x, order, shape), x.shape, order)
        if x.name in self.build.ops:
            return x
        shape = self.build.shape(x.name)
        name = self.build.add(
            f"{x.name}_copy", OpKind.RESHAPE, [x.name], shape=shape, **self._type(x.name)
        )
        return Value(name, x.shape, x.order)

    # ---- movements

    def reshape(self, x: Value, shape: Shape) -> Value:
        if math.prod(shape) != math.prod(x.shape):
            raise self.refuse(f"{x.shape} to {shape}", "expected as many elements")
        return Value(x.name, shape, x.order, x.private)

    def transpose(self, x: Value, axes: Sequence[int]) -> Value:
        if sorted(axes) != list(range(len(x.shape))):
            raise self.refuse(f"axes {tuple(axes)} of {x.shape}", "expected each axis once")
        shape = tuple(x.shape[a] for a in axes)
        order = transposed(x, axes)
        if order is None:
            whole = row_major(x.shape)
            name = self.in_order(x, whole, (1, math.prod(x.shape)))
            x = Value(name, x.shape, whole)
            order = transposed(x, axes)
            assert order is not None
        return Value(x.name, shape, order, x.private)

    def slice(
        self, x: Value, begin: Sequence[int], end: Sequence[int], stride: Sequence[int]
    ) -> Value:
        """Elements begin, begin + stride, ... below end along each axis of the source."""
        shape = tuple(-(-(e - b) // s) for b, e, s in zip(begin, end, stride, strict=True))
        if min(shape, default=1) < 1:
            raise self.refuse(f"an empty slice of {x.shape}", "expected at least one element")
        if shape == x.shape:
            return x
        name, axes = self.aligned(x)
        attrs = Slice(
            tuple(begin[a] if a >= 0 else 0 for a in axes),
            tuple(end[a] if a >= 0 else 1 for a in axes),
            tuple(stride[a] if a >= 0 else 1 for a in axes),
        )
        made = self.build.add(self.wanted, OpKind.SLICE, [name], attrs=attrs, **self._type(name))
        return self.made(made, shape, axes)

    def pad(
        self, x: Value, before: Sequence[int], after: Sequence[int], value: float = 0.0
    ) -> Value:
        """Constants around; negative counts cut."""
        if min(*before, *after) < 0:
            begin = [max(-b, 0) for b in before]
            end = [n - max(-a, 0) for n, a in zip(x.shape, after, strict=True)]
            x = self.slice(x, begin, end, [1] * len(x.shape))
            before, after = [max(b, 0) for b in before], [max(a, 0) for a in after]
        if not any(before) and not any(after):
            return x
        if not math.isfinite(value):
            raise self.refuse(f"padding with {value}", "expected a finite number")
        need = [a for a in range(len(x.shape)) if before[a] or after[a]]
        shape = tuple(b + n + a for b, n, a in zip(before, x.shape, after, strict=True))
        name, axes = self.aligned(x, need=need)
        attrs = Pad(
            tuple(before[a] if a >= 0 else 0 for a in axes),
            tuple(after[a] if a >= 0 else 0 for a in axes),
            value,
        )
        made = self.build.add(self.wanted, OpKind.PAD, [name], attrs=attrs, **self._type(name))
        return self.made(made, shape, axes)

    def concat(self, parts: Sequence[Operand], axis: int) -> Value:
        """Joined along an axis of the source; constants may follow the first part."""
        first = parts[0]
        if not isinstance(first, Value):
            raise self.refuse("its first part is a constant", "put a computed value first")
        if len(parts) == 1:
            return first
        shapes = [p.shape if isinstance(p, Value) else p.data.shape for p in parts]
        rest = {tuple(n for i, n in enumerate(s) if i != axis) for s in shapes}
        if len(rest) != 1 or any(len(s) != len(first.shape) for s in shapes):
            raise self.refuse(f"shapes {shapes}", f"expected them to differ along {axis} only")
        name, axes = self.aligned(first, need=[axis])
        names = [name]
        for part in parts[1:]:
            names.append(
                self.ordered(part, axes)
                if isinstance(part, Value)
                else self.operand(part, part.data.shape, axes)
            )
        shape = tuple(
            sum(s[axis] for s in shapes) if i == axis else n for i, n in enumerate(first.shape)
        )
        kind, attrs = self._type(name), Concat(axes.index(axis))
        while len(names) > 1:
            made = self.build.add(
                self.wanted, OpKind.CONCAT, names[:CONCAT_MAX], attrs=attrs, **kind
            )
            names = [made, *names[CONCAT_MAX:]]
        return self.made(names[0], shape, axes)

    def operand(self, value: Constant, shape: Shape, axes: Sequence[int]) -> str:
        """A constant of the source's `shape` (broadcast) with its axes where a tensor has them."""
        data: Array = value.data.reshape((1,) * (len(shape) - value.data.ndim) + value.data.shape)
        real = [a for a in axes if a >= 0]
        gone = [a for a in range(len(shape)) if a not in real]  # of size 1
        moved = data.transpose([*gone, *real])
        sizes = tuple(data.shape[a] if a >= 0 else 1 for a in axes)
        scales = value.scales if value.axis is None else None
        made = Constant(np.ascontiguousarray(moved.reshape(sizes)), scales, value.zero_point)
        return self.build.constant(f"{self.wanted}.operand", made)


def _groups(places: Sequence[int]) -> list[tuple[int, ...]]:
    """Places in wanted order, those that follow each other put together."""
    groups: list[list[int]] = []
    for place in places:
        if groups and groups[-1][-1] + 1 == place:
            groups[-1].append(place)
        else:
            groups.append([place])
    return [tuple(group) for group in groups]
