"""Where a value's elements lie: sources count channels first, the graph counts them last.

A `Value` is a tensor of the graph together with the order its elements have in the source. An
order lists runs (size, stride), outermost first: walking the graph's tensor in memory walks the
source's elements in steps of `stride`, counted in the source's own row-major index. Written that
way a reshape of the source changes nothing, and a transpose only renames strides; neither needs an
operator. One is made where an operator wants another order, and a linear layer does not even want
that: `index` reorders its columns.

    x [1, C, H, W] as NHWC      ((H*W, 1), (C, H*W))
    flatten(x)                  the same
    x as NCHW                   ((C*H*W, 1),)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fieldloop.ir.tensor import Array

Shape = tuple[int, ...]
Order = tuple[tuple[int, int], ...]  # (size, stride), canonical: no ones, nothing left to merge


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the source, held by the graph's tensor `name`.

    `private`: one operator of the source reads it, and it shares its tensor with no value that
    another one reads; so what follows it may be folded into what made it.
    """

    name: str
    shape: Shape  # the source's
    order: Order
    private: bool = False


def strides(shape: Sequence[int]) -> list[int]:
    """Row-major, in elements."""
    steps, step = [], 1
    for size in reversed(shape):
        steps.append(step)
        step *= size
    return steps[::-1]


def canonical(runs: Sequence[tuple[int, int]]) -> Order:
    """Without runs of one, and with those that continue each other merged."""
    merged: list[tuple[int, int]] = []
    for size, stride in runs:
        if size == 1:
            continue
        if merged and merged[-1][1] == stride * size:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    return tuple(merged)


def order_of(shape: Shape, axes: Sequence[int]) -> Order:
    """The order of a source of `shape` whose axes lie as `axes` says; -1 is an added axis of 1."""
    steps = strides(shape)
    return canonical([(shape[a], steps[a]) for a in axes if a >= 0])


def row_major(shape: Shape) -> Order:
    """The source's own order."""
    return canonical([(math.prod(shape), 1)])


def index(order: Order) -> Array:
    """For each element in memory, its row-major index in the source: int64 [size]."""
    place = np.zeros(1, np.int64)
    for size, stride in order:
        place = (place[:, None] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
    return place


def cut(order: Order, sizes: Sequence[int]) -> list[tuple[int, int]] | None:
    """The order as runs of just these sizes; None where they do not fall on its runs."""
    left, runs = list(reversed(order)), []
    for size in sizes:
        if size == 1:
            runs.append((1, 0))
            continue
        have, stride = left.pop() if left else (1, 0)
        if have % size:
            return None
        if have > size:
            left.append((have // size, stride))
        runs.append((size, stride * (have // size)))
    return None if left else runs


def axes_in_memory(value: Value, graph_shape: Shape) -> list[int] | None:
    """The source's axis that each axis of the graph's tensor is; -1 for an axis of 1 that is none.

    None where they are not one and the same. The source's axes of size 1 take the tensor's, in
    order, and stay away where there are too few.
    """
    runs = cut(value.order, graph_shape)
    if runs is None:
        return None
    places = {
        (size, stride): axis
        for axis, (size, stride) in enumerate(zip(value.shape, strides(value.shape), strict=True))
        if size > 1
    }
    axes = []
    for run in runs:
        if run[0] > 1 and run not in places:
            return None
        axes.append(places.get(run, -1))
    ones = [axis for axis, size in enumerate(value.shape) if size == 1]
    for i, size in enumerate(graph_shape):
        if size == 1 and ones:
            axes[i] = ones.pop(0)
    return axes


def source_axes(value: Value) -> tuple[int, ...] | None:
    """How to transpose the source so that its elements lie as the tensor's; None: no way to."""
    pieces = _by_axis(value.order, value.shape)
    if pieces is None:
        return None
    axes = [axis for _, _, axis in pieces]
    if len(set(axes)) != len(axes):
        return None  # an axis lies in two parts
    ones = [axis for axis, size in enumerate(value.shape) if size == 1]
    return (*ones, *axes)


def transposed(value: Value, axes: Sequence[int]) -> Order | None:
    """The order after the source is transposed; None where a run does not keep to its axes."""
    pieces = _by_axis(value.order, value.shape)
    if pieces is None:
        return None
    old = strides(value.shape)
    new_steps = strides([value.shape[a] for a in axes])
    new = {axis: new_steps[i] for i, axis in enumerate(axes)}
    return canonical([(size, stride // old[a] * new[a]) for size, stride, a in pieces])


def _by_axis(order: Order, shape: Shape) -> list[tuple[int, int, int]] | None:
    """Each run in parts (size, stride, axis) that lie in one axis of the source each."""
    steps = strides(shape)
    pieces: list[tuple[int, int, int]] = []
    for size, stride in order:
        parts: list[tuple[int, int, int]] = []  # innermost first
        while size > 1:
            axis = next(
                (a for a, n in enumerate(shape) if n > 1 and steps[a] <= stride < steps[a] * n), -1
            )
            if axis < 0 or stride % steps[axis]:
                return None
            room = steps[axis] * shape[axis]
            if room % stride:
                return None
            part = min(size, room // stride)
            if size % part:
                return None
            parts.append((part, stride, axis))
            size, stride = size // part, stride * part
        pieces += reversed(parts)
    return pieces


def common_runs(
    have: Order, want: Order
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]] | None:
    """Both orders as the same runs, each in its own sequence; None where they cannot be."""
    edges = sorted({edge for size, stride in (*have, *want) for edge in (stride, stride * size)})

    def refined(order: Order) -> list[tuple[int, int]] | None:
        runs: list[tuple[int, int]] = []
        for size, stride in order:
            inner = [e for e in edges if stride < e < stride * size]
            marks = [stride, *inner, stride * size]
            steps = list(itertools.pairwise(marks))
            if any(high % low for low, high in steps):
                return None
            runs += [(high // low, low) for low, high in reversed(steps)]
        return runs

    first, second = refined(have), refined(want)
    if first is None or second is None or sorted(first) != sorted(second):
        return None
    return first, second
