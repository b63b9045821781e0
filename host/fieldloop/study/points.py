"""Points and ladders: a setting over its seeds, and what a selector reaches at an effort."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """One setting on one data set, over its seeds. Efforts are parts of dense training's."""

    selector: str
    rung: str
    numeric: str
    samples: int  # of its stream
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    online: float
    backward_effort: float | None
    total_effort: float | None
    forward_macs: float
    backward_macs: float | None
    dense_backward_macs: float | None
    skipped: float  # share of samples
    clipped: float
    refused: int
    ram_bytes: int | None
    rate: float

    @property
    def accuracy(self) -> float:
        return float(np.mean(self.accuracies))

    @property
    def deviation(self) -> float:
        """Sample standard deviation over seeds; 0 of one."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0

    def without(self, seed: int) -> float:
        """Mean accuracy of the other seeds; of the only one, where there is no other."""
        others = [a for a, s in zip(self.accuracies, self.seeds, strict=True) if s != seed]
        return float(np.mean(others or self.accuracies))


def points_of(results: Iterable[Result], mode: str, task: str) -> list[Point]:
    """Every setting that was run on a data set."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for r in results:
        if r["mode"] == mode and r["task"] == task:
            groups.setdefault((r["selector"], r["rung"], r["numeric"]), []).append(r)
    return [_point(sorted(group, key=lambda r: r["seed"])) for group in groups.values()]


def _point(group: Sequence[Result]) -> Point:
    first = group[0]

    def mean(key: str) -> float | None:
        values = [r[key] for r in group]
        return None if any(v is None for v in values) else float(np.mean(values))

    forward, backward, dense = map(mean, ("forward_macs", "backward_macs", "dense_backward_macs"))
    assert forward is not None
    known = backward is not None and dense is not None and dense > 0
    return Point(
        selector=first["selector"],
        rung=first["rung"],
        numeric=first["numeric"],
        samples=first["samples"],
        seeds=tuple(r["seed"] for r in group),
        accuracies=tuple(r["accuracy"] for r in group),
        online=mean("online_accuracy") or 0.0,
        backward_effort=backward / dense if known else None,
        total_effort=(forward + backward) / (forward + dense) if known else None,
        forward_macs=forward,
        backward_macs=backward,
        dense_backward_macs=dense,
        skipped=float(np.mean([r["skipped"] / r["samples"] for r in group])),
        clipped=mean("clipped") or 0.0,
        refused=sum(r["refused"] for r in group),
        ram_bytes=first["ram_bytes"],
        rate=first["rate"],
    )


def untouched_effort(points: Sequence[Point]) -> float | None:
    """Total effort of only looking: the forward passes."""
    dense = next((p for p in points if p.selector == "dense" and p.dense_backward_macs), None)
    if dense is None or dense.dense_backward_macs is None:
        return None
    return dense.forward_macs / (dense.forward_macs + dense.dense_backward_macs)


def at_effort(ladder: Sequence[tuple[float, float]], effort: float) -> float:
    """Accuracy of a ladder of (total effort, accuracy) at an effort: straight lines between."""
    ordered = sorted(ladder)
    return float(np.interp(effort, [e for e, _ in ordered], [a for _, a in ordered]))


def reached(
    ladder: Sequence[Point], effort: float, seed: int, before: float, floor: float
) -> float:
    """What a ladder reaches at a total effort on one seed.

    Its rungs are those that no cheaper one beats on the other seeds: whoever uses a selector
    chooses its setting, but not by the run that it is judged by. Straight lines between them; the
    ladder begins with not training at all.
    """
    line, best = [(floor, before)], before
    for p in sorted(ladder, key=lambda p: p.total_effort or 0.0):
        if p.total_effort is not None and seed in p.seeds and p.without(seed) > best:
            best = p.without(seed)
            line.append((p.total_effort, p.accuracies[p.seeds.index(seed)]))
    return at_effort(line, effort)


def is_below(ladder: Sequence[Point], effort: float) -> bool:
    """No setting of the ladder was run at so little effort: what it reaches there is a part of the
    way from not training at all to its cheapest one.
    """
    return all(p.total_effort is None or p.total_effort > effort for p in ladder)


def versus(point: Point, baseline: Sequence[Point], before: float, floor: float) -> dict[str, Any]:
    """A setting against a ladder at its own total effort, seed by seed."""
    effort = point.total_effort or 0.0
    gains = [
        accuracy - reached(baseline, effort, seed, before, floor)
        for seed, accuracy in zip(point.seeds, point.accuracies, strict=True)
    ]
    mean = float(np.mean(gains))
    deviation = float(np.std(gains, ddof=1)) if len(gains) > 1 else 0.0
    return {
        "beats": mean > 0.0,
        "gain": mean,
        "gain_sd": deviation,
        "clear": len(gains) > 1 and abs(mean) > 2.0 * deviation / len(gains) ** 0.5,
        "from_untrained": is_below(baseline, effort),
    }
