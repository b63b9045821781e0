"""Results -> figures: what the study says of each data set, and of all of them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fieldloop.runtime import LearnerConfig
from fieldloop.study import settings
from fieldloop.study.points import (
    Point,
    Result,
    is_below,
    points_of,
    reached,
    untouched_effort,
    versus,
)
from fieldloop.study.prepare import SCRATCH, SHIFT
from fieldloop.study.scratch import STARTS
from fieldloop.study.tasks import TASKS

# Work on top of the forward passes, as parts of dense training's backward work, at which
# selectors are ranked.
BUDGETS = (0.03, 0.06, 0.1, 0.2)
BASELINES = ("dense_skip", "topk")
POINT = 0.01
PAPERS_EFFORT = 0.1  # backward, at which TinyPropv2 is judged


def summarise(
    results: Iterable[Result],
    facts: Mapping[str, Mapping[str, Any]],
    *,
    skipped: Mapping[str, str],
    refusals: Mapping[str, str],
    seeds: Sequence[int],
    quick: bool,
) -> dict[str, Any]:
    """The whole study as one JSON object."""
    every = list(results)
    datasets, scratch = {}, {}
    for name in TASKS:
        if f"{SHIFT}/{name}" in facts:
            made = _dataset(name, points_of(every, SHIFT, name), facts[f"{SHIFT}/{name}"])
            if made is not None:
                datasets[name] = made
    for name in STARTS:
        if f"{SCRATCH}/{name}" in facts:
            points = points_of(every, SCRATCH, name)
            if points:
                scratch[name] = _scratch(name, points, facts[f"{SCRATCH}/{name}"])
    return {
        "study": "tinyprop",
        "quick": quick,
        "seeds": len(seeds),
        "seed_list": list(seeds),
        "datasets": datasets,
        "scratch": scratch,
        "ranking": _ranking(datasets),
        "summary": _verdict(datasets, scratch),
        "skipped": dict(skipped),
        "refused": dict(refusals),
    }


def _dataset(
    name: str, points: Sequence[Point], facts: Mapping[str, Any]
) -> dict[str, Any] | None:
    if not points:
        return None
    task, choice = TASKS[name], settings.chosen(name, SHIFT)
    dense = next((p for p in points if p.selector == "dense"), None)
    floor = untouched_effort(points)
    made: dict[str, Any] = {
        "title": task.title,
        "shift": task.shift,
        "network": task.network,
        "trained": task.trained,
        "seeds": max(len(p.seeds) for p in points),
        "stream_samples": max(p.samples for p in points),
        "rate": choice.rate,
        "accuracy_before": facts["before"],
        "forward_effort": floor,
        **{k: v for k, v in facts.items() if k != "before"},
        "instructions": None,
    }
    for selector in settings.SELECTORS:
        mine = [p for p in points if p.selector == selector]
        if not mine:
            continue
        main = _main(points, selector, choice)
        made |= _figures(selector, main, dense)
    made["ladders"] = {
        selector: [_row(p) for p in sorted(mine, key=lambda p: p.total_effort or 0.0)]
        for selector in settings.SELECTORS
        if (mine := [p for p in points if p.selector == selector])
    }
    if floor is not None:
        made["versus"] = _comparisons(points, choice, facts["before"], floor)
        made["at_budget"] = _at_budgets(points, facts["before"], floor)
    return made


def _main(points: Sequence[Point], selector: str, choice: settings.Choice) -> Point:
    """The point that stands for a selector: the one that was chosen on other seeds, else the one
    whose effort, whatever its accuracy, is the nearest to TinyPropv2's.
    """
    ladder = [p for p in points if p.selector == selector]
    wanted = settings.main_rung(selector, choice).name
    found = next((p for p in ladder if p.rung == wanted), ladder[0])
    if selector in ("dense", "topk", "tinypropv2"):
        return found
    if not any(p.selector == "tinypropv2" for p in points):
        return found
    effort = _main(points, "tinypropv2", choice).backward_effort or 0.0
    return min(ladder, key=lambda p: abs((p.backward_effort or 0.0) - effort))


def _figures(selector: str, main: Point, dense: Point | None) -> dict[str, Any]:
    return {
        f"{selector}_accuracy": main.accuracy,
        f"{selector}_accuracy_sd": main.deviation,
        f"{selector}_accuracy_loss": None if dense is None else dense.accuracy - main.accuracy,
        f"{selector}_backward_effort": main.backward_effort,
        f"{selector}_total_effort": main.total_effort,
        f"{selector}_forward_macs": main.forward_macs,
        f"{selector}_backward_macs": main.backward_macs,
        f"{selector}_total_macs": main.forward_macs + (main.backward_macs or 0.0),
        f"{selector}_skipped": main.skipped,
        f"{selector}_ram_bytes": main.ram_bytes,
        f"{selector}_setting": main.rung,
        f"{selector}_instructions": None,
    }


def _row(p: Point) -> dict[str, Any]:
    return {
        "setting": p.rung,
        "numeric": p.numeric,
        "accuracy": p.accuracy,
        "accuracy_sd": p.deviation,
        "accuracies": list(p.accuracies),
        "online_accuracy": p.online,
        "backward_effort": p.backward_effort,
        "total_effort": p.total_effort,
        "forward_macs": p.forward_macs,
        "backward_macs": p.backward_macs,
        "skipped": p.skipped,
        "clipped": p.clipped,
        "refused": p.refused,
        "ram_bytes": p.ram_bytes,
        "rate": p.rate,
    }


def _comparisons(
    points: Sequence[Point], choice: settings.Choice, before: float, floor: float
) -> dict[str, Any]:
    """Every selector's own setting against the two strong baselines."""
    dense = [p for p in points if p.selector == "dense"]
    made: dict[str, Any] = {}
    for selector in settings.SELECTORS:
        ladder = [p for p in points if p.selector == selector]
        if not ladder or selector == "dense":
            continue
        mine = _main(points, selector, choice)
        if mine.total_effort is None:
            continue
        made[selector] = {
            baseline: versus(mine, [*others, *dense], before, floor)
            for baseline in BASELINES
            if selector != baseline and (others := [p for p in points if p.selector == baseline])
        }
    return made


