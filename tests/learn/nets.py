"""Random quantised nets for the learner's tests: graphs, and the images that hold them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fieldloop.image.writer import RehearsalSet, Trainable, write_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, Op, OpKind, Requant, Window
from fieldloop.ir.shapes import output_shape
from fieldloop.ir.tensor import DType, Quant, Tensor, as_float32
from fieldloop.plan.learning import offers
from fieldloop.plan.planner import backward_reads, plan_graph
from fieldloop.plan.types import PlanKind
from fieldloop.plan.verify import verify
from fieldloop.quantize.fixedpoint import activation_range, softmax_params, weighted_factors

Array = np.ndarray[Any, Any]
RELU = Clamp(lo=0.0)
LINEAR = Clamp()


class NetBuilder:
    """Adds one int8 operator after the other; scales are chosen so that values fill the range."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
        self.rng = rng
        quant = Quant((as_float32(1 / 32),), int(rng.integers(-10, 11)))
        self.tensors = {"x": Tensor("x", shape, DType.INT8, quant)}
        self.ops: list[Op] = []
        self.last = "x"

    def _append(
        self,
        kind: OpKind,
        constants: list[Tensor],
        quant: Quant,
        window: Window | None = None,
        clamp: Clamp = LINEAR,
        fixed: Any = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        name = f"{kind.value}{len(self.ops)}"
        self.tensors |= {t.name: t for t in constants}
        inputs = (self.last, *(t.name for t in constants))
        op = Op(name, kind, inputs, f"{name}.out", window, clamp, fixed)
        out_shape = shape or output_shape(op, self.tensors)
        self.tensors[op.output] = Tensor(op.output, out_shape, DType.INT8, quant)
        self.ops.append(op)
        self.last = op.output

    def weighted(
        self,
        kind: OpKind,
        channels: int,
        window: Window | None = None,
        *,
        clamp: Clamp = RELU,
        bias: bool = True,
        per_channel: bool = True,
        out_scale: float | None = None,
        w_scales: tuple[float, float] = (0.003, 0.02),
    ) -> NetBuilder:
        rng, x = self.rng, self.tensors[self.last]
        assert x.quant is not None
        depthwise = kind is OpKind.DEPTHWISE_CONV2D
        if kind is OpKind.FULLY_CONNECTED:
            shape: tuple[int, ...] = (channels, x.size)
        else:
            assert window is not None
            shape = (
                (1, *window.kernel, channels)
                if depthwise
                else (channels, *window.kernel, x.shape[3])
            )
        axis = 3 if depthwise else 0
        scales = rng.uniform(*w_scales, channels if per_channel else 1)
        w_quant = Quant(tuple(map(as_float32, scales)), 0, axis if per_channel else None)
        n = len(self.ops)
        w = rng.integers(-127, 128, shape).astype(np.int8)
        constants = [Tensor(f"w{n}", shape, DType.INT8, w_quant, w)]
        if bias:
            b_scales = tuple(as_float32(x.quant.scale * s) for s in w_quant.scales)
            b_quant = Quant(b_scales, 0, 0 if per_channel else None)
            b = rng.integers(-2000, 2001, channels).astype(np.int32)
            constants.append(Tensor(f"b{n}", (channels,), DType.INT32, b_quant, b))
        spread = 74 * float(np.mean(scales)) * 74 * x.quant.scale * (w.size // channels) ** 0.5
        scale = as_float32(out_scale or spread / 48)
        out = Quant((scale,), -128 if clamp is RELU else int(rng.integers(-20, 21)))
        factors = weighted_factors(x.quant, w_quant, out)
        fixed = Requant(*activation_range(clamp, out), factors)
        self._append(kind, constants, out, window, clamp, fixed)
        return self

    def pool(self, kind: OpKind, window: Window) -> NetBuilder:
        quant = self.tensors[self.last].quant
        assert quant is not None
        self._append(kind, [], quant, window, fixed=Requant(-128, 127))
        return self

    def flatten(self) -> NetBuilder:
        x = self.tensors[self.last]
        assert x.quant is not None
        self._append(OpKind.RESHAPE, [], x.quant, shape=(1, x.size))
        return self

    def softmax(self) -> NetBuilder:
        x = self.tensors[self.last]
        assert x.quant is not None
        out = Quant((as_float32(1 / 256),), -128)
        self._append(OpKind.SOFTMAX, [], out, fixed=softmax_params(x.quant))
        return self

    def graph(self) -> Graph:
        return Graph("net", self.tensors, tuple(self.ops), ("x",), (self.last,))


@dataclass(frozen=True)
class Net:
    """A graph with what its image adds."""

    graph: Graph
    trainables: list[Trainable]
    rehearsal: RehearsalSet | None
    image: bytes

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.graph.tensors[self.graph.inputs[0]].shape


def finish(
    graph: Graph,
    trainables: list[Trainable],
    rehearsal: RehearsalSet | None = None,
    labels: tuple[str, ...] = (),
    *,
    lent: int | None = None,
) -> Net:
    """Plans the graph for inference and learning and writes its image.

    `lent`: bytes of the arena that the learner may use; None: what its own settings need.
    """
    names = [op.name for op in graph.ops]
    layers = sorted((t.op for t in trainables), key=names.index)
    if lent is None:
        _, lent, _ = offers(graph, layers)
    keep = backward_reads(graph, layers[0], names[-1])
    learning = plan_graph(graph, PlanKind.LEARN, keep=keep, learner_scratch=lent)
    verify(graph, learning, keep=keep)
    plans = [plan_graph(graph, PlanKind.INFER), learning]
    image = write_image(graph, plans, trainables=trainables, rehearsal=rehearsal, labels=labels)
    return Net(graph, trainables, rehearsal, image)


def random_window(rng: np.random.Generator, size: tuple[int, int], *, pool: bool) -> Window:
    kernel = tuple(int(rng.integers(1, min(4, s + 1))) for s in size)
    pads = tuple(int(rng.integers(0, k)) for k in kernel for _ in range(2))
    dilation = (1, 1)
    if not pool and min(size) > 4 and rng.random() < 0.3:
        dilation = (2, 1)
    stride = tuple(int(v) for v in rng.integers(1, 3, 2))
    return Window(kernel, stride, dilation, pads)  # type: ignore[arg-type]


def random_net(seed: int) -> Net:
    """A few convolutions and pools, then fully connected layers; some layers are trainable."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(5, 9))
    net = NetBuilder(rng, (1, size, size, int(rng.integers(1, 4))))

    def room() -> tuple[int, int]:
        return net.tensors[net.last].shape[1:3]  # type: ignore[return-value]

    for _ in range(int(rng.integers(1, 4))):
        kind = rng.choice(["conv", "depthwise", "max", "avg"], p=[0.45, 0.3, 0.15, 0.1])
        options = {"per_channel": rng.random() < 0.8, "bias": rng.random() < 0.8}
        options["clamp"] = RELU if rng.random() < 0.7 else LINEAR
        if kind == "conv":
            window = random_window(rng, room(), pool=False)
            net.weighted(OpKind.CONV2D, int(rng.integers(2, 7)), window, **options)
        elif kind == "depthwise":
            channels = net.tensors[net.last].shape[3] * int(rng.integers(1, 3))
            options["per_channel"] = True
            window = random_window(rng, room(), pool=False)
            net.weighted(OpKind.DEPTHWISE_CONV2D, channels, window, **options)
        else:
            net.pool(OpKind[f"{kind}_pool".upper()], random_window(rng, room(), pool=True))
    classes = int(rng.integers(2, 8))
    shape = rng.choice(["flat", "two layers", "direct", "convolutional"])
    if shape == "convolutional":
        h, w = room()
        net.weighted(OpKind.CONV2D, classes, Window((1, 1)), clamp=LINEAR, out_scale=0.08)
        net.pool(OpKind.AVG_POOL, Window((h, w), (h, w)))
    else:
        if shape == "flat":
            net.flatten()
        if shape == "two layers":
            net.weighted(OpKind.FULLY_CONNECTED, int(rng.integers(3, 20)))
        net.weighted(OpKind.FULLY_CONNECTED, classes, clamp=LINEAR, out_scale=0.08)
    if rng.random() < 0.5:
        net.flatten().softmax()
    graph = net.graph()
    weighted = [op.name for op in graph.ops if len(op.inputs) > 1]
    chosen = [weighted[-1], *(name for name in weighted[:-1] if rng.random() < 0.7)]
    trainables = [Trainable(name, 10.0 ** rng.uniform(-4, -2)) for name in chosen]
    rehearsal = None
    if rng.random() < 0.6:
        count = int(rng.integers(1, 12))
        rehearsal = RehearsalSet(
            rng.integers(-128, 128, (count, *net.tensors["x"].shape[1:])).astype(np.int8),
            rng.integers(0, classes, count).astype(np.int64),
        )
    return finish(graph, trainables, rehearsal)
