"""fieldloop export."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fieldloop.cli.console import Console, Output, short, table
from fieldloop.cli.files import file_bytes, prepare_file, write_file
from fieldloop.errors import DoesNotFitError

if TYPE_CHECKING:
    from fieldloop.plan.types import Buffer

HELP = """Writes a .tflite with a memory plan for TensorFlow Lite Micro inside: its stock
interpreter then puts each tensor where the plan says, and needs no more than that for
tensors. Weights, operators and their order stay as they are, and so does every output.
What kernels ask for at run time (scratch) the interpreter places around the plan."""
EXAMPLE = "fieldloop export network.tflite --offline-plan -o planned.tflite"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="MODEL.tflite", help="the model to plan")
    parser.add_argument(
        "--offline-plan",
        action="store_true",
        required=True,
        help="add TensorFlow Lite Micro's OfflineMemoryAllocation; one that is there is replaced",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT.tflite", help="the file to write"
    )
    parser.add_argument("--ram-limit", type=int, metavar="BYTES", help="fail when larger")


def run(args: argparse.Namespace, console: Console) -> Output:
    from fieldloop.frontends.tflite.file import read_file
    from fieldloop.frontends.tflite.offline_plan import (
        ALIGNMENT,
        NOT_PLANNED,
        live_tensors,
        offline_plan,
        with_offline_plan,
    )
    from fieldloop.plan.layout import layout_of, peak
    from fieldloop.plan.types import Buffer

    content = file_bytes(args.source)
    prepare_file(args.output, source=args.source)
    console.stage(f"plan {args.source}")
    live = live_tensors(content)
    items = tuple(Buffer((t.label,), t.bytes, ALIGNMENT, t.first, t.last) for t in live)
    its_own = _greedy(items)
    layout = layout_of(items)
    places = min(layout.offsets, its_own, key=lambda offsets: peak(items, offsets))
    head = peak(items, places)
    if args.ram_limit is not None and head > args.ram_limit:
        raise DoesNotFitError(
            f"the arena of {args.source.name}", needed_bytes=head, available_bytes=args.ram_limit
        )
    offsets = [NOT_PLANNED] * len(read_file(content).tensors)
    for tensor, place in zip(live, places, strict=True):
        offsets[tensor.index] = place
    write_file(args.output, with_offline_plan(content, offsets))
    replaced = offline_plan(content) is not None
    data = {
        "model": str(args.output),
        "head_bytes": head,
        "greedy_bytes": peak(items, its_own),
        "bound_bytes": layout.bound,
        "optimal": layout.optimal,
        "replaced": replaced,
        "offsets": offsets,
        "tensors": [
            {**asdict(tensor), "offset": place} for tensor, place in zip(live, places, strict=True)
        ],
    }
    rows = [
        ("tensors", f"{head} bytes of arena{', the least there can be' * layout.optimal}"),
        ("without the plan", f"{data['greedy_bytes']} bytes, by the interpreter's own planner"),
        ("plan", f"{len(live)} of {len(offsets)} tensors{', replaces one' * replaced}"),
        ("written", str(args.output)),
    ]
    tensors: list[tuple[str, ...]] = [("tensor", "offset", "bytes", "live")]
    tensors += [
        (short(t.label), str(place), str(t.bytes), f"{t.first}..{t.last}")
        for t, place in zip(live, places, strict=True)
    ]
    return Output(data, f"{table(rows)}\n\n{table(tensors)}")


def _greedy(items: tuple[Buffer, ...]) -> tuple[int, ...]:
    """As the interpreter's own planner: by size, of one size the later tensor first."""
    from fieldloop.plan.layout import first_fit

    return first_fit(items, sorted(range(len(items)), key=lambda i: (-items[i].bytes, -i)))
