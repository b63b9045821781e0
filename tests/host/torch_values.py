"""Every value of a torch module, by the name its export gives it, against the graph's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from fieldloop.frontends.imported import Imported
from fieldloop.frontends.torch_frontend import import_torch
from fieldloop.ir.graph import Graph
from fieldloop.ir.reference import run

SAMPLES = 3
TOLERANCE = 1e-5  # of the largest element: torch computes in float32, the reference in float64


def kinds(graph: Graph) -> list[str]:
    return [op.kind.value for op in graph.ops]


def shake(module: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms as after a training, not as new."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_(0.0, 0.5)
            part.running_var.uniform_(0.5, 2.0)
            if part.affine:
                part.weight.data.normal_(1.0, 0.3)
                part.bias.data.normal_(0.0, 0.3)
    return module


class _Recorder(torch.fx.Interpreter):
    """Runs an exported program and keeps what each node makes."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[str, Any] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        self.seen[n.name] = super().run_node(n)
        return self.seen[n.name]


def values_of(module: nn.Module, x: tuple[torch.Tensor, ...]) -> tuple[dict[str, Any], list[Any]]:
    """What each node of the export makes, and the outputs."""
    with torch.no_grad():
        program = torch.export.export(module, x).run_decompositions({})
        signature = program.graph_signature
        weights = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        held = {**program.state_dict, **program.constants}
        given = iter(x)
        flat = [
            held[weights[n.name]] if n.name in weights else next(given)
            for n in program.graph.nodes
            if n.op == "placeholder"
        ]
        recorder = _Recorder(program.graph_module)
        recorder.run(*flat)
        made = module(*x)
    return recorder.seen, list(made) if isinstance(made, tuple) else [made]


def random_input(shape: tuple[int, ...] | int) -> torch.Tensor:
    """Reals of that shape, or so many indices below 11."""
    if isinstance(shape, int):
        return torch.randint(0, 11, (1, shape))
    return torch.randn(1, *shape) * 2.0


def check(module: nn.Module, *shapes: tuple[int, ...] | int, seed: int = 0) -> Imported:
    """The import of `module`: outputs and every value that is mapped equal torch's."""
    shake(module, seed)
    module.eval()
    imported = import_torch(module, tuple(random_input(shape) for shape in shapes))
    graph = imported.graph
    assert set(graph.outputs) <= set(imported.values)
    for _ in range(SAMPLES):
        x = tuple(random_input(shape) for shape in shapes)
        expected, outputs = values_of(module, x)
        given = {}
        for name in graph.inputs:
            value = imported.values[name]
            tensor = expected[value.source].numpy()
            given[name] = value.to_graph(tensor, graph.tensors[name].shape)
        seen: dict[str, np.ndarray] = {}
        made = run(graph, given, seen.__setitem__)
        for name, value in imported.values.items():
            wanted = expected[value.source]
            wanted = wanted[0] if isinstance(wanted, tuple | list) else wanted
            _equal(value.to_source(seen[name]), wanted.numpy(), f"{name} = {value.source}")
        for name, wanted in zip(graph.outputs, outputs, strict=True):
            got = imported.values[name].to_source(made[name])
            assert got.shape == tuple(wanted.shape)
            _equal(got, wanted.numpy(), name)
    return imported


def _equal(got: np.ndarray, wanted: np.ndarray, what: str) -> None:
    limit = TOLERANCE * max(np.abs(wanted).max(), 1e-3)
    np.testing.assert_allclose(got, wanted, rtol=0.0, atol=limit, err_msg=what)
