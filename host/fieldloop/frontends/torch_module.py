"""A torch module and samples as their user has them, made into what the graph takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fieldloop.errors import UsageError
from fieldloop.frontends.imported import Imported
from fieldloop.frontends.torch_frontend import import_torch, to_nhwc
from fieldloop.ir.graph import Graph
from fieldloop.ir.tensor import Array


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


def graph_and_samples(module: Any, samples: Any) -> tuple[Graph, Array]:
    """The module's graph, and samples [n, ...] (tensor or array; the first shows the shape)."""
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"model: expected a torch.nn.Module, got {type(module).__name__}")
    given = _floats("calibration", samples)
    imported = import_torch(module, torch.from_numpy(given[:1]))
    graph = imported.graph
    if len(graph.inputs) != 1:
        raise UsageError(f"model: expected one input, got {', '.join(graph.inputs)}")
    name = graph.inputs[0]
    return graph, imported.values[name].to_graph(given, graph.tensors[name].shape)


def samples_of(what: str, samples: Any) -> Array:
    """Samples as torch has them, n, c, h, w for pictures, as the graph takes them."""
    return to_nhwc(_floats(what, samples))


def _floats(what: str, samples: Any) -> Array:
    array = np.asarray(samples.detach().cpu() if isinstance(samples, torch.Tensor) else samples)
    if array.ndim < 2 or array.size == 0 or not np.issubdtype(array.dtype, np.floating):
        raise UsageError(
            f"{what}: expected float samples [n, ...], got {array.dtype} {list(array.shape)}"
        )
    return np.ascontiguousarray(array, np.float32)
