"""The zoo's table: what each network costs, and how right it is as float and as int8.

    python bench/zoo.py --data-dir data            # trains what is not trained yet, seed by seed
    python bench/zoo.py --data-dir data --write    # and writes docs/results/zoo.md and zoo.json

Seeds 0, 1 and 2 of every network that has data. Weights, teachers and results of a (network, seed)
are kept in build/zoo as soon as they are there, and are made again only when the recipe changes:
an interrupted run goes on where it was. Training everything takes about an hour on two cores.
`--write` also puts the weights of seed 0 into the package, which ships them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "host"))

from fieldloop.errors import FieldloopError  # noqa: E402
from fieldloop.paths import build_dir  # noqa: E402
from fieldloop.train import measure  # noqa: E402
from fieldloop.train import zoo as training  # noqa: E402
from fieldloop.zoo import data as data_sets  # noqa: E402
from fieldloop.zoo import registry  # noqa: E402

RESULTS = ROOT / "docs" / "results"
SEEDS = (0, 1, 2)
FIRST = 100  # test samples of which the test suite checks the table again
LIMIT = "1 point, or 2 test samples where that is more"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the table: a network, and which split of its data."""

    network: str
    harder: bool = False

    @property
    def name(self) -> str:
        return f"{self.network}-harder" if self.harder else self.network


JOBS = (
    Job("kws"),
    Job("resnet8"),
    Job("har"),
    Job("bearing"),
    Job("bearing", harder=True),
    Job("strokes"),
    Job("spells"),
)
UNTRAINED = ("vww", "ad01")


class Work:
    """What is kept between runs: weights and a result for each job and seed."""

    def __init__(self, folder: Path, data_dir: Path, *, again: bool, train: bool) -> None:
        self.folder = folder
        self.data_dir = data_dir
        self.again = again
        self.train = train
        folder.mkdir(parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)

    def weights(self, job: Job, seed: int) -> Path:
        return self.folder / f"{job.name}-{seed}.npz"

    def rows(self, job: Job, seeds: tuple[int, ...]) -> list[Row]:
        """Trains and measures what is missing of one job."""
        kept = {seed: self._kept(job, seed) for seed in seeds}
        if all(kept.values()):
            return [row for row in kept.values() if row]
        wanted = [seed for seed in seeds if self.train or self.weights(job, seed).is_file()]
        if not wanted:
            return []
        data = data_sets.load(job.network, self.data_dir, harder=job.harder)
        return [kept[seed] or self._make(job, seed, data) for seed in wanted]

    def _kept(self, job: Job, seed: int) -> Row | None:
        """The result of weights that this recipe made, where it is there and complete."""
        weights, result = self.weights(job, seed), self._result(job, seed)
        if self.again or not (weights.is_file() and result.is_file()):
            return None
        row: Row = json.loads(result.read_text())
        fresh = (
            row.get("recipe") == training.recipe_of(job.network).in_words()
            and row.get("weights_sha256") == _sha256(weights)
            and "int8_accuracy" in row
        )
        return row if fresh else None

    def _result(self, job: Job, seed: int) -> Path:
        return self.weights(job, seed).with_suffix(".json")

    def _make(self, job: Job, seed: int, data: data_sets.Dataset) -> Row:
        recipe = training.recipe_of(job.network)
        row = self._trained(job, seed, data, recipe.in_words())
        network = registry.load(job.network, weights=self.weights(job, seed))
        self.say(f"{job.name}, seed {seed}: compile and measure")
        compiled = measure.compile_trained(network, data, meta={"seed": seed})
        measured = measure.measure(network, compiled.image, data)
        taught = training.teach(data, recipe, cache=self.folder)
        row |= {
            "train_samples": len(data.y_train),
            "test_samples": measured.samples,
            "teacher_parameters": taught and _parameters(taught.network),
            "teacher_accuracy": taught
            and training.accuracy(taught.network, data.x_test, data.y_test),
            "float_accuracy": measured.float_accuracy,
            "int8_accuracy": measured.int8_accuracy,
            "points_lost": measured.points_lost,
            "within_limit": measured.within_limit,
            **_cost(network, compiled.report),
            # What tests/train/test_zoo_weights.py measures again.
            "first": asdict(measure.measure(network, compiled.image, data, first=FIRST)),
        }
        self._result(job, seed).write_text(json.dumps(row, indent=2) + "\n")
        self.say(
            f"{job.name}, seed {seed}: float {row['float_accuracy']:.4f}, "
            f"int8 {row['int8_accuracy']:.4f}"
        )
        return row

    def _trained(self, job: Job, seed: int, data: data_sets.Dataset, recipe: str) -> Row:
        """What is known of the weights in the folder, which are made where need be."""
        weights, result = self.weights(job, seed), self._result(job, seed)
        if weights.is_file() and result.is_file():
            kept: Row = json.loads(result.read_text())
            if kept.get("recipe") == recipe and kept.get("weights_sha256") == _sha256(weights):
                return kept
        if not self.train:
            raise FieldloopError(
                f"{weights} was made by another recipe than today's; leave --no-train away"
            )

        def progress(stage: str, done: int, total: int) -> None:
            self.say(f"{job.name}, seed {seed}: {stage} {done}/{total}")

        started = time.monotonic()
        network = training.train_student(
            data,
            training.recipe_of(job.network),
            seed=seed,
            cache=self.folder,
            progress=progress,
        )
        registry.save(weights, network)
        row: Row = {
            "network": job.network,
            "split": _split(job),
            "seed": seed,
            "recipe": recipe,
            "seconds": round(time.monotonic() - started, 1),
            "weights_sha256": _sha256(weights),
        }
        result.write_text(json.dumps(row, indent=2) + "\n")
        return row


