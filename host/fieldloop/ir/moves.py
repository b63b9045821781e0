"""Operators that copy elements, in numpy: the same for every dtype."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fieldloop.ir.arithmetic import pad_value
from fieldloop.ir.op import Concat, Op, OpKind, Pad, Slice, Transpose
from fieldloop.ir.tensor import Array, Tensor


def run_move(op: Op, tensors: Mapping[str, Tensor], values: Mapping[str, Array]) -> Array:
    """The output of a reshape, concat, pad, transpose, slice or embedding."""
    x = values[op.inputs[0]]
    out = tensors[op.output]
    if isinstance(op.attrs, Concat):
        rows = max(values[name].shape[0] for name in op.inputs)
        parts = [_spread(values[name], rows, op.attrs.axis) for name in op.inputs]
        return np.concatenate(parts, axis=op.attrs.axis)
    if isinstance(op.attrs, Pad):
        widths = list(zip(op.attrs.before, op.attrs.after, strict=True))
        return np.pad(x, widths, constant_values=pad_value(op.attrs, out))
    if isinstance(op.attrs, Transpose):
        return np.transpose(x, op.attrs.axes)
    if isinstance(op.attrs, Slice):
        at = op.attrs
        rows = tensors[op.inputs[0]].shape[0]
        steps = [slice(b, e, s) for b, e, s in zip(at.begin, at.end, at.stride, strict=True)]
        if at.begin[0] == 0 and at.end[0] == rows and (at.stride[0] == 1 or rows == 1):
            steps[0] = slice(None)  # axis 0 is whole: it may hold a batch
        return x[tuple(steps)]
    if op.kind is OpKind.EMBEDDING:
        table = values[op.inputs[1]]
        return np.asarray(table[np.clip(x.astype(np.int64), 0, len(table) - 1)])
    if out.shape[0] == tensors[op.inputs[0]].shape[0]:
        return x.reshape(x.shape[0], *out.shape[1:])
    return x.reshape(out.shape)


def _spread(part: Array, rows: int, axis: int) -> Array:
    """A constant part of a batch: the same for every sample."""
    if axis == 0 or part.shape[0] == rows:
        return part
    return np.broadcast_to(part, (rows, *part.shape[1:]))
