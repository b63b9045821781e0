"""fieldloop bench learn: a study of the learner's selectors on real data."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldloop.cli.console import Console, Output, table
from fieldloop.cli.files import write_file
from fieldloop.errors import UsageError
from fieldloop.paths import build_dir, data_root

if TYPE_CHECKING:
    from fieldloop.study.study import Options

COMMAND = "fieldloop bench learn --study tinyprop"
_SEEDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("bench learn")
    group.add_argument("--study", choices=("tinyprop",), help="which study")
    group.add_argument("--data-dir", type=Path, metavar="DIR", help="holds the data sets")
    group.add_argument("--sets", metavar="A,B", help="data sets (default: all that are there)")
    group.add_argument("--seeds", type=int, metavar="N", help=f"of each run (default: {_SEEDS})")
    group.add_argument("--selectors", metavar="A,B", help="selectors (default: all)")
    group.add_argument("--out", type=Path, metavar="DIR", help="for tinyprop.json, .md and plots")
    group.add_argument(
        "--runs", type=Path, metavar="FILE", help="keeps each run's result; a study goes on there"
    )
    group.add_argument(
        "--work", type=Path, metavar="DIR", help="keeps prepared samples, and takes those there"
    )
    group.add_argument("--processes", type=int, metavar="N", help="at once (default: all cores)")
    group.add_argument("--no-scratch", action="store_true", help="no training from scratch")
    group.add_argument("--quick", action="store_true", help="a few samples, one setting each")
    group.add_argument("--pretrain", action="store_true", help="make the shipped weights again")
    group.add_argument("--tune", action="store_true", help="choose rates and settings again")


def run(args: argparse.Namespace, console: Console) -> Output:
    if args.study is None:
        raise UsageError("bench learn: expected --study tinyprop")
    folder = _data_dir(args.data_dir)
    if args.pretrain:
        return _pretrain(folder, console)
    return _study(args, folder, console)


def _data_dir(given: Path | None) -> Path:
    """What was given, else the data beside a clone."""
    if given is not None:
        return given
    beside = data_root().parent / "shared" / "data"
    if not beside.is_dir():
        raise UsageError("bench learn: expected --data-dir, the folder with the data sets")
    return beside


def _pretrain(folder: Path, console: Console) -> Output:
    from fieldloop.study.pretrain import RECIPES, pretrain

    made = {}
    for name in RECIPES:
        console.stage(f"train {name}")
        made[name] = str(pretrain(name, folder, progress=console.progress))
    return Output({"weights": made}, "\n".join(made.values()))


def _options(args: argparse.Namespace, folder: Path) -> Options:
    from fieldloop.study import settings
    from fieldloop.study.study import Options

    count = _SEEDS if args.seeds is None else args.seeds
    if count < 1 or (args.processes is not None and args.processes < 1):
        raise UsageError("seeds, processes: expected at least 1")
    first = settings.FIRST_SEED
    seeds = (
        settings.TUNED_ON
        if args.tune
        else (first,)
        if args.quick
        else tuple(range(first, first + count))
    )
    options = Options(folder, seeds=seeds, quick=args.quick, scratch=not args.no_scratch)
    changes: dict[str, Any] = {}
    if args.sets:
        changes["sets"] = tuple(args.sets.split(","))
    if args.selectors:
        changes["selectors"] = tuple(args.selectors.split(","))
    if args.processes is not None:
        changes["processes"] = args.processes
    return options.with_changes(changes)


def _study(args: argparse.Namespace, folder: Path, console: Console) -> Output:
    from fieldloop.study import study, summary
    from fieldloop.study.tune import tune

    options = _options(args, folder)
    names, skipped = study.check(options)
    for name, why in skipped.items():
        console.note(f"{name} is left out: {why}")
    keeper = args.runs or build_dir() / "study" / "tinyprop.jsonl"
    out = args.out or build_dir() / "study"
    with tempfile.TemporaryDirectory(prefix="fieldloop-study-") as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        with study.workers(options.processes) as pool:
            console.stage("prepare the data sets")
            study.prepare_all(options, names, work, pool, console.progress)
            if args.tune:
                chosen = tune(
                    options,
                    names,
                    work,
                    keeper,
                    pool,
                    say=console.stage,
                    progress=console.progress,
                )
                return Output({"chosen": chosen}, json.dumps(chosen, indent=1))
            jobs = study.jobs_of(options, names, work)
            known = study.read_results(keeper)
            left = [job for job in jobs if job.key not in known]
            seconds = study.estimate(left, options.processes)
            console.stage(
                f"{len(jobs)} runs, {len(jobs) - len(left)} of them done before; "
                f"about {_minutes(seconds)} on {options.processes} cores"
            )
            results, refusals = study.execute(jobs, keeper, pool, console.progress)
        facts = study.facts_of(names, work, options)
    data = summary.summarise(
        results.values(),
        facts,
        skipped=skipped,
        refusals=refusals,
        seeds=options.seeds,
        quick=options.quick,
    )
    data["estimated_seconds"] = round(seconds, 1)
    _write(out, data)
    return Output({**data, "out": str(out)}, _text(data, out))


def _write(out: Path, data: dict[str, Any]) -> None:
    from fieldloop.study import report

    write_file(out / "tinyprop.json", (json.dumps(data, indent=1) + "\n").encode())
    report.write(out, data, COMMAND)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _text(data: dict[str, Any], out: Path) -> str:
    rows: list[tuple[str, ...]] = [
        ("data set", "before", "dense", "TinyPropv2", "backward", "total effort")
    ]
    for name, d in data["datasets"].items():
        figures = (
            d["accuracy_before"],
            d.get("dense_accuracy"),
            d.get("tinypropv2_accuracy"),
            d.get("tinypropv2_backward_effort"),
            d.get("tinypropv2_total_effort"),
        )
        rows.append((name, *("" if v is None else f"{v:.3f}" for v in figures)))
    best = data["summary"]["best"]
    return f"{table(rows)}\n\nbest at equal total effort: {best}\nwritten to {out}"
