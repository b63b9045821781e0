"""The whole host side for digits: teacher, student, int8 image that is ready to learn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fieldloop.compiler import Compiled, compile_graph
from fieldloop.frontends.torch_frontend import from_torch
from fieldloop.runtime import Model
from fieldloop.train import distill
from fieldloop.zoo import digits

NAME = "digits"
TEACHER = distill.Schedule(epochs=20)
STUDENT = distill.Schedule(epochs=60, rate=8e-3)
REHEARSAL_PER_CLASS = 20
# The last convolution learns at the head's own rate: on seeds 100 and 101 that forgets no more
# than a rate of 1e-5 does, and the dense variant forgets less.
INNER_RATE = 1.0
EXAMPLE = (1, 1, digits.SIDE, digits.SIDE)  # as torch has pictures: n, c, h, w

Progress = Callable[[str, int, int], None]  # stage, done, in all


@dataclass(frozen=True, slots=True, eq=False)
class TrainedDigits:
    """A student that knows some digits, compiled, and how good it is on the test split.

    The teacher may only choose among the classes it knows; the student's int8 and float accuracies
    are over all ten outputs, as the device has them.
    """

    data: digits.Digits
    student: digits.Student
    compiled: Compiled
    teacher_accuracy: float
    student_float_accuracy: float
    student_int8_accuracy: float
    seconds: float


def train_digits(
    *,
    seed: int = 0,
    missing: Sequence[int] = (8, 9),
    flash_limit: int | None = None,
    ram_limit: int | None = None,
    progress: Progress | None = None,
) -> TrainedDigits:
    """Trains teacher and student on the digits not missing, and compiles the student."""
    started = time.monotonic()

    def stage(name: str) -> distill.Progress | None:
        if progress is None:
            return None
        report = progress
        return lambda done, total: report(name, done, total)

    data = digits.load(seed=seed, missing=missing)
    x, y = data.known_train()
    with distill.deterministic(seed):
        teacher = digits.Teacher()
        distill.train(teacher, x, y, known=data.known, schedule=TEACHER, progress=stage("teacher"))
        student = digits.Student()
        distill.train(
            student,
            x,
            y,
            known=data.known,
            schedule=STUDENT,
            teacher=teacher,
            progress=stage("student"),
        )
    distill.quiet_rows(student.head, data.known)
    compiled = compile_student(student, data, flash_limit=flash_limit, ram_limit=ram_limit)
    x_test, y_test = data.known_test()
    guesses = Model(compiled.image).classify(x_test)
    return TrainedDigits(
        data=data,
        student=student,
        compiled=compiled,
        teacher_accuracy=distill.accuracy(teacher, x_test, y_test, data.known),
        student_float_accuracy=distill.accuracy(student, x_test, y_test, range(digits.CLASSES)),
        student_int8_accuracy=float((guesses == y_test).mean()),
        seconds=time.monotonic() - started,
    )


def compile_student(
    student: digits.Student,
    data: digits.Digits,
    *,
    flash_limit: int | None = None,
    ram_limit: int | None = None,
) -> Compiled:
    """The student as an image: calibrated on what it was trained on, old samples inside."""
    return compile_graph(
        from_torch(student, torch.zeros(EXAMPLE)),
        data.known_train()[0],
        labels=digits.LABELS,
        learn=2,  # the last convolution and the head
        inner_rate=INNER_RATE,
        rehearsal=data.rehearsal(REHEARSAL_PER_CLASS),
        meta={
            "network": NAME,
            "seed": data.seed,
            "missing": list(data.missing),
            "input": "8x8 grey values, 0 to 1 (the data set's 0 to 16 divided by 16)",
        },
        flash_limit=flash_limit,
        ram_limit=ram_limit,
    )
