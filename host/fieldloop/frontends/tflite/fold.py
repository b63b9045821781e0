"""Constants that follow from constants: shapes worked out by nodes, weights stored as float16."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fieldloop.frontends.tflite.file import FileTensor, Node
from fieldloop.frontends.tflite.walk import Walk, axis_of, refuse
from fieldloop.ir.tensor import Array

# A file of a few bytes may ask for any size.
MAX_FOLDED = 1 << 24
# Operators that are known for constants alone.
FOLDED_ONLY = frozenset({"SHAPE", "RANK", "FILL", "REDUCE_PROD", "BROADCAST_TO"})

_PLAIN: dict[str, Callable[[list[Array]], Array]] = {
    "ADD": lambda a: a[0] + a[1],
    "SUB": lambda a: a[0] - a[1],
    "MUL": lambda a: a[0] * a[1],
    "MINIMUM": lambda a: np.minimum(a[0], a[1]),
    "MAXIMUM": lambda a: np.maximum(a[0], a[1]),
    "TRANSPOSE": lambda a: np.transpose(a[0], a[1].reshape(-1).tolist()),
}
_RESHAPES = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS"}


def fold(walk: Walk, node: Node) -> bool:
    """Works out a node of constants; False where it reads a value, or is not known here."""
    if node.operator in ("SHAPE", "RANK"):
        _store(walk, node, _of_shape(node, walk.info(node, 0)))
        return True
    values = [walk.constant(i) for i in node.inputs if i >= 0]
    if not values or any(v is None for v in values) or len(node.outputs) != 1:
        return False
    arrays = [v for v in values if v is not None]
    try:
        with np.errstate(all="ignore"):
            made = _fold(walk, node, arrays)
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        refuse(f"its constants do not fit together: {error}", "export or copy the model again")
    if made is None:
        return False
    _store(walk, node, made)
    return True


def _of_shape(node: Node, info: FileTensor) -> Array:
    # numpy scalars have no shape of their own
    return np.array(info.shape if node.operator == "SHAPE" else len(info.shape), np.int32)


def _fold(walk: Walk, node: Node, arrays: list[Array]) -> Array | None:
    out, name = walk.out_info(node), node.operator
    if out.size > MAX_FOLDED:
        refuse(f"makes a constant of {out.size} elements, expected at most {MAX_FOLDED}")
    quantised = any(len(walk.info(node, i).scales) for i in range(len(arrays)))
    if name in _RESHAPES:
        return arrays[0].reshape(out.shape)
    if name == "DEQUANTIZE":
        return dequantized(walk.info(node, 0), arrays[0])
    if name == "QUANTIZE" and arrays[0].dtype == np.float32 and out.dtype in ("int8", "uint8"):
        return _quantized(out, arrays[0])
    if name == "CAST":
        return arrays[0].astype(out.dtype) if out.dtype in ("int32", "int64", "float32") else None
    if name == "TRANSPOSE":
        return _PLAIN[name](arrays)
    if quantised:
        return None
    if name in _PLAIN:
        if np.broadcast_shapes(*(a.shape for a in arrays)) != out.shape:
            refuse(f"makes another shape than {list(out.shape)}")
        return _PLAIN[name](arrays)
    if name == "FILL":
        return np.full(out.shape, arrays[1].reshape(-1)[0])
    if name == "PACK":
        return np.stack(arrays, axis_of(node.option("axis"), len(out.shape)))
    if name == "CONCATENATION":
        return np.concatenate(arrays, axis_of(node.option("axis"), len(out.shape)))
    if name == "GATHER" and not node.option("batch_dims"):
        return np.take(arrays[0], arrays[1], axis_of(node.option("axis"), arrays[0].ndim))
    if name == "REDUCE_PROD":
        return np.array(math.prod(int(n) for n in arrays[0].reshape(-1)), np.int64)
    if name == "SLICE":
        ends = zip(arrays[1].tolist(), arrays[2].tolist(), strict=True)
        return arrays[0][tuple(slice(b, None if s == -1 else b + s) for b, s in ends)]
    if name == "STRIDED_SLICE" and arrays[0].ndim == 1:
        begin, end, stride = (int(a.reshape(-1)[0]) for a in arrays[1:4])
        first = None if node.option("begin_mask") & 1 else begin
        last = None if node.option("end_mask") & 1 else end
        if node.option("shrink_axis_mask") & 1:
            return np.array(arrays[0][begin])
        return arrays[0][first:last:stride]
    if name == "BROADCAST_TO":
        return np.broadcast_to(arrays[0], out.shape)
    return None


def dequantized(info: FileTensor, data: Array) -> Array:
    """float32 of float16 weights, or of integers that only stand for reals."""
    if data.dtype == np.float16:
        return data.astype(np.float32)
    if not len(info.scales):
        refuse(f"{info.label} is {info.dtype} and has no scale", "convert the model again")
    along = [1] * data.ndim
    if len(info.scales) > 1:
        along[axis_of(info.axis, data.ndim)] = -1
    real = data.astype(np.float64) - info.zero_points.reshape(along)
    return np.asarray((real * info.scales.astype(np.float64).reshape(along)).astype(np.float32))


def _quantized(info: FileTensor, data: Array) -> Array:
    """Integers of real constants, halves away from zero; one scale."""
    if len(info.scales) != 1:
        refuse(f"{info.label}: {len(info.scales)} scales, expected one", "convert the model again")
    steps = np.nan_to_num((data / np.float32(info.scales[0])).astype(np.float64))
    whole = np.copysign(np.floor(np.minimum(np.abs(steps), 1e6) + 0.5), steps)
    limits = np.iinfo(info.dtype)
    q = np.clip(whole + int(info.zero_points[0]), limits.min, limits.max)
    return np.asarray(q.astype(info.dtype))


def _store(walk: Walk, node: Node, made: Array) -> None:
    out = walk.out_info(node)
    walk.check_free(out)
    if made.size != out.size:
        refuse(f"makes {list(made.shape)}, the file says {list(out.shape)}")
    walk.folded[out.index] = np.ascontiguousarray(made).reshape(out.shape)
