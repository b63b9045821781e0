"""Operators of the graph in torch, with gradients: what quantization-aware training derives.

Values are real, NHWC as in the graph. Rounding and cutting are not done here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
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
    Unary,
    UnaryKind,
    Window,
)
from fieldloop.ir.tensor import DType

_BINARY: dict[OpKind, Callable[[Tensor, Tensor], Tensor]] = {
    OpKind.ADD: torch.add,
    OpKind.SUB: torch.sub,
    OpKind.MUL: torch.mul,
    OpKind.MINIMUM: torch.minimum,
    OpKind.MAXIMUM: torch.maximum,
}


def convolution(op: Op, x: Tensor, w: Tensor) -> Tensor:
    """The sums of products of a weighted operator [n, ..., c_out], without bias."""
    if op.kind is OpKind.FULLY_CONNECTED:
        return x.reshape(len(x), -1) @ w.T
    assert op.window is not None
    pictures = _padded(x, op.window, 0.0)
    if op.kind is OpKind.DEPTHWISE_CONV2D:
        kernel, groups = w.permute(3, 0, 1, 2), x.shape[3]  # 1HWC -> C1HW
    else:
        kernel, groups = w.permute(0, 3, 1, 2), op.groups  # OHWI -> OIHW
    y = functional.conv2d(
        pictures, kernel, stride=op.window.stride, dilation=op.window.dilation, groups=groups
    )
    return y.permute(0, 2, 3, 1)


def soft_op(
    op: Op,
    source: Op | None,
    graph: Graph,
    values: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
) -> Tensor:
    """The real output of an operator of the int8 graph; `source` is the float graph's."""
    x = values[op.inputs[0]]
    if op.kind in WEIGHTED:
        assert source is not None  # one that stays float
        y = convolution(op, x, parameters[source.inputs[1]])
        return _clamped(op, y + parameters[source.inputs[2]] if len(source.inputs) > 2 else y)
    if op.kind in BINARY:
        a, b = (_operand(graph, name, values) for name in op.inputs)
        return _clamped(op, _BINARY[op.kind](a, b))
    if op.kind in POOLS:
        return _clamped(op, _pool(op, x))
    if op.kind is OpKind.EMBEDDING:
        assert source is not None
        return parameters[source.inputs[1]][x.long()]
    function = source.attrs if source is not None else None
    if isinstance(function, Unary):
        return _unary(function, x)
    if op.kind is OpKind.SOFTMAX:
        return torch.softmax(x, dim=-1)
    if isinstance(op.attrs, Mean):
        y = x.mean(dim=op.attrs.axes, keepdim=op.attrs.keep)
        return _clamped(op, y)
    return _move(op, graph, x, values)


def _move(op: Op, graph: Graph, x: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    shape = graph.tensors[op.output].shape
    if op.kind is OpKind.RESHAPE:
        return x.reshape(len(x), *shape[1:])
    if isinstance(op.attrs, Transpose):
        return x.permute(op.attrs.axes)
    if isinstance(op.attrs, Pad):
        around = [
            n
            for pair in zip(reversed(op.attrs.before), reversed(op.attrs.after), strict=True)
            for n in pair
        ]
        return functional.pad(x, around, value=op.attrs.value)
    if isinstance(op.attrs, Slice):
        at = op.attrs
        # Axis 0 is the batch, whole.
        for axis in range(1, x.ndim):
            kept = torch.arange(at.begin[axis], at.end[axis], at.stride[axis])
            x = x.index_select(axis, kept)
        return x
    if isinstance(op.attrs, Concat):
        parts = [_operand(graph, name, values) for name in op.inputs]
        parts = [p.expand(len(x), *p.shape[1:]) if len(p) != len(x) else p for p in parts]
        return torch.cat(parts, dim=op.attrs.axis)
    # QUANTIZE, DEQUANTIZE, and a TABLE that only changes the scale
    return x


def _operand(graph: Graph, name: str, values: Mapping[str, Tensor]) -> Tensor:
    tensor = graph.tensors[name]
    if tensor.data is None:
        return values[name]
    if tensor.quant is None:
        return torch.from_numpy(np.array(tensor.data))
    assert tensor.dtype is DType.INT8
    return torch.from_numpy(tensor.quant.dequantize(tensor.data))


def _clamped(op: Op, y: Tensor) -> Tensor:
    return y if op.clamp.is_linear else torch.clamp(y, op.clamp.lo, op.clamp.hi)


def _padded(x: Tensor, window: Window, value: float) -> Tensor:
    """x NHWC as NCHW with the window's pads."""
    top, bottom, left, right = window.pads
    pictures = x.permute(0, 3, 1, 2)
    return functional.pad(pictures, (left, right, top, bottom), value=value)


def _pool(op: Op, x: Tensor) -> Tensor:
    assert op.window is not None
    kernel, stride = op.window.kernel, op.window.stride
    if op.kind is OpKind.MAX_POOL:
        y = functional.max_pool2d(
            _padded(x, op.window, -torch.inf), kernel, stride, dilation=op.window.dilation
        )
        return y.permute(0, 2, 3, 1)
    if op.window.dilation != (1, 1):
        raise UsageError(f"operator {op.name}: expected an average pool without dilation")
    total = functional.avg_pool2d(_padded(x, op.window, 0.0), kernel, stride)
    inside = _padded(torch.ones(1, *x.shape[1:3], 1), op.window, 0.0)
    return (total / functional.avg_pool2d(inside, kernel, stride)).permute(0, 2, 3, 1)


def _unary(function: Unary, x: Tensor) -> Tensor:
    a, b = function.a, function.b
    made: dict[UnaryKind, Callable[[], Tensor]] = {
        UnaryKind.RELU: lambda: torch.relu(x),
        UnaryKind.CLIP: lambda: torch.clamp(x, a, b),
        UnaryKind.LEAKY_RELU: lambda: torch.where(x < 0.0, a * x, x),
        UnaryKind.SIGMOID: lambda: torch.sigmoid(x),
        UnaryKind.TANH: lambda: torch.tanh(x),
        UnaryKind.HARDSWISH: lambda: functional.hardswish(x),
        UnaryKind.HARDSIGMOID: lambda: torch.clamp(a * x + b, 0.0, 1.0),
        UnaryKind.ELU: lambda: functional.elu(x, alpha=a),
        UnaryKind.ABS: lambda: torch.abs(x),
        UnaryKind.EXP: lambda: torch.exp(x),
    }
    return made[function.kind]()
