"""Trains the networks that the study starts from: once, on this machine, from fixed seeds.

What ships in `weights` came from here. kws, resnet8 and har are the zoo's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fieldloop.study import networks, raw
from fieldloop.train import views
from fieldloop.train.distill import deterministic
from fieldloop.zoo.data import LEFT_OUT_LOAD

Progress = Callable[[int, int], None]

SEED = 0
NEW_FOOD, NEW_FLOWERS = (8, 9), (10, 11)  # classes that nobody has samples of before the field
FOODS, FLOWERS = 10, 12
NEW_SPEAKERS = (4, 5)  # of spoken digits
GROWN = 40  # photos of each flower that are trained on; the others of the split are tested on


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """AdamW on a one-cycle schedule, labels smoothed by 0.05."""

    epochs: int
    rate: float
    batch: int = 64
    decay: float = 1e-2
    bend: views.Bend
    samples: Callable[[Path], tuple[raw.Samples, raw.Classes]]


def _moved(x: Tensor, rows: int, columns: int, rng: torch.Generator) -> Tensor:
    """Each picture [n, c, h, w] moved by up to so much; the edge is repeated."""
    n, c, h, w = x.shape
    down = torch.randint(-rows, rows + 1, (n, 1), generator=rng) + torch.arange(h)
    right = torch.randint(-columns, columns + 1, (n, 1), generator=rng) + torch.arange(w)
    down = down.clamp(0, h - 1)[:, None, :, None].expand(n, c, h, w)
    right = right.clamp(0, w - 1)[:, None, None, :].expand(n, c, h, w)
    return x.gather(2, down).gather(3, right)


def _spread(shape: tuple[int, ...], reach: float, rng: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=rng) * 2.0 - 1.0) * reach


def _strokes(x: Tensor, rng: torch.Generator) -> Tensor:
    """Digits moved by up to 2 pixels."""
    return _moved(x, 2, 2, rng)


def _spoken(x: Tensor, rng: torch.Generator) -> Tensor:
    """Words begun up to 2 frames earlier or later, a band higher or lower, with noise."""
    return _moved(x, 2, 1, rng) + 0.1 * torch.randn(x.shape, generator=rng)


def _photo(x: Tensor, rng: torch.Generator) -> Tensor:
    """Moved by up to 6 pixels, half of them mirrored, lighter or darker, in other light."""
    moved = _moved(x, 6, 6, rng)
    mirrored = torch.rand(len(x), generator=rng) < 0.5
    moved[mirrored] = moved[mirrored].flip(-1)
    gain = 1.0 + _spread((len(x), 3, 1, 1), 0.15, rng)
    offset = _spread((len(x), 1, 1, 1), 0.15, rng)
    return torch.clamp(moved * gain + offset, -1.0, 1.0)


def _mnist(folder: Path) -> tuple[raw.Samples, raw.Classes]:
    data = raw.read("mnist", folder)
    return data.x_train[:20000], data.y_train[:20000]


def _bearing(folder: Path) -> tuple[raw.Samples, raw.Classes]:
    data = raw.read("bearing", folder)
    known = data.train["load"] != LEFT_OUT_LOAD
    return data.x_train[known], data.y_train[known]


def _digits(folder: Path) -> tuple[raw.Samples, raw.Classes]:
    data = raw.read("digits", folder)
    known = ~np.isin(data.train["speaker"], NEW_SPEAKERS)
    return data.x_train[known], data.y_train[known]


def first_of_each(y: raw.Classes, count: int) -> np.ndarray:
    """True for the first samples of each class."""
    chosen = np.zeros(len(y), bool)
    for c in np.unique(y):
        chosen[np.flatnonzero(y == c)[:count]] = True
    return chosen


def _photos(folder: Path) -> tuple[raw.Samples, raw.Classes]:
    """Food as classes 0 to 9 and flowers as 10 to 21, the new ones left out."""
    food, flowers = raw.read("food", folder), raw.read("flowers", folder)
    eaten = ~np.isin(food.y_train, NEW_FOOD)
    grown = first_of_each(flowers.y_train, GROWN) & ~np.isin(flowers.y_train, NEW_FLOWERS)
    x = np.concatenate([food.x_train[eaten], flowers.x_train[grown]])
    return x, np.concatenate([food.y_train[eaten], flowers.y_train[grown] + FOODS])


RECIPES = MappingProxyType(
    {
        "photos": Recipe(epochs=90, rate=8e-3, bend=_photo, samples=_photos, batch=64),
        "mnist": Recipe(epochs=4, rate=4e-3, bend=_strokes, samples=_mnist),
        "bearing": Recipe(epochs=12, rate=5e-3, bend=views.vibrations, samples=_bearing),
        "digits": Recipe(epochs=30, rate=5e-3, bend=_spoken, samples=_digits),
    }
)


def pretrain(
    name: str, folder: Path, *, to: Path = networks.WEIGHTS, progress: Progress | None = None
) -> Path:
    """Trains a network and writes its weights; the same seed gives the same bytes."""
    recipe = RECIPES[name]
    x, y = (torch.from_numpy(array) for array in recipe.samples(folder))
    with deterministic(SEED):
        network = networks.fresh(name, SEED).train()
        if x.ndim == 4:
            network = network.to(memory_format=torch.channels_last)
        steps = len(x) // recipe.batch
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=recipe.rate, weight_decay=recipe.decay
        )
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.rate, total_steps=recipe.epochs * steps, pct_start=0.25
        )
        for epoch in range(recipe.epochs):
            seen = views.view(x, recipe.bend, epoch)
            for chosen in torch.randperm(len(x)).split(recipe.batch)[:steps]:
                loss = functional.cross_entropy(
                    network(seen[chosen]), y[chosen], label_smoothing=0.05
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                cycle.step()
            if progress is not None:
                progress(epoch + 1, recipe.epochs)
    return networks.save(name, network.eval(), folder=to)
