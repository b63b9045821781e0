"""fieldloop check."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fieldloop.cli import samples
from fieldloop.cli.console import Console, Output, short, table
from fieldloop.cli.files import file_bytes
from fieldloop.cli.source import (
    SOURCES,
    add_source_arguments,
    options_of,
    outputs_of,
    source_of,
)
from fieldloop.errors import UsageError

if TYPE_CHECKING:
    from fieldloop.compare.report import CheckReport

HELP = f"""Compares a model layer by layer: plain C, the optimised kernels, a board with
--board, and the runtime it comes from (tflite-micro, LiteRT's reference kernels for
older uint8 networks, onnxruntime, torch). Exit code 1 when they differ.

{SOURCES}
An .flm is compared between kernels and with a board; of a tiled one the outputs."""
EXAMPLE = "fieldloop check network.tflite --board qemu-an386 --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="MODEL", help="a network, or an .flm")
    parser.add_argument("--board", metavar="NAME", help="a board of `fieldloop devices`")
    parser.add_argument("--map", metavar="NAME", help="memory map of a simulated board")
    parser.add_argument(
        "--inputs",
        type=Path,
        metavar="FILE",
        help="samples instead of random: .npy, .csv, or .npz by input name (or x; of an .flm with "
        "several, input_0, input_1, ...)",
    )
    parser.add_argument(
        "--count", type=int, default=3, metavar="N", help="random samples (default: 3)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random samples")
    add_source_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> Output:
    if args.count < 1:
        raise UsageError(f"--count: expected at least 1, got {args.count}")
    if args.map is not None and args.board is None:
        raise UsageError(f"--map {args.map} is of a board; name it with --board")
    report = _image(args, console) if _is_image(args) else _network(args, console)
    return Output(_data(report), _text(report), 0 if report.ok else 1)


def _is_image(args: argparse.Namespace) -> bool:
    return Path(args.source).suffix == ".flm"


def _image(args: argparse.Namespace, console: Console) -> CheckReport:
    from fieldloop.compare.inputs import given_samples, input_names, random_samples
    from fieldloop.compare.run import check_image
    from fieldloop.image.reader import read_image

    if outputs_of(args) or args.calibrate or options_of(args):
        raise UsageError(f"{args.source} is compiled already; check the network it came from")
    image = file_bytes(Path(args.source))
    parsed = read_image(image)
    if args.inputs is not None:
        names = input_names(len(parsed.inputs))
        chosen = given_samples(parsed, samples.arrays(args.inputs), names)
    else:
        chosen = random_samples(parsed, args.seed, args.count)
    console.stage(f"check {args.source}")
    return check_image(
        image,
        chosen,
        model=args.source,
        oracle_note="an .flm does not say where it comes from",
        board=args.board,
        memory=args.map,
        progress=console.progress,
        say=console.note,
    )


def _network(args: argparse.Namespace, console: Console) -> CheckReport:
    from fieldloop.compare.source import check_source

    source = source_of(args)
    given = None if args.inputs is None else samples.arrays(args.inputs)
    console.stage(f"check {args.source}")
    return check_source(
        source,
        options=options_of(args),
        inputs=given,
        count=args.count,
        seed=args.seed,
        board=args.board,
        memory=args.map,
        progress=console.progress,
        say=console.note,
    )


def _data(report: CheckReport) -> dict[str, object]:
    return {
        "ok": report.ok,
        "bit_exact": report.bit_exact,
        "max_abs_diff": report.max_abs_diff,
        **asdict(report),
    }


def _text(report: CheckReport) -> str:
    oracle = report.oracle
    rows: list[tuple[str, ...]] = [
        ("model", f"{report.model}, {report.dtype}, {report.macs} multiply-accumulates"),
        ("flash, RAM", f"{report.flash_bytes} bytes, {report.ram_bytes} bytes"),
        ("samples", str(report.samples)),
        ("kernels", f"{', '.join(report.variants)}: {_same(report.variants_equal)}"),
    ]
    if report.outputs_only:
        rows.append(
            (
                "layers",
                "those that make the outputs: of a tiled model nothing else is sure to be whole",
            )
        )
    if report.board is not None:
        same = _same(bool(report.board_equal))
        rows.append(("board", f"{report.board} ({report.board_note}): {same}"))
    if oracle is None:
        rows.append(("oracle", f"none: {report.oracle_note}"))
    elif oracle.exact:
        rows.append((oracle.name, f"{_same(oracle.bit_exact)} in {oracle.layers} layers"))
    else:
        apart = (
            f"{oracle.max_abs_diff:g} steps"
            if report.dtype != "float32"
            else f"{oracle.max_rel_diff:.2e} of the largest value"
        )
        rows.append((oracle.name, f"at most {apart} apart in {oracle.layers} layers"))
    if oracle is not None and oracle.unknown_outputs:
        rows.append(("not compared", f"{oracle.unknown_outputs} of the outputs"))
    layers: list[tuple[str, ...]] = [
        ("layer", "kind", "output", "MACs", "kernels", "board", "difference", "SQNR")
    ]
    for layer in report.layers:
        layers.append(
            (
                short(layer.name),
                layer.kind,
                "x".join(map(str, layer.shape)),
                str(layer.macs),
                "differ: " + " ".join(layer.variants) if layer.variants else "same",
                "" if layer.board_equal is None else _same(layer.board_equal),
                "" if layer.difference is None else f"{layer.difference:.3g}",
                "" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f} dB",
            )
        )
    verdict = "ok" if report.ok else "DIFFERENT"
    return f"{table(rows)}\n\n{table(layers)}\n\n{verdict}"


def _same(equal: bool) -> str:
    return "same bytes" if equal else "other bytes"
