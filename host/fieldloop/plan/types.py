"""The plan is data: what the planner returns, the verifier checks and the image carries."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class PlanKind(enum.Enum):
    """What the arena is laid out for."""

    INFER = "infer"
    LEARN = "learn"  # what the backward pass reads keeps its place until the end of the run


@dataclass(frozen=True, slots=True)
class Buffer:
    """One piece of arena: bytes that are live from step `first` to step `last`, both included.

    Step 0 is the caller writing the inputs, step i + 1 is operator i, and the step after the last
    operator is the caller reading the outputs. `tensors` share the piece (reshapes of one value).
    """

    tensors: tuple[str, ...]
    bytes: int
    alignment: int
    first: int
    last: int

    def meets(self, other: Buffer) -> bool:
        """True when both are live at some step, so that they must not overlap."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class Plan:
    """Arena offset of every activation. `arena_bytes` is the highest end of any of them."""

    kind: PlanKind
    arena_bytes: int
    offsets: Mapping[str, int]
