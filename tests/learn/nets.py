"""Random quantised nets for the learner's tests: graphs, and the images that hold them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fieldloop.image.writer import RehearsalSet, Trainable, write_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import WEIGHTED, Clamp, Op, OpKind, Requant, Window
from fieldloop.ir.shapes import output_shape
from fieldloop.ir.tensor import DType, Quant, Tensor, as_float32
from fieldloop.plan.learning import offers
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.types import PlanKind
from fieldloop.plan.verify import verify
from fieldloop.plan.way import NoWayError, saved_tensors
from fieldloop.quantize.fixedpoint import (
    activation_range,
    add_params,
    softmax_params,
    weighted_factors,
)
from fieldloop.runtime import LearnerConfig

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
        others: tuple[str, ...] = (),
    ) -> None:
        name = f"{kind.value}{len(self.ops)}"
        self.tensors |= {t.name: t for t in constants}
        inputs = (self.last, *others, *(t.name for t in constants))
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

    def pool(self, kind: OpKind, window: Window, *, clamp: Clamp = LINEAR) -> NetBuilder:
        quant = self.tensors[self.last].quant
        assert quant is not None
        fixed = Requant(*activation_range(clamp, quant))
        self._append(kind, [], quant, window, clamp, fixed)
        return self

    def add(self, other: str, *, clamp: Clamp = LINEAR) -> NetBuilder:
        """The last tensor plus an earlier one of its shape."""
        a, b = self.tensors[self.last].quant, self.tensors[other].quant
        assert a is not None and b is not None
        low = -128 if clamp is RELU else int(self.rng.integers(-20, 21))
        out = Quant((as_float32(max(a.scale, b.scale) * 1.3),), low)
        fixed = add_params(a, b, out, clamp)
        self._append(OpKind.ADD, [], out, clamp=clamp, fixed=fixed, others=(other,))
        return self

    def at(self, tensor: str) -> NetBuilder:
        """Goes on from an earlier tensor."""
        self.last = tensor
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
    try:
        keep = saved_tensors(graph, layers)
    except NoWayError:  # the learner's business to refuse
        keep = frozenset(t.name for t in graph.activations)
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


def apart_window(rng: np.random.Generator, size: tuple[int, int]) -> Window:
    """A pool's window whose outputs share no input."""
    kernel = tuple(int(rng.integers(1, min(4, s + 1))) for s in size)
    stride = tuple(k + int(rng.random() < 0.2) for k in kernel)
    pads = tuple(int(rng.integers(0, k)) for k in kernel for _ in range(2))
    return Window(kernel, stride, pads=pads)  # type: ignore[arg-type]


@dataclass
class RandomNet:
    """Makes a net, part by part."""

    rng: np.random.Generator
    net: NetBuilder

    def room(self) -> tuple[int, int]:
        return self.net.tensors[self.net.last].shape[1:3]  # type: ignore[return-value]

    def channels(self) -> int:
        return self.net.tensors[self.net.last].shape[3]

    def clamp(self) -> Clamp:
        return RELU if self.rng.random() < 0.7 else LINEAR

    def conv(self, window: Window | None = None, channels: int | None = None) -> None:
        rng = self.rng
        options: dict[str, Any] = {"clamp": self.clamp(), "bias": rng.random() < 0.8}
        options["per_channel"] = rng.random() < 0.8
        window = window or random_window(rng, self.room(), pool=False)
        self.net.weighted(OpKind.CONV2D, channels or int(rng.integers(2, 7)), window, **options)

    def depthwise(self, window: Window | None = None, multiplier: int | None = None) -> None:
        multiplier = multiplier or int(self.rng.integers(1, 3))
        window = window or random_window(self.rng, self.room(), pool=False)
        options: dict[str, Any] = {"clamp": self.clamp(), "bias": self.rng.random() < 0.8}
        channels = self.channels() * multiplier
        self.net.weighted(OpKind.DEPTHWISE_CONV2D, channels, window, **options)

    def pool(self, *, apart: bool = False) -> None:
        """Some have a clamp of their own, some span the whole map."""
        kind = OpKind.MAX_POOL if self.rng.random() < 0.5 else OpKind.AVG_POOL
        window = random_window(self.rng, self.room(), pool=True)
        if apart:
            window = apart_window(self.rng, self.room())
            if self.rng.random() < 0.2:
                window = Window(self.room(), self.room())
        clamp = Clamp(-1.0, 1.5) if self.rng.random() < 0.2 else LINEAR
        self.net.pool(kind, window, clamp=clamp)

    def pooled(self) -> None:
        """A convolution under a pool that is fused into it."""
        self.conv() if self.rng.random() < 0.6 else self.depthwise()
        self.pool(apart=True)

    def forked(self) -> None:
        """A convolution under two pools: neither is fused."""
        self.conv()
        start, window = self.net.last, apart_window(self.rng, self.room())
        self.net.pool(OpKind.MAX_POOL, window)
        largest = self.net.last
        self.net.at(start).pool(OpKind.AVG_POOL, window).add(largest)

    def residual(self) -> None:
        """One or two layers of the same shape, or a projection beside them, and their sum."""
        start, rng = self.net.last, self.rng
        same = Window((3, 3), pads=(1, 1, 1, 1)) if min(self.room()) > 1 else Window((1, 1))
        channels = self.channels()
        self.conv(same, channels) if rng.random() < 0.6 else self.depthwise(same, 1)
        if rng.random() < 0.4:
            self.conv(same, channels)
        other = self.net.last
        if rng.random() < 0.4:
            self.net.at(start)
            self.conv(Window((1, 1)), channels)
            start = self.net.last
        self.net.at(other).add(start, clamp=self.clamp())

    def body(self) -> None:
        parts: list[Callable[[], None]] = [
            self.conv,
            self.depthwise,
            self.pool,
            self.pooled,
            self.forked,
            self.residual,
        ]
        shares = [0.2, 0.15, 0.15, 0.25, 0.05, 0.2]
        for part in self.rng.choice(6, int(self.rng.integers(1, 4)), p=shares):
            parts[part]()

    def head(self) -> int:
        """Returns the number of classes."""
        net, rng = self.net, self.rng
        classes = int(rng.integers(2, 8))
        shape = rng.choice(["flat", "two layers", "direct", "convolutional", "sum"])
        if shape == "convolutional":
            h, w = self.room()
            net.weighted(OpKind.CONV2D, classes, Window((1, 1)), clamp=LINEAR, out_scale=0.08)
            net.pool(
                OpKind.AVG_POOL if rng.random() < 0.7 else OpKind.MAX_POOL, Window((h, w), (h, w))
            )
        else:
            if shape == "flat":
                net.flatten()
            if shape in ("two layers", "sum"):
                net.weighted(OpKind.FULLY_CONNECTED, int(rng.integers(3, 20)))
            below = net.last
            net.weighted(OpKind.FULLY_CONNECTED, classes, clamp=LINEAR, out_scale=0.08)
            if shape == "sum":
                first = net.last
                net.at(below).weighted(
                    OpKind.FULLY_CONNECTED, classes, clamp=LINEAR, out_scale=0.06
                )
                net.add(first)
        if rng.random() < 0.5:
            net.flatten().softmax()
        return classes


