"""Every operator of a float graph becomes int8: near the float one, and the C core's bytes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fieldloop.compiler import compile_graph
from fieldloop.errors import UsageError
from fieldloop.frontends.builder import Constant, GraphBuilder
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import (
    Clamp,
    Concat,
    Mean,
    OpKind,
    Pad,
    Slice,
    Transpose,
    Unary,
    UnaryKind,
    Window,
)
from fieldloop.ir.reference import run
from fieldloop.ir.tensor import Array, DType, Tensor
from fieldloop.quantize.options import QuantizeOptions
from fieldloop.quantize.ptq import quantize_graph
from fieldloop.quantize.report import given_to, layer_errors, output_error
from fieldloop.quantize.walk import run_op
from fieldloop.runtime import Model

SHAPE = (1, 4, 6, 3)


def samples(count: int = 40, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> dict[str, Array]:
    x = np.random.default_rng(seed).normal(size=(count, *shape[1:]))
    return {"x": x.astype(np.float32)}


def conv(build: GraphBuilder, x: str, out: int, name: str = "conv", scale: float = 1.0) -> str:
    rng = np.random.default_rng(len(build.ops))
    c = build.shape(x)[3]
    w = rng.normal(size=(out, 1, 1, c)) * scale
    return build.add(
        name, OpKind.CONV2D, [x], window=Window((1, 1)), weights=w, bias=rng.normal(size=out)
    )


def device_outputs(graph: Graph, given: dict[str, Array], count: int) -> list[list[Array]]:
    """The C core's outputs for the first samples, as its plain kernels have them."""
    model = Model(compile_graph(graph, learn=None).image)
    made = []
    for i in range(count):
        outs = model.run(*[given[name][i : i + 1] for name in graph.inputs])
        made.append([np.asarray(v) for v in (outs if isinstance(outs, list | tuple) else [outs])])
    return made


def real_values(graph: Graph, name: str, values: dict[str, Array]) -> Array:
    """What a tensor of the int8 graph stands for, constants too."""
    tensor = graph.tensors[name]
    q = values[name] if tensor.data is None else tensor.data
    if tensor.quant is None:
        return np.asarray(q)
    along = [1] * q.ndim
    if tensor.quant.axis is not None:
        along[tensor.quant.axis] = -1
    scales = np.array(tensor.quant.scales).reshape(along if tensor.quant.axis is not None else ())
    return np.asarray((q.astype(np.float64) - tensor.quant.zero_point) * scales)


def check(graph: Graph, x: dict[str, Array], **options: object) -> Graph:
    """Quantises, and holds every operator to the float one on the values it was given.

    No output is further than one step from the real function of what its int8 inputs stand for
    (or, beyond what int8 can say, from the end), and the C core agrees with the reference.
    """
    done = quantize_graph(graph, x, options=QuantizeOptions(**options))  # type: ignore[arg-type]
    quantized = done.graph
    given = given_to(quantized, x)
    values: dict[str, Array] = {}
    made = run(quantized, given, lambda name, value: values.update({name: value}))
    real_ops = {op.name: op for op in graph.ops}
    for op in quantized.ops:
        quant = quantized.tensors[op.output].quant
        if op.name not in real_ops or quant is None:
            continue
        real = real_ops[op.name]
        places = range(len(op.inputs) if op.kind is not OpKind.TABLE else 1)
        tensors = {real.output: graph.tensors[real.output]}
        inputs: dict[str, Array] = {}
        for i in places:
            seen = quantized.tensors[op.inputs[i]]
            now = real_values(quantized, op.inputs[i], values)
            dtype = DType.INT32 if now.dtype.kind == "i" else DType.FLOAT32
            data = now.astype(dtype.value) if seen.is_constant else None
            tensors[f"in{i}"] = Tensor(f"in{i}", seen.shape, dtype, data=data)
            inputs[f"in{i}"] = now
        single = replace(real, inputs=tuple(f"in{i}" for i in places))
        wanted = run_op(single, tensors, inputs)
        ends = (np.array([-128, 127]) - quant.zero_point) * quant.scale
        off = np.abs(np.clip(wanted, *ends) - real_values(quantized, op.output, values))
        assert off.max() <= quant.scale * 1.001, op.name
    for i, outs in enumerate(device_outputs(quantized, given, 3)):
        for name, out in zip(quantized.outputs, outs, strict=True):
            expected = made[name][i : i + 1]
            if expected.dtype == np.int8:
                np.testing.assert_array_equal(out.reshape(expected.shape), expected)
            else:
                np.testing.assert_allclose(out.reshape(expected.shape), expected, rtol=1e-5)
    assert output_error(graph, quantized, x) < 0.003 * len(graph.outputs)  # 25 dB
    return quantized


