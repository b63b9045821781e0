"""The demo, stage by stage: train, compile, boot, push, check, learn, cut the power, pull home."""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

import fieldloop
from fieldloop.demo.result import DemoResult, SeedResult
from fieldloop.errors import FieldloopError, UsageError
from fieldloop.link import Board
from fieldloop.runtime import Learner, LearnerConfig, Model, learner_sizes
from fieldloop.runtime.model import PATTERNS, Int8
from fieldloop.targets import roster
from fieldloop.targets.missing import need_tools
from fieldloop.targets.serving import Device, serving
from fieldloop.train import field
from fieldloop.train.digits import TrainedDigits, train_digits
from fieldloop.zoo.digits import check_missing

SLOT = "model0"
_AT_ONCE = 32  # samples in one call while the board learns, for the sake of progress


class Reporter(Protocol):
    """Where progress goes."""

    def stage(self, title: str) -> None:
        """A stage begins."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line, within a stage."""
        ...

    def progress(self, done: int, total: int) -> None:
        """How far the stage is."""
        ...


def boards() -> tuple[str, ...]:
    """The targets that the demo runs on: simulated, and what they learn outlives a power cut."""
    return tuple(name for name, spec in roster.load().items() if spec.remembers)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    board: str = "qemu-an386"
    memory: str | None = None  # full or realistic; None: the board's own default
    seed: int = 0
    missing: tuple[int, ...] = (8, 9)
    seeds: int = 1  # training and learning repeated from so many seeds by the host runtime


@dataclass(frozen=True, slots=True, eq=False)
class Demo:
    """The measured result, and what the report draws it from."""

    result: DemoResult
    seeds: tuple[SeedResult, ...]
    trained: TrainedDigits
    fields: dict[str, field.FieldResult]
    before: Int8  # the device's outputs for the test split, before and after learning
    after: Int8


@dataclass(frozen=True, slots=True, eq=False)
class _OnDevice:
    """What was seen on the board."""

    before: Int8
    after: Int8
    bit_exact: bool
    learned_bit_exact: bool
    ram: tuple[int, int]  # touched by inference, by learning
    kernels: str  # plain, dsp or mve: part of what the RAM depends on
    state: bytes
    survived: bool
    predict_counts: tuple[int | None, ...]
    step_counts: tuple[int | None, ...]
    firmware: tuple[int, int]  # ROM, RAM


