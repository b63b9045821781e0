"""ONNX's quantised operators: Q and DQ pairs, and the QOperator forms that say the same in one.

All of them become QUANTIZE, a float operator and DEQUANTIZE here; `qdq` then finds what is int8.
A source's uint8 values lie 128 lower in the graph, zero points too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fieldloop.frontends.builder import Constant
from fieldloop.frontends.channels import Value
from fieldloop.frontends.onnx_file import DTYPES, Node
from fieldloop.frontends.onnx_operators import (
    Handler,
    Made,
    convolve,
    dense,
    pooled,
    registrar,
    soft,
)
from fieldloop.ir.op import OpKind, UnaryKind
from fieldloop.ir.tensor import Array, DType, Quant, as_float32

if TYPE_CHECKING:
    from fieldloop.frontends.onnx_frontend import OnnxWalk

HANDLERS: dict[str, Handler] = {}
handles = registrar(HANDLERS)


def _scales(walk: OnnxWalk, node: Node, place: int) -> Array:
    scale = walk.array(node, place)
    if scale is None or scale.dtype.kind != "f" or scale.size == 0 or scale.ndim > 1:
        raise walk.source.refuse(
            f"input {place} is no scale", "expected a float, or a row of them"
        )
    made = scale.reshape(-1).astype(np.float32)
    if not (np.isfinite(made).all() and (made > 0).all()):
        raise walk.source.refuse(f"a scale of {made.min()}", "expected finite scales above 0")
    return made


def _zero(walk: OnnxWalk, node: Node, place: int, default: str) -> tuple[Array, str]:
    """Zero points as the graph has them, and the source's type."""
    zero = walk.array(node, place)
    if zero is None:
        return np.zeros(1, np.int64), default
    if zero.dtype.name not in ("int8", "uint8", "int32") or zero.size == 0:
        raise walk.source.refuse(f"elements of {zero.dtype}", "expected int8 or uint8")
    return zero.reshape(-1).astype(np.int64), zero.dtype.name


def _quant(walk: OnnxWalk, node: Node, place: int, default: str) -> tuple[Quant, str]:
    """The one quantisation of a computed value, from inputs `place` (scale) and the next."""
    scale = _scales(walk, node, place)
    zero, kind = _zero(walk, node, place + 1, default)
    if scale.size != 1 or zero.size != 1:
        raise walk.source.refuse(
            "a scale for each channel of a computed value", "expected one scale for all of it"
        )
    if kind not in ("int8", "uint8"):
        raise walk.source.refuse(f"elements of {kind}", "expected int8 or uint8")
    shift = 128 if kind == "uint8" else 0
    default_zero = 0 if walk.array(node, place + 1) is None else int(zero[0])
    return Quant((as_float32(float(scale[0])),), default_zero - shift), kind


def constant_reals(walk: OnnxWalk, node: Node, integers: Array, place: int, axis: int) -> Constant:
    """A constant's integers as real numbers that remember them."""
    scale = _scales(walk, node, place)
    zero, _ = _zero(walk, node, place + 1, integers.dtype.name)
    if integers.dtype.name not in ("int8", "uint8", "int32"):
        raise walk.source.refuse(f"elements of {integers.dtype}", "expected int8, uint8 or int32")
    rank = integers.ndim
    if scale.size == 1:
        along: tuple[int, ...] = ()
        at = None
    else:
        if not -rank <= axis < rank or integers.shape[axis] != scale.size:
            raise walk.source.refuse(
                f"{scale.size} scales for axis {axis} of {integers.shape}", "expected one each"
            )
        at = axis % rank
        along = tuple(-1 if i == at else 1 for i in range(rank))
    if zero.size not in (1, scale.size):
        raise walk.source.refuse(f"{zero.size} zero points", f"expected {scale.size}")
    reals = integers.astype(np.float64) - (
        zero.reshape(along) if zero.size > 1 else float(zero[0])
    )
    reals = reals * scale.astype(np.float64).reshape(along)
    shift = 128 if integers.dtype == np.uint8 else 0
    if integers.dtype == np.int32 or len(set(zero.tolist())) != 1:
        return Constant(reals)
    scales = tuple(as_float32(float(s)) for s in scale)
    return Constant(reals, scales, int(zero[0]) - shift, at)


def reals(walk: OnnxWalk, node: Node, place: int, axis: int = 0, scale: int = -1) -> Made:
    """Input `place` as real numbers, by the scale and zero point behind it."""
    scale = place + 1 if scale < 0 else scale
    held = walk.values.get(node.inputs[place]) if len(node.inputs) > place else None
    if isinstance(held, np.ndarray):
        return constant_reals(walk, node, held, scale, axis)
    x = walk.value(node, place)
    if walk.source.build.tensors[x.name].dtype is not DType.INT8:
        raise walk.source.refuse(f"input {place} is not int8", "expected int8 or uint8")
    quant, _ = _quant(walk, node, scale, walk.kinds.get(node.inputs[place], "uint8"))
    walk.assign(x, quant)
    return walk.source.dequantized(x)


def computed(walk: OnnxWalk, node: Node, place: int, scale: int = -1) -> Value:
    made = reals(walk, node, place, scale=scale)
    if not isinstance(made, Value):
        raise walk.source.refuse(f"input {place} is a constant", "expected a computed value")
    return made


def weights(walk: OnnxWalk, node: Node, place: int, axis: int) -> Constant:
    made = reals(walk, node, place, axis)
    if not isinstance(made, Constant):
        raise walk.source.refuse(
            f"input {place} is computed in the network", "expected a constant"
        )
    return made


