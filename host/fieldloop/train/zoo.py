"""Trains a network of the zoo: a teacher once, then a student of any seed, by distillation.

The teacher belongs to the recipe: every seed's student has the same one. Its weights and what it
thinks of each view of the training set are kept in a folder, so that it is trained once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldloop.errors import UsageError
from fieldloop.train.distill import deterministic, soft_loss
from fieldloop.train.recipes import RECIPES, Recipe
from fieldloop.train.views import view
from fieldloop.zoo import registry
from fieldloop.zoo.data import Dataset

Progress = Callable[[str, int, int], None]  # stage, epochs done, epochs in all

_TEACHER_SEED = 1000
# A teacher is trained on views of its own: what it thinks of the students' is not rehearsed.
_TEACHER_VIEWS = 10_000
_ASK = 512  # samples that a teacher is asked about at once


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """A teacher, and its opinions [views, n, classes] of the training set's views."""

    network: nn.Module
    opinions: Tensor


def recipe_of(name: str, *, epochs: int | None = None) -> Recipe:
    """The recipe of a network; `epochs` shortens (or lengthens) student and teacher alike."""
    what = registry.entry(name)
    if name not in RECIPES:
        raise UsageError(f"{name}: there is no data to train it on ({what.title})")
    recipe = RECIPES[name]
    if epochs is None:
        return recipe
    if epochs < 1:
        raise UsageError(f"epochs: expected at least 1, got {epochs}")
    teacher_epochs = max(1, round(recipe.teacher_epochs * epochs / recipe.epochs))  # if any
    views = min(recipe.views, epochs)
    return replace(recipe, epochs=epochs, teacher_epochs=teacher_epochs, views=views)


