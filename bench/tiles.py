"""Tiled = untiled in every byte: every model, in any number of parts, here and on boards.

    python bench/tiles.py --write
    python bench/tiles.py --only 'kws*' --n 2,3,7,16 --kinds fdt,ffmt --boards none

Each model is cut into n slices of channels (fdt), n tiles of rows (ffmt) or streamed n rows at a
time, wherever that applies, and planned as the search has it (fdt, ffmt, auto). Every plan is
verified; its image runs here with each set of kernels and on the boards, on stored and random
inputs, and each output is compared with the untiled image's. What was done is kept in --state: run
it again to go on, or after a change to run what it touched. `--write` puts the result into
docs/results/tiles.md and .json.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "host"))

from sweep import CUTS, stored_inputs  # noqa: E402

from fieldloop.cli.console import Console  # noqa: E402
from fieldloop.compare.probe import romfs_room  # noqa: E402
from fieldloop.compare.sweep import (  # noqa: E402
    Case,
    Memory,
    Result,
    board_build,
    boards,
    on_board,
    raw_sample,
)
from fieldloop.compare.tiles import KINDS, MODES, Cut, Cutter, Tiled, whole_model  # noqa: E402
from fieldloop.errors import FieldloopError  # noqa: E402
from fieldloop.image.reader import read_image  # noqa: E402
from fieldloop.runtime.core import VARIANTS  # noqa: E402
from fieldloop.sources import compile_source, read_source  # noqa: E402

PAGE = ROOT / "docs" / "results" / "tiles.md"
LARGE_MACS = 200_000_000
# On a simulated board a run of a large model takes a minute; the search's plans are run, too.
LARGE_PARTS = (3, 16)
BATCH_BYTES = 64 << 20  # of images that are held at once
SINGLE_LAYERS = "single layers"


@dataclass(slots=True)
class Row:
    """A model (or all single layers) and a kind: what was run, and what was wrong."""

    model: str
    kind: str
    parts: set[int] = field(default_factory=set)
    plans: int = 0  # that apply
    images: int = 0  # of them, that are different
    work: list[float] = field(default_factory=list)  # multiply-accumulates, untiled 1
    runners: dict[str, list[int]] = field(default_factory=dict)  # images, compared, different
    left_out: dict[str, int] = field(default_factory=dict)  # images, by runner
    searched: dict[str, int] = field(default_factory=dict)  # bytes of arena, of one plan

    def count(self, result: Result) -> None:
        if result.note:
            self.left_out[result.runner] = self.left_out.get(result.runner, 0) + 1
            return
        images, compared, different = self.runners.get(result.runner, [0, 0, 0])
        self.runners[result.runner] = [
            images + 1,
            compared + result.samples,
            different + result.different,
        ]
        if result.touched_bytes and self.model != SINGLE_LAYERS:
            self.searched[f"{result.runner} arena"] = result.arena_bytes
            self.searched[f"{result.runner} touched"] = result.touched_bytes

    def as_json(self) -> dict[str, Any]:
        names = ("images", "compared", "different")
        return {
            "model": self.model,
            "kind": self.kind,
            "parts": ranges(self.parts),
            "plans": self.plans,
            "images": self.images,
            "mac_factor": [round(min(self.work), 4), round(max(self.work), 4)],
            "runners": {
                runner: dict(zip(names, counts, strict=True))
                for runner, counts in self.runners.items()
            },
            "left_out": self.left_out,
            "arena_bytes": self.searched,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A case for a board; `planned`: bytes of arena."""

    row: Row
    case: Case
    planned: int


