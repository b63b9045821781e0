"""A torch module and samples as their user has them, made into a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fieldloop.errors import UsageError
from fieldloop.frontends.imported import Imported
from fieldloop.frontends.torch_frontend import import_torch


def import_module(module: Any, example: Any) -> Imported:
    """The module's graph and its map of values.

    `example`: samples [n, ...] of its input (tensor or array), or a tuple or dict of them.
    """
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"model: expected a torch.nn.Module, got {type(module).__name__}")
    given = example.values() if isinstance(example, dict) else example
    several = tuple(given) if isinstance(given, tuple) or isinstance(example, dict) else (given,)
    arrays = [x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x for x in several]
    for x in arrays:
        if np.ndim(x) < 2 or np.size(x) == 0:
            raise UsageError(f"example: expected samples [n, ...], got {list(np.shape(x))}")
    return import_torch(module, tuple(torch.from_numpy(np.array(x)) for x in arrays))
