"""The int8 reference: runs a quantised graph in numpy, equal to the C core on every byte.

One corner of the golden triangle; TensorFlow Lite Micro's reference kernels say what is right.
"""

from __future__ import annotations

from collections.abc import Mapping

from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
from fieldloop.ir.reference import Visit, run
from fieldloop.ir.tensor import Array, DType


def run_int8(
    graph: Graph, inputs: Mapping[str, Array], visit: Visit | None = None
) -> dict[str, Array]:
    """int8 outputs [n, ...] of a quantised graph for int8 (indices: int32) inputs [n, ...]."""
    for tensor in graph.activations:
        if tensor.dtype is DType.FLOAT32:
            raise UsageError(
                f"graph {graph.name} is not quantised: {tensor.name} is float32; "
                "run it with ir.reference.run"
            )
    return run(graph, inputs, visit)
