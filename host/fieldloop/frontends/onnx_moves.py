"""What each ONNX operator that moves elements is in the graph: handlers by the operator's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fieldloop.frontends.builder import Constant
from fieldloop.frontends.channels import Value
from fieldloop.frontends.onnx_file import DTYPES, Node
from fieldloop.frontends.onnx_fold import axes_of, reshaped, slices
from fieldloop.frontends.onnx_operators import Handler, Made, registrar
from fieldloop.ir.tensor import DType, Quant

if TYPE_CHECKING:
    from fieldloop.frontends.onnx_frontend import OnnxWalk

HANDLERS: dict[str, Handler] = {}
handles = registrar(HANDLERS)


def _operand(walk: OnnxWalk, node: Node) -> Value | Constant:
    return walk.operand(node, 0)


def _shaped(walk: OnnxWalk, x: Value | Constant, shape: tuple[int, ...]) -> Made:
    """A value, or a dequantised constant, in another shape."""
    if isinstance(x, Value):
        return walk.source.reshape(x, shape)
    if x.axis is None:
        return Constant(x.data.reshape(shape), x.scales, x.zero_point)
    return Constant(x.data.reshape(shape))


def _shape(x: Value | Constant) -> tuple[int, ...]:
    return x.shape if isinstance(x, Value) else x.data.shape


@handles("Identity", "Dropout")
def identity(walk: OnnxWalk, node: Node) -> Made:
    return _operand(walk, node)


@handles("Cast")
def cast(walk: OnnxWalk, node: Node) -> Made:
    """Between widths of an index nothing happens; an integer input becomes a real number."""
    x, to = _operand(walk, node), DTYPES.get(node.attributes.get("to", 0), "another type")
    if not isinstance(x, Value):
        return x
    tensor = walk.source.build.tensors[x.name]
    if tensor.dtype is DType.FLOAT32 and to in ("float32", "float64"):
        return x
    if tensor.dtype is DType.INT32 and to in ("int32", "int64"):
        return x
    if tensor.dtype is DType.INT8 and to == "float32":
        offset = -128 if walk.kinds.get(node.inputs[0]) == "uint8" else 0
        walk.assign(x, Quant((1.0,), offset))
        return walk.source.dequantized(x)
    raise walk.source.refuse(
        f"a cast of {tensor.dtype.value} to {to}", "expected float32, or widths of an index"
    )


@handles("Reshape")
def reshape(walk: OnnxWalk, node: Node) -> Made:
    x = _operand(walk, node)
    wanted = walk.array(node, 1)
    if wanted is None and "shape" in node.attributes:  # before opset 5
        wanted = np.array(node.attributes["shape"], np.int64)
    if wanted is None:
        raise walk.source.refuse("its shape is missing", "expected a constant shape")
    numbers = [int(n) for n in wanted.reshape(-1)]
    return _shaped(walk, x, reshaped(_shape(x), numbers, bool(node.attributes.get("allowzero"))))


@handles("Flatten")
def flatten(walk: OnnxWalk, node: Node) -> Made:
    x = _operand(walk, node)
    shape, axis = _shape(x), int(node.attributes.get("axis", 1))
    if not -len(shape) <= axis <= len(shape):
        raise walk.source.refuse(f"axis {axis} of {shape}", "expected an axis that there is")
    axis = axis + len(shape) if axis < 0 else axis
    rows = int(np.prod(shape[:axis], dtype=np.int64))
    return _shaped(walk, x, (rows, int(np.prod(shape[axis:], dtype=np.int64))))


@handles("Squeeze")
def squeeze(walk: OnnxWalk, node: Node) -> Made:
    x = _operand(walk, node)
    shape = _shape(x)
    axes = axes_of(node, walk.arrays(node), 1)
    gone = {a % len(shape) for a in axes} if axes else {i for i, n in enumerate(shape) if n == 1}
    if any(shape[a] != 1 for a in gone):
        raise walk.source.refuse(f"axes {sorted(gone)} of {shape}", "expected axes of size 1")
    return _shaped(walk, x, tuple(n for i, n in enumerate(shape) if i not in gone))


@handles("Unsqueeze")
def unsqueeze(walk: OnnxWalk, node: Node) -> Made:
    x = _operand(walk, node)
    axes = axes_of(node, walk.arrays(node), 1) or ()
    rank = len(_shape(x)) + len(axes)
    places = {a % rank for a in axes}
    if len(places) != len(axes) or rank > 8:
        raise walk.source.refuse(f"axes {axes}", "expected each once")
    rest = iter(_shape(x))
    return _shaped(walk, x, tuple(1 if i in places else next(rest) for i in range(rank)))


@handles("Transpose")
def transpose(walk: OnnxWalk, node: Node) -> Made:
    x = _operand(walk, node)
    rank = len(_shape(x))
    axes = [int(a) for a in node.attributes.get("perm", range(rank - 1, -1, -1))]
    if sorted(axes) != list(range(rank)):
        raise walk.source.refuse(f"perm {axes} of {_shape(x)}", "expected each axis once")
    return walk.source.transpose(x, axes) if isinstance(x, Value) else x.transpose(axes)


@handles("Concat")
def concat(walk: OnnxWalk, node: Node) -> Value:
    parts = [walk.operand(node, i) for i in range(len(node.inputs))]
    rank = len(_shape(parts[0]))
    axis = int(node.attributes.get("axis", 1))
    if not -rank <= axis < rank:
        raise walk.source.refuse(f"axis {axis} of {_shape(parts[0])}", "expected one there is")
    return walk.source.concat(parts, axis % rank)


@handles("Pad")
def pad(walk: OnnxWalk, node: Node) -> Value:
    x = walk.value(node)
    mode = node.attributes.get("mode", "constant")
    if mode != "constant":
        raise walk.source.refuse(f"mode {mode}", "pad with a constant")
    rank = len(x.shape)
    given = walk.array(node, 1)
    pads = node.attributes.get("pads") if given is None else given.reshape(-1).tolist()
    value = walk.constant(node, 2)
    number = node.attributes.get("value", 0.0) if value is None else value.data.reshape(-1)[0]
    axes = walk.array(node, 3)
    places = range(rank) if axes is None else [int(a) % rank for a in axes.reshape(-1)]
    if pads is None or len(pads) != 2 * len(places):
        raise walk.source.refuse(f"pads {pads}", f"expected {2 * len(places)} numbers")
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(places):
        before[axis], after[axis] = int(pads[i]), int(pads[i + len(places)])
    return walk.source.pad(x, before, after, float(number))


@handles("Slice")
def cut(walk: OnnxWalk, node: Node) -> Value:
    x = walk.value(node)
    made = slices(node, x.shape, walk.arrays(node))
    if any(step < 1 for _, _, step in made):
        raise walk.source.refuse("a step below 1", "expected steps of 1 or more")
    begin, end, step = zip(*made, strict=True)
    return walk.source.slice(x, begin, end, step)


def _cut(walk: OnnxWalk, x: Value, axis: int, begin: int, end: int) -> Value:
    begins, ends = [0] * len(x.shape), list(x.shape)
    begins[axis], ends[axis] = begin, end
    return walk.source.slice(x, begins, ends, [1] * len(x.shape))


@handles("Split")
def split(walk: OnnxWalk, node: Node) -> list[Value]:
    x = walk.value(node)
    axis = int(node.attributes.get("axis", 0)) % max(len(x.shape), 1)
    size, count = x.shape[axis], len(node.outputs)
    given = walk.array(node, 1)
    lengths = node.attributes.get("split") if given is None else given.reshape(-1).tolist()
    if lengths is None:
        each = -(-size // count)
        lengths = [min(each, size - i * each) for i in range(count)]
    if len(lengths) != count or sum(lengths) != size or min(lengths) < 1:
        raise walk.source.refuse(f"parts {list(lengths)} of {size}", f"expected {count} of them")
    ends = np.cumsum(lengths).tolist()
    return [
        _cut(walk, x, axis, int(end - n), int(end)) for end, n in zip(ends, lengths, strict=True)
    ]


def take(walk: OnnxWalk, node: Node) -> Value:
    """Gather from a value: entries that follow each other along one axis."""
    x, index = walk.value(node), walk.array(node, 1)
    axis = int(node.attributes.get("axis", 0)) % max(len(x.shape), 1)
    if index is None or index.size == 0 or index.ndim > 1:
        raise walk.source.refuse("indices of several dimensions", "expected a number or a row")
    places = [int(i) % x.shape[axis] for i in index.reshape(-1)]
    if places != list(range(places[0], places[0] + len(places))):
        raise walk.source.refuse("indices that do not follow each other", "use slices and concat")
    part = _cut(walk, x, axis, places[0], places[-1] + 1)
    if index.ndim == 0:
        return walk.source.reshape(part, (*x.shape[:axis], *x.shape[axis + 1 :]))
    return part


@handles("Tile")
def tile(walk: OnnxWalk, node: Node) -> Value:
    x, times = walk.value(node), walk.array(node, 1)
    if times is None or times.size != len(x.shape) or times.min() < 1 or times.max() > 64:
        raise walk.source.refuse("repeats", "expected 1 to 64 for each axis")
    for axis, count in enumerate(int(n) for n in times.reshape(-1)):
        x = walk.source.concat([x] * count, axis) if count > 1 else x
    return x


@handles("Expand")
def expand(walk: OnnxWalk, node: Node) -> Value:
    x, wanted = walk.value(node), walk.array(node, 1)
    shape = () if wanted is None else np.broadcast_shapes(x.shape, tuple(wanted.reshape(-1)))
    if tuple(shape) != x.shape:
        raise walk.source.refuse(f"{x.shape} to {tuple(shape)}", "let operators broadcast")
    return x


@handles("DepthToSpace", "SpaceToDepth")
def blocks(walk: OnnxWalk, node: Node) -> Value:
    x, b = walk.value(node), int(node.attributes.get("blocksize", 0))
    n, c, h, w = x.shape
    if b < 1:
        raise walk.source.refuse(f"blocksize {b}", "expected 1 or more")
    if node.operator == "SpaceToDepth":
        split = walk.source.reshape(x, (n, c, h // b, b, w // b, b))
        moved = walk.source.transpose(split, (0, 3, 5, 1, 2, 4))
        return walk.source.reshape(moved, (n, c * b * b, h // b, w // b))
    crd = node.attributes.get("mode", "DCR") == "CRD"
    split = walk.source.reshape(
        x, (n, c // (b * b), b, b, h, w) if crd else (n, b, b, c // (b * b), h, w)
    )
    moved = walk.source.transpose(split, (0, 1, 4, 2, 5, 3) if crd else (0, 3, 4, 1, 5, 2))
    return walk.source.reshape(moved, (n, c // (b * b), h * b, w * b))


@handles("Upsample", "Resize")
def resize(walk: OnnxWalk, node: Node) -> Value:
    raise walk.source.refuse(
        "resizing is not supported", "resize on the host, or end the network at a smaller map"
    )
