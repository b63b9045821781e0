"""Shapes and costs that follow from an operator and its inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fieldloop.errors import UsageError
from fieldloop.ir.op import Op, OpKind
from fieldloop.ir.tensor import Tensor

Shape = tuple[int, ...]


def _refuse(op: Op, expected: str, got: object) -> UsageError:
    return UsageError(f"operator {op.name} ({op.kind.value}): expected {expected}, got {got}")


def _window_shape(op: Op, x: Shape, channels: int) -> Shape:
    assert op.window is not None
    height, width = op.window.output_size(x[1], x[2])
    if height < 1 or width < 1:
        raise _refuse(op, f"an input of at least {op.window.extent} pixels, pads included", x[1:3])
    if op.kind in (OpKind.MAX_POOL, OpKind.AVG_POOL):
        top, _, left, _ = op.window.pads
        (kh, kw), (sh, sw) = op.window.kernel, op.window.stride
        last = (height - 1) * sh - top, (width - 1) * sw - left
        if top >= kh or left >= kw or last[0] >= x[1] or last[1] >= x[2]:
            raise _refuse(op, "every window to touch the input", op.window)
    return (x[0], height, width, channels)


def output_shape(op: Op, tensors: Mapping[str, Tensor]) -> Shape:
    """The shape `op` gives its output; raises where its inputs do not fit together."""
    shapes = [tensors[name].shape for name in op.inputs]
    x = shapes[0]
    if op.window is not None and len(x) != 4:
        raise _refuse(op, "an input of shape N, H, W, C", x)
    if op.kind is OpKind.CONV2D:
        w = shapes[1]
        assert op.window is not None
        if len(w) != 4 or w[1:3] != op.window.kernel or w[3] != x[3]:
            raise _refuse(op, f"weights O, {op.window.kernel}, {x[3]}", w)
        _check_bias(op, shapes, w[0])
        return _window_shape(op, x, w[0])
    if op.kind is OpKind.DEPTHWISE_CONV2D:
        w = shapes[1]
        assert op.window is not None
        if len(w) != 4 or w[0] != 1 or w[1:3] != op.window.kernel or w[3] % x[3]:
            raise _refuse(op, f"weights 1, {op.window.kernel}, a multiple of {x[3]}", w)
        _check_bias(op, shapes, w[3])
        return _window_shape(op, x, w[3])
    if op.kind is OpKind.FULLY_CONNECTED:
        w = shapes[1]
        if len(w) != 2 or math.prod(x[1:]) != w[1]:
            raise _refuse(op, f"weights C_out, {math.prod(x[1:])}", w)
        _check_bias(op, shapes, w[0])
        return (x[0], w[0])
    if op.kind in (OpKind.MAX_POOL, OpKind.AVG_POOL):
        return _window_shape(op, x, x[3])
    if op.kind is OpKind.ADD:
        if shapes[0] != shapes[1]:
            raise _refuse(op, "two inputs of one shape", shapes)
        return x
    if op.kind is OpKind.SOFTMAX:
        return x
    out = tensors[op.output].shape
    if math.prod(out) != math.prod(x) or out[0] != x[0]:
        raise _refuse(op, f"{math.prod(x)} elements and batch {x[0]} in the output", out)
    return out


def _check_bias(op: Op, shapes: list[Shape], channels: int) -> None:
    if len(shapes) > 2 and shapes[2] != (channels,):
        raise _refuse(op, f"a bias of {channels} elements", shapes[2])


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
