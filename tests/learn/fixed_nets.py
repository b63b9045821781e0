"""Nets of a known shape, and samples for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from nets import LINEAR, RELU, Net, NetBuilder, finish

from fieldloop.image.writer import RehearsalSet, Trainable
from fieldloop.ir.op import WEIGHTED, OpKind, Window

Array = np.ndarray[Any, Any]
HEADER = 128  # bytes of a state before its first number that is learned


def samples(net: Net, count: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (count, *net.sample_shape[1:])).astype(np.int8)


def small_net(
    *, layers: int = 2, logits_scale: float = 0.08, rehearsal: RehearsalSet | None = None
) -> Net:
    """conv, depthwise, conv, max pool, flatten, fully connected; `layers` are trainable."""
    net = NetBuilder(np.random.default_rng(3), (1, 8, 8, 1))
    window = Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    net.weighted(OpKind.CONV2D, 4, window)
    net.weighted(OpKind.DEPTHWISE_CONV2D, 4, window)
    net.weighted(OpKind.CONV2D, 6, window)
    net.pool(OpKind.MAX_POOL, Window((2, 2), (2, 2)))
    net.flatten()
    net.weighted(OpKind.FULLY_CONNECTED, 5, clamp=LINEAR, out_scale=logits_scale)
    graph = net.softmax().graph()
    names = [op.name for op in graph.ops if len(op.inputs) > 1]
    trainables = [Trainable(name, 1e-3) for name in names[-layers:]]
    return finish(graph, trainables, rehearsal, labels=("a", "b", "c", "d", "e"))


def residual_net(width: int = 4) -> Net:
    """Two convolutions under pools, a residual block between them, and a head of two layers."""
    net = NetBuilder(np.random.default_rng(4), (1, 10, 9, 2))
    same = Window((3, 3), pads=(1, 1, 1, 1))
    net.weighted(OpKind.CONV2D, width, same)
    net.pool(OpKind.MAX_POOL, Window((2, 2), (2, 2)))
    start = net.last
    net.weighted(OpKind.DEPTHWISE_CONV2D, width, same)
    net.weighted(OpKind.CONV2D, width, Window((1, 1)), clamp=LINEAR)
    net.add(start, clamp=RELU)
    net.weighted(OpKind.CONV2D, width + 2, same)
    net.pool(OpKind.AVG_POOL, Window((5, 4), (5, 4)))
    net.weighted(OpKind.FULLY_CONNECTED, 2 * width + 1)
    net.weighted(OpKind.FULLY_CONNECTED, 4, clamp=LINEAR, out_scale=0.06)
    graph = net.graph()
    names = [op.name for op in graph.ops if op.kind in WEIGHTED]
    return finish(graph, [Trainable(name, 1e-3) for name in names])