def _at_budgets(points: Sequence[Point], before: float, floor: float) -> dict[str, Any]:
    """Accuracy of each selector at total efforts that all of them can be held to; and those of
    these efforts that are below its ladder.
    """
    made = {}
    for selector in settings.SELECTORS:
        ladder = [p for p in points if p.selector == selector and p.total_effort is not None]
        if not ladder or selector == "dense":
            continue
        seeds = sorted({seed for p in ladder for seed in p.seeds})
        efforts = {f"{b:g}": floor + b * (1.0 - floor) for b in BUDGETS}
        made[selector] = {
            name: float(np.mean([reached(ladder, e, seed, before, floor) for seed in seeds]))
            for name, e in efforts.items()
        }
        made[selector]["below"] = [name for name, e in efforts.items() if is_below(ladder, e)]
    return made


def _ranking(datasets: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean over data sets of the accuracy at each budget; first the best at the papers' 10 %.
    `below`: on how many sets that is a part of the way from not training at all.
    """
    rows = []
    for selector in settings.SELECTORS:
        sets = [
            d["at_budget"][selector]
            for d in datasets.values()
            if selector in d.get("at_budget", {})
        ]
        if sets and len(sets) == len(datasets):
            means = {f"{b:g}": float(np.mean([s[f"{b:g}"] for s in sets])) for b in BUDGETS}
            rows.append(
                {
                    "selector": selector,
                    "at_budget": means,
                    "below": {n: sum(n in s["below"] for s in sets) for n in means},
                    "mean": float(np.mean(list(means.values()))),
                }
            )
    return sorted(rows, key=lambda row: -row["at_budget"][f"{PAPERS_EFFORT:g}"])


def _scratch(name: str, points: Sequence[Point], facts: Mapping[str, Any]) -> dict[str, Any]:
    start = STARTS[name]
    made: dict[str, Any] = {
        "title": start.title,
        "network": start.network,
        "seeds": max(len(p.seeds) for p in points),
        "stream_samples": max(p.samples for p in points),
        "accuracy_before": facts["before"],
        **{k: v for k, v in facts.items() if k != "before"},
        "methods": {_method(p): _row(p) for p in points},
    }
    float32 = next((p for p in points if p.selector == settings.FP32), None)
    for p in points:
        if p.selector == "dense":
            made[f"{p.numeric}_accuracy"] = p.accuracy
            if float32 is not None:
                made[f"{p.numeric}_points_lost"] = 100.0 * (float32.accuracy - p.accuracy)
    if float32 is not None:
        made["fp32_accuracy"] = float32.accuracy
    return made


def _method(p: Point) -> str:
    return p.selector if p.selector == settings.FP32 else f"{p.selector}/{p.numeric}"


def _verdict(
    datasets: Mapping[str, Mapping[str, Any]], scratch: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What the study has to show, as numbers."""
    within = [
        name
        for name, d in datasets.items()
        if d.get("tinypropv2_backward_effort") is not None
        and d["tinypropv2_backward_effort"] <= PAPERS_EFFORT
        and d.get("tinypropv2_accuracy_loss") is not None
        and d["tinypropv2_accuracy_loss"] <= POINT + 1e-9  # a point is 0.01 but for its last bit
    ]
    lost = {
        numeric: float(np.mean([s[f"{numeric}_points_lost"] for s in scratch.values()]))
        for numeric in settings.NUMERIC
        if scratch and all(f"{numeric}_points_lost" in s for s in scratch.values())
    }
    ranking = _ranking(datasets)
    against = {
        baseline: {
            name: found
            for name, d in datasets.items()
            if (found := d.get("versus", {}).get("tinypropv2", {}).get(baseline))
        }
        for baseline in BASELINES
    }
    return {
        "tinypropv2_within_a_point": within,
        "tinypropv2_compared": {b: list(found) for b, found in against.items()},
        "tinypropv2_beats": {
            b: [name for name, v in found.items() if v["beats"]] for b, found in against.items()
        },
        "tinypropv2_beats_clearly": {
            b: [
                name
                for name, v in found.items()
                if v["beats"] and v["clear"] and not v["from_untrained"]
            ]
            for b, found in against.items()
        },
        "best": ranking[0]["selector"] if ranking else None,
        "default": _default(),
        "scratch_points_lost": lost,
    }


def _default() -> str | None:
    """The study's name of what a learner does when nobody says anything."""
    usual = LearnerConfig()
    skips = usual.skip == "on" or (
        usual.skip == "auto" and usual.selector in ("tinypropv2", "budget")
    )
    for name, selector in settings.SELECTORS.items():
        changes = selector.rungs[0].changes
        same = changes["selector"] == usual.selector and skips == (changes.get("skip") == "on")
        if same and changes.get("unit", "element") == usual.unit:
            return name
    return None
