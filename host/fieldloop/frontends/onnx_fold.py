"""Operators whose inputs are all known: shape arithmetic, and weights that are rearranged.

Exporters leave chains of Shape, Gather, Concat and Reshape around a plain flatten. What they come
to is computed here, on arrays; results larger than any constant of a device are refused before
they are made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fieldloop.frontends.onnx_file import DTYPES, Node
from fieldloop.ir.tensor import Array

MAX_FOLDED = 2**24  # elements

Fold = Callable[[Node, Sequence[Array], int], Array]


class CannotFoldError(ValueError):
    """A constant that cannot be computed; says why."""


def capped(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape, if an array of it may be made."""
    made = tuple(int(n) for n in shape)
    if any(n < 0 for n in made) or math.prod(made) > MAX_FOLDED or len(made) > 8:
        raise CannotFoldError(f"a constant of shape {made}, at most {MAX_FOLDED} elements")
    return made


def axes_of(node: Node, inputs: Sequence[Array], place: int) -> tuple[int, ...] | None:
    """The axes: an input since opset 11 or 13, an attribute before; None where absent."""
    if len(inputs) > place and inputs[place] is not None:
        return tuple(int(a) for a in np.asarray(inputs[place]).reshape(-1))
    given = node.attributes.get("axes")
    return None if given is None else tuple(int(a) for a in given)


def reshaped(shape: tuple[int, ...], wanted: Sequence[int], allow_zero: bool) -> tuple[int, ...]:
    """ONNX's Reshape: 0 keeps a dimension, one -1 is worked out."""
    made = [int(n) for n in wanted]
    if not allow_zero:
        made = [shape[i] if n == 0 and i < len(shape) else n for i, n in enumerate(made)]
    if made.count(-1) == 1:
        rest = math.prod(n for n in made if n != -1)
        if rest <= 0 or math.prod(shape) % rest:
            raise CannotFoldError(f"{shape} does not reshape to {tuple(wanted)}")
        made[made.index(-1)] = math.prod(shape) // rest
    if any(n < 1 for n in made) or math.prod(made) != math.prod(shape):
        raise CannotFoldError(f"{shape} does not reshape to {tuple(wanted)}")
    return tuple(made)