class Sweep:
    """All models; rows by model and kind, and what was wrong."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args = args
        self.console = console
        self.boards: list[str] = [] if args.boards == ["none"] else boards(args.boards)
        self.builds = {name: board_build(name, say=console.note) for name in self.boards}
        self.on_boards = Memory.at(args.state / "boards.json")
        self.rows: dict[tuple[str, str], Row] = {}
        self.wrong: list[str] = []
        self.missing = 0  # plans and runs that are not remembered
        self.waiting: dict[str, list[Waiting]] = {name: [] for name in self.boards}

    def model(self, path: Path) -> None:
        """One model in every way; its board cases may wait for those of the next ones."""
        source = read_source(path, outputs=CUTS.get(path.stem, ()))
        graph = source.imported.graph
        large = graph.macs() > LARGE_MACS
        parsed = read_image(compile_source(source).image)
        stored = stored_inputs(self.args.models, path.stem)[: 0 if large else 2]
        whole = whole_model(
            path.stem,
            graph,
            stored=[raw_sample(source, parsed, raw) for raw in stored],
            random=1 if large else 2,
        )
        cutter = Cutter(whole, Memory.at(self.args.state / f"{path.stem}.json"))
        parts = self.args.large_n if large and self.args.large_n else self.args.n
        cuts = [Cut(mode) for mode in self.args.modes]
        cuts += [Cut(kind, n) for kind in self.args.kinds for n in parts]
        done: set[str] = set()
        for cut in cuts:
            tiled = cutter.known(cut) if self.args.remembered else cutter.tiled(cut)
            if tiled is None:
                self.missing += 1
                continue
            if tiled.wrong:
                self.wrong.append(f"{whole.name} {cut}: {tiled.wrong}")
            if tiled.uid:
                row = self.row(SINGLE_LAYERS if path.parent.name == "layers" else path.stem, cut)
                row.plans += 1
                row.parts |= {cut.parts} - {0}
                row.work.append(tiled.macs / graph.macs() if graph.macs() else 1.0)
                if not cut.parts and row.model != SINGLE_LAYERS:
                    row.searched["untiled"] = whole.arena_bytes
                    row.searched["planned"] = tiled.arena_bytes
                    row.searched["touched"] = tiled.touched_bytes
                if tiled.uid not in done:
                    row.images += 1
                    self.run(row, cutter, cut, tiled)
                done.add(tiled.uid)

    def run(self, row: Row, cutter: Cutter, cut: Cut, tiled: Tiled) -> None:
        """A plan of its own: here at once, on the boards with others."""
        whole = cutter.whole
        if self.args.remembered:
            found = [cutter.memory.get(cutter.host_key(tiled, variant)) for variant in VARIANTS]
            results = [result for result in found if result is not None]
            self.missing += len(found) - len(results)
        else:
            results = cutter.on_host(cut, tiled)
        for result in results:
            self.take(row, result)
        macs = whole.graph.macs()
        few = macs > LARGE_MACS and cut.parts and cut.parts not in LARGE_PARTS
        limit = self.args.board_macs
        for board, waiting in self.waiting.items():
            known = self.on_boards.get(cutter.key(tiled, self.builds[board]))
            if known is not None:
                self.take(row, known, tiled.arena_bytes)
            elif few or (limit and macs > limit * 1e6) or len(whole.image) > romfs_room(board):
                row.left_out[board] = row.left_out.get(board, 0) + 1
            elif self.args.remembered:
                row.left_out[board] = row.left_out.get(board, 0) + 1
                self.missing += 1
            else:
                waiting.append(Waiting(row, cutter.case(cut), tiled.arena_bytes))
                if sum(len(one.case.image) for one in waiting) > BATCH_BYTES:
                    self.flush(board)

    def row(self, model: str, cut: Cut) -> Row:
        kind = cut.kind if cut.parts else f"search {cut.kind}"
        return self.rows.setdefault((model, kind), Row(model, kind))

    def take(self, row: Row, result: Result, planned: int = 0) -> None:
        row.count(result)
        if result.different:
            self.wrong.append(f"{result.model}, {result.runner}: {result.where}")
        if result.touched_bytes and not planned <= result.touched_bytes <= result.arena_bytes:
            self.wrong.append(
                f"{result.model}, {result.runner}: {result.touched_bytes} bytes touched of "
                f"{result.arena_bytes}, {planned} planned without the kernels' scratch"
            )

    def flush(self, board: str) -> None:
        """Runs on a board what waits for it."""
        waiting = {one.case.name: one for one in self.waiting[board]}
        cases = [one.case for one in waiting.values()]
        self.waiting[board].clear()
        if cases:
            self.console.stage(f"{board}: {len(cases)} images")
            done = on_board(
                cases,
                board,
                self.on_boards,
                say=self.console.note,
                progress=self.console.progress,
            )
            for result in done:
                one = waiting[result.model]
                self.take(one.row, result, one.planned)


def ranges(numbers: set[int]) -> str:
    """2-5, 7"""
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and runs[-1][1] == n - 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def numbers(text: str) -> list[int]:
    """2..64, or 2,3,7"""
    try:
        if ".." in text:
            first, last = (int(word) for word in text.split(".."))
            found = list(range(first, last + 1))
        else:
            found = [int(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers like 2..64 or 2,3,7, got {text!r}")
    return found


def words(*known: str) -> Any:
    def parse(text: str) -> list[str]:
        found = [word for word in text.split(",") if word]
        unknown = sorted(set(found) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, got {text!r}")
        return found

    return parse


def chosen(args: argparse.Namespace) -> list[Path]:
    """Networks, small ones first, and single layers; the largest networks at the end."""
    networks = sorted((args.models / "tflite").glob("*.tflite"), key=lambda p: p.stat().st_size)
    layers = sorted((args.models / "layers").glob("*.tflite"))
    paths = [*networks[:-2], *layers, *networks[-2:]]
    found = [path for path in paths if fnmatch.fnmatch(path.stem, args.only)]
    if not found:
        raise FieldloopError(f"{args.models}: no models called {args.only}; see --models, --only")
    return found


def page(sweep: Sweep, rows: list[Row], command: str, seconds: float) -> str:
    wrong = sweep.wrong
    runners = list(dict.fromkeys(name for row in rows for name in (*row.runners, *row.left_out)))
    compared = sum(counts[1] for row in rows for counts in row.runners.values())
    images = sum(row.images for row in rows)
    day = datetime.now(timezone.utc).date().isoformat()
    lines = [
        "# Tiled against untiled",
        "",
        f"Written on {day} by `{command}`: {images} tiled images, {compared} runs, "
        f"{len(wrong)} differences. A run counts as equal when every byte of every output is the "
        "untiled image's in plain C.",
        "",
        "fdt: n slices of channels; ffmt: n tiles of rows, with a halo; stream: n rows at a time, "
        "through windows; search: what `fieldloop compile --tiling` finds. Every plan is "
        "verified; its multiply-accumulates (the factor is to the untiled model's) are those that "
        "the core counts, and never more than untiled for fdt, stream and auto; what one run on "
        "the host touches of its arena is what was planned, to the byte. Plans with the same "
        "image run once, under the first. A cell of a runner tells runs, and in brackets the "
        f"images that were not run there: of models above {LARGE_MACS // 1_000_000} M "
        "multiply-accumulates boards run the search's plans and "
        f"n = {', '.join(map(str, LARGE_PARTS))}, where `--board-macs` lets them; what is larger "
        "than a board's ROMFS or RAM does not run there."
        + (f" {sweep.missing} plans and runs are not done yet." if sweep.missing else ""),
        "",
        "| model | kind | n | plans | images | work | " + " | ".join(runners) + " |",
        "|---|---|---|--:|--:|--:|" + "--:|" * len(runners),
    ]
    for row in rows:
        cells = [_cell(row, runner) for runner in runners]
        low, high = f"{min(row.work):.3f}", f"{max(row.work):.3f}"
        lines.append(
            f"| {row.model} | {row.kind} | {ranges(row.parts)} | {row.plans} | {row.images} | "
            f"{low if low == high else f'{low} to {high}'} | " + " | ".join(cells) + " |"
        )
    lines += ["", "## Arenas of the searched plans, bytes", ""]
    lines += [
        "On a board the arena holds the scratch of its kernels, too.",
        "",
    ]
    names = list(dict.fromkeys(name for row in rows for name in row.searched))
    lines += [
        "| model | search | " + " | ".join(names) + " |",
        "|---|---|" + "--:|" * len(names),
    ]
    for row in rows:
        if row.searched:
            cells = [f"{row.searched[name]}" if name in row.searched else "" for name in names]
            kind = row.kind.removeprefix("search ")
            lines.append(f"| {row.model} | {kind} | " + " | ".join(cells) + " |")
    if wrong:
        lines += ["", "## Differences", "", *(f"- {line}" for line in wrong)]
    lines += ["", f"The last call took {seconds:.0f} seconds, with what was remembered."]
    return "\n".join(lines) + "\n"


def _cell(row: Row, runner: str) -> str:
    _, compared, different = row.runners.get(runner, [0, 0, 0])
    said = f"**{different} of {compared} differ**" if different else f"{compared}"
    left = row.left_out.get(runner, 0)
    return f"{said} ({left})" if left else said


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models")
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of models")
    parser.add_argument("--n", type=numbers, default=numbers("2..64"), help="2..64, or 2,3,7")
    parser.add_argument(
        "--large-n",
        type=numbers,
        help=f"of models above {LARGE_MACS // 1_000_000} M multiply-accumulates (default: --n)",
    )
    parser.add_argument("--kinds", type=words(*KINDS), default=list(KINDS))
    parser.add_argument("--modes", type=words(*MODES), default=list(MODES), help="of the search")
    parser.add_argument(
        "--boards", type=lambda text: text.split(","), default=["qemu-an386"], help="or none"
    )
    parser.add_argument(
        "--board-macs",
        type=float,
        metavar="M",
        help="boards run no models above so many million multiply-accumulates (default: all)",
    )
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "tiles")
    parser.add_argument("--remembered", action="store_true", help="runs nothing that is not done")
    parser.add_argument("--write", action="store_true", help="write docs/results/tiles.md, .json")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()
    console = Console()
    started = time.monotonic()
    try:
        paths = chosen(args)
        sweep = Sweep(args, console)
        console.stage(f"plan {len(paths)} models, run them here: {', '.join(VARIANTS)}")
        for number, path in enumerate(paths):
            sweep.model(path)
            console.progress(number + 1, len(paths))
        for board in sweep.boards:
            sweep.flush(board)
    except FieldloopError as error:
        console.error(str(error))
        return 1
    rows = sorted(sweep.rows.values(), key=lambda row: row.model == SINGLE_LAYERS)
    command = " ".join(["python bench/tiles.py", *sys.argv[1:]])
    data = {
        "ok": not sweep.wrong,
        "command": command,
        "seconds": round(time.monotonic() - started, 1),
        "wrong": sweep.wrong,
        "missing": sweep.missing,
        "rows": [row.as_json() for row in rows],
    }
    if args.write:
        PAGE.write_text(page(sweep, rows, command, data["seconds"]))
        PAGE.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    images, runs = (
        sum(row.images for row in rows),
        sum(counts[1] for row in rows for counts in row.runners.values()),
    )
    if args.json:
        print(json.dumps(data, indent=2))
    else:
        print(f"{len(paths)} models, {images} tiled images, {runs} runs: {len(sweep.wrong)} wrong")
    for line in sweep.wrong:
        print(line, file=sys.stderr)
    return 1 if sweep.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
