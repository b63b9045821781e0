"""Loops in tiled plans: blocks of steps whose fields advance by constants are written once.

`compress` looks for the fewest steps. A block of p steps, r times in a row, is a LOOP and p steps
with `more`; in which blocks the steps fall is a shortest path over the positions, from the end.
All of that is exact: expand(compress(steps)) == steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fieldloop.errors import UsageError
from fieldloop.plan.types import NO_MORE, More, Step, StepKind

MAX_PERIOD = 200
MAX_TIMES = 0xFFFF  # iterations that the image's field holds
_ADVANCING = ("row", "channel", "x_row", "x_channel", "x", "y", "z")
_ROW, _X_ROW = 0, 2
_LIMITS = np.array([[0x7FFF]] * 4 + [[0x7FFFFFFF]] * 3)  # of what `more` holds

Ints = npt.NDArray[np.int64]


def expand(steps: Sequence[Step]) -> Iterator[Step]:
    """The steps as they run, one after the other, without loops."""
    i = 0
    while i < len(steps):
        step = steps[i]
        i += 1
        if step.kind is not StepKind.LOOP:
            yield step if step.more == NO_MORE else replace(step, more=NO_MORE)
            continue
        body = steps[i : i + step.op]
        if not 1 <= step.op == len(body) or step.rows < 1:
            raise UsageError(f"loop at step {i - 1}: {step.op} steps {step.rows} times")
        if any(inner.kind is StepKind.LOOP for inner in body):
            raise UsageError(f"loop at step {i - 1}: expected no loop inside")
        for turn in range(step.rows):
            for inner in body:
                yield _advanced(inner, turn)
        i += step.op


def _advanced(step: Step, turn: int) -> Step:
    if step.more == NO_MORE:
        return step
    fields = {name: getattr(step, name) + turn * getattr(step.more, name) for name in _ADVANCING}
    return replace(step, **fields, more=NO_MORE)


def compress(steps: Sequence[Step], *, max_period: int = MAX_PERIOD) -> tuple[Step, ...]:
    """The same steps in few, by loops of up to `max_period` steps that are not nested."""
    flat = tuple(expand(steps))
    if len(flat) < 3:
        return flat
    kinds, values = _kinds(flat), _values(flat)
    found = _candidates(kinds, values, min(max_period, len(flat) // 2))
    out: list[Step] = []
    at = 0
    for period, times in _path(len(flat), found):
        body = flat[at : at + period]
        if times > 1:
            out.append(Step(StepKind.LOOP, period, rows=times))
            deltas = values[:, at + period : at + 2 * period] - values[:, at : at + period]
            for step, delta in zip(body, deltas.T.tolist(), strict=True):
                more = More(**dict(zip(_ADVANCING, delta, strict=True)))
                out.append(step if more == NO_MORE else replace(step, more=more))
        else:
            out.extend(body)
        at += period * times
    return tuple(out)


def _kinds(steps: Sequence[Step]) -> Ints:
    """[n]: equal numbers for steps that differ in advancing fields only."""
    numbers: dict[Step, int] = {}
    same = []
    for step in steps:
        key = replace(
            step,
            row=0,
            channel=0,
            x_row=0,
            x_channel=0,
            x=0,
            y=0,
            z=step.z if step.kind is StepKind.COPY else 0,  # there it is a size
        )
        same.append(numbers.setdefault(key, len(numbers)))
    return np.array(same, np.int64)


def _values(steps: Sequence[Step]) -> Ints:
    """[7, n]: the fields that may advance."""
    return np.array([[getattr(s, name) for s in steps] for name in _ADVANCING], np.int64)


def _run_lengths(true: npt.NDArray[np.bool_], n: int) -> Ints:
    """[n]: how many are true in a row from each position on; false behind the end."""
    padded = np.zeros(n, np.bool_)
    padded[: len(true)] = true
    stops = np.where(padded, n, np.arange(n))
    return np.minimum.accumulate(stops[::-1])[::-1] - np.arange(n)


def _times(kinds: Ints, values: Ints, period: int) -> Ints | None:
    """[n]: how often the block of `period` steps from each position on repeats, at least 1."""
    n = len(kinds)
    same = kinds[period:] == kinds[:-period]
    if _run_lengths(same, n).max() < period:
        return None
    deltas = values[:, period:] - values[:, :-period]
    twice = same & (np.abs(deltas) <= _LIMITS).all(0)
    # A window clipped at the map's edge begins at row 0 whatever its output row is: the image
    # wants input rows that advance with the output's in loops of more than two iterations.
    moving = (deltas[_ROW] == 0) | (deltas[_X_ROW] != 0)
    more = twice[:-period] & twice[period:] & moving[:-period]
    more &= (deltas[:, period:] == deltas[:, :-period]).all(0)
    times = np.where(_run_lengths(twice, n) >= period, 2 + _run_lengths(more, n) // period, 1)
    return np.minimum(times, MAX_TIMES)


def _candidates(kinds: Ints, values: Ints, max_period: int) -> list[list[tuple[int, int]]]:
    """For each position the loops that may begin there: (period, times at most).

    A period is left out where one that divides it covers as much.
    """
    n = len(kinds)
    found: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    covers: dict[int, Ints] = {}
    for period in range(1, max_period + 1):
        times = _times(kinds, values, period)
        if times is None:
            continue
        covers[period] = period * times
        good = times > (2 if period == 1 else 1)  # what saves nothing is no loop
        for smaller, cover in covers.items():
            if smaller < period and period % smaller == 0:
                good &= cover < covers[period]
        for at in np.flatnonzero(good).tolist():
            found[at].append((period, int(times[at])))
    return found


def _path(n: int, found: Sequence[Sequence[tuple[int, int]]]) -> Iterator[tuple[int, int]]:
    """Blocks (period, times) from the start to the end, of the fewest steps in all."""
    cost = [0] * (n + 1)
    block = [(1, 1)] * n
    for at in range(n - 1, -1, -1):
        best, choice = cost[at + 1] + 1, (1, 1)
        for period, most in found[at]:
            for times in range(most, max(most - 3, 1), -1):
                price = cost[at + period * times] + period + 1
                if price < best:
                    best, choice = price, (period, times)
        cost[at], block[at] = best, choice
    at = 0
    while at < n:
        yield block[at]
        at += block[at][0] * block[at][1]
