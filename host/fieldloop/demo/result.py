"""What the demo measured: one flat JSON object with stable keys, and the checks it must pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SCHEMA = "fieldloop.demo/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """Accuracies are shares of the test split, memory is bytes. The names are the JSON's keys.

    new_class: the classes learned in the field; old_class: those known before. The plain keys are
    the device's own run; dense_, head_only_ and naive_ are the host runtime's over the same
    samples, naive_ with as many updates but no old sample, naive_once_ with each sample once.
    """

    schema: str = SCHEMA
    board: str
    board_title: str
    memory_map: str | None
    seed: int
    missing: list[int]
    versions: dict[str, str]

    teacher_accuracy: float
    student_float_accuracy: float
    student_int8_accuracy: float

    model_bytes: int
    model_macs: int
    firmware_rom_bytes: int
    firmware_ram_bytes: int

    device_bit_exact: bool
    device_samples_checked: int
    device_learned_bit_exact: bool  # the same samples again, after learning
    ram_planned_bytes: int
    ram_watermark_bytes: int
    ram_learn_planned_bytes: int
    ram_learn_watermark_bytes: int

    stream_samples: int
    samples_trained: int  # new ones and replayed ones that had a backward pass
    samples_skipped: int
    new_class_accuracy_before: float
    new_class_accuracy_after: float
    old_class_accuracy_before: float
    old_class_accuracy_after: float
    backward_mac_share: float
    total_mac_share: float

    dense_new_class_accuracy_after: float
    dense_old_class_accuracy_after: float
    head_only_new_class_accuracy_after: float
    head_only_old_class_accuracy_after: float
    head_only_backward_mac_share: float  # of dense training of the head alone
    head_only_total_mac_share: float
    naive_new_class_accuracy_after: float
    naive_old_class_accuracy_after: float
    naive_once_new_class_accuracy_after: float
    naive_once_old_class_accuracy_after: float

    state_bytes: int
    state_survived_power_cut: bool
    state_equals_host: bool  # what was pulled home, byte for byte
    instructions_predict: int | None  # None: the board cannot count
    instructions_step: int | None
    instructions_repeat: bool | None

    stage_seconds: dict[str, float]
    seconds: float


@dataclass(frozen=True, slots=True)
class SeedResult:
    """Training and learning by the host runtime, from one seed."""

    seed: int
    student_int8_accuracy: float
    new_class_accuracy_after: float
    old_class_accuracy_drop: float
    naive_old_class_accuracy_drop: float
    dense_new_class_accuracy_after: float
    dense_old_class_accuracy_drop: float
    backward_mac_share: float


@dataclass(frozen=True, slots=True)
class Check:
    """Something the demo must show."""

    name: str
    expected: str
    got: str
    ok: bool


def checks(result: DemoResult, seeds: Sequence[SeedResult] = ()) -> tuple[Check, ...]:
    """All that must hold of a result, and of the means over several seeds."""
    r = result
    old_drop = r.old_class_accuracy_before - r.old_class_accuracy_after
    naive_drop = r.old_class_accuracy_before - r.naive_old_class_accuracy_after
    int8_loss = abs(r.student_int8_accuracy - r.student_float_accuracy)
    dense_gap = abs(r.dense_new_class_accuracy_after - r.new_class_accuracy_after)
    found = [
        _at_least("teacher_accuracy", r.teacher_accuracy, 0.97),
        _at_most("int8 accuracy lost", int8_loss, 0.01),
        _is_true("device_bit_exact", r.device_bit_exact),
        _at_least("device_samples_checked", r.device_samples_checked, 300),
        _is_true("device_learned_bit_exact", r.device_learned_bit_exact),
        _equal("RAM of inference, planned = touched", r.ram_planned_bytes, r.ram_watermark_bytes),
        _equal(
            "RAM of learning, planned = touched",
            r.ram_learn_planned_bytes,
            r.ram_learn_watermark_bytes,
        ),
        _at_most("new_class_accuracy_before", r.new_class_accuracy_before, 0.05),
        _at_least("new_class_accuracy_after", r.new_class_accuracy_after, 0.90),
        _at_most("old class accuracy lost", old_drop, 0.045),
        _at_least("old class accuracy lost without rehearsal", naive_drop, 0.10),
        _at_most("dense training differs by", dense_gap, 0.03),
        _at_most("backward_mac_share", r.backward_mac_share, 0.10),
        _is_true("state_survived_power_cut", r.state_survived_power_cut),
        _is_true("state_equals_host", r.state_equals_host),
    ]
    if r.instructions_repeat is not None:
        found.append(_is_true("instructions_repeat", r.instructions_repeat))
    if len(seeds) > 1:
        new = np.mean([seed.new_class_accuracy_after for seed in seeds])
        drop = np.mean([seed.old_class_accuracy_drop for seed in seeds])
        found += [
            _at_least(f"new class accuracy, mean of {len(seeds)} seeds", float(new), 0.92),
            _at_most(f"old class accuracy lost, mean of {len(seeds)} seeds", float(drop), 0.03),
        ]
    return tuple(found)


def as_json(result: DemoResult, seeds: Sequence[SeedResult] = ()) -> dict[str, Any]:
    """The object that `fieldloop demo --json` prints; `ok` tells whether all checks hold."""
    found = checks(result, seeds)
    content = dataclasses.asdict(result)
    if len(seeds) > 1:
        content["seeds"] = [dataclasses.asdict(seed) for seed in seeds]
        for field in dataclasses.fields(SeedResult):
            if field.name != "seed":
                values = [getattr(seed, field.name) for seed in seeds]
                content[f"mean_{field.name}"] = float(np.mean(values))
                content[f"deviation_{field.name}"] = float(np.std(values, ddof=1))
    content["checks"] = [dataclasses.asdict(check) for check in found]
    content["ok"] = all(check.ok for check in found)
    return content


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _at_least(name: str, value: float, limit: float) -> Check:
    return Check(name, f">= {_number(limit)}", _number(value), value >= limit)


# Shares are quotients of small integers: a difference of two of them may miss its limit by a bit.
_ROUNDING = 1e-12


def _at_most(name: str, value: float, limit: float) -> Check:
    return Check(name, f"<= {_number(limit)}", _number(value), value <= limit + _ROUNDING)


def _equal(name: str, planned: int, touched: int) -> Check:
    return Check(name, f"= {planned}", str(touched), planned == touched)


def _is_true(name: str, value: bool) -> Check:
    return Check(name, "true", str(value).lower(), value)
