"""A learner's settings: the same fields, ranges and defaults as the device's."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Literal

from fieldloop.errors import UsageError
from fieldloop.runtime.core import core

Weights = Literal["int8", "int16", "f32"]
Optimizer = Literal["sgd", "momentum", "adam"]

SETTINGS = "see LearnerConfig for the settings and their ranges"


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerConfig:
    """How to learn; the same fields, ranges and defaults as `fl_learner_config_t`."""

    selector: Literal[
        "tinypropv2", "tinyprop", "dense", "topk", "random", "loss", "mask", "budget"
    ] = "tinypropv2"
    skip: Literal["auto", "on", "off"] = (
        "auto"  # TinyPropv2's metric; auto: as the selector has it
    )
    unit: Literal["element", "channel"] = "element"
    rank: Literal["error", "activation"] = "error"  # of channels
    search: Literal["auto", "heap", "histogram", "threshold"] = "auto"
    bias_mode: Literal["topk", "dense"] = "topk"
    k_rule: Literal["integer", "trunc_f32"] = "integer"
    deltas: Literal["f32", "int16"] = "f32"
    weights: Weights = "int8"  # what a trained weight is kept in
    optimizer: Optimizer = "sgd"
    layers: int = 0  # trainable layers from the output backwards; 0 = all of the image's
    floor: int = 1  # least entries (channels) kept of a layer
    batch: int = 1  # trained samples from one update to the next
    max_step: int = 32  # most steps of its int8 part that a weight moves at once
    s_min: float = 0.1  # bounds of the ratio of kept gradients
    s_max: float = 0.9
    zeta: float = 0.5  # damping of the ratio per layer away from the output
    d_min: float = 0.0  # bounds of TinyPropv2's decision metric
    d_max: float = 1.0
    d_thr: float = 0.05  # train iff the metric is above
    rho: float = 1.0  # forgetting of the running maxima; 1 = none
    lr: float = 1.0  # times the layer's own scale in the image
    beta1: float = 0.9  # decay of momentum, and of Adam's first moment
    beta2: float = 0.999  # of Adam's second
    replays: int = 4  # rehearsal samples trained after each new one
    memory: int = 0  # capacity of the rehearsal memory, in samples
    holdout: int = 0  # every n-th rehearsal sample of the image is only evaluated on
    seed: int = 0
    mask: tuple[float, ...] = ()  # of selector mask: share of channels, from the output backwards

    def fill(self, target: Any) -> None:
        """Writes the settings into an `fl_learner_config_t *`."""
        _, lib = core()
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "mask":
                _fill_mask(target, value)
                continue
            if field.name in _ENUMS:
                value = getattr(lib, f"{_ENUMS[field.name]}{str(value).upper()}", None)
                if value is None:
                    raise UsageError(
                        f"learner: {field.name}={getattr(self, field.name)!r} is unknown; "
                        f"{SETTINGS}"
                    )
            try:
                setattr(target, field.name, value)
            except (OverflowError, TypeError) as error:
                raise UsageError(
                    f"learner: {field.name} {value!r}: {error}; {SETTINGS}"
                ) from error


_ENUMS = {
    "selector": "FL_SELECT_",
    "skip": "FL_SKIP_",
    "unit": "FL_UNIT_",
    "rank": "FL_RANK_",
    "search": "FL_SEARCH_",
    "bias_mode": "FL_BIAS_",
    "k_rule": "FL_K_",
    "deltas": "FL_DELTAS_",
    "weights": "FL_WEIGHTS_",
    "optimizer": "FL_OPTIMIZER_",
}


def _fill_mask(target: Any, shares: Any) -> None:
    if not (
        isinstance(shares, tuple | list)
        and len(shares) <= len(target.mask)
        and all(isinstance(s, Real) and 0.0 <= s <= 1.0 for s in shares)
    ):
        raise UsageError(
            f"learner: mask: expected at most {len(target.mask)} shares of 0 to 1, got {shares}"
        )
    for i in range(len(target.mask)):
        target.mask[i] = int(shares[i] * 255 + 0.5) if i < len(shares) else 0


def check(c_config: Any) -> None:
    """UsageError with the core's own words where the settings cannot be."""
    ffi, lib = core()
    complaint = lib.fl_learner_complaint(c_config)
    if complaint != ffi.NULL:
        text = ffi.string(complaint).decode()
        raise UsageError(f"learner: {text}; {SETTINGS}")
