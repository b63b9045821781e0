"""The yardstick of training from scratch: the same network, stream and rates in float32, in torch.

Plain SGD, one sample at a time, as the device has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from fieldloop.study.prepare import THREADS, Prepared
from fieldloop.study.scratch import initialised
from fieldloop.study.streams import phases_of

if TYPE_CHECKING:
    from fieldloop.study.runs import Job


def train_float(made: Prepared, order: npt.NDArray[np.int64], job: Job) -> dict[str, Any]:
    """Trains over the stream; the figures of a run of the learner, as far as there are any."""
    torch.set_num_threads(THREADS)
    network = initialised(made.name, made.floats["calibration"], int(made.floats["seed"][0]))
    layers = [m for m in network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear)]
    rates = [job.rate * scale for scale in made.rates[::-1]]
    x, y = torch.from_numpy(made.floats["x_pool"]), torch.from_numpy(made.y_pool)
    right = number = 0
    for part, factor in phases_of(order):
        for place in part.tolist():
            logits = network(x[place : place + 1])
            if number >= len(order) // 2:
                right += int(logits.argmax()) == int(y[place])
            number += 1
            loss = functional.cross_entropy(logits, y[place : place + 1])
            network.zero_grad(set_to_none=True)
            loss.backward()
            with torch.no_grad():
                for layer, rate in zip(layers, rates, strict=True):
                    layer.weight.sub_(layer.weight.grad, alpha=rate * factor)
                    layer.bias.sub_(layer.bias.grad, alpha=rate * factor)
    with torch.no_grad():
        tested = torch.from_numpy(made.floats["x_test"][: job.tested])
        answers = network(tested).argmax(dim=1).numpy()
    late = len(order) - len(order) // 2
    return {
        "accuracy": float((answers == made.y_test[: job.tested]).mean()),
        "online_accuracy": right / max(late, 1),
        "forward_macs": made.forward_macs * len(order),
        "backward_macs": None,
        "dense_backward_macs": None,
        "trained": len(order),
        "skipped": 0,
        "refused": 0,
        "clipped": 0,
        "ram_bytes": None,
    }
