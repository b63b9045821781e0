"""Quantization-aware training: the forward pass is the device's, integer by integer.

A step quantises the current weights as `quantize.emit` does for the image, and runs that int8
graph: sums of products in torch where they are exact, everything else by the int8 reference. Its
integers, times their scales, are what the next layer and the loss see; gradients pass rounding as
if it were not there, and stop where a value is cut (a straight-through estimator). The scales of
activations are learned with the weights (LSQ), zero points stay. So the trained network's image
gives the bytes that were trained on: nothing is left to be lost when it is exported.

Batch norms are folded before (a graph has none). Samples are in the graph's layout: NHWC.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldloop.errors import UsageError
from fieldloop.ir import fixed_math as fm
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import WEIGHTED, Fixed, Op, OpKind, Requant
from fieldloop.ir.reference import keeps_batch
from fieldloop.ir.tensor import Array, DType, Quant, as_float32
from fieldloop.quantize.assign import activation_quants
from fieldloop.quantize.calibrate import calibrate
from fieldloop.quantize.emit import emit
from fieldloop.quantize.options import QuantizeOptions
from fieldloop.quantize.report import given_to
from fieldloop.quantize.walk import run_op
from fieldloop.train.distill import Progress, deterministic, soft_loss
from fieldloop.train.soft_ops import convolution, soft_op

# Integers up to here are exact in float32, whatever the order they are summed in.
_EXACT = 2**24
_MAX_INPUT = 255  # |x - zero point|
_FIXED_KINDS = {OpKind.SOFTMAX, OpKind.EMBEDDING}


@dataclass(frozen=True, slots=True, kw_only=True)
class QatSchedule:
    """AdamW with a cosine to zero. `scale_rate`: of the logarithms of the scales.

    Where a teacher's opinions are given, the loss is `soft` of them at that temperature.
    """

    epochs: int = 10
    batch: int = 64
    rate: float = 1e-3
    scale_rate: float = 1e-3
    decay: float = 1e-4
    soft: float = 0.7
    temperature: float = 3.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not self.rate > 0.0 or self.scale_rate < 0.0:
            raise UsageError(f"schedule: expected epochs, batch and rates above 0, got {self}")


class QatNetwork(nn.Module):
    """A float graph as a module that computes what its int8 graph will.

    `quants`: of every float32 activation, by name, from `activation_quants`. Parameters: weights,
    biases, embedding tables, and the logarithms of the scales that are learned.
    """

    def __init__(
        self, graph: Graph, quants: Mapping[str, Quant], options: QuantizeOptions | None = None
    ) -> None:
        super().__init__()
        if not keeps_batch(graph):
            raise UsageError(
                f"graph {graph.name}: an operator moves elements of the first axis; expected "
                "samples that never meet"
            )
        self.source = graph
        self.options = options or QuantizeOptions()
        self.names = [
            name
            for op in graph.ops
            if op.kind in WEIGHTED or op.kind is OpKind.EMBEDDING
            for name in op.inputs[1:]
        ]
        self.constants = nn.ParameterList(
            nn.Parameter(torch.from_numpy(np.array(graph.tensors[name].data)))
            for name in dict.fromkeys(self.names)
        )
        self.names = list(dict.fromkeys(self.names))
        self.fixed_quants = dict(quants)
        learned = _learned(graph, quants)
        self.scale_of = {
            name: learned.index(quants[name]) for name in quants if quants[name] in learned
        }
        self.log_scales = nn.Parameter(
            torch.tensor([math.log(q.scale) for q in learned], dtype=torch.float64)
        )

    def quants(self) -> dict[str, Quant]:
        """The quantisation of each activation as it is now."""
        scales = torch.exp(self.log_scales.detach()).tolist()
        return {
            name: Quant((as_float32(scales[self.scale_of[name]]),), quant.zero_point)
            if name in self.scale_of
            else quant
            for name, quant in self.fixed_quants.items()
        }

    def float_graph(self) -> Graph:
        """The float graph with the weights as they are now."""
        tensors = dict(self.source.tensors)
        for name, value in zip(self.names, self.constants, strict=True):
            tensors[name] = replace(tensors[name], data=value.detach().numpy().copy())
        return replace(self.source, tensors=tensors)

    def int8_graph(self) -> Graph:
        """What the device will run: `compile_graph` takes it as it is."""
        return emit(self.float_graph(), self.quants(), self.options)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Real values of the outputs [n, ...] for real (or index) inputs [n, ...]."""
        graph = self.int8_graph()
        values, _ = self._walk(graph, inputs, graph.outputs)
        return tuple(values[name] for name in graph.outputs)

    def logits(self, *inputs: Tensor) -> Tensor:
        """The first output, before its softmax if it has one: what a loss wants."""
        graph = self.int8_graph()
        name = graph.outputs[0]
        made = graph.producer(name)
        if made is not None and made.kind is OpKind.SOFTMAX:
            name = made.inputs[0]
        return self._walk(graph, inputs, (name,))[0][name]

    def integers(self, *inputs: Array) -> tuple[Array, ...]:
        """The outputs as the device has them: int8 (float32 where the graph says so)."""
        graph = self.int8_graph()
        with torch.no_grad():
            given = tuple(torch.from_numpy(np.asarray(x)) for x in inputs)
            _, stored = self._walk(graph, given, graph.outputs)
        return tuple(stored[name] for name in graph.outputs)

    # ---- one pass

    def _walk(
        self, graph: Graph, inputs: tuple[Tensor, ...], wanted: tuple[str, ...]
    ) -> tuple[dict[str, Tensor], dict[str, Array]]:
        """Real values with gradients, and what the device stores, of the tensors `wanted`."""
        if len(inputs) != len(graph.inputs):
            raise UsageError(f"expected {len(graph.inputs)} inputs, got {len(inputs)}")
        scales = torch.exp(self.log_scales)
        parameters = dict(zip(self.names, self.constants, strict=True))
        ops = {op.name: op for op in self.source.ops}
        given = {n: x.detach().numpy() for n, x in zip(graph.inputs, inputs, strict=True)}
        stored = given_to(graph, given)
        values: dict[str, Tensor] = {}
        for name, x in zip(graph.inputs, inputs, strict=True):
            scale = scales[self.scale_of[name]] if name in self.scale_of else None
            quant = graph.tensors[name].quant
            values[name] = _straight_through(x, stored[name], None, quant, scale)
        last = {name: i for i, op in enumerate(graph.ops) for name in op.inputs}
        for i, op in enumerate(graph.ops):
            source = ops.get(op.name)
            if op.kind in WEIGHTED and graph.tensors[op.output].dtype is DType.INT8:
                assert source is not None
                soft, stored[op.output] = _weighted(op, source, graph, values, stored, parameters)
            else:
                soft = soft_op(op, source, graph, values, parameters)
                stored[op.output] = run_op(op, graph.tensors, stored)
            place = self.scale_of.get(source.output) if source is not None else None
            values[op.output] = _straight_through(
                soft,
                stored[op.output],
                op.fixed,
                graph.tensors[op.output].quant,
                None if place is None else scales[place],
            )
            for name in set(op.inputs):
                if last[name] == i and name not in wanted:
                    values.pop(name, None)
                    stored.pop(name, None)
        return values, stored


