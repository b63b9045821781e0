"""The report's pictures, as SVG text to be put into the page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np

from fieldloop.demo.result import DemoResult, SeedResult
from fieldloop.train.field import VARIANTS, FieldResult
from fieldloop.zoo.digits import Digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OLD, NEW, GREY, RIGHT, WRONG = "#3b6ea5", "#d9822b", "#9aa5b1", "#2e8b57", "#c0392b"
_SHORT = {
    "v2": "TinyPropv2\nin the field",
    "dense": "dense,\nsame layers",
    "head_only": "TinyPropv2,\nhead only",
    "naive_once": "no rehearsal,\nonce",
    "naive": "no rehearsal,\nas many updates",
}
_WINDOW = 25
_STYLE: Any = {  # matplotlib's own type of it is a list of every setting there is
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "fieldloop",  # the same figures give the same bytes
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
}


def _figure(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Figure, Any]:
    # No window system is asked for: the figure is drawn into a file in memory.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def accuracies(result: DemoResult, fields: dict[str, FieldResult]) -> str:
    """Old and new classes before and after, for each way to learn."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(8.4, 3.4)
        names = ["before\nlearning", *(_SHORT[name] for name in _SHORT)]
        old = [result.old_class_accuracy_before, *(fields[n].after.old for n in _SHORT)]
        new = [result.new_class_accuracy_before, *(fields[n].after.new for n in _SHORT)]
        places = np.arange(len(names))
        for shift, values, color, label in (
            (-0.2, old, OLD, "digits known before"),
            (0.2, new, NEW, "digits learned in the field"),
        ):
            bars = axes.bar(places + shift, values, 0.38, color=color, label=label)
            axes.bar_label(bars, fmt="%.3f", fontsize=8, padding=1)
        axes.set_xticks(places, names, fontsize=8)
        axes.set_ylim(0, 1.12)
        axes.set_ylabel("accuracy on the test split")
        axes.legend(
            frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.18)
        )
        return _svg(figure)


def stream_curve(fields: dict[str, FieldResult]) -> str:
    """How often a new sample was right before it was learned, over the stream."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(4.2, 3.0)
        for name, color in (("naive_once", GREY), ("dense", OLD), ("v2", NEW)):
            sums = np.concatenate([[0.0], np.cumsum(fields[name].hits)])
            ends = np.arange(1, len(sums))
            starts = np.maximum(ends - _WINDOW, 0)
            mean = (sums[ends] - sums[starts]) / (ends - starts)
            axes.plot(ends, mean, color=color, label=_SHORT[name].replace("\n", " "))
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("samples of the stream")
        axes.set_ylabel(f"right before learned, last {_WINDOW}")
        axes.legend(frameon=False, fontsize=8)
        axes.set_title("Learning, sample by sample")
        return _svg(figure)


def effort(fields: dict[str, FieldResult]) -> str:
    """Multiply-accumulates of the whole stream, forward and backward."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(4.2, 3.0)
        names = ("dense", "v2", "head_only")
        forward = np.array([fields[n].stats.forward_macs for n in names]) / 1e6
        backward = np.array([fields[n].stats.backward_macs for n in names]) / 1e6
        axes.barh(names, forward, color=GREY, label="forward")
        axes.barh(names, backward, left=forward, color=NEW, label="backward")
        for place, (f, b) in enumerate(zip(forward, backward, strict=True)):
            axes.text(f + b, place, f" {b:.1f} M back", va="center", fontsize=8)
        axes.set_yticks(range(len(names)), [_SHORT[n] for n in names], fontsize=8)
        axes.set_xlim(0, float((forward + backward).max()) * 1.28)
        axes.set_xlabel("multiply-accumulates, millions")
        figure.legend(frameon=False, fontsize=8, ncols=2, loc="outside lower center")
        axes.set_title("Effort")
        return _svg(figure)


def gallery(data: Digits, before: np.ndarray, after: np.ndarray) -> str:
    """Test samples of the new digits, with what the device said before and after."""
    chosen = np.flatnonzero(np.isin(data.y_test, data.missing))[:16]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(8.4, 2.6, columns=8, rows=2)
        for place in axes.flat:
            place.axis("off")
        for place, i in zip(axes.flat, chosen, strict=False):
            place.imshow(data.x_test[i, :, :, 0], cmap="Greys", interpolation="nearest")
            said = int(after[i].argmax())
            place.set_title(
                f"{int(before[i].argmax())} \N{RIGHTWARDS ARROW} {said}",
                fontsize=10,
                color=RIGHT if said == data.y_test[i] else WRONG,
            )
        return _svg(figure)


def over_seeds(seeds: Sequence[SeedResult]) -> str:
    """New and old classes for each seed, with the limits of the means."""
    with matplotlib.rc_context(_STYLE):
        figure, panes = _figure(8.4, 2.8, columns=2)
        shown: tuple[tuple[str, list[float], float, str], ...] = (
            ("new digits, accuracy", [s.new_class_accuracy_after for s in seeds], 0.92, NEW),
            ("old digits, accuracy lost", [s.old_class_accuracy_drop for s in seeds], 0.03, OLD),
        )
        for axes, (title, values, limit, color) in zip(panes, shown, strict=True):
            _seed_pane(axes, [s.seed for s in seeds], values, limit, color)
            axes.set_title(title)
        return _svg(figure)


def _seed_pane(
    axes: Axes, seeds: list[int], values: list[float], limit: float, color: str
) -> None:
    places = range(len(seeds))
    axes.bar(places, values, color=color, width=0.6)
    axes.axhline(float(np.mean(values)), color=color, linewidth=1)
    axes.axhline(limit, color=WRONG, linewidth=1, linestyle="--")
    axes.set_xticks(list(places), [str(seed) for seed in seeds])
    axes.set_xlabel("seed; line: mean, dashed: limit of the mean")


def titles() -> dict[str, str]:
    """What each way to learn is."""
    return {name: VARIANTS[name].title for name in _SHORT}
