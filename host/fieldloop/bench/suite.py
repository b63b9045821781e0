"""Single operators in the sizes that networks for microcontrollers have, for `bench kernels`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fieldloop.bench.cost import Subject
from fieldloop.compiler import compile_graph
from fieldloop.frontends.builder import GraphBuilder
from fieldloop.ir.op import OpKind, Window

Make = Callable[[GraphBuilder, np.random.Generator, str], str]


def _conv(
    out: int, kernel: tuple[int, int], stride: int = 1, pads: tuple[int, int, int, int] = (0,) * 4
) -> Make:
    def make(builder: GraphBuilder, rng: np.random.Generator, x: str) -> str:
        weights = rng.normal(0.0, 0.2, (out, *kernel, builder.shape(x)[3]))
        window = Window(kernel, (stride, stride), pads=pads)
        return builder.add("conv", OpKind.CONV2D, [x], window=window, weights=weights)

    return make


def _depthwise(stride: int, pads: tuple[int, int, int, int]) -> Make:
    def make(builder: GraphBuilder, rng: np.random.Generator, x: str) -> str:
        weights = rng.normal(0.0, 0.3, (1, 3, 3, builder.shape(x)[3]))
        window = Window((3, 3), (stride, stride), pads=pads)
        return builder.add("dw", OpKind.DEPTHWISE_CONV2D, [x], window=window, weights=weights)

    return make


def _dense(out: int) -> Make:
    def make(builder: GraphBuilder, rng: np.random.Generator, x: str) -> str:
        weights = rng.normal(0.0, 0.1, (out, int(np.prod(builder.shape(x)[1:]))))
        return builder.add("fc", OpKind.FULLY_CONNECTED, [x], weights=weights)

    return make


def _pool(kind: OpKind, size: int) -> Make:
    def make(builder: GraphBuilder, rng: np.random.Generator, x: str) -> str:
        return builder.add("pool", kind, [x], window=Window((size, size), (size, size)))

    return make


def _add(builder: GraphBuilder, rng: np.random.Generator, x: str) -> str:
    return builder.add("add", OpKind.ADD, [x, x])


def _softmax(builder: GraphBuilder, rng: np.random.Generator, x: str) -> str:
    return builder.add("softmax", OpKind.SOFTMAX, [x])


_SAME = (1, 1, 1, 1)
_STEP = (0, 1, 0, 1)  # TensorFlow's padding of a stride of 2 on an even map

# Name, input shape, operator. Names follow research/kernel-anchors: the network it is a layer of.
SUITE: tuple[tuple[str, tuple[int, ...], Make], ...] = (
    ("kws first conv 10x4 s2", (1, 49, 10, 1), _conv(64, (10, 4), 2, (4, 5, 1, 1))),
    ("vww first conv 3x3 s2", (1, 96, 96, 3), _conv(8, (3, 3), 2, _STEP)),
    ("resnet first conv 3x3", (1, 32, 32, 3), _conv(16, (3, 3), 1, _SAME)),
    ("conv 3x3 16->16", (1, 32, 32, 16), _conv(16, (3, 3), 1, _SAME)),
    ("conv 3x3 64->64", (1, 8, 8, 64), _conv(64, (3, 3), 1, _SAME)),
    ("pointwise 8->16", (1, 48, 48, 8), _conv(16, (1, 1))),
    ("pointwise 64->64", (1, 25, 5, 64), _conv(64, (1, 1))),
    ("pointwise 128->128", (1, 6, 6, 128), _conv(128, (1, 1))),
    ("depthwise 3x3 8", (1, 48, 48, 8), _depthwise(1, _SAME)),
    ("depthwise 3x3 64", (1, 25, 5, 64), _depthwise(1, _SAME)),
    ("depthwise 3x3 64 s2", (1, 12, 12, 64), _depthwise(2, _STEP)),
    ("fully connected 640->128", (1, 640), _dense(128)),
    ("fully connected 128->128", (1, 128), _dense(128)),
    ("max pool 2x2", (1, 48, 40, 16), _pool(OpKind.MAX_POOL, 2)),
    ("average pool 8x8", (1, 8, 8, 64), _pool(OpKind.AVG_POOL, 8)),
    ("add", (1, 32, 32, 16), _add),
    ("softmax 10", (1, 10), _softmax),
)


def subjects(seed: int = 0) -> list[Subject]:
    """Each operator of the suite as a model of its own, int8, with seeded weights."""
    made = []
    for name, shape, make in SUITE:
        rng = np.random.default_rng(seed)
        builder = GraphBuilder(name)
        x = builder.input("x", shape)
        graph = builder.graph([make(builder, rng, x)])
        samples = rng.normal(0.0, 1.0, (4, *shape[1:])).astype(np.float32)
        made.append(Subject(name, compile_graph(graph, samples, learn=None).image))
    return made
