"""Field learning by the host runtime: the device's own arithmetic over the stream of a device.

The test split is looked at twice: before the first sample and after the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from fieldloop.runtime import Learner, LearnerConfig, LearnerStats, Model

if TYPE_CHECKING:
    from fieldloop.zoo.digits import Digits  # torch is not needed to learn in the field

PASSES = 2

# What the demo learns with; chosen on the seeds 100 to 109, by their own test splits. Seeds 0 and
# 1 (missing 8 and 9) were also seen once under an earlier setting, by which seed 1 missed the
# limit of a single run (.0507); all others were first looked at with these settings.
# The papers never forget the largest error (rho = 1). Forgetting it slowly keeps samples from
# being skipped for the sake of one early outlier, and brings the old classes' loss down to dense
# training's.
CONFIG = LearnerConfig(
    selector="tinypropv2",
    s_min=0.2,
    s_max=0.9,
    zeta=0.5,
    d_thr=0.05,
    rho=0.995,
    lr=2.0,
    replays=4,
    memory=40,
)
_NAIVE = replace(CONFIG, selector="dense", replays=0, memory=0)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to learn the same samples."""

    title: str
    config: LearnerConfig
    passes: int = PASSES


VARIANTS = MappingProxyType(
    {
        "v2": Variant("TinyPropv2, last convolution and head", CONFIG),
        "dense": Variant("dense, same layers", replace(CONFIG, selector="dense")),
        "head_only": Variant("TinyPropv2, head only", replace(CONFIG, layers=1)),
        "naive": Variant(
            "no rehearsal: dense, as many updates, all of them on new samples",
            _NAIVE,
            passes=PASSES * (1 + CONFIG.replays),
        ),
        "naive_once": Variant("no rehearsal: dense, each new sample seen once", _NAIVE, passes=1),
    }
)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of right answers on the test split, over all outputs."""

    new: float  # classes learned in the field
    old: float  # classes known before


@dataclass(frozen=True, slots=True, eq=False)
class FieldResult:
    """What learning a stream did. `hits`: right before it was learned, for each new sample."""

    variant: str
    before: Accuracy
    after: Accuracy
    stats: LearnerStats
    state: bytes
    hits: tuple[bool, ...]

    @property
    def old_drop(self) -> float:
        return self.before.old - self.after.old

    @property
    def backward_mac_share(self) -> float:
        """Executed multiply-accumulates of the backward pass, as a share of dense training's."""
        return self.stats.backward_macs / max(self.stats.dense_backward_macs, 1)

    @property
    def total_mac_share(self) -> float:
        """The same with the forward pass, which is always paid."""
        forward = self.stats.forward_macs
        return (forward + self.stats.backward_macs) / (forward + self.stats.dense_backward_macs)


def measure(predicted: Sequence[int] | np.ndarray, data: Digits) -> Accuracy:
    """Accuracies of predicted classes for the whole test split, in its order."""
    right = np.asarray(predicted) == data.y_test
    new = np.isin(data.y_test, data.missing)
    return Accuracy(new=float(right[new].mean()), old=float(right[~new].mean()))


def learn(image: bytes, data: Digits, variant: str, *, seed: int) -> FieldResult:
    """Learns the missing classes of `data` from a stream, with one of VARIANTS."""
    return run_variant(image, data, variant, VARIANTS[variant], seed=seed)


def run_variant(
    image: bytes, data: Digits, name: str, variant: Variant, *, seed: int
) -> FieldResult:
    """The same, with any configuration; `seed` orders the stream and rounds."""
    model = Model(image)
    before = measure(model.classify(data.x_test), data)
    xs, ys = data.stream(variant.passes, seed)
    learner = Learner(model, replace(variant.config, seed=seed))
    steps = learner.run(model.as_inputs(xs), ys.tolist())  # the bytes that a board is sent
    return FieldResult(
        variant=name,
        before=before,
        after=measure(model.classify(data.x_test), data),
        stats=learner.stats,
        state=learner.state,
        hits=tuple(step.predicted == label for step, label in zip(steps, ys, strict=True)),
    )
