"""The tables of tiling: arenas of every shared model in every mode, and what they cost.

    python bench/fdt.py                     # prints; plans are made anew, counts are kept
    python bench/fdt.py --write             # and writes docs/results/fdt.md and fdt.json
    python bench/fdt.py --models vww_96_int8 --board qemu-an386

Every plan goes through the verifier and is run on this machine, with all kernels, against the
untiled image before it is written down. Executed instructions come from a simulated board, for
models below 20 million multiply-accumulates; counts are kept in build/fdt by image and board, so
an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "host"))

from fieldloop.bench.cost import Subject, measure  # noqa: E402
from fieldloop.compiler import Compiled, compile_graph  # noqa: E402
from fieldloop.errors import FieldloopError  # noqa: E402
from fieldloop.frontends.load import load_model  # noqa: E402
from fieldloop.paths import build_dir  # noqa: E402
from fieldloop.runtime import Model  # noqa: E402
from fieldloop.runtime.core import VARIANTS  # noqa: E402

MODELS = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared")) / "models" / "tflite"
PAGE = ROOT / "docs" / "results" / "fdt.md"
ANCHORS = json.loads((ROOT / "bench" / "tiling_anchors.json").read_text())
# Name -> tiling, mac_limit.
MODES: dict[str, tuple[str, float | None]] = {
    "none": ("none", None),
    "fdt": ("fdt", None),
    "ffmt": ("ffmt", 1.054),
    "auto": ("auto", None),
}
COUNTED = ("none", "fdt", "auto")
SMALL = 20_000_000  # multiply-accumulates of what is run on a board
TRUNK = {"ssd": ("Squeeze", "convert_scores")}

HEAD = """\
Written by `python bench/fdt.py --write`; the figures are in fdt.json too. Bytes of the whole arena
with plain C kernels: activations, the input while it is needed, windows of rows, accumulators.
Every plan here was verified, and gave the untiled model's bytes with all kernels."""
ARENA = """\
TFLM: head of the stock interpreter. FDT rules, FFMT rules: what the published rules give on the
same file (with so many multiply-accumulates more). fdt, ffmt, auto: `fieldloop compile --tiling`;
ffmt may spend 5.4 % more multiply-accumulates, the others none. Floor: no plan needs less, since
inputs and outputs are there whole. M4, M55: with the scratch of their kernels."""
COST = """\
Executed instructions of one inference on {board} (models below 20 million multiply-accumulates);
steps of the plan, and the bytes that they add to the image; seconds of the search on the machine
that wrote this page."""


@dataclass(slots=True)
class Row:
    """One model in one mode."""

    model: str
    mode: str
    ram_bytes: int
    ram_dsp_bytes: int
    ram_mve_bytes: int
    bound_bytes: int
    optimal: bool
    macs: int
    mac_overhead: float
    steps: int
    flash_bytes: int
    planner_seconds: float
    tiles: list[dict[str, Any]] = field(default_factory=list)
    instructions: int | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=sorted(ANCHORS["models"]), metavar="NAME")
    parser.add_argument("--board", default="qemu-an386")
    parser.add_argument("--no-board", action="store_true", help="count no instructions")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    args = parser.parse_args(arguments)
    if not MODELS.is_dir():
        print(f"no models at {MODELS}; set FIELDLOOP_SHARED", file=sys.stderr)
        return 1
    rows: list[Row] = []
    try:
        for name in args.models:
            rows += plans_of(name, None if args.no_board else args.board)
    except FieldloopError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    print(page(rows, args.board))
    if args.write:
        if set(args.models) != set(ANCHORS["models"]):
            print("--write writes all models; leave --models out", file=sys.stderr)
            return 2
        PAGE.write_text(page(rows, args.board))
        data = {
            "source": ANCHORS["source"],
            "board": args.board,
            "rows": [asdict(r) for r in rows],
        }
        PAGE.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    return 0


def plans_of(name: str, board: str | None) -> list[Row]:
    """A model in all modes, each compared with the untiled one."""
    graph = load_model(MODELS / f"{name}.tflite", TRUNK.get(name, ())).graph
    compiled: dict[str, Compiled] = {}
    rows = []
    for mode, (tiling, limit) in MODES.items():
        say(f"{name}: {mode}")
        made = compile_graph(graph, learn=None, tiling=tiling, mac_limit=limit)
        compiled[mode] = made
        compare(name, mode, compiled["none"].image, made.image)
        report = made.report
        model = Model(made.image)
        ram = {variant: model.variant_arena_bytes(variant) for variant in VARIANTS}
        rows.append(
            Row(
                name,
                mode,
                report.ram_infer_bytes,
                ram["dsp"],
                ram["mve"],
                report.bound_bytes,
                report.optimal,
                report.macs,
                report.mac_overhead,
                report.steps,
                len(made.image),
                round(report.planner_seconds, 2),
                [asdict(tile) for tile in report.tiles],
            )
        )
    if board is not None and graph.macs() < SMALL:
        counted(name, {m: compiled[m].image for m in COUNTED}, rows, board)
    return rows


