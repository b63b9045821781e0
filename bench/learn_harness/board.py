"""Runs a stream of samples through the learner on a simulated board, and counts instructions."""

from __future__ import annotations

import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "host"))

from kernel_harness import board  # noqa: E402
from kernel_harness.board import MACHINES, Machine  # noqa: E402

from fieldloop.errors import FieldloopError  # noqa: E402
from fieldloop.runtime import Learner, LearnerConfig, Model  # noqa: E402
from fieldloop.runtime.core import core  # noqa: E402

DRIVER = Path(__file__).with_name("main.c")
# As micropython.mk has it.
LEVELS = {"base": "-Os", "core": "-Os", "kernels": "-O2", "learn": "-O2"}
MAGIC = 0x434C4C46
PARTS = ("forward", "select", "propagate", "gradient", "update")

__all__ = ["MACHINES", "PARTS", "Machine", "StepCount", "StreamCount", "learn"]


@dataclass(frozen=True, slots=True)
class StepCount:
    """Instructions of one sample, from the call to its return; `parts` as PARTS, or ()."""

    instructions: int
    trained: bool
    parts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StreamCount:
    """A whole stream; `stack`: bytes below the caller of a sample that is trained."""

    steps: tuple[StepCount, ...]
    stack: int

    @property
    def mean(self) -> float:
        return float(np.mean([step.instructions for step in self.steps]))

    @property
    def skipped(self) -> float:
        return 1.0 - float(np.mean([step.trained for step in self.steps]))


def learn(
    machine: Machine,
    image: bytes,
    config: LearnerConfig,
    xs: np.ndarray,
    ys: np.ndarray,
    *,
    parts: bool = False,
) -> StreamCount:
    """Learns samples xs int8 [n, bytes] of classes ys; the state must be the host's.

    `parts`: where the instructions go, at the cost of a few more for every call that is watched.
    """
    told = board.execute(machine, _program(machine, parts), _case(image, config, xs, ys))
    steps = []
    for line in told[:-1]:
        words = [int(word) for word in line.split()[1:]]
        steps.append(StepCount(words[0], bool(words[1]), tuple(words[2:])))
    crc, stack = int(told[-1].split()[1], 16), int(told[-1].split()[2])
    learner = Learner(Model(image), config)
    for x, y in zip(xs, ys, strict=True):
        learner.train(x, int(y))
    if zlib.crc32(learner.state) != crc:
        raise FieldloopError(f"{machine.name}: learned other bytes than the host")
    return StreamCount(tuple(steps), stack)


def _program(machine: Machine, parts: bool) -> Path:
    if not parts:
        return board.build(machine, LEVELS, driver=DRIVER)
    names = [
        line.split("(")[1].split(",")[1 if line.startswith("WRAP_VOID") else 2].strip()
        for line in DRIVER.read_text().splitlines()
        if line.startswith(("WRAP(", "WRAP_VOID("))
    ]
    options = ("-DPARTS", *(f"-Wl,--wrap={name}" for name in names))
    return board.build(machine, LEVELS, driver=DRIVER, options=options)


def _case(image: bytes, config: LearnerConfig, xs: np.ndarray, ys: np.ndarray) -> bytes:
    ffi, _ = core()
    filled = ffi.new("fl_learner_config_t *")
    config.fill(filled)
    pieces = [image, bytes(ffi.buffer(filled)), ys.astype(np.uint8).tobytes(), xs.tobytes()]
    offsets, at = [], 64
    for piece in pieces:
        offsets.append(at)
        at = (at + len(piece) + 63) & ~63
    case = bytearray(at)
    head = (MAGIC, offsets[0], len(image), *offsets[1:], len(xs), xs.shape[1], at)
    case[: 4 * len(head)] = np.array(head, "<u4").tobytes()
    for offset, piece in zip(offsets, pieces, strict=True):
        case[offset : offset + len(piece)] = piece
    return bytes(case)
