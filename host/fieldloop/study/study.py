"""The study: jobs from tasks and ladders, run on all cores, each result a line in a file.

A result is keyed by everything it depends on (settings, samples, image, C core), so that a study
that was killed goes on where it was, and one with other settings starts anew.
"""

from __future__ import annotations

import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from fieldloop.errors import FieldloopError, UsageError
from fieldloop.runtime import LearnerConfig
from fieldloop.runtime.core import build
from fieldloop.study import raw, settings
from fieldloop.study.prepare import SCRATCH, SHIFT, Prepared, load, prepare_shift, store
from fieldloop.study.runs import Job, run_job
from fieldloop.study.scratch import STARTS, prepare_scratch
from fieldloop.study.tasks import TASKS

Progress = Callable[[int, int], None]
Say = Callable[[str], None]
Result = dict[str, Any]

_THREADED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_QUICK_SAMPLES, _QUICK_TESTED = 120, 100
_PROBE = 150  # samples of the run that the time is estimated from
# Work of an average run to that of a dense one, behind the forward pass.
_SHARE_OF_DENSE = 0.3


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of the study. `seeds`: their numbers."""

    folder: Path
    sets: tuple[str, ...] = tuple(TASKS)
    seeds: tuple[int, ...] = tuple(
        range(settings.FIRST_SEED, settings.FIRST_SEED + settings.SEEDS)
    )
    selectors: tuple[str, ...] = tuple(settings.SELECTORS)
    quick: bool = False
    scratch: bool = True
    processes: int = field(default_factory=lambda: os.cpu_count() or 1)

    def with_changes(self, changes: Mapping[str, Any]) -> Options:
        return replace(self, **changes)


def check(options: Options) -> tuple[list[str], dict[str, str]]:
    """Sets whose data are there, and why others are skipped; UsageError for unknown names."""
    if not options.folder.is_dir():
        raise UsageError(f"data-dir: {options.folder} is no folder")
    for name in options.sets:
        if name not in TASKS:
            raise UsageError(f"sets: expected some of {', '.join(TASKS)}, got {name!r}")
    for name in options.selectors:
        settings.selector(name)
    if not options.seeds:
        raise UsageError("seeds: expected at least one")
    skipped = {
        name: why
        for name in options.sets
        if (why := raw.missing(name, options.folder)) is not None
    }
    there = [name for name in options.sets if name not in skipped]
    if not there:
        reasons = "; ".join(skipped.values())
        raise UsageError(f"data-dir: none of the data sets is there ({reasons})")
    return there, skipped


def _begin() -> None:
    """A worker's start: it ends with the study, and warnings of libraries are nobody's here."""
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each."""
    before = {name: os.environ.get(name) for name in _THREADED}
    os.environ.update(dict.fromkeys(_THREADED, "1"))
    try:
        with ProcessPoolExecutor(
            count, mp_context=get_context("spawn"), initializer=_begin
        ) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


# ---- preparing


def place_of(folder: Path, name: str, mode: str, seed: int) -> Path:
    """A prepared task's file; those of a shift are the same for every seed."""
    return folder / (f"{name}-{mode}.npz" if mode == SHIFT else f"{name}-{mode}-{seed}.npz")


def _prepare(place: str, name: str, mode: str, folder: str, seed: int) -> None:
    made = (
        prepare_shift(name, Path(folder))
        if mode == SHIFT
        else prepare_scratch(name, Path(folder), seed)
    )
    part = Path(place).with_suffix(".part.npz")
    store(part, made)
    part.replace(place)  # whole or not at all


def prepare_all(
    options: Options,
    names: Sequence[str],
    work: Path,
    pool: ProcessPoolExecutor,
    progress: Progress,
) -> None:
    """Makes the files of all tasks that `work` has not, on all cores."""
    wanted = [(name, SHIFT, 0) for name in names]
    if options.scratch:
        wanted += [(n, SCRATCH, seed) for n in names if n in STARTS for seed in options.seeds]
    futures = [
        pool.submit(
            _prepare,
            str(place_of(work, name, mode, seed)),
            name,
            mode,
            str(options.folder),
            seed,
        )
        for name, mode, seed in wanted
        if not place_of(work, name, mode, seed).is_file()
    ]
    for done, future in enumerate(as_completed(futures), 1):
        future.result()
        progress(done, len(futures))


# ---- jobs


def jobs_of(
    options: Options,
    names: Sequence[str],
    work: Path,
    *,
    rates: Mapping[str, Sequence[float]] | None = None,
) -> list[Job]:
    """All runs. `rates`: of each mode, all of them instead of the frozen one (for tuning)."""
    given = rates or {}
    core = build().stem
    made: list[Job] = []
    for name in names:
        place = place_of(work, name, SHIFT, 0)
        made += _shift_jobs(options, load(place), place, core, given.get(SHIFT))
        if options.scratch and name in STARTS:
            for seed in options.seeds:
                place = place_of(work, name, SCRATCH, seed)
                made += _scratch_jobs(options, load(place), place, core, seed, given.get(SCRATCH))
    return made


def _shift_jobs(
    options: Options, task: Prepared, place: Path, core: str, rates: Sequence[float] | None
) -> list[Job]:
    choice = settings.chosen(task.name, SHIFT)
    samples = TASKS[task.name].samples
    jobs = []
    for name in options.selectors:
        ladder = settings.rungs_of(name, choice)
        if options.quick:
            ladder = (settings.main_rung(name, choice),)
        for rung in ladder:
            for rate in rates or (choice.rate,):
                for seed in options.seeds:
                    config = settings.config_of(
                        rung,
                        rate=rate,
                        layers=len(task.layers),
                        classes=task.classes,
                        seed=seed,
                    )
                    jobs.append(
                        _job(options, task, place, core, rung.name, name, seed, samples, config)
                    )
    return jobs


