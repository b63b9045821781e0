"""How each network of the zoo is trained: its teacher, its schedule, its bends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from fieldloop.train import views
from fieldloop.train.distill import Distillation
from fieldloop.zoo import mlperf_tiny, sensors

_DISTILLATION = Distillation(temperature=3.0, soft=0.7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """AdamW on a one-cycle schedule, distilled from a wider network of the same kind, or not."""

    teacher: Callable[[], nn.Module] | None = None  # None: learn from the labels alone
    teacher_name: str = ""
    teacher_epochs: int = 0
    epochs: int
    bend: views.Bend
    views: int  # how many bent views of the training set a student sees in turn
    batch: int = 128
    rate: float = 1e-2  # the highest of the cycle
    teacher_rate: float = 5e-3
    decay: float = 1e-2
    smoothing: float = 0.05  # of labels where there is no teacher to soften them
    distillation: Distillation = _DISTILLATION
    bfloat16: bool = False  # large networks train in mixed precision; weights stay float32

    def in_words(self) -> str:
        taught = (
            f"teacher {self.teacher_name}, {self.teacher_epochs} epochs to "
            f"{self.teacher_rate:g}; temperature {self.distillation.temperature:g}, "
            f"soft {self.distillation.soft:g}"
            if self.teacher is not None
            else f"no teacher, labels smoothed by {self.smoothing:g}"
        )
        return (
            f"{self.epochs} epochs over {min(self.views, self.epochs)} views, batch {self.batch}, "
            f"AdamW to {self.rate:g}, decay {self.decay:g}; {taught}"
            + (", bfloat16" if self.bfloat16 else "")
        )


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "kws": Recipe(
            teacher=lambda: mlperf_tiny.DsCnn(width=128, dropout=0.2),
            teacher_name="DS-CNN of 128 channels",
            teacher_epochs=14,
            epochs=6,
            bend=views.words,
            views=6,
            bfloat16=True,
        ),
        "resnet8": Recipe(
            # At this budget a wider teacher costs more than the epochs it saves.
            epochs=9,
            bend=views.pictures,
            views=9,
            bfloat16=True,
        ),
        "har": Recipe(
            teacher=lambda: sensors.Activity(width=2, dropout=0.4),
            teacher_name="the same, twice as wide",
            teacher_epochs=25,
            epochs=50,
            bend=views.motions,
            views=25,
            batch=64,
            rate=5e-3,
        ),
        "bearing": Recipe(
            teacher=lambda: sensors.Bearing(width=2, dropout=0.4),
            teacher_name="the same, twice as wide",
            teacher_epochs=16,
            epochs=30,
            bend=views.vibrations,
            views=15,
            batch=64,
            rate=5e-3,
        ),
        "strokes": Recipe(
            teacher=lambda: sensors.Strokes(width=2, dropout=0.4),
            teacher_name="the same, twice as wide",
            teacher_epochs=60,
            epochs=120,
            bend=views.drawings,
            views=60,
            batch=32,
            rate=5e-3,
        ),
        "spells": Recipe(
            teacher=lambda: sensors.Spells(width=2, dropout=0.4),
            teacher_name="the same, twice as wide",
            teacher_epochs=100,
            epochs=200,
            bend=views.motions,
            views=100,
            batch=20,
            rate=5e-3,
        ),
    }
)
