"""What each ONNX operator that computes is in the graph: handlers by the operator's name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fieldloop.frontends.builder import Constant
from fieldloop.frontends.channels import Value
from fieldloop.frontends.channels_layers import Pads
from fieldloop.frontends.onnx_file import Node
from fieldloop.frontends.onnx_fold import axes_of
from fieldloop.ir.op import OpKind, UnaryKind

if TYPE_CHECKING:
    from fieldloop.frontends.onnx_frontend import OnnxWalk

Made = Value | Constant | list[Value]
Handler = Callable[["OnnxWalk", Node], Made]
HANDLERS: dict[str, Handler] = {}


def registrar(
    handlers: dict[str, Handler],
) -> Callable[..., Callable[[Handler], Handler]]:
    """A decorator that files a handler under the names of its operators."""

    def handles(*names: str) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            handlers.update(dict.fromkeys(names, handler))
            return handler

        return register

    return handles


handles = registrar(HANDLERS)


def same_value(walk: OnnxWalk, node: Node, name: str, default: float) -> float:
    """A number among the attributes."""
    value = node.attributes.get(name, default)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise walk.source.refuse(f"{name} = {value}", "expected a finite number")
    return float(value)


# ---- windows


def window_pads(
    walk: OnnxWalk,
    node: Node,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Pads:
    """Padding before and after each axis, from `pads` or `auto_pad`."""
    mode = node.attributes.get("auto_pad", "NOTSET")
    axes = len(kernel)
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
        ]
        small = tuple(t // 2 for t in totals)
        large = tuple(t - t // 2 for t in totals)
        return (small, large) if mode == "SAME_UPPER" else (large, small)
    if mode not in ("NOTSET", "VALID", ""):
        raise walk.source.refuse(f"auto_pad = {mode}", "expected SAME_UPPER, SAME_LOWER or VALID")
    given = tuple(int(n) for n in node.attributes.get("pads", (0,) * (2 * axes)))
    if mode == "VALID":
        given = (0,) * (2 * axes)
    if len(given) != 2 * axes:
        raise walk.source.refuse(f"pads {given}", f"expected {2 * axes} numbers")
    return given[:axes], given[axes:]


def window_attribute(walk: OnnxWalk, node: Node, name: str, axes: int) -> tuple[int, ...]:
    """One number for each axis of a window, 1 where the attribute is absent."""
    given = tuple(int(n) for n in node.attributes.get(name, (1,) * axes))
    if len(given) != axes or min(given, default=1) < 1:
        raise walk.source.refuse(f"{name} = {given}", f"expected {axes} numbers of 1 or more")
    return given


def convolve(walk: OnnxWalk, node: Node, x: Value, w: Constant, b: Constant | None) -> Value:
    axes = w.data.ndim - 2
    if axes not in (1, 2) or len(x.shape) != axes + 2:
        raise walk.source.refuse(
            f"weights {w.data.shape} for an input {x.shape}", "expected 1-D or 2-D convolutions"
        )
    kernel = w.data.shape[2:]
    stated = tuple(node.attributes.get("kernel_shape", kernel))
    if stated != kernel:
        raise walk.source.refuse(f"kernel_shape {stated}, weights {kernel}", "expected one size")
    stride = window_attribute(walk, node, "strides", axes)
    dilation = window_attribute(walk, node, "dilations", axes)
    if b is not None and b.data.shape != (w.data.shape[0],):
        raise walk.source.refuse(f"a bias {b.data.shape}", f"expected {w.data.shape[0]} numbers")
    return walk.source.conv(
        x,
        w,
        b,
        stride=stride,
        dilation=dilation,
        pads=window_pads(walk, node, x.shape[2:], kernel, stride, dilation),
        groups=int(node.attributes.get("group", 1)),
    )


@handles("Conv")
def conv(walk: OnnxWalk, node: Node) -> Value:
    return convolve(walk, node, walk.value(node), walk.weights(node, 1), walk.constant(node, 2))


@handles("ConvTranspose")
def conv_transpose(walk: OnnxWalk, node: Node) -> Value:
    raise walk.source.refuse(
        "transposed convolutions are not supported", "end the network at a smaller map"
    )


def pooled(walk: OnnxWalk, node: Node, x: Value, kind: OpKind) -> Value:
    kernel = tuple(int(n) for n in node.attributes.get("kernel_shape", ()))
    if len(kernel) not in (1, 2) or len(x.shape) != len(kernel) + 2:
        raise walk.source.refuse(
            f"kernel_shape {kernel} for an input {x.shape}", "expected a 1-D or 2-D pool"
        )
    stride = window_attribute(walk, node, "strides", len(kernel))
    dilation = window_attribute(walk, node, "dilations", len(kernel))
    if set(dilation) != {1}:
        raise walk.source.refuse(f"dilations {dilation} of a pool", "expected 1")
    if node.attributes.get("storage_order", 0):
        raise walk.source.refuse("storage_order is set", "leave it at 0")
    return walk.source.pool(
        kind,
        x,
        kernel=kernel,
        stride=stride,
        pads=window_pads(walk, node, x.shape[2:], kernel, stride, dilation),
        ceil_mode=bool(node.attributes.get("ceil_mode", 0)),
        count_include_pad=bool(node.attributes.get("count_include_pad", 0)),
    )


@handles("MaxPool")
def max_pool(walk: OnnxWalk, node: Node) -> Value:
    return pooled(walk, node, walk.value(node), OpKind.MAX_POOL)


@handles("AveragePool")
def average_pool(walk: OnnxWalk, node: Node) -> Value:
    return pooled(walk, node, walk.value(node), OpKind.AVG_POOL)


@handles("GlobalAveragePool")
def global_average_pool(walk: OnnxWalk, node: Node) -> Value:
    x = walk.value(node)
    return walk.source.mean(x, tuple(range(2, len(x.shape))), keep=True)


@handles("GlobalMaxPool")
def global_max_pool(walk: OnnxWalk, node: Node) -> Value:
    return walk.source.peak(walk.value(node))


def _reduced(walk: OnnxWalk, node: Node, x: Value) -> tuple[int, ...]:
    """The axes of a reduction, counted from 0."""
    given = axes_of(node, walk.arrays(node), 1)
    if given is None and node.attributes.get("noop_with_empty_axes", 0):
        raise walk.source.refuse("no axes", "name those to reduce")
    axes = given if given else tuple(range(len(x.shape)))
    if any(not -len(x.shape) <= a < len(x.shape) for a in axes):
        raise walk.source.refuse(f"axes {axes} of {x.shape}", "expected axes that there are")
    return tuple(sorted(a % len(x.shape) for a in axes))


@handles("ReduceMean")
def reduce_mean(walk: OnnxWalk, node: Node) -> Value:
    x = walk.value(node)
    keep = bool(node.attributes.get("keepdims", 1))
    return walk.source.mean(x, _reduced(walk, node, x), keep=keep)


@handles("ReduceMax")
def reduce_max(walk: OnnxWalk, node: Node) -> Value:
    x = walk.value(node)
    axes, rank = _reduced(walk, node, x), len(x.shape)
    if rank not in (3, 4) or axes != tuple(range(2, rank)):
        raise walk.source.refuse(f"a maximum over axes {axes} of {x.shape}", "expected H and W")
    made = walk.source.peak(x)
    return made if node.attributes.get("keepdims", 1) else walk.source.reshape(made, x.shape[:2])


# ---- layers


def dense(walk: OnnxWalk, x: Value, w: Constant, b: Constant | None) -> Value:
    """x [..., c_in] by w [c_in, c_out]."""
    if w.data.ndim < 2 or any(n != 1 for n in w.data.shape[:-2]):
        raise walk.source.refuse(f"a matrix {w.data.shape}", "expected [c_in, c_out]")
    while w.data.ndim > 2:
        w = (
            Constant(w.data[0])
            if w.axis is not None
            else Constant(w.data[0], w.scales, w.zero_point)
        )
    if b is not None:
        row = np.broadcast_to(b.data.reshape(-1), (w.data.shape[1],))
        b = Constant(np.array(row))
    return walk.source.linear(x, w.transpose((1, 0)), b)


@handles("Gemm")
def gemm(walk: OnnxWalk, node: Node) -> Value:
    x, w, b = walk.value(node), walk.weights(node, 1), walk.constant(node, 2)
    alpha, beta = (same_value(walk, node, name, 1.0) for name in ("alpha", "beta"))
    if node.attributes.get("transA", 0) and len(x.shape) == 2:
        x = walk.source.transpose(x, (1, 0))
    if node.attributes.get("transB", 0):
        w = w.transpose((1, 0))
    if alpha != 1.0:
        w = Constant(w.data * alpha)
    if b is not None:
        if b.data.size not in (1, w.data.shape[-1]):
            raise walk.source.refuse(f"C of shape {b.data.shape}", "expected one row")
        b = Constant(b.data * beta)
    return dense(walk, x, w, b)


@handles("MatMul")
def matmul(walk: OnnxWalk, node: Node) -> Value:
    if not isinstance(walk.values.get(node.inputs[0]), Value):
        raise walk.source.refuse("its left side is a constant", "put the weights on the right")
    return dense(walk, walk.value(node), walk.weights(node, 1), None)


@handles("BatchNormalization")
def batch_norm(walk: OnnxWalk, node: Node) -> Value:
    old = walk.opset < 7 and not node.attributes.get("is_test", 0)
    if node.attributes.get("training_mode", 0) or old:
        raise walk.source.refuse("training_mode is set", "export the model in eval mode")
    gamma, beta, mean, var = (walk.weights(node, i).data.reshape(-1) for i in range(1, 5))
    epsilon = same_value(walk, node, "epsilon", 1e-5)
    if (var + epsilon <= 0).any():
        raise walk.source.refuse("a variance below 0", "is the file damaged?")
    scale = gamma / np.sqrt(var + epsilon)
    return walk.source.scale_shift(walk.value(node), scale, beta - mean * scale, 1)


@handles("Gather")
def gather(walk: OnnxWalk, node: Node) -> Value:
    """Rows of a table by computed indices, or one or more entries of a value."""
    if isinstance(walk.values.get(node.inputs[0]), Value):
        from fieldloop.frontends.onnx_moves import take

        return take(walk, node)
    if node.attributes.get("axis", 0) != 0:
        raise walk.source.refuse(f"axis {node.attributes['axis']}", "expected 0 for a table")
    return walk.source.embedding(walk.value(node, 1), walk.weights(node, 0))


@handles("Softmax")
def softmax(walk: OnnxWalk, node: Node) -> Value:
    return soft(walk, node, walk.value(node), walk.opset)


def soft(walk: OnnxWalk, node: Node, x: Value, opset: int) -> Value:
    rank = len(x.shape)
    axis = int(node.attributes.get("axis", -1 if opset >= 13 else 1))
    if not -rank <= axis < rank:
        raise walk.source.refuse(f"axis {axis} of {x.shape}", "expected an axis that there is")
    axis %= rank
    if opset >= 13:
        return walk.source.softmax(x, axis)
    # Before opset 13 it runs over this axis and all behind it.
    flat = (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    if flat[1] == x.shape[axis]:
        return walk.source.softmax(x, axis)
    return walk.source.reshape(walk.source.softmax(walk.source.reshape(x, flat), 1), x.shape)


@handles("LogSoftmax")
def log_softmax(walk: OnnxWalk, node: Node) -> Value:
    raise walk.source.refuse(
        "a logarithm has no place on the device",
        f"cut the graph before it with --outputs {node.inputs[0]}; the largest class is the same",
    )


# ---- activations


@handles("Relu")
def relu(walk: OnnxWalk, node: Node) -> Value:
    return walk.source.clamp(walk.value(node), 0.0, math.inf)


@handles("Clip")
def clip(walk: OnnxWalk, node: Node) -> Value:
    edges = []
    for place, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), 1):
        given = walk.constant(node, place)
        if given is not None and given.data.size != 1:
            raise walk.source.refuse(f"{name} of shape {given.data.shape}", "expected a number")
        edge = node.attributes.get(name, default)
        edges.append(float(edge if given is None else given.data.reshape(-1)[0]))
    # the largest numbers of a float32 stand for no limit
    lo = -math.inf if edges[0] <= -3.4e38 else edges[0]
    hi = math.inf if edges[1] >= 3.4e38 else edges[1]
    if lo > hi:
        lo = hi
    return walk.source.clamp(walk.value(node), lo, hi)


_UNARY = {
    "Sigmoid": UnaryKind.SIGMOID,
    "Tanh": UnaryKind.TANH,
    "HardSwish": UnaryKind.HARDSWISH,
    "Abs": UnaryKind.ABS,
    "Exp": UnaryKind.EXP,
}


@handles(*_UNARY)
def unary(walk: OnnxWalk, node: Node) -> Value:
    return walk.source.unary(walk.value(node), _UNARY[node.operator])


@handles("LeakyRelu")
def leaky_relu(walk: OnnxWalk, node: Node) -> Value:
    slope = same_value(walk, node, "alpha", 0.01)
    return walk.source.unary(walk.value(node), UnaryKind.LEAKY_RELU, slope)


@handles("PRelu")
def prelu(walk: OnnxWalk, node: Node) -> Value:
    slope = walk.weights(node, 1)
    if slope.data.size == 0 or (slope.data != slope.data.reshape(-1)[0]).any():
        raise walk.source.refuse("slopes that differ", "use one slope, or a leaky ReLU")
    number = float(slope.data.reshape(-1)[0])
    return walk.source.unary(walk.value(node), UnaryKind.LEAKY_RELU, number)


@handles("HardSigmoid")
def hard_sigmoid(walk: OnnxWalk, node: Node) -> Value:
    alpha, beta = (same_value(walk, node, n, d) for n, d in (("alpha", 0.2), ("beta", 0.5)))
    return walk.source.unary(walk.value(node), UnaryKind.HARDSIGMOID, alpha, beta)


@handles("Elu")
def elu(walk: OnnxWalk, node: Node) -> Value:
    return walk.source.unary(walk.value(node), UnaryKind.ELU, same_value(walk, node, "alpha", 1.0))


# ---- two operands

_BINARY = {
    "Add": OpKind.ADD,
    "Sub": OpKind.SUB,
    "Mul": OpKind.MUL,
    "Min": OpKind.MINIMUM,
    "Max": OpKind.MAXIMUM,
}


@handles("Add", "Sub", "Mul")
def binary(walk: OnnxWalk, node: Node) -> Value:
    kind = _BINARY[node.operator]
    return walk.source.binary(kind, walk.operand(node, 0), second(walk, node))


def second(walk: OnnxWalk, node: Node) -> Value | Constant:
    """The second operand; before opset 7 `axis` said where its axes belong."""
    operand = walk.operand(node, 1)
    if walk.opset >= 7 or "axis" not in node.attributes:
        return operand
    first = walk.operand(node, 0)
    rank = len(first.shape) if isinstance(first, Value) else first.data.ndim
    if not isinstance(operand, Constant):
        raise walk.source.refuse("a broadcast by axis", "convert it with onnx.version_converter")
    axis = int(node.attributes["axis"])
    behind = max(rank - (axis + rank if axis < 0 else axis) - operand.data.ndim, 0)
    return Constant(operand.data.reshape(*operand.data.shape, *(1,) * min(behind, 8)))


@handles("Min", "Max", "Sum")
def variadic(walk: OnnxWalk, node: Node) -> Value:
    kind = _BINARY.get(node.operator, OpKind.ADD)
    operands = [walk.operand(node, i) for i in range(len(node.inputs))]
    operands.sort(key=lambda operand: not isinstance(operand, Value))  # computed ones first
    made = operands[0]
    if not isinstance(made, Value):
        raise walk.source.refuse("all inputs are constants", "expected a computed value")
    for operand in operands[1:]:
        made = walk.source.binary(kind, made, operand)
    return made


@handles("Div")
def div(walk: OnnxWalk, node: Node) -> Value:
    by = second(walk, node)
    if not isinstance(by, Constant) or not by.data.all():
        raise walk.source.refuse("it divides by a value or by zero", "divide by constants")
    return walk.source.binary(OpKind.MUL, walk.value(node), Constant(1.0 / by.data))


@handles("Neg")
def neg(walk: OnnxWalk, node: Node) -> Value:
    return walk.source.binary(OpKind.MUL, walk.value(node), Constant(np.array(-1.0)))


@handles("Pow")
def power(walk: OnnxWalk, node: Node) -> Value:
    exponent = walk.weights(node, 1).data
    if exponent.size != 1 or exponent.reshape(-1)[0] != 2.0:
        raise walk.source.refuse("its exponent is not 2", "expected a square")
    x = walk.value(node)
    return walk.source.binary(OpKind.MUL, x, x)