class _Clock:
    """Tells the reporter of stages, and how long each took."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._start = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, key: str, title: str) -> Iterator[None]:
        self._reporter.stage(title)
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[key] = round(time.monotonic() - start, 3)

    @property
    def total(self) -> float:
        return round(time.monotonic() - self._start, 3)


def run_demo(options: DemoOptions, reporter: Reporter) -> Demo:
    """Runs all of it. What does not hold is in `result.checks()`; an exception is a fault."""
    check_missing(options.missing)
    if options.seeds < 1:
        raise UsageError(f"seeds: expected 1 or more, got {options.seeds}")
    spec = roster.lookup(options.board)
    if options.board not in boards():
        raise UsageError(
            f"{options.board}: the demo cuts the power and looks what is left, so it wants a "
            f"simulated board that remembers, one of {', '.join(boards())}; for another one see "
            "fieldloop push"
        )
    if options.memory is not None and not spec.maps:
        raise UsageError(f"{options.board} has no memory maps; leave --map out")
    need_tools(options.board)
    clock = _Clock(reporter)
    with clock.stage("train", "train a teacher, distil a student"):
        trained = _train(options.seed, options.missing, reporter)
        reporter.note(
            f"teacher {trained.teacher_accuracy:.4f}, student {trained.student_float_accuracy:.4f}"
            f", as int8 {trained.student_int8_accuracy:.4f} on {len(trained.data.known)} digits"
        )
    image = trained.compiled.image
    with clock.stage(
        "host_learning", f"learn the stream on the host, in {len(field.VARIANTS)} ways"
    ):
        fields = {}
        for done, name in enumerate(field.VARIANTS, start=1):
            fields[name] = field.learn(image, trained.data, name, seed=options.seed)
            reporter.progress(done, len(field.VARIANTS))
    config = replace(field.CONFIG, seed=options.seed)
    with tempfile.TemporaryDirectory(prefix="fieldloop-demo-") as folder:
        seen = _on_device(options, spec, trained, config, Path(folder), clock, reporter)
    seeds = _repeat(options, trained, fields, clock, reporter) if options.seeds > 1 else ()
    result = _result(options, spec, trained, fields, seen, config, clock)
    return Demo(result, seeds, trained, fields, seen.before, seen.after)


def _train(seed: int, missing: Sequence[int], reporter: Reporter) -> TrainedDigits:
    def progress(name: str, done: int, total: int) -> None:
        # Two networks of about the same effort: one bar for both.
        reporter.progress(done + (total if name == "student" else 0), 2 * total)

    return train_digits(seed=seed, missing=missing, progress=progress)


# ---- on the board


def _on_device(
    options: DemoOptions,
    spec: roster.TargetSpec,
    trained: TrainedDigits,
    config: LearnerConfig,
    folder: Path,
    clock: _Clock,
    reporter: Reporter,
) -> _OnDevice:
    image, data = trained.compiled.image, trained.data
    host = Model(image)
    x_test = host.as_inputs(data.x_test)
    xs, ys = data.stream(field.PASSES, options.seed)
    stream = host.as_inputs(xs)
    flash, fresh = folder / "flash", folder / "fresh"
    with ExitStack() as powered:
        with clock.stage("boot", f"build and boot {spec.title}"):
            device = powered.enter_context(
                serving(
                    options.board,
                    memory=options.memory,
                    flash_file=flash,
                    progress=reporter.note,
                )
            )
        board = device.board
        with clock.stage("push", f"push the model, {len(image)} bytes"):
            board.push(image, to=SLOT, progress=reporter.progress)
            board.activate(image, slot=SLOT)
        if spec.machine:
            shutil.copyfile(flash, fresh)
        with clock.stage("check", f"check {len(x_test)} test samples against the host"):
            before = board.predict(x_test, progress=reporter.progress).reshape(len(x_test), -1)
            bit_exact = bool((before == host.predict_int8(x_test)).all())
        with clock.stage("watermark", "measure the RAM that is touched"):
            ram = _watermarks(board, x_test, stream, ys, config)
            kernels = board.info().kernels
        with clock.stage("learn", f"learn {len(stream)} samples of {_digits(data.missing)}"):
            board.learner_open(asdict(config))
            for at in range(0, len(stream), _AT_ONCE):
                board.step(stream[at : at + _AT_ONCE], ys[at : at + _AT_ONCE])
                reporter.progress(min(at + _AT_ONCE, len(stream)), len(stream))
            after = board.predict(x_test).reshape(len(x_test), -1)
            board.commit()
        with clock.stage("power_cut", "cut the power, boot, look what is left, pull it home"):
            survived, state = _cut_and_look(device, x_test, after)
        firmware = device.target.firmware

    learner = Learner(host, config)
    learner.run(stream, ys.tolist())
    learned_bit_exact = bool((after == host.predict_int8(x_test)).all())
    predict_counts: tuple[int | None, ...] = ()
    step_counts: tuple[int | None, ...] = ()
    if spec.machine:  # QEMU counts, what runs on this machine does not
        with clock.stage("count", "count instructions, in two boots"):
            counted = []
            for run in range(2):
                copy = folder / f"count{run}"
                shutil.copyfile(fresh, copy)
                counted.append(_count(options, copy, x_test[0], stream[0], int(ys[0]), config))
            predict_counts, step_counts = zip(*counted, strict=True)
    return _OnDevice(
        before=before,
        after=after,
        bit_exact=bit_exact,
        learned_bit_exact=learned_bit_exact,
        ram=ram,
        kernels=kernels,
        state=state,
        survived=survived,
        predict_counts=predict_counts,
        step_counts=step_counts,
        firmware=(firmware.rom_bytes, firmware.ram_bytes),
    )


def _watermarks(
    board: Board, x_test: Int8, stream: Int8, ys: np.ndarray, config: LearnerConfig
) -> tuple[int, int]:
    """Bytes of arena that inference and learning touch, each painted with two patterns."""
    touched = []
    for learning in (False, True):
        highest = 0
        for pattern in PATTERNS:
            if learning:
                board.learner_open(asdict(config))
            board.paint(pattern)
            if learning:
                board.step(stream[:8], ys[:8])
            else:
                board.predict(x_test[:8])
            highest = max(highest, board.memory().used_bytes)
        touched.append(highest)
    return touched[0], touched[1]


def _cut_and_look(device: Device, x_test: Int8, after: Int8) -> tuple[bool, bytes]:
    """True when the board predicts after a power cut as it did before; and the stored state."""
    device.power_cut()
    board = device.board
    again = board.predict(x_test).reshape(len(x_test), -1)
    same = bool((again == after).all())
    return same and board.info().learner, board.pull("state")


def _count(
    options: DemoOptions, flash: Path, x: Int8, x_new: Int8, y: int, config: LearnerConfig
) -> tuple[int | None, int | None]:
    """Executed instructions of one predict and of one step with its replays."""
    with serving(options.board, memory=options.memory, flash_file=flash, icount=True) as device:
        predict = device.board.count_predict(x)
        device.board.learner_open(asdict(config))
        _, step = device.board.count_step(x_new, y)
    return predict, step


# ---- other seeds


def _repeat(
    options: DemoOptions,
    trained: TrainedDigits,
    fields: dict[str, field.FieldResult],
    clock: _Clock,
    reporter: Reporter,
) -> tuple[SeedResult, ...]:
    """Training and learning from more seeds; the device's own run is the first."""
    found = [_seed_result(options.seed, trained, fields)]
    for seed in range(options.seed + 1, options.seed + options.seeds):
        with clock.stage(f"seed_{seed}", f"train and learn from seed {seed} on the host"):
            other = _train(seed, options.missing, reporter)
            learned = {
                name: field.learn(other.compiled.image, other.data, name, seed=seed)
                for name in ("v2", "dense", "naive")
            }
            found.append(_seed_result(seed, other, learned))
            reporter.note(
                f"new {found[-1].new_class_accuracy_after:.4f}, "
                f"old lost {found[-1].old_class_accuracy_drop:.4f}"
            )
    return tuple(found)


