"""Every model against its own runtime, on this machine and on boards: one command, resumable.

    python bench/sweep.py --models ../shared/models --inputs 100 --write

int8 models and single layers are compared byte by byte with tflite-micro, older uint8 ones with
LiteRT's reference kernels, float ones by their largest difference. Images enter a board through
its flash file, random inputs are made there by the same seeded generator, and only hashes come
back. What was done is kept in --state: run it again to go on, or after a change to run what it
touched. `--write` puts the table into docs/results/sweep.md and .json.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "host"))

from fieldloop.cli.console import Console, table  # noqa: E402
from fieldloop.compare.report import FLOAT_TOLERANCE  # noqa: E402
from fieldloop.compare.sweep import (  # noqa: E402
    Case,
    Memory,
    Result,
    boards,
    make_case,
    on_board,
    on_host,
)
from fieldloop.errors import FieldloopError  # noqa: E402
from fieldloop.runtime.core import VARIANTS  # noqa: E402

PAGE = ROOT / "docs" / "results" / "sweep.md"
# Which folder of stored inputs belongs to which model.
STORED = {
    "aww": "aww",
    "kws_ref_model": "aww",
    "vww_96_int8": "vww",
    "ad01_int8": "toycar",
    "resnet8_int8": "resnet",
    "micro_speech": "micro_speech",
    "text_class": "text_class",
    "magic_wand": "magic_wand",
    "cifar10": "cifar10",
}
UINT8_INPUTS = {"resnet"}  # stored as pictures: 128 less is the model's int8
# What lies before an operator that only a desktop runs.
CUTS = {"ssd": ("Squeeze", "convert_scores")}
# The oracle needs seconds for one input of these.
LARGE_MACS = 200_000_000
LARGE_INPUTS = 2


def stored_inputs(models: Path, name: str) -> list[bytes]:
    folder = models / "io" / STORED.get(name, "-") / "input"
    found = [path.read_bytes() for path in sorted(folder.glob("*.bin"))]
    if STORED.get(name) in UINT8_INPUTS:
        return [bytes(byte ^ 0x80 for byte in raw) for raw in found]
    return found


def cases(args: argparse.Namespace, console: Console) -> list[Case]:
    paths = sorted((args.models / "layers").glob("*.tflite"))
    paths += sorted((args.models / "tflite").glob("*.tflite"), key=lambda p: p.stat().st_size)
    paths = [path for path in paths if fnmatch.fnmatch(path.stem, args.only)]
    if not paths:
        raise FieldloopError(f"{args.models}: no models called {args.only}; see --models, --only")
    console.stage(f"compile {len(paths)} models and ask their own runtimes")
    made = []
    for done, path in enumerate(paths):
        large = path.stat().st_size > 1_000_000
        made.append(
            make_case(
                path,
                random=min(args.inputs, LARGE_INPUTS) if large else args.inputs,
                outputs=CUTS.get(path.stem, ()),
                stored=stored_inputs(args.models, path.stem),
            )
        )
        console.progress(done + 1, len(paths))
    return made


def is_ok(result: Result) -> bool:
    return result.ok and (result.max_rel_diff or 0.0) <= FLOAT_TOLERANCE


def page(results: list[Result], inputs: int) -> str:
    runners = list(dict.fromkeys(result.runner for result in results))
    models = list(dict.fromkeys(result.model for result in results))
    by = {(result.model, result.runner): result for result in results}
    lines = [
        "# Models against their own runtimes",
        "",
        f"Written by `python bench/sweep.py --write`; {inputs} random inputs each, and the stored "
        "ones. A cell is the number of inputs whose outputs had the same bytes as tflite-micro "
        "(uint8 models: LiteRT's reference kernels), or of a float model the largest difference "
        "as a part of the output's largest value.",
        "",
        "| model | " + " | ".join(runners) + " |",
        "|---|" + "--:|" * len(runners),
    ]
    for model in models:
        cells = [_cell(by.get((model, runner))) for runner in runners]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    if result.note:
        return result.note
    if result.max_rel_diff is not None:
        return f"{result.max_rel_diff:.1e}"
    same = result.samples - result.different
    return str(same) if not result.different else f"**{same} of {result.samples}**"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models")
    parser.add_argument("--inputs", type=int, default=100, help="random inputs a model (100)")
    parser.add_argument("--board", action="append", default=[], help="repeatable (default: all)")
    parser.add_argument("--host-only", action="store_true", help="no boards")
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of models")
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "sweep.json")
    parser.add_argument("--write", action="store_true", help="write docs/results/sweep.md, .json")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()
    console = Console()
    started = time.monotonic()
    try:
        names = [] if args.host_only else boards(args.board)
        memory = Memory.at(args.state)
        chosen = cases(args, console)
        results: list[Result] = []
        console.stage("this machine: " + ", ".join(VARIANTS))
        for done, case in enumerate(chosen):
            results += on_host(case, memory)
            console.progress(done + 1, len(chosen))
        for name in names:
            console.stage(name)
            results += on_board(chosen, name, memory, say=console.note, progress=console.progress)
    except FieldloopError as error:
        console.error(str(error))
        return 1
    bad = [result for result in results if not is_ok(result)]
    data = {
        "ok": not bad,
        "inputs": args.inputs,
        "seconds": round(time.monotonic() - started, 1),
        "results": [asdict(result) for result in results],
    }
    text = page(results, args.inputs)
    if args.write:
        PAGE.write_text(text)
        PAGE.with_suffix(".json").write_text(json.dumps(data["results"], indent=1) + "\n")
    print(json.dumps(data, indent=2) if args.json else text)
    if bad:
        rows = [(r.model, r.runner, f"{r.different} of {r.samples}", r.note) for r in bad]
        print(table(rows), file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
