"""ONNX files and the graphs they become compute the same; what cannot be is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_models import Quantiser, model, networks, node  # noqa: E402
from onnx_values import check  # noqa: E402

from fieldloop.frontends.builder import UnsupportedModelError  # noqa: E402
from fieldloop.frontends.onnx_frontend import read_onnx  # noqa: E402
from fieldloop.ir.graph import Graph  # noqa: E402
from fieldloop.ir.op import OpKind  # noqa: E402
from fieldloop.ir.reference import run  # noqa: E402
from fieldloop.ir.tensor import DType  # noqa: E402
from fuzz_onnx import fuzz  # noqa: E402

RNG = np.random.default_rng(0)


def reals(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def kinds(graph: Graph) -> list[str]:
    return [op.kind.value for op in graph.ops]


def one(
    operator: str, shape: tuple[int, ...], *constants: Any, opset: int = 17, **attributes: Any
) -> bytes:
    """A model of one operator; its constants follow x in order, None is an absent one."""
    names = [f"k{i}" if c is not None else "-" for i, c in enumerate(constants)]
    held = {f"k{i}": c for i, c in enumerate(constants) if c is not None}
    outputs = " ".join(f"y{i}" for i in range(attributes.pop("outputs", 1)))
    made = node(operator, " ".join(["x", *names]), outputs, **attributes)
    return model([made], {"x": shape}, outputs.split(), held, opset=opset)


PICTURE, SIGNAL = (1, 4, 7, 8), (1, 4, 16)
SINGLE = {
    "conv": one("Conv", PICTURE, reals(6, 4, 3, 2), reals(6), pads=[1, 0, 2, 1], strides=[2, 1]),
    "conv, no bias": one("Conv", PICTURE, reals(6, 4, 3, 3), dilations=[2, 1]),
    "conv, groups": one("Conv", PICTURE, reals(6, 2, 3, 3), group=2),
    "conv, depthwise": one("Conv", PICTURE, reals(8, 1, 3, 3), reals(8), group=4),
    "conv, same upper": one("Conv", PICTURE, reals(6, 4, 4, 2), auto_pad="SAME_UPPER"),
    "conv, same lower": one("Conv", PICTURE, reals(6, 4, 4, 2), auto_pad="SAME_LOWER"),
    "conv, valid": one("Conv", PICTURE, reals(6, 4, 4, 2), auto_pad="VALID", strides=[3, 2]),
    "conv 1-D": one("Conv", SIGNAL, reals(5, 4, 3), reals(5), pads=[2, 1], strides=[2]),
    "conv 1-D, depthwise": one("Conv", SIGNAL, reals(4, 1, 5), group=4, dilations=[2]),
    "batch norm": one(
        "BatchNormalization", PICTURE, reals(4), reals(4), reals(4), np.abs(reals(4)) + 0.1
    ),
    "batch norm 2-D": one(
        "BatchNormalization", (1, 4), reals(4), reals(4), reals(4), np.abs(reals(4)) + 0.1
    ),
    "gemm": one("Gemm", (1, 6), reals(5, 6), reals(5), transB=1, alpha=0.5, beta=2.0),
    "gemm, row": one("Gemm", (1, 6), reals(6, 5), reals(1, 5)),
    "matmul": one("MatMul", (1, 6), reals(6, 5)),
    "matmul on rows": one("MatMul", (1, 3, 6), reals(6, 5)),
    "matmul on a picture": one("MatMul", PICTURE, reals(8, 5)),
    "max pool": one("MaxPool", PICTURE, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
    "max pool, ceil": one("MaxPool", PICTURE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "max pool 1-D": one("MaxPool", SIGNAL, kernel_shape=[3], strides=[2]),
    "average pool": one("AveragePool", PICTURE, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average pool, pads count": one(
        "AveragePool", PICTURE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "average pool, ceil": one(
        "AveragePool", PICTURE, kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1, opset=19
    ),
    "average pool, same": one(
        "AveragePool", PICTURE, kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    "global average pool": one("GlobalAveragePool", PICTURE),
    "global average pool 1-D": one("GlobalAveragePool", SIGNAL),
    "global max pool": one("GlobalMaxPool", PICTURE),
    "mean": one("ReduceMean", PICTURE, axes=[2, 3], keepdims=0),
    "mean, axes an input": one("ReduceMean", PICTURE, ints(-1, 1), opset=18, keepdims=1),
    "mean of all": one("ReduceMean", PICTURE),
    "largest": one("ReduceMax", PICTURE, axes=[2, 3]),
    "relu": one("Relu", (1, 9)),
    "clip": one("Clip", PICTURE, np.float32(-0.5), np.float32(0.75)),
    "clip, no end": one("Clip", PICTURE, None, np.float32(0.75)),
    "clip, opset 9": one("Clip", PICTURE, opset=9, min=0.0, max=1.5),
    "leaky relu": one("LeakyRelu", PICTURE, alpha=0.2),
    "prelu": one("PRelu", PICTURE, np.full((4, 1, 1), 0.3, np.float32)),
    "sigmoid": one("Sigmoid", PICTURE),
    "tanh": one("Tanh", (1, 9)),
    "hard swish": one("HardSwish", PICTURE),
    "hard sigmoid": one("HardSigmoid", PICTURE, alpha=0.3, beta=0.4),
    "elu": one("Elu", PICTURE, alpha=0.7),
    "exp": one("Exp", (1, 9)),
    "abs": one("Abs", (1, 9)),
    "neg": one("Neg", (1, 9)),
    "square": one("Pow", (1, 9), np.float32(2.0)),
    "add a row": one("Add", PICTURE, reals(8)),
    "add channels": one("Add", PICTURE, reals(4, 1, 1)),
    "sub": one("Sub", PICTURE, reals(7, 1)),
    "mul": one("Mul", SIGNAL, reals(1, 4, 1)),
    "div": one("Div", PICTURE, np.float32(3.0)),
    "min": one("Min", PICTURE, np.float32(0.1), reals(8)),
    "max": one("Max", PICTURE, reals(4, 1, 1)),
    "pad": one("Pad", PICTURE, ints(0, 0, 1, 2, 0, 1, 0, 3), np.float32(0.5)),
    "pad, opset 10": one("Pad", PICTURE, opset=10, pads=[0, 0, 1, 0, 0, 0, 0, 2], value=-1.0),
    "pad, some axes": one("Pad", PICTURE, ints(1, 2), None, ints(3), opset=18),
    "reshape": one("Reshape", PICTURE, ints(0, 2, -1)),
    "flatten": one("Flatten", PICTURE),
    "flatten later": one("Flatten", PICTURE, axis=2),
    "squeeze": one("Squeeze", (1, 4, 1, 6), ints(2)),
    "squeeze, opset 11": one("Squeeze", (1, 4, 1, 6), opset=11, axes=[-2]),
    "unsqueeze": one("Unsqueeze", (1, 5), ints(1, -1)),
    "transpose": one("Transpose", PICTURE, perm=[0, 3, 1, 2]),
    "transpose 3-D": one("Transpose", SIGNAL, perm=[0, 2, 1]),
    "slice": one("Slice", PICTURE, ints(1, -5), ints(3, 100), ints(1, 3), ints(1, 2)),
    "slice, opset 9": one("Slice", PICTURE, opset=9, starts=[1], ends=[-1], axes=[2]),
    "split": one("Split", PICTURE, axis=1, outputs=2),
    "split, sizes": one("Split", PICTURE, ints(1, 3), axis=1, outputs=2),
    "gather one": one("Gather", PICTURE, np.array(2), axis=1),
    "gather several": one("Gather", PICTURE, ints(1, 2), axis=2),
    "tile": one("Tile", PICTURE, ints(1, 2, 1, 1)),
    "softmax": one("Softmax", (1, 7)),
    "softmax of channels": one("Softmax", PICTURE, axis=1),
    "softmax, opset 11": one("Softmax", (1, 4, 1, 5), opset=11, axis=1),
    "identity": one("Identity", (1, 7)),
    "reshape, opset 1": model(
        [node("Reshape", "x", "y", shape=[1, 2, 3])], {"x": (1, 6)}, ["y"], opset=1
    ),
    "dropout": one("Dropout", (1, 7)),
    "cast": one("Cast", (1, 7), to=1),
    "depth to space": one("DepthToSpace", PICTURE, blocksize=2),
    "depth to space, crd": one("DepthToSpace", PICTURE, blocksize=2, mode="CRD"),
    "space to depth": one("SpaceToDepth", (1, 3, 4, 6), blocksize=2),
}


@pytest.mark.parametrize("name", SINGLE)
def test_single_operators(name: str) -> None:
    check(SINGLE[name])


def test_channels_broadcast_by_an_axis_before_opset_7() -> None:
    row = reals(4)
    data = one("Add", PICTURE, row, opset=6, axis=1, broadcast=1)
    graph = read_onnx(data).graph
    x = reals(*PICTURE)
    (got,) = run(graph, {"x": x.transpose(0, 2, 3, 1)}).values()
    wanted = (x + row[:, None, None]).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)  # onnxruntime has no such operator


@pytest.mark.parametrize("name", networks())
def test_networks(name: str) -> None:
    check(networks()[name], samples=4)


def test_shape_arithmetic_and_a_channels_last_flatten_cost_nothing() -> None:
    graph = read_onnx(networks()["float"]).graph
    assert "transpose" not in kinds(graph)
    assert "reshape" not in kinds(graph)


def test_an_input_that_is_transposed_first_is_taken_as_it_is() -> None:
    nodes = [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Conv", "t w", "y")]
    imported = check(model(nodes, {"x": (1, 6, 5, 3)}, ["y"], {"w": reals(4, 3, 3, 3)}))
    assert kinds(imported.graph) == ["conv2d"]
    assert imported.values["x"].axes is None


# ---- quantised models


def between_pairs(operator: str, *, dtype: str, count: int, more: str, **attributes: Any) -> bytes:
    """An operator whose inputs and output lie behind Q and DQ, each of its own scale."""
    q = Quantiser(np.random.default_rng(7), dtype)
    inputs = {f"x{i}": (1, 4, 6, 6) for i in range(count)}
    read = [q.pair(name, 0.02 + 0.015 * i, 10 - 30 * i) for i, name in enumerate(inputs)]
    q.constants["one"] = ints(1)
    q.nodes.append(node(operator, " ".join([*read, more]), "y", **attributes))
    out = q.pair("y", 0.021, -7)
    return model(q.nodes, inputs, [out], q.constants, opset=19)


# Operator, its computed inputs, a constant one, attributes, and what it becomes.
QUANTISED: dict[str, tuple[str, int, str, dict[str, Any], str]] = {
    "relu": ("Relu", 1, "", {}, "table"),
    "leaky relu": ("LeakyRelu", 1, "", {"alpha": 0.3}, "table"),
    "sigmoid": ("Sigmoid", 1, "", {}, "table"),
    "hard swish": ("HardSwish", 1, "", {}, "table"),
    "identity between scales": ("Identity", 1, "", {}, "table"),
    "max pool": ("MaxPool", 1, "", {"kernel_shape": [2, 2]}, "max_pool"),
    "average pool": ("AveragePool", 1, "", {"kernel_shape": [2, 3]}, "depthwise_conv2d"),
    "average pool, padded": (
        "AveragePool",
        1,
        "",
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        "avg_pool",
    ),
    "global average pool": ("GlobalAveragePool", 1, "", {}, "mean"),
    "mean of channels": ("ReduceMean", 1, "one", {}, "mean"),
    "transpose": ("Transpose", 1, "", {"perm": [0, 2, 1, 3]}, "table"),
    "add": ("Add", 2, "", {}, "add"),
    "sub": ("Sub", 2, "", {}, "sub"),
    "mul": ("Mul", 2, "", {}, "mul"),
    "min": ("Min", 2, "", {}, "minimum"),
    "max": ("Max", 2, "", {}, "maximum"),
    "concat": ("Concat", 3, "", {"axis": 1}, "concat"),
}


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", QUANTISED)
def test_operators_between_pairs_become_int8(name: str, dtype: str) -> None:
    operator, count, more, attributes, kind = QUANTISED[name]
    data = between_pairs(operator, dtype=dtype, count=count, more=more, **attributes)
    imported = check(data, samples=3)
    assert kind in kinds(imported.graph)
    assert imported.notes == ()
    assert imported.values["y_q"].offset == (-128 if dtype == "uint8" else 0)


def test_a_softmax_finer_than_the_devices_stays_float() -> None:
    q = Quantiser(np.random.default_rng(0))
    x = q.pair("x", 0.1, 0)
    q.nodes.append(node("Softmax", x, "y"))
    imported = check(model(q.nodes, {"x": (1, 9)}, [q.pair("y", 0.001, -128)], q.constants))
    assert kinds(imported.graph) == ["quantize", "dequantize", "softmax", "quantize", "dequantize"]
    assert "1 operators" in imported.notes[0]


def test_float_weights_between_quantised_values_stay_float() -> None:
    q = Quantiser(np.random.default_rng(0))
    x = q.pair("x", 0.1, 0)
    q.constants["w"] = reals(4, 3)
    q.nodes.append(node("MatMul", f"{x} w", "y"))
    imported = check(model(q.nodes, {"x": (1, 4)}, [q.pair("y", 0.1, 0)], q.constants))
    dense = next(op for op in imported.graph.ops if op.kind is OpKind.FULLY_CONNECTED)
    assert imported.graph.tensors[dense.output].dtype is DType.FLOAT32


def test_integer_inputs_and_outputs_stay_integers() -> None:
    q = Quantiser(np.random.default_rng(0), "uint8")
    q.constants |= {"s": np.float32(0.05), "z": np.uint8(100), "t": np.float32(0.2)}
    q.nodes.append(node("DequantizeLinear", "x s z", "xd"))
    w = q.weights("w", (5, 6), axis=0)
    q.nodes += [
        node("Gemm", f"xd {w}", "y", transB=1),
        node("QuantizeLinear", "y t z", "out"),
    ]
    data = model(q.nodes, {"x": (1, 6)}, ["out"], q.constants, dtypes={"x": "uint8"})
    imported = check(data)
    assert kinds(imported.graph) == ["fully_connected"]
    assert imported.values["x"].dtype == imported.values["out"].dtype == "uint8"
    assert imported.graph.tensors["x"].quant.zero_point == 100 - 128


def test_a_constant_that_is_quantised_again() -> None:
    """onnxruntime's tool does so to weights that two operators share."""
    q = Quantiser(np.random.default_rng(0))
    x = q.pair("x", 0.05, 0)
    first = q.weights("w", (4, 4), axis=None)
    q.constants |= {"s": np.float32(0.02), "z": np.int8(0)}
    q.nodes += [
        node("Gemm", f"{x} {first}", "a", transB=1),
        node("Identity", first, "same"),
        node("QuantizeLinear", "same s z", "wq"),
        node("DequantizeLinear", "wq s z", "wd"),
    ]
    q.nodes.append(node("Gemm", f"{q.pair('a', 0.1, 0)} wd", "b", transB=1))
    imported = check(model(q.nodes, {"x": (1, 4)}, [q.pair("b", 0.1, 0)], q.constants))
    assert kinds(imported.graph).count("fully_connected") == 2


def test_an_embedding_of_quantised_rows() -> None:
    q = Quantiser(np.random.default_rng(0))
    table = q.weights("table", (11, 6), axis=None)
    q.nodes += [node("Gather", f"{table} i", "e"), node("ReduceMean", "e", "m", axes=[1])]
    out = q.pair("m", 0.01, 3)
    imported = check(model(q.nodes, {"i": (1, 5)}, [out], q.constants, dtypes={"i": "int64"}))
    assert kinds(imported.graph) == ["embedding", "mean", "dequantize"]
    assert imported.graph.tensors[imported.graph.ops[0].output].dtype is DType.INT8


# ---- what is refused


def external() -> bytes:
    made = onnx.load_from_string(one("MatMul", (1, 6), reals(6, 5)))
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="weights.bin")
    return made.SerializeToString()


UNSUPPORTED = {
    "not onnx": (b"\x00\x01nonsense", ["not an ONNX file"]),
    "empty": (b"", ["no nodes"]),
    "opset": (one("Relu", (1, 4), opset=90), ["opset 90", "version_converter"]),
    "external": (external(), ["another file", "save the model as one file"]),
    "dynamic": (
        model([node("Relu", "x", "y")], {"x": ("N", 3, "H", 8)}, ["y"]),
        ["'x'", "[None, 3, None, 8]", "make_dynamic_shape_fixed"],
    ),
    "batch": (model([node("Relu", "x", "y")], {"x": (8, 3)}, ["y"]), ["(8, 3)", "batch of 1"]),
    "unknown": (
        model([node("Relu", "x", "a"), node("Erf", "a", "y")], {"x": (1, 4)}, ["y"]),
        ["'Erf_y' (Erf)", "no counterpart", "--outputs a"],
    ),
    "log softmax": (
        model([node("Abs", "x", "a"), node("LogSoftmax", "a", "y")], {"x": (1, 4)}, ["y"]),
        ["LogSoftmax", "--outputs a"],
    ),
    "transposed": (one("ConvTranspose", PICTURE, reals(4, 2, 3, 3)), ["transposed"]),
    "resize": (one("Resize", PICTURE, None, np.ones(4, np.float32)), ["resizing"]),
    "reflect": (one("Pad", PICTURE, ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect"), ["reflect"]),
    "3-D": (one("Conv", (1, 2, 4, 4, 4), reals(3, 2, 2, 2, 2)), ["at most 4 dimensions"]),
    "two values": (
        model([node("MatMul", "x z", "y")], {"x": (1, 4), "z": (4, 3)}, ["y"]),
        ["batch of 1"],
    ),
    "integers": (
        model(
            [node("Gemm", "x w", "y")],
            {"x": (1, 4)},
            ["y"],
            {"w": np.ones((4, 3), np.int8)},
            dtypes={"x": "int8"},
        ),
        ["integers (int8) without a scale", "Q and DQ"],
    ),
    "a scale for each channel": (
        model(
            [node("QuantizeLinear", "x s", "y", axis=1)],
            {"x": (1, 4)},
            ["y"],
            {"s": np.ones(4, np.float32)},
        ),
        ["a scale for each channel"],
    ),
    "int16": (
        model(
            [node("QuantizeLinear", "x s z", "y")],
            {"x": (1, 4)},
            ["y"],
            {"s": np.float32(1), "z": np.int16(0)},
            opset=21,
        ),
        ["int16"],
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_supported_is_named_in_one_line(name: str) -> None:
    data, words = UNSUPPORTED[name]
    with pytest.raises(UnsupportedModelError) as caught:
        read_onnx(data)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_outputs_cut_the_graph() -> None:
    data, _ = UNSUPPORTED["unknown"]
    graph = read_onnx(data, outputs=["a"]).graph
    assert kinds(graph) == ["unary"]
    with pytest.raises(UnsupportedModelError, match="no value is called 'b'; expected one of a"):
        read_onnx(data, outputs=["b"])


def test_mutated_files_end_in_a_graph_or_an_error() -> None:
    ends = fuzz(400, seed=11)
    assert ends["graph"] > 20
    assert ends["UnsupportedModelError"] > 100