def untrained_row(name: str) -> Row:
    compiled = measure.compile_untrained(name)
    return {"network": name, **_cost(registry.build(name), compiled.report)}


def _cost(network: Any, report: Any) -> Row:
    return {
        "parameters": _parameters(network),
        "macs": report.macs,
        "flash_bytes": report.flash_bytes,
        "ram_bytes": report.ram_infer_bytes,
    }


def _parameters(network: Any) -> int:
    return sum(p.numel() for p in network.parameters())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _split(job: Job) -> str:
    return "load 3 left out" if job.harder else "stated"


def _mean(rows: list[Row], key: str) -> str:
    values = [100.0 * row[key] for row in rows]
    spread = f" ({statistics.stdev(values):.2f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100.0 * share:.2f}"


def _each(rows: list[Row]) -> str:
    return ", ".join(
        f"{100 * row['float_accuracy']:.2f} / {100 * row['int8_accuracy']:.2f}" for row in rows
    )


def page(trained: dict[str, list[Row]], untrained: list[Row]) -> str:
    """docs/results/zoo.md."""
    lines = [
        "# The zoo: cost, float and int8 accuracy",
        "",
        "Made by `python bench/zoo.py --data-dir DIR --write`; the figures of each seed are in",
        "`zoo.json`. Accuracies are percentages of the whole test split that the data folder",
        "holds. Float is torch's, int8 is the C core's on the host, which is the device's own to",
        "the bit. Mean (standard deviation) over seeds "
        f"{', '.join(map(str, SEEDS))} (or those named); the last epoch's weights, no seed and no",
        "epoch is chosen by the test split.",
        "",
        "| network | split | seeds | test samples | teacher | float | int8 | worst loss, points |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for rows in trained.values():
        first = rows[0]
        worst = max(row["points_lost"] for row in rows)
        lines.append(
            f"| {first['network']} | {first['split']} "
            f"| {', '.join(str(row['seed']) for row in rows)} | {first['test_samples']} "
            f"| {_percent(first['teacher_accuracy'])} | {_mean(rows, 'float_accuracy')} "
            f"| {_mean(rows, 'int8_accuracy')} | {worst:.2f} |"
        )
    lines += [f"| {row['network']} | no data here | - | - | - | - | - | - |" for row in untrained]
    beyond = [name for name, rows in trained.items() if not all(r["within_limit"] for r in rows)]
    lines += [
        "",
        f"Limit for int8 (float less int8, every seed): {LIMIT}. "
        + (f"Missed by: {', '.join(beyond)}." if beyond else "Kept by every network and seed."),
        "",
        "vww (visual wake words) and ad01 (anomaly detection) have no data here: their",
        "architecture, conversion and cost are real, their weights are initial ones.",
        "",
        "## Cost",
        "",
        "Bytes of the int8 image and of its arena, inference only, by the planner.",
        "",
        "| network | what | parameters | MACs | flash, bytes | RAM, bytes |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    shown = {rows[0]["network"]: rows[0] for rows in trained.values()}
    for row in (*shown.values(), *untrained):
        lines.append(
            f"| {row['network']} | {registry.entry(row['network']).title} | {row['parameters']:,} "
            f"| {row['macs']:,} | {row['flash_bytes']:,} | {row['ram_bytes']:,} |"
        )
    lines += [
        "",
        "## Each seed",
        "",
        "Float / int8.",
        "",
        "| network | split | seeds 0, 1, ... |",
        "| --- | --- | --- |",
    ]
    for rows in trained.values():
        lines.append(f"| {rows[0]['network']} | {rows[0]['split']} | {_each(rows)} |")
    lines += [
        "",
        "## Recipes",
        "",
        "A teacher is part of its recipe: the same one teaches every seed. int8 is post-training",
        f"quantization: min-max over {measure.CALIBRATION} training samples, weights per channel.",
        "Weights of seed 0 (stated split) ship with the package as float32 `.npz`.",
        "",
        "| network | input | train samples | recipe |",
        "| --- | --- | ---: | --- |",
    ]
    for row in shown.values():
        lines.append(
            f"| {row['network']} | {data_sets.PREPARED[row['network']]} "
            f"| {row['train_samples']} | {row['recipe']} |"
        )
    lines += [
        "",
        "kws: the MFCC are computed from lossy spectrograms, resnet8: the pictures are JPEG of",
        "quality 75; neither compares directly with figures on the originals. bearing: the stated",
        "split takes the first 60 % of each record for training; `load 3 left out` is the harder",
        "one, trained on motor loads 0 to 2 and tested on load 3 (and on the normal windows, of",
        "which there are none but at load 0).",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="the real data sets")
    parser.add_argument("--only", action="append", metavar="NAME", help="(default: all jobs)")
    parser.add_argument("--again", action="store_true", help="measure again what was measured")
    parser.add_argument("--no-train", action="store_true", help="take the weights that are there")
    parser.add_argument("--write", action="store_true", help="write results and seed 0's weights")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()
    jobs = [job for job in JOBS if not args.only or job.name in args.only]
    if args.write and args.only:
        parser.error("--write takes all networks; leave --only away")
    work = Work(build_dir() / "zoo", args.data_dir, again=args.again, train=not args.no_train)
    try:
        trained = {job.name: rows for job in jobs if (rows := work.rows(job, SEEDS))}
        untrained = [untrained_row(name) for name in UNTRAINED]
    except FieldloopError as error:
        print(f"zoo: {error}", file=sys.stderr)
        return error.exit_code
    results = json.dumps({"trained": trained, "untrained": untrained}, indent=2) + "\n"
    text = page(trained, untrained)
    if args.write:
        (RESULTS / "zoo.md").write_text(text)
        (RESULTS / "zoo.json").write_text(results)
        for job in jobs:
            if not job.harder and job.name in trained:
                shutil.copyfile(work.weights(job, 0), registry.SHIPPED / f"{job.network}.npz")
    print(results if args.json else text)
    kept = all(row["within_limit"] for rows in trained.values() for row in rows)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
