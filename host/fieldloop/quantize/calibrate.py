"""Calibration: the range of every activation over a set of samples, from the float reference.

Two passes at most: extremes first, then (only when a percentile is asked for) a histogram between
them, so that memory does not grow with the set. The same samples give the same ranges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
from fieldloop.ir.reference import batch_of, run
from fieldloop.ir.tensor import Array

_CHUNK = 64
_BINS = 4096


@dataclass(frozen=True, slots=True)
class Range:
    """The real values an activation takes, and its mean sum of squares per sample."""

    lo: float
    hi: float
    mean_square_norm: float


def _chunks(samples: Mapping[str, Array], count: int) -> Iterator[dict[str, Array]]:
    for start in range(0, count, _CHUNK):
        yield {name: value[start : start + _CHUNK] for name, value in samples.items()}


def calibrate(
    graph: Graph, samples: Mapping[str, Array], *, percentile: float = 100.0
) -> dict[str, Range]:
    """Ranges of all activations of a float graph over `samples` ([n, ...] per input).

    `percentile` below 100 cuts rare extremes: the range that holds that share of all values.
    """
    if not 50.0 < percentile <= 100.0:
        raise UsageError(f"calibration: expected a percentile in (50, 100], got {percentile}")
    count = batch_of(graph, samples)
    lo: dict[str, float] = {}
    hi: dict[str, float] = {}
    squares: dict[str, float] = {}

    def extremes(name: str, value: Array) -> None:
        if not np.isfinite(value).all():
            raise UsageError(
                f"calibration: {name} is not finite; check the network's weights and the samples"
            )
        lo[name] = min(lo.get(name, np.inf), float(value.min()))
        hi[name] = max(hi.get(name, -np.inf), float(value.max()))
        squares[name] = squares.get(name, 0.0) + float(np.square(value).sum())

    for chunk in _chunks(samples, count):
        run(graph, chunk, extremes)
    if percentile < 100.0:
        _cut(graph, samples, count, percentile, lo, hi)
    return {name: Range(lo[name], hi[name], squares[name] / count) for name in lo}


def _cut(
    graph: Graph,
    samples: Mapping[str, Array],
    count: int,
    percentile: float,
    lo: dict[str, float],
    hi: dict[str, float],
) -> None:
    """Narrows lo and hi to the bins that hold `percentile` of the values, half cut at each end."""
    histograms = {name: np.zeros(_BINS, np.int64) for name in lo}

    def tally(name: str, value: Array) -> None:
        if hi[name] > lo[name]:
            histograms[name] += np.histogram(value, _BINS, (lo[name], hi[name]))[0]

    for chunk in _chunks(samples, count):
        run(graph, chunk, tally)
    for name, histogram in histograms.items():
        total = int(histogram.sum())
        if total == 0:
            continue
        allowed = total * (100.0 - percentile) / 200.0
        below = np.cumsum(histogram)
        above = np.cumsum(histogram[::-1])
        width = (hi[name] - lo[name]) / _BINS
        first = int(np.searchsorted(below, allowed, side="right"))
        last = int(np.searchsorted(above, allowed, side="right"))
        lo[name], hi[name] = lo[name] + first * width, hi[name] - last * width