def _learned(graph: Graph, quants: Mapping[str, Quant]) -> list[Quant]:
    """The quantisations whose scale may change: those of nothing that is fixed."""
    fixed = {
        quants[op.output] for op in graph.ops if op.kind in _FIXED_KINDS or op.kind is OpKind.UNARY
    }
    return [q for q in dict.fromkeys(quants.values()) if q not in fixed]


def _weighted(
    op: Op,
    source: Op,
    graph: Graph,
    values: Mapping[str, Tensor],
    stored: Mapping[str, Array],
    parameters: Mapping[str, Tensor],
) -> tuple[Tensor, Array]:
    """The layer's real output with gradients, before its activation, and its int8 output."""
    x_quant, out = graph.tensors[op.inputs[0]].quant, graph.tensors[op.output]
    w, b = graph.tensors[op.inputs[1]], graph.tensors[op.inputs[2]]
    assert x_quant is not None and w.quant is not None and out.quant is not None
    assert w.data is not None and b.data is not None and isinstance(op.fixed, Requant)
    assert w.quant.axis is not None
    along = [1] * w.data.ndim
    along[w.quant.axis] = -1
    scales = torch.tensor(w.quant.scales, dtype=torch.float32)

    others = tuple(i for i in range(w.data.ndim) if i != w.quant.axis)
    largest = int(np.abs(w.data.astype(np.int64)).sum(axis=others).max()) * _MAX_INPUT
    dtype = torch.float32 if largest < _EXACT else torch.float64
    integers = torch.from_numpy(stored[op.inputs[0]].astype(np.float32) - x_quant.zero_point)
    x = _replaced(values[op.inputs[0]] / x_quant.scale, integers).to(dtype)
    real_w = parameters[source.inputs[1]] / scales.reshape(along)
    w_int = _replaced(real_w, torch.from_numpy(w.data.astype(np.float32))).to(dtype)
    acc = convolution(op, x, w_int)  # integers, exactly

    total = fm.wrap32(acc.detach().numpy().astype(np.int64) + b.data)
    multipliers = np.array([f.multiplier for f in op.fixed.factors], np.int64)
    shifts = np.array([f.shift for f in op.fixed.factors], np.int64)
    q = fm.requantize(total, multipliers, shifts) + out.quant.zero_point
    made = np.clip(q, op.fixed.act_min, op.fixed.act_max).astype(np.int8)

    soft = acc.to(torch.float32) * (scales * x_quant.scale)
    bias = torch.from_numpy(b.data.astype(np.float32)) * (scales * x_quant.scale)
    if len(source.inputs) > 2:
        bias = _replaced(parameters[source.inputs[2]], bias)
    return soft + bias, made


