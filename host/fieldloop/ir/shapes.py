"""Shapes and costs that follow from an operator and its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from fieldloop.errors import UsageError
from fieldloop.ir.op import (
    BINARY,
    POOLS,
    WEIGHTED,
    Concat,
    Mean,
    Op,
    OpKind,
    Pad,
    Slice,
    Transpose,
)
from fieldloop.ir.tensor import Tensor

Shape = tuple[int, ...]
MAX_DIMS = 4


def _refuse(op: Op, expected: str, got: object) -> UsageError:
    return UsageError(f"operator {op.name} ({op.kind.value}): expected {expected}, got {got}")


def broadcast(a: Shape, b: Shape) -> Shape | None:
    """The shape both broadcast to (numpy's rule), None where they do not."""
    dims = max(len(a), len(b))
    pairs = zip((1,) * (dims - len(a)) + a, (1,) * (dims - len(b)) + b, strict=True)
    made = []
    for m, n in pairs:
        if m != n and 1 not in (m, n):
            return None
        made.append(max(m, n))
    return tuple(made)


def output_shape(op: Op, tensors: Mapping[str, Tensor]) -> Shape:
    """The shape `op` gives its output; raises where its inputs do not fit together."""
    shapes = [tensors[name].shape for name in op.inputs]
    if op.window is not None and len(shapes[0]) != 4:
        raise _refuse(op, "an input of shape N, H, W, C", shapes[0])
    if op.kind in WEIGHTED:
        return _weighted(op, shapes)
    if op.kind in POOLS:
        return _window_shape(op, shapes[0], shapes[0][3])
    if op.kind in BINARY:
        made = broadcast(shapes[0], shapes[1])
        if made is None:
            raise _refuse(op, "two shapes that broadcast against each other", shapes)
        return made
    if op.kind is OpKind.RESHAPE:
        out, x = tensors[op.output].shape, shapes[0]
        if math.prod(out) != math.prod(x):
            raise _refuse(op, f"{math.prod(x)} elements in the output", out)
        return out
    rule = _BY_ATTRS.get(op.kind)
    if rule is not None:
        return rule(op, shapes)
    if op.kind is OpKind.TABLE and shapes[1] != (256,):
        raise _refuse(op, "a table of shape (256,)", shapes[1])
    if op.kind is OpKind.EMBEDDING:
        made = shapes[0] + shapes[1][1:]
        if len(shapes[1]) < 2 or len(made) > MAX_DIMS:
            raise _refuse(
                op, f"a table [entries, ...] and at most {MAX_DIMS} dimensions", (*shapes, made)
            )
        return made
    return shapes[0]  # element by element


def _window_shape(op: Op, x: Shape, channels: int) -> Shape:
    assert op.window is not None
    height, width = op.window.output_size(x[1], x[2])
    if height < 1 or width < 1:
        raise _refuse(op, f"an input of at least {op.window.extent} pixels, pads included", x[1:3])
    if op.kind in POOLS:
        top, _, left, _ = op.window.pads
        (kh, kw), (sh, sw) = op.window.kernel, op.window.stride
        last = (height - 1) * sh - top, (width - 1) * sw - left
        if top >= kh or left >= kw or last[0] >= x[1] or last[1] >= x[2]:
            raise _refuse(op, "every window to touch the input", op.window)
    return (x[0], height, width, channels)


def _weighted(op: Op, shapes: list[Shape]) -> Shape:
    x, w = shapes[0], shapes[1]
    channels = w[-1] if op.kind is OpKind.DEPTHWISE_CONV2D else w[0]
    if len(shapes) > 2 and shapes[2] != (channels,):
        raise _refuse(op, f"a bias of {channels} elements", shapes[2])
    if op.kind is OpKind.FULLY_CONNECTED:
        if len(w) != 2 or math.prod(x[1:]) != w[1]:
            raise _refuse(op, f"weights C_out, {math.prod(x[1:])}", w)
        return (x[0], channels)
    assert op.window is not None
    kernel = op.window.kernel
    if op.kind is OpKind.CONV2D:
        if len(w) != 4 or w[1:3] != kernel or w[3] * op.groups != x[3] or channels % op.groups:
            of = f" / {op.groups}" if op.groups > 1 else ""
            raise _refuse(op, f"weights O, {kernel}, {x[3]}{of}", w)
    elif len(w) != 4 or w[0] != 1 or w[1:3] != kernel or channels % x[3]:
        raise _refuse(op, f"weights 1, {kernel}, a multiple of {x[3]}", w)
    return _window_shape(op, x, channels)


def _concat(op: Op, shapes: list[Shape]) -> Shape:
    assert isinstance(op.attrs, Concat)
    x, axis = shapes[0], op.attrs.axis
    if not 0 <= axis < len(x):
        raise _refuse(op, f"an axis of {x}", axis)
    for other in shapes:
        if len(other) != len(x) or any(i != axis and other[i] != x[i] for i in range(len(x))):
            raise _refuse(op, f"inputs that differ along axis {axis} only", shapes)
    return (*x[:axis], sum(shape[axis] for shape in shapes), *x[axis + 1 :])


def _pad(op: Op, shapes: list[Shape]) -> Shape:
    assert isinstance(op.attrs, Pad)
    x, before, after = shapes[0], op.attrs.before, op.attrs.after
    if len(before) != len(x) or len(after) != len(x) or min(*before, *after) < 0:
        raise _refuse(op, f"{len(x)} counts of 0 or more before and after", op.attrs)
    return tuple(b + n + a for b, n, a in zip(before, x, after, strict=True))


def _transpose(op: Op, shapes: list[Shape]) -> Shape:
    assert isinstance(op.attrs, Transpose)
    x, axes = shapes[0], op.attrs.axes
    if sorted(axes) != list(range(len(x))):
        raise _refuse(op, f"the axes 0 to {len(x) - 1} in some order", axes)
    return tuple(x[axis] for axis in axes)


def _slice(op: Op, shapes: list[Shape]) -> Shape:
    assert isinstance(op.attrs, Slice)
    x, at = shapes[0], op.attrs
    if not len(at.begin) == len(at.end) == len(at.stride) == len(x) or any(
        not (0 <= b < e <= n and s >= 1)
        for b, e, s, n in zip(at.begin, at.end, at.stride, x, strict=True)
    ):
        raise _refuse(op, f"0 <= begin < end <= {x} and strides of 1 or more", at)
    return tuple(-(-(e - b) // s) for b, e, s in zip(at.begin, at.end, at.stride, strict=True))


def _mean(op: Op, shapes: list[Shape]) -> Shape:
    assert isinstance(op.attrs, Mean)
    x, axes = shapes[0], op.attrs.axes
    if not axes or sorted(set(axes)) != list(axes) or not 0 <= axes[0] <= axes[-1] < len(x):
        raise _refuse(op, f"some of the axes 0 to {len(x) - 1}, ascending", axes)
    if op.attrs.keep:
        return tuple(1 if i in axes else n for i, n in enumerate(x))
    return tuple(n for i, n in enumerate(x) if i not in axes) or (1,)


_BY_ATTRS: dict[OpKind, Callable[[Op, list[Shape]], Shape]] = {
    OpKind.CONCAT: _concat,
    OpKind.PAD: _pad,
    OpKind.TRANSPOSE: _transpose,
    OpKind.SLICE: _slice,
    OpKind.MEAN: _mean,
}


def macs(op: Op, tensors: Mapping[str, Tensor]) -> int:
    """Multiply-accumulates of one run; 0 for operators without weights. Padding counts."""
    out = tensors[op.output]
    if op.kind is OpKind.CONV2D:
        return out.size * math.prod(tensors[op.inputs[1]].shape[1:])
    if op.kind is OpKind.DEPTHWISE_CONV2D:
        return out.size * math.prod(tensors[op.inputs[1]].shape[1:3])
    if op.kind is OpKind.FULLY_CONNECTED:
        return out.size * tensors[op.inputs[1]].shape[1]
    return 0
