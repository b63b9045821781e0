"""Memory maps as SVG: time to the right, arena upwards, one shape for each band of a chart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from fieldloop.plan.chart import Band, BandKind, Chart, cut
from fieldloop.plan.svg_parts import escaped, legend, letters, line, page, text_at, ticks

_WIDTH, _HEIGHT = 560, 360  # of one chart's field; it grows with its columns, to the double
_LEFT, _TOP, _GAP, _BELOW = 74, 64, 40, 178
_COLORS = {
    BandKind.INPUT: "#8ecae6",
    BandKind.TENSOR: "#b8c0cc",
    BandKind.TILE: "#ffc145",
    BandKind.CACHE: "#95c97a",
    BandKind.SUMS: "#f4978e",
    BandKind.OUTPUT: "#c8a8f5",
}


def memory_map_svg(charts: Sequence[Chart]) -> str:
    """The charts side by side on one scale of bytes."""
    most = max((chart.peak for chart in charts), default=0)
    marks = ticks(most)
    full = max(marks[-1], most)
    widths = [_WIDTH if len(charts) > 1 or c.columns < 200 else 2 * _WIDTH for c in charts]
    width = _LEFT + sum(widths) + _GAP * len(charts) + 10
    height = _TOP + _HEIGHT + _BELOW
    kinds = {band.kind for chart in charts for band in chart.bands}
    parts = legend([(_COLORS[kind], kind.value) for kind in BandKind if kind in kinds], _LEFT)
    left = _LEFT
    for chart, wide in zip(charts, widths, strict=True):
        parts += _field(chart, left, wide, full, marks, first=left == _LEFT)
        left += wide + _GAP
    label = "; ".join(f"{chart.title}: {chart.peak} bytes" for chart in charts)
    return page(width, height, f"Memory map. {label}", parts)


def _field(
    chart: Chart, left: int, wide: int, full: int, marks: Sequence[int], *, first: bool
) -> list[str]:
    bottom = _TOP + _HEIGHT
    edges = chart.edges
    xs = [left + wide * edge / edges[-1] for edge in edges]

    def up(value: float) -> float:
        return bottom - _HEIGHT * value / max(full, 1)

    parts = [f"<g><title>{escaped(chart.title)}</title>"]
    parts.append(text_at(left, _TOP - 20, cut(chart.title, letters(wide)), "title"))
    for tick in marks:
        parts.append(line(left, up(tick), left + wide, up(tick), "grid"))
        if first:
            parts.append(text_at(left - 6, up(tick) + 4, f"{tick:,}", "faint", "end"))
    if first:
        parts.append(text_at(left - 6, _TOP - 20, "bytes", "faint", "end"))
    for band in chart.bands:
        parts += _band(band, xs, full)
    parts.append(line(left, bottom, left + wide, bottom, "axis"))
    parts.append(line(left, up(chart.peak), left + wide, up(chart.peak), "peak"))
    at_peak = next(s for s in chart.stretches if s.first <= chart.fullest < s.end)
    says = f"{chart.peak:,} bytes in {at_peak.label(50)}"
    parts.append(text_at(left + wide, up(chart.peak) - 5, says, "marked", "end"))
    at = (xs[chart.fullest] + xs[chart.fullest + 1]) / 2
    parts.append(f'<path class="marked" d="M{at:.1f} {bottom} l-4 7 h8 z"/>')
    parts += _stretches(chart, xs, bottom)
    caption = f"operators in the order of execution, one width each; {chart.steps} steps"
    if chart.steps > chart.columns:
        caption += f", the fullest {chart.columns} shown"
    parts.append(text_at(left, bottom + _BELOW - 12, caption, "faint"))
    return [*parts, "</g>"]


def _stretches(chart: Chart, xs: Sequence[float], bottom: int) -> Iterator[str]:
    """Names of operators below the axis, turned; those that find no room are left out."""
    free = -math.inf
    for stretch in chart.stretches:
        start, end = xs[stretch.first], xs[stretch.end]
        yield line(start, bottom, start, bottom + 5, "axis")
        at, full = (start + end) / 2, f"<title>{escaped(', '.join(stretch.names))}</title>"
        label = stretch.label(letters(end - start - 12))
        if len(stretch.names) > 1 and len(label) > 20:  # several in one line
            yield (
                f'<text class="faint" text-anchor="middle" x="{at:.1f}" y="{bottom + 18}">'
                f"{escaped(label)}{full}</text>"
            )
        elif at - free >= 11:
            free = at
            yield (
                f'<text class="faint" text-anchor="end" '
                f'transform="translate({at + 4:.1f} {bottom + 14}) rotate(-60)">'
                f"{escaped(stretch.label(23))}{full}</text>"
            )


def _band(band: Band, xs: Sequence[float], full: int) -> Iterator[str]:
    """One path with a closed outline for each time that the band is live."""
    scale = _HEIGHT / max(full, 1)
    bottom = _TOP + _HEIGHT
    outline = []
    best = (0.0, 0.0, 0.0, 0.0)  # of the widest upright room: width, height, middle
    for first, end in _runs(band):
        lo, hi = band.lo[first:end].tolist(), band.hi[first:end].tolist()
        outline.append(_outline(lo, hi, xs[first : end + 1], bottom, scale))
        for a, b, low, high in _rooms(lo, hi):
            wide, tall = xs[first + b] - xs[first + a], (high - low) * scale
            if min(wide, tall) >= 13 and wide * tall > best[0] * best[1]:
                x = (xs[first + a] + xs[first + b]) / 2
                best = (wide, tall, x, bottom - (high + low) / 2 * scale)
    says = (
        f"{band.name}\n{band.kind.value}, {band.bytes:,} bytes, steps {band.first} to {band.last}"
        f"\nfrom {band.start:,} to {band.end:,}"
    )
    color = _COLORS[band.kind]
    thin = f' style="stroke: {color}; stroke-width: 1.2"' * (band.bytes * scale < 2)
    yield (
        f'<path class="band"{thin} fill="{color}" d="{"".join(outline)}">'
        f"<title>{escaped(says)}</title></path>"
    )
    wide, tall, x, y = best
    upright = cut(band.name, letters(wide - 6))
    turned = cut(band.name, letters(tall - 6))
    if len(upright) > 3 and (len(upright) >= len(turned) or len(upright) > 16):
        yield text_at(x, y + 4, upright, "on", "middle")
    elif len(turned) > 3:
        yield (
            f'<text class="on" text-anchor="middle" '
            f'transform="translate({x + 4:.1f} {y:.1f}) rotate(-90)">{escaped(turned)}</text>'
        )


def _rooms(lo: Sequence[int], hi: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Rectangles inside of a run, for its label: columns [a, b), bytes [low, high)."""
    count = len(lo)
    length = count
    while length >= 1:
        stride = max(1, length // 2)
        for a in range(0, count - length + 1, stride):
            low, high = max(lo[a : a + length]), min(hi[a : a + length])
            if low < high:
                yield a, a + length, low, high
        if length <= count // 16:
            break
        length //= 2


def _runs(band: Band) -> Iterator[tuple[int, int]]:
    """Columns [first, end) in which a band is live."""
    live = np.concatenate([[False], band.hi > band.lo, [False]])
    edges = np.flatnonzero(live[1:] != live[:-1]).tolist()
    return zip(edges[::2], edges[1::2], strict=True)


def _outline(
    lo: Sequence[int], hi: Sequence[int], xs: Sequence[float], bottom: int, scale: float
) -> str:
    """Along the highs to the right, along the lows back."""
    path = [f"M{xs[0]:.1f} {bottom - hi[0] * scale:.1f}"]
    for value, count, seen in _steps(hi):
        path.append(f"V{bottom - value * scale:.1f}H{xs[seen + count]:.1f}")
    for value, _, seen in reversed(list(_steps(lo))):
        path.append(f"V{bottom - value * scale:.1f}H{xs[seen]:.1f}")
    return "".join([*path, "Z"])


def _steps(values: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Equal neighbours: value, how many, how many before."""
    seen = 0
    for value, group in itertools.groupby(values):
        count = sum(1 for _ in group)
        yield value, count, seen
        seen += count
