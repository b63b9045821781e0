"""The real data sets of the zoo, read from a folder and scaled as the device has to scale them.

Samples are float32 in torch's order, [n, c, h, w] or [n, c, t]. What is done to a raw sample is
little enough to be done on the device; `PREPARED` says it in words, for the model's meta data.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from fieldloop.errors import UsageError
from fieldloop.zoo.registry import Entry, entry

Samples = npt.NDArray[np.float32]  # [n, *entry.shape]
Classes = npt.NDArray[np.int64]  # [n]
Arrays = Mapping[str, npt.NDArray[np.generic]]

# How a raw sample becomes the network's input.
PREPARED = MappingProxyType(
    {
        "kws": "49x10 int8 MFCC / 32",
        "resnet8": "(RGB - 128) / 128",
        "har": "acceleration in g and rotation in 2 rad/s, clipped to -2 .. 2",
        "bearing": "(window - its mean) / its standard deviation, clipped to -4 .. 4",
        "strokes": "int8 coordinates / 64, zeros behind the last point",
        "spells": "acceleration in g and rotation in 100 degrees/s, clipped to -4 .. 4",
    }
)
LEFT_OUT_LOAD = 3  # of `bearing`: the motor load, in hp, that the harder split never trains on


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """One network's training and test split."""

    name: str
    x_train: Samples
    y_train: Classes
    x_test: Samples
    y_test: Classes

    @property
    def labels(self) -> tuple[str, ...]:
        return entry(self.name).labels


def load(name: str, folder: Path | str, *, harder: bool = False) -> Dataset:
    """Reads a network's data set from `folder`; UsageError names a file that is not there.

    `harder` is for `bearing` only: windows of motor load 3 are never trained on, and only they
    are tested (and the normal ones, of which there is no other load than 0).
    """
    what = entry(name)
    if what.data is None:
        raise UsageError(
            f"{name}: no training data; `fieldloop compile` takes it with initial weights"
        )
    if harder and name != "bearing":
        raise UsageError(f"harder: expected bearing, which has loads to leave out, got {name}")
    path = Path(folder) / what.data
    if not path.is_file():
        raise UsageError(
            f"{name}: {path} is not there; give the folder that holds {what.data} as --data-dir"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            data = _READERS[name](file, harder)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{name}: {path} cannot be read ({error}); expected the arrays that "
            "the data set's description lists"
        ) from error
    _check(what, data, path)
    return data


def _check(what: Entry, data: Dataset, path: Path) -> None:
    for split, x, y in (
        ("train", data.x_train, data.y_train),
        ("test", data.x_test, data.y_test),
    ):
        if x.shape[1:] != what.shape or len(x) != len(y) or not len(x):
            raise UsageError(
                f"{what.name}: {path}: expected {split} samples [n, "
                f"{', '.join(map(str, what.shape))}] and n labels, got {list(x.shape)} "
                f"and {len(y)}"
            )
        if not 0 <= int(y.min()) <= int(y.max()) < len(what.labels):
            raise UsageError(
                f"{what.name}: {path}: expected classes 0 to {len(what.labels) - 1} in the "
                f"{split} split, got {int(y.min())} to {int(y.max())}"
            )


def _split(
    name: str, file: Arrays, prepare: Callable[[npt.NDArray[np.generic]], npt.NDArray[np.float64]]
) -> Dataset:
    def samples(key: str) -> Samples:
        return np.ascontiguousarray(prepare(file[key]), np.float32)

    def classes(key: str) -> Classes:
        return file[key].astype(np.int64)

    return Dataset(
        name, samples("x_train"), classes("y_train"), samples("x_test"), classes("y_test")
    )


def _kws(file: Arrays, _: bool) -> Dataset:
    return _split("kws", file, lambda x: x[:, None] / 32.0)


def _resnet8(file: Arrays, _: bool) -> Dataset:
    # Pillow is only needed for pictures.
    from PIL import Image

    def pictures(part: str) -> Samples:
        packed, ends = file[f"x_{part}_jpeg"], file[f"x_{part}_off"]
        x = np.empty((len(ends) - 1, *entry("resnet8").shape), np.float32)
        for i, (a, b) in enumerate(itertools.pairwise(ends)):
            with Image.open(io.BytesIO(packed[a:b].tobytes())) as picture:
                x[i] = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
        return (x - 128.0) / 128.0

    return Dataset(
        "resnet8",
        pictures("train"),
        file["y_train"].astype(np.int64),
        pictures("test"),
        file["y_test"].astype(np.int64),
    )


def _har(file: Arrays, _: bool) -> Dataset:
    unit = file["scale"] / np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
    whole = _split("har", file, lambda x: np.clip(x * unit, -2.0, 2.0).transpose(0, 2, 1))
    # Classes 6 to 11 are the short transitions between postures.
    train, test = whole.y_train < 6, whole.y_test < 6
    return Dataset(
        "har", whole.x_train[train], whole.y_train[train], whole.x_test[test], whole.y_test[test]
    )


def _bearing(file: Arrays, harder: bool) -> Dataset:
    def standard(raw: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        x = raw.astype(np.float64)
        x = (x - x.mean(axis=1, keepdims=True)) / np.maximum(x.std(axis=1, keepdims=True), 1e-9)
        return np.clip(x, -4.0, 4.0)[:, None]

    whole = _split("bearing", file, standard)
    if not harder:
        return whole
    train = file["load_train"] != LEFT_OUT_LOAD
    test = (file["load_test"] == LEFT_OUT_LOAD) | (whole.y_test == 0)
    return Dataset(
        "bearing",
        whole.x_train[train],
        whole.y_train[train],
        whole.x_test[test],
        whole.y_test[test],
    )


def _strokes(file: Arrays, _: bool) -> Dataset:
    return _split("strokes", file, lambda x: x.transpose(0, 2, 1) / 64.0)


def _spells(file: Arrays, _: bool) -> Dataset:
    unit = file["scale"] / np.array([1.0, 1.0, 1.0, 100.0, 100.0, 100.0])
    return _split("spells", file, lambda x: np.clip(x * unit, -4.0, 4.0).transpose(0, 2, 1))


_READERS: Mapping[str, Callable[[Arrays, bool], Dataset]] = MappingProxyType(
    {
        "kws": _kws,
        "resnet8": _resnet8,
        "har": _har,
        "bearing": _bearing,
        "strokes": _strokes,
        "spells": _spells,
    }
)
