"""Operators that copy elements: reshapes, joins, paddings, transpositions, slices, casts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fieldloop.frontends.tflite import tables
from fieldloop.frontends.tflite.file import Node
from fieldloop.frontends.tflite.walk import Walk, axis_of, is_legacy, refuse
from fieldloop.ir.op import CONCAT_MAX, Concat, OpKind, Pad, Slice, Transpose
from fieldloop.ir.shapes import Shape
from fieldloop.ir.tensor import DType, Tensor

_FRONT_CASTS = ("float32", "int64", "int32")


def reshape(walk: Walk, node: Node) -> None:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the file says the shape."""
    x = walk.read(node)
    walk.put(node, OpKind.RESHAPE, [x], quant=x.quant)


def concatenation(walk: Walk, node: Node) -> None:
    """CONCATENATION; more inputs than an operator takes are joined in groups first."""
    if node.option("activation"):
        refuse("a fused activation is not supported", "put the activation before it")
    out = walk.out(node)
    axis = axis_of(node.option("axis"), len(out.shape))
    parts = []
    for place in range(len(node.inputs)):
        part = walk.operand(node, place)
        if part.quant != out.quant:
            part = _same_scale(walk, node, place, part, out)
        parts.append(part)
    while len(parts) > CONCAT_MAX:
        parts = _join_groups(walk, parts, axis, out)
    walk.put(node, OpKind.CONCAT, parts, attrs=Concat(axis))


def _same_scale(walk: Walk, node: Node, place: int, part: Tensor, out: Tensor) -> Tensor:
    if part.quant is None or out.quant is None:
        refuse("joins values of different types")
    if not is_legacy(walk.out_info(node)):
        refuse(
            f"input {place} has scale {part.quant.scale} and zero point {part.quant.zero_point}, "
            f"the output {out.quant.scale} and {out.quant.zero_point}",
            "convert the model again, so that all of them are the same",
        )
    entries = tables.concat_rescale(part.quant, out.quant)
    if part.data is not None:
        del walk.tensors[part.name]
        moved = entries[part.data.astype(np.int64) + 128]
        return walk.add_constant(walk.info(node, place), moved, out.quant)
    return walk.table(part, walk.hidden(part.name, part.shape, part, out.quant), entries)


def _join_groups(walk: Walk, parts: list[Tensor], axis: int, out: Tensor) -> list[Tensor]:
    made = []
    for first in range(0, len(parts), CONCAT_MAX):
        group = parts[first : first + CONCAT_MAX]
        if len(group) == 1 or all(part.is_constant for part in group):
            made += group
            continue
        shape = list(group[0].shape)
        if axis >= len(shape) or any(len(p.shape) != len(shape) for p in group):
            refuse(f"joins the shapes {[list(p.shape) for p in group]} along axis {axis}")
        shape[axis] = sum(part.shape[axis] for part in group)
        hidden = walk.hidden(out.name, tuple(shape), out, out.quant)
        made.append(walk.emit(OpKind.CONCAT, group, hidden, attrs=Concat(axis)))
    if len(made) == len(parts):
        refuse(f"joins {len(parts)} values, most of them constants")
    return made


def pack(walk: Walk, node: Node) -> None:
    """PACK: joined along a new axis."""
    out = walk.out(node)
    axis = axis_of(node.option("axis"), len(out.shape))
    shape = tuple(1 if i == axis else n for i, n in enumerate(out.shape))
    if len(node.inputs) > CONCAT_MAX:
        refuse(f"packs {len(node.inputs)} values, expected at most {CONCAT_MAX}")
    parts = []
    for place in range(len(node.inputs)):
        part = walk.operand(node, place)
        if part.quant != out.quant:
            refuse("packs values of different scales")
        if part.size != math.prod(shape):
            refuse(f"packs a value of {list(part.shape)} into {list(out.shape)}")
        if part.data is not None:
            del walk.tensors[part.name]
            part = walk.add_constant(walk.info(node, place), part.data.reshape(shape), part.quant)
        else:
            part = walk.reshaped(part, shape)
        parts.append(part)
    walk.put(node, OpKind.CONCAT, parts, attrs=Concat(axis))


def unpack(walk: Walk, node: Node) -> None:
    """UNPACK: a slice of one for each output."""
    x = walk.read(node)
    axis = axis_of(node.option("axis"), len(x.shape))
    if len(node.outputs) != x.shape[axis]:
        refuse(f"makes {len(node.outputs)} values of an axis of {x.shape[axis]}")
    for place in range(len(node.outputs)):
        begin, end = _whole(x)
        begin[axis], end[axis] = place, place + 1
        _slice(walk, node, x, begin, end, place=place)