def compare(name: str, mode: str, whole: bytes, tiled: bytes) -> None:
    """Raises where an output differs in any byte."""
    rng = np.random.default_rng(0)
    for variant in VARIANTS:
        models = [Model(image, variant=variant) for image in (whole, tiled)]
        given = []
        for info in models[0].inputs:
            if info.dtype == "float32":
                given.append(rng.normal(size=info.size).astype(np.float32))
            else:
                given.append(rng.integers(-128, 128, info.size).astype(info.dtype))
        made = []
        for model in models:
            for number, values in zip(model.input_tensors, given, strict=True):
                model.tensor(number).reshape(-1)[:] = values
            model.run_ops(0, model.op_count)
            made.append(b"".join(model.tensor(t).tobytes() for t in model.output_tensors))
        if made[0] != made[1]:
            raise FieldloopError(f"{name}, {mode}, {variant}: tiled and untiled differ")


def counted(name: str, images: dict[str, bytes], rows: list[Row], board: str) -> None:
    """Executed instructions of one run, from the memory of earlier runs where there is one."""
    memory = build_dir() / "fdt" / "counts.json"
    known: dict[str, int] = json.loads(memory.read_text()) if memory.exists() else {}
    keys = {m: f"{board} {firmware()} {hashlib.sha256(i).hexdigest()}" for m, i in images.items()}
    todo = [m for m in images if keys[m] not in known]
    if todo:
        say(f"{name}: counting {', '.join(todo)} on {board}")
        costs = measure([Subject(m, images[m]) for m in todo], board)
        known.update({keys[m]: cost.instructions for m, cost in zip(todo, costs, strict=True)})
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.write_text(json.dumps(known, indent=1))
    for row in rows:
        if row.mode in keys:
            row.instructions = known[keys[row.mode]]


def firmware() -> str:
    """Names the C sources that are counted."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "cmodules" / "fieldloop").rglob("*.[ch]")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def page(rows: Sequence[Row], board: str) -> str:
    by_model: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_model.setdefault(row.model, {})[row.mode] = row
    return "\n".join(
        [
            "# Tiling",
            "",
            HEAD,
            "",
            "## Arena",
            "",
            ARENA,
            "",
            *markdown(arena_rows(by_model), right=range(1, 12)),
            "",
            "## What it costs",
            "",
            COST.format(board=board),
            "",
            *markdown(cost_rows(by_model), right=range(1, 12)),
            "",
            "## Where",
            "",
            *markdown(place_rows(rows), right=()),
            "",
        ]
    )


def arena_rows(by_model: dict[str, dict[str, Row]]) -> list[tuple[str, ...]]:
    out = [
        ("model", "TFLM", "FDT rules", "FFMT rules", "untiled", "fdt", "ffmt", "auto", "saved",
         "floor", "auto, M4", "auto, M55")
    ]  # fmt: skip
    for name, row in by_model.items():
        known = ANCHORS["models"][name]
        ffmt = known.get("ffmt")
        auto = row["auto"]
        out.append(
            (
                name,
                number(known.get("tflm")),
                number(known.get("fdt")),
                f"{number(ffmt[0])} ({ffmt[1]:+.1f} %)" if ffmt else "",
                number(row["none"].ram_bytes),
                number(row["fdt"].ram_bytes),
                f"{number(row['ffmt'].ram_bytes)} ({100 * row['ffmt'].mac_overhead:+.1f} %)",
                f"**{number(auto.ram_bytes)}**",
                f"{100 * (1 - auto.ram_bytes / row['none'].ram_bytes):.0f} %",
                number(auto.bound_bytes),
                number(auto.ram_dsp_bytes),
                number(auto.ram_mve_bytes),
            )
        )
    return out


def cost_rows(by_model: dict[str, dict[str, Row]]) -> list[tuple[str, ...]]:
    out = [
        ("model", "MACs", "auto", "untiled, instructions", "fdt", "", "auto", "", "steps, auto",
         "flash, auto", "s, fdt", "s, auto")
    ]  # fmt: skip
    for name, row in by_model.items():
        none, fdt, auto = row["none"], row["fdt"], row["auto"]
        out.append(
            (
                name,
                number(none.macs),
                f"{100 * auto.mac_overhead:+.1f} %",
                number(none.instructions),
                number(fdt.instructions),
                percent(fdt.instructions, none.instructions),
                number(auto.instructions),
                percent(auto.instructions, none.instructions),
                number(auto.steps),
                f"+{number(auto.flash_bytes - none.flash_bytes)}",
                f"{fdt.planner_seconds:.1f}",
                f"{auto.planner_seconds:.1f}",
            )
        )
    return out


def place_rows(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    out = [("model", "mode", "operators, how")]
    for row in rows:
        if row.tiles:
            tiles = "; ".join(
                f"{t['kind']} {t['amount']}: {short(t['first'])} to {short(t['last'])}"
                for t in row.tiles
            )
            out.append((row.model, row.mode, tiles))
    return out


def short(name: str) -> str:
    """The part of a TFLite operator's long name that people know."""
    return name.split(";")[0].rsplit("/", 2)[-1][-28:].replace("|", "/")


def number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def percent(value: int | None, base: int | None) -> str:
    return "" if value is None or not base else f"{100 * (value / base - 1):+.1f} %"


def markdown(rows: Sequence[tuple[str, ...]], right: Sequence[int]) -> list[str]:
    rule = ["--:" if i in right else "---" for i in range(len(rows[0]))]
    return [f"| {' | '.join(row)} |" for row in (rows[0], tuple(rule), *rows[1:])]


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
