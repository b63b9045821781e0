"""The networks of the study that the zoo has not: small enough to be trained within minutes.

Weights ship as .npz. Those of the largest are kept as int8 with one float32 scale a row, which is
the grid that quantising puts them on anyway; a batch norm's parameters stay float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from fieldloop.errors import UsageError
from fieldloop.zoo.mlperf_tiny import convolution, separable
from fieldloop.zoo.sensors import Activity, Bearing

WEIGHTS = Path(__file__).parent / "weights"
_SCALE = ".scale"  # the entry beside one of int8


class MnistCnn(nn.Module):
    """The network of TinyProp's PyTorch notebooks: [n, 1, 28, 28] -> [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 12, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Sequential(
            nn.Linear(192, 120), nn.ReLU(), nn.Linear(120, 60), nn.ReLU(), nn.Linear(60, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


class SpokenDigits(nn.Module):
    """Spoken digits: [n, 1, 32 frames, 20 mel bands] -> [n, 10]."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *convolution(1, width, 3, stride=2, padding=1),
            *convolution(width, 2 * width, 3, padding=1),
            nn.MaxPool2d(2),
            *convolution(2 * width, 3 * width, 3, padding=1),
            nn.MaxPool2d((2, 1)),
            nn.AvgPool2d((4, 5)),
            nn.Flatten(),
        )
        self.head = nn.Linear(3 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


class Photos(nn.Module):
    """MobileNetV1 of width 0.25 for photos: [n, 3, 64, 64] -> [n, classes].

    The blocks of MLPerf Tiny's visual wake words, three of its five of 128 channels.
    """

    BLOCKS = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (128, 1), (128, 1))
    LAST = ((256, 2), (256, 1))

    def __init__(self, classes: int = 22) -> None:
        super().__init__()
        channels = 8
        layers = convolution(3, channels, 3, stride=2, padding=1)
        for wide, stride in (*self.BLOCKS, *self.LAST):
            layers += separable(channels, wide, stride=stride)
            channels = wide
        self.features = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


NETWORKS = MappingProxyType(
    {
        "mnist": MnistCnn,
        "digits": SpokenDigits,
        "photos": Photos,
        "bearing": Bearing,
        "har": Activity,
    }
)


def fresh(name: str, seed: int) -> nn.Module:
    """A network in eval mode with the initial weights of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name]().eval()


def load(name: str) -> nn.Module:
    """A network in eval mode with the weights that ship."""
    path = WEIGHTS / f"{name}.npz"
    network = fresh(name, 0)
    try:
        with np.load(path, allow_pickle=False) as file:
            network.load_state_dict(_unpacked({key: file[key] for key in file.files}))
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"weights: {path} cannot be read ({error}); make them again with "
            "`fieldloop bench learn --study tinyprop --pretrain --data-dir DIR`"
        ) from error
    return network


def save(name: str, network: nn.Module, *, folder: Path = WEIGHTS) -> Path:
    """Writes a network's weights; of `photos` the matrices as int8."""
    arrays: dict[str, np.ndarray] = {}
    for key, value in network.state_dict().items():
        array = value.cpu().numpy()
        if name == "photos" and array.ndim > 1:
            rows = array.reshape(len(array), -1)
            scale = np.maximum(np.abs(rows).max(axis=1), 1e-12).astype(np.float32) / 127.0
            along = scale.reshape(-1, *[1] * (array.ndim - 1))
            arrays[key] = np.rint(array / along).astype(np.int8)
            arrays[key + _SCALE] = scale
        else:
            arrays[key] = array
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    np.savez_compressed(path, **arrays)
    return path


def _unpacked(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    state = {}
    for key, array in arrays.items():
        if key.endswith(_SCALE):
            continue
        if key + _SCALE in arrays:
            scale = arrays[key + _SCALE]
            array = array * scale.reshape(-1, *[1] * (array.ndim - 1))
        state[key] = torch.from_numpy(np.asarray(array))
    return state
