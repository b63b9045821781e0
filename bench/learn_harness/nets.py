"""The two networks of the float anchors on MNIST, taught upright, shown digits that are turned.

They are the ones that research/kernel-anchors.md, section 7, counts for a plain C trainer in f32:
an MLP 784-32-16-10, and conv 3x3 of 8, pool, conv 3x3 of 16, pool, 784-32-10.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "host"))

from fieldloop.compiler import Compiled, compile_graph  # noqa: E402
from fieldloop.errors import FieldloopError  # noqa: E402
from fieldloop.frontends.torch_frontend import from_torch  # noqa: E402
from fieldloop.runtime import Model  # noqa: E402
from fieldloop.train.distill import deterministic  # noqa: E402

DATA = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared")) / "data" / "mnist.npz"
TURN = 50.0  # degrees, anticlockwise
TAUGHT = 20_000  # upright digits that a network has seen before
EPOCHS = 4
SEED = 0


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10)),
    )


def _cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10)),
    )


NETWORKS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType({"mlp": _mlp, "cnn": _cnn})
# Instructions of one step of the plain C trainer: gcc -O3, M4F, no contraction.
ANCHORS = MappingProxyType({"mlp": 548_656, "cnn": 6_519_682})


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A compiled network, all of whose layers may be trained, and the stream it is to learn."""

    name: str
    compiled: Compiled
    samples: np.ndarray  # int8 [n, 784]
    labels: np.ndarray  # uint8 [n]
    test_x: np.ndarray  # int8 [n, 784], turned as well
    test_y: np.ndarray


def case(name: str, count: int) -> Case:
    """Trains the network on the host (seconds) and turns `count` digits that it has not seen."""
    if not DATA.is_file():
        raise FieldloopError(f"{DATA} is not there: set FIELDLOOP_SHARED to the folder above data")
    with np.load(DATA, allow_pickle=False) as file:
        x = torch.from_numpy(file["x_train"].astype(np.float32) / 255.0)[:, None]
        y = torch.from_numpy(file["y_train"].astype(np.int64))
        x_test = torch.from_numpy(file["x_test"].astype(np.float32) / 255.0)[:, None]
        test_y = file["y_test"][:2000]
    with deterministic(SEED):
        network = NETWORKS[name]()
        _train(network, x[:TAUGHT], y[:TAUGHT])
    compiled = compile_graph(
        from_torch(network.eval(), torch.zeros(1, 1, 28, 28)),
        x[:500].permute(0, 2, 3, 1).numpy(),
        learn=4 if name == "cnn" else 3,
    )
    model = Model(compiled.image)
    stream = slice(TAUGHT, TAUGHT + count)
    return Case(
        name,
        compiled,
        _quantised(model, turned(x[stream])),
        y[stream].numpy().astype(np.uint8),
        _quantised(model, turned(x_test[:2000])),
        test_y,
    )


def turned(x: torch.Tensor) -> torch.Tensor:
    """Pictures [n, 1, h, w] turned about their middle, bilinear, empty corners 0."""
    a = np.deg2rad(TURN)
    matrix = torch.tensor([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0]]).float()
    grid = functional.affine_grid(matrix.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def _train(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(x)).split(64):
            loss = functional.cross_entropy(network(x[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _quantised(model: Model, x: torch.Tensor) -> np.ndarray:
    real = x.permute(0, 2, 3, 1).numpy()
    return model.inputs[0].quantize(real).reshape(len(real), -1)
