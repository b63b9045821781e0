"""Functions of one int8 value as tables of 256 entries, worked out in float64 on the host."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fieldloop.ir.float_ops import unary
from fieldloop.ir.op import Unary
from fieldloop.ir.tensor import Array, Quant

Int8 = npt.NDArray[np.int8]

_ALL = np.arange(-128, 128, dtype=np.float64)


def unary_table(function: Unary, x: Quant, out: Quant) -> Int8:
    """int8 [256]: the function of each real value that an int8 stands for."""
    with np.errstate(over="ignore"):
        return _nearest(unary(function, (_ALL - x.zero_point) * x.scale), out)


def rescale_table(x: Quant, out: Quant) -> Int8:
    """int8 [256]: the same real value under another quantisation."""
    return _nearest((_ALL - x.zero_point) * x.scale, out)


def _nearest(real: Array, out: Quant) -> Int8:
    """Nearest int8, halves away from zero."""
    with np.errstate(over="ignore"):
        steps = np.clip(real / out.scale, -1e6, 1e6)
    q = np.copysign(np.floor(np.abs(steps) + 0.5), steps) + out.zero_point
    return np.asarray(np.clip(q, -128, 127), np.int8)
