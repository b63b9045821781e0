"""The operators of image version 1.1, and those of float32, against TensorFlow Lite Micro."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from core_runner import CoreModel, random_inputs
from more_ops import Maker
from single_ops import image_of

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Requant, UnaryKind
from fieldloop.ir.tensor import Array, DType, Quant

pytest.importorskip("tflite_micro", reason="the oracle: pip install tflite-micro")

from tflite_writer import run_tflite, write_graph

CONFIGURATIONS = 40
INT8 = (
    "add_broadcast",
    "sub",
    "mul",
    "minimum",
    "maximum",
    "concat",
    "pad",
    "transpose",
    "slice",
    "embedding",
    "mean",
    "quantize",
    "dequantize",
    "grouped_conv2d",
    "softmax_of_any_rank",
)
WITH_INT8_TWIN = (
    "conv2d",
    "grouped_conv2d",
    "depthwise_conv2d",
    "fully_connected",
    "softmax_of_any_rank",
    "reshape",
)
FLOAT = (
    *("add_broadcast", "sub", "mul", "minimum", "maximum", "concat"),
    *("pad", "transpose", "slice", "embedding", "mean"),
)


def run_both(graph: Graph, rng: np.random.Generator) -> tuple[Array, Array]:
    inputs = random_inputs(graph, rng, 3)
    return CoreModel(image_of(graph)).run(*inputs), run_tflite(write_graph(graph), *inputs)


@pytest.mark.parametrize("kind", INT8)
def test_int8_equals_tflite_micro(kind: str) -> None:
    rng = np.random.default_rng(INT8.index(kind))
    lively = 0
    for _ in range(CONFIGURATIONS):
        graph = getattr(Maker(rng), kind)()
        got, expected = run_both(graph, rng)
        np.testing.assert_array_equal(got, expected, str(graph.ops[0]))
        lively += len(np.unique(got)) > 1
    assert lively > CONFIGURATIONS // 2


def assert_close(graph: Graph, rng: np.random.Generator) -> None:
    got, expected = run_both(graph, rng)
    assert got.dtype == np.float32
    limit = 1e-5 * np.abs(expected).max()
    assert np.abs(got - expected).max() <= limit, str(graph.ops[0])


@pytest.mark.parametrize("kind", WITH_INT8_TWIN)
def test_float_windows_and_rows(kind: str) -> None:
    rng = np.random.default_rng(WITH_INT8_TWIN.index(kind))
    for _ in range(CONFIGURATIONS):
        maker = Maker(rng)
        assert_close(maker.in_float(getattr(maker, kind)()), rng)


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
def test_float_pools(kind: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(CONFIGURATIONS):
        maker = Maker(rng)
        assert_close(maker.in_float(getattr(maker, kind)()), rng)


@pytest.mark.parametrize("kind", FLOAT)
def test_float_elements(kind: str) -> None:
    rng = np.random.default_rng(FLOAT.index(kind))
    for _ in range(CONFIGURATIONS):
        assert_close(getattr(Maker(rng), kind)(real=True), rng)


@pytest.mark.parametrize("kind", [k for k in UnaryKind if k.name not in ("CLIP", "HARDSIGMOID")])
def test_float_functions(kind: UnaryKind) -> None:
    rng = np.random.default_rng(7)
    for _ in range(10):
        assert_close(Maker(rng).unary(kind), rng)


@pytest.mark.parametrize("kind", UnaryKind)
def test_functions_of_a_real_number_are_exact_to_a_few_ulp(kind: UnaryKind) -> None:
    graph = Maker(np.random.default_rng(1)).unary(kind)
    shape = (1, 1 << 14)
    graph = graph_of_shape(graph, shape)
    grid = np.concatenate(
        [np.linspace(-20, 20, 1 << 13), np.geomspace(1e-30, 80, 1 << 12), [0, 87, 88, 88.7, 100]]
    )
    edges = np.array([-np.inf, np.inf, -0.0, 1e-38, -1e-38, 3.4e38, -3.4e38])
    x = np.resize(np.concatenate([grid, -grid[1 << 13 :], edges]), shape).astype(np.float32)
    got = CoreModel(image_of(graph)).run(x[None])[0].astype(np.float64)
    a, b = graph.ops[0].attrs.a, graph.ops[0].attrs.b
    r = x.reshape(-1).astype(np.float64)
    with np.errstate(all="ignore"):
        exact = {
            UnaryKind.RELU: lambda: np.maximum(r, 0),
            UnaryKind.CLIP: lambda: np.clip(r, a, b),
            UnaryKind.LEAKY_RELU: lambda: np.where(r < 0, a * r, r),
            UnaryKind.SIGMOID: lambda: 1 / (1 + np.exp(-r)),
            UnaryKind.TANH: lambda: np.tanh(r),
            UnaryKind.HARDSWISH: lambda: r * np.clip(r + 3, 0, 6) / 6,
            UnaryKind.HARDSIGMOID: lambda: np.clip(r * a + b, 0, 1),
            UnaryKind.ELU: lambda: np.where(r < 0, a * np.expm1(r), r),
            UnaryKind.ABS: lambda: np.abs(r),
            UnaryKind.EXP: lambda: np.exp(r),
        }[kind]()
        expected = exact.astype(np.float32)
    finite = np.isfinite(expected)
    if kind is UnaryKind.HARDSWISH:
        finite &= np.abs(r) < 1e37  # six times x leaves the range of f32, TensorFlow Lite's too
    np.testing.assert_array_equal(np.isnan(got[finite]), False)
    # 2e-38: below the normal numbers there is only 0
    tolerance = 6 * np.spacing(np.abs(expected[finite])).astype(np.float64) + 2e-38
    if kind in (UnaryKind.HARDSWISH, UnaryKind.HARDSIGMOID):
        tolerance += 2.0**-22  # x + 3 and x a + b are rounded before the clamp
    assert (np.abs(got[finite] - exact[finite]) <= tolerance).all()
    if kind in (UnaryKind.EXP, UnaryKind.SIGMOID, UnaryKind.TANH):
        np.testing.assert_array_equal(got[~finite], expected[~finite])


def graph_of_shape(graph: Graph, shape: tuple[int, ...]) -> Graph:
    tensors = {
        name: t if t.is_constant else replace(t, shape=shape) for name, t in graph.tensors.items()
    }
    return replace(graph, tensors=tensors)


def test_table() -> None:
    rng = np.random.default_rng(0)
    graph = graph_of_shape(Maker(rng).table(), (256,))
    x = np.arange(-128, 128, dtype=np.int8)[None]
    got = CoreModel(image_of(graph)).run(x)
    np.testing.assert_array_equal(got[0], graph.tensors["table"].data)


def test_an_index_outside_the_table_is_clamped() -> None:
    for index, low, high in ((DType.INT32, -(2**31), 2**31 - 1), (DType.INT8, -128, 127)):
        graph = graph_of_inputs(Maker(np.random.default_rng(2)).embedding(index=index), 4)
        table = graph.tensors["table"].data
        assert table is not None
        x = np.array([[low, -1, len(table), high]], index.value)
        got = CoreModel(image_of(graph)).run(x).reshape(4, -1)
        rows = table.reshape(len(table), -1)
        np.testing.assert_array_equal(got, rows[[0, 0, -1, -1]])


def graph_of_inputs(graph: Graph, n: int) -> Graph:
    tensors = dict(graph.tensors)
    tensors["x"] = replace(tensors["x"], shape=(n,))
    tensors["y"] = replace(tensors["y"], shape=(n, *tensors["y"].shape[1:]))
    return replace(graph, tensors=tensors)


def test_concat_of_24() -> None:
    rng = np.random.default_rng(1)
    for real in (False, True):
        graph = Maker(rng).concat(real, count=24)
        x = random_inputs(graph, rng, 2)
        got = CoreModel(image_of(graph)).run(*x)
        axis = graph.ops[0].attrs.axis + 1
        np.testing.assert_array_equal(got, np.concatenate(x, axis).reshape(2, -1))


# ---- what TensorFlow Lite Micro has not: weights with a zero point, and a single rounding


def with_weights(graph: Graph, zero_point: int) -> Graph:
    """The same arithmetic, every weight and the weights' zero point moved by `zero_point`."""
    tensors = dict(graph.tensors)
    w = tensors["w"]
    assert w.quant is not None and w.data is not None
    quant = Quant((max(w.quant.scales),), zero_point)
    tensors["w"] = replace(w, quant=quant, data=(w.data // 2 + zero_point).astype(np.int8))
    b = tensors.get("b")
    if b is not None:
        tensors["b"] = replace(b, quant=None)
    fixed = graph.ops[0].fixed
    assert isinstance(fixed, Requant)
    op = replace(graph.ops[0], fixed=replace(fixed, factors=fixed.factors[:1]))
    return replace(graph, tensors=tensors, ops=(op,))


@pytest.mark.parametrize(
    "kind", ["conv2d", "grouped_conv2d", "depthwise_conv2d", "fully_connected"]
)
def test_a_zero_point_of_the_weights(kind: str) -> None:
    rng = np.random.default_rng(11)
    for _ in range(CONFIGURATIONS):
        graph = getattr(Maker(rng), kind)()
        x = random_inputs(graph, rng, 2)
        plain = CoreModel(image_of(with_weights(graph, 0))).run(*x)
        zero_point = int(rng.integers(-64, 64))
        moved = CoreModel(image_of(with_weights(graph, zero_point))).run(*x)
        np.testing.assert_array_equal(moved, plain)


def test_single_rounding() -> None:
    """The product of accumulator and factor, exact, rounded once."""
    rng = np.random.default_rng(12)
    differs = 0
    for _ in range(300):
        graph = Maker(rng).fully_connected()
        fixed = graph.ops[0].fixed
        assert isinstance(fixed, Requant)
        once = replace(
            graph, ops=(replace(graph.ops[0], fixed=replace(fixed, single_rounding=True)),)
        )
        x = random_inputs(graph, rng, 2)
        got = CoreModel(image_of(once)).run(*x)
        w, b = graph.tensors["w"], graph.tensors.get("b")
        assert w.data is not None and graph.tensors["x"].quant and graph.tensors["y"].quant
        zero = graph.tensors["x"].quant.zero_point
        rows = (x[0].reshape(-1, w.shape[1]).astype(np.int64) - zero) @ w.data.T.astype(np.int64)
        if b is not None and b.data is not None:
            rows += b.data
        expected = np.empty_like(rows)
        for c in range(rows.shape[1]):
            f = fixed.factors[c % len(fixed.factors)]
            products = rows[:, c] * f.multiplier + (1 << (30 - f.shift))
            expected[:, c] = (products >> (31 - f.shift)) + graph.tensors["y"].quant.zero_point
        expected = np.clip(expected, fixed.act_min, fixed.act_max).reshape(2, -1)
        np.testing.assert_array_equal(got, expected)
        differs += not np.array_equal(got, CoreModel(image_of(graph)).run(*x))
    assert differs > 0  # or the flag would say nothing
