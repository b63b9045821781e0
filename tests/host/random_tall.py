"""Random graphs that rows and channels are cut of: tall maps, rows of one map, odd windows.

Strides are larger than kernels at times, pools leave rows over, an output is read inside, values
are added to what was made long before, and elementwise operators follow each other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from random_chains import grow
from random_mixed import F32, I8, I32, MixedGrower

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, Concat, OpKind, Requant, Window

STEPS = (
    OpKind.CONV2D,
    OpKind.CONV2D,
    OpKind.DEPTHWISE_CONV2D,
    OpKind.DEPTHWISE_CONV2D,
    OpKind.MAX_POOL,
    OpKind.AVG_POOL,
    OpKind.ADD,
    OpKind.MUL,
    OpKind.TABLE,
    OpKind.TABLE,
    OpKind.CONCAT,
    OpKind.RESHAPE,
    OpKind.PAD,
    OpKind.SLICE,
)
ENDS = (OpKind.MEAN, OpKind.FULLY_CONNECTED, OpKind.SOFTMAX, OpKind.RESHAPE)


class TallGrower(MixedGrower):
    """Windows with strides, dilations and pads of every sort."""

    pointwise = False

    def window(self, size: tuple[int, ...], *, pool: bool) -> Window:
        while not self.pointwise:
            kernel = (self.int(1, 4), self.int(1, 4))
            dilation = (1, 1) if pool else (self.int(1, 3), self.int(1, 2))
            stride = (self.int(1, 4), self.int(1, 3)) if self.int(0, 1) else (1, 1)
            same = self.int(0, 1)
            pads = tuple(self.int(0, kernel[side // 2] - 1) * same for side in range(4))
            window = Window(kernel, stride, dilation, pads)  # type: ignore[arg-type]
            out = window.output_size(size[0], size[1])
            last = [(out[i] - 1) * stride[i] - pads[2 * i] < size[i] for i in range(2)]
            if min(out) >= 1 and all(last):
                return window
            if min(size) < 4:
                break
        return Window((1, 1))

    def grow(self, kind: OpKind) -> None:
        x = self.values[-1]
        if kind is OpKind.CONCAT:
            self.concat(x)
        elif kind is OpKind.ADD and self.int(0, 1):
            self.residual(x)
        elif kind in (OpKind.PAD, OpKind.SLICE):
            self.move(kind, x)
        else:
            grow(self, kind)

    def concat(self, x: str) -> None:
        """Beside another value of the same map."""
        t = self.tensors[x]
        others = [
            v
            for v in self.values
            if (o := self.tensors[v]).dtype is t.dtype
            and o.quant == t.quant
            and o.shape[:-1] == t.shape[:-1]
        ]
        names = [x, others[self.int(0, len(others) - 1)]]
        self.put(OpKind.CONCAT, names, t.quant, t.dtype, attrs=Concat(len(t.shape) - 1))

    def residual(self, x: str) -> None:
        """A pointwise convolution of the value, and what is added to it: the value, perhaps."""
        shape = self.tensors[x].shape
        if len(shape) != 4 or shape[0] != 1:
            return
        self.pointwise = True
        self.weighted(OpKind.DEPTHWISE_CONV2D, x, Clamp(0.0))
        self.pointwise = False
        made = self.values[-1]
        if self.tensors[made].shape == shape:
            self.binary(OpKind.ADD, made, Clamp())


def tall_graph(seed: int, *, depth: int = 7) -> Graph:
    """A trunk of operators on a tall map, some ends, and sometimes an output from inside."""
    rng = np.random.default_rng(seed)
    grower = TallGrower(rng, plain=False)
    dtype = F32 if rng.random() < 0.3 else I8
    form = rng.random()
    if form < 0.15:  # rows of a map of one row
        grower.input((1, 1, grower.int(8, 40), grower.int(1, 4)), dtype)
    elif form < 0.25:
        grower.input((1, grower.int(6, 40)), I32)
    else:
        grower.input((1, grower.int(6, 20), grower.int(1, 6), grower.int(1, 4)), dtype)
    for _ in range(4 * depth):
        if len(grower.ops) >= depth:
            break
        grower.grow(STEPS[rng.integers(len(STEPS))])
    for _ in range(grower.int(0, 2)):
        grower.grow(ENDS[rng.integers(len(ENDS))])
    if not grower.ops:
        requant = Requant(-128, 127) if dtype is I8 else None
        x = grower.values[-1]
        grower.put(
            OpKind.MAX_POOL,
            [x],
            grower.tensors[x].quant,
            dtype,
            window=Window((1, 1)),
            fixed=requant,
        )
    graph = grower.graph()
    inner = [op.output for op in graph.ops if op.output not in graph.outputs]
    if inner and rng.random() < 0.4:
        more = inner[int(rng.integers(len(inner)))]
        graph = replace(graph, outputs=(*graph.outputs, more))
    return graph
