"""fieldloop learn."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from fieldloop.cli import device, learner_settings, samples
from fieldloop.cli.console import Console, Output, plural
from fieldloop.cli.files import file_bytes, prepare_file, write_file
from fieldloop.errors import UsageError

if TYPE_CHECKING:
    from fieldloop.link import Board
    from fieldloop.link.replies import JobStatus

HELP = """Teaches a model labelled samples, in their order, and commits what was
learned: on a device, or with --model on this machine. A device goes on with the
learner it has open; settings open a new one, which starts from its own last
commit or from the factory weights. Ctrl-C stops a device between two samples,
commits what it learned so far, and tells how to go on."""
EXAMPLE = "fieldloop learn samples/stream.npz --board qemu-an386 --flash board.bin"

_AT_ONCE = 32
_INTERRUPTED = 130  # as main.py has it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "samples", type=Path, nargs="?", metavar="SAMPLES.npz", help="arrays x and y"
    )
    parser.add_argument("--model", type=Path, metavar="FILE.flm", help="learn on this machine")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="with --model: the learned state"
    )
    parser.add_argument(
        "--rehearse",
        type=int,
        metavar="STEPS",
        help="instead of SAMPLES.npz: the device trains so many steps on the samples that travel "
        "with its model, by itself",
    )
    parser.add_argument(
        "--skip", type=int, default=0, metavar="N", help="leave out the first N samples"
    )
    parser.add_argument(
        "--every",
        type=int,
        default=0,
        metavar="N",
        help="look after each N samples how many of those held out (--set holdout=4) are right",
    )
    parser.add_argument(
        "--patience",
        type=int,
        default=0,
        metavar="N",
        help="stop after N looks without a better one, and go back to the best",
    )
    parser.add_argument(
        "--no-commit", action="store_true", help="forget it all when the device restarts"
    )
    learner_settings.add_arguments(parser)
    device.add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> Output:
    _check(args)
    prepare_file(args.output)
    if args.rehearse is not None:
        with device.chosen(args, console) as board:
            return _rehearse(args, board, console)
    given = samples.load(args.samples)
    if args.model is not None:
        return _on_host(args, given, console)
    with device.chosen(args, console) as board:
        return _on_device(args, given, board, console)


def _check(args: argparse.Namespace) -> None:
    if args.model is not None and device.is_chosen(args):
        raise UsageError("--model learns on this machine; leave --board and --port out")
    if args.output is not None and args.model is None:
        raise UsageError("--output belongs to --model; fetch a device's state by fieldloop pull")
    if (args.samples is None) == (args.rehearse is None):
        raise UsageError("give SAMPLES.npz or --rehearse STEPS, one of them")
    if args.rehearse is not None and (args.model is not None or args.skip):
        raise UsageError("--rehearse is for a device, and begins at the beginning")
    if min(args.skip, args.every, args.patience, args.rehearse or 0) < 0:
        raise UsageError("--skip, --every, --patience and --rehearse: expected 0 or more")
    on_device = args.model is None and args.rehearse is None
    if args.patience and args.no_commit and on_device:
        raise UsageError("--patience keeps the best by a commit; leave --no-commit out")
    if args.patience and not args.every:
        raise UsageError("--patience counts looks; say by --every N how often to look")


# ---- teaching, wherever the learner is


@dataclass(frozen=True, slots=True)
class _Learner:
    """What teaching needs of a learner: on this machine or on a device."""

    step: Callable[[Any, list[int]], int]  # samples and labels -> how many were right before
    evaluate: Callable[[], tuple[int, int]]
    keep: Callable[[], None]  # this is the best so far
    bring_back: Callable[[], None]  # what was kept last


@dataclass(slots=True)
class _Taught:
    done: int = 0
    hits: int = 0
    looks: int = 0
    right: int = 0
    total: int = 0
    best: int = -1
    misses: int = 0  # looks since the best
    early: bool = False
    interrupted: bool = False

    def look(self, learner: _Learner, patience: int, console: Console) -> None:
        self.right, self.total = learner.evaluate()
        self.looks += 1
        console.note(f"{self.right} of {plural(self.total, 'held-out sample')} right")
        self.misses = 0 if self.right > self.best else self.misses + 1
        self.best = max(self.best, self.right)
        if patience and not self.misses:
            learner.keep()
        self.early = 0 < patience <= self.misses


def _teach(
    learner: _Learner, x: Any, y: list[int], args: argparse.Namespace, console: Console
) -> _Taught:
    """Steps over the samples; looks every so often; ends early or when Ctrl-C was pressed."""
    console.stage(f"learn {plural(len(x), 'sample')}")
    taught = _Taught()
    with _ctrl_c() as pressed:
        if args.every:
            taught.look(learner, args.patience, console)
        while taught.done < len(x) and not taught.early and not taught.interrupted:
            at = taught.done
            end = min(at + _AT_ONCE, len(x))
            if args.every:
                end = min(end, at - at % args.every + args.every)
            taught.hits += learner.step(x[at:end], y[at:end])
            taught.done = end
            console.progress(end, len(x))
            if args.every and (end % args.every == 0 or end == len(x)):
                taught.look(learner, args.patience, console)
            taught.interrupted = pressed() and taught.done < len(x)
    if args.patience and taught.misses and not taught.interrupted:
        learner.bring_back()
    return taught


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C only answers True here; the second one is a KeyboardInterrupt."""
    presses = 0

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal presses
        presses += 1
        if presses > 1:
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    installed = False
    with suppress(ValueError):  # not the main thread: nobody can press it here
        signal.signal(signal.SIGINT, press)
        installed = True
    try:
        yield lambda: presses > 0
    finally:
        if installed:
            signal.signal(signal.SIGINT, before)


