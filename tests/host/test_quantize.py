"""Calibration and post-training quantisation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_graphs import Grower, random_graph, samples_for

from fieldloop.errors import UsageError
from fieldloop.ir.op import POOLS, WEIGHTED, OpKind
from fieldloop.ir.reference import run
from fieldloop.ir.reference_int8 import run_int8
from fieldloop.ir.tensor import DType
from fieldloop.quantize.calibrate import calibrate
from fieldloop.quantize.options import Method, QuantizeOptions
from fieldloop.quantize.ptq import activation_quant, quantize_graph, weight_quant

REALS = st.floats(-1e4, 1e4, width=32)


@given(REALS, REALS)
def test_zero_is_exact_and_the_range_is_covered(a: float, b: float) -> None:
    lo, hi = min(a, b), max(a, b)
    quant = activation_quant(lo, hi)
    assert -128 <= quant.zero_point <= 127
    assert quant.dequantize(quant.quantize(np.zeros(1)))[0] == 0.0
    ends = np.array([lo, hi])
    error = np.abs(quant.dequantize(quant.quantize(ends)) - ends)
    assert error.max() <= quant.scale * 1.01


@given(st.integers(0, 1000), st.sampled_from([(5, 3, 3, 2), (4, 7)]))
def test_weights_are_within_half_a_step(seed: int, shape: tuple[int, ...]) -> None:
    w = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    quant = weight_quant(w, 0)
    scales = np.array(quant.scales).reshape(-1, *(1,) * (w.ndim - 1))
    q = np.rint(w / scales)
    assert np.abs(q).max() == 127
    assert (np.abs(q * scales - w) <= scales * 0.5001).all()


def test_a_row_of_zeros_gets_the_largest_scale_of_its_layer() -> None:
    w = np.array([[1.0, -2.0], [0.0, 0.0], [0.5, 4.0]], np.float32)
    quant = weight_quant(w, 0)
    assert quant.scales[1] == quant.scales[2] == max(quant.scales)
    assert weight_quant(np.zeros((2, 2), np.float32), 0).scales[0] > 0


def test_ranges_are_those_of_the_float_reference() -> None:
    graph = random_graph(11)
    x = samples_for(graph, 11, 150)
    ranges = calibrate(graph, {"x": x})
    seen: dict[str, np.ndarray] = {}
    run(graph, {"x": x}, lambda name, value: seen.update({name: value}))
    for name, value in seen.items():
        assert ranges[name].lo == value.min()
        assert ranges[name].hi == value.max()
        norm = np.square(value).reshape(len(x), -1).sum(axis=1).mean()
        assert ranges[name].mean_square_norm == pytest.approx(norm)


def test_a_percentile_cuts_rare_extremes() -> None:
    graph = random_graph(11)
    x = np.random.default_rng(0).normal(size=(200, *graph.tensors["x"].shape[1:]))
    x[0].flat[0] = 1000.0
    full = calibrate(graph, {"x": x})["x"]
    options = QuantizeOptions(method=Method.PERCENTILE, percentile=99.5)
    cut = calibrate(graph, {"x": x}, options)["x"]
    assert full.hi == 1000.0
    share = ((x >= cut.lo) & (x <= cut.hi)).mean()
    assert cut.hi < 10.0
    assert share >= 0.995
    with pytest.raises(UsageError, match="percentile"):
        QuantizeOptions(percentile=10.0)


def test_samples_that_are_not_finite_are_refused() -> None:
    graph = random_graph(1)
    x = samples_for(graph, 1, 4)
    x[2].flat[0] = np.nan
    with pytest.raises(UsageError, match="not finite"):
        calibrate(graph, {"x": x})


@pytest.mark.parametrize("seed", range(12))
def test_what_shares_a_quantisation(seed: int) -> None:
    graph = random_graph(seed, depth=5)
    quantized = quantize_graph(graph, {"x": samples_for(graph, seed, 30)}).graph
    tensors = quantized.tensors
    for op in quantized.ops:
        source, made = tensors[op.inputs[0]].quant, tensors[op.output].quant
        assert source is not None and made is not None
        if op.kind in POOLS or op.kind is OpKind.RESHAPE:
            assert source == made
        if op.kind is OpKind.SOFTMAX:
            assert (made.scale, made.zero_point) == (1 / 256, -128)
        if op.kind in WEIGHTED:
            w, b = (tensors[name] for name in op.inputs[1:])
            assert w.dtype is DType.INT8 and w.data is not None and w.data.min() >= -127
            assert b.dtype is DType.INT32


def test_quantisation_is_deterministic() -> None:
    graph = random_graph(4)
    x = samples_for(graph, 4, 70)
    first, second = (quantize_graph(graph, {"x": x}).graph for _ in range(2))
    assert first.ops == second.ops
    for name, tensor in first.tensors.items():
        assert tensor.quant == second.tensors[name].quant
        if tensor.data is not None:
            np.testing.assert_array_equal(tensor.data, second.tensors[name].data)


def test_headroom_widens_one_tensor() -> None:
    graph = random_graph(4, softmax=False)
    x = {"x": samples_for(graph, 4, 70)}
    plain = quantize_graph(graph, x).graph.tensors
    wide = quantize_graph(graph, x, headroom={"head": 2.0}).graph.tensors
    for name in ("x", "head"):
        before, after = plain[name].quant, wide[name].quant
        assert before is not None and after is not None
        factor = 2.0 if name == "head" else 1.0
        assert after.scale == pytest.approx(before.scale * factor, rel=1e-6)
    with pytest.raises(UsageError, match="headroom"):
        quantize_graph(graph, x, headroom={"head": 0.5})


def test_an_activation_that_is_always_zero() -> None:
    grower = Grower(np.random.default_rng(0))
    x = grower.build.input("x", (1, 4, 4, 2))
    graph = grower.build.graph([grower.head(x, softmax=True)])
    quantized = quantize_graph(graph, {"x": np.zeros((3, 4, 4, 2))}).graph
    quant = quantized.tensors["x"].quant
    assert quant is not None and quant.zero_point == 0
    with pytest.raises(UsageError, match="expected int8, got float64"):
        run_int8(quantized, {"x": np.zeros((1, 4, 4, 2))})


def test_batches_do_not_change_a_sample() -> None:
    graph = random_graph(8)
    x = samples_for(graph, 8, 10)
    (together,) = run(graph, {"x": x}).values()
    (alone,) = run(graph, {"x": x[3:4]}).values()
    np.testing.assert_allclose(together[3:4], alone, rtol=1e-6)
