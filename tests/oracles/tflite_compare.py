"""A .tflite file through the frontend, in numpy and in the C core, against its own runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fieldloop.compare.tflite_oracle import TfliteOracle
from fieldloop.compiler import Compiled, compile_graph
from fieldloop.frontends.imported import Imported
from fieldloop.frontends.tflite import read_tflite
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import OpKind
from fieldloop.ir.reference import run
from fieldloop.ir.tensor import Array, DType
from fieldloop.runtime import Model

FLOAT_TOLERANCE = 1e-5  # of the largest magnitude of a tensor
Inputs = Mapping[str, Array]  # by tensor of the graph


def random_inputs(graph: Graph, rng: np.random.Generator) -> Inputs:
    """One sample: any int8, reals in [-1, 1), indices that exist. 256 int8 are all of them."""
    entries = [
        graph.tensors[op.inputs[1]].shape[0] for op in graph.ops if op.kind is OpKind.EMBEDDING
    ]
    made: dict[str, Array] = {}
    for name in graph.inputs:
        tensor = graph.tensors[name]
        if tensor.dtype is DType.FLOAT32:
            made[name] = rng.uniform(-1, 1, tensor.shape).astype(np.float32)
        elif tensor.dtype is DType.INT32:
            made[name] = rng.integers(0, min(entries), tensor.shape).astype(np.int32)
        elif tensor.size == 256:
            every = np.arange(-128, 128).astype(np.int8)
            made[name] = rng.permutation(every).reshape(tensor.shape)
        else:
            made[name] = rng.integers(-128, 128, tensor.shape).astype(np.int8)
    return made


def compare(
    content: bytes,
    samples: int | Sequence[Inputs],
    *,
    outputs: Sequence[str] = (),
    seed: int = 1,
    layers: bool = True,
) -> Compiled:
    """Asserts that every mapped tensor (numpy) and every output (C) is what the oracle says."""
    imported = read_tflite(content, outputs)
    graph, values = imported.graph, imported.values
    oracle = TfliteOracle(content, imported)
    compiled = compile_graph(graph, learn=None)
    model = Model(compiled.image)
    rng = np.random.default_rng(seed)
    if isinstance(samples, int):
        samples = [random_inputs(graph, rng) for _ in range(samples)]
    for inputs in samples:
        known = oracle.run({values[k].source: values[k].to_source(v) for k, v in inputs.items()})
        if layers:
            run(graph, inputs, lambda name, got, known=known: _agree(imported, known, name, got))
        made = model.run(*(inputs[name] for name in graph.inputs))
        for name, got in zip(graph.outputs, made, strict=True):
            assert _agree(imported, known, name, np.asarray(got)), f"{name} is not known"
    return compiled


def _agree(imported: Imported, known: Mapping[str, Array], name: str, got: Array) -> bool:
    mapped, tensor = imported.values.get(name), imported.graph.tensors[name]
    if mapped is None or mapped.source not in known:
        return False
    wanted = mapped.to_graph(known[mapped.source], tensor.shape).reshape(-1)
    got = got.reshape(-1)
    if tensor.dtype is DType.FLOAT32:
        largest = max(float(np.abs(wanted).max()), 1e-30)
        error = float(np.abs(got.astype(np.float64) - wanted).max())
        assert error <= FLOAT_TOLERANCE * largest, f"{name}: {error} of {largest}"
    else:
        np.testing.assert_array_equal(got, wanted.astype(got.dtype), err_msg=name)
    return True
