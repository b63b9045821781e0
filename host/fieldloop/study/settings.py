"""What is compared: selectors, each with a ladder of settings from cheap to thorough.

The same ladders on every data set. What differs from set to set, the learning rate and which rung
stands for TinyPropv2 in the tables, was found on seeds 100 and up (`--tune`) and is frozen in
chosen.json; the study's own seeds were not looked at before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fieldloop.errors import UsageError
from fieldloop.runtime import LearnerConfig

CHOSEN = Path(__file__).parent / "chosen.json"
SEEDS = 5
FIRST_SEED = 10  # the seeds below were looked at while the study was written
TUNED_ON = (100, 101, 102, 103, 104)  # rates on the first two
RATES = MappingProxyType({"shift": (0.3, 1.0, 3.0), "scratch": (0.3, 1.0, 3.0)})
MATCHED = "matched"  # the rung of topk with tinypropv2's backward effort
HEAD = "head"  # a floor: as many entries of each layer as there are logits
FP32 = "fp32"  # a method, not a selector: the same network trained in float32


@dataclass(frozen=True, slots=True)
class Rung:
    """One setting of a selector; `changes` to the learner's configuration."""

    selector: str  # its name in the tables
    name: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Selector:
    """A name in the tables, what it is in words, its ladder, cheapest first."""

    name: str
    title: str
    rungs: tuple[Rung, ...]


def _selector(name: str, title: str, rungs: Mapping[str, Mapping[str, Any]]) -> Selector:
    made = tuple(Rung(name, key, MappingProxyType(dict(value))) for key, value in rungs.items())
    return Selector(name, title, made)


def _static(kind: str, shares: tuple[float, ...], **more: Any) -> dict[str, dict[str, Any]]:
    base = {"selector": kind, "skip": "off", "floor": HEAD}
    tail = f", floor {more['floor']}" if "floor" in more and "unit" not in more else ""
    return {f"{s:g}{tail}": {**base, "s_min": s, "s_max": s, **more} for s in shares}


def _adaptive(
    kind: str, tops: tuple[float, ...], floor: int | str = HEAD, **more: Any
) -> dict[str, dict[str, Any]]:
    base = {"selector": kind, "s_min": 0.0, "zeta": 0.5, "floor": floor}
    tail = "" if floor == HEAD else f", floor {floor}"
    if "zeta" in more:
        tail = f", zeta {more['zeta']:g}{tail}"
    return {f"0..{s:g}{tail}": {**base, "s_max": s, **more} for s in tops}


def _skipping(
    rungs: Mapping[str, Mapping[str, Any]], thresholds: tuple[float, ...]
) -> dict[str, dict[str, Any]]:
    """Every rung with every threshold of the decision metric."""
    return {
        f"{name}, skip {t:g}".lstrip(", "): {**changes, "skip": "on", "d_thr": t}
        for name, changes in rungs.items()
        for t in thresholds
    }


# The output of a network is a few entries of thousands. A selector that keeps one or two of them
# trains in the direction of those classes only, and on a stream that begins with mostly wrong
# answers the layers below die of it. So every selector has a floor: all of the logits, or at
# least four of a layer's entries. Channels of a map are few, so channel selectors have the four.
_SHARES = (0.01, 0.03, 0.1, 0.2, 0.4)
_LOW = 4
_METRICS = (0.5, 0.3, 0.15)  # thresholds of the decision metric

