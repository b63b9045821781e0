"""Operators on each element or over axes: sums, products, activations, means, softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import numpy as np

from fieldloop.frontends.tflite import tables
from fieldloop.frontends.tflite.file import Node
from fieldloop.frontends.tflite.layers import pool_over
from fieldloop.frontends.tflite.names import LEAKY_RELU_ALPHA, SOFTMAX_BETA
from fieldloop.frontends.tflite.tables import Int8
from fieldloop.frontends.tflite.walk import Walk, axis_of, clamp_of, is_legacy, refuse
from fieldloop.ir.op import Clamp, Fixed, Mean, OpKind, Unary, UnaryKind, Window
from fieldloop.ir.tensor import DType, Quant, Tensor
from fieldloop.quantize.fixedpoint import (
    activation_range,
    add_params,
    mean_params,
    mul_params,
    softmax_params,
)

_PARAMS: dict[OpKind, Callable[[Quant, Quant, Quant, Clamp], Fixed]] = {
    OpKind.ADD: add_params,
    OpKind.SUB: add_params,
    OpKind.MUL: mul_params,
}
SOFTMAX_COLUMNS = 4095  # what its sum of exponentials holds
LOGISTIC_OUT = Quant((1.0 / 256.0,), -128)
TANH_OUT = Quant((1.0 / 128.0,), 0)


def arithmetic(walk: Walk, node: Node, kind: OpKind) -> None:
    """ADD, SUB, MUL."""
    a, b, out = walk.operand(node, 0), walk.operand(node, 1), walk.out(node)
    _not_integers(out)
    clamp = clamp_of(node)
    fixed = None
    if a.quant and b.quant and out.quant:
        fixed = _PARAMS[kind](a.quant, b.quant, out.quant, clamp)
    walk.put(node, kind, [a, b], clamp=clamp, fixed=fixed)


def divide(walk: Walk, node: Node) -> None:
    """DIV of real numbers by constants: a product with their reciprocals."""
    a, b = walk.read(node, 0), walk.operand(node, 1)
    if a.dtype is not DType.FLOAT32 or b.data is None:
        refuse("expected a float32 value and a constant divisor")
    with np.errstate(divide="ignore", over="ignore"):
        inverse = (1.0 / b.data.astype(np.float64)).astype(np.float32)
    if not np.isfinite(inverse).all():
        refuse("divides by zero")
    del walk.tensors[b.name]
    factor = walk.add_constant(walk.info(node, 1), inverse, None)
    walk.put(node, OpKind.MUL, [a, factor], clamp=clamp_of(node))


def extremum(walk: Walk, node: Node, kind: OpKind) -> None:
    """MINIMUM, MAXIMUM: integers are compared as they are, in whatever quantisation."""
    place = 0 if node.inputs and walk.constant(node.inputs[0]) is None else 1
    like = walk.read(node, place)
    _not_integers(like)
    pair = [walk.operand(node, i, like if i != place else None) for i in range(2)]
    for i, t in enumerate(pair):
        if t.quant != like.quant:
            hidden = walk.hidden(t.name, t.shape, t, like.quant)
            pair[i] = walk.table(t, hidden, tables.identity())
    walk.put(node, kind, pair, quant=like.quant)


def _not_integers(x: Tensor) -> None:
    if x.dtype is DType.INT32:
        refuse("computes with int32 values, expected int8 or float32")


# ---- functions of one number


def activation(
    walk: Walk,
    node: Node,
    function: Unary,
    entries: Callable[[Quant, Quant, bool], Int8],
) -> None:
    """A float32 function, or a table of int8. `entries`: (x, out, came as uint8) -> [256]."""
    x, out = walk.read(node), walk.out(node)
    if out.dtype is not x.dtype:
        refuse(f"{x.dtype.value} makes {out.dtype.value}, expected the same type")
    _not_integers(x)
    if x.quant is None or out.quant is None:
        walk.put(node, OpKind.UNARY, [x], attrs=function)
        return
    made = entries(x.quant, out.quant, is_legacy(walk.out_info(node)))
    walk.publish(walk.out_info(node), walk.table(x, out, made))


def relu(walk: Walk, node: Node, clamp: Clamp) -> None:
    """RELU, RELU6, RELU_N1_TO_1, RELU_0_TO_1."""

    def entries(x: Quant, out: Quant, legacy: bool) -> Int8:
        if node.operator == "RELU6" and not legacy:
            return tables.clamp(*activation_range(clamp, x))
        low, high = activation_range(clamp, out)
        return tables.relu(x, out, low=low, high=high)

    kind = UnaryKind.RELU if math.isinf(clamp.hi) else UnaryKind.CLIP
    bounds = (0.0, 0.0) if kind is UnaryKind.RELU else (clamp.lo, clamp.hi)
    activation(walk, node, Unary(kind, *bounds), entries)


def leaky_relu(walk: Walk, node: Node) -> None:
    alpha = node.real(LEAKY_RELU_ALPHA, 0.0)
    if not math.isfinite(alpha):
        refuse(f"slope {alpha}, expected a number")
    activation(
        walk,
        node,
        Unary(UnaryKind.LEAKY_RELU, alpha),
        lambda x, out, _: tables.leaky_relu(x, out, alpha),
    )


def prelu(walk: Walk, node: Node) -> None:
    """PRELU where all slopes are one."""
    info = walk.info(node, 1)
    data = walk.constant(info.index)
    if data is None or not data.size or (data != data.flat[0]).any():
        refuse("has a slope for each channel, expected one", "use LeakyReLU or ReLU")
    slope = data.flat[0]
    if data.dtype.kind == "f":
        if not np.isfinite(slope):
            refuse(f"slope {slope}, expected a number")
        function = Unary(UnaryKind.LEAKY_RELU, float(slope))
    else:
        function = Unary(UnaryKind.RELU)  # replaced by the table
    alpha = walk.quant(info)

    def entries(x: Quant, out: Quant, legacy: bool) -> Int8:
        if alpha is None:
            refuse(f"slopes are {info.dtype}, values int8")
        raw = int(slope) - (128 if info.dtype == "uint8" else 0)
        return tables.prelu(x, out, alpha, raw - alpha.zero_point)

    if data.dtype.kind != "f" and walk.read(node).quant is None:
        refuse(f"slopes are {info.dtype}, values {walk.info(node, 0).dtype}")
    activation(walk, node, function, entries)


def logistic(walk: Walk, node: Node) -> None:
    def entries(x: Quant, out: Quant, legacy: bool) -> Int8:
        if legacy:
            return tables.of_reals(x, out, tables.sigmoid)
        _fixed_output(out, LOGISTIC_OUT)
        return tables.logistic(x)

    activation(walk, node, Unary(UnaryKind.SIGMOID), entries)


def tanh(walk: Walk, node: Node) -> None:
    def entries(x: Quant, out: Quant, legacy: bool) -> Int8:
        if legacy:
            return tables.of_reals(x, out, math.tanh)
        _fixed_output(out, TANH_OUT)
        return tables.tanh(x)

    activation(walk, node, Unary(UnaryKind.TANH), entries)


def _fixed_output(out: Quant, expected: Quant) -> None:
    if out.zero_point != expected.zero_point or out.scale != expected.scale:
        refuse(
            f"output scale {out.scale} and zero point {out.zero_point}, expected "
            f"{expected.scale} and {expected.zero_point}",
            "convert the model again",
        )


def hard_swish(walk: Walk, node: Node) -> None:
    activation(walk, node, Unary(UnaryKind.HARDSWISH), lambda x, out, _: tables.hard_swish(x, out))


def elu(walk: Walk, node: Node) -> None:
    activation(
        walk,
        node,
        Unary(UnaryKind.ELU, 1.0),
        lambda x, out, _: tables.of_reals(x, out, tables.elu),
    )


def absolute(walk: Walk, node: Node) -> None:
    activation(walk, node, Unary(UnaryKind.ABS), lambda x, out, _: tables.absolute(x, out))


def exp(walk: Walk, node: Node) -> None:
    def entries(x: Quant, out: Quant, legacy: bool) -> Int8:
        return cast(Int8, refuse("is int8, expected float32"))

    activation(walk, node, Unary(UnaryKind.EXP), entries)


# ---- over axes


def softmax(walk: Walk, node: Node) -> None:
    """SOFTMAX over the last axis."""
    x, out = walk.read(node), walk.out(node)
    beta = node.real(SOFTMAX_BETA, 0.0)
    if not (math.isfinite(beta) and beta > 0.0) or (beta != 1.0 and x.quant is None):
        refuse(f"beta is {beta}, expected 1", "scale the logits in the layer before it")
    fixed = None
    if x.quant is not None and out.quant is not None:
        _fixed_output(out.quant, LOGISTIC_OUT)
        if x.shape[-1] > SOFTMAX_COLUMNS:
            refuse(f"over {x.shape[-1]} values, expected at most {SOFTMAX_COLUMNS}")
        fixed = softmax_params(x.quant, beta)
    walk.put(node, OpKind.SOFTMAX, [x], fixed=fixed)


def mean(walk: Walk, node: Node) -> None:
    x, out = walk.read(node), walk.out(node)
    _not_integers(x)
    axes = _axes(walk, node, x)
    keep = bool(node.option("keep"))
    count = math.prod(x.shape[axis] for axis in axes)
    fixed = None
    if x.quant is not None and out.quant is not None:
        fixed = mean_params(x.quant, out.quant, count, Clamp())
    shape = tuple(
        1 if axis in axes else n for axis, n in enumerate(x.shape) if keep or axis not in axes
    )
    walk.put(node, OpKind.MEAN, [x], shape=shape or (1,), attrs=Mean(axes, keep), fixed=fixed)


def reduce_max(walk: Walk, node: Node) -> None:
    """REDUCE_MAX over neighbouring axes: a pool as large as they are."""
    x = walk.read(node)
    axes = _axes(walk, node, x)
    first, end = axes[0], axes[-1] + 1
    if axes != tuple(range(first, end)):
        refuse(f"the maximum over axes {list(axes)}, expected neighbouring ones")
    _not_integers(x)
    height, width = math.prod(x.shape[first:end]), 1
    if first == 1 and end == 3:
        height, width = x.shape[1:3]
    if math.prod(x.shape[:first]) != 1:
        refuse(f"the maximum over axes {list(axes)} of {list(x.shape)}, expected the first ones")
    shape = (1, height, width, math.prod(x.shape[end:]))
    pool_over(
        walk,
        node,
        OpKind.MAX_POOL,
        walk.reshaped(x, shape),
        Window((height, width)),
        Clamp(),
    )


def _axes(walk: Walk, node: Node, x: Tensor) -> tuple[int, ...]:
    found = {axis_of(axis, len(x.shape)) for axis in walk.numbers(node, 1, "axes")}
    if not found:
        refuse("no axis is named", "export or copy the model again")
    return tuple(sorted(found))


# ---- between float32 and int8


def quantize(walk: Walk, node: Node) -> None:
    """QUANTIZE: float32 to int8, or int8 to another quantisation."""
    x, out = walk.read(node), walk.out(node)
    if out.dtype is not DType.INT8:
        refuse(f"makes {walk.out_info(node).dtype}, expected int8 or uint8")
    if x.dtype is DType.FLOAT32:
        walk.put(node, OpKind.QUANTIZE, [x])
    elif x.quant is None or out.quant is None:
        refuse(f"{walk.info(node, 0).dtype} makes int8, expected float32 or int8")
    elif x.quant == out.quant:  # uint8 <-> int8: nothing is left to do
        walk.put(node, OpKind.RESHAPE, [x])
    else:
        walk.publish(walk.out_info(node), walk.table(x, out, tables.rescale(x.quant, out.quant)))


def dequantize(walk: Walk, node: Node) -> None:
    x, out = walk.read(node), walk.out(node)
    if x.dtype is not DType.INT8 or out.dtype is not DType.FLOAT32:
        refuse(f"{walk.info(node, 0).dtype} makes {walk.out_info(node).dtype}")
    walk.put(node, OpKind.DEQUANTIZE, [x])
