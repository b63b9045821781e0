"""What needs no operator of its own: paddings before a convolution, activations after a layer.

Neither changes a byte: a convolution pads with its input's zero point, as PAD does, and a clamp is
the same wherever it is applied. A table that only clamps is one, too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from fieldloop.ir.op import (
    NO_CLAMP_KINDS,
    Clamp,
    Op,
    OpKind,
    Pad,
    SoftmaxFixed,
    Unary,
    UnaryKind,
)
from fieldloop.ir.tensor import DType, Tensor

_CONVOLUTIONS = frozenset({OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D})


def fuse(ops: Iterable[Op], tensors: dict[str, Tensor], outputs: Iterable[str]) -> list[Op]:
    """The same operators with fewer steps; takes tensors that nobody reads out of `tensors`."""
    kept = list(ops)
    readers = Counter(name for op in kept for name in op.inputs)
    readers.update(outputs)
    made = {op.output: i for i, op in enumerate(kept)}
    gone: set[int] = set()
    for i, op in enumerate(kept):
        before = made.get(op.inputs[0])
        if before is None or before in gone or readers[op.inputs[0]] != 1:
            continue
        other = kept[before]
        fused = (
            _with_pads(op, other)
            or _with_clamp(op, other, tensors)
            or _with_table(op, other, tensors)
        )
        if fused is not None:
            kept[i] = fused
            gone.add(before)
            del tensors[other.output]
    return [op for i, op in enumerate(kept) if i not in gone]


def _with_pads(op: Op, pad: Op) -> Op | None:
    """A convolution with the padding before it taken in."""
    if op.kind not in _CONVOLUTIONS or not isinstance(pad.attrs, Pad) or op.window is None:
        return None
    before, after = pad.attrs.before, pad.attrs.after
    if pad.attrs.value != 0.0 or len(before) != 4 or before[0] + after[0] + before[3] + after[3]:
        return None
    top, bottom, left, right = op.window.pads
    pads = (top + before[1], bottom + after[1], left + before[2], right + after[2])
    # The image keeps a padding in a byte, and a window that sees only padding helps nobody.
    if pads[0] >= op.window.extent[0] or pads[2] >= op.window.extent[1]:
        return None
    inputs = (pad.inputs[0], *op.inputs[1:])
    return replace(op, inputs=inputs, window=replace(op.window, pads=pads))


def _with_clamp(op: Op, layer: Op, tensors: dict[str, Tensor]) -> Op | None:
    """A float32 layer with the activation after it taken in; it makes the activation's tensor."""
    if not isinstance(op.attrs, Unary) or layer.kind in NO_CLAMP_KINDS:
        return None
    if tensors[op.output].dtype is not DType.FLOAT32:
        return None
    if op.attrs.kind is UnaryKind.RELU:
        clamp = Clamp(0.0, math.inf)
    elif op.attrs.kind is UnaryKind.CLIP:
        clamp = Clamp(op.attrs.a, op.attrs.b)
    else:
        return None
    return replace(layer, output=op.output, clamp=layer.clamp.then(clamp))


def _with_table(op: Op, layer: Op, tensors: dict[str, Tensor]) -> Op | None:
    """An int8 layer with the table after it taken in, where that clamps and rescales nothing."""
    out, fixed = tensors[op.output], layer.fixed
    if op.kind is not OpKind.TABLE or fixed is None or isinstance(fixed, SoftmaxFixed):
        return None
    entries, quant = tensors[op.inputs[1]].data, out.quant
    if entries is None or quant is None or quant != tensors[layer.output].quant:
        return None
    low, high = int(entries.min()), int(entries.max())
    if (entries != np.clip(np.arange(-128, 128), low, high)).any():
        return None
    real = Clamp(
        -math.inf if low == -128 else (low - quant.zero_point) * quant.scale,
        math.inf if high == 127 else (high - quant.zero_point) * quant.scale,
    )
    least, most = (min(max(edge, low), high) for edge in (fixed.act_min, fixed.act_max))
    fixed = replace(fixed, act_min=least, act_max=most)
    return replace(layer, output=op.output, clamp=layer.clamp.then(real), fixed=fixed)
