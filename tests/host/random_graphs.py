"""Random float graphs for tests: every operator, odd sizes, pads, strides, dilations, clamps."""

from __future__ import annotations

import numpy as np

from fieldloop.frontends.builder import GraphBuilder
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, OpKind, Window
from fieldloop.ir.tensor import Array

CLAMPS = (Clamp(), Clamp(0.0), Clamp(0.0, 6.0), Clamp(-1.0, 1.0))


class Grower:
    """Grows a graph at random; every choice comes from `rng`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.build = GraphBuilder("random")

    def weights(self, *shape: int) -> Array:
        # rows of very different size, as trained networks have
        spread = np.exp(self.rng.normal(size=(shape[0],) + (1,) * (len(shape) - 1)))
        return self.rng.normal(size=shape) * spread / np.sqrt(np.prod(shape[1:]) + 1)

    def window(self, size: tuple[int, int], *, pool: bool) -> Window:
        rng = self.rng
        while True:
            kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
            dilation = (1, 1) if pool else (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
            stride = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
            pads = tuple(
                int(rng.integers(0, kernel[side // 2])) if rng.random() < 0.6 else 0
                for side in range(4)
            )
            window = Window(kernel, stride, dilation, pads)  # type: ignore[arg-type]
            out = window.output_size(*size)
            last = [(out[i] - 1) * stride[i] - pads[2 * i] < size[i] for i in range(2)]
            if min(out) >= 1 and all(last):
                return window

    def clamp(self, value: str) -> str:
        clamp = CLAMPS[self.rng.integers(len(CLAMPS))]
        made = self.build.clamp("clamp", value, clamp, private=True)
        assert made is not None
        return made

    def step(self, x: str) -> str:
        """One more operator on the image `x`."""
        rng, build = self.rng, self.build
        _, h, w, c = build.shape(x)
        kind = rng.choice(["conv", "depthwise", "max", "avg", "add"])
        if kind == "add":
            window = Window((1, 1))
            y = build.add(
                "conv", OpKind.CONV2D, [x], window=window, weights=self.weights(c, 1, 1, c)
            )
            return self.clamp(build.add("add", OpKind.ADD, [x, self.clamp(y)]))
        if kind in ("max", "avg"):
            op = OpKind.MAX_POOL if kind == "max" else OpKind.AVG_POOL
            return build.add(kind, op, [x], window=self.window((h, w), pool=True))
        window = self.window((h, w), pool=False)
        kh, kw = window.kernel
        if kind == "conv":
            out = int(rng.integers(1, 9))
            weights, op = self.weights(out, kh, kw, c), OpKind.CONV2D
        else:
            out = c * int(rng.integers(1, 3))
            weights, op = self.weights(1, kh, kw, out), OpKind.DEPTHWISE_CONV2D
        bias = rng.normal(size=out) if rng.random() < 0.8 else None
        y = build.add(kind, op, [x], window=window, weights=weights, bias=bias)
        return self.clamp(y)

    def head(self, x: str, *, softmax: bool) -> str:
        build = self.build
        features = int(np.prod(build.shape(x)))
        flat = build.add("flatten", OpKind.RESHAPE, [x], shape=(1, features))
        classes = int(self.rng.integers(2, 12))
        y = build.add(
            "head",
            OpKind.FULLY_CONNECTED,
            [flat],
            weights=self.weights(classes, features),
            bias=self.rng.normal(size=classes),
        )
        return build.add("softmax", OpKind.SOFTMAX, [y]) if softmax else y


def random_graph(seed: int, *, depth: int = 4, softmax: bool = True) -> Graph:
    """A convolutional classifier of `depth` random operators, a head, and maybe a softmax."""
    rng = np.random.default_rng(seed)
    grower = Grower(rng)
    shape = (1, int(rng.integers(4, 10)), int(rng.integers(4, 10)), int(rng.integers(1, 5)))
    x = grower.build.input("x", shape)
    for _ in range(depth):
        x = grower.step(x)
    return grower.build.graph([grower.head(x, softmax=softmax)])


def samples_for(graph: Graph, seed: int, count: int) -> Array:
    """Real-valued samples for the only input."""
    rng = np.random.default_rng(seed)
    shape = graph.tensors[graph.inputs[0]].shape
    return rng.normal(size=(count, *shape[1:])) * 2.0 + 0.5