def random_net(seed: int) -> Net:
    """Convolutions, pools and residual blocks, then a head; some layers are trainable."""
    rng = np.random.default_rng(seed)
    shape = [1, *rng.integers(5, 9, 2), rng.integers(1, 4)]
    if rng.random() < 0.2:  # one-dimensional
        shape[1 + int(rng.integers(2))] = 1
    parts = RandomNet(rng, NetBuilder(rng, tuple(int(v) for v in shape)))
    parts.body()
    classes = parts.head()
    graph = parts.net.graph()
    weighted = [op.name for op in graph.ops if op.kind in WEIGHTED]
    chosen = [weighted[-1], *(name for name in weighted[:-1] if rng.random() < 0.7)]
    trainables = [Trainable(name, 10.0 ** rng.uniform(-4, -2)) for name in chosen]
    rehearsal = None
    if rng.random() < 0.6:
        count = int(rng.integers(1, 12))
        rehearsal = RehearsalSet(
            rng.integers(-128, 128, (count, *graph.tensors["x"].shape[1:])).astype(np.int8),
            rng.integers(0, classes, count).astype(np.int64),
        )
    return finish(graph, trainables, rehearsal)


SELECTORS = ("tinypropv2", "tinyprop", "dense", "topk", "random", "loss", "mask", "budget")


def random_config(seed: int, deltas: str = "f32") -> LearnerConfig:
    """Any settings that go together; the selectors take turns."""
    rng = np.random.default_rng(1000 + seed)

    def one(*choices: Any) -> Any:
        return choices[int(rng.integers(len(choices)))]

    selector = SELECTORS[seed % len(SELECTORS)]
    s_min, s_max = sorted(rng.random(2))
    unit = one("element", "element", "channel")
    wide = deltas == "f32"
    skip = one("auto", "auto", "on", "off")
    if selector == "tinypropv2":
        skip = one("auto", "on")
    return LearnerConfig(
        selector=selector,  # type: ignore[arg-type]
        skip=skip,
        unit=unit,
        rank=one("error", "activation") if unit == "channel" else "error",
        search=one("auto", "heap", "histogram", "threshold"),
        bias_mode=one("topk", "dense"),
        k_rule=one("integer", "trunc_f32"),
        deltas=deltas,  # type: ignore[arg-type]
        weights=one("int8", "int8", "int16", "f32") if wide else one("int8", "int16"),
        optimizer=one("sgd", "sgd", "momentum", "adam") if wide else "sgd",
        floor=one(1, 1, 3),
        batch=one(1, 1, 2, 5) if wide else 1,
        max_step=one(1, 8, 32, 254),
        s_min=float(s_min),
        s_max=float(s_max),
        zeta=float(rng.random()),
        d_thr=float(rng.uniform(0.02, 0.6)),
        rho=one(1.0, 0.99),
        lr=float(10.0 ** rng.uniform(-1, 1.5)),
        beta1=one(0.0, 0.9),
        replays=int(rng.integers(0, 4)),
        memory=one(0, 1, 5, 20),
        holdout=one(0, 2, 3),
        seed=int(rng.integers(0, 2**32)),
        mask=(0.5, *(rng.random(5) * (rng.random(5) < 0.8)).tolist())
        if selector == "mask"
        else (),
    )
