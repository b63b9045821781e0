"""What a network of the zoo is worth and what it costs: float accuracy, int8 accuracy, bytes.

Float accuracy is torch's; int8 accuracy is the C core's over the same samples, which is the
device's own, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fieldloop.compiler import Compiled, compile_graph
from fieldloop.frontends.torch_frontend import from_torch, to_nhwc
from fieldloop.runtime import Model
from fieldloop.train import zoo as training
from fieldloop.zoo import registry
from fieldloop.zoo.data import PREPARED, Dataset

CALIBRATION = 512  # training samples that ranges are taken from
_CHOICE = 77  # of which samples: the same for every network and seed


@dataclass(frozen=True, slots=True)
class Measured:
    """Shares of right answers on the test split."""

    samples: int
    float_accuracy: float
    int8_accuracy: float

    @property
    def points_lost(self) -> float:
        """Float less int8, in points (1/100)."""
        return 100.0 * (self.float_accuracy - self.int8_accuracy)

    @property
    def within_limit(self) -> bool:
        """At most one point lost, or two test samples where that is more."""
        lost = round((self.float_accuracy - self.int8_accuracy) * self.samples)
        return lost <= max(0.01 * self.samples, 2)


def calibration(data: Dataset) -> npt.NDArray[np.float32]:
    """Training samples [n, ...] that the int8 ranges are taken from."""
    rng = np.random.default_rng(_CHOICE)
    chosen = rng.permutation(len(data.x_train))[:CALIBRATION]
    return data.x_train[np.sort(chosen)]


def compile_trained(
    network: nn.Module, data: Dataset, *, meta: dict[str, Any] | None = None
) -> Compiled:
    """The network as an int8 image for inference, calibrated on training samples."""
    return _compile(
        data.name,
        network,
        calibration(data),
        {"input": PREPARED[data.name], **(meta or {})},
    )


def compile_untrained(name: str) -> Compiled:
    """An image with initial weights, calibrated on noise: for what it costs, not what it knows."""
    rng = np.random.default_rng(_CHOICE)
    noise = rng.standard_normal((8, *registry.entry(name).shape), np.float32)
    return _compile(name, registry.build(name), noise, {"weights": "initial"})


def _compile(
    name: str, network: nn.Module, samples: npt.NDArray[np.float32], meta: dict[str, Any]
) -> Compiled:
    return compile_graph(
        from_torch(network, torch.zeros(registry.input_shape(name))),
        to_nhwc(samples),
        labels=registry.entry(name).labels,
        learn=None,
        meta={"network": name, **meta},
    )


def measure(
    network: nn.Module, image: bytes, data: Dataset, *, first: int | None = None
) -> Measured:
    """Both accuracies on the test split, or on its first samples only."""
    x, y = data.x_test[:first], data.y_test[:first]
    guesses = Model(image).classify(to_nhwc(x))
    return Measured(
        samples=len(y),
        float_accuracy=training.accuracy(network, x, y),
        int8_accuracy=float((guesses == y).mean()),
    )
