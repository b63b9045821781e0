"""Golden triangle over every operator: numpy = C = TensorFlow Lite Micro, int8 and float32."""

from __future__ import annotations

import numpy as np
import pytest
from random_mixed import inputs_for, mixed_graph

from fieldloop.compiler import compile_graph
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import OpKind
from fieldloop.ir.reference import keeps_batch, run
from fieldloop.ir.reference_int8 import run_int8
from fieldloop.ir.tensor import Array, DType
from fieldloop.runtime import Model
from fieldloop.runtime.core import VARIANTS

I8, I32, F32 = DType.INT8, DType.INT32, DType.FLOAT32
COUNT = 3


def run_c(graph: Graph, inputs: dict[str, Array], variant: str = "plain") -> dict[str, Array]:
    compiled = compile_graph(graph)
    model = Model(compiled.image, variant=variant)
    ordered = [inputs[name].reshape(COUNT, -1) for name in compiled.graph.inputs]
    made = model.run(*ordered)
    return dict(zip(compiled.graph.outputs, made, strict=True))


@pytest.mark.parametrize("seed", range(120))
def test_int8_numpy_equals_c(seed: int) -> None:
    graph = mixed_graph(seed, depth=4 + seed % 20, dtypes=(I8, I8, I32), plain=True)
    inputs = inputs_for(graph, seed, COUNT)
    expected = run_int8(graph, inputs)
    for name, got in run_c(graph, inputs).items():
        np.testing.assert_array_equal(got, expected[name].reshape(COUNT, -1), name)


@pytest.mark.parametrize("seed", range(60))
def test_float_c_is_close_to_numpy(seed: int) -> None:
    graph = mixed_graph(seed + 1000, depth=4 + seed % 12, dtypes=(F32, F32))
    graph_is_float = all(t.dtype is F32 for t in graph.activations)
    inputs = inputs_for(graph, seed, COUNT)
    seen: dict[str, float] = {}

    def largest(name: str, value: Array) -> None:
        seen[name] = max(seen.get(name, 0.0), float(np.abs(value).max()))

    expected = run(graph, inputs, largest)
    for name, got in run_c(graph, inputs).items():
        assert got.dtype == np.dtype(graph.tensors[name].dtype.value)
        if graph_is_float:
            # what cancels (a - a) is as exact as what it was made of
            limit = 1e-5 * max(seen.values())
            assert np.abs(got - expected[name].reshape(COUNT, -1)).max() <= limit, name


def near_ties(graph: Graph) -> bool:
    """Whether f32 rounding may move an int8 by a step: something computed is quantised."""
    produced = {op.output: op.kind for op in graph.ops}
    return any(op.kind is OpKind.QUANTIZE and op.inputs[0] in produced for op in graph.ops)


@pytest.mark.parametrize("seed", range(80))
def test_mixed_graphs(seed: int) -> None:
    graph = mixed_graph(seed + 2000, depth=6 + seed % 14)
    inputs = inputs_for(graph, seed, COUNT)
    expected = run(graph, inputs)
    exact = not near_ties(graph)
    for name, got in run_c(graph, inputs).items():
        if graph.tensors[name].dtype is I8 and exact:
            np.testing.assert_array_equal(got, expected[name].reshape(COUNT, -1), name)
        assert got.shape == expected[name].reshape(COUNT, -1).shape


@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - {"plain"}))
@pytest.mark.parametrize("seed", range(40))
def test_other_kernels_give_the_same_bytes(seed: int, variant: str) -> None:
    graph = mixed_graph(seed + 3000, depth=6 + seed % 14)
    inputs = inputs_for(graph, seed, COUNT)
    plain = run_c(graph, inputs)
    for name, got in run_c(graph, inputs, variant).items():
        assert got.tobytes() == plain[name].tobytes(), name


@pytest.mark.parametrize("seed", range(40))
def test_a_batch_is_its_samples(seed: int) -> None:
    """Whether a graph is run whole or sample by sample makes no difference."""
    graph = mixed_graph(seed + 4000, depth=4 + seed % 5)
    inputs = inputs_for(graph, seed, COUNT)
    whole = run(graph, inputs)
    for i in range(COUNT):
        one = {
            name: x[i * len(x) // COUNT : (i + 1) * len(x) // COUNT] for name, x in inputs.items()
        }
        for name, value in run(graph, one).items():
            rows = len(whole[name]) // COUNT
            np.testing.assert_allclose(
                whole[name][i * rows : (i + 1) * rows], value, rtol=1e-6, atol=1e-6
            )


def test_some_graphs_keep_a_batch_and_some_do_not() -> None:
    kept = [keeps_batch(mixed_graph(seed + 4000, depth=4 + seed % 5)) for seed in range(40)]
    assert 3 < sum(kept) < 37


@pytest.mark.parametrize("seed", range(60))
def test_int8_numpy_equals_tflite_micro(seed: int) -> None:
    pytest.importorskip("tflite_micro", reason="the oracle: pip install tflite-micro")
    from tflite_writer import run_tflite, write_graph

    graph = mixed_graph(seed + 5000, depth=4 + seed % 12, dtypes=(I8, I8), plain=True)
    inputs = inputs_for(graph, seed, COUNT)
    expected = run_int8(graph, inputs)
    ordered = [inputs[n].reshape(COUNT, *graph.tensors[n].shape) for n in graph.inputs]
    got = run_tflite(write_graph(graph), *ordered)  # its first output
    np.testing.assert_array_equal(got, expected[graph.outputs[0]].reshape(COUNT, -1))