def split(walk: Walk, node: Node) -> None:
    """SPLIT: the axis first, then the value; equal parts."""
    x = walk.read(node, 1)
    axis = axis_of(_one(walk, node, 0, "axis"), len(x.shape))
    count = len(node.outputs)
    if not count or x.shape[axis] % count:
        refuse(f"splits an axis of {x.shape[axis]} in {count}")
    _split(walk, node, x, axis, [x.shape[axis] // count] * count)


def split_v(walk: Walk, node: Node) -> None:
    """SPLIT_V: the value, sizes (one may be -1), the axis."""
    x = walk.read(node)
    axis = axis_of(_one(walk, node, 2, "axis"), len(x.shape))
    sizes = list(walk.numbers(node, 1, "sizes"))
    if -1 in sizes:
        sizes[sizes.index(-1)] = x.shape[axis] - sum(sizes) - 1
    if len(sizes) != len(node.outputs) or min(sizes) < 1 or sum(sizes) != x.shape[axis]:
        refuse(f"splits an axis of {x.shape[axis]} in {sizes}")
    _split(walk, node, x, axis, sizes)


def _split(walk: Walk, node: Node, x: Tensor, axis: int, sizes: list[int]) -> None:
    at = 0
    for place, size in enumerate(sizes):
        begin, end = _whole(x)
        begin[axis], end[axis] = at, at + size
        at += size
        _slice(walk, node, x, begin, end, place=place)


def _one(walk: Walk, node: Node, place: int, what: str) -> int:
    found = walk.numbers(node, place, what)
    if len(found) != 1:
        refuse(f"{what}: expected one number, got {list(found)}")
    return found[0]


def _whole(x: Tensor) -> tuple[list[int], list[int]]:
    return [0] * len(x.shape), list(x.shape)


def slice_(walk: Walk, node: Node) -> None:
    """SLICE: where it begins and how much (-1: the rest)."""
    x = walk.read(node)
    begin = list(walk.numbers(node, 1, "begin"))
    size = list(walk.numbers(node, 2, "size"))
    if len(begin) != len(x.shape) or len(size) != len(x.shape):
        refuse(f"begin {begin} and size {size} do not fit {list(x.shape)}")
    end = [n if s == -1 else b + s for b, s, n in zip(begin, size, x.shape, strict=True)]
    _slice(walk, node, x, begin, end)


def strided_slice(walk: Walk, node: Node) -> None:
    """STRIDED_SLICE with masks that begin, end or drop axes; strides from 1 on."""
    x = walk.read(node)
    for name in ("ellipsis_mask", "new_axis_mask", "offset"):
        if node.option(name):
            refuse(f"uses its {name}", "write the slice with a begin and an end for each axis")
    begin, end, stride = (
        list(walk.numbers(node, i + 1, what)) for i, what in enumerate(("begin", "end", "strides"))
    )
    dims = len(x.shape)
    if not len(begin) == len(end) == len(stride) <= dims:
        refuse(f"begin {begin}, end {end} and strides {stride} do not fit {list(x.shape)}")
    for axis in range(dims):
        n = x.shape[axis]
        if axis >= len(begin):
            begin.append(0)
            end.append(n)
            stride.append(1)
            continue
        if stride[axis] < 1:
            refuse(f"stride {stride[axis]}, expected 1 or more")
        dropped = node.option("shrink_axis_mask") >> axis & 1
        begins = node.option("begin_mask") >> axis & 1
        ends = node.option("end_mask") >> axis & 1
        first = begin[axis] + n if begin[axis] < 0 else begin[axis]
        last = end[axis] + n if end[axis] < 0 else end[axis]
        begin[axis] = 0 if begins else min(max(first, 0), n)
        if dropped:
            end[axis], stride[axis] = begin[axis] + 1, 1
        else:
            end[axis] = n if ends else min(max(last, 0), n)
    _slice(walk, node, x, begin, end, stride)


def _slice(
    walk: Walk,
    node: Node,
    x: Tensor,
    begin: Sequence[int],
    end: Sequence[int],
    stride: Sequence[int] | None = None,
    place: int = 0,
) -> None:
    strides = tuple(stride) if stride is not None else (1,) * len(x.shape)
    at = Slice(tuple(begin), tuple(end), strides)
    if any(not 0 <= b < e <= n for b, e, n in zip(at.begin, at.end, x.shape, strict=True)):
        refuse(f"takes {list(begin)} to {list(end)} of {list(x.shape)}")
    shape: Shape = tuple(
        -(-(e - b) // s) for b, e, s in zip(at.begin, at.end, at.stride, strict=True)
    )
    if place < len(node.outputs) and node.outputs[place] < 0:
        return
    if shape == x.shape:
        walk.put(node, OpKind.RESHAPE, [x], quant=x.quant, place=place)
    else:
        walk.put(node, OpKind.SLICE, [x], shape=shape, quant=x.quant, place=place, attrs=at)


def pad(walk: Walk, node: Node) -> None:
    """PAD (with zero: the output's zero point) and PADV2 (with a constant)."""
    x, out = walk.read(node), walk.out(node)
    pads = walk.numbers(node, 1, "paddings")
    if len(pads) != 2 * len(x.shape) or min(pads) < 0:
        refuse(f"paddings {list(pads)} do not fit {list(x.shape)}")
    before, after = pads[::2], pads[1::2]
    shape = tuple(b + n + a for b, n, a in zip(before, x.shape, after, strict=True))
    fill: float = 0.0
    raw = out.quant.zero_point if out.quant is not None else None
    if walk.has(node, 2):
        info = walk.info(node, 2)
        data = walk.constant(info.index)
        if data is None or data.size != 1 or info.dtype != walk.info(node, 0).dtype:
            refuse(f"pads with {info.label}, expected one constant of the same type")
        fill = float(data.reshape(-1)[0])
        raw = int(fill) - (128 if info.dtype == "uint8" else 0) if x.quant is not None else None
    if x.quant is not None and raw is not None:
        fill = (raw - x.quant.zero_point) * x.quant.scale  # the integer, in x's quantisation
    if not abs(fill) <= np.finfo(np.float32).max:
        refuse(f"pads with {fill}, expected a finite number")
    walk.put(node, OpKind.PAD, [x], shape=shape, quant=x.quant, attrs=Pad(before, after, fill))


def transpose(walk: Walk, node: Node) -> None:
    """TRANSPOSE; where only axes of size 1 move, a reshape."""
    x = walk.read(node)
    found = walk.numbers(node, 1, "permutation")
    axes = tuple(axis_of(axis, len(x.shape)) for axis in found)
    if sorted(axes) != list(range(len(x.shape))):
        refuse(f"permutation {list(found)} does not fit {list(x.shape)}")
    shape = tuple(x.shape[axis] for axis in axes)
    moved = [axis for axis in axes if x.shape[axis] > 1]
    if moved == sorted(moved):
        walk.put(node, OpKind.RESHAPE, [x], shape=shape, quant=x.quant)
    else:
        walk.put(node, OpKind.TRANSPOSE, [x], shape=shape, quant=x.quant, attrs=Transpose(axes))


def resize_nearest(walk: Walk, node: Node) -> None:
    """RESIZE_NEAREST_NEIGHBOR by whole factors: rows, then columns, joined to themselves."""
    x, out = walk.read(node), walk.out(node)
    size = walk.numbers(node, 1, "size")
    if len(x.shape) != 4 or x.shape[0] != 1 or out.shape != (1, *size, x.shape[3]):
        refuse(f"makes {list(out.shape)} of {list(x.shape)}")
    _, height, width, channels = x.shape
    factors = [size[0] // height, size[1] // width]
    if node.option("align_corners") or size != (height * factors[0], width * factors[1]):
        refuse(
            f"resizes {height} x {width} to {size[0]} x {size[1]}, expected whole factors",
            "resize by whole factors, without aligned corners",
        )
    if max(factors) > CONCAT_MAX:
        refuse(f"resizes by {factors}, expected at most {CONCAT_MAX}")
    # [h, 1, w c] joined to itself is every row twice; [h, w, 1, c] likewise every column.
    rows = _repeated(walk, x, (1, height, 1, width * channels), factors[0])
    columns = (height * factors[0], width, 1, channels)
    wide = _repeated(walk, rows, columns, factors[1])
    walk.put(node, OpKind.RESHAPE, [wide], quant=x.quant)


def _repeated(walk: Walk, x: Tensor, shape: Shape, times: int) -> Tensor:
    """Axis 2, of size 1, as often as said."""
    x = walk.reshaped(x, shape)
    if times == 1:
        return x
    hidden = walk.hidden(x.name, (*shape[:2], times, shape[3]), x, x.quant)
    return walk.emit(OpKind.CONCAT, [x] * times, hidden, attrs=Concat(2))


def cast(walk: Walk, node: Node) -> None:
    """CAST of an input to indices: the graph then takes the indices themselves."""
    info, made = walk.info(node, 0), walk.out_info(node)
    x = walk.read(node)
    if info.dtype == made.dtype or (x.dtype is DType.INT32 and made.dtype in ("int32", "int64")):
        walk.alias(node, x)
        return
    is_index = made.dtype in ("int32", "int64") and info.dtype in _FRONT_CASTS
    if not is_index or x.name not in walk.inputs or walk.readers[info.index] != 1:
        refuse(
            f"{info.dtype} to {made.dtype}; only an input that becomes an index is cast",
            "cast before the model, or keep one type",
        )
    walk.tensors[x.name] = Tensor(x.name, x.shape, DType.INT32)
    walk.note(
        f"input {x.name}: the source takes {info.dtype} and truncates it; the graph takes int32"
    )
    walk.alias(node, walk.tensors[x.name])
