"""The 48 parameter bytes of each operator, and how a record is filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.errors import UsageError
from fieldloop.image import format as f
from fieldloop.ir.arithmetic import pad_value
from fieldloop.ir.op import (
    WINDOWED,
    AddFixed,
    Concat,
    Factor,
    Mean,
    MeanFixed,
    MulFixed,
    Op,
    OpKind,
    Pad,
    Slice,
    SoftmaxFixed,
    Transpose,
    Unary,
)
from fieldloop.ir.tensor import DType, Tensor

Record = npt.NDArray[Any]


def record(layout: np.dtype[Any], /, **fields: Any) -> Record:
    """One record of `layout`, the rest zero; a value that its field cannot hold is refused."""
    made = np.zeros((), layout)
    for name, value in fields.items():
        kind = layout[name].base
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            low, high = int(np.min(value)), int(np.max(value))
            if low < limits.min or high > limits.max:
                raise UsageError(
                    f"image: {name} = {value} does not fit its field ({limits.min}..{limits.max})"
                )
        made[name] = value
    return made


def op_params(op: Op, tensors: Mapping[str, Tensor], inputs: Sequence[int]) -> Record | None:
    """The parameters of an operator; None where it has none. `inputs`: its tensors' numbers."""
    if op.kind in WINDOWED:
        return _window(op, tensors)
    if isinstance(op.fixed, AddFixed):
        made = record(f.ADD_PARAMS, left_shift=op.fixed.left_shift)
        for name, factor in (("a", op.fixed.a), ("b", op.fixed.b), ("out", op.fixed.out)):
            made[name] = _factor(factor)
        return made
    if isinstance(op.fixed, SoftmaxFixed):
        return record(
            f.SOFTMAX_PARAMS,
            input_multiplier=op.fixed.input_multiplier,
            input_left_shift=op.fixed.input_left_shift,
            diff_min=op.fixed.diff_min,
        )
    if isinstance(op.fixed, MulFixed):
        made = record(f.MUL_PARAMS)
        made["out"] = _factor(op.fixed.out)
        return made
    return _attrs(op, tensors, inputs)


def _factor(factor: Factor) -> tuple[int, int]:
    return factor.multiplier, factor.shift


def _window(op: Op, tensors: Mapping[str, Tensor]) -> Record:
    assert op.window is not None
    window, depth = op.window, 1
    if op.kind is OpKind.DEPTHWISE_CONV2D:
        depth = tensors[op.output].shape[3] // tensors[op.inputs[0]].shape[3]
    return record(
        f.CONV_PARAMS,
        kernel_h=window.kernel[0],
        kernel_w=window.kernel[1],
        stride_h=window.stride[0],
        stride_w=window.stride[1],
        dilation_h=window.dilation[0],
        dilation_w=window.dilation[1],
        pad_top=window.pads[0],
        pad_left=window.pads[2],
        depth_multiplier=depth,
        groups=op.groups if op.groups > 1 else 0,
    )


def _four(values: Sequence[int], rest: int) -> tuple[int, ...]:
    return (*values, *(rest,) * (4 - len(values)))


def _attrs(op: Op, tensors: Mapping[str, Tensor], inputs: Sequence[int]) -> Record | None:
    at = op.attrs
    if isinstance(at, Concat):
        more = [f.NO_TENSOR] * 20
        more[: max(len(inputs) - f.CONCAT_FIRST, 0)] = inputs[f.CONCAT_FIRST :]
        return record(f.CONCAT_PARAMS, axis=at.axis, count=len(inputs), more=more)
    if isinstance(at, Pad):
        value = pad_value(at, tensors[op.output])
        if tensors[op.output].dtype is DType.FLOAT32:
            value = int(np.array(value, "<f4").view("<i4"))
        return record(
            f.PAD_PARAMS, before=_four(at.before, 0), after=_four(at.after, 0), value=int(value)
        )
    if isinstance(at, Transpose):
        order = (*at.axes, *range(len(at.axes), 4))
        return record(f.TRANSPOSE_PARAMS, axis=order)
    if isinstance(at, Slice):
        return record(f.SLICE_PARAMS, begin=_four(at.begin, 0), stride=_four(at.stride, 1))
    if isinstance(at, Mean):
        made = record(f.MEAN_PARAMS, axes=sum(1 << axis for axis in at.axes))
        if isinstance(op.fixed, MeanFixed):
            made["out"] = _factor(op.fixed.out)
        return made
    if isinstance(at, Unary):
        return record(f.UNARY_PARAMS, kind=f.UnaryCode[at.kind.name], a=at.a, b=at.b)
    return None
