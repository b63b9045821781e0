"""Train a teacher, and a student to think like it: knowledge distillation with temperature.

A class that nobody has samples of yet keeps its output row, but takes no part: it is masked out of
the loss, and `quiet_rows` leaves it at zero for the field to fill.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

Progress = Callable[[int, int], None]  # epochs done, epochs in all

# Another number of threads may sum in another order, and the same seed train another network. One
# is as fast as two for networks this small, and far faster where others use the machine, too.
THREADS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast to train, and how far to bend the samples."""

    epochs: int
    batch: int = 64
    rate: float = 4e-3  # the highest of a one-cycle schedule
    decay: float = 1e-3
    rotation: float = 12.0  # degrees, to either side
    shear: float = 0.1
    zoom: float = 0.1
    shift: float = 0.1  # of half the picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """The student's loss: `soft` of the teacher's opinion, the rest of the true class."""

    temperature: float = 4.0
    soft: float = 0.7


@contextlib.contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """The same seed gives the same weights; the caller's torch settings come back afterwards."""
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a tenth of the time
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def train(
    network: nn.Module,
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    *,
    known: Sequence[int],
    schedule: Schedule,
    teacher: nn.Module | None = None,
    distillation: Distillation | None = None,
    progress: Progress | None = None,
) -> None:
    """Trains in place on samples [n, h, w, c] and classes [n], all of them among `known`.

    With a `teacher`, by distillation. Call it under `deterministic()`.
    """
    images = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    rows = list(known)
    places = np.full(max(rows) + 1, -1)
    places[rows] = np.arange(len(rows))
    targets = torch.from_numpy(places[y])
    assert bool((targets >= 0).all()), "a sample of an unknown class"
    recipe = distillation or Distillation()

    batches = math.ceil(len(images) / schedule.batch)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=schedule.rate, weight_decay=schedule.decay
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.rate, total_steps=schedule.epochs * batches
    )
    network.train()
    if teacher is not None:
        teacher.eval()
    for epoch in range(schedule.epochs):
        for chosen in torch.randperm(len(images)).chunk(batches):
            batch = bend(images[chosen], schedule)
            logits = network(batch)[:, rows]
            loss = functional.cross_entropy(logits, targets[chosen])
            if teacher is not None:
                with torch.no_grad():
                    opinion = teacher(batch)[:, rows]
                loss = (1.0 - recipe.soft) * loss + recipe.soft * soft_loss(
                    logits, opinion, recipe.temperature
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
        if progress is not None:
            progress(epoch + 1, schedule.epochs)
    network.eval()


def soft_loss(logits: Tensor, opinion: Tensor, temperature: float) -> Tensor:
    """KL divergence at a temperature; its square keeps the gradient as large as the hard one's."""
    divergence = functional.kl_div(
        functional.log_softmax(logits / temperature, dim=1),
        functional.log_softmax(opinion / temperature, dim=1),
        log_target=True,
        reduction="batchmean",
    )
    return divergence * temperature**2


def bend(images: Tensor, schedule: Schedule) -> Tensor:
    """A random affine map for each image [n, c, h, w]."""
    count = len(images)

    def either_way(reach: float) -> Tensor:
        return (torch.rand(count) * 2.0 - 1.0) * reach

    angle = either_way(math.radians(schedule.rotation))
    zoom = 1.0 + either_way(schedule.zoom)
    shear = either_way(schedule.shear)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = cos, shear - sin
    theta[:, 1, 0], theta[:, 1, 1] = sin, cos
    theta[:, 0, 2], theta[:, 1, 2] = either_way(schedule.shift), either_way(schedule.shift)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def quiet_rows(head: nn.Linear, known: Sequence[int]) -> None:
    """Makes the output of every class not known the mean of the known ones, for any sample.

    A mean never wins, and is where a class that is learned later may start from. The known rows
    are centred around zero, which changes no probability, so that the mean is a row of zeros.
    Left at random, such a row wins where it should not: one student fell to half its accuracy.
    """
    rows = list(known)
    unknown = [row for row in range(head.out_features) if row not in rows]
    with torch.no_grad():
        head.weight[rows] -= head.weight[rows].mean(dim=0)
        head.bias[rows] -= head.bias[rows].mean()
        head.weight[unknown] = 0.0
        head.bias[unknown] = 0.0


def accuracy(
    network: nn.Module, x: npt.NDArray[np.float32], y: npt.NDArray[Any], known: Sequence[int]
) -> float:
    """Share of samples [n, h, w, c] whose highest output among `known` is their class."""
    rows = np.array(list(known))
    with torch.no_grad():
        logits = network(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))))
    guesses = rows[logits[:, rows.tolist()].argmax(dim=1).numpy()]
    return float((guesses == y).mean())
