"""How far two arrays are from each other, whatever they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# What a NaN or an infinity on one side alone counts: JSON has neither.
_FAR_APART = float(np.finfo(np.float32).max)


def largest_difference(value: Array, wanted: Array) -> float:
    """The largest difference of two elements; NaN equals NaN and nothing else."""
    a, b = value.astype(np.float64), wanted.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b))
    apart[~np.isfinite(apart)] = _FAR_APART
    return float(apart.max(initial=0.0))


def largest_value(wanted: Array) -> float:
    """The largest magnitude of the finite elements; 0 where there are none."""
    finite = np.abs(wanted[np.isfinite(wanted)].astype(np.float64))
    return float(finite.max(initial=0.0))
