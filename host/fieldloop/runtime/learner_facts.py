"""What a learner tells: its bytes, its counters, and what became of a sample."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class LearnerSizes:
    """Bytes of a learner, known before it exists."""

    total_bytes: int  # its own block: the state, then what of the scratch the model does not lend
    state_bytes: int  # what a commit writes
    weight_bytes: int  # of the state: with second bytes and master copies
    optimizer_bytes: int  # of the state: momentum, Adam's moments
    memory_bytes: int  # of the state
    scratch_bytes: int  # wherever it lies
    lent_bytes: int  # of the scratch: in the model's arena, which counts it
    batch_bytes: int  # what a batch gathers; 0 where batch is 1


@dataclass(frozen=True, slots=True)
class LearnerPlan:
    """RAM of a model that learns: the model's arena and the learner's block, and what is in it."""

    arena: int
    state: int
    weights: int  # of the state
    optimizer: int  # of the state
    memory: int  # of the state
    scratch: int
    lent: int  # of the scratch: in the arena
    batch: int
    total: int  # arena and block


@dataclass(frozen=True, slots=True)
class LearnerStats:
    """Counters since the start or the last reset; part of the state."""

    forward_macs: int
    backward_macs: int  # executed
    dense_backward_macs: int  # what dense training of the same layers would have executed
    samples: int
    replayed: int
    trained: int
    skipped: int
    refused: int
    remembered: int  # samples in the rehearsal memory
    clamped: int  # samples with values beyond the input's range
    updates: int  # times that weights were written
    clipped: int  # weights that moved less than a step asked for


@dataclass(frozen=True, slots=True)
class LayerStats:
    """Of one trained layer, since the same moment."""

    op: int  # operator of the model
    entries: int  # of its deltas, over all trained samples
    kept: int  # of them
    clipped: int  # weights that moved less than a step asked for
    saturated: int  # weights that lie at the end of int8 now
    weights: int

    @property
    def ratio(self) -> float:
        """Share of the entries that was kept."""
        return self.kept / max(self.entries, 1)


@dataclass(frozen=True, slots=True)
class Step:
    """What happened to one new sample. Of one with a value that is not finite: an error of NaN."""

    error: float  # 2 (1 - p of its label), before the update
    predicted: int  # before the update; -1: it was never run
    trained: bool
    kept: int  # gradients kept, over all layers


@dataclass(frozen=True, slots=True)
class Fit:
    """What became of a fit. `evaluations`: right ones of `held_out` samples, in order of time."""

    evaluations: tuple[int, ...]
    held_out: int
    best: int  # number of the evaluation whose weights were kept
    stopped: bool  # before the last epoch, because nothing got better


def copy_fields(kind: type, struct: Any) -> Any:
    """A `kind` with the values that the C struct has under the same names."""
    return kind(**{field.name: getattr(struct, field.name) for field in fields(kind)})
