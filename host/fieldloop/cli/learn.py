"""fieldloop learn."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldloop.cli import device, samples
from fieldloop.cli.console import Console, Output, plural
from fieldloop.cli.files import file_bytes, prepare_file, write_file
from fieldloop.errors import UsageError

if TYPE_CHECKING:
    from fieldloop.link import Board
    from fieldloop.runtime import LearnerConfig

HELP = """Teaches a model labelled samples, in their order, and commits what was
learned: on a device, or with --model on this machine. A device goes on with the
learner it has open; settings open a new one, which starts from its own last
commit or from the factory weights."""
EXAMPLE = "fieldloop learn samples/stream.npz --board qemu-an386 --flash board.bin"

_AT_ONCE = 32
_SETTINGS: dict[str, tuple[type, str]] = {
    "selector": (str, "tinypropv2, tinyprop, dense or topk"),
    "layers": (int, "layers to train, from the output (0: all that can be)"),
    "lr": (float, "learning rate, times the layer's own scale"),
    "replays": (int, "old samples replayed after each new one"),
    "memory": (int, "new samples to remember, in RAM"),
    "s_min": (float, "smallest share of gradients kept"),
    "s_max": (float, "largest share of gradients kept"),
    "zeta": (float, "damping of that share per layer"),
    "d_thr": (float, "train only when the decision metric is above"),
    "seed": (int, "of rounding and replays"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("samples", type=Path, metavar="SAMPLES.npz", help="arrays x and y")
    parser.add_argument("--model", type=Path, metavar="FILE.flm", help="learn on this machine")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="with --model: the learned state"
    )
    parser.add_argument(
        "--no-commit", action="store_true", help="forget it all when the device restarts"
    )
    group = parser.add_argument_group("settings")
    for name, (kind, text) in _SETTINGS.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="V", help=text)
    device.add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> Output:
    if args.model is not None and device.is_chosen(args):
        raise UsageError("--model learns on this machine; leave --board and --port out")
    if args.output is not None and args.model is None:
        raise UsageError("--output belongs to --model; fetch a device's state by fieldloop pull")
    prepare_file(args.output)
    given = samples.load(args.samples)
    if args.model is not None:
        return _on_host(args, given, console)
    with device.chosen(args, console) as board:
        return _on_device(args, given, board, console)


def _config(args: argparse.Namespace) -> LearnerConfig:
    from fieldloop.train.field import CONFIG

    return replace(CONFIG, **_given_settings(args))


def _given_settings(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in _SETTINGS if getattr(args, name) is not None}


def _on_host(args: argparse.Namespace, given: samples.Samples, console: Console) -> Output:
    from fieldloop.runtime import Learner, Model

    model = Model(file_bytes(args.model))
    learner = Learner(model, _config(args))
    labels = samples.check_labels(given.y, learner.classes, args.samples)
    x = model.as_inputs(given.x)
    console.stage(f"learn {plural(len(x), 'sample')}")
    hits = 0
    for at in range(0, len(x), _AT_ONCE):
        part = labels[at : at + _AT_ONCE]
        steps = learner.run(x[at : at + _AT_ONCE], part)
        hits += sum(step.predicted == y for step, y in zip(steps, part, strict=True))
        console.progress(min(at + _AT_ONCE, len(x)), len(x))
    if args.output is not None:
        write_file(args.output, learner.state)
    return _output(len(x), hits, asdict(learner.stats), None, learner.sizes.total_bytes)


def _on_device(
    args: argparse.Namespace, given: samples.Samples, board: Board, console: Console
) -> Output:
    model = board.model()
    labels = samples.check_labels(given.y, model.output_bytes, args.samples)
    x = samples.quantized(given.x, scale=model.input_scale, zero_point=model.input_zero)
    planned = None
    if _given_settings(args) or not board.info().learner:
        planned = board.learner_open(asdict(_config(args)))
    earlier = int(board.stats().get("samples", 0))
    if earlier:
        console.note(f"going on after {plural(earlier, 'sample')}")
    console.stage(f"learn {plural(len(x), 'sample')}")
    hits = 0
    for at in range(0, len(x), _AT_ONCE):
        hits += board.step(x[at : at + _AT_ONCE], labels[at : at + _AT_ONCE]).hits
        console.progress(min(at + _AT_ONCE, len(x)), len(x))
    record = None if args.no_commit else board.commit()
    return _output(len(x), hits, board.stats(), record, planned)


def _output(
    count: int, hits: int, stats: dict[str, Any], record: int | None, planned: int | None
) -> Output:
    dense = stats.get("dense_backward_macs") or 1
    data = {
        "samples": count,
        "right_before_learned": hits,
        "committed": record,
        "ram_learn_bytes": planned,
        "backward_mac_share": stats.get("backward_macs", 0) / dense,
        "stats": stats,
    }
    text = (
        f"learned {plural(count, 'sample')}, {hits} of them right before; "
        f"{data['backward_mac_share']:.1%} of dense training's backward effort"
    )
    if record is not None:
        text += f"; committed as record {record}"
    return Output(data, text)
