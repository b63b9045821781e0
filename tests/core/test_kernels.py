"""Every kernel against TensorFlow Lite Micro's reference, on every byte."""

from __future__ import annotations

import numpy as np
import pytest
from core_runner import CoreModel, random_inputs
from patch import Patch
from single_ops import Maker, image_of
from test_spec_model import example

from fieldloop.ir import fixed_math as fm
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Op, OpKind, Requant
from fieldloop.ir.tensor import DType, Quant, Tensor, as_float32
from fieldloop.quantize.fixedpoint import weighted_factors

pytest.importorskip("tflite_micro", reason="the oracle: pip install tflite-micro")

from tflite_writer import run_tflite, write_graph

SINGLE = sorted(kind.value for kind in OpKind if hasattr(Maker, kind.value))  # of version 1.0
CONFIGURATIONS = 60


def assert_same(graph: Graph, rng: np.random.Generator, count: int = 4) -> np.ndarray:
    inputs = random_inputs(graph, rng, count)
    got = CoreModel(image_of(graph)).run(*inputs)
    expected = run_tflite(write_graph(graph), *inputs)
    np.testing.assert_array_equal(got, expected, str(graph.ops[0]))
    return got


@pytest.mark.parametrize("kind", SINGLE)
def test_kernel_equals_tflite_micro(kind: str) -> None:
    rng = np.random.default_rng(SINGLE.index(kind))
    lively = 0
    for _ in range(CONFIGURATIONS):
        graph = getattr(Maker(rng), kind)()
        lively += len(np.unique(assert_same(graph, rng))) > 1
    # A test of constant outputs would prove little.
    assert lively > CONFIGURATIONS // 2


def test_scales_of_a_fully_connected_layer_are_multiplied_in_float64() -> None:
    """Accumulators where a float32 product of the scales gives another output; here as biases."""
    x, w, y = (Quant((as_float32(s),), z) for s, z in ((0.1899, 5), (0.0133, 0), (1.2944, -3)))
    (exact,) = weighted_factors(x, w, y)
    (single,) = weighted_factors(x, w, y, in_float32=True)
    accumulators = np.arange(-120000, 120000)
    steps = [
        fm.requantize(accumulators, np.array(f.multiplier), np.array(f.shift))
        for f in (exact, single)
    ]
    chosen = accumulators[steps[0] != steps[1]].astype(np.int32)
    assert len(chosen) > 1
    tensors = [
        Tensor("x", (1, 1), DType.INT8, x),
        Tensor("w", (len(chosen), 1), DType.INT8, w, np.zeros((len(chosen), 1), np.int8)),
        Tensor("b", chosen.shape, DType.INT32, Quant((as_float32(x.scale * w.scale),)), chosen),
        Tensor("y", (1, len(chosen)), DType.INT8, y),
    ]
    fixed = Requant(-128, 127, (exact,))
    op = Op("fc", OpKind.FULLY_CONNECTED, ("x", "w", "b"), "y", fixed=fixed)
    graph = Graph("fc", {t.name: t for t in tensors}, (op,), ("x",), ("y",))
    assert_same(graph, np.random.default_rng(0), 1)


@pytest.mark.parametrize(("bias", "expected"), [(2**31 - 1, 127), (-(2**31), -128)])
def test_a_sum_at_the_edge_of_32_bits_saturates(bias: int, expected: int) -> None:
    """The output's zero point comes on top of nearly 2**31; TensorFlow Lite would overflow."""
    patch = Patch(example())
    patch.at(int(patch.tensors["offset"][3]), "<i4")[:] = bias
    factor = int(patch.ops["requant"][0])
    patch.at(factor, "<i4")[:] = 2**31 - 1
    patch.at(factor + 4, "<i4")[:] = 0
    patch.tensors["zero_point"][1] = 100 if bias > 0 else -100
    got = CoreModel(patch.bytes()).run(np.full((1, 4), -1, np.int8))  # the inputs' zero
    assert got[0, 0] == expected


@pytest.mark.parametrize("seed", range(6))
def test_every_pair_of_summands(seed: int) -> None:
    graph = Maker(np.random.default_rng(seed)).add((1, 256, 256, 1))
    values = np.arange(-128, 128, dtype=np.int8)
    a = np.broadcast_to(values[:, None], (256, 256))[None]
    b = np.broadcast_to(values[None, :], (256, 256))[None]
    got = CoreModel(image_of(graph)).run(a, b)
    np.testing.assert_array_equal(got, run_tflite(write_graph(graph), a, b))


@pytest.mark.parametrize("columns", [1, 2, 200, 500])
def test_softmax_of_wide_and_narrow_rows(columns: int) -> None:
    rng = np.random.default_rng(columns)
    for _ in range(10):
        graph = Maker(rng).softmax(columns)
        assert_same(graph, rng)
        level = [np.full((1, *graph.tensors["x"].shape), 5, np.int8)]
        got = CoreModel(image_of(graph)).run(*level)
        np.testing.assert_array_equal(got, run_tflite(write_graph(graph), *level))


def test_softmax_of_more_equal_logits_than_the_output_can_tell_apart_is_zero() -> None:
    """Beyond 511 of them TensorFlow Lite shifts by more than 31 bits, which C leaves undefined."""
    graph = Maker(np.random.default_rng(0)).softmax(2000)
    got = CoreModel(image_of(graph)).run(np.zeros((1, *graph.tensors["x"].shape), np.int8))
    assert (got == -128).all()
