"""Pareto plots as SVG: accuracy against total effort, one file a data set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fieldloop.plan.svg_parts import escaped, legend, line, page, text_at

_LEFT, _TOP, _WIDE, _HIGH = 60, 92, 560, 300
_COLORS = (
    ("tinypropv2", "#c0392b"),
    ("budget", "#8e44ad"),
    ("dense_skip", "#1f6fb4"),
    ("topk", "#3f9b57"),
    ("tinyprop", "#e08a1e"),
    ("topk_skip", "#16808a"),
    ("random", "#8a919c"),
    ("dense", "#1c1f24"),
)


def pareto_svg(title: str, dataset: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The ladders of a data set; a filled spot is the setting that the tables have."""
    floor, before = dataset["forward_effort"], dataset["accuracy_before"]
    shown = [(s, c) for s, c in _COLORS if s in dataset["ladders"]]
    accuracies = [r["accuracy"] for s, _ in shown for r in dataset["ladders"][s]]
    low, high, marks = _scale(min([*accuracies, max(accuracies) - 0.02]), max(accuracies))
    left = math.floor(floor * 20) / 20

    def place(effort: float, accuracy: float) -> tuple[float, float]:
        x = _LEFT + _WIDE * (effort - left) / max(1.0 - left, 1e-9)
        return x, _TOP + _HIGH * (high - max(accuracy, low)) / (high - low)

    parts = legend([(c, names[s]) for s, c in shown[:4]], _LEFT)
    parts += [_lower(part) for part in legend([(c, names[s]) for s, c in shown[4:]], _LEFT)]
    parts.append(text_at(_LEFT, 62, title, "title"))
    parts.append(text_at(_LEFT, 80, f"accuracy; before learning {before:.3f}", "faint"))
    for mark in marks:
        _, y = place(1.0, mark)
        parts.append(line(_LEFT, y, _LEFT + _WIDE, y, "grid"))
        parts.append(text_at(_LEFT - 6, y + 4, f"{mark:.3g}", "faint", "end"))
    for step in range(round(left * 20), 21):
        x, _ = place(step / 20, low)
        parts.append(line(x, _TOP, x, _TOP + _HIGH, "grid"))
        if step % 2 == 0:
            parts.append(text_at(x, _TOP + _HIGH + 16, f"{step / 20:.1f}", "faint", "middle"))
    x, _ = place(floor, low)
    parts.append(line(x, _TOP, x, _TOP + _HIGH, "peak"))
    says = "work, forward and backward, of dense training's (dashed: forward alone)"
    parts.append(text_at(_LEFT + _WIDE / 2, _TOP + _HIGH + 36, says, anchor="middle"))
    for selector, color in reversed(shown):
        parts += _ladder(dataset, selector, color, names[selector], place)
    return page(_LEFT + _WIDE + 30, _TOP + _HIGH + 50, title, parts)


def _lower(part: str) -> str:
    """The second line of the legend."""
    return f'<g transform="translate(0 18)">{part}</g>'


def _scale(low: float, high: float) -> tuple[float, float, Sequence[float]]:
    """Round ends around the accuracies, and marks; what lies far below is drawn at the end."""
    low = max(low, high - 0.3)
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1) if (high - low) / s <= 8)
    first, last = math.floor(low / step), math.ceil(high / step)
    return first * step, last * step, [i * step for i in range(first, last + 1)]


def _ladder(
    dataset: Mapping[str, Any], selector: str, color: str, name: str, place: Any
) -> list[str]:
    rows = [r for r in dataset["ladders"][selector] if r["total_effort"] is not None]
    parts = []
    if selector in ("dense_skip", "topk", "random", "tinyprop"):  # ladders of one number
        spots = [place(r["total_effort"], r["accuracy"]) for r in rows]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-opacity="0.5"/>'
        )
    for r in rows:
        x, y = place(r["total_effort"], r["accuracy"])
        is_main = r["setting"] == dataset[f"{selector}_setting"]
        says = escaped(
            f"{name} {r['setting']}: {r['accuracy']:.4f} (sd {r['accuracy_sd']:.4f}), "
            f"backward {r['backward_effort']:.3f}, total {r['total_effort']:.3f}"
        )
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 if is_main else 3}" stroke="{color}" '
            f'fill="{color}" fill-opacity="{1 if is_main else 0.35}">'
            f"<title>{says}</title></circle>"
        )
    return parts
