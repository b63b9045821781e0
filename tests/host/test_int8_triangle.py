"""Golden triangle of inference: numpy = C = TensorFlow Lite Micro, on every byte."""

from __future__ import annotations

import numpy as np
import pytest
from c_executor import run_c
from random_graphs import random_graph, samples_for

from fieldloop.compiler import compile_graph
from fieldloop.ir.reference import run
from fieldloop.ir.reference_int8 import run_int8


@pytest.mark.parametrize("seed", range(60))
def test_numpy_equals_c_on_random_graphs(seed: int) -> None:
    graph = random_graph(seed, depth=1 + seed % 6, softmax=seed % 3 > 0)
    x = samples_for(graph, seed, 40)
    compiled = compile_graph(graph, x, learn=None)
    q = compiled.input_quant.quantize(x[:8])
    seen: list[np.ndarray] = []
    (expected,) = run_int8(compiled.graph, {"x": q}, lambda _, v: seen.append(v)).values()
    assert all(value.dtype == np.int8 for value in seen)
    got = run_c(compiled.image, q)
    np.testing.assert_array_equal(got, expected.reshape(len(q), -1))


@pytest.mark.parametrize("seed", range(12))
def test_extreme_inputs(seed: int) -> None:
    """Inputs far outside the calibrated range reach every clamp."""
    graph = random_graph(seed + 500, depth=3)
    compiled = compile_graph(graph, samples_for(graph, seed, 30), learn=None)
    shape = graph.tensors["x"].shape[1:]
    rng = np.random.default_rng(seed)
    q = rng.choice(np.array([-128, 127], np.int8), size=(6, *shape))
    (expected,) = run_int8(compiled.graph, {"x": q}).values()
    np.testing.assert_array_equal(run_c(compiled.image, q), expected.reshape(len(q), -1))


@pytest.mark.parametrize("seed", range(20))
def test_int8_stays_close_to_float(seed: int) -> None:
    graph = random_graph(seed + 100, depth=3, softmax=False)
    x = samples_for(graph, seed, 80)
    compiled = compile_graph(graph, x, learn=None)
    (real,) = run(graph, {"x": x}).values()
    (q,) = run_int8(compiled.graph, {"x": compiled.input_quant.quantize(x)}).values()
    out = compiled.graph.tensors[graph.outputs[0]].quant
    assert out is not None
    error = np.abs(out.dequantize(q) - real)
    # A few quantisation steps of the output, on average.
    assert error.mean() < 6 * out.scale


@pytest.mark.parametrize("seed", range(40))
def test_numpy_equals_tflite_micro_on_random_graphs(seed: int) -> None:
    pytest.importorskip("tflite_micro", reason="the oracle: pip install tflite-micro")
    from tflite_writer import run_tflite, write_graph

    graph = random_graph(seed + 1000, depth=1 + seed % 5, softmax=seed % 2 > 0)
    x = samples_for(graph, seed, 40)
    compiled = compile_graph(graph, x, learn=None)
    q = compiled.input_quant.quantize(x[:4])
    (expected,) = run_int8(compiled.graph, {"x": q}).values()
    got = run_tflite(write_graph(compiled.graph), q)
    np.testing.assert_array_equal(got, expected.reshape(len(q), -1))