# ---- on this machine


def _on_host(args: argparse.Namespace, given: samples.Samples, console: Console) -> Output:
    from fieldloop.runtime import Learner, Model

    model = Model(file_bytes(args.model))
    learner = Learner(model, learner_settings.config(args))
    labels = samples.check_labels(given.y, learner.classes, args.samples)[args.skip :]
    x = model.as_inputs(given.x)[args.skip :]
    best = [learner.state]

    def step(part: Any, y: list[int]) -> int:
        return sum(s.predicted == label for s, label in zip(learner.run(part, y), y, strict=True))

    def evaluate() -> tuple[int, int]:
        learner.flush()
        return learner.evaluate()

    def keep() -> None:
        best[0] = learner.state

    taught = _teach(
        _Learner(step, evaluate, keep, lambda: learner.load(best[0])), x, labels, args, console
    )
    if taught.interrupted:
        raise KeyboardInterrupt  # nothing of it is kept
    learner.flush()
    if args.output is not None:
        write_file(args.output, learner.state)
    layers = [asdict(layer) | {"ratio": layer.ratio} for layer in learner.layer_stats()]
    return _output(taught, asdict(learner.stats), layers, learner.plan.total, None)


# ---- on a device


def _open(args: argparse.Namespace, board: Board) -> None:
    if learner_settings.given(args) or not board.info().learner:
        board.learner_open(asdict(learner_settings.config(args)))


def _on_device(
    args: argparse.Namespace, given: samples.Samples, board: Board, console: Console
) -> Output:
    from fieldloop.link.samples import as_samples

    model = board.model()
    labels = samples.check_labels(given.y, model.output_bytes, args.samples)[args.skip :]
    x = as_samples(given.x, model)[args.skip :]
    _open(args, board)
    earlier = int(board.stats().get("samples", 0))
    if earlier:
        console.note(f"going on after {plural(earlier, 'sample')}")
    record: int | None = None
    is_new = True  # what was learned since the last commit, or the factory's weights

    def step(part: Any, y: list[int]) -> int:
        nonlocal is_new
        is_new = True
        return board.step(part, y).hits

    def keep() -> None:
        nonlocal is_new, record
        is_new, record = False, board.commit()

    def bring_back() -> None:
        nonlocal is_new
        is_new = False
        board.restore()

    taught = _teach(_Learner(step, board.evaluate, keep, bring_back), x, labels, args, console)
    if is_new and not args.no_commit:
        keep()
    if taught.interrupted:
        console.error(
            f"interrupted after {taught.done} of {plural(len(x), 'sample')}; "
            + ("nothing is committed" if record is None else f"committed as record {record}")
            + f"; go on with --skip {args.skip + taught.done}"
        )
    return _told(board, taught, record)


def _rehearse(args: argparse.Namespace, board: Board, console: Console) -> Output:
    """The device trains by itself; we watch it."""
    _open(args, board)
    job = board.train_job(args.rehearse, every=args.every, patience=args.patience)
    console.stage(f"rehearse {plural(args.rehearse, 'step')}")
    show = device.Throttle(console)
    looks = 0
    interrupted = False
    with _ctrl_c() as pressed:

        def watch(status: JobStatus) -> None:
            nonlocal looks
            if status.evaluations > looks and status.total:
                looks = status.evaluations
                console.note(f"{status.right} of {plural(status.total, 'held-out sample')} right")
            show(status.done, status.of)
            if pressed() and status.active:
                raise KeyboardInterrupt

        try:
            status = job.wait(watch)
        except KeyboardInterrupt:
            interrupted = True
            status = job.status()
    taught = _Taught(
        done=status.done,
        hits=status.hits,
        looks=status.evaluations,
        right=status.right,
        total=status.total,
        best=status.best if status.total else -1,
        early=status.early,
        interrupted=interrupted,
    )
    if status.message:
        console.note(status.message)
    record = None if args.no_commit else board.commit()
    if interrupted:
        console.error(
            f"interrupted after {status.done} of {plural(status.of, 'step')}; "
            + ("nothing is committed" if record is None else f"committed as record {record}")
        )
    return _told(board, taught, record)


def _told(board: Board, taught: _Taught, record: int | None) -> Output:
    layers = [asdict(layer) for layer in board.layer_stats()]
    return _output(taught, board.stats(), layers, board.learner_plan()["total"], record)


def _output(
    taught: _Taught,
    stats: dict[str, Any],
    layers: list[dict[str, Any]],
    planned: int,
    record: int | None,
) -> Output:
    dense = stats.get("dense_backward_macs") or 1
    looked = {
        "right": taught.right,
        "total": taught.total,
        "best": taught.best,
        "evaluations": taught.looks,
    }
    data = {
        "samples": taught.done,
        "right_before_learned": taught.hits,
        "committed": record,
        "ram_learn_bytes": planned,
        "backward_mac_share": stats.get("backward_macs", 0) / dense,
        "evaluation": looked if taught.looks else None,
        "early": taught.early,
        "interrupted": taught.interrupted,
        "stats": stats,
        "layers": layers,
    }
    text = (
        f"learned {plural(taught.done, 'sample')}, {taught.hits} of them right before; "
        f"{data['backward_mac_share']:.1%} of dense training's backward effort"
    )
    if taught.looks:
        text += f"; at best {taught.best} of {plural(taught.total, 'held-out sample')} right"
    if taught.early:
        text += ", which did not get better"
    if record is not None:
        text += f"; committed as record {record}"
    return Output(data, text, _INTERRUPTED if taught.interrupted else 0)
