"""Which fixed-point arithmetic an int8 operator carries, and integer values of real attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import NoneType

import numpy as np

from fieldloop.errors import UsageError
from fieldloop.ir.op import (
    POOLS,
    WEIGHTED,
    AddFixed,
    MeanFixed,
    MulFixed,
    Op,
    OpKind,
    Pad,
    Requant,
    SoftmaxFixed,
)
from fieldloop.ir.tensor import DType, Tensor

_FIXED: dict[OpKind, tuple[type, ...]] = {
    **dict.fromkeys(WEIGHTED | POOLS, (Requant,)),
    OpKind.MINIMUM: (Requant, NoneType),
    OpKind.MAXIMUM: (Requant, NoneType),
    OpKind.ADD: (AddFixed,),
    OpKind.SUB: (AddFixed,),
    OpKind.MUL: (MulFixed,),
    OpKind.MEAN: (MeanFixed,),
    OpKind.SOFTMAX: (SoftmaxFixed,),
}


def check_fixed(op: Op, tensors: Mapping[str, Tensor]) -> None:
    """Raises UsageError where an operator lacks its int8 arithmetic, or has some in float."""
    is_int8 = tensors[op.inputs[0]].dtype is DType.INT8 is tensors[op.output].dtype
    expected = _FIXED.get(op.kind, (NoneType,)) if is_int8 else (NoneType,)
    if not isinstance(op.fixed, expected):
        wanted = " or ".join("nothing" if t is NoneType else t.__name__ for t in expected)
        what = "int8" if is_int8 else "float"
        raise UsageError(
            f"operator {op.name} ({op.kind.value}, {what}): expected {wanted} as its fixed-point "
            f"arithmetic, got {op.fixed}"
        )
    if op.kind in WEIGHTED and isinstance(op.fixed, Requant):
        channels = tensors[op.output].shape[-1]
        if len(op.fixed.factors) not in (1, channels):
            raise UsageError(
                f"operator {op.name}: expected 1 or {channels} factors, "
                f"got {len(op.fixed.factors)}"
            )


def pad_value(pad: Pad, out: Tensor) -> int | float:
    """The element a padding is made of: an integer, or a float32 value."""
    if out.dtype is DType.FLOAT32:
        return float(np.float32(pad.value))
    if out.dtype is DType.INT32:
        return int(pad.value)
    assert out.quant is not None
    steps = pad.value / out.quant.scale
    q = out.quant.zero_point + math.copysign(math.floor(abs(steps) + 0.5), steps)
    return int(min(max(q, -128), 127))
