"""A small net with one of each thing that a learner walks back through, and a stream for it."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fieldloop.image.writer import RehearsalSet, Trainable
from fieldloop.ir.op import WEIGHTED, OpKind, Window

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "learn"))
from nets import LINEAR, RELU, NetBuilder, finish

Int8 = npt.NDArray[np.int8]

CLASSES = 10
STEPS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """The image, the samples to learn, and others of the same classes."""

    image: bytes
    x: Int8
    y: npt.NDArray[np.int64]
    test_x: Int8
    test_y: npt.NDArray[np.int64]


@functools.cache
def every_way() -> Stream:
    """Convolution under a fused max pool, a residual convolution, a depthwise one under a fused
    average pool, fully connected; all of them are trained. Samples are noisy patterns."""
    rng = np.random.default_rng(12)
    same = Window((3, 3), pads=(1, 1, 1, 1))
    halved = Window((2, 2), (2, 2))
    net = NetBuilder(rng, (1, 8, 8, 1))
    net.weighted(OpKind.CONV2D, 8, same)
    net.pool(OpKind.MAX_POOL, halved)
    start = net.last
    net.weighted(OpKind.CONV2D, 8, same)
    net.add(start, clamp=RELU)
    net.weighted(OpKind.DEPTHWISE_CONV2D, 8, same)
    net.pool(OpKind.AVG_POOL, halved)
    net.flatten()
    net.weighted(OpKind.FULLY_CONNECTED, CLASSES, clamp=LINEAR, out_scale=0.08)
    graph = net.graph()
    weighted = [op.name for op in graph.ops if op.kind in WEIGHTED]
    rates = [3e-6, 3e-6, 3e-6, 1e-4]
    trainables = [Trainable(name, rate) for name, rate in zip(weighted, rates, strict=True)]
    pure = rng.integers(-90, 91, (CLASSES, 8, 8, 1))

    def patterns(count: int) -> tuple[Int8, npt.NDArray[np.int64]]:
        y = rng.integers(0, CLASSES, count)
        return (pure[y] + rng.integers(-37, 38, (count, 8, 8, 1))).astype(np.int8), y

    rehearsal = RehearsalSet(*patterns(40))
    return Stream(finish(graph, trainables, rehearsal).image, *patterns(STEPS), *patterns(100))