def _seed_result(
    seed: int, trained: TrainedDigits, fields: dict[str, field.FieldResult]
) -> SeedResult:
    return SeedResult(
        seed=seed,
        student_int8_accuracy=trained.student_int8_accuracy,
        new_class_accuracy_after=fields["v2"].after.new,
        old_class_accuracy_drop=fields["v2"].old_drop,
        naive_old_class_accuracy_drop=fields["naive"].old_drop,
        dense_new_class_accuracy_after=fields["dense"].after.new,
        dense_old_class_accuracy_drop=fields["dense"].old_drop,
        backward_mac_share=fields["v2"].backward_mac_share,
    )


# ---- all together


def _digits(missing: Sequence[int]) -> str:
    return "the digits " + ", ".join(map(str, missing))


def _result(
    options: DemoOptions,
    spec: roster.TargetSpec,
    trained: TrainedDigits,
    fields: dict[str, field.FieldResult],
    seen: _OnDevice,
    config: LearnerConfig,
    clock: _Clock,
) -> DemoResult:
    data, report = trained.data, trained.compiled.report
    before = field.measure(seen.before.argmax(axis=1), data)
    after = field.measure(seen.after.argmax(axis=1), data)
    v2 = fields["v2"]
    model = Model(trained.compiled.image)
    sizes = learner_sizes(model, config)
    if report.ram_learn_bytes is None:
        raise FieldloopError("the demo's model cannot learn: it was compiled without a layer to")
    return DemoResult(
        board=options.board,
        board_title=spec.title,
        memory_map=spec.memory(options.memory).name if spec.maps else None,
        seed=options.seed,
        missing=list(data.missing),
        versions={
            "fieldloop": fieldloop.__version__,
            "python": platform.python_version(),
            "torch": version("torch"),
            "numpy": version("numpy"),
        },
        teacher_accuracy=trained.teacher_accuracy,
        student_float_accuracy=trained.student_float_accuracy,
        student_int8_accuracy=trained.student_int8_accuracy,
        model_bytes=report.flash_bytes,
        model_macs=report.macs,
        firmware_rom_bytes=seen.firmware[0],
        firmware_ram_bytes=seen.firmware[1],
        device_bit_exact=seen.bit_exact,
        device_samples_checked=len(seen.before),
        device_learned_bit_exact=seen.learned_bit_exact,
        ram_planned_bytes=model.variant_arena_bytes(seen.kernels),
        ram_watermark_bytes=seen.ram[0],
        ram_learn_planned_bytes=(
            model.variant_arena_bytes(seen.kernels, "LEARN") + sizes.total_bytes
        ),
        ram_learn_watermark_bytes=seen.ram[1],
        stream_samples=v2.stats.samples,
        samples_trained=v2.stats.trained,
        samples_skipped=v2.stats.skipped,
        new_class_accuracy_before=before.new,
        new_class_accuracy_after=after.new,
        old_class_accuracy_before=before.old,
        old_class_accuracy_after=after.old,
        backward_mac_share=v2.backward_mac_share,
        total_mac_share=v2.total_mac_share,
        dense_new_class_accuracy_after=fields["dense"].after.new,
        dense_old_class_accuracy_after=fields["dense"].after.old,
        head_only_new_class_accuracy_after=fields["head_only"].after.new,
        head_only_old_class_accuracy_after=fields["head_only"].after.old,
        head_only_backward_mac_share=fields["head_only"].backward_mac_share,
        head_only_total_mac_share=fields["head_only"].total_mac_share,
        naive_new_class_accuracy_after=fields["naive"].after.new,
        naive_old_class_accuracy_after=fields["naive"].after.old,
        naive_once_new_class_accuracy_after=fields["naive_once"].after.new,
        naive_once_old_class_accuracy_after=fields["naive_once"].after.old,
        state_bytes=len(seen.state),
        state_survived_power_cut=seen.survived,
        state_equals_host=seen.state == v2.state,
        instructions_predict=seen.predict_counts[0] if seen.predict_counts else None,
        instructions_step=seen.step_counts[0] if seen.step_counts else None,
        instructions_repeat=_repeat_all(seen.predict_counts, seen.step_counts),
        stage_seconds=dict(clock.seconds),
        seconds=clock.total,
    )


def _repeat_all(*counts: Sequence[int | None]) -> bool | None:
    """True when each is the same in all boots; None: the board cannot count."""
    if all(count is None for each in counts for count in each):
        return None
    return all(None not in each and len(set(each)) == 1 for each in counts)
