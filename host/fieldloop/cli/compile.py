"""fieldloop compile."""

from __future__ import annotations

import argparse
import runpy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldloop.cli.console import Console, Output, table
from fieldloop.cli.digit_options import add_digit_arguments
from fieldloop.cli.files import prepare_file, write_file
from fieldloop.cli.ram import learn_row, learner_bytes
from fieldloop.errors import DoesNotFitError, FieldloopError, UsageError

if TYPE_CHECKING:
    from fieldloop.compiler import Compiled

HELP = """Turns a PyTorch network into a model for the device, and tells flash, RAM
and work to the byte.

SOURCE is `digits`, or a Python file (it is run) that sets
  model        a torch.nn.Module in float32
  calibration  samples [n, ...] as the module takes them, without labels
  labels       optional: a name for each class
  rehearsal    optional: (samples, class numbers) that travel with the model"""
EXAMPLE = "fieldloop compile network.py -o network.flm --ram-limit 65536"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="digits, or a Python file")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.flm", help="the model to write")
    parser.add_argument(
        "--learn",
        type=int,
        default=2,
        metavar="N",
        help="layers that can be trained in the field, from the output (default: 2; 0: none)",
    )
    parser.add_argument("--flash-limit", type=int, metavar="BYTES", help="fail when larger")
    parser.add_argument("--ram-limit", type=int, metavar="BYTES", help="fail when larger")
    add_digit_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> Output:
    prepare_file(args.output)
    console.stage(f"compile {args.source}")
    compiled = _digits(args, console) if args.source == "digits" else _file(args)
    report = compiled.report
    learner = _learner_bytes(compiled, args.ram_limit)
    if args.output is not None:
        write_file(args.output, compiled.image)
    data = {
        "model": None if args.output is None else str(args.output),
        **asdict(report),
        "ram_learner_bytes": learner,
    }
    rows = [
        ("flash", f"{report.flash_bytes} bytes"),
        ("RAM to infer", f"{report.ram_infer_bytes} bytes"),
        ("work", f"{report.macs} multiply-accumulates"),
    ]
    if report.ram_learn_bytes is not None:
        rows.insert(2, learn_row(report.ram_learn_bytes, learner))
    layers: list[tuple[str, ...]] = [("layer", "output", "MACs", "weights", "learns")]
    layers += [
        (
            layer.name,
            "x".join(map(str, layer.output_shape)),
            str(layer.macs),
            f"{layer.weight_bytes} B",
            "" if layer.lr_scale is None else "yes",
        )
        for layer in report.layers
    ]
    return Output(data, f"{table(rows)}\n\n{table(layers)}\n\n{report.memory_map}")


def _learner_bytes(compiled: Compiled, ram_limit: int | None) -> int:
    """The learner's own RAM, 0 when nothing can learn; DoesNotFitError when it is too much."""
    arena = compiled.report.ram_learn_bytes
    if arena is None:
        return 0
    learner = learner_bytes(compiled.image)
    if ram_limit is not None and arena + learner > ram_limit:
        raise DoesNotFitError(
            f"learning with model {compiled.graph.name} in RAM (--learn 0 leaves it out)",
            needed_bytes=arena + learner,
            available_bytes=ram_limit,
        )
    return learner


def _digits(args: argparse.Namespace, console: Console) -> Compiled:
    from fieldloop.train.digits import train_digits

    return train_digits(
        seed=args.seed,
        missing=args.missing,
        flash_limit=args.flash_limit,
        ram_limit=args.ram_limit,
        progress=lambda _, done, total: console.progress(done, total),
    ).compiled


def _file(args: argparse.Namespace) -> Compiled:
    from fieldloop import api

    names = _run_source(Path(args.source))
    for name in ("model", "calibration"):
        if name not in names:
            raise UsageError(f"{args.source} sets no `{name}`; see fieldloop compile --help")
    return api.compile(
        names["model"],
        names["calibration"],
        labels=names.get("labels", ()),
        rehearsal=names.get("rehearsal"),
        learn=args.learn,
        flash_limit=args.flash_limit,
        ram_limit=args.ram_limit,
    )


def _run_source(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected `digits` or a Python file")
    try:
        return runpy.run_path(str(path))
    except FieldloopError:
        raise
    except Exception as error:
        raise FieldloopError(
            f"{path} failed: {type(error).__name__}: {error}; python {path} shows where"
        ) from error
