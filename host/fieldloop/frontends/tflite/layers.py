"""Operators with weights or windows: convolutions, fully connected layers, pools, embeddings."""

from __future__ import annotations

import numpy as np

from fieldloop.frontends.tflite.file import Node
from fieldloop.frontends.tflite.fold import dequantized
from fieldloop.frontends.tflite.names import NUMPY_TYPES, PADDING_SAME
from fieldloop.frontends.tflite.walk import Walk, clamp_of, elements, is_legacy, refuse
from fieldloop.ir.op import Clamp, Fixed, OpKind, Requant, Window
from fieldloop.ir.shapes import Shape
from fieldloop.ir.tensor import DType, Quant, Tensor
from fieldloop.quantize.fixedpoint import activation_range, factor, weighted_factors


def conv(walk: Walk, node: Node) -> None:
    """CONV_2D: weights [O, h, w, C / groups]."""
    x, w = _data(walk, node), _weights(walk, node, axis=0)
    depth = w.shape[3] if len(w.shape) == 4 else 0
    if len(x.shape) != 4 or not depth or x.shape[3] % depth:
        refuse(f"weights {list(w.shape)} do not fit an input {list(x.shape)}")
    _windowed(walk, node, OpKind.CONV2D, x, w, groups=x.shape[3] // depth)


def depthwise(walk: Walk, node: Node) -> None:
    """DEPTHWISE_CONV_2D: weights [1, h, w, C * multiplier]."""
    x, w = _data(walk, node), _weights(walk, node, axis=3)
    if len(x.shape) != 4 or len(w.shape) != 4:
        refuse(f"weights {list(w.shape)} do not fit an input {list(x.shape)}")
    _windowed(walk, node, OpKind.DEPTHWISE_CONV2D, x, w)


def _windowed(walk: Walk, node: Node, kind: OpKind, x: Tensor, w: Tensor, groups: int = 1) -> None:
    kernel = w.shape[1:3]
    dilation = (node.option("dilation_h"), node.option("dilation_w"))
    window = _window(node, x, (kernel[0], kernel[1]), dilation)
    channels = w.shape[0] if kind is OpKind.CONV2D else w.shape[3]
    _weighted(walk, node, kind, x, w, _places(window, x, channels), window, groups)


def fully_connected(walk: Walk, node: Node) -> None:
    """FULLY_CONNECTED: everything before the last axis of its input counts as rows."""
    if node.option("format"):
        refuse("shuffled weights are not supported", "convert the model again")
    x, w = _data(walk, node), _weights(walk, node, axis=0)
    if len(w.shape) != 2 or elements(x.shape) % w.shape[1]:
        refuse(f"weights {list(w.shape)} do not fit an input {list(x.shape)}")
    rows = elements(x.shape) // w.shape[1]
    if x.shape[0] != rows:
        x = walk.reshaped(x, (rows, w.shape[1]))
    _weighted(walk, node, OpKind.FULLY_CONNECTED, x, w, (rows, w.shape[0]))


def _weighted(
    walk: Walk,
    node: Node,
    kind: OpKind,
    x: Tensor,
    w: Tensor,
    shape: Shape,
    window: Window | None = None,
    groups: int = 1,
) -> None:
    clamp, out = clamp_of(node), walk.out(node)
    inputs = [x, w]
    if walk.has(node, 2):
        inputs.append(_bias(walk, node, shape[-1]))
    fixed: Fixed | None = None
    if out.dtype is DType.INT8 and x.quant and w.quant and out.quant:
        legacy = is_legacy(walk.info(node, 0))
        factors = weighted_factors(x.quant, w.quant, out.quant, in_float32=legacy)
        # LiteRT's fully connected layer rounds once; its convolutions twice, as all of int8.
        once = kind is OpKind.FULLY_CONNECTED and legacy
        fixed = Requant(*activation_range(clamp, out.quant), factors, once)
    walk.put(
        node,
        kind,
        inputs,
        shape=shape,
        window=window,
        clamp=clamp,
        fixed=fixed,
        groups=groups,
    )


def _data(walk: Walk, node: Node) -> Tensor:
    """The input that is no weights: of the output's type."""
    x, info = walk.read(node), walk.out_info(node)
    if x.dtype is DType.INT32 or walk.describe(info).dtype is not x.dtype:
        refuse(
            f"{walk.info(node, 0).dtype} values make {info.dtype}, expected one type of int8, "
            "uint8 and float32",
            "convert the model to int8 or float32",
        )
    return x


def _weights(walk: Walk, node: Node, axis: int) -> Tensor:
    info = walk.info(node, 1)
    data = walk.constant(info.index)
    if data is None and info.dtype not in NUMPY_TYPES:
        refuse(
            f"its weights are {info.dtype}, expected int8 or float32", "convert the model again"
        )
    if data is None or info.index in walk.names:
        why = "are sparse" if info.is_sparse else "are not constant"
        refuse(f"its weights {info.label} {why}", "export the model with plain, fixed weights")
    x = walk.info(node, 0)
    if x.dtype == "float32" and info.dtype in ("int8", "uint8"):
        walk.note(
            "its weights are int8 and its values float32 (dynamic range): everything is computed "
            "in float32, while LiteRT rounds values to int8 on the way"
        )
        return walk.add_constant(info, dequantized(info, data), None)
    if info.dtype != x.dtype or data.dtype.name != info.dtype:
        hint = "convert the model to full int8 (with a representative data set) or to float32"
        refuse(f"weights are {info.dtype} and values {x.dtype}", hint)
    quant = walk.quant(info, axis)
    if quant is not None and quant.zero_point and info.dtype == "int8" and data.ndim == 4:
        refuse(f"weights {info.label} have zero point {quant.zero_point}, expected 0")
    return walk.add_constant(info, data, quant)


def _bias(walk: Walk, node: Node, channels: int) -> Tensor:
    info = walk.info(node, 2)
    data = walk.constant(info.index)
    expected = "float32" if walk.info(node, 0).dtype == "float32" else "int32"
    if data is None or data.dtype.name != expected or data.size != channels:
        got = "a value" if data is None else f"{data.dtype.name} {list(data.shape)}"
        refuse(f"bias {info.label}: expected {channels} constants of {expected}, got {got}")
    return walk.add_constant(info, data.reshape(channels), None)


# ---- windows


def pool(walk: Walk, node: Node, kind: OpKind) -> None:
    """AVERAGE_POOL_2D and MAX_POOL_2D; integers are not rescaled, whatever their scales."""
    x = walk.read(node)
    if len(x.shape) != 4:
        refuse(f"expected an input of four dimensions, got {list(x.shape)}")
    window = _window(node, x, (node.option("filter_h"), node.option("filter_w")), (1, 1))
    if kind is OpKind.AVG_POOL and is_legacy(walk.info(node, 0)):
        _data(walk, node)
        counts = _tap_counts(window, x)
        if any(count % 2 == 0 for count in counts):
            _average_upwards(walk, node, x, window, counts)
            return
    pool_over(walk, node, kind, x, window, clamp_of(node))


def _tap_counts(window: Window, x: Tensor) -> set[int]:
    """How many pixels the windows see: fewer at the edges than elsewhere."""
    sizes = []
    places = _places(window, x, 1)
    for i in range(2):
        starts = [k * window.stride[i] - window.pads[2 * i] for k in range(places[1 + i])]
        reach, size = window.kernel[i], x.shape[1 + i]
        sizes.append({min(start + reach, size) - max(start, 0) for start in starts})
    return {rows * columns for rows in sizes[0] for columns in sizes[1]}


def _average_upwards(walk: Walk, node: Node, x: Tensor, window: Window, counts: set[int]) -> None:
    """An average of uint8 rounds halves up, the one of int8 away from zero.

    So it becomes a sum with weights: (2 sum + 1) / 2n has no halves where n is even.
    """
    if len(counts) != 1 or x.quant is None:
        refuse(
            "the average of uint8 over windows of different sizes is not supported",
            "pad with VALID, or convert the model to int8",
        )
    count, channels = counts.pop(), x.shape[3]
    clamp, out = clamp_of(node), walk.out(node)
    twos = np.full((1, *window.kernel, channels), 2, np.int8)
    w = walk.own_constant(f"{out.name}.weights", twos, Quant((1.0,)))
    b = walk.own_constant(f"{out.name}.bias", np.ones(channels, np.int32))
    assert out.quant is not None
    fixed = Requant(*activation_range(clamp, out.quant), (factor(0.5 / count),), True)
    walk.put(
        node,
        OpKind.DEPTHWISE_CONV2D,
        [x, w, b],
        shape=_places(window, x, channels),
        quant=x.quant,
        window=window,
        clamp=clamp,
        fixed=fixed,
    )


def pool_over(
    walk: Walk, node: Node, kind: OpKind, x: Tensor, window: Window, clamp: Clamp
) -> None:
    """A pool with any window over x [n, h, w, c]."""
    out = walk.out(node)
    fixed = None if out.quant is None else Requant(*activation_range(clamp, out.quant))
    shape = _places(window, x, x.shape[3])
    walk.put(node, kind, [x], shape=shape, quant=x.quant, window=window, clamp=clamp, fixed=fixed)


def _window(node: Node, x: Tensor, kernel: tuple[int, int], dilation: tuple[int, int]) -> Window:
    stride = (node.option("stride_h"), node.option("stride_w"))
    if min(*kernel, *stride, *dilation) < 1:
        refuse(f"kernel {kernel}, strides {stride}, dilation {dilation}: expected 1 or more")
    pads = [0, 0, 0, 0]
    if node.option("padding") == PADDING_SAME:
        for i in range(2):
            extent = (kernel[i] - 1) * dilation[i] + 1
            size = x.shape[1 + i]
            total = max((-(-size // stride[i]) - 1) * stride[i] + extent - size, 0)
            pads[2 * i], pads[2 * i + 1] = total // 2, total - total // 2
    return Window(kernel, stride, dilation, (pads[0], pads[1], pads[2], pads[3]))


def _places(window: Window, x: Tensor, channels: int) -> Shape:
    if x.shape[0] != 1:
        refuse(f"a batch of {x.shape[0]}, expected 1", "export the model with a batch of one")
    height, width = window.output_size(x.shape[1], x.shape[2])
    if height < 1 or width < 1:
        refuse(f"a window of {window.extent} does not fit an input of {list(x.shape[1:3])}")
    return (x.shape[0], height, width, channels)


# ---- tables that indices look up


def gather(walk: Walk, node: Node) -> None:
    """GATHER of a constant's rows: an embedding."""
    axis, batch = node.option("axis"), node.option("batch_dims")
    info = walk.info(node, 0)
    data = walk.constant(info.index)
    if data is None:
        refuse("picks from a value that is worked out, expected a constant table")
    if batch or axis % max(data.ndim, 1):
        refuse(f"axis {axis} with {batch} batch dimensions, expected axis 0 of a table")
    _embed(walk, node, table=0, index=1)


def embedding_lookup(walk: Walk, node: Node) -> None:
    """EMBEDDING_LOOKUP: indices, then the table."""
    _embed(walk, node, table=1, index=0)


def _embed(walk: Walk, node: Node, *, table: int, index: int) -> None:
    x = walk.read(node, index)
    if x.dtype is not DType.INT32:
        refuse(f"indices are {x.dtype.value}, expected int32")
    rows = walk.operand(node, table)
    if not rows.is_constant or len(rows.shape) < 2:
        refuse(f"expected a constant table [entries, ...], got {list(rows.shape)}")
    walk.put(
        node,
        OpKind.EMBEDDING,
        [x, rows],
        shape=x.shape + rows.shape[1:],
        quant=rows.quant,
    )
