"""Calibration: the range of every activation over a set of samples, from the float reference.

One pass, a few samples at a time. Extremes are exact; percentiles and the search for the least
squared error work on an evenly chosen part of the values (all of them in a small set), so that
memory does not grow with the set. The same samples give the same ranges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
from fieldloop.ir.reference import batch_of, run
from fieldloop.ir.tensor import Array, DType
from fieldloop.quantize.options import Method, Progress, QuantizeOptions

_CHUNK = 64  # samples at once, fewer where the activations are large
_CHUNK_ELEMENTS = 1 << 23  # of the largest activation at once
_KEPT = 1 << 16  # values of each activation that percentiles and errors are worked out from
# Beyond it, products of scales leave float32.
_LARGEST = 2.0**60
# Parts of an end that are tried: outliers may be a thousand times further out than the rest.
_COARSE = np.geomspace(1.0, 1e-3, 64)[1:]
_FINE = np.linspace(0.9, 1.1, 21)


@dataclass(frozen=True, slots=True)
class Range:
    """The real values an activation takes, and its mean sum of squares per sample."""

    lo: float
    hi: float
    mean_square_norm: float


def check_samples(graph: Graph, samples: Mapping[str, Array]) -> int:
    """How many samples there are; UsageError where they are not what the graph takes."""
    for name, value in samples.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
            got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise UsageError(f"calibration: {name}: expected an array of numbers, got {got}")
    return batch_of(graph, samples)


def chunks(
    graph: Graph, samples: Mapping[str, Array], count: int
) -> Iterator[tuple[int, dict[str, Array]]]:
    """The samples a few at a time, and how many have been given out."""
    rows = {name: graph.tensors[name].shape[0] for name in graph.inputs}
    largest = max(t.size for t in graph.activations)
    size = max(1, min(_CHUNK, _CHUNK_ELEMENTS // largest))
    for first in range(0, count, size):
        last = min(first + size, count)
        yield last, {k: v[first * rows[k] : last * rows[k]] for k, v in samples.items()}


def first_samples(
    graph: Graph, samples: Mapping[str, Array], limit: int
) -> tuple[dict[str, Array], int]:
    """Up to `limit` of the samples, evenly chosen, and their number."""
    count = batch_of(graph, samples)
    kept = np.unique(np.linspace(0, count - 1, min(limit, count)).astype(np.int64))
    chosen = {}
    for name, value in samples.items():
        rows = graph.tensors[name].shape[0]
        each = value.reshape(count, rows, *value.shape[1:])
        chosen[name] = each[kept].reshape(-1, *value.shape[1:])
    return chosen, len(kept)


def calibrate(
    graph: Graph,
    samples: Mapping[str, Array],
    options: QuantizeOptions | None = None,
    *,
    progress: Progress | None = None,
) -> dict[str, Range]:
    """Ranges of all float32 activations over `samples` ([n, ...] per input)."""
    options = options or QuantizeOptions()
    count = check_samples(graph, samples)
    lo: dict[str, float] = {}
    hi: dict[str, float] = {}
    squares: dict[str, float] = {}
    kept: dict[str, list[Array]] = {}
    rng = np.random.default_rng(0)
    share = 1.0
    searches = options.method is Method.MSE or (
        options.method is Method.PERCENTILE and options.percentile < 100.0
    )

    def see(name: str, value: Array) -> None:
        if graph.tensors[name].dtype is not DType.FLOAT32:
            return
        low, high = float(value.min()), float(value.max())
        if not (np.isfinite(low) and np.isfinite(high)):  # one NaN makes both of them NaN
            raise UsageError(
                f"calibration: {name} is not finite; check the network's weights and the samples"
            )
        if max(-low, high) > _LARGEST:
            raise UsageError(
                f"calibration: {name} reaches {max(-low, high):.3g}, expected below 2**60; check "
                "the network's weights and the samples, or scale them"
            )
        lo[name] = min(lo.get(name, np.inf), low)
        hi[name] = max(hi.get(name, -np.inf), high)
        squares[name] = squares.get(name, 0.0) + float(np.square(value).sum())
        if searches:
            flat = value.reshape(-1)
            quota = int(np.ceil(_KEPT * share * flat.size / seen_at_once[name]))
            if flat.size > quota:
                flat = flat[rng.integers(0, flat.size, quota)]
            kept.setdefault(name, []).append(flat.astype(np.float32))

    done = 0
    for last, chunk in chunks(graph, samples, count):
        share = (last - done) / count
        # A graph that mixes samples is walked one at a time: each call is a part of the chunk.
        seen_at_once = {t.name: t.size * (last - done) for t in graph.activations}
        run(graph, chunk, see)
        done = last
        if progress is not None:
            progress("calibrate", done, count)
    if searches:
        for name, parts in kept.items():
            values = np.concatenate(parts).astype(np.float64)
            if options.method is Method.MSE:
                lo[name], hi[name] = least_error(values, lo[name], hi[name])
            else:
                lo[name], hi[name] = _percentile(values, options.percentile)
    return {name: Range(lo[name], hi[name], squares[name] / count) for name in lo}


def _percentile(values: Array, percentile: float) -> tuple[float, float]:
    """The ends that hold that share of the values at least."""
    cut = (100.0 - percentile) / 200.0
    low = float(np.quantile(values, cut, method="lower"))
    return low, float(np.quantile(values, 1.0 - cut, method="higher"))


def least_error(values: Array, lo: float, hi: float) -> tuple[float, float]:
    """The ends inside lo..hi at which 256 levels stand for `values` with least squared error.

    One end after the other; both ranges hold zero.
    """
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    if hi <= lo:
        return lo, hi
    lowest, highest = lo, hi
    best = _squared_error(values, lo, hi)
    for parts in (_COARSE, _FINE):
        for at_top in (True, False):
            from_lo, from_hi = lo, hi
            for part in parts:
                if at_top:
                    low, high = lo, min(from_hi * part, highest)
                else:
                    low, high = max(from_lo * part, lowest), hi
                error = _squared_error(values, low, high)
                if error < best:
                    best = error
                    lo, hi = low, high
    return lo, hi


def _squared_error(values: Array, lo: float, hi: float) -> float:
    step = (hi - lo) / 255.0
    if step < 1e-30:
        return float("inf")
    first = np.rint(lo / step)
    made = np.clip(np.rint(values / step), first, first + 255.0) * step
    return float(np.square(values - made).sum())
