"""fieldloop bench."""

from __future__ import annotations

import argparse
import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fieldloop.cli import bench_learn
from fieldloop.cli.console import Console, Output, short, table
from fieldloop.cli.files import prepare_file, write_file
from fieldloop.cli.source import add_source_arguments, compiled_source
from fieldloop.errors import UsageError

if TYPE_CHECKING:
    from fieldloop.bench.cost import ModelCost, Subject

HELP = """Counts executed instructions on a simulated board, layer by layer and per
multiply-accumulate, with RAM and flash.

bench model SOURCE   a model: what `fieldloop compile` takes, or an .flm
bench kernels        single operators in the sizes that small networks have
bench learn          a study of the learner's selectors on real data, on this machine

QEMU counts: the numbers repeat exactly, and are neither cycles nor time."""
EXAMPLE = "fieldloop bench model network.tflite --board qemu-an386 --csv layers.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("model", "kernels", "learn"), help="what is measured")
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="of `bench model`")
    parser.add_argument(
        "--board",
        action="append",
        metavar="NAME",
        help="a simulated board of `fieldloop devices`; repeatable (default: qemu-an386)",
    )
    parser.add_argument("--map", metavar="NAME", help="memory map of the board")
    parser.add_argument("--csv", type=Path, metavar="FILE.csv", help="one line a layer")
    add_source_arguments(parser)
    bench_learn.add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> Output:
    if args.what == "learn":
        return bench_learn.run(args, console)
    from fieldloop.bench.cost import csv_rows, measure

    if (args.source is None) == (args.what == "model"):
        raise UsageError("bench model takes a SOURCE, bench kernels takes none")
    prepare_file(args.csv)
    subjects = _subjects(args, console)
    costs: list[ModelCost] = []
    for board in dict.fromkeys(args.board or ["qemu-an386"]):
        console.stage(f"count on {board}")
        costs += measure(
            subjects, board, memory=args.map, say=console.note, progress=console.progress
        )
    if args.csv is not None:
        write_file(args.csv, _csv(csv_rows(costs)))
    data = {
        "what": args.what,
        "models": [
            {
                **asdict(cost),
                "instructions_per_mac": cost.per_mac,
                "layers": [
                    {**asdict(layer), "instructions_per_mac": layer.per_mac}
                    for layer in cost.layers
                ],
            }
            for cost in costs
        ],
    }
    if args.what == "kernels":
        return Output(data, _kernels_text(costs))
    blocks = [
        f"{cost.model} on {cost.board}: RAM {cost.ram_bytes} bytes ({cost.activation_bytes} of "
        f"them activations), flash {cost.flash_bytes} bytes\n{table(_rows(cost))}"
        for cost in costs
    ]
    return Output(data, "\n\n".join(blocks))


def _subjects(args: argparse.Namespace, console: Console) -> list[Subject]:
    from fieldloop.bench import suite
    from fieldloop.bench.cost import Subject

    if args.what == "kernels":
        return suite.subjects()
    source, image, names = compiled_source(args, console)
    return [Subject(source, image, names)]


def _kernels_text(costs: list[ModelCost]) -> str:
    rows: list[tuple[str, ...]] = [
        ("board", "operator", "MACs", "instructions", "per MAC", "RAM", "scratch", "flash")
    ]
    for cost in costs:
        rows.append(
            (
                cost.board,
                cost.model,
                str(cost.macs),
                str(cost.instructions),
                "" if cost.per_mac is None else f"{cost.per_mac:.2f}",
                str(cost.ram_bytes),
                str(cost.ram_bytes - cost.activation_bytes),
                str(cost.flash_bytes),
            )
        )
    return table(rows)


def _csv(records: list) -> bytes:  # type: ignore[type-arg]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


def _rows(cost: ModelCost) -> list[tuple[str, ...]]:
    """Layers and a total, as text; the header first."""
    rows: list[tuple[str, ...]] = [
        ("layer", "kind", "output", "MACs", "instructions", "per MAC", "share")
    ]
    for layer in cost.layers:
        rows.append(
            (
                short(layer.name),
                layer.kind,
                "x".join(map(str, layer.shape)),
                f"{layer.macs}",
                f"{layer.instructions}",
                "" if layer.per_mac is None else f"{layer.per_mac:.2f}",
                f"{100 * layer.instructions / max(cost.instructions, 1):.1f} %",
            )
        )
    per_mac = "" if cost.per_mac is None else f"{cost.per_mac:.2f}"
    rows.append(("total", "", "", f"{cost.macs}", f"{cost.instructions}", per_mac, "100.0 %"))
    return rows