def integers(walk: OnnxWalk, node: Node, x: Value, place: int, default: str = "uint8") -> Value:
    """Real numbers as int8, by the scale at input `place` and the zero point behind it."""
    quant, kind = _quant(walk, node, place, default)
    walk.kinds[node.outputs[0]] = kind
    made = walk.source.build.add(
        walk.source.wanted, OpKind.QUANTIZE, [x.name], dtype=DType.INT8, quant=quant
    )
    return Value(made, x.shape, x.order)


@handles("QuantizeLinear")
def quantize(walk: OnnxWalk, node: Node) -> Value:
    x = walk.value(node)
    if walk.source.build.tensors[x.name].dtype is not DType.FLOAT32:
        raise walk.source.refuse("its input is not float32", "expected real numbers")
    if node.attributes.get("block_size", 0):
        raise walk.source.refuse("block_size is set", "expected one scale for all of it")
    default = DTYPES.get(node.attributes.get("output_dtype", 0) or 2, "another type")
    return integers(walk, node, x, 1, default)


@handles("DequantizeLinear")
def dequantize(walk: OnnxWalk, node: Node) -> Made:
    if node.attributes.get("block_size", 0):
        raise walk.source.refuse("block_size is set", "expected one scale for all of it")
    return reals(walk, node, 0, int(node.attributes.get("axis", 1)))


def _bias(walk: OnnxWalk, node: Node, place: int, x: Value, w: Constant) -> Constant | None:
    """int32 at the product of the scales of x and w."""
    given = walk.array(node, place)
    if given is None:
        return None
    quant = walk.source.build.tensors[walk.source.build.ops[x.name].inputs[0]].quant
    assert quant is not None
    scales = np.array(w.scales or (1.0,), np.float64)
    return Constant(given.reshape(-1).astype(np.float64) * (quant.scale * scales))


@handles("QLinearConv")
def conv(walk: OnnxWalk, node: Node) -> Value:
    x, w = computed(walk, node, 0), weights(walk, node, 3, 0)
    made = convolve(walk, node, x, w, _bias(walk, node, 8, x, w))
    return integers(walk, node, made, 6)


@handles("QLinearMatMul")
def matmul(walk: OnnxWalk, node: Node) -> Value:
    w = weights(walk, node, 3, -1)
    return integers(walk, node, dense(walk, computed(walk, node, 0), w, None), 6)


@handles("QGemm")
def gemm(walk: OnnxWalk, node: Node) -> Value:
    given = node.attributes
    if given.get("transA", 0) or given.get("alpha", 1.0) != 1.0:
        raise walk.source.refuse("transA or alpha is set", "expected 0 and 1")
    x = computed(walk, node, 0)
    w = weights(walk, node, 3, 0 if given.get("transB", 0) else -1)
    b = _bias(walk, node, 6, x, w)
    w = w.transpose((1, 0)) if given.get("transB", 0) else w
    made = dense(walk, x, w, b)
    return integers(walk, node, made, 7) if len(node.inputs) > 7 and node.inputs[7] else made


@handles("QLinearAdd", "QLinearMul")
def binary(walk: OnnxWalk, node: Node) -> Value:
    kind = OpKind.ADD if node.operator == "QLinearAdd" else OpKind.MUL
    operands = [reals(walk, node, place) for place in (0, 3)]
    if isinstance(operands[0], list) or isinstance(operands[1], list):
        raise walk.source.refuse("several values", "expected one each")
    return integers(walk, node, walk.source.binary(kind, operands[0], operands[1]), 6)


@handles("QLinearConcat")
def concat(walk: OnnxWalk, node: Node) -> Value:
    parts = [computed(walk, node, place) for place in range(2, len(node.inputs), 3)]
    if not parts:
        raise walk.source.refuse("no inputs", "expected at least one")
    axis = int(node.attributes.get("axis", 1)) % max(len(parts[0].shape), 1)
    return integers(walk, node, walk.source.concat(parts, axis), 0)


def _channels_first(walk: OnnxWalk, node: Node) -> None:
    if node.attributes.get("channels_last", 0):
        raise walk.source.refuse("channels_last is set", "expected channels first")


@handles("QLinearAveragePool")
def average_pool(walk: OnnxWalk, node: Node) -> Value:
    _channels_first(walk, node)
    return integers(walk, node, pooled(walk, node, computed(walk, node, 0), OpKind.AVG_POOL), 3)


@handles("QLinearGlobalAveragePool")
def global_average_pool(walk: OnnxWalk, node: Node) -> Value:
    _channels_first(walk, node)
    x = computed(walk, node, 0)
    return integers(walk, node, walk.source.mean(x, tuple(range(2, len(x.shape))), keep=True), 3)


@handles("QLinearReduceMean")
def reduce_mean(walk: OnnxWalk, node: Node) -> Value:
    x = computed(walk, node, 0)
    given = node.attributes.get("axes", range(len(x.shape)))
    keep = bool(node.attributes.get("keepdims", 1))
    return integers(
        walk, node, walk.source.mean(x, [int(a) % len(x.shape) for a in given], keep=keep), 3
    )


@handles("QLinearSigmoid")
def sigmoid(walk: OnnxWalk, node: Node) -> Value:
    x = walk.source.unary(computed(walk, node, 0), UnaryKind.SIGMOID)
    return integers(walk, node, x, 3)


@handles("QLinearLeakyRelu")
def leaky_relu(walk: OnnxWalk, node: Node) -> Value:
    slope = float(node.attributes.get("alpha", 0.01))
    x = walk.source.unary(computed(walk, node, 0), UnaryKind.LEAKY_RELU, slope)
    return integers(walk, node, x, 3)


@handles("QLinearSoftmax")
def softmax(walk: OnnxWalk, node: Node) -> Value:
    opset = int(node.attributes.get("opset", walk.opset))
    return integers(walk, node, soft(walk, node, computed(walk, node, 0), opset), 3)