@pytest.mark.parametrize("kind", list(UnaryKind))
def test_functions_of_one_number(kind: UnaryKind) -> None:
    parameters = {
        UnaryKind.CLIP: (-0.5, 1.5),
        UnaryKind.LEAKY_RELU: (0.1, 0.0),
        UnaryKind.HARDSIGMOID: (1.0 / 6.0, 0.5),
        UnaryKind.ELU: (1.0, 0.0),
    }
    build = GraphBuilder("unary")
    x = build.input("x", SHAPE)
    a, b = parameters.get(kind, (0.0, 0.0))
    y = build.add("f", OpKind.UNARY, [conv(build, x, 4)], attrs=Unary(kind, a, b))
    quantized = check(build.graph([y]), samples())
    op = quantized.producer(y)
    assert op is not None and op.kind is OpKind.TABLE
    quant = quantized.tensors[y].quant
    assert quant is not None
    if kind is UnaryKind.SIGMOID:
        assert (quant.scale, quant.zero_point) == (1 / 256, -128)
    if kind is UnaryKind.TANH:
        assert (quant.scale, quant.zero_point) == (1 / 128, 0)
    # Entry by entry: the nearest integer to the function of what the input stands for.
    table, given = quantized.tensors[op.inputs[1]].data, quantized.tensors[op.inputs[0]].quant
    assert table is not None and given is not None
    if kind is UnaryKind.TANH:
        for q in range(-128, 128):
            real = math.tanh((q - given.zero_point) * given.scale) * 128.0
            nearest = math.copysign(math.floor(abs(real) + 0.5), real)
            assert table[q + 128] == min(max(nearest, -128), 127)


@pytest.mark.parametrize(
    "kind", [OpKind.ADD, OpKind.SUB, OpKind.MUL, OpKind.MINIMUM, OpKind.MAXIMUM]
)
@pytest.mark.parametrize("with_constant", [False, True])
@pytest.mark.parametrize("clamp", [Clamp(), Clamp(0.0)])
def test_two_operands(kind: OpKind, with_constant: bool, clamp: Clamp) -> None:
    build = GraphBuilder("binary")
    x = build.input("x", SHAPE)
    a = conv(build, x, 5)
    if with_constant:
        b = build.constant("c", Constant(np.linspace(-1.0, 2.0, 5).reshape(1, 1, 1, 5)))
    else:
        b = conv(build, x, 5, "other", 0.3)
    y = build.clamp("relu", build.add("y", kind, [a, b]), clamp, private=True)
    check(build.graph([y]), samples())


def test_moves_hand_on_their_quantisation() -> None:
    build = GraphBuilder("moves")
    x = conv(build, build.input("x", SHAPE), 4)
    y = build.add("pad", OpKind.PAD, [x], attrs=Pad((0, 1, 0, 0), (0, 0, 2, 0)))
    y = build.add("turn", OpKind.TRANSPOSE, [y], attrs=Transpose((0, 2, 1, 3)))
    y = build.add("cut", OpKind.SLICE, [y], attrs=Slice((0, 1, 0, 0), (1, 8, 5, 4), (1, 2, 1, 1)))
    y = build.add("flat", OpKind.RESHAPE, [y], shape=(1, 80))
    quantized = check(build.graph([y]), samples())
    assert len({quantized.tensors[op.output].quant for op in quantized.ops}) == 1


