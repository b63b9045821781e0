"""What the kernels of the backward pass cost on a simulated board, one by one."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "host"))

from kernel_harness import board  # noqa: E402

DRIVER = Path(__file__).with_name("kernels.c")
LEVELS = {"base": "-Os", "learn": "-O2"}  # as micropython.mk has it


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel on one case. `macs`: multiply-accumulates, of a step weights."""

    macs: int
    instructions: int
    crc: str


def count(machine: board.Machine) -> dict[str, Case]:
    """By the case's name and what of it: input (dX), row (dW), step (update)."""
    return parsed(board.execute(machine, board.build(machine, LEVELS, driver=DRIVER), b""))


def parsed(lines: list[str]) -> dict[str, Case]:
    """What kernels.c prints before its end."""
    cells = [line.split("|") for line in lines]
    return {f"{a} {b}": Case(int(macs), int(spent), crc) for a, b, macs, spent, crc in cells}
