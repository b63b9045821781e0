"""Samples as the link carries them: int8, in the model's own quantisation, nothing non-finite."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fieldloop.errors import UsageError
from fieldloop.link.replies import ModelInfo

Int8 = npt.NDArray[np.int8]


def as_samples(x: npt.ArrayLike, model: ModelInfo) -> Int8:
    """[n, input bytes] of int8 samples, or of real ones in the model's input quantisation.

    UsageError for another shape or type, and for a NaN or an infinity: it is refused here, since a
    device could only guess what was meant.
    """
    if not (model.input_scale > 0.0 and model.output_scale > 0.0):
        raise UsageError(
            f"the model in {model.slot} has float32 or int32 inputs or outputs, and the link "
            "carries int8 alone; run it on the device with fieldloop.Model, or on this "
            "machine with fieldloop run --model"
        )
    array = np.asarray(x)
    if array.dtype != np.int8 and array.dtype.kind != "f":
        raise UsageError(f"int8 or float samples expected, got {array.dtype}; convert them first")
    if array.size == 0 or array.size % model.input_bytes != 0:
        raise UsageError(
            f"samples of shape {model.input_shape[1:]} expected, got an array of "
            f"shape {array.shape}"
        )
    array = np.ascontiguousarray(array).reshape(-1, model.input_bytes)
    if array.dtype == np.int8:
        return array
    poisoned = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(poisoned):
        raise UsageError(
            f"sample {poisoned[0]} holds a value that is not a finite number, {len(poisoned)} of "
            f"{len(array)} do; nothing was sent, leave them out"
        )
    return quantized(array, scale=model.input_scale, zero_point=model.input_zero)


def quantized(x: npt.NDArray[np.floating], *, scale: float, zero_point: int) -> Int8:
    """Nearest int8 of real values, ties to even, clipped: as the device does it."""
    q = np.rint(x.astype(np.float64) / scale) + zero_point
    return np.asarray(np.clip(q, -128, 127), np.int8)


def as_labels(labels: npt.ArrayLike, count: int, classes: int) -> npt.NDArray[np.uint8]:
    """One class of the model for each of `count` samples; UsageError for others."""
    y = np.atleast_1d(np.asarray(labels))
    if y.shape != (count,):
        raise UsageError(f"{count} labels expected, got an array of shape {y.shape}")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() > 255:
        raise UsageError(f"labels 0 to {classes - 1} expected, got {y.dtype} {y.min()}..{y.max()}")
    return y.astype(np.uint8)
