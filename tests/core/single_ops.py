"""Random int8 graphs of one operator: shapes, windows, scales and zero points of all sorts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fieldloop.image.writer import write_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, Op, OpKind, Requant, Window
from fieldloop.ir.tensor import DType, Quant, Tensor, as_float32
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.types import PlanKind
from fieldloop.plan.verify import verify
from fieldloop.quantize.fixedpoint import (
    activation_range,
    add_params,
    softmax_params,
    weighted_factors,
)
from fieldloop.quantize.ptq import SOFTMAX_OUTPUT

CLAMPS = (Clamp(), Clamp(), Clamp(0.0), Clamp(0.0, 6.0), Clamp(-1.0, 1.0))


@dataclass(slots=True)
class Maker:
    """Makes graphs; every choice comes from `rng`."""

    rng: np.random.Generator

    def int(self, low: int, high: int) -> int:
        """Uniform in low..high, both included."""
        return int(self.rng.integers(low, high + 1))

    def quant(self, low: float = -10.0, high: float = 2.0) -> Quant:
        scale = as_float32(2.0 ** self.rng.uniform(low, high))
        return Quant((scale,), self.int(-128, 127))

    def clamp(self) -> Clamp:
        return CLAMPS[self.rng.integers(len(CLAMPS))]

    def graph(self, tensors: list[Tensor], op: Op, inputs: tuple[str, ...]) -> Graph:
        return Graph(op.kind.value, {t.name: t for t in tensors}, (op,), inputs, (op.output,))

    # ---- operators with weights

    def weighted(
        self,
        kind: OpKind,
        x_shape: tuple[int, ...],
        w_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        axis: int,
        window: Window | None,
        groups: int = 1,
    ) -> Graph:
        rng = self.rng
        channels = w_shape[axis]
        x_quant = self.quant()
        per_channel = rng.random() < 0.7
        count = channels if per_channel else 1
        scales = tuple(as_float32(s) for s in 2.0 ** rng.uniform(-12, -2, count))
        w_quant = Quant(scales, 0, axis if per_channel else None)
        taps = math.prod(w_shape) // channels
        # From outputs that hardly move to outputs that saturate; left shifts among them.
        spread = x_quant.scale * max(scales) * math.sqrt(taps) * 74 * 74
        out_scale = as_float32(spread / 60.0 * 2.0 ** rng.uniform(-14, 4))
        if rng.random() < 0.6:
            out_scale = as_float32(spread / 60.0)
        out_quant = Quant((out_scale,), self.int(-128, 127))
        w = rng.integers(-127, 128, w_shape).astype(np.int8)
        tensors = [
            Tensor("x", x_shape, DType.INT8, x_quant),
            Tensor("w", w_shape, DType.INT8, w_quant, w),
            Tensor("y", out_shape, DType.INT8, out_quant),
        ]
        inputs = ("x", "w")
        if rng.random() < 0.75:
            b_scales = tuple(as_float32(x_quant.scale * s) for s in scales)
            b_quant = Quant(b_scales, 0, 0 if per_channel else None)
            b = rng.integers(-30000, 30001, channels).astype(np.int32)
            tensors.append(Tensor("b", (channels,), DType.INT32, b_quant, b))
            inputs = ("x", "w", "b")
        clamp = self.clamp()
        factors = weighted_factors(x_quant, w_quant, out_quant)
        fixed = Requant(*activation_range(clamp, out_quant), factors)
        op = Op("op", kind, inputs, "y", window, clamp, fixed, groups=groups)
        return self.graph(tensors, op, ("x",))

    def window(self, height: int, width: int, *, pool: bool) -> Window:
        """A window of which at least one position exists, and each pool's touches the map."""
        while True:
            kernel = (self.int(1, 5), self.int(1, 5))
            stride = (self.int(1, 3), self.int(1, 3))
            dilation = (1, 1) if pool else (self.int(1, 3), self.int(1, 3))
            style = self.int(0, 2)
            pads = (0, 0, 0, 0)
            if style == 1:  # any
                pads = tuple(self.int(0, kernel[i // 2] - 1) for i in range(4))  # type: ignore
            elif style == 2:  # SAME
                before, after = [], []
                for i, size in enumerate((height, width)):
                    extent = (kernel[i] - 1) * dilation[i] + 1
                    total = max((-(-size // stride[i]) - 1) * stride[i] + extent - size, 0)
                    before.append(total // 2)
                    after.append(total - total // 2)
                pads = (before[0], after[0], before[1], after[1])
            window = Window(kernel, stride, dilation, pads)
            out = window.output_size(height, width)
            if min(out) < 1:
                continue
            last = [(out[i] - 1) * stride[i] - pads[2 * i] for i in range(2)]
            if not pool or (last[0] < height and last[1] < width):
                return window

    def map_shape(self, channels: int) -> tuple[int, int, int, int]:
        return (1, self.int(1, 11), self.int(1, 11), channels)

    def conv2d(self) -> Graph:
        x = self.map_shape(self.int(1, 9))
        window = self.window(x[1], x[2], pool=False)
        channels = self.int(1, 13)
        out = (1, *window.output_size(x[1], x[2]), channels)
        w = (channels, *window.kernel, x[3])
        return self.weighted(OpKind.CONV2D, x, w, out, 0, window)

    def depthwise_conv2d(self) -> Graph:
        x = self.map_shape(self.int(1, 13))
        window = self.window(x[1], x[2], pool=False)
        channels = x[3] * (1 if self.rng.random() < 0.6 else self.int(2, 5))
        out = (1, *window.output_size(x[1], x[2]), channels)
        w = (1, *window.kernel, channels)
        return self.weighted(OpKind.DEPTHWISE_CONV2D, x, w, out, 3, window)

    def fully_connected(self) -> Graph:
        batch = 1 if self.rng.random() < 0.6 else self.int(2, 5)
        inner = (self.int(1, 90),)
        if self.rng.random() < 0.3:
            inner = (self.int(1, 4), self.int(1, 4), self.int(1, 6))  # flattened
        channels = self.int(1, 23)
        w = (channels, math.prod(inner))
        return self.weighted(
            OpKind.FULLY_CONNECTED, (batch, *inner), w, (batch, channels), 0, None
        )

    # ---- the others

    def pool(self, kind: OpKind) -> Graph:
        x = self.map_shape(self.int(1, 9))
        window = self.window(x[1], x[2], pool=True)
        if self.rng.random() < 0.2:
            window = Window((x[1], x[2]))  # global
        quant, clamp = self.quant(), self.clamp()
        out = (1, *window.output_size(x[1], x[2]), x[3])
        tensors = [Tensor("x", x, DType.INT8, quant), Tensor("y", out, DType.INT8, quant)]
        fixed = Requant(*activation_range(clamp, quant))
        return self.graph(tensors, Op("op", kind, ("x",), "y", window, clamp, fixed), ("x",))

    def max_pool(self) -> Graph:
        return self.pool(OpKind.MAX_POOL)

    def avg_pool(self) -> Graph:
        return self.pool(OpKind.AVG_POOL)

    def add(self, shape: tuple[int, ...] = (1, 7, 6, 3)) -> Graph:
        a, b = self.quant(-9, 0), self.quant(-9, 0)
        low = math.log2(max(a.scale, b.scale)) - 12
        out, clamp = self.quant(low, low + 16), self.clamp()
        tensors = [
            Tensor("a", shape, DType.INT8, a),
            Tensor("b", shape, DType.INT8, b),
            Tensor("y", shape, DType.INT8, out),
        ]
        fixed = add_params(a, b, out, clamp)
        op = Op("op", OpKind.ADD, ("a", "b"), "y", None, clamp, fixed)
        return self.graph(tensors, op, ("a", "b"))

    def softmax(self, columns: int | None = None) -> Graph:
        rows = 1 if self.rng.random() < 0.5 else self.int(2, 6)
        shape = (rows, columns or self.int(1, 40))
        quant = self.quant(-18, 8)
        tensors = [
            Tensor("x", shape, DType.INT8, quant),
            Tensor("y", shape, DType.INT8, SOFTMAX_OUTPUT),
        ]
        op = Op("op", OpKind.SOFTMAX, ("x",), "y", fixed=softmax_params(quant))
        return self.graph(tensors, op, ("x",))

    def reshape(self) -> Graph:
        x = self.map_shape(self.int(1, 9))
        quant = self.quant()
        tensors = [
            Tensor("x", x, DType.INT8, quant),
            Tensor("y", (1, math.prod(x)), DType.INT8, quant),
        ]
        return self.graph(tensors, Op("op", OpKind.RESHAPE, ("x",), "y"), ("x",))


def image_of(graph: Graph) -> bytes:
    """The image of a quantised graph with a verified inference plan."""
    plan = plan_graph(graph, PlanKind.INFER)
    verify(graph, plan)
    return write_image(graph, [plan])