def test_padding_with_a_value_makes_room_for_it() -> None:
    build = GraphBuilder("pad")
    x = conv(build, build.input("x", SHAPE), 4)
    y = build.add("pad", OpKind.PAD, [x], attrs=Pad((0, 1, 1, 0), (0, 1, 1, 0), 9.0))
    check(build.graph([y]), samples())


def test_concat_takes_one_range_where_it_may() -> None:
    build = GraphBuilder("concat")
    x = build.input("x", SHAPE)
    parts = [conv(build, x, 2, f"c{i}", scale) for i, scale in enumerate((1.0, 0.5, 3.0))]
    y = build.add("cat", OpKind.CONCAT, parts, attrs=Concat(3))
    quantized = check(build.graph([y]), samples())
    assert [op.kind for op in quantized.ops].count(OpKind.TABLE) == 0
    assert len({quantized.tensors[name].quant for name in (*parts, y)}) == 1


def test_concat_looks_up_what_others_read_too() -> None:
    build = GraphBuilder("concat")
    x = build.input("x", SHAPE)
    small = conv(build, x, 2, "small", 0.1)
    large = conv(build, x, 2, "large", 5.0)
    soft = build.add("soft", OpKind.SOFTMAX, [small])
    y = build.add("cat", OpKind.CONCAT, [small, large, soft], attrs=Concat(3))
    quantized = check(build.graph([y]), samples())
    tables = [op for op in quantized.ops if op.kind is OpKind.TABLE]
    assert [op.inputs[0] for op in tables] == [small, soft]
    small_quant, large_quant = (quantized.tensors[n].quant for n in (small, large))
    assert small_quant is not None and large_quant is not None
    assert small_quant.scale < large_quant.scale / 5.0


def test_concat_of_probabilities_stays_fixed() -> None:
    build = GraphBuilder("concat")
    x = build.input("x", SHAPE)
    parts = [build.add(f"s{i}", OpKind.SOFTMAX, [conv(build, x, 3, f"c{i}")]) for i in range(2)]
    y = build.add("cat", OpKind.CONCAT, parts, attrs=Concat(3))
    quantized = check(build.graph([y]), samples())
    assert {op.kind for op in quantized.ops} == {OpKind.CONV2D, OpKind.SOFTMAX, OpKind.CONCAT}


@pytest.mark.parametrize("axes", [(1, 2), (1,), (3,)])
def test_means(axes: tuple[int, ...]) -> None:
    build = GraphBuilder("mean")
    x = conv(build, build.input("x", SHAPE), 4)
    y = build.add("mean", OpKind.MEAN, [x], attrs=Mean(axes, keep=True))
    check(build.graph([y]), samples())


def test_grouped_convolution() -> None:
    build = GraphBuilder("groups")
    rng = np.random.default_rng(1)
    x = build.input("x", (1, 5, 5, 6))
    y = build.add(
        "g",
        OpKind.CONV2D,
        [x],
        window=Window((3, 3), pads=(1, 1, 1, 1)),
        weights=rng.normal(size=(4, 3, 3, 3)),
        bias=rng.normal(size=4),
        groups=2,
    )
    check(build.graph([y]), samples(shape=(1, 5, 5, 6)))


