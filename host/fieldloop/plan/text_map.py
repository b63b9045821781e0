"""A chart as text: arena from left to right, time from top to bottom, a letter for each band."""

from __future__ import annotations

import string

from fieldloop.plan.chart import Chart

_LETTERS = string.ascii_lowercase + string.ascii_uppercase
_NAME = 32


def text_map(chart: Chart, *, full: int | None = None, width: int = 64) -> str:
    """One line a column of the chart; `full`: bytes that `width` stands for. `.` is free."""
    scale = max(full or chart.peak, 1)
    names = [""] * chart.columns
    for stretch in chart.stretches:
        names[stretch.first] = _printable(stretch.label(_NAME))
    label = max(map(len, names), default=0)
    end = f"{scale} bytes"
    lines = [f"{'':{label}} 0{end:>{width - 1}}"]
    letters = [_LETTERS[i % len(_LETTERS)] for i in range(len(chart.bands))]
    for column in range(chart.columns):
        row = ["."] * width
        for band, letter in zip(chart.bands, letters, strict=True):
            lo, hi = int(band.lo[column]), int(band.hi[column])
            if lo < hi:
                first = min(lo * width // scale, width - 1)
                last = max(first + 1, -(-hi * width // scale))
                row[first:last] = letter * (min(last, width) - first)
        lines.append(f"{names[column]:{label}} {''.join(row)}")
    for band, letter in zip(chart.bands, letters, strict=True):
        lines.append(f"{letter} {band.kind.value}, {band.bytes} bytes: {_printable(band.name)}")
    return "\n".join(lines)


def _printable(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name)