def slices(
    node: Node, shape: tuple[int, ...], inputs: Sequence[Array | None]
) -> list[tuple[int, int, int]]:
    """Begin, end and step along each axis of a Slice; ends as Python's ranges have them."""
    if "starts" in node.attributes:  # opset 9
        starts, ends = node.attributes["starts"], node.attributes.get("ends", ())
        axes, steps = node.attributes.get("axes"), None
    else:
        read = [None if a is None else np.asarray(a).reshape(-1).tolist() for a in inputs]
        starts, ends, axes, steps = (read + [None] * 5)[1:5]
    if starts is None or ends is None or len(starts) != len(ends):
        raise CannotFoldError("a slice needs as many starts as ends")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    made = [(0, n, 1) for n in shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if not -len(shape) <= axis < len(shape) or step == 0:
            raise CannotFoldError(f"axis {axis} and step {step} of a slice of {shape}")
        made[axis] = slice(int(start), int(end), int(step)).indices(shape[axis])
    return made


def _constant(node: Node, x: Sequence[Array], opset: int) -> Array:
    given = node.attributes
    if "value" in given:
        return np.asarray(given["value"])
    if "value_float" in given:
        return np.array(given["value_float"], np.float32)
    if "value_int" in given:
        return np.array(given["value_int"], np.int64)
    if "value_floats" in given:
        return np.array(given["value_floats"], np.float32)
    if "value_ints" in given:
        return np.array(given["value_ints"], np.int64)
    raise CannotFoldError("a constant that is neither numbers nor an array of them")


def _cast(node: Node, x: Sequence[Array], opset: int) -> Array:
    to = node.attributes.get("to")
    if to not in DTYPES:
        raise CannotFoldError(f"a cast to type {to}")
    return x[0].astype(DTYPES[to])


def _gather(node: Node, x: Sequence[Array], opset: int) -> Array:
    axis = node.attributes.get("axis", 0)
    capped((x[0].size // max(x[0].shape[axis], 1), x[1].size))
    return np.take(x[0], x[1].astype(np.int64), axis=axis)


def _concat(node: Node, x: Sequence[Array], opset: int) -> Array:
    if sum(part.size for part in x) > MAX_FOLDED:
        raise CannotFoldError(f"a constant of more than {MAX_FOLDED} elements")
    return np.concatenate(x, axis=node.attributes.get("axis", 1))


def _slice(node: Node, x: Sequence[Array], opset: int) -> Array:
    cut = slices(node, x[0].shape, x)
    # a range that ends at -1 goes down to the first element
    return x[0][tuple(slice(b, None if e < 0 else e, s) for b, e, s in cut)]


def _unsqueeze(node: Node, x: Sequence[Array], opset: int) -> Array:
    axes = axes_of(node, x, 1) or ()
    return np.expand_dims(x[0], axes)


def _squeeze(node: Node, x: Sequence[Array], opset: int) -> Array:
    return np.squeeze(x[0], axes_of(node, x, 1))


def _reshape(node: Node, x: Sequence[Array], opset: int) -> Array:
    wanted = x[1].reshape(-1).tolist() if len(x) > 1 else list(node.attributes["shape"])
    if x[0].size == 0:
        raise CannotFoldError("an empty constant")
    return x[0].reshape(reshaped(x[0].shape, wanted, bool(node.attributes.get("allowzero", 0))))


def _transpose(node: Node, x: Sequence[Array], opset: int) -> Array:
    return np.transpose(x[0], node.attributes.get("perm"))


def _constant_of_shape(node: Node, x: Sequence[Array], opset: int) -> Array:
    value = np.asarray(node.attributes.get("value", np.zeros(1, np.float32))).reshape(-1)
    if value.size != 1:
        raise CannotFoldError("a fill of several values")
    return np.full(capped(x[0].reshape(-1).tolist()), value[0])


def _expand(node: Node, x: Sequence[Array], opset: int) -> Array:
    shape = np.broadcast_shapes(x[0].shape, capped(x[1].reshape(-1).tolist()))
    return np.broadcast_to(x[0], capped(shape)).copy()


def _range(node: Node, x: Sequence[Array], opset: int) -> Array:
    start, limit, delta = (v.reshape(-1)[0].item() for v in x[:3])
    if delta == 0 or not all(math.isfinite(v) for v in (start, limit, delta)):
        raise CannotFoldError(f"a range by {delta}")
    capped([max(0, math.ceil((limit - start) / delta))])
    return np.arange(start, limit, delta).astype(x[0].dtype)


def _reduce(function: Callable[..., Any]) -> Fold:
    def fold(node: Node, x: Sequence[Array], opset: int) -> Array:
        axes = axes_of(node, x, 1)
        keep = bool(node.attributes.get("keepdims", 1))
        return np.asarray(function(x[0], axis=axes, keepdims=keep), x[0].dtype)

    return fold


def _binary(function: Callable[[Array, Array], Array]) -> Fold:
    def fold(node: Node, x: Sequence[Array], opset: int) -> Array:
        capped(np.broadcast_shapes(x[0].shape, x[1].shape))
        return np.asarray(function(x[0], x[1]))

    return fold


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu":
        if not b.all():
            raise CannotFoldError("a division by zero")
        quotient = np.abs(a.astype(np.int64)) // np.abs(b.astype(np.int64))
        return np.asarray(quotient * np.sign(a) * np.sign(b), a.dtype)
    return np.asarray(a / b)


def _where(node: Node, x: Sequence[Array], opset: int) -> Array:
    capped(np.broadcast_shapes(*(part.shape for part in x)))
    return np.where(x[0], x[1], x[2])


def _unary(function: Callable[[Array], Array]) -> Fold:
    return lambda node, x, opset: np.asarray(function(x[0]), x[0].dtype)


def _quantize(node: Node, x: Sequence[Array], opset: int) -> Array:
    """A float constant quantised in the model: round half to even, then clip."""
    zero = x[2] if len(x) > 2 else np.zeros((), np.uint8)
    if zero.dtype not in (np.int8, np.uint8):
        raise CannotFoldError(f"a constant quantised to {zero.dtype}")
    along = [1] * x[0].ndim
    if x[1].size > 1:
        along[node.attributes.get("axis", 1)] = -1
    scale = x[1].astype(np.float32).reshape(along if x[1].size > 1 else ())
    steps = np.rint(x[0].astype(np.float32) / scale) + zero.reshape(scale.shape)
    limits = np.iinfo(zero.dtype)
    return np.clip(steps, limits.min, limits.max).astype(zero.dtype)


FOLDS: dict[str, Fold] = {
    "Constant": _constant,
    "Identity": lambda node, x, opset: x[0],
    "Dropout": lambda node, x, opset: x[0],
    "Cast": _cast,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Range": _range,
    "Shape": lambda node, x, opset: shape_slice(node, x[0].shape),
    "Size": lambda node, x, opset: np.array(x[0].size, np.int64),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Div": _binary(_divide),
    "Pow": _binary(np.power),
    "Max": _binary(np.maximum),
    "Min": _binary(np.minimum),
    "Equal": _binary(np.equal),
    "Where": _where,
    "Neg": _unary(np.negative),
    "Abs": _unary(np.abs),
    "Sqrt": _unary(np.sqrt),
    "Exp": _unary(np.exp),
    "Floor": _unary(np.floor),
    "Ceil": _unary(np.ceil),
    "QuantizeLinear": _quantize,
}


def shape_slice(node: Node, shape: tuple[int, ...]) -> Array:
    """The Shape operator, with its start and end."""
    begin, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(shape[begin:end], np.int64)
