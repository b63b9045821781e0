"""Handwritten digits of 8x8 pixels, and two networks for them.

The data are scikit-learn's (1797 images of the UCI set, shipped inside the package). Some classes
can be held back: the networks then know the others only, and the device learns the missing ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from fieldloop.errors import UsageError

CLASSES = 10
SIDE = 8
INK = 16.0  # largest pixel value of the data set; ours go from 0 to 1
LABELS = tuple(str(digit) for digit in range(CLASSES))
TEST_SHARE = 0.3

Samples = npt.NDArray[np.float32]  # [n, 8, 8, 1], 0 to 1
Classes = npt.NDArray[np.int64]  # [n]


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """One stratified split; `missing` are the classes that only the field will show."""

    seed: int
    missing: tuple[int, ...]
    x_train: Samples
    y_train: Classes
    x_test: Samples
    y_test: Classes

    @property
    def known(self) -> tuple[int, ...]:
        """The classes that teacher and student are trained on."""
        return tuple(digit for digit in range(CLASSES) if digit not in self.missing)

    def known_train(self) -> tuple[Samples, Classes]:
        """What the networks are trained and calibrated on."""
        chosen = np.isin(self.y_train, self.known)
        return self.x_train[chosen], self.y_train[chosen]

    def known_test(self) -> tuple[Samples, Classes]:
        chosen = np.isin(self.y_test, self.known)
        return self.x_test[chosen], self.y_test[chosen]

    def rehearsal(self, per_class: int) -> tuple[Samples, Classes]:
        """Random training samples of each known class, to travel with the model."""
        rng = np.random.default_rng((self.seed, 1))
        chosen = np.concatenate(
            [
                rng.permutation(np.flatnonzero(self.y_train == digit))[:per_class]
                for digit in self.known
            ]
        )
        return self.x_train[chosen], self.y_train[chosen]

    def stream(self, passes: int, seed: int) -> tuple[Samples, Classes]:
        """Labelled training samples of the missing classes, shuffled anew in each pass."""
        rng = np.random.default_rng((seed, 2))
        of_missing = np.flatnonzero(np.isin(self.y_train, self.missing))
        order = np.concatenate([rng.permutation(of_missing) for _ in range(passes)])
        return self.x_train[order], self.y_train[order]


def load(*, seed: int = 0, missing: Sequence[int] = (8, 9)) -> Digits:
    """The data set, split by `seed`; the same seed gives the same split."""
    held_back = check_missing(missing)
    # Takes a second to import, so only when digits are really wanted.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    x = (data.images / INK).astype(np.float32)[..., None]
    y = data.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=TEST_SHARE, stratify=y, random_state=seed
    )
    return Digits(seed, held_back, x_train, y_train, x_test, y_test)


def check_missing(missing: Sequence[int]) -> tuple[int, ...]:
    """The classes held back, sorted; at least two must stay, for the networks to know."""
    held_back = tuple(sorted(set(missing)))
    if len(held_back) != len(missing) or not set(held_back) <= set(range(CLASSES)):
        raise UsageError(
            f"missing: expected different digits 0 to {CLASSES - 1}, got {list(missing)}"
        )
    if not 1 <= len(held_back) <= CLASSES - 2:
        raise UsageError(f"missing: expected 1 to {CLASSES - 2} digits, got {len(held_back)}")
    return held_back


def _convolution(c_in: int, c_out: int, kernel: int, *, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(),
    ]


class Student(nn.Module):
    """10,138 parameters, 96 k multiply-accumulates: what the device runs and trains.

    A wide head on 4x4 maps: a narrow hidden layer before it has no room for classes to come.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(1, 8, 3),
            *_convolution(8, 8, 3, groups=8),
            *_convolution(8, 16, 1),
            nn.MaxPool2d(2),
            *_convolution(16, 32, 3),
        )
        self.head = nn.Linear(32 * 4 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).flatten(1))
        return logits


class Teacher(nn.Module):
    """Eleven times the student: what the host can afford."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(1, 32, 3),
            *_convolution(32, 64, 3),
            nn.MaxPool2d(2),
            *_convolution(64, 128, 3),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(128 * 4 * 4, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits
