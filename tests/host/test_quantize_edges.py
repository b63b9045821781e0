"""Calibration methods, bias correction, equalisation, and what is degenerate or refused."""

from __future__ import annotations

import numpy as np
import pytest

from fieldloop.compiler import compile_graph
from fieldloop.errors import UsageError
from fieldloop.frontends.builder import Constant, GraphBuilder
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, OpKind, Window
from fieldloop.ir.reference import run
from fieldloop.ir.tensor import Array
from fieldloop.quantize.calibrate import calibrate, least_error
from fieldloop.quantize.equalise import equalised
from fieldloop.quantize.options import Method, QuantizeOptions
from fieldloop.quantize.ptq import quantize_graph
from fieldloop.quantize.report import given_to, layer_errors, output_error
from fieldloop.quantize.weights import weight_quant
from fieldloop.runtime import Model

SHAPE = (1, 6, 6, 3)
RELU = Clamp(0.0)


def two_layers(*, spread: float = 1.0, second: OpKind = OpKind.CONV2D, seed: int = 0) -> Graph:
    """Two layers with a ReLU between; the first one's channels differ by `spread` in size."""
    rng = np.random.default_rng(seed)
    build = GraphBuilder("two")
    x = build.input("x", SHAPE)
    sizes = np.geomspace(1.0, spread, 8)
    w = rng.normal(size=(8, 3, 3, 3)) * sizes[:, None, None, None]
    y = build.add(
        "first", OpKind.CONV2D, [x], window=Window((3, 3)), weights=w, bias=rng.normal(size=8)
    )
    y = build.clamp("relu", y, RELU, private=True)
    shape = (5, 1, 1, 8) if second is OpKind.CONV2D else (1, 1, 1, 8)
    w = rng.normal(size=shape) / sizes
    return build.graph([build.add("second", second, [y], window=Window((1, 1)), weights=w)])


def samples(count: int = 60, seed: int = 0) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).normal(size=(count, *SHAPE[1:]))}


def core_agrees(graph: Graph, x: dict[str, Array], count: int = 2) -> None:
    given = given_to(graph, x)
    made = run(graph, given)[graph.outputs[0]]
    model = Model(compile_graph(graph, learn=None).image)
    for i in range(count):
        out = model.run(given["x"][i : i + 1])[0]
        np.testing.assert_array_equal(out.reshape(-1), made[i].reshape(-1))


# ---- ranges


def test_the_range_of_least_error_is_the_best_of_all_that_are_tried_by_force() -> None:
    rng = np.random.default_rng(0)
    values = np.append(rng.normal(size=60_000), 16.0)
    low_end = float(values.min())
    lo, hi = least_error(values, low_end, 16.0)

    def error(low: float, high: float) -> float:
        step = (high - low) / 255.0
        first = np.rint(low / step)
        made = np.clip(np.rint(values / step), first, first + 255) * step
        return float(np.square(values - made).sum())

    best = min(error(a, b) for a in np.linspace(low_end, -3.0, 9) for b in np.linspace(3, 16, 40))
    assert error(lo, hi) <= best * 1.01
    assert error(lo, hi) < error(low_end, 16.0) * 0.9


def test_an_outlier_far_out_does_not_decide() -> None:
    x = samples(200)
    x["x"][7, 0, 0, 0] = 300.0
    wide, mse = (
        calibrate(two_layers(), x, QuantizeOptions(method=m)) for m in (Method.MINMAX, Method.MSE)
    )
    assert wide["x"].hi == 300.0
    assert mse["x"].hi <= 300.0
    # One in 21,600 values: its square is as much as all others' rounding at a range of 300.
    step = 300.0 / 255.0
    assert (300.0 - mse["x"].hi) ** 2 <= 21_600 * step**2 / 12.0


def test_large_sets_are_sampled_evenly_and_the_same_way_each_time() -> None:
    x = samples(700)
    options = QuantizeOptions(method=Method.PERCENTILE, percentile=99.0)
    first, second = (calibrate(two_layers(), x, options)["x"] for _ in range(2))
    assert first == second
    exact = np.quantile(x["x"], [0.005, 0.995])
    assert [first.lo, first.hi] == pytest.approx(list(exact), abs=0.08)


def test_progress_counts_samples() -> None:
    seen: list[tuple[str, int, int]] = []
    quantize_graph(two_layers(), samples(150), progress=lambda *args: seen.append(args))
    assert [done for _, done, _ in seen] == [64, 128, 150]


def test_weights_of_least_error_are_closer() -> None:
    rng = np.random.default_rng(0)
    w = rng.normal(size=(6, 60_000))
    w[2, 0], w[4, :] = 8.0, 0.0

    def error(method: Method) -> Array:
        scales = np.array(weight_quant(w, 0, method).scales)[:, None]
        made = np.clip(np.rint(w / scales), -127, 127) * scales
        return np.square(made - w).sum(axis=1)

    plain, mse = error(Method.MINMAX), error(Method.MSE)
    assert (mse <= plain + 1e-9).all()
    assert mse[2] < plain[2] * 0.95


# ---- against the error that is left


def test_bias_correction_takes_the_mean_error_out() -> None:
    graph = two_layers(spread=300.0)
    x = samples(200)
    plain = quantize_graph(graph, x).graph
    better = quantize_graph(graph, x, options=QuantizeOptions(bias_correction=True)).graph
    core_agrees(better, x)

    def mean_error(made: Graph) -> float:
        quant = made.tensors["second"].quant
        assert quant is not None
        y = quant.dequantize(run(made, given_to(made, x))["second"]).astype(np.float64)
        off = (y - run(graph, x)["second"]).reshape(-1, 5).mean(axis=0)
        return float(np.abs(off).max() / quant.scale)

    assert mean_error(plain) > 0.1
    assert mean_error(better) < mean_error(plain) / 3.0
    assert {name for name in plain.tensors if name.endswith("bias")} == {
        "first.bias",
        "second.bias",
    }


@pytest.mark.parametrize("second", [OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D])
def test_equalisation_computes_the_same_and_helps_uneven_channels(second: OpKind) -> None:
    graph, x = two_layers(spread=300.0, second=second), samples()
    other = equalised(graph, x)
    assert other is not None
    np.testing.assert_allclose(run(other, x)["second"], run(graph, x)["second"], atol=2e-4)
    plain = quantize_graph(graph, x)
    done = quantize_graph(graph, x, options=QuantizeOptions(equalise=True))
    assert done.is_equalised and not plain.is_equalised
    assert output_error(graph, done.graph, x) < output_error(graph, plain.graph, x) / 4.0
    core_agrees(done.graph, x)
    # The report compares with the network it stands for: its layers are still close.
    for layer in layer_errors(done.reference, done.graph, x):
        assert layer.sqnr_db is not None and layer.sqnr_db > 25.0


def test_equalisation_that_does_not_help_is_dropped() -> None:
    graph, x = two_layers(seed=4), samples()
    plain = quantize_graph(graph, x).graph
    done = quantize_graph(graph, x, options=QuantizeOptions(equalise=True))
    assert output_error(graph, done.graph, x) <= output_error(graph, plain, x)
    if not done.is_equalised:
        assert done.graph.ops == plain.ops


def test_a_value_that_two_read_is_not_equalised() -> None:
    rng = np.random.default_rng(0)
    build = GraphBuilder("fork")
    x = build.input("x", SHAPE)

    def conv(name: str, value: str) -> str:
        w = rng.normal(size=(3, 1, 1, 3))
        return build.add(name, OpKind.CONV2D, [value], window=Window((1, 1)), weights=w)

    y = conv("a", x)
    assert equalised(build.graph([conv("b", y), conv("c", y)]), samples()) is None


# ---- degenerate


def test_one_sample_is_enough() -> None:
    graph, x = two_layers(), samples(1)
    for options in (QuantizeOptions(), QuantizeOptions(method=Method.MSE, bias_correction=True)):
        core_agrees(quantize_graph(graph, x, options=options).graph, x, 1)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 1e-25, 1e12])
@pytest.mark.parametrize("method", list(Method))
def test_samples_that_are_all_equal(value: float, method: Method) -> None:
    graph = two_layers()
    x = {"x": np.full((3, *SHAPE[1:]), value)}
    done = quantize_graph(graph, x, options=QuantizeOptions(method=method, bias_correction=True))
    core_agrees(done.graph, x)


