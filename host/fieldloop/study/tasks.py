"""What is learned: eight data sets, each with a shift that a device meets in the field.

A task is a trained network, a pool of labelled samples from after the shift to draw streams from,
and test samples from after the shift (other speakers, other windows, other pictures).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fieldloop.study import networks, raw
from fieldloop.study.pretrain import (
    FLOWERS,
    FOODS,
    GROWN,
    NEW_FLOWERS,
    NEW_FOOD,
    NEW_SPEAKERS,
    first_of_each,
)
from fieldloop.study.raw import Classes, Raw, Samples
from fieldloop.zoo import registry
from fieldloop.zoo.data import LEFT_OUT_LOAD

ANGLE = 50.0  # degrees, of the pictures of mnist
TILT = 30.0  # degrees, of the camera of cifar10
PHONE = 60.0  # degrees, of the phone about its own normal
MOST_TESTED = 1500
CALIBRATED = 256
_SPLIT = 2026  # draws who is learned from and who is tested: the same for every seed


@dataclass(frozen=True, slots=True, eq=False)
class Shifted:
    """A task's data, and its network before the first sample. Samples in torch's order."""

    network: nn.Module
    calibration: Samples  # from before the shift
    x_pool: Samples
    y_pool: Classes
    x_test: Samples
    y_test: Classes


@dataclass(frozen=True, slots=True)
class Task:
    """`layers`: how many are trained, from the output; `samples`: of a stream, drawn from the pool
    in passes; `cut`: the tensor that the tail begins with, where a branch leads past the lowest
    trained layer.
    """

    name: str
    title: str
    network: str
    shift: str
    trained: str
    layers: int
    samples: int
    shifted: Callable[[Path], Shifted]
    cut: str | None = None
    rate: float = 1.0  # of layers below the head, as a part of the head's


def turned(x: Samples, degrees: float) -> Samples:
    """Pictures [n, c, h, w] turned about their middle; what comes from outside is zero."""
    a = np.deg2rad(degrees)
    matrix = torch.tensor([[np.cos(a), -np.sin(a), 0.0], [np.sin(a), np.cos(a), 0.0]])
    given = torch.from_numpy(x)
    grid = functional.affine_grid(
        matrix.to(torch.float32).expand(len(x), 2, 3), list(given.shape), align_corners=False
    )
    made: Samples = functional.grid_sample(given, grid, align_corners=False).numpy()
    return made


def _shuffled(count: int) -> np.ndarray:
    return np.random.default_rng(_SPLIT).permutation(count)


def _first(x: Samples, y: Classes, most: int) -> tuple[Samples, Classes]:
    chosen = np.sort(_shuffled(len(x))[:most])
    return x[chosen], y[chosen]


def _mnist(folder: Path) -> Shifted:
    data = raw.read("mnist", folder)
    x, y = data.x_train[40000:48000], data.y_train[40000:48000]
    x_test, y_test = data.x_test[:MOST_TESTED], data.y_test[:MOST_TESTED]
    return Shifted(
        networks.load("mnist"),
        data.x_train[:CALIBRATED],
        turned(x, ANGLE),
        y,
        turned(x_test, ANGLE),
        y_test,
    )


def _cifar10(folder: Path) -> Shifted:
    data = raw.read("cifar10", folder)

    def tilted(x: Samples) -> Samples:
        return turned(x, TILT)

    return Shifted(
        registry.load("resnet8"),
        data.x_train[:CALIBRATED],
        tilted(data.x_train),
        data.y_train,
        tilted(data.x_test[:1000]),
        data.y_test[:1000],
    )


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """The matrix [3, 3] of a turn about x, then y, then z."""
    made = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        c, s = np.cos(angle), np.sin(angle)
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(3)
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        made = turn @ made
    return made


def _har(folder: Path) -> Shifted:
    data = raw.read("har", folder)
    turn = rotation((0.0, 0.0, PHONE))

    def carried(x: Samples) -> Samples:
        made = np.concatenate([turn @ x[:, :3], turn @ x[:, 3:]], axis=1)
        return np.ascontiguousarray(made, np.float32)

    wearer, y = data.test["wearer"], data.y_test
    learned = np.zeros(len(y), bool)
    for person in np.unique(wearer):
        for activity in np.unique(y):
            # In time order: windows overlap, so only where the halves meet do both see a sample.
            mine = np.flatnonzero((wearer == person) & (y == activity))
            learned[mine[: len(mine) // 2]] = True
    x = carried(data.x_test)
    return Shifted(
        registry.load("har"),
        data.x_train[_shuffled(len(data.x_train))[:CALIBRATED]],
        x[learned],
        y[learned],
        x[~learned],
        y[~learned],
    )


def _kws(folder: Path) -> Shifted:
    data = raw.read("kws", folder)
    rng = np.random.default_rng(_SPLIT)
    gain = rng.uniform(0.4, 1.6, 10)
    offset = rng.normal(0.0, 1.5, 10) * data.x_train[:2000].std(axis=(0, 1, 2))

    def heard(x: Samples) -> Samples:
        return np.clip(x * gain + offset, -4.0, 127.0 / 32.0).astype(np.float32)

    speaker = data.test["speaker"]
    people = rng.permutation(np.unique(speaker))
    learned = np.isin(speaker, people[: len(people) * 6 // 10])
    x_test, y_test = _first(data.x_test[~learned], data.y_test[~learned], MOST_TESTED)
    return Shifted(
        registry.load("kws"),
        data.x_train[:CALIBRATED],
        heard(data.x_test[learned]),
        data.y_test[learned],
        heard(x_test),
        y_test,
    )


def _bearing(folder: Path) -> Shifted:
    data = raw.read("bearing", folder)

    def mounted(x: Samples, number: int) -> Samples:
        # A softer mounting: a low pass of the vibration, and noise of the same power.
        rng = np.random.default_rng(_SPLIT + number)
        soft = x + 0.8 * np.roll(x, 1, axis=2) + 0.6 * np.roll(x, 2, axis=2)
        soft /= soft.std(axis=2, keepdims=True)
        noisy = soft + 0.5 * rng.standard_normal(x.shape)
        noisy /= noisy.std(axis=2, keepdims=True)
        return np.clip(noisy, -4.0, 4.0).astype(np.float32)

    def new(data: Raw, split: str) -> np.ndarray:
        load = (data.train if split == "train" else data.test)["load"]
        y = data.y_train if split == "train" else data.y_test
        return (load == LEFT_OUT_LOAD) | (y == 0)

    pool, test = new(data, "train"), new(data, "test")
    known = np.flatnonzero(data.train["load"] != LEFT_OUT_LOAD)
    return Shifted(
        networks.load("bearing"),
        data.x_train[known[_shuffled(len(known))[:CALIBRATED]]],
        mounted(data.x_train[pool], 0),
        data.y_train[pool],
        mounted(data.x_test[test], 1),
        data.y_test[test],
    )


def _digits(folder: Path) -> Shifted:
    data = raw.read("digits", folder)
    mine = np.flatnonzero(np.isin(data.train["speaker"], NEW_SPEAKERS))
    known = np.flatnonzero(~np.isin(data.train["speaker"], NEW_SPEAKERS))
    order = _shuffled(len(mine))
    learned, kept = mine[order[: len(mine) // 2]], mine[order[len(mine) // 2 :]]
    theirs = np.isin(data.test["speaker"], NEW_SPEAKERS)
    return Shifted(
        networks.load("digits"),
        data.x_train[known[_shuffled(len(known))[:CALIBRATED]]],
        data.x_train[learned],
        data.y_train[learned],
        np.concatenate([data.x_train[kept], data.x_test[theirs]]),
        np.concatenate([data.y_train[kept], data.y_test[theirs]]),
    )


def _headed(network: nn.Module, first: int, count: int, new: tuple[int, ...]) -> nn.Module:
    """`photos` with the head of one data set; rows of new classes are zero (the mean logit)."""
    head = nn.Linear(network.head.in_features, count)
    with torch.no_grad():
        weight = network.head.weight[first : first + count].clone()
        bias = network.head.bias[first : first + count].clone()
        known = [c for c in range(count) if c not in new]
        weight -= weight[known].mean(dim=0)
        bias -= bias[known].mean()
        weight[list(new)] = 0.0
        bias[list(new)] = 0.0
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    network.head = head
    return network


def _photos(name: str, first: int, count: int, new: tuple[int, ...]) -> Callable[[Path], Shifted]:
    def shifted(folder: Path) -> Shifted:
        data = raw.read(name, folder)
        pool = np.ones(len(data.y_train), bool)
        if name == "flowers":
            pool = first_of_each(data.y_train, GROWN)
        known = np.flatnonzero(pool & ~np.isin(data.y_train, new))
        x_test = np.concatenate([data.x_test, data.x_train[~pool]])
        return Shifted(
            _headed(networks.load("photos"), first, count, new),
            data.x_train[known[_shuffled(len(known))[:CALIBRATED]]],
            data.x_train[pool],
            data.y_train[pool],
            x_test,
            np.concatenate([data.y_test, data.y_train[~pool]]),
        )

    return shifted


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            Task(
                "mnist",
                "handwritten digits",
                "conv 5x5-6, pool, conv 5x5-12, pool, 120-60-10",
                f"the picture turned by {ANGLE:g} degrees",
                "second convolution and three dense layers",
                4,
                2000,
                _mnist,
            ),
            Task(
                "cifar10",
                "small pictures",
                "ResNet8 of the zoo",
                f"the camera tilted by {TILT:g} degrees",
                "head and the last block's second convolution",
                2,
                1000,
                _cifar10,
                cut="add_1",
            ),
            Task(
                "har",
                "activity from a phone's motion",
                "1-D convolutions of the zoo",
                "six new wearers, the phone turned by 60 degrees",
                "head and two convolutions",
                3,
                2000,
                _har,
            ),
            Task(
                "kws",
                "keywords",
                "DS-CNN of the zoo",
                "new speakers and another microphone",
                "head and the last separable block",
                3,
                2000,
                _kws,
            ),
            Task(
                "flowers",
                "photos of flowers",
                "MobileNetV1 0.25, 64x64",
                "two of twelve classes are new",
                "head and the last two separable blocks",
                5,
                1440,
                _photos("flowers", FOODS, FLOWERS, NEW_FLOWERS),
            ),
            Task(
                "food",
                "photos of food",
                "MobileNetV1 0.25, 64x64",
                "two of ten classes are new",
                "head and the last two separable blocks",
                5,
                2000,
                _photos("food", 0, FOODS, NEW_FOOD),
            ),
            Task(
                "bearing",
                "bearing faults",
                "1-D convolutions of the zoo",
                "a new load and a softer, noisier mounting",
                "head and two convolutions",
                3,
                2000,
                _bearing,
            ),
            Task(
                "digits",
                "spoken digits",
                "3x3 convolutions over log-mel bands",
                "two new speakers",
                "head and two convolutions",
                3,
                1000,
                _digits,
            ),
        )
    }
)
