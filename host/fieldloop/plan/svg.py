"""Memory maps as SVG: time to the right, arena upwards, one shape for each band of a chart.

Plain text without scripts, links or fonts from elsewhere; colours follow the reader's light or
dark mode. Names come from files of strangers, so every one of them is escaped.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from fieldloop.plan.chart import Band, BandKind, Chart, cut

_WIDTH, _HEIGHT = 560, 360  # of one chart's field; it grows with its columns, to the double
_LEFT, _TOP, _GAP, _BELOW = 74, 64, 40, 178
_CHAR = 6.2  # width of a letter of 11 pixels, about
_COLORS = {
    BandKind.INPUT: "#8ecae6",
    BandKind.TENSOR: "#b8c0cc",
    BandKind.TILE: "#ffc145",
    BandKind.CACHE: "#95c97a",
    BandKind.SUMS: "#f4978e",
    BandKind.OUTPUT: "#c8a8f5",
}
_STYLE = """
svg { --paper: #ffffff; --ink: #1c1f24; --faint: #8a919c; --line: #e3e6ea; --mark: #b00020;
  background: var(--paper); font: 11px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #15171b; --ink: #e8eaed; --faint: #98a0ab; --line: #2c3037; --mark: #ff8a80; } }
.paper { fill: var(--paper); } text { fill: var(--ink); } .faint { fill: var(--faint); }
.title { font-size: 14px; font-weight: 600; } .grid { stroke: var(--line); }
.axis { stroke: var(--faint); } .peak { stroke: var(--mark); stroke-dasharray: 5 3; }
.marked { fill: var(--mark); font-weight: 600; } .on { fill: #14161a; pointer-events: none; }
.band { stroke: var(--paper); stroke-width: 0.7; } .band:hover { fill-opacity: 0.75; }
"""


def memory_map_svg(charts: Sequence[Chart]) -> str:
    """The charts side by side on one scale of bytes."""
    most = max((chart.peak for chart in charts), default=0)
    ticks = _ticks(most)
    full = max(ticks[-1], most)
    widths = [_WIDTH if len(charts) > 1 or c.columns < 200 else 2 * _WIDTH for c in charts]
    width = _LEFT + sum(widths) + _GAP * len(charts) + 10
    height = _TOP + _HEIGHT + _BELOW
    parts = [_style(), f'<rect class="paper" width="{width}" height="{height}"/>']
    parts += _legend({band.kind for chart in charts for band in chart.bands})
    left = _LEFT
    for chart, wide in zip(charts, widths, strict=True):
        parts += _field(chart, left, wide, full, ticks, first=left == _LEFT)
        left += wide + _GAP
    label = "; ".join(f"{chart.title}: {chart.peak} bytes" for chart in charts)
    return _document(width, height, f"Memory map. {label}", parts)


def curve_svg(
    title: str,
    points: Sequence[tuple[int, float, str]],
    *,
    across: str,
    up: str,
) -> str:
    """A plot of (x in bytes, y, what a tooltip says), joined by a line in the order of x."""
    ordered = sorted(points)
    width, height = _LEFT + 2 * _WIDTH // 2 + 260, _TOP + _HEIGHT + 70
    wide = width - _LEFT - 60
    x_ticks = _ticks(max((p[0] for p in ordered), default=0))
    top = max((p[1] for p in ordered), default=0.0)
    y_ticks = _ticks(math.ceil(top * 1000)) if top < 100 else _ticks(math.ceil(top))
    scale = 1000 if top < 100 else 1
    parts = [_style(), f'<rect class="paper" width="{width}" height="{height}"/>']
    parts.append(_text(_LEFT, 24, title, "title"))

    def across_of(value: float) -> float:
        return _LEFT + wide * value / max(x_ticks[-1], 1)

    def up_of(value: float) -> float:
        return _TOP + _HEIGHT - _HEIGHT * value * scale / max(y_ticks[-1], 1)

    for tick in y_ticks:
        at = up_of(tick / scale)
        parts.append(_line(_LEFT, at, _LEFT + wide, at, "grid"))
        parts.append(_text(_LEFT - 6, at + 4, f"{tick / scale:,g}", "faint", "end"))
    for tick in x_ticks:
        at = across_of(tick)
        parts.append(_line(at, _TOP, at, _TOP + _HEIGHT, "grid"))
        parts.append(_text(at, _TOP + _HEIGHT + 16, f"{tick:,}", "faint", "middle"))
    parts.append(_text(_LEFT + wide / 2, _TOP + _HEIGHT + 38, across, anchor="middle"))
    parts.append(_text(_LEFT, _TOP - 14, up))
    line = " ".join(f"{across_of(x):.1f},{up_of(y):.1f}" for x, y, _ in ordered)
    parts.append(f'<polyline points="{line}" fill="none" class="axis"/>')
    for x, y, says in ordered:
        parts.append(
            f'<circle cx="{across_of(x):.1f}" cy="{up_of(y):.1f}" r="5" class="band" '
            f'fill="{_COLORS[BandKind.TILE]}"><title>{escaped(says)}</title></circle>'
        )
    return _document(width, height, title, parts)


def escaped(text: str) -> str:
    """Text for an SVG: what XML has no place for is replaced."""
    legal = "".join(
        c
        if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff"
        else "?"
        for c in text
    )
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        legal = legal.replace(char, entity)
    return legal.replace("'", "&#39;")


def _document(width: float, height: float, says: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" '
        f'aria-label="{escaped(says)}">\n{body}\n</svg>\n'
    )


def _style() -> str:
    return f"<style>{_STYLE}</style>"


def _legend(kinds: set[BandKind]) -> list[str]:
    parts, at = [], float(_LEFT)
    for kind in BandKind:
        if kind in kinds:
            parts.append(
                f'<rect x="{at:.0f}" y="10" width="12" height="12" fill="{_COLORS[kind]}"/>'
            )
            parts.append(_text(at + 17, 20, kind.value))
            at += 34 + _CHAR * len(kind.value)
    return parts


def _field(
    chart: Chart, left: int, wide: int, full: int, ticks: Sequence[int], *, first: bool
) -> list[str]:
    bottom = _TOP + _HEIGHT
    edges = chart.edges
    xs = [left + wide * edge / edges[-1] for edge in edges]

    def up(value: float) -> float:
        return bottom - _HEIGHT * value / max(full, 1)

    parts = [f"<g><title>{escaped(chart.title)}</title>"]
    parts.append(_text(left, _TOP - 20, cut(chart.title, _letters(wide)), "title"))
    for tick in ticks:
        parts.append(_line(left, up(tick), left + wide, up(tick), "grid"))
        if first:
            parts.append(_text(left - 6, up(tick) + 4, f"{tick:,}", "faint", "end"))
    if first:
        parts.append(_text(left - 6, _TOP - 20, "bytes", "faint", "end"))
    for band in chart.bands:
        parts += _band(band, xs, full)
    parts.append(_line(left, bottom, left + wide, bottom, "axis"))
    parts.append(_line(left, up(chart.peak), left + wide, up(chart.peak), "peak"))
    at_peak = next(s for s in chart.stretches if s.first <= chart.fullest < s.end)
    says = f"{chart.peak:,} bytes in {at_peak.label(50)}"
    parts.append(_text(left + wide, up(chart.peak) - 5, says, "marked", "end"))
    at = (xs[chart.fullest] + xs[chart.fullest + 1]) / 2
    parts.append(f'<path class="marked" d="M{at:.1f} {bottom} l-4 7 h8 z"/>')
    parts += _stretches(chart, xs, bottom)
    caption = f"operators in the order of execution, one width each; {chart.steps} steps"
    if chart.steps > chart.columns:
        caption += f", the fullest {chart.columns} shown"
    parts.append(_text(left, bottom + _BELOW - 12, caption, "faint"))
    return [*parts, "</g>"]


def _stretches(chart: Chart, xs: Sequence[float], bottom: int) -> Iterator[str]:
    """Names of operators below the axis, turned; those that find no room are left out."""
    free = -math.inf
    for stretch in chart.stretches:
        start, end = xs[stretch.first], xs[stretch.end]
        yield _line(start, bottom, start, bottom + 5, "axis")
        at, full = (start + end) / 2, f"<title>{escaped(', '.join(stretch.names))}</title>"
        label = stretch.label(_letters(end - start - 12))
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
    yield (
        f'<path class="band" fill="{_COLORS[band.kind]}" d="{"".join(outline)}">'
        f"<title>{escaped(says)}</title></path>"
    )
    wide, tall, x, y = best
    upright = cut(band.name, _letters(wide - 6))
    turned = cut(band.name, _letters(tall - 6))
    if len(upright) > 3 and (len(upright) >= len(turned) or len(upright) > 16):
        yield _text(x, y + 4, upright, "on", "middle")
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


def _ticks(most: int) -> list[int]:
    """0 and five or so round numbers, the last not below `most`."""
    if most <= 0:
        return [0, 1]
    rough = most / 5
    power = 10 ** math.floor(math.log10(rough)) if rough >= 1 else 1
    step = next(
        int(f * power) for f in (1, 2, 2.5, 5, 10) if f * power >= rough and f * power >= 1
    )
    return [step * i for i in range(math.ceil(most / step) + 1)]


def _letters(wide: float) -> int:
    return max(0, int(wide / _CHAR))


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{style} text-anchor="{anchor}">{escaped(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
