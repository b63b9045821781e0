"""RAM to learn with, against the project's targets: one plan for forward and backward, every byte
of it touched, and none beyond it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pytest

from fieldloop.compiler import Compiled, compile_graph
from fieldloop.ir.op import OpKind
from fieldloop.plan.learning import USUAL, delta_words
from fieldloop.plan.way import walk_back
from fieldloop.runtime import Learner, LearnerConfig, Model
from fieldloop.runtime.core import VARIANTS

torch = pytest.importorskip("torch")


@dataclass(frozen=True)
class Target:
    """`beside`: the limit is on what learning adds to inference, else on all of it."""

    layers: int
    limit: int
    beside: bool


TARGETS = {
    "mnist": Target(5, 48 * 1024, beside=True),  # every layer
    "kws": Target(3, 64 * 1024, beside=False),
    "vww": Target(5, 192 * 1024, beside=False),
}


def mnist_cnn() -> tuple[torch.nn.Module, tuple[int, ...]]:
    """The PyTorch network of TinyProp's own MNIST example."""
    nn = torch.nn
    layers = (
        *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 12, 5), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(192, 120), nn.ReLU(), nn.Linear(120, 60), nn.ReLU(), nn.Linear(60, 10)),
    )
    return nn.Sequential(*layers), (1, 28, 28)


@functools.cache
def compiled(name: str) -> Compiled:
    """With weights that nobody trained: bytes do not depend on them."""
    from fieldloop.frontends.torch_frontend import from_torch
    from fieldloop.zoo import networks, registry

    torch.manual_seed(0)
    if name == "mnist":
        network, shape = mnist_cnn()
    else:
        network, shape = networks[name](), registry.entry(name).shape
    graph = from_torch(network.eval(), torch.zeros(1, *shape))
    inputs = graph.tensors[graph.inputs[0]].shape[1:]
    x = np.random.default_rng(0).normal(size=(4, *inputs)).astype(np.float32)
    return compile_graph(graph, x, learn=TARGETS[name].layers)


@pytest.mark.parametrize("kernels", VARIANTS)
@pytest.mark.parametrize("name", TARGETS)
def test_learning_fits(name: str, kernels: str) -> None:
    """With each build of the kernels, which have scratch of their own."""
    target, model = TARGETS[name], Model(compiled(name).image, variant=kernels)
    learner = Learner(model, LearnerConfig())
    assert len(learner.layer_stats()) == target.layers
    plan, forward = learner.plan, model.plan_bytes("INFER")
    beside = plan.total - forward
    print(f"\n{name}, {kernels}: {plan.total} bytes, {beside} beside inference: {plan}")
    assert (beside if target.beside else plan.total) <= target.limit
    assert plan.lent == plan.scratch  # one arena for all but the state

    rng = np.random.default_rng(1)
    xs = rng.integers(-128, 128, (3, model.inputs[0].size)).astype(np.int8)
    touched = learner.watermark(xs, rng.integers(0, learner.classes, 3))
    assert touched == (plan.arena, learner.sizes.total_bytes)
    assert sum(touched) == plan.total


def test_the_deltas_of_pools_are_never_maps() -> None:
    """At one time there are the delta of a pool's output and that of the next one's."""
    graph = compiled("mnist").graph
    hops = walk_back(graph, [op.op for op in compiled("mnist").trainables])
    pools = [hop for hop in hops if hop.op.kind is OpKind.MAX_POOL]
    assert len(pools) == 2 and all(hop.fused for hop in pools)
    upper, lower = (graph.tensors[hop.op.output].size for hop in pools)
    assert delta_words(graph, hops, USUAL) == upper + lower
