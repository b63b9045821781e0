"""What onnxruntime computes, value by value, against the graph's tensors."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime

from fieldloop.frontends.imported import Imported
from fieldloop.frontends.onnx_frontend import read_onnx
from fieldloop.ir.graph import Graph
from fieldloop.ir.reference import run
from fieldloop.ir.tensor import DType

TOLERANCE = 1e-5  # of the largest element of a float32 value
STEPS = 1  # of int8 values, each operator on the same inputs


def session(data: bytes, names: list[str]) -> onnxruntime.InferenceSession:
    """The model with more outputs, every operator computed as it is written."""
    model = onnx.load_from_string(data)
    have = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in have)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def random_value(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if dtype == "float32":
        return (rng.normal(size=shape) * 1.5).astype(np.float32)
    if dtype in ("int8", "uint8"):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
    return rng.integers(0, 7, shape).astype(dtype)


def check(data: bytes, *, samples: int = 2, seed: int = 0) -> Imported:
    """Imports a file; every value that is mapped equals onnxruntime's, fed with its own inputs."""
    imported = read_onnx(data)
    graph, rng = imported.graph, np.random.default_rng(seed)
    made = {name for n in onnx.load_from_string(data).graph.node for name in n.output}
    names = sorted({v.source for v in imported.values.values()} & made)
    known = session(data, names)
    for _ in range(samples):
        feed = {
            imported.values[n].source: random_value(
                rng, imported.values[n].shape, imported.values[n].dtype
            )
            for n in graph.inputs
        }
        source = dict(zip(names, known.run(names, feed), strict=True)) | feed
        wanted = {
            name: value.to_graph(source[value.source], graph.tensors[name].shape)
            for name, value in imported.values.items()
        }
        assert set(graph.outputs) <= set(wanted)
        _check_operators(graph, wanted)
        _check_outputs(imported, wanted, source)
    return imported


def _check_operators(graph: Graph, wanted: dict[str, np.ndarray]) -> None:
    """Each operator on the source's own values, where the graph's inputs of it are known."""
    values = {name: wanted[name] for name in graph.inputs}
    for op in graph.ops:
        alone = Graph(
            op.name,
            {n: graph.tensors[n] for n in (*op.inputs, op.output)},
            (op,),
            tuple(dict.fromkeys(n for n in op.inputs if not graph.tensors[n].is_constant)),
            (op.output,),
        )
        (got,) = run(alone, {name: values[name] for name in alone.inputs}).values()
        values[op.output] = got
        if op.output in wanted:
            close(got, wanted[op.output], graph.tensors[op.output].dtype, op.output)
            values[op.output] = wanted[op.output]


def close(got: np.ndarray, wanted: np.ndarray, dtype: DType, what: str) -> None:
    if dtype is DType.FLOAT32:
        limit = TOLERANCE * max(float(np.abs(wanted).max()), 1e-3)
    else:
        limit = STEPS
    difference = np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max()
    assert difference <= limit, f"{what}: {difference} above {limit}"


def _check_outputs(
    imported: Imported, wanted: dict[str, np.ndarray], source: dict[str, np.ndarray]
) -> None:
    """Outputs have the source's shape and dtype; a float model's also its values, end to end."""
    graph = imported.graph
    got = run(graph, {name: wanted[name] for name in graph.inputs})
    is_float = all(t.dtype is not DType.INT8 for t in graph.activations)
    for name in graph.outputs:
        value = imported.values[name]
        back, expected = value.to_source(got[name]), source[value.source]
        assert back.shape == expected.shape
        assert back.dtype == expected.dtype
        if is_float:
            close(back, expected, DType.FLOAT32, name)