def _scratch_jobs(
    options: Options,
    task: Prepared,
    place: Path,
    core: str,
    seed: int,
    rates: Sequence[float] | None,
) -> list[Job]:
    choice = settings.chosen(task.name, SCRATCH)
    samples = STARTS[task.name].samples
    layers = len(task.layers)
    jobs = []
    for rate in rates or (choice.rate,):
        for name in options.selectors:
            rung = settings.main_rung(name, choice)
            numerics = settings.NUMERIC if name == "dense" else {"int16": {"weights": "int16"}}
            for numeric, changes in numerics.items():
                config = settings.config_of(
                    rung, rate=rate, layers=layers, classes=task.classes, seed=seed, **changes
                )
                job = _job(options, task, place, core, rung.name, name, seed, samples, config)
                jobs.append(replace(job, numeric=numeric))
    for rate in rates or (choice.fp32_rate or choice.rate,):
        job = _job(options, task, place, core, "all", settings.FP32, seed, samples, None)
        jobs.append(replace(job, numeric=settings.FP32, rate=rate))
    return jobs


def _job(
    options: Options,
    task: Prepared,
    place: Path,
    core: str,
    rung: str,
    selector: str,
    seed: int,
    samples: int,
    config: LearnerConfig | None,
) -> Job:
    return Job(
        task=task.name,
        mode=task.mode,
        selector=selector,
        rung=rung,
        seed=seed,
        samples=min(samples, _QUICK_SAMPLES) if options.quick else samples,
        tested=min(len(task.x_test), _QUICK_TESTED if options.quick else len(task.x_test)),
        config=config,
        rate=0.0 if config is None else config.lr,
        place=str(place),
        fingerprint=f"{task.fingerprint}-{core}",
    )


# ---- time


def estimate(jobs: Sequence[Job], processes: int) -> float:
    """Seconds that the jobs will take: one short dense run of each task is measured."""
    total, each = 0.0, {}
    for job in jobs:
        what = (job.task, job.mode)
        if what not in each:
            try:
                each[what] = _probe(job)
            except FieldloopError:  # the core refuses it; the run itself will say so
                each[what] = 0.0, 0.0
        step, forward = each[what]
        share = 1.0 if job.selector in ("dense", settings.FP32) else _SHARE_OF_DENSE
        total += job.samples * (forward + share * max(step - forward, 0.0))
        total += job.tested * forward
    return total / max(processes, 1)


def _probe(job: Job) -> tuple[float, float]:
    """Seconds of one dense step, and of one forward pass."""
    config = LearnerConfig(selector="dense", replays=0, lr=job.rate or 0.1)
    short = replace(job, config=config, samples=min(_PROBE, job.samples), tested=2)
    run_job(replace(short, samples=2))  # whatever is done once
    begun = time.perf_counter()
    run_job(short)
    step = (time.perf_counter() - begun) / short.samples
    begun = time.perf_counter()
    run_job(replace(short, samples=2, tested=min(_PROBE, job.tested)))
    return step, (time.perf_counter() - begun) / max(min(_PROBE, job.tested), 1)


# ---- running


def read_results(path: Path) -> dict[str, Result]:
    """Results by key; a line that was torn by a kill is left out."""
    found: dict[str, Result] = {}
    if not path.is_file():
        return found
    for line in path.read_text(errors="replace").splitlines():
        try:
            result = json.loads(line)
            found[result["key"]] = result
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _safely(job: Job) -> Result:
    """A setting that the core refuses is a result, too; it is not kept in the file."""
    try:
        return run_job(job)
    except FieldloopError as error:
        return {"key": job.key, "selector": job.selector, "task": job.task, "error": str(error)}


def execute(
    jobs: Sequence[Job], path: Path, pool: ProcessPoolExecutor, progress: Progress
) -> tuple[dict[str, Result], dict[str, str]]:
    """Runs what has no result yet. All results by key, and refusals by selector."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = read_results(path)
    wanted = {job.key: job for job in jobs}
    left = [job for key, job in wanted.items() if key not in done]
    refusals: dict[str, str] = {}
    torn = path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a") as file:
        if torn:
            file.write("\n")
        finished = len(wanted) - len(left)
        progress(finished, len(wanted))
        futures = [pool.submit(_safely, job) for job in left]
        for future in as_completed(futures):
            result = future.result()
            if "error" in result:
                refusals[f"{result['task']} {result['selector']}"] = result["error"]
            else:
                file.write(json.dumps(result) + "\n")
                file.flush()
                done[result["key"]] = result
            finished += 1
            progress(finished, len(wanted))
    return {key: done[key] for key in wanted if key in done}, refusals


def facts_of(
    names: Sequence[str], work: Path, options: Options
) -> Mapping[str, Mapping[str, Any]]:
    """What is known of each task before the first sample, by `mode/name`."""
    facts: dict[str, Mapping[str, Any]] = {}
    for name in names:
        modes = [SHIFT, *([SCRATCH] if options.scratch and name in STARTS else [])]
        for mode in modes:
            made = load(place_of(work, name, mode, options.seeds[0]))
            facts[f"{mode}/{name}"] = {
                "before": made.before,
                "tail_equals_whole": made.same,
                "forward_macs_per_sample": made.forward_macs,
                "trunk_macs": made.trunk_macs,
                "trained_layers": list(made.layers),
                "pool": len(made.x_pool),
                "test_samples": len(made.y_test),
            }
    return facts