def test_embedding_of_indices() -> None:
    build = GraphBuilder("words")
    rng = np.random.default_rng(2)
    index = build.input("x", (1, 7), DType.INT32)
    table = build.constant("table", Constant(rng.normal(size=(11, 4))))
    words = build.add("look", OpKind.EMBEDDING, [index, table])
    y = build.add(
        "head",
        OpKind.FULLY_CONNECTED,
        [build.add("flat", OpKind.RESHAPE, [words], shape=(1, 28))],
        weights=rng.normal(size=(3, 28)),
    )
    x = {"x": rng.integers(0, 11, (30, 7)).astype(np.int32)}
    quantized = check(build.graph([y]), x)
    assert quantized.tensors["x"].dtype is DType.INT32


def test_inputs_and_outputs_may_stay_float32() -> None:
    build = GraphBuilder("io")
    y = build.add("soft", OpKind.SOFTMAX, [conv(build, build.input("x", SHAPE), 4)])
    quantized = check(build.graph([y]), samples(), float_io=True)
    assert quantized.tensors["x"].dtype is quantized.tensors[y].dtype is DType.FLOAT32
    kinds = [op.kind for op in quantized.ops]
    assert kinds == [OpKind.QUANTIZE, OpKind.CONV2D, OpKind.SOFTMAX, OpKind.DEQUANTIZE]


def test_an_operator_kept_in_float_is_an_island() -> None:
    build = GraphBuilder("island")
    x = conv(build, build.input("x", SHAPE), 4)
    middle = build.add("exp", OpKind.UNARY, [x], attrs=Unary(UnaryKind.TANH))
    y = conv(build, middle, 3, "last")
    quantized = check(build.graph([y]), samples(), keep_float=frozenset({"exp"}))
    kinds = [op.kind for op in quantized.ops]
    assert kinds == [
        OpKind.CONV2D,
        OpKind.DEQUANTIZE,
        OpKind.UNARY,
        OpKind.QUANTIZE,
        OpKind.CONV2D,
    ]
    with pytest.raises(UsageError, match="keep_float: nobody is no operator"):
        quantize_graph(
            build.graph([y]), samples(), options=QuantizeOptions(keep_float=frozenset({"nobody"}))
        )


def test_a_softmax_too_wide_for_int8_stays_float() -> None:
    build = GraphBuilder("wide")
    x = build.input("x", (1, 4200))
    y = build.add("soft", OpKind.SOFTMAX, [x])
    quantized = quantize_graph(build.graph([y]), samples(4, (1, 4200))).graph
    assert [op.kind for op in quantized.ops] == [OpKind.DEQUANTIZE, OpKind.SOFTMAX]
    assert quantized.tensors[y].dtype is DType.FLOAT32


def test_several_inputs_and_outputs() -> None:
    build = GraphBuilder("several")
    x, z = build.input("x", SHAPE), build.input("z", SHAPE)
    total = build.add("sum", OpKind.ADD, [conv(build, x, 3), z])
    part = build.add("cut", OpKind.SLICE, [total], attrs=Slice((0,) * 4, (1, 2, 6, 3), (1,) * 4))
    given = {**samples(), "z": samples(seed=5)["x"] * 7.0}
    check(build.graph([total, part]), given)


def test_layer_errors_tell_where_precision_is_lost() -> None:
    build = GraphBuilder("report")
    x = conv(build, build.input("x", SHAPE), 4)
    y = build.add("square", OpKind.MUL, [x, x])
    graph = build.graph([y])
    done = quantize_graph(graph, samples())
    layers = layer_errors(done.reference, done.graph, samples())
    assert [layer.name for layer in layers] == ["conv", "square"]
    made = run(done.graph, given_to(done.graph, samples()))[y]
    quant = done.graph.tensors[y].quant
    assert quant is not None
    off = quant.dequantize(made).astype(np.float64) - run(graph, samples())[y]
    assert layers[1].max_error == pytest.approx(np.abs(off).max(), rel=1e-5)
    assert layers[1].max_steps == pytest.approx(np.abs(off).max() / quant.scale, rel=1e-5)
    assert layers[1].sqnr_db is not None and 20.0 < layers[1].sqnr_db < 60.0
    assert output_error(graph, done.graph, samples()) < 0.01
