"""Training from scratch: the same networks with random weights, all layers trained.

A model that starts from nothing has no ranges to calibrate. It is initialised as He et al. have
it, each layer then scaled so that what it makes has unit variance on a few unlabelled samples;
ranges are those of this random network with room to grow: activations ROOM times, weights
WEIGHT_ROOM times. The networks have no batch norm (there is none on the device); the float32
network they are compared with is the same one, from the same weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from fieldloop.compiler import compile_graph
from fieldloop.frontends.torch_frontend import from_torch, to_nhwc
from fieldloop.quantize.options import QuantizeOptions
from fieldloop.quantize.ptq import quantize_graph
from fieldloop.runtime import Model
from fieldloop.study import networks, raw
from fieldloop.study.prepare import SCRATCH, THREADS, Prepared
from fieldloop.study.raw import Classes, Samples

ROOM = 4.0  # of activations
LOGIT_ROOM = 20.0  # of the logits
WEIGHT_ROOM = 3.0
CALIBRATED = 128
_LOGITS = 1.0  # deviation of the first logits
_SPLIT = 2026


@dataclass(frozen=True, slots=True)
class Start:
    """`samples` of a stream; `most`: of the pool."""

    name: str
    title: str
    network: str
    samples: int
    pool: int
    tested: int


STARTS: Mapping[str, Start] = MappingProxyType(
    {
        start.name: start
        for start in (
            Start(
                "mnist",
                "handwritten digits",
                "conv 5x5-6, conv 5x5-12, 120-60-10",
                5000,
                5000,
                1500,
            ),
            Start(
                "har", "activity from a phone's motion", "four 1-D convolutions", 5000, 5000, 1500
            ),
            Start("bearing", "bearing faults", "four 1-D convolutions", 4000, 2577, 1226),
            Start("digits", "spoken digits", "three 3x3 convolutions", 5000, 1300, 410),
        )
    }
)


def prepare_scratch(name: str, folder: Path, seed: int) -> Prepared:
    """A network of a seed before its first sample."""
    torch.set_num_threads(THREADS)
    start = STARTS[name]
    x_pool, y_pool, x_test, y_test = _samples(name, folder, start)
    network = initialised(name, x_pool[:CALIBRATED], seed)
    graph = from_torch(network, torch.from_numpy(x_test[:1]))
    calibration = to_nhwc(x_pool[:CALIBRATED])
    inputs = {graph.inputs[0]: calibration}
    room = {op.output: ROOM for op in graph.ops}
    room[graph.outputs[0]] = LOGIT_ROOM
    quantized = quantize_graph(
        graph,
        inputs,
        headroom=room,
        options=QuantizeOptions(weight_headroom=WEIGHT_ROOM),
    ).graph
    layers = sum(isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear) for m in network.modules())
    made = compile_graph(quantized, calibration, learn=layers, inner_rate=1.0)
    model = Model(made.image)
    q_test = model.as_inputs(to_nhwc(x_test))
    return Prepared(
        name=name,
        mode=SCRATCH,
        image=made.image,
        whole=made.image,
        layers=tuple(layer.op for layer in made.trainables),
        trunk_macs=0,
        forward_macs=model.macs,
        x_pool=model.as_inputs(to_nhwc(x_pool)).astype(np.int8),
        y_pool=y_pool,
        x_test=q_test.astype(np.int8),
        y_test=y_test,
        before=float((model.classify(q_test) == y_test).mean()),
        same=True,
        rates=tuple(layer.lr_scale for layer in made.trainables),
        floats={
            "x_pool": x_pool,
            "x_test": x_test,
            "seed": np.array([seed], np.float32),
            "calibration": x_pool[:CALIBRATED],
        },
    )


def _samples(name: str, folder: Path, start: Start) -> tuple[Samples, Classes, Samples, Classes]:
    data = raw.read(name, folder)
    x_test, y_test = data.x_test, data.y_test
    x, y = data.x_train, data.y_train
    if name == "digits":  # 210 test words are few: of all words together, other ones are tested
        x, y = np.concatenate([x, x_test]), np.concatenate([y, y_test])
        order = np.random.default_rng(_SPLIT).permutation(len(x))
        learned, tested = order[: start.pool], order[start.pool :][: start.tested]
        return x[learned], y[learned], x[tested], y[tested]
    learned = np.random.default_rng(_SPLIT).permutation(len(x))[: start.pool]
    tested = np.random.default_rng(_SPLIT).permutation(len(x_test))[: start.tested]
    return x[learned], y[learned], x_test[tested], y_test[tested]


def initialised(name: str, samples: Samples, seed: int) -> nn.Module:
    """The network of a seed, without batch norms, each layer scaled to unit variance."""
    network = without_norms(networks.fresh(name, seed))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        layers = [m for m in network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear)]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        for layer in layers:
            std = _deviation(network, layer, torch.from_numpy(samples))
            layer.weight /= std / (_LOGITS if layer is layers[-1] else 1.0)
    return network


def _deviation(network: nn.Module, layer: nn.Module, x: torch.Tensor) -> float:
    """Of what a layer makes."""
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda module, given, made: seen.append(made))
    try:
        network(x)
    finally:
        hook.remove()
    return max(float(seen[0].std()), 1e-6)


def without_norms(network: nn.Module) -> nn.Module:
    """A copy whose batch norms are gone and whose convolutions have biases."""
    made = copy.deepcopy(network)
    for module in list(made.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d | nn.Dropout):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.Conv1d | nn.Conv2d) and child.bias is None:
                child.bias = nn.Parameter(torch.zeros(child.out_channels))
    return made
