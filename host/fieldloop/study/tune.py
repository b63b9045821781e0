"""Finds what is frozen in chosen.json, on seeds that the study never uses.

The rate: where dense training is best. TinyPropv2's rung: the cheapest within 0.3 points of the
best of those below 9 % backward effort. Every other selector's: the one nearest to its effort.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from fieldloop.study import settings
from fieldloop.study.prepare import SCRATCH, SHIFT
from fieldloop.study.runs import Job
from fieldloop.study.study import Options, Progress, Result, execute, jobs_of
from fieldloop.study.summary import Point, points_of

_MOST = 0.09  # backward effort
_NEAR = 0.003  # accuracy
_FAST = ("tinypropv2", "budget")  # tuned on every seed; of the others one tells the effort

Say = Callable[[str], None]


def tune(
    options: Options,
    names: Sequence[str],
    work: Path,
    path: Path,
    pool: ProcessPoolExecutor,
    *,
    say: Say,
    progress: Progress,
    to: Path = settings.CHOSEN,
) -> dict[str, Any]:
    """Tunes the sets named and writes them over what `to` holds of them."""
    data = json.loads(to.read_text()) if to.is_file() else {}

    def keep(mode: str, name: str, entry: Mapping[str, Any]) -> None:
        data.setdefault(mode, {}).setdefault(name, {}).update(entry)
        text = json.dumps(data, indent=1, sort_keys=True) + "\n"
        to.write_text(text)

    say("rates of dense training")
    dense = replace(options, selectors=("dense",))
    jobs = jobs_of(dense, names, work, rates=settings.RATES)
    first = options.seeds[0]
    results, _ = execute([j for j in jobs if _is_rate(j, first)], path, pool, progress)
    for name in names:
        for mode in (SHIFT, SCRATCH):
            rates = _best_rates(results, mode, name)
            if rates is not None:
                keep(mode, name, rates)
    say("ladders")
    jobs = [
        job
        for job in jobs_of(options, names, work)
        if job.mode == SHIFT and (job.selector in _FAST or job.seed == options.seeds[0])
    ]
    results, _ = execute(jobs, path, pool, progress)
    for name in names:
        points = points_of(results.values(), SHIFT, name)
        if points:
            chosen = _chosen_rungs(points)
            keep(SHIFT, name, chosen)
            if SCRATCH in data and name in data[SCRATCH]:
                keep(SCRATCH, name, chosen)
    return data


def _is_rate(job: Job, first: int) -> bool:
    """From scratch the rate is that of the finest weights, and float32's own; of one seed."""
    return job.mode == SHIFT or (job.seed == first and job.numeric in ("int16", settings.FP32))


def _best_rates(results: Mapping[str, Result], mode: str, name: str) -> dict[str, Any] | None:
    sums: dict[tuple[str, float], list[float]] = {}
    for r in results.values():
        if r["mode"] == mode and r["task"] == name:
            sums.setdefault((r["selector"], r["rate"]), []).append(r["accuracy"])
    means = {key: sum(values) / len(values) for key, values in sums.items()}
    if not means:
        return None

    def best(selector: str) -> float | None:
        rates = [rate for s, rate in means if s == selector]
        return max(rates, key=lambda rate: means[selector, rate]) if rates else None

    entry: dict[str, Any] = {"rate": best("dense"), "rungs": {}, "matched": 0.1}
    if mode == SCRATCH:
        entry["fp32_rate"] = best(settings.FP32)
    return entry


def _chosen_rungs(points: Sequence[Point]) -> dict[str, Any]:
    mine = [p for p in points if p.selector == "tinypropv2" and p.backward_effort is not None]
    below = [p for p in mine if (p.backward_effort or 0.0) <= _MOST] or mine
    best = max(p.accuracy for p in below)
    near = [p for p in below if p.accuracy >= best - _NEAR]
    main = min(near, key=lambda p: p.backward_effort or 0.0)
    effort = main.backward_effort or 0.0
    rungs = {"tinypropv2": main.rung}
    for selector in settings.SELECTORS:
        ladder = [
            p
            for p in points
            if p.selector == selector
            and p.backward_effort is not None
            and p.rung != settings.MATCHED
        ]
        if ladder and selector not in rungs:
            nearest = min(ladder, key=lambda p: abs((p.backward_effort or 0.0) - effort))
            rungs[selector] = nearest.rung
    rungs["topk"] = settings.MATCHED
    return {"rungs": rungs, "matched": round(effort, 4)}
