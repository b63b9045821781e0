"""A model image for the device's tests: the demo's shape, with random weights."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fieldloop.image.writer import RehearsalSet, Trainable
from fieldloop.ir.op import OpKind, Window

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "learn"))
from nets import LINEAR, NetBuilder, finish

Int8 = npt.NDArray[np.int8]

CLASSES = 10
SAMPLE_BYTES = 64
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@functools.cache
def digits_image(seed: int = 0, *, learn: bool = True, learnable: bool = False) -> bytes:
    """conv 8, depthwise 8, pointwise 16, pool, conv 32, fully connected 10, on 8 x 8 samples.

    learnable: the samples that travel with it are patterns(), not noise.
    """
    rng = np.random.default_rng(seed)
    same = Window((3, 3), pads=(1, 1, 1, 1))
    net = NetBuilder(rng, (1, 8, 8, 1))
    net.weighted(OpKind.CONV2D, 8, same)
    net.weighted(OpKind.DEPTHWISE_CONV2D, 8, same)
    net.weighted(OpKind.CONV2D, 16, Window((1, 1)))
    net.pool(OpKind.MAX_POOL, Window((2, 2), (2, 2)))
    net.weighted(OpKind.CONV2D, 32, same)
    net.flatten()
    net.weighted(OpKind.FULLY_CONNECTED, CLASSES, clamp=LINEAR, out_scale=0.08)
    graph = net.graph()
    weighted = [op.name for op in graph.ops if len(op.inputs) > 1]
    trainables = [Trainable(weighted[-2], 1e-7), Trainable(weighted[-1], 1e-3)]
    carried = patterns() if learnable else samples(40, seed + 1)
    rehearsal = RehearsalSet(carried, np.arange(40, dtype=np.int64) % 8)
    if not learn:
        trainables = trainables[1:]
    return finish(graph, trainables, rehearsal, LABELS).image


def samples(count: int, seed: int) -> Int8:
    """Random samples [count, 8, 8, 1]."""
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (count, 8, 8, 1)).astype(np.int8)


def patterns() -> Int8:
    """40 samples of 8 classes in turn, each the pattern of its class under noise."""
    rng = np.random.default_rng(5)
    pure = rng.integers(-90, 91, (8, 8, 8, 1))
    return (pure[np.arange(40) % 8] + rng.integers(-37, 38, (40, 8, 8, 1))).astype(np.int8)
