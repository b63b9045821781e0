"""Finds what is frozen in chosen.json, on seeds that the study never uses.

The rate: where dense training is best, on the first two of them. TinyPropv2's rung: the most
accurate of those at no more than 9.7 % backward effort, on all of them: rungs lie closer together
than rates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from fieldloop.study import settings
from fieldloop.study.points import Point, points_of
from fieldloop.study.prepare import SCRATCH, SHIFT
from fieldloop.study.runs import Job
from fieldloop.study.study import Options, Progress, Result, execute, jobs_of

_MOST = 0.097  # backward effort: 10 %, and room for other seeds
_STEADY = 0.005  # from scratch the lower of two rates as near as that is taken: it is steadier

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

    def keep(mode: str, entry: Mapping[str, Any]) -> None:
        data.setdefault(mode, {}).setdefault(name, {}).update(entry)
        to.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")

    first = options.seeds[0]
    for name in names:
        say(f"{name}: rates of dense training")
        dense = replace(options, selectors=("dense",), seeds=options.seeds[:2])
        jobs = jobs_of(dense, (name,), work, rates=settings.RATES)
        results, _ = execute([j for j in jobs if _is_rate(j, first)], path, pool, progress)
        for mode in (SHIFT, SCRATCH):
            rates = _best_rates(results, mode, name)
            if rates is not None:
                keep(mode, rates)
        say(f"{name}: TinyPropv2's ladder")
        ours = replace(options, selectors=("tinypropv2",), scratch=False)
        results, _ = execute(jobs_of(ours, (name,), work), path, pool, progress)
        points = points_of(results.values(), SHIFT, name)
        if points:
            keep(SHIFT, _chosen_rungs(points))
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
        if not rates:
            return None
        top = max(means[selector, rate] for rate in rates)
        room = _STEADY if mode == SCRATCH else 0.0
        near = [rate for rate in rates if means[selector, rate] >= top - room]
        return min(near) if mode == SCRATCH else max(near, key=lambda r: means[selector, r])

    entry: dict[str, Any] = {"rate": best("dense"), "rungs": {}, "matched": 0.1}
    if mode == SCRATCH:
        entry["fp32_rate"] = best(settings.FP32)
    return entry


def _chosen_rungs(points: Sequence[Point]) -> dict[str, Any]:
    mine = [p for p in points if p.selector == "tinypropv2" and p.backward_effort is not None]
    below = [p for p in mine if (p.backward_effort or 0.0) <= _MOST] or mine
    main = max(below, key=lambda p: p.accuracy)
    return {
        "rungs": {"tinypropv2": main.rung},
        "matched": round(main.backward_effort or 0.1, 4),
    }
