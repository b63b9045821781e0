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


class StepKind(enum.IntEnum):
    """What a step of a tiled plan does; values as fl_plan_step_kind_t has them."""

    OP = 0  # the whole operator, between the places that the plan has for its tensors
    TILE = 1  # a box of its output
    COPY = 2  # `z` bytes from `x` to `y`; `op` is the operator that will read them
    LOOP = 3  # the `op` steps that follow, `rows` times; not nested


@dataclass(frozen=True, slots=True)
class More:
    """What is added to a step's fields before each further iteration of the loop around it."""

    row: int = 0
    channel: int = 0
    x_row: int = 0
    x_channel: int = 0
    x: int = 0
    y: int = 0
    z: int = 0


NO_MORE = More()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a tiled plan, as fl_plan_step_t has it: boxes of maps (maps.py) in the arena.

    `op`: index in the graph's order. `x`, `y`, `z`: arena offsets in bytes; `*_step`: elements
    from a pixel to the next. `map_hw`: the map that a fully connected layer's input is seen as.
    """

    kind: StepKind
    op: int
    row: int = 0
    rows: int = 0
    channel: int = 0
    channels: int = 0
    x_row: int = 0
    x_rows: int = 0
    x_channel: int = 0
    x_channels: int = 0
    x: int = 0
    y: int = 0
    z: int = 0
    x_step: int = 0
    y_step: int = 0
    z_step: int = 0
    map_hw: tuple[int, int] = (0, 0)
    partial: bool = False
    first: bool = False
    last: bool = False
    turned: bool = False
    more: More = NO_MORE


@dataclass(frozen=True, slots=True)
class Plan:
    """Arena offset of every activation. `arena_bytes` is the highest end of anything in it.

    `steps`: of a tiled plan, in place of the operators one after the other; then `offsets` has no
    entry for activations that tiles never hold whole. `learner_scratch`: offset and bytes of the
    part of the arena that the learner may use once the forward pass is over.
    """

    kind: PlanKind
    arena_bytes: int
    offsets: Mapping[str, int]
    steps: tuple[Step, ...] = ()
    learner_scratch: tuple[int, int] = (0, 0)
