"""The numpy reference of the backward pass against torch autograd, on whole random nets."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from nets import Net, random_net
from reference import ReferenceLearner
from reference_backward import Delta
from reference_way import Stop, expand, spots_to_row

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import POOLS, Op, OpKind
from fieldloop.runtime import LearnerConfig

torch = pytest.importorskip("torch")

Array = np.ndarray[Any, Any]
DENSE = LearnerConfig(selector="dense", replays=0)


class Recorder(ReferenceLearner):
    """Keeps real gradients instead of moving weights."""

    def reset(self) -> None:
        super().reset()
        self.gradients: dict[str, tuple[Array, Array]] = {}
        self.largest: dict[str, tuple[float, float]] = {}
        self.precise: dict[str, bool] = {}

    def backward(self, saved: dict[str, Array], output: Array, alpha: Any) -> int:
        self.fewest = np.inf
        return super().backward(saved, output, alpha)

    def propagate(self, stop: Stop, saved: dict[str, Array], delta: Delta, *rest: Any) -> None:
        """Words of 16 bits of which the clamps left only small ones have few digits."""
        if delta.exponent is not None:
            self.fewest = min(self.fewest, np.abs(delta.words).max())
        self.precise[stop.op.name] = bool(self.fewest > 1000)
        super().propagate(stop, saved, delta, *rest)

    def update(self, stop: Stop, saved: dict[str, Array], delta: Delta, chosen: Array) -> None:
        x = saved[stop.op.inputs[0]]
        x = x[0] if x.ndim == 4 else x.reshape(1, 1, -1)
        quant = self.quant(stop.op.inputs[0])
        centred = x.astype(np.int64) - quant.zero_point
        unit = 1.0 if delta.exponent is None else 2.0**delta.exponent
        if delta.exponent is None:
            centred = centred.astype(np.float32)
        w = self.weights(stop.op)
        spots = expand(stop, chosen, self.rows(stop.op), saved)
        rows = [spots_to_row(stop.op, c, s, centred, w).ravel() for c, s in enumerate(spots)]
        sums = [sum(float(spot.value) for spot in mine) * unit for mine in spots]
        gradient = np.stack(rows).astype(np.float64) * unit * quant.scale
        self.gradients[stop.op.name] = gradient, np.array(sums)
        largest = float(np.abs(delta.words).max()) * unit
        self.largest[stop.op.name] = largest * float(np.abs(centred).max()) * quant.scale, largest


def real(graph: Graph, name: str, q: Array) -> Any:
    quant = graph.tensors[name].quant
    assert quant is not None
    scales = np.array(quant.scales)
    if quant.axis is not None:
        scales = scales.reshape([-1 if i == quant.axis else 1 for i in range(q.ndim)])
    return torch.tensor((q.astype(np.float64) - quant.zero_point) * scales)


def windows(op: Op, x: Any, q: Array) -> Any:
    """A pool of real values; of a maximum, the place is the first largest int8 one."""
    assert op.window is not None
    (kh, kw), (sh, sw), pads = op.window.kernel, op.window.stride, op.window.pads
    height, width = op.window.output_size(*q.shape[1:3])
    rows = []
    for y, xx in np.ndindex(height, width):
        top, left = y * sh - pads[0], xx * sw - pads[2]
        here = np.s_[0, max(top, 0) : top + kh, max(left, 0) : left + kw]
        patch = x[here].reshape(-1, q.shape[3])
        first = torch.tensor(q[here].reshape(-1, q.shape[3]).argmax(axis=0))
        maximum = patch.gather(0, first[None])[0]
        rows.append(patch.mean(0) if op.kind is OpKind.AVG_POOL else maximum)
    return torch.stack(rows).reshape(1, height, width, -1)


def convolution(op: Op, x: Any, w: Any, b: Any) -> Any:
    assert op.window is not None
    top, bottom, left, right = op.window.pads
    padded = torch.nn.functional.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
    depthwise = op.kind is OpKind.DEPTHWISE_CONV2D
    kernel = w.permute(3, 0, 1, 2) if depthwise else w.permute(0, 3, 1, 2)
    groups = x.shape[3] if depthwise else 1
    made = torch.nn.functional.conv2d(
        padded, kernel, b, op.window.stride, 0, op.window.dilation, groups
    )
    return made.permute(0, 2, 3, 1)


def autograd(net: Net, learner: Recorder, x: Array, label: int) -> dict[str, list[Array]]:
    """Gradients of real weights and biases. Values are the saved int8 ones, their gradients those
    of the real operators: the straight-through estimator.
    """
    graph, saved = net.graph, learner.forward(x)
    values = {graph.inputs[0]: real(graph, graph.inputs[0], saved[graph.inputs[0]])}
    parameters: dict[str, list[Any]] = {}
    for op in graph.ops:
        ins = [values.get(name) for name in op.inputs]
        if op.kind is OpKind.RESHAPE:
            made = ins[0].reshape(graph.tensors[op.output].shape)  # type: ignore[union-attr]
        elif op.kind is OpKind.ADD:
            made = ins[0] + ins[1]
        elif op.kind in POOLS:
            made = windows(op, ins[0], saved[op.inputs[0]])
        else:
            own = [real(graph, n, graph.tensors[n].data) for n in op.inputs[1:]]  # type: ignore[arg-type]
            own = [p.requires_grad_() for p in own]
            parameters[op.name] = own
            b = own[1] if len(own) > 1 else None
            if op.kind is OpKind.FULLY_CONNECTED:
                made = torch.nn.functional.linear(ins[0].reshape(1, -1), own[0], b)  # type: ignore[union-attr]
            else:
                made = convolution(op, ins[0], own[0], b)
        q = saved[op.output].astype(int)
        passes = np.ones(q.shape, bool)
        fixed: Any = op.fixed
        if fixed is not None and op is not learner.head:
            linear = (fixed.act_min, fixed.act_max) == (-128, 127)
            if not (op.kind in POOLS and linear):
                passes = (fixed.act_min < q) & (q < fixed.act_max)
        held = made.reshape(q.shape)
        through = held - held.detach()
        values[op.output] = real(graph, op.output, q) + through * torch.tensor(passes)
        if op is learner.head:
            break
    logits = values[learner.head.output].reshape(1, -1)
    torch.nn.functional.cross_entropy(logits, torch.tensor([label])).backward()
    return {
        name: [p.grad.numpy() for p in own]
        for name, own in parameters.items()
        if name in learner.layers
    }


@pytest.mark.parametrize("deltas", ["f32", "int16"])
@pytest.mark.parametrize("seed", range(40))
def test_gradients_are_autograds(seed: int, deltas: str) -> None:
    net = random_net(seed)
    config = dataclasses.replace(DENSE, deltas=deltas)  # type: ignore[arg-type]
    learner = Recorder(net.graph, net.trainables, config, b"")
    rng = np.random.default_rng(seed)
    for _ in range(2):
        x = rng.integers(-128, 128, net.sample_shape).astype(np.int8)
        # the least likely one: 16 bits from the output on need an error to speak of
        label = int(learner.forward(x)[learner.head.output].argmin())
        learner.learn(x, label)
        expected = autograd(net, learner, x, label)
        assert expected.keys() == learner.gradients.keys()
        for name, (gradient, sums) in learner.gradients.items():
            if not learner.precise[name]:
                continue
            wanted = learner.by_row(learner.graph.ops[names(net)[name]], expected[name][0])
            places = learner.largest[name]
            close(gradient, wanted, places[0], deltas)
            if len(expected[name]) > 1:
                close(sums, expected[name][1], places[1], deltas)


def names(net: Net) -> dict[str, int]:
    return {op.name: i for i, op in enumerate(net.graph.ops)}


def close(got: Array, wanted: Array, largest: float, deltas: str) -> None:
    """To the rounding of f32; of 16 bits, to a share of what the largest word makes."""
    if deltas == "f32":
        tolerance = 1e-5 * np.abs(wanted).max(initial=0.0)
    else:
        tolerance = 4e-3 * max(largest, np.abs(wanted).max(initial=0.0))
    assert np.abs(got - wanted).max(initial=0.0) <= tolerance + 1e-12


def test_most_deltas_of_16_bits_are_precise() -> None:
    config = dataclasses.replace(DENSE, deltas="int16")
    found = []
    for seed in range(40):
        net = random_net(seed)
        learner = Recorder(net.graph, net.trainables, config, b"")
        x = np.random.default_rng(seed).integers(-128, 128, net.sample_shape).astype(np.int8)
        learner.learn(x, int(learner.forward(x)[learner.head.output].argmin()))
        found += [learner.precise[name] for name in learner.gradients]
    assert sum(found) > 0.8 * len(found)
