"""What a step of learning costs on each simulated board, in executed instructions.

    python bench/learning.py --board an386 --samples 300 --write

Two networks on MNIST that learn turned digits with all of their layers (learn_harness/nets.py),
beside a plain C trainer's whole dense step in f32 (research/kernel-anchors.md, section 7; forward,
backward and update, gcc -O3, M4F). Every run ends in the host's bytes. Means are over the stream,
skipped samples included. QEMU counts (-icount); the numbers repeat exactly and are no cycles.
--write puts the tables into docs/results/learning-cost.md and .json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "host"), str(ROOT / "bench")]

from learn_harness import board, kernels, nets  # noqa: E402

from fieldloop.errors import FieldloopError  # noqa: E402
from fieldloop.runtime import Learner, LearnerConfig, Model  # noqa: E402

PAGE = ROOT / "docs" / "results" / "learning-cost.md"
DENSE_SAMPLES = 20  # a dense step hardly depends on the sample
RATE = 1.0
CONFIGS = {
    "dense": LearnerConfig(selector="dense", replays=0, lr=RATE),
    "tinyprop": LearnerConfig(selector="tinyprop", replays=0, lr=RATE),
    "tinypropv2": LearnerConfig(selector="tinypropv2", d_thr=0.3, replays=0, lr=RATE),
    "budget": LearnerConfig(selector="budget", d_thr=0.3, replays=0, lr=RATE),
    "dense, int16 deltas": LearnerConfig(selector="dense", deltas="int16", replays=0, lr=RATE),
    "tinypropv2, int16 deltas": LearnerConfig(
        selector="tinypropv2", d_thr=0.3, deltas="int16", replays=0, lr=RATE
    ),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """One network, board and configuration; `shares`: of the whole, as learn_harness.PARTS."""

    network: str
    board: str
    core: str
    config: str
    samples: int
    mean: int
    least: int
    most: int
    skipped: float
    shares: dict[str, float]
    of_dense: float  # selection alone, of this board's dense step
    stack: int
    to_anchor: float | None  # mean / the plain C trainer's dense step on the M4F


@dataclass(frozen=True, slots=True)
class Gain:
    """What the stream taught: accuracy on other turned digits, and the backward effort."""

    network: str
    config: str
    before: float
    after: float
    backward_effort: float
    total_effort: float


def count(case: nets.Case, machine: board.Machine, name: str, samples: int, dense: int) -> Cost:
    config = CONFIGS[name]
    n = DENSE_SAMPLES if config.selector == "dense" else samples
    xs, ys = case.samples[:n], case.labels[:n]
    image = case.compiled.image
    counted = board.learn(machine, image, config, xs, ys)
    parted = board.learn(machine, image, config, xs, ys, parts=True)
    total = sum(step.instructions for step in counted.steps)
    spent = [sum(step.parts[i] for step in parted.steps) for i in range(len(board.PARTS))]
    trained = [step for step in parted.steps if step.trained] or parted.steps
    selection = statistics.mean(step.parts[1] for step in trained)
    mean = round(counted.mean)
    anchor = nets.ANCHORS[case.name] if machine.core == "M4" else None
    return Cost(
        network=case.name,
        board=machine.name,
        core=machine.core,
        config=name,
        samples=n,
        mean=mean,
        least=min(step.instructions for step in counted.steps),
        most=max(step.instructions for step in counted.steps),
        skipped=counted.skipped,
        shares={part: s / total for part, s in zip(board.PARTS, spent, strict=True)},
        of_dense=selection / (dense or mean),
        stack=counted.stack,
        to_anchor=None if anchor is None else mean / anchor,
    )


def gain(case: nets.Case, name: str) -> Gain:
    model = Model(case.compiled.image)

    def accuracy() -> float:
        return float((model.classify(case.test_x) == case.test_y).mean())

    before = accuracy()
    learner = Learner(model, CONFIGS[name])
    for x, y in zip(case.samples, case.labels, strict=True):
        learner.train(x, int(y))
    s = learner.stats
    return Gain(
        case.name,
        name,
        before,
        accuracy(),
        s.backward_macs / s.dense_backward_macs,
        (s.forward_macs + s.backward_macs) / (s.forward_macs + s.dense_backward_macs),
    )


def kernel_lines(counted: dict[str, dict[str, kernels.Case]]) -> list[str]:
    """A table: instructions per multiply-accumulate of each case, a column a board."""
    cores = [board.MACHINES[name].core for name in counted]
    lines = [
        "",
        "The f32 kernels one by one: instructions for a multiply-accumulate; of a step, for a"
        " weight. `input`: the delta of the layer's input; `row`: the gradient of its weights;"
        " `step`: the update. `sparse`: one output in twenty is kept.",
        "",
        "| case | MACs | " + " | ".join(cores) + " |",
        "|---|--:|" + "--:|" * len(cores),
    ]
    for case, first in next(iter(counted.values())).items():
        cells = [case, f"{first.macs:,}"]
        cells += [f"{c[case].instructions / c[case].macs:.1f}" for c in counted.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def page(costs: list[Cost], gains: list[Gain], counted: dict[str, dict[str, kernels.Case]]) -> str:
    lines = [
        "# What learning costs",
        "",
        "Written by `python bench/learning.py --write`; the figures as data are beside it in"
        " learning-cost.json. All layers of two networks learn MNIST digits turned by"
        f" {nets.TURN:.0f} degrees; they knew upright ones. Executed instructions by QEMU's count"
        " (no cycles), of one sample from the call to its return: forward, selection, backward,"
        " update; mean over the stream, skipped samples included (dense: over"
        f" {DENSE_SAMPLES} samples). Every run ended in the host's bytes. `to plain C`: beside the"
        " whole dense f32 step of a plain C trainer on the M4F, gcc -O3 (MLP 548,656, CNN"
        " 6,519,682). `selection`: of a sample that is trained, as a share of this board's dense"
        " step.",
        "",
        "| network | core | learner | mean | least | most | skipped | to plain C | forward |"
        " propagate | gradient | update | selection | stack |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for c in costs:
        cells = [c.network, c.core, c.config, f"{c.mean:,}", f"{c.least:,}", f"{c.most:,}"]
        cells += [f"{c.skipped:.0%}", "" if c.to_anchor is None else f"{c.to_anchor:.1%}"]
        shares = (c.shares[part] for part in ("forward", "propagate", "gradient", "update"))
        cells += [*(f"{s:.0%}" for s in shares), f"{c.of_dense:.1%}", str(c.stack)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "What it was worth, by the host (the same bytes): accuracy on 2,000 other turned digits.",
        "",
        "| network | learner | before | after | backward effort | total effort |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for g in gains:
        cells = [g.network, g.config, f"{g.before:.1%}", f"{g.after:.1%}"]
        cells += [f"{g.backward_effort:.1%}", f"{g.total_effort:.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *kernel_lines(counted)]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--board", action="append", choices=board.MACHINES, help="(default: all)")
    parser.add_argument(
        "--network", action="append", choices=nets.NETWORKS, help="(default: both)"
    )
    parser.add_argument("--config", action="append", choices=CONFIGS, help="(default: all)")
    parser.add_argument("--samples", type=int, default=300, help="of the stream (default 300)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()
    if not DENSE_SAMPLES <= args.samples <= 5000:
        parser.error(f"--samples: {DENSE_SAMPLES} to 5000")
    names = ["dense", *(n for n in args.config or CONFIGS if n != "dense")]
    costs: list[Cost] = []
    gains: list[Gain] = []
    try:
        counted = {n: kernels.count(board.MACHINES[n]) for n in args.board or board.MACHINES}
        for network in args.network or nets.NETWORKS:
            print(f"{network}: training", file=sys.stderr, flush=True)
            case = nets.case(network, args.samples)
            gains += [gain(case, name) for name in names]
            for machine in args.board or board.MACHINES:
                dense = 0
                for name in names:
                    print(f"{network}, {machine}: {name}", file=sys.stderr, flush=True)
                    cost = count(case, board.MACHINES[machine], name, args.samples, dense)
                    dense = cost.mean if name == "dense" else dense
                    costs.append(cost)
    except FieldloopError as error:
        print(f"learning: {error}", file=sys.stderr)
        return 1
    data: dict[str, Any] = {
        "schema": "fieldloop.bench.learning/1",
        "anchors": dict(nets.ANCHORS),
        "costs": [asdict(c) for c in costs],
        "gains": [asdict(g) for g in gains],
        "kernels": {n: {k: asdict(c) for k, c in cases.items()} for n, cases in counted.items()},
    }
    print(json.dumps(data) if args.json else page(costs, gains, counted))
    if args.write:
        PAGE.write_text(page(costs, gains, counted))
        PAGE.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
