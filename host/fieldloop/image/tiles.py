"""Section TILE: the steps of a tiled plan as bytes, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.errors import UsageError
from fieldloop.image import format as f
from fieldloop.plan.types import More, Step, StepKind

_FLAGS = {
    "partial": f.StepFlag.PARTIAL,
    "first": f.StepFlag.FIRST,
    "last": f.StepFlag.LAST,
    "turned": f.StepFlag.TURNED,
}
# Fields that carry one name on both sides; `more` has its own, with _more behind each.
_BOX = ("row", "rows", "channel", "channels", "x_row", "x_rows", "x_channel", "x_channels")
_PLACES = ("x", "y", "z", "x_step", "y_step", "z_step")
_FIELDS = ("op", *_BOX, *_PLACES)
_MORE = ("row", "channel", "x_row", "x_channel", "x", "y", "z")


def tiles_bytes(kind: f.ImagePlanKind, steps: Sequence[Step], names: Sequence[str]) -> bytes:
    """Section TILE of a plan. `names`: the operators', for what does not fit a field."""
    if len(steps) > f.STEPS_MAX:
        raise UsageError(
            f"image: expected at most {f.STEPS_MAX} steps in a tiled plan, got {len(steps)}; "
            "tile with fewer parts"
        )
    columns: dict[str, list[int]] = {
        name: [int(getattr(s, name)) for s in steps] for name in ("kind", *_FIELDS)
    }
    columns["flags"] = [_flags(step) for step in steps]
    columns["map_h"] = [step.map_hw[0] for step in steps]
    columns["map_w"] = [step.map_hw[1] for step in steps]
    for name in _MORE:
        columns[f"{name}_more"] = [getattr(step.more, name) for step in steps]
    rows = np.zeros(len(steps), f.PLAN_STEP)
    for name, values in columns.items():
        limits = np.iinfo(f.PLAN_STEP[name])
        for i, value in enumerate(values):
            if not limits.min <= value <= limits.max:
                raise UsageError(
                    f"image: step {i} ({_who(steps[i], names)}): {name} = {value} does not fit "
                    f"its field ({limits.min}..{limits.max})"
                )
        rows[name] = values
    head = np.zeros((), f.TILES)
    head["kind"], head["count"] = kind, len(steps)
    return head.tobytes() + rows.tobytes()


def _flags(step: Step) -> int:
    return sum(flag for name, flag in _FLAGS.items() if getattr(step, name))


def _who(step: Step, names: Sequence[str]) -> str:
    if step.kind is StepKind.LOOP or not 0 <= step.op < len(names):
        return step.kind.name.lower()
    return f"{step.kind.name.lower()} of operator {names[step.op]}"


def steps_of(rows: npt.NDArray[Any]) -> tuple[Step, ...]:
    """Records as steps; their kinds and flags are known ones."""
    columns = {name: rows[name].tolist() for name in f.PLAN_STEP.names or ()}
    steps = []
    for i in range(len(rows)):
        at = {name: int(values[i]) for name, values in columns.items()}
        fields: dict[str, Any] = {name: at[name] for name in _FIELDS}
        fields |= {name: bool(at["flags"] & flag) for name, flag in _FLAGS.items()}
        fields["map_hw"] = (at["map_h"], at["map_w"])
        fields["more"] = More(**{name: at[f"{name}_more"] for name in _MORE})
        steps.append(Step(StepKind(at["kind"]), **fields))
    return tuple(steps)


def fault_of(steps: Sequence[Step], op_count: int, arena_bytes: int) -> str | None:
    """What is wrong with the steps of a plan: operators, loops, and where pieces begin, in each
    iteration. The boxes' arithmetic is proven by the C core.
    """
    body, times = 0, 1  # steps left in the loop around, and its iterations
    for i, step in enumerate(steps):
        if step.kind is StepKind.LOOP:
            if body:
                return f"step {i} is a loop in a loop"
            body, times = step.op, step.rows
            if not 1 <= body < len(steps) - i or times < 1:
                return f"step {i} repeats {body} steps {times} times, {len(steps) - i - 1} follow"
            continue
        if step.op >= op_count:
            return f"step {i} names operator {step.op} of {op_count}"
        if step.kind is not StepKind.OP:
            fault = _place_fault(step, times, arena_bytes)
            if fault is not None:
                return f"step {i} {fault}"
        body = max(body - 1, 0)
        times = times if body else 1
    return None


def _place_fault(step: Step, times: int, arena_bytes: int) -> str | None:
    copies = step.kind is StepKind.COPY
    size = step.z if copies else 1
    for turn in (0, times - 1):
        for name in ("x", "y"):
            start = getattr(step, name) + turn * getattr(step.more, name)
            if not 0 <= start <= start + size <= arena_bytes:
                return (
                    f"has {name} at {start}, {size} bytes or more; the arena ends at {arena_bytes}"
                )
        for name in ("row", "channel", "x_row", "x_channel"):
            value = getattr(step, name) + turn * getattr(step.more, name)
            if not 0 <= value <= 0xFFFF:
                return f"has {name} {value}"
    if not copies and min(step.rows, step.channels) < 1:
        return f"computes {step.rows} rows of {step.channels} channels"
    return None
