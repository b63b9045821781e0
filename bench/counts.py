"""Executed instructions of a prediction and of a learning step, on each simulated board.

    python bench/counts.py --board qemu-an386 --steps 20 --json

The network is the demo's student for handwritten digits, trained for seconds. QEMU counts
(-icount); the counts repeat exactly, which is checked by a second run of everything, and are no
cycles: what an instruction costs is not simulated. A step learns one new sample and replays four.
`--write` puts the table into docs/results/counts.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "host"), str(ROOT / "tests" / "e2e")]

from digits_student import Student, settings, student  # noqa: E402

from fieldloop.errors import FieldloopError  # noqa: E402
from fieldloop.link.board import Board  # noqa: E402
from fieldloop.runtime import LearnerConfig, Model  # noqa: E402
from fieldloop.targets import qemu, roster  # noqa: E402
from fieldloop.targets.serving import serving  # noqa: E402

Say = Callable[[str], None]

PAGE = ROOT / "docs" / "results" / "counts.md"
CONFIGS = {
    "dense": LearnerConfig(selector="dense", replays=4, memory=40, seed=1),
    "tinypropv2": LearnerConfig(selector="tinypropv2", replays=4, memory=40, seed=1),
    "tinypropv2, head only": LearnerConfig(
        selector="tinypropv2", layers=1, replays=4, memory=40, seed=1
    ),
}


@dataclass(frozen=True, slots=True)
class Count:
    """`backward_macs`: executed, of all samples of all steps; 0 for predictions."""

    board: str
    what: str
    runs: int
    mean: int
    least: int
    most: int
    backward_macs: int


def count_board(name: str, net: Student, steps: int) -> list[Count]:
    with serving(name, icount=True) as device:
        board = device.board
        board.push(net.image, to="model0")
        board.activate(net.image, slot="model0")
        predicted = [_counted(board.count_predict(x)) for x in net.test_x[:steps]]
        counts = [_count(name, "predict", predicted, 0)]
        for what, config in CONFIGS.items():
            board.learner_open(settings(config))
            board.reset()
            learned, macs = _steps(board, net, steps)
            counts.append(_count(name, f"step, {what}", learned, macs))
        return counts


def _steps(board: Board, net: Student, steps: int) -> tuple[list[int], int]:
    instructions, macs = [], 0
    for x, label in zip(net.stream_x[:steps], net.stream_y[:steps], strict=True):
        told, count = board.count_step(x, int(label))
        instructions.append(_counted(count))
        macs += told.backward_macs
    return instructions, macs


def _counted(count: int | None) -> int:
    if count is None:
        raise FieldloopError("the board cannot count instructions; start it with icount")
    return count


def _count(board: str, what: str, counts: list[int], macs: int) -> Count:
    mean = round(statistics.mean(counts))
    return Count(board, what, len(counts), mean, min(counts), max(counts), macs)


def page(counts: list[Count], net: Student) -> str:
    model = Model(net.image)
    lines = [
        "# Instruction counts",
        "",
        f"Written by `python bench/counts.py --write`. The network makes {model.macs} "
        "multiply-accumulates for a prediction. Instructions executed, by QEMU's count, the same "
        "in two runs; they are not cycles. A step learns one new sample and replays four: five "
        "forward passes, and a backward pass for each sample that is worth one.",
        "",
        "| board | what | mean | least | most | backward MACs a step |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for c in counts:
        macs = "" if c.what == "predict" else str(round(c.backward_macs / c.runs))
        lines.append(f"| {c.board} | {c.what} | {c.mean} | {c.least} | {c.most} | {macs} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = roster.names("qemu")
    parser.add_argument("--board", choices=names, action="append", help="repeatable (default all)")
    parser.add_argument("--steps", type=int, default=20, help="samples for each (default 20)")
    parser.add_argument("--write", action="store_true", help="write docs/results/counts.md")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()
    if not 1 <= args.steps <= 200:
        parser.error("--steps: 1 to 200")

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if lacking := qemu.missing_tools():
        say(f"counts: {', '.join(lacking)} missing")
        return 1
    counts: list[Count] = []
    same = True
    try:
        net = student()
        for name in args.board or names:
            say(f"{name}: first run")
            first = count_board(name, net, args.steps)
            say(f"{name}: second run")
            if count_board(name, net, args.steps) != first:
                say(f"{name}: the second run counted otherwise")
                same = False
            counts += first
    except FieldloopError as error:
        say(f"counts: {error}")
        return 1
    text = page(counts, net)
    if args.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(text)
    if args.json:
        print(json.dumps({"same_in_two_runs": same, "counts": [asdict(c) for c in counts]}))
    else:
        print(text, end="")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
