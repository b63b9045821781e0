"""What is in the zoo: each network by its name, its input, and the weights it ships with.

Weights are plain .npz files: one array for each entry of the module's state dict, no pickle.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fieldloop.errors import UsageError
from fieldloop.zoo import mlperf_tiny, sensors

SHIPPED = Path(__file__).parent / "weights"

_KEYWORDS = "down go left no off on right stop up yes silence unknown"
_PICTURES = "airplane automobile bird cat deer dog frog horse ship truck"
_ACTIVITIES = "walking upstairs downstairs sitting standing laying"
_FAULTS = (
    "normal ball_007 ball_014 ball_021 inner_007 inner_014 inner_021 outer_007 outer_014 outer_021"
)
_SPELLS = "alohomora arresto_momentum avada_kedavra locomotor revelio"


@dataclass(frozen=True, slots=True)
class Entry:
    """One network of the zoo. `shape` is one sample's, as torch has it: [c, h, w] or [c, t]."""

    name: str
    title: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    labels: tuple[str, ...]  # () for an autoencoder
    data: str | None  # the file it is trained on; None: there is none here


def _entry(
    name: str,
    title: str,
    build: Callable[[], nn.Module],
    shape: tuple[int, ...],
    labels: str,
    data: str | None,
) -> tuple[str, Entry]:
    return name, Entry(name, title, build, shape, tuple(labels.split()), data)


ENTRIES: Mapping[str, Entry] = MappingProxyType(
    dict(
        [
            _entry(
                "kws",
                "keyword spotting, DS-CNN (MLPerf Tiny)",
                mlperf_tiny.DsCnn,
                (1, 49, 10),
                _KEYWORDS,
                "kws_mfcc.npz",
            ),
            _entry(
                "vww",
                "visual wake words, MobileNetV1 0.25 (MLPerf Tiny)",
                mlperf_tiny.MobileNetV1,
                (3, 96, 96),
                "nobody person",
                None,
            ),
            _entry(
                "resnet8",
                "CIFAR-10, ResNet8 (MLPerf Tiny)",
                mlperf_tiny.ResNet8,
                (3, 32, 32),
                _PICTURES,
                "cifar10_jpeg.npz",
            ),
            _entry(
                "ad01",
                "anomaly detection, dense autoencoder (MLPerf Tiny)",
                mlperf_tiny.Autoencoder,
                (640,),
                "",
                None,
            ),
            _entry(
                "har",
                "human activity, 1-D convolutions",
                sensors.Activity,
                (6, 128),
                _ACTIVITIES,
                "har_windows.npz",
            ),
            _entry(
                "bearing",
                "bearing faults, 1-D convolutions",
                sensors.Bearing,
                (1, 1024),
                _FAULTS,
                "cwru_bearing.npz",
            ),
            _entry(
                "strokes",
                "digits drawn in the air, 1-D convolutions",
                sensors.Strokes,
                (2, 145),
                "0 1 2 3 4 5 6 7 8 9",
                "gesture_digits_strokes.npz",
            ),
            _entry(
                "spells",
                "wand gestures, 1-D convolutions",
                sensors.Spells,
                (6, 119),
                _SPELLS,
                "gesture_spells_imu.npz",
            ),
        ]
    )
)


def entry(name: str) -> Entry:
    """The entry of this name; UsageError names those there are."""
    if name not in ENTRIES:
        raise UsageError(f"network: expected one of {', '.join(ENTRIES)}, got {name!r}")
    return ENTRIES[name]


def input_shape(name: str) -> tuple[int, ...]:
    """The shape of one sample with its batch of one, as torch has it: (1, c, h, w)."""
    return (1, *entry(name).shape)


def build(name: str) -> nn.Module:
    """The network in eval mode with the initial weights of seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return entry(name).build().eval()


def load(name: str, *, weights: Path | str | None = None) -> nn.Module:
    """The network in eval mode with trained weights: those of a file, or those that ship."""
    path = SHIPPED / f"{entry(name).name}.npz" if weights is None else Path(weights)
    if weights is None and not path.exists():
        raise UsageError(
            f"weights: {name} ships with none; expected a file from `fieldloop train {name}`"
        )
    network = build(name)
    network.load_state_dict(_read(path, network.state_dict()))
    return network


def save(path: Path, network: nn.Module) -> None:
    """Writes every entry of the state dict: floats as float32, counters as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {key: value.cpu().numpy() for key, value in network.state_dict().items()}
    np.savez_compressed(path, **state)


def _read(path: Path, expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The arrays of a weights file, with the names and shapes of `expected` and no others."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, npt.NDArray[np.generic]] = {key: file[key] for key in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise UsageError(
            f"weights: {path} cannot be read ({error}); expected an .npz of `fieldloop train`"
        ) from error
    if missing := sorted(set(expected) - set(arrays)):
        raise UsageError(f"weights: {path} lacks {missing[0]}; is it another network's file?")
    if unknown := sorted(set(arrays) - set(expected)):
        raise UsageError(f"weights: {path} holds {unknown[0]}, which the network has not")
    state = {}
    for key, tensor in expected.items():
        array = arrays[key]
        if array.shape != tuple(tensor.shape) or array.dtype.kind not in "fiu":
            raise UsageError(
                f"weights: {path}: expected {key} {tuple(tensor.shape)}, "
                f"got {array.dtype} {array.shape}"
            )
        if not np.isfinite(array).all():
            raise UsageError(f"weights: {path}: {key} holds values that are not finite")
        state[key] = torch.from_numpy(array.astype(np.float32)).to(tensor.dtype)
    return state


def _builder(name: str) -> Callable[[], nn.Module]:
    return lambda: build(name)


networks: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {name: _builder(name) for name in ENTRIES}
)