def train_student(
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A trained student in eval mode. `cache`: the folder that keeps the teacher."""
    taught = teach(data, recipe, cache=cache, progress=progress)
    with deterministic(seed):
        student = registry.entry(data.name).build()
        _train(
            student,
            data,
            recipe,
            epochs=recipe.epochs,
            rate=recipe.rate,
            opinions=None if taught is None else taught.opinions,
            progress=_stage(progress, "student"),
        )
    return student


def teach(
    data: Dataset, recipe: Recipe, *, cache: Path | None = None, progress: Progress | None = None
) -> Taught | None:
    """The recipe's teacher, if it has one; from the cache where it is there already."""
    if recipe.teacher is None:
        return None
    kept = None if cache is None else cache / f"{data.name}-teacher-{_key(data, recipe)}.npz"
    with deterministic(_TEACHER_SEED):
        teacher = recipe.teacher().eval()
        if kept is not None and kept.is_file():
            return _from_cache(kept, teacher)
        _train(
            teacher,
            data,
            recipe,
            epochs=recipe.teacher_epochs,
            rate=recipe.teacher_rate,
            opinions=None,
            first=_TEACHER_VIEWS,
            progress=_stage(progress, "teacher"),
        )
        ask = _stage(progress, "teacher's opinions")
        opinions = []
        x = torch.from_numpy(data.x_train)
        for number in range(recipe.views):
            opinions.append(_answers(teacher, view(x, recipe.bend, number), recipe))
            ask(number + 1, recipe.views)
    taught = Taught(teacher, torch.stack(opinions))
    if kept is not None:
        _to_cache(kept, taught)
    return taught


def accuracy(network: nn.Module, x: npt.NDArray[np.float32], y: npt.NDArray[Any]) -> float:
    """Share of samples [n, ...] whose highest output, in float32, is their class."""
    with torch.no_grad():
        guesses = [network(part).argmax(dim=1) for part in torch.from_numpy(x).split(_ASK)]
    return float((torch.cat(guesses).numpy() == y).mean())


def _stage(progress: Progress | None, name: str) -> Callable[[int, int], None]:
    if progress is None:
        return lambda done, total: None
    report = progress
    return lambda done, total: report(name, done, total)


def _train(
    network: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    epochs: int,
    rate: float,
    opinions: Tensor | None,  # [views, n, classes]; None: learn from the labels alone
    first: int = 0,  # number of the first view
    progress: Callable[[int, int], None],
) -> None:
    """Trains in place; leaves the network in eval mode."""
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    if x.ndim == 4:
        network.to(memory_format=torch.channels_last)
    steps = max(1, len(x) // recipe.batch)  # what is left over waits for the next shuffle
    optimizer = torch.optim.AdamW(_decayed(network.named_parameters(), recipe.decay), lr=rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=epochs * steps, pct_start=0.25
    )
    network.train()
    for epoch in range(epochs):
        number = epoch if first == _TEACHER_VIEWS else epoch % recipe.views
        seen = view(x, recipe.bend, first + number)
        for chosen in torch.randperm(len(x)).split(recipe.batch)[:steps]:
            batch = _fast(seen[chosen])
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                logits = network(batch)
            loss = _loss(logits.float(), y[chosen], opinions, number, chosen, recipe)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
        progress(epoch + 1, epochs)
    network.eval()
    network.to(memory_format=torch.contiguous_format)


def _decayed(
    parameters: Iterable[tuple[str, nn.Parameter]], decay: float
) -> Sequence[dict[str, Any]]:
    """Weights decay; biases and batch norms, which have one dimension, do not."""
    matrices, vectors = [], []
    for _, parameter in parameters:
        (matrices if parameter.ndim > 1 else vectors).append(parameter)
    return [
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def _loss(
    logits: Tensor,
    classes: Tensor,
    opinions: Tensor | None,
    number: int,
    chosen: Tensor,
    recipe: Recipe,
) -> Tensor:
    if opinions is None:
        return functional.cross_entropy(logits, classes, label_smoothing=recipe.smoothing)
    soft = recipe.distillation.soft
    hard_loss = functional.cross_entropy(logits, classes)
    opinion = opinions[number, chosen]
    return (1.0 - soft) * hard_loss + soft * soft_loss(
        logits, opinion, recipe.distillation.temperature
    )


def _answers(network: nn.Module, x: Tensor, recipe: Recipe) -> Tensor:
    """Logits [n, classes], in the precision that the recipe trains in."""
    if x.ndim == 4:
        network.to(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
        answers = torch.cat([network(_fast(part)).float() for part in x.split(_ASK)])
    network.to(memory_format=torch.contiguous_format)
    return answers


def _fast(batch: Tensor) -> Tensor:
    """Pictures in the order of memory that a CPU is fastest with; the values are the same."""
    return batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch


def _key(data: Dataset, recipe: Recipe) -> str:
    """Another recipe or another training set is another teacher."""
    facts = (
        recipe.teacher_name,
        recipe.teacher_epochs,
        recipe.teacher_rate,
        recipe.batch,
        recipe.decay,
        recipe.smoothing,
        recipe.bfloat16,
        recipe.bend.__name__,
        recipe.views,
    )
    digest = hashlib.sha256(repr(facts).encode())
    digest.update(np.ascontiguousarray(data.y_train).tobytes())
    digest.update(np.ascontiguousarray(data.x_train[:: math.ceil(len(data.x_train) / 64)]))
    return digest.hexdigest()[:12]


def _to_cache(path: Path, taught: Taught) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"network.{k}": v.numpy() for k, v in taught.network.state_dict().items()}
    part = path.with_suffix(".part.npz")
    np.savez(part, opinions=taught.opinions.numpy(), **state)
    part.replace(path)  # whole or not at all


def _from_cache(path: Path, teacher: nn.Module) -> Taught:
    try:
        with np.load(path, allow_pickle=False) as file:
            teacher.load_state_dict(
                {
                    k.removeprefix("network."): torch.from_numpy(file[k])
                    for k in file.files
                    if k != "opinions"
                }
            )
            return Taught(teacher, torch.from_numpy(file["opinions"]))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(
            f"teacher: {path} cannot be read ({error}); delete it, it is trained again"
        ) from error
