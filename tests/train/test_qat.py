"""Quantization-aware training: its forward pass is the C core's, and it trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fieldloop.compiler import compile_graph
from fieldloop.errors import UsageError
from fieldloop.frontends.torch_frontend import from_torch, to_nhwc
from fieldloop.ir.graph import Graph
from fieldloop.quantize.assign import activation_quants
from fieldloop.quantize.calibrate import calibrate
from fieldloop.quantize.options import Method, QuantizeOptions
from fieldloop.quantize.ptq import quantize_graph
from fieldloop.runtime import Model
from fieldloop.train.qat import QatNetwork, QatSchedule, tune


class Everything(nn.Module):
    """A residual network of most operators there are."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.depthwise = nn.Conv2d(8, 8, (3, 2), stride=2, padding=(1, 0), groups=8)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.past = nn.Conv2d(8, 8, 1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(12 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        y = nn.functional.hardswish(self.depthwise(x))
        y = self.grouped(y) * torch.sigmoid(self.gate(y)) + torch.tanh(self.past(y))
        y = torch.relu(y - 0.1)
        low = nn.functional.avg_pool2d(y, 3, stride=1, padding=1, count_include_pad=False)
        y = torch.cat([nn.functional.leaky_relu(low, 0.2), y[:, 2:6]], dim=1)
        y = nn.functional.pad(nn.functional.max_pool2d(y, 2), (0, 1, 0, 1))[:, :, :2, :2]
        return self.head(torch.flatten(y, 1))


def everything(seed: int = 0) -> tuple[Graph, np.ndarray]:
    torch.manual_seed(seed)
    graph = from_torch(Everything().eval(), torch.zeros(1, 2, 9, 8))
    x = np.random.default_rng(seed).normal(size=(48, 2, 9, 8)).astype(np.float32)
    return graph, to_nhwc(x)


def network_of(graph: Graph, x: np.ndarray) -> QatNetwork:
    ranges = calibrate(graph, {graph.inputs[0]: x})
    return QatNetwork(graph, activation_quants(graph, ranges, {}))


def core_bytes(graph: Graph, x: np.ndarray) -> np.ndarray:
    """int8 outputs of the C core for real samples."""
    model = Model(compile_graph(graph, learn=None).image)
    q = model.inputs[0].quantize(x)
    return np.concatenate([model.run(one[None])[0] for one in q])


def test_the_forward_pass_is_the_devices() -> None:
    graph, x = everything()
    network = network_of(graph, x)
    made = network.integers(x)[0]
    np.testing.assert_array_equal(made, core_bytes(network.int8_graph(), x))
    (real,) = network(torch.from_numpy(x))
    quant = network.int8_graph().tensors[graph.outputs[0]].quant
    assert quant is not None
    np.testing.assert_allclose(real.detach().numpy(), quant.dequantize(made), rtol=1e-5)


def test_before_training_it_is_post_training_quantisation() -> None:
    graph, x = everything(3)
    done = quantize_graph(graph, {graph.inputs[0]: x}).graph
    own = network_of(graph, x).int8_graph()
    assert own.ops == done.ops
    for name, tensor in done.tensors.items():
        if tensor.data is not None:
            np.testing.assert_array_equal(tensor.data, own.tensors[name].data)


def test_the_trained_network_is_still_the_cores_in_every_byte() -> None:
    graph, x = everything(1)
    y = np.arange(len(x)) % 5
    schedule = QatSchedule(epochs=2, batch=16, rate=5e-3, scale_rate=2e-2)
    tuned = tune(graph, x, y, calibration=x, schedule=schedule)
    network = network_of(graph, x)
    assert any(
        tuned.graph.tensors[op.output].quant != network.int8_graph().tensors[op.output].quant
        for op in tuned.graph.ops
    )
    again = tune(graph, x, y, calibration=x, schedule=schedule)
    np.testing.assert_array_equal(core_bytes(tuned.graph, x), core_bytes(again.graph, x))
    assert tuned.losses == again.losses
    # A network made of what was trained computes what the training did.
    quants = {t.name: tuned.graph.tensors[t.name].quant for t in tuned.reference.activations}
    same = QatNetwork(tuned.reference, quants)  # type: ignore[arg-type]
    np.testing.assert_array_equal(same.integers(x)[0], core_bytes(tuned.graph, x))


def test_gradients_are_those_of_the_float_network_where_nothing_is_cut() -> None:
    """Of layers without a ReLU: rounding would move values across its edge."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)).eval()
    graph = from_torch(module, torch.zeros(1, 6))
    x = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    network = network_of(graph, x * 1.2)  # the largest values are not cut either
    weights = torch.randn(64, 3)
    (network(torch.from_numpy(x))[0] * weights).sum().backward()
    (module(torch.from_numpy(x)) * weights).sum().backward()
    wanted = {tuple(p.shape): p.grad for p in module.parameters()}
    for parameter in network.constants:
        expected = wanted[tuple(parameter.shape)]
        assert parameter.grad is not None and expected is not None
        off = (parameter.grad - expected).norm() / expected.norm()
        assert off < 0.03  # rounding moves every weight and activation by up to half a step


def test_a_scale_learns_to_reach_further() -> None:
    """A range that cuts half of the values grows when the loss wants the large ones."""
    torch.manual_seed(0)
    graph = from_torch(nn.Linear(4, 4, bias=False).eval(), torch.zeros(1, 4))
    x = np.random.default_rng(0).normal(size=(128, 4)).astype(np.float32)
    narrow = calibrate(graph, {graph.inputs[0]: x * 0.2})
    wide = calibrate(graph, {graph.inputs[0]: x})
    name = graph.outputs[0]
    ranges = {**wide, name: narrow[name]}
    network = QatNetwork(graph, activation_quants(graph, ranges, {}))
    real = torch.from_numpy(x) @ torch.from_numpy(network.constants[0].detach().numpy().copy()).T
    before = network.quants()[name].scale
    optimizer = torch.optim.Adam([network.log_scales], lr=0.05)
    for _ in range(40):
        loss = (network(torch.from_numpy(x))[0] - real).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert network.quants()[name].scale > 2.0 * before


def test_training_repairs_ranges_that_were_cut_far_too_short() -> None:
    """Two rings: a percentile of 70 ruins the network, training brings it back."""
    rng = np.random.default_rng(0)
    angle, y = rng.uniform(0, 2 * np.pi, 600), np.arange(600) % 3
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (1.0 + y)[:, None]
    x = (x + rng.normal(0, 0.1, x.shape)).astype(np.float32)
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)
    )
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(300):
        loss = nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    graph = from_torch(module.eval(), torch.zeros(1, 2))
    options = QuantizeOptions(method=Method.PERCENTILE, percentile=70.0)
    done = quantize_graph(graph, {graph.inputs[0]: x}, options=options).graph

    def right(made: Graph) -> float:
        return float((core_bytes(made, x).argmax(axis=1) == y).mean())

    tuned = tune(
        graph,
        x,
        y,
        calibration=x,
        options=options,
        schedule=QatSchedule(epochs=15, rate=5e-3, scale_rate=1e-2),
    )
    assert right(tuned.graph) > 0.97
    assert right(done) < right(tuned.graph) - 0.05
    assert tuned.losses[-1] < tuned.losses[0]


def test_what_cannot_be_tuned_is_refused() -> None:
    graph, x = everything()
    with pytest.raises(UsageError, match="expected n samples"):
        tune(graph, x, np.zeros(3, np.int64), calibration=x)
    with pytest.raises(UsageError, match="schedule: expected"):
        QatSchedule(epochs=0)
