"""Samples from files: .npz (arrays x and y), .npy, .csv; never by unpickling."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.errors import FieldloopError, UsageError

FORMATS = "expected .npz with arrays x and (labels) y, .npy, or .csv with a sample in each row"


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """x [n, ...], int8 as the model takes it or real values; y [n] classes, or None."""

    x: npt.NDArray[Any]
    y: npt.NDArray[np.int64] | None


def load(path: Path) -> Samples:
    """Reads a file of samples."""
    held = arrays(path)
    if "x" not in held:
        raise UsageError(f"{path}: has no array x; {FORMATS}")
    x, y = held["x"], held.get("y")
    return Samples(checked(x, path), None if y is None else labels(y, len(x), path))


def arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a file by name, of any dtype; that of a .npy or .csv is x."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as held:
                return {name: held[name] for name in held.files}
        if path.suffix == ".npy":
            return {"x": np.load(path, allow_pickle=False)}
        if path.suffix == ".csv":
            return {"x": np.loadtxt(path, delimiter=",", ndmin=2, dtype=np.float32)}
        raise UsageError(f"{path}: {FORMATS}")
    except OSError as error:
        raise FieldloopError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise FieldloopError(
            f"{path} is damaged or of another kind: {error}; {FORMATS}"
        ) from error


def check_labels(y: npt.NDArray[np.int64] | None, classes: int, path: Path) -> list[int]:
    """The labels, all of them classes of the model."""
    if y is None:
        raise UsageError(f"{path}: has no labels; {FORMATS}")
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
        wrong = int(y.max()) if int(y.max()) >= classes else int(y.min())
        raise UsageError(
            f"{path}: label {wrong}, expected 0 to {classes - 1}, the model's classes"
        )
    return [int(label) for label in y]


def checked(x: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    """Samples of int8 or finite reals as they are; UsageError for others."""
    if x.ndim < 1 or x.size == 0:
        raise UsageError(f"{path}: expected samples [n, ...], got shape {x.shape}")
    if x.dtype == np.int8:
        return x
    if not np.issubdtype(x.dtype, np.floating):
        raise UsageError(f"{path}: expected x of int8 or float, got {x.dtype}; convert it first")
    if not np.isfinite(x).all():
        raise UsageError(f"{path}: x holds values that are not finite")
    return x


def labels(y: npt.NDArray[Any], count: int, path: Path) -> npt.NDArray[np.int64]:
    """One whole number for each of `count` samples; UsageError for others."""
    if y.shape != (count,) or not np.issubdtype(y.dtype, np.integer):
        raise UsageError(f"{path}: expected {count} integer labels y, got {y.dtype} {y.shape}")
    return y.astype(np.int64)