def _replaced(value: Tensor, by: Tensor) -> Tensor:
    """`by`, with the gradient of `value`."""
    return value + (by - value).detach()


def _straight_through(
    soft: Tensor, stored: Array, fixed: Fixed | None, quant: Quant | None, scale: Tensor | None
) -> Tensor:
    """The real value of what is stored, with the gradient of `soft` where it is not cut."""
    if quant is None:
        return soft
    steps = torch.from_numpy(stored.astype(np.float32) - quant.zero_point)
    low = int(getattr(fixed, "act_min", -128)) - quant.zero_point
    high = int(getattr(fixed, "act_max", 127)) - quant.zero_point
    step: Any = quant.scale if scale is None else scale.to(torch.float32)
    # Half a step beyond the ends still rounds to them: there the gradient may push it back.
    cut = torch.clamp(soft / step, low - 0.5, high + 0.5)
    made: Tensor = _replaced(cut, steps) * step
    return made


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """The int8 graph after training, the float graph it was made from, and the losses."""

    graph: Graph
    reference: Graph
    losses: tuple[float, ...]  # mean of each epoch


def tune(
    graph: Graph,
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    *,
    calibration: npt.NDArray[np.float32],
    schedule: QatSchedule | None = None,
    options: QuantizeOptions | None = None,
    opinions: npt.NDArray[np.float32] | None = None,
    bend: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tuned:
    """Fine-tunes a float classifier of one input, so that its int8 graph is right.

    x: samples [n, ...] in the graph's layout; y: classes [n]; calibration: samples that the first
    ranges come from, by `options`. opinions: a teacher's logits [n, classes], most often the float
    network's own. bend: another view of a batch. The same seed gives the same network.
    """
    recipe = schedule or QatSchedule()
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise UsageError("tune: expected a graph of one input and one output")
    if len(x) != len(y) or not len(x) or (opinions is not None and len(opinions) != len(x)):
        raise UsageError(f"tune: expected n samples, classes and opinions, got {len(x)}, {len(y)}")
    ranges = calibrate(graph, {graph.inputs[0]: calibration}, options)
    with deterministic(seed):
        network = QatNetwork(graph, activation_quants(graph, ranges, {}), options)
        losses = _fit(network, x, y, recipe, opinions, bend, progress)
    return Tuned(network.int8_graph(), network.float_graph(), losses)


def _fit(
    network: QatNetwork,
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    recipe: QatSchedule,
    opinions: npt.NDArray[np.float32] | None,
    bend: Callable[[Tensor], Tensor] | None,
    progress: Progress | None,
) -> tuple[float, ...]:
    samples, classes = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y)
    taught = None if opinions is None else torch.from_numpy(opinions)
    matrices = [p for p in network.constants if p.ndim > 1]
    vectors = [p for p in network.constants if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "lr": recipe.rate, "weight_decay": recipe.decay},
            {"params": vectors, "lr": recipe.rate, "weight_decay": 0.0},
            {"params": [network.log_scales], "lr": recipe.scale_rate, "weight_decay": 0.0},
        ]
    )
    steps = math.ceil(len(samples) / recipe.batch)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * steps)
    losses = []
    for epoch in range(recipe.epochs):
        total = 0.0
        for chosen in torch.randperm(len(samples)).split(recipe.batch):
            batch = samples[chosen] if bend is None else bend(samples[chosen])
            logits = network.logits(batch).reshape(len(chosen), -1)
            loss = functional.cross_entropy(logits, classes[chosen])
            if taught is not None:
                soft = soft_loss(logits, taught[chosen], recipe.temperature)
                loss = (1.0 - recipe.soft) * loss + recipe.soft * soft
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cosine.step()
            total += float(loss.detach()) * len(chosen)
        losses.append(total / len(samples))
        if progress is not None:
            progress(epoch + 1, recipe.epochs)
    return tuple(losses)
