"""fieldloop compile."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fieldloop.cli.console import Console, Output, short, table
from fieldloop.cli.digit_options import add_digit_arguments
from fieldloop.cli.files import prepare_file, write_file
from fieldloop.cli.ram import kernel_row, learn_row, learner_bytes, ram_by_kernels
from fieldloop.cli.source import SOURCES, add_source_arguments, options_of, source_of
from fieldloop.cli.tiling import (
    TILINGS,
    add_tiling_arguments,
    bound_words,
    check_tiling,
    overhead,
    stages,
    tile_rows,
)
from fieldloop.errors import DoesNotFitError, UsageError, VersionError

if TYPE_CHECKING:
    from fieldloop.compiler import Compiled

HELP = f"""Turns a network into a model for the device, and tells flash, RAM and work to
the byte.

{SOURCES}
`digits` is the demo's network, trained first.

--tiling computes layers in parts, with every byte of the output as before:
{TILINGS}"""
EXAMPLE = """fieldloop compile network.onnx --calibrate samples.npz -o network.flm
  fieldloop compile network.tflite --tiling auto --ram-limit 32768 -o network.flm"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a network file, or digits")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.flm", help="the model to write")
    parser.add_argument(
        "--learn",
        type=int,
        metavar="N",
        help="layers that can be trained in the field, counted from the output (default: 2 of a "
        "Python file with samples to calibrate with, else none)",
    )
    parser.add_argument("--flash-limit", type=int, metavar="BYTES", help="fail when larger")
    parser.add_argument("--ram-limit", type=int, metavar="BYTES", help="fail when larger")
    add_tiling_arguments(parser, "none")
    add_source_arguments(parser)
    add_digit_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> Output:
    check_tiling(args)
    prepare_file(args.output, source=Path(args.source))
    console.stage(f"compile {args.source}")
    try:
        compiled = _digits(args, console) if args.source == "digits" else _network(args, console)
        learner = _learner_bytes(compiled, args.ram_limit)
    except DoesNotFitError as error:
        if error.available_bytes == args.ram_limit and args.tiling == "none":
            console.note("--tiling auto may need less RAM")
        raise
    report = compiled.report
    by_kernels = ram_by_kernels(compiled.image)
    if args.output is not None:
        write_file(args.output, compiled.image)
    data = {
        "model": None if args.output is None else str(args.output),
        **asdict(report),
        "ram_bytes": report.ram_infer_bytes,
        "ram_bytes_by_kernels": by_kernels,
        "ram_learner_bytes": learner,
    }
    rows = [
        ("flash", f"{report.flash_bytes} bytes"),
        ("RAM to infer", f"{report.ram_infer_bytes} bytes{kernel_row(by_kernels)}"),
        ("work", f"{report.macs} multiply-accumulates{overhead(report.mac_overhead)}"),
    ]
    if report.ram_learn_bytes is not None:
        rows.insert(2, learn_row(report.ram_learn_bytes, learner))
    if args.tiling != "none":
        least = bound_words(report.bound_bytes, optimal=report.optimal, tiling=args.tiling)
        rows.insert(2, ("RAM without tiling", f"{report.untiled_ram_bytes} bytes"))
        rows += tile_rows(report.tiles) or [("tiled", "nothing: no tiling needs less RAM")]
        rows.append(("plan", f"{report.steps or len(report.layers)} steps, {least}"))
    layers: list[tuple[str, ...]] = [("layer", "output", "MACs", "weights", "learns")]
    layers += [
        (
            short(layer.name),
            "x".join(map(str, layer.output_shape)),
            str(layer.macs),
            f"{layer.weight_bytes} B",
            "" if layer.lr_scale is None else "yes",
        )
        for layer in report.layers
    ]
    tiled = "untiled; fieldloop plan shows the tiled one too\n" if report.tiles else ""
    return Output(data, f"{table(rows)}\n\n{table(layers)}\n\n{tiled}{report.memory_map}")


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
    if args.tiling != "none" or args.mac_limit is not None:
        raise UsageError("--tiling and --mac-limit are for networks from files, digits is not one")
    from fieldloop.train.digits import train_digits

    return train_digits(
        seed=args.seed,
        missing=args.missing,
        flash_limit=args.flash_limit,
        ram_limit=args.ram_limit,
        progress=lambda _, done, total: console.progress(done, total),
    ).compiled


def _network(args: argparse.Namespace, console: Console) -> Compiled:
    from fieldloop.compiler import DEFAULT_LEARN, NotTrainableError
    from fieldloop.sources import compile_source

    source = source_of(args)

    def compiled(learn: int) -> Compiled:
        with stages(console) as progress:
            return compile_source(
                source,
                learn=learn or None,
                options=options_of(args),
                flash_limit=args.flash_limit,
                ram_limit=args.ram_limit,
                tiling=args.tiling,
                mac_limit=args.mac_limit,
                progress=progress,
            )

    if args.learn is not None or source.module is None or not source.calibration:
        return compiled(args.learn or 0)
    try:  # it was not asked for: where it cannot be had, the model is for inference
        made = compiled(DEFAULT_LEARN)
        learner_bytes(made.image)
        return made
    except (NotTrainableError, VersionError) as error:
        console.note(f"it will not learn: {error}")
        return compiled(0)
