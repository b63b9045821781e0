"""The study as a page: tables, plots, and what they say, in words that follow from the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldloop.study import settings
from fieldloop.study.plots import pareto_svg
from fieldloop.study.scratch import LOGIT_ROOM, ROOM, WEIGHT_ROOM
from fieldloop.study.streams import PHASES
from fieldloop.study.summary import BASELINES, BUDGETS, PAPERS_EFFORT

TITLES = {name: s.title for name, s in settings.SELECTORS.items()}
PLOTS = "tinyprop"  # the folder of plots beside the page

# Deutel et al., read from the author's poster (../shared/research is not part of this repository).
_PUBLISHED = (
    ("EMNIST-letters", 61.8, 69.0, 78.0),
    ("FMNIST", 76.1, 79.9, 84.0),
    ("KMNIST", 63.4, 69.9, 83.4),
    ("EMNIST-digits", 91.5, 93.1, 97.3),
)


def plots_of(data: Mapping[str, Any]) -> dict[str, str]:
    """File name -> SVG."""
    return {
        f"{name}.svg": pareto_svg(f"{name}: {d['shift']}", d, TITLES)
        for name, d in data["datasets"].items()
        if d.get("forward_effort") is not None
    }


def page_of(data: Mapping[str, Any], command: str) -> str:
    """The page as Markdown."""
    parts = [
        "# TinyProp, TinyPropv2 and what could beat them",
        f"Made by `{command}` from tinyprop.json; do not edit. Every run is an int8 model that "
        "learns in the host build of the device's own C core, so a device learns the same "
        f"bytes. Seeds {_and(data['seed_list'])}; settings were chosen on seeds "
        f"{_and(settings.TUNED_ON)}, and those below {settings.FIRST_SEED} were looked at while "
        "the study was written. A seed draws the stream's order and the rounding; pool and test "
        "samples are the same for all seeds, so the settings were chosen by the accuracy on the "
        "very samples that are tested here. Accuracies are shares of right answers on samples "
        "from after the shift that no stream holds.",
        "The shifts were made up for this study and chosen such that a network has something "
        "left to build on: its accuracy before learning is in the tables. A shift that leaves "
        "nothing, or next to nothing to learn, would rank selectors otherwise.",
        _warning(data),
        _findings(data),
        "## The papers' terms: backward effort",
        "Backward effort is the multiply-accumulates of weight gradients and propagation, to "
        "those of dense training over the same stream; a skipped sample costs none. Loss is "
        "dense less TinyPropv2, in points.",
        _papers(data),
        "## At equal total effort",
        "The forward pass is paid for every sample, trunk included, skipped or not: total effort "
        "is forward and backward to dense training's forward and backward. Each baseline's "
        "ladder is interpolated at TinyPropv2's own total effort, seed by seed, over the rungs "
        "that no cheaper one beats on the other seeds; it begins with not training at all. "
        "`yes` is a higher mean; ± is the deviation over seeds, and a difference within two "
        "standard errors is marked `~`. † marks a margin over a baseline that was never run at "
        "so little effort: over the straight line from not training at all to its cheapest "
        "rung, which says less than a margin over a setting.",
        _versus_table(data),
        "Mean over the data sets of the accuracy that a selector's ladder reaches when, on top "
        "of the forward passes, that part of dense training's backward work may be spent; the "
        "rungs of each seed are chosen on the others, as above. In brackets: on how many sets "
        "that is less than the cheapest rung spends (†). Ladders are not equally long: "
        f"{_lengths(data)} rungs.",
        _ranking_table(data),
        "## Data sets",
        *[_dataset(name, d) for name, d in data["datasets"].items()],
        "## From scratch",
        _scratch_text(data),
        "## How it was done",
        _method(),
    ]
    left_out = {**data["skipped"], **data["refused"]}
    if left_out:
        parts.append("## Left out")
        parts.append("\n".join(f"- {name}: {why}" for name, why in left_out.items()))
    return "\n\n".join(part for part in parts if part) + "\n"


def _and(numbers: Sequence[int]) -> str:
    """Of a row of numbers the first and the last, else all."""
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return " and ".join(map(str, numbers))


def _warning(data: Mapping[str, Any]) -> str:
    if not data["quick"]:
        return ""
    return (
        "**A quick run: a few samples, one setting of each selector, one seed. It shows that the "
        "study runs; its numbers say nothing.**"
    )


def _lengths(data: Mapping[str, Any]) -> str:
    """How many rungs each ladder of the ranking has."""
    found = {}
    for row in data["ranking"]:
        name = row["selector"]
        found[TITLES[name]] = max(len(d["ladders"][name]) for d in data["datasets"].values())
    return ", ".join(f"{title} {count}" for title, count in found.items())


def write(folder: Path, data: Mapping[str, Any], command: str) -> None:
    """tinyprop.md and the plots beside it."""
    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    for name, svg in plots_of(data).items():
        (folder / PLOTS / name).write_text(svg)
    (folder / "tinyprop.md").write_text(page_of(data, command))


def _table(rows: Sequence[Sequence[str]], right: int = 1) -> str:
    """The first row is the header; columns from `right` on are numbers."""
    rules = ["---"] * right + ["--:"] * (len(rows[0]) - right)
    lines = [rows[0], rules, *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _share(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _accuracy(d: Mapping[str, Any], name: str) -> str:
    if f"{name}_accuracy" not in d:
        return ""
    return f"{d[f'{name}_accuracy']:.3f} ({d[f'{name}_accuracy_sd']:.3f})"


def _points(value: float | None) -> str:
    return "" if value is None else f"{100.0 * value:+.1f}"


def _named(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def _findings(data: Mapping[str, Any]) -> str:
    sets, verdict = data["datasets"], data["summary"]
    lines = []
    if any("tinypropv2_accuracy_loss" in d for d in sets.values()):
        within = verdict["tinypropv2_within_a_point"]
        lines.append(
            f"- TinyPropv2 at no more than 10 % of the backward work loses no more than one "
            f"point against dense training on {len(within)} of {len(sets)} data sets"
            f"{_named(within)}."
        )
    for baseline in BASELINES:
        compared = verdict["tinypropv2_compared"][baseline]
        if not compared:
            continue
        won = verdict["tinypropv2_beats"][baseline]
        clearly = verdict["tinypropv2_beats_clearly"][baseline]
        lines.append(
            f"- At equal total effort it beats {TITLES[baseline]} on {len(won)} of "
            f"{len(compared)}{_named(won)}; by more than two standard errors, and over settings "
            f"that were run at so little effort, on {len(clearly)}{_named(clearly)}."
        )
    ranking = data["ranking"]
    if ranking:
        best, usual = ranking[0]["selector"], verdict["default"]
        said = (
            "it is the learner's default"
            if best == usual
            else f"the learner's default is another: {TITLES.get(usual, 'none of these')}"
        )
        lines.append(
            "- Best at equal total effort, mean over the data sets, with "
            f"{100 * PAPERS_EFFORT:g} % of dense training's backward work: **{TITLES[best]}**; "
            f"{said}. {_best_elsewhere(data)}"
        )
    lost = verdict["scratch_points_lost"]
    if lost:
        words = ", ".join(f"{v:+.2f} ({k} weights)" for k, v in lost.items())
        lines.append(
            "- From scratch, points lost to float32 training of the same network, mean of "
            f"{len(data['scratch'])} data sets: {words}."
        )
    return "\n".join(lines)


def _best_elsewhere(data: Mapping[str, Any]) -> str:
    """The best selector at every other budget, and how far TinyPropv2 is behind it."""
    said = []
    for b in (f"{b:g}" for b in BUDGETS if b != PAPERS_EFFORT):
        means = {row["selector"]: row["at_budget"][b] for row in data["ranking"]}
        best = max(means, key=lambda s: means[s])
        behind = 100.0 * (means[best] - means.get("tinypropv2", means[best]))
        said.append(f"{100 * float(b):g} %: {TITLES[best]} ({behind:.2f} points above TinyPropv2)")
    return "Elsewhere, " + "; ".join(said) + "."


def _papers(data: Mapping[str, Any]) -> str:
    rows = [
        (
            "data set",
            "before",
            "dense (sd)",
            "TinyPropv2 (sd)",
            "loss, points",
            "backward effort",
            "total effort",
            "skipped",
            "at most 10 % and one point",
        )
    ]
    for name, d in data["datasets"].items():
        effort, loss = d.get("tinypropv2_backward_effort"), d.get("tinypropv2_accuracy_loss")
        held = name in data["summary"]["tinypropv2_within_a_point"]
        rows.append(
            (
                name,
                _share(d["accuracy_before"]),
                _accuracy(d, "dense"),
                _accuracy(d, "tinypropv2"),
                _points(loss),
                _share(effort),
                _share(d.get("tinypropv2_total_effort")),
                _share(d.get("tinypropv2_skipped"), 2),
                "yes" if held else "no",
            )
        )
    return _table(rows)


def _verdict_words(comparison: Mapping[str, Any] | None) -> str:
    if comparison is None:
        return ""
    mark = "" if comparison["clear"] else " ~"
    if comparison["from_untrained"]:
        mark += " †"
    word = "yes" if comparison["beats"] else "no"
    gain, deviation = 100.0 * comparison["gain"], 100.0 * comparison["gain_sd"]
    return f"{word} {gain:+.1f} ± {deviation:.1f}{mark}"


def _versus_table(data: Mapping[str, Any]) -> str:
    rows = [
        ("data set", "total effort", *(f"beats {TITLES[b]}" for b in BASELINES), "budget does")
    ]
    for name, d in data["datasets"].items():
        versus = d.get("versus", {})
        mine = versus.get("tinypropv2", {})
        other = versus.get("budget", {})
        rows.append(
            (
                name,
                _share(d.get("tinypropv2_total_effort")),
                *(_verdict_words(mine.get(b)) for b in BASELINES),
                " / ".join(_verdict_words(other[b]) for b in BASELINES if b in other),
            )
        )
    return _table(rows)


def _ranking_table(data: Mapping[str, Any]) -> str:
    rows = [("selector", *(f"{100 * b:g} %" for b in BUDGETS), "mean")]
    for row in data["ranking"]:
        below = row["below"]
        cells = [
            _share(row["at_budget"][name]) + (f" (†{below[name]})" if below[name] else "")
            for name in (f"{b:g}" for b in BUDGETS)
        ]
        rows.append((TITLES[row["selector"]], *cells, _share(row["mean"], 4)))
    return _table(rows)


def _dataset(name: str, d: Mapping[str, Any]) -> str:
    rows = [
        (
            "selector",
            "setting",
            "accuracy (sd)",
            "to dense",
            "backward",
            "total",
            "MMAC forward",
            "MMAC backward",
            "skipped",
            "RAM, bytes",
        )
    ]
    for selector in settings.SELECTORS:
        if f"{selector}_accuracy" not in d:
            continue
        loss, backward = d[f"{selector}_accuracy_loss"], d[f"{selector}_backward_macs"]
        rows.append(
            (
                TITLES[selector],
                d[f"{selector}_setting"],
                _accuracy(d, selector),
                "" if loss is None else f"{-100.0 * loss:+.1f}",
                _share(d[f"{selector}_backward_effort"]),
                _share(d[f"{selector}_total_effort"]),
                f"{d[f'{selector}_forward_macs'] / 1e6:,.0f}",
                "" if backward is None else f"{backward / 1e6:,.1f}",
                _share(d[f"{selector}_skipped"], 2),
                "" if d[f"{selector}_ram_bytes"] is None else f"{d[f'{selector}_ram_bytes']:,}",
            )
        )
    return "\n\n".join(
        (
            f"### {name}",
            f"{d['title'].capitalize()}, {d['network']}; shift: {d['shift']}. Trained: "
            f"{d['trained']} (of {d['forward_macs_per_sample'] / 1e6:.2f} MMAC a forward pass, "
            f"{d['trunk_macs'] / 1e6:.2f} are frozen below). {d['stream_samples']:,} samples "
            f"drawn from {d['pool']:,}, {d['test_samples']:,} there to test, rate {d['rate']:g} "
            f"(tried: {_rates('shift')}).",
            _table(rows, 2),
            "" if d["forward_effort"] is None else f"![{name}]({PLOTS}/{name}.svg)",
        )
    )


def _rates(mode: str) -> str:
    return ", ".join(f"{rate:g}" for rate in settings.RATES[mode])


def _scratch_text(data: Mapping[str, Any]) -> str:
    if not data["scratch"]:
        return "Not run."
    numerics = list(settings.NUMERIC)
    rows = [
        (
            "data set",
            "float32",
            *(f"{n} weights" for n in numerics),
            *(f"{n} lost" for n in numerics),
        )
    ]
    for name, s in data["scratch"].items():
        methods = s["methods"]
        rows.append(
            (
                name,
                _method_accuracy(methods.get(settings.FP32)),
                *(_method_accuracy(methods.get(f"dense/{n}")) for n in numerics),
                *(
                    f"{s[f'{n}_points_lost']:+.2f}" if f"{n}_points_lost" in s else ""
                    for n in numerics
                ),
            )
        )
    selectors = [("selector (int16 weights)", *data["scratch"])]
    for name, selector in settings.SELECTORS.items():
        found = [s["methods"].get(f"{name}/int16") for s in data["scratch"].values()]
        if any(found):
            selectors.append((selector.title, *(_method_effort(m) for m in found)))
    published = [("Deutel et al.: uint8 / mixed / float", *(row[0] for row in _PUBLISHED))]
    published.append(("", *(f"{a} / {b} / {c}" for _, a, b, c in _PUBLISHED)))
    return "\n\n".join(
        (
            "All layers of a network without batch norm, from random weights, one sample at a "
            "time; forward int8, deltas float32, weights int8 in place, int16 (one residual byte) "
            "or with a float32 master copy. Float32 is torch on the same stream, from the same "
            "weights, at a rate of its own; both rates are the best on seed "
            f"{settings.TUNED_ON[0]} of {_rates('scratch')}. Accuracy (sd); lost in points.",
            _table(rows),
            "Accuracy, then total effort, each selector at the last rung of its ladder, static "
            "top-k at a tenth of each layer:",
            _table(selectors),
            "Published, on other data sets and networks, read from the author's poster and not "
            "reproduced here: training from scratch with uint8 errors loses 6 to 20 points.",
            _table(published),
        )
    )


def _method_accuracy(method: Mapping[str, Any] | None) -> str:
    if method is None:
        return ""
    return f"{method['accuracy']:.3f} ({method['accuracy_sd']:.3f})"


def _method_effort(method: Mapping[str, Any] | None) -> str:
    if method is None:
        return ""
    return f"{method['accuracy']:.3f}, {_share(method['total_effort'], 2)}"


def _method() -> str:
    phases = ", then ".join(f"{factor:g} for {100 * share:g} %" for share, factor in PHASES)
    return (
        "Streams are drawn from the pool in passes, shuffled by the seed; batch 1, plain SGD, "
        f"top-k biases, no rehearsal. The rate times {phases} of the stream. The learning rate of "
        "a data set is the best of dense training on the tuning seeds, the same for every "
        "selector. TinyPropv2 is shown at the cheapest rung within 0.2 points of the best that "
        "stays below 9 % of the backward work there, every other selector at the rung whose "
        "effort, whatever its accuracy, is the nearest to it. `matched` is static top-k at "
        "TinyPropv2's own backward effort. The frozen trunk is run once, byte for byte, "
        "and its work is added to every "
        "forward pass. RAM is the whole model's arena while learning and the learner's block. "
        "Executed instructions are counted on boards (learning-cost.md), not in this study.\n\n"
        f"From scratch: He's initialisation, each layer scaled to unit variance; ranges of the "
        f"random network times {ROOM:g} (activations), {LOGIT_ROOM:g} (logits) and "
        f"{WEIGHT_ROOM:g} (weights)."
    )
