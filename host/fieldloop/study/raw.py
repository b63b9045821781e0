"""The data sets of the study as arrays, before any shift: float32 in torch's order, and classes.

Readers of what the zoo reads already are the zoo's. Nothing is written, nothing is downloaded.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from fieldloop.errors import UsageError
from fieldloop.zoo import data as zoo_data

Samples = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]

FILES = MappingProxyType(
    {
        "mnist": "mnist.npz",
        "cifar10": "cifar10_jpeg.npz",
        "har": "har_windows.npz",
        "kws": "kws_mfcc.npz",
        "flowers": "flowers12_jpeg.npz",
        "food": "food101_10c_jpeg.npz",
        "bearing": "cwru_bearing.npz",
        "digits": "fsdd_digits8k.npz",
    }
)
PHOTO = 64  # pixels of a photo's side
_PICTURES, _TESTED = 4000, 1000
_FRAMES, _BANDS = 32, 20  # of a spoken digit


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """Two splits, and what else is known of each sample (speaker, wearer, load)."""

    x_train: Samples
    y_train: Classes
    x_test: Samples
    y_test: Classes
    train: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    test: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)


def missing(name: str, folder: Path) -> str | None:
    """Why a data set cannot be read, or None."""
    path = folder / FILES[name]
    return None if path.is_file() else f"{path} is not there"


def read(name: str, folder: Path) -> Raw:
    """A data set; UsageError names what is wrong with its file."""
    path = folder / FILES[name]
    if (why := missing(name, folder)) is not None:
        raise UsageError(f"{name}: {why}; give the folder that holds it as --data-dir")
    try:
        with np.load(path, allow_pickle=False) as file:
            return _READERS[name](file, folder)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{name}: {path} cannot be read ({error})") from error


def _of_zoo(name: str, folder: Path, file: Mapping[str, npt.NDArray[np.generic]]) -> Raw:
    data = zoo_data.load("resnet8" if name == "cifar10" else name, folder)
    return Raw(data.x_train, data.y_train, data.x_test, data.y_test)


def _cifar10(file: Mapping[str, npt.NDArray[np.generic]], folder: Path) -> Raw:
    # A stream is short: of 50,000 pictures the first 4,000 are enough, and decoded in a second.
    x_train = _pictures(file, "train", 32, _PICTURES)
    x_test = _pictures(file, "test", 32, _TESTED)
    y_train, y_test = file["y_train"].astype(np.int64), file["y_test"].astype(np.int64)
    return Raw(x_train, y_train[:_PICTURES], x_test, y_test[:_TESTED])


def _mnist(file: Mapping[str, npt.NDArray[np.generic]], folder: Path) -> Raw:
    def pictures(key: str) -> Samples:
        return (file[key].astype(np.float32) / 255.0)[:, None]

    return Raw(
        pictures("x_train"),
        file["y_train"].astype(np.int64),
        pictures("x_test"),
        file["y_test"].astype(np.int64),
    )


def _har(file: Mapping[str, npt.NDArray[np.generic]], folder: Path) -> Raw:
    made = _of_zoo("har", folder, file)
    train, test = file["y_train"] < 6, file["y_test"] < 6
    return Raw(
        made.x_train,
        made.y_train,
        made.x_test,
        made.y_test,
        {"wearer": file["subject_train"][train]},
        {"wearer": file["subject_test"][test]},
    )


def _kws(file: Mapping[str, npt.NDArray[np.generic]], folder: Path) -> Raw:
    made = _of_zoo("kws", folder, file)
    speakers = np.array([str(u).split("/")[-1].split("_")[0] for u in file["utt_test"]])
    return Raw(made.x_train, made.y_train, made.x_test, made.y_test, {}, {"speaker": speakers})


def _bearing(file: Mapping[str, npt.NDArray[np.generic]], folder: Path) -> Raw:
    made = _of_zoo("bearing", folder, file)
    return Raw(
        made.x_train,
        made.y_train,
        made.x_test,
        made.y_test,
        {"load": file["load_train"]},
        {"load": file["load_test"]},
    )


def _photos(file: Mapping[str, npt.NDArray[np.generic]], folder: Path) -> Raw:
    return Raw(
        _pictures(file, "train", PHOTO),
        file["y_train"].astype(np.int64),
        _pictures(file, "test", PHOTO),
        file["y_test"].astype(np.int64),
    )


def _pictures(
    file: Mapping[str, npt.NDArray[np.generic]], part: str, side: int, most: int | None = None
) -> Samples:
    """JPEG packs as [n, 3, side, side], (RGB - 128) / 128."""
    from PIL import Image  # only needed for pictures

    packed, ends = file[f"x_{part}_jpeg"], file[f"x_{part}_off"]
    ends = ends if most is None else ends[: most + 1]
    x = np.empty((len(ends) - 1, 3, side, side), np.float32)
    for i, (a, b) in enumerate(itertools.pairwise(ends)):
        with Image.open(io.BytesIO(packed[a:b].tobytes())) as picture:
            small = picture.convert("RGB")
            if small.size != (side, side):
                small = small.resize((side, side), Image.Resampling.BILINEAR)
            x[i] = np.asarray(small).transpose(2, 0, 1)
    return (x - 128.0) / 128.0


def _digits(file: Mapping[str, npt.NDArray[np.generic]], folder: Path) -> Raw:
    def split(part: str) -> tuple[Samples, Classes, Mapping[str, npt.NDArray[np.generic]]]:
        x = mel_bands(file[f"x_{part}"].astype(np.float32) / 32768.0)
        return x, file[f"y_{part}"].astype(np.int64), {"speaker": file[f"speaker_{part}"]}

    (x, y, train), (xt, yt, test) = split("train"), split("test")
    return Raw(x, y, xt, yt, train, test)


def mel_bands(wave: npt.NDArray[np.float32]) -> Samples:
    """Log power of 20 mel bands in 32 frames: [n, samples at 8 kHz] -> [n, 1, 32, 20].

    Frames of 256 samples, one each 128, from where the word begins; each word's own mean and
    deviation are taken out, so that loudness does not matter.
    """
    size, hop = 256, 128
    loud = np.abs(wave) > 0.1 * np.abs(wave).max(axis=1, keepdims=True)
    first = np.maximum(loud.argmax(axis=1) - hop, 0)
    wide = np.pad(wave, ((0, 0), (0, size + hop * _FRAMES)))
    places = first[:, None, None] + (np.arange(_FRAMES) * hop)[:, None] + np.arange(size)
    frames = np.take_along_axis(wide[:, None, :], places, axis=2)
    power = np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32))) ** 2
    bands = np.log(power @ _mel_filters(size) + 1e-6)
    mean = bands.mean(axis=(1, 2), keepdims=True)
    std = bands.std(axis=(1, 2), keepdims=True)
    return np.clip((bands - mean) / np.maximum(std, 1e-6), -3.0, 3.0).astype(np.float32)[:, None]


def _mel_filters(size: int, rate: float = 8000.0) -> npt.NDArray[np.float64]:
    """Triangles [bins, bands] between 60 Hz and 3.8 kHz."""

    def mel(hertz: float) -> float:
        return float(2595.0 * np.log10(1.0 + hertz / 700.0))

    edges = np.linspace(mel(60.0), mel(3800.0), _BANDS + 2)
    hertz = 700.0 * (10.0 ** (edges / 2595.0) - 1.0)
    at = np.fft.rfftfreq(size, 1.0 / rate)[:, None]
    rising = (at - hertz[:-2]) / (hertz[1:-1] - hertz[:-2])
    falling = (hertz[2:] - at) / (hertz[2:] - hertz[1:-1])
    return np.clip(np.minimum(rising, falling), 0.0, None)


_READERS = MappingProxyType(
    {
        "mnist": _mnist,
        "cifar10": _cifar10,
        "har": _har,
        "kws": _kws,
        "flowers": _photos,
        "food": _photos,
        "bearing": _bearing,
        "digits": _digits,
    }
)