SELECTORS: Mapping[str, Selector] = MappingProxyType(
    {
        s.name: s
        for s in (
            _selector("dense", "dense", {"all": {"selector": "dense", "skip": "off"}}),
            _selector(
                "dense_skip",
                "dense + skip",
                _skipping({"": {"selector": "dense"}}, (0.93, 0.8, 0.6, 0.4, 0.25, 0.1, 0.05)),
            ),
            _selector(
                "topk",
                "static top-k",
                {**_static("topk", (0.01, 0.04, 0.1), floor=_LOW), **_static("topk", _SHARES)},
            ),
            _selector("random", "random-k", _static("random", _SHARES[1:])),
            _selector("tinyprop", "TinyProp", _adaptive("tinyprop", (0.2, 0.4, 0.9))),
            _selector(
                "tinypropv2",
                "TinyPropv2",
                _skipping(
                    {
                        **_adaptive("tinypropv2", (0.9,), _LOW, zeta=0.35),
                        **_adaptive("tinypropv2", (0.9,), _LOW),
                        **_adaptive("tinypropv2", (0.9,)),
                        **_adaptive("tinypropv2", (0.9,), _LOW, zeta=0.8),
                    },
                    _METRICS,
                ),
            ),
            _selector(
                "loss",
                "loss-driven rate, channels",
                _adaptive("loss", (0.1, 0.3, 0.9), _LOW, unit="channel"),
            ),
            _selector(
                "mask",
                "static masks",
                {f"{s:g}": {"selector": "mask", "mask": s} for s in (0.0, 0.125, 0.25, 0.5)},
            ),
            _selector(
                "budget",
                "skip, then budget",
                _skipping(
                    {
                        **_adaptive("budget", (0.1, 0.3), _LOW),
                        **_adaptive("budget", (0.1, 0.3)),
                    },
                    _METRICS,
                ),
            ),
            _selector(
                "topk_skip",
                "static top-k + skip",
                _skipping(_static("topk", (0.03, 0.1, 0.2)), _METRICS),
            ),
            _selector(
                "topk_channel",
                "static top-k, channels",
                _static("topk", (0.1, 0.2, 0.4), unit="channel", floor=_LOW),
            ),
            _selector(
                "tinypropv2_channel",
                "TinyPropv2, channels",
                _skipping(
                    _adaptive("tinypropv2", (0.4, 0.9), _LOW, unit="channel"), (0.3, 0.15, 0.05)
                ),
            ),
        )
    }
)

# From scratch the question is what numbers cost, not only what selectors do.
NUMERIC: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "int8": {"weights": "int8"},
        "int16": {"weights": "int16"},
        "f32": {"weights": "f32"},
    }
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was found for one data set on the tuning seeds."""

    rate: float
    rungs: Mapping[str, str]  # selector -> the rung that stands for it, where one was chosen
    matched: float  # tinypropv2's backward effort: the share of the matched static top-k
    fp32_rate: float | None = None


def chosen(name: str, mode: str) -> Choice:
    """The frozen choice; for a set that was never tuned, a middling one."""
    data = json.loads(CHOSEN.read_text()) if CHOSEN.is_file() else {}
    entry = data.get(mode, {}).get(name)
    if entry is None:
        return Choice(0.3, MappingProxyType({}), 0.1, 0.3)
    return Choice(entry["rate"], entry["rungs"], entry["matched"], entry.get("fp32_rate"))


def selector(name: str) -> Selector:
    """UsageError names those there are."""
    if name not in SELECTORS:
        raise UsageError(f"selector: expected one of {', '.join(SELECTORS)}, got {name!r}")
    return SELECTORS[name]


def rungs_of(name: str, choice: Choice) -> tuple[Rung, ...]:
    """A selector's ladder for a data set."""
    found = selector(name).rungs
    if name != "topk":
        return found
    share = round(min(max(choice.matched, 0.005), 1.0), 4)
    matched = _static("topk", (share,), floor=_LOW)
    changes = next(iter(matched.values()))
    return (*found, Rung("topk", MATCHED, MappingProxyType(changes)))


def main_rung(name: str, choice: Choice) -> Rung:
    """The rung that was chosen for a selector; where none was, the most thorough one."""
    ladder = rungs_of(name, choice)
    wanted = MATCHED if name == "topk" else choice.rungs.get(name, ladder[-1].name)
    found = next((r for r in ladder if r.name == wanted), None)
    if found is None:
        raise UsageError(f"{CHOSEN.name}: {name} has no setting {wanted!r}; tune again")
    return found


def config_of(
    rung: Rung, *, rate: float, layers: int, classes: int, seed: int, **more: Any
) -> LearnerConfig:
    """The learner's configuration of a rung. The stream is all there is: no rehearsal."""
    changes = {**rung.changes, **more}
    if changes.get("floor") == HEAD:
        changes["floor"] = classes
    share = changes.pop("mask", None)
    if share is not None:
        # The head is trained whole, of the layers below it the share of their channels.
        changes["mask"] = (1.0, *[float(share)] * (layers - 1))
    base = LearnerConfig(replays=0, memory=0, lr=rate, seed=seed)
    return replace(base, **changes)