@pytest.mark.parametrize("factor", [1e-30, 1e-12, 1e12])
def test_weights_of_any_size(factor: float) -> None:
    graph = two_layers()
    w = graph.tensors["first.weights"]
    assert w.data is not None
    graph = Graph(
        graph.name,
        {**graph.tensors, w.name: type(w)(w.name, w.shape, data=w.data * np.float32(factor))},
        graph.ops,
        graph.inputs,
        graph.outputs,
    )
    core_agrees(quantize_graph(graph, samples()).graph, samples())


def test_channels_of_zeros() -> None:
    graph = two_layers()
    tensors = dict(graph.tensors)
    for name, places in (
        ("first.weights", (2, 5)),
        ("first.bias", (2,)),
        ("second.weights", (1,)),
    ):
        data = np.array(tensors[name].data)
        data[list(places)] = 0.0
        tensors[name] = type(tensors[name])(name, data.shape, data=data)
    graph = Graph(graph.name, tensors, graph.ops, graph.inputs, graph.outputs)
    for options in (
        QuantizeOptions(),
        QuantizeOptions(
            method=Method.MSE, weights=Method.MSE, equalise=True, bias_correction=True
        ),
    ):
        done = quantize_graph(graph, samples(), options=options).graph
        core_agrees(done, samples())
        made = run(done, given_to(done, samples()))["second"]
        quant = done.tensors["second"].quant
        assert quant is not None and (made[..., 1] == quant.zero_point).all()


def test_a_difference_of_equals_has_room_for_its_factors() -> None:
    build = GraphBuilder("zero")
    x = build.input("x", SHAPE)
    y = build.add("none", OpKind.SUB, [x, x])
    core_agrees(quantize_graph(build.graph([y]), samples()).graph, samples())


def test_a_product_that_is_always_zero_has_room_for_its_factor() -> None:
    build = GraphBuilder("zero")
    x = build.input("x", SHAPE)
    none = build.add("none", OpKind.MUL, [x, build.constant("zero", Constant(np.zeros((1, 3))))])
    y = build.add("product", OpKind.MUL, [x, none])
    x = {"x": samples()["x"] * 1e14}
    core_agrees(quantize_graph(build.graph([y]), x).graph, x)


def test_ranges_that_no_scale_holds_are_refused() -> None:
    x = samples()
    x["x"][3] = 1e25
    with pytest.raises(UsageError, match=r"x reaches 1e\+25, expected below 2\*\*60"):
        quantize_graph(two_layers(), x)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_are_refused(bad: float) -> None:
    x = samples()
    x["x"][59, 0, 0, 0] = bad
    for method in Method:
        with pytest.raises(UsageError, match="calibration: x is not finite"):
            calibrate(two_layers(), x, QuantizeOptions(method=method))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "expected inputs .'x'., got"),
        ({"y": np.zeros((1, 6, 6, 3))}, "expected inputs .'x'., got .'y'."),
        ({"x": np.zeros((2, 3, 6, 6))}, r"expected shape \[n, 6, 6, 3\], got \[2, 3, 6, 6\]"),
        ({"x": np.zeros((0, 6, 6, 3))}, "expected one batch size >= 1"),
        ({"x": np.zeros((1, 6, 6, 3), complex)}, "expected an array of numbers, got complex128"),
        ({"x": np.full((1, 6, 6, 3), "a")}, "expected an array of numbers, got <U1"),
        ({"x": [[1.0]]}, "expected an array of numbers, got list"),
    ],
)
def test_samples_of_the_wrong_kind(given: dict[str, Array], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantize_graph(two_layers(), given)


def test_options_say_what_they_expect() -> None:
    assert QuantizeOptions(method="mse").method is Method.MSE  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="method: expected one of minmax, percentile, mse"):
        QuantizeOptions(method="entropy")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="weights: expected minmax or mse"):
        QuantizeOptions(weights=Method.PERCENTILE)
    with pytest.raises(UsageError, match="headroom: nobody is no float activation"):
        quantize_graph(two_layers(), samples(), headroom={"nobody": 2.0})
    done = quantize_graph(two_layers(), samples()).graph
    with pytest.raises(UsageError, match="is int8 already"):
        quantize_graph(done, samples())
