"""Small .onnx models made by hand: each operator, quantised pairs, and the forms of QOperator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
_ELEMENTS = {
    "float32": TensorProto.FLOAT,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int64": TensorProto.INT64,
}
Shape = Sequence[int | str | None]


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Sequence[str],
    constants: Mapping[str, Any] | None = None,
    *,
    dtypes: Mapping[str, str] | None = None,
    opset: int = OPSET,
) -> bytes:
    """A file's bytes; inputs are float32 where `dtypes` does not say otherwise."""
    kinds = dtypes or {}
    given = [
        helper.make_tensor_value_info(n, _ELEMENTS[kinds.get(n, "float32")], list(s))
        for n, s in inputs.items()
    ]
    made = [onnx.ValueInfoProto(name=name) for name in outputs]
    held = [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "small", given, made, held)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString()


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """`inputs` and `outputs` are names with spaces between; - is an absent input."""
    names = ["" if n == "-" else n for n in inputs.split()]
    domain = "com.microsoft" if operator in MICROSOFT else ""
    return helper.make_node(
        operator, names, outputs.split(), name=f"{operator}_{outputs}", domain=domain, **attributes
    )


MICROSOFT = {
    "QLinearAdd",
    "QLinearMul",
    "QLinearConcat",
    "QLinearSigmoid",
    "QLinearLeakyRelu",
    "QLinearAveragePool",
    "QLinearGlobalAveragePool",
    "QLinearSoftmax",
    "QGemm",
}


class Quantiser:
    """Nodes and constants of a QDQ model, grown value by value."""

    def __init__(self, rng: np.random.Generator, dtype: str = "int8") -> None:
        self.rng, self.dtype = rng, dtype
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Any] = {}

    def zero(self, value: int) -> np.generic:
        """A zero point, given as int8's."""
        return np.uint8(value + 128) if self.dtype == "uint8" else np.int8(value)

    def pair(self, name: str, scale: float, zero: int) -> str:
        """The value behind a Q and a DQ."""
        self.constants |= {f"{name}_s": np.float32(scale), f"{name}_z": self.zero(zero)}
        self.nodes += [
            node("QuantizeLinear", f"{name} {name}_s {name}_z", f"{name}_q"),
            node("DequantizeLinear", f"{name}_q {name}_s {name}_z", f"{name}_d"),
        ]
        return f"{name}_d"

    def weights(
        self, name: str, shape: tuple[int, ...], *, axis: int | None, kind: str = "int8"
    ) -> str:
        """int8 or uint8 weights behind a DQ: a scale for each entry of `axis`, or one."""
        rng = self.rng
        if kind == "int8":
            w, zero = rng.integers(-127, 128, shape).astype(np.int8), np.int8(0)
        else:
            w, zero = rng.integers(0, 256, shape).astype(np.uint8), np.uint8(119)
        count = 1 if axis is None else shape[axis]
        scale = rng.uniform(0.002, 0.02, count).astype(np.float32)
        self.constants[f"{name}_q"] = w
        if axis is None:
            self.constants |= {f"{name}_s": scale[0], f"{name}_z": zero}
            more = {}
        else:
            self.constants |= {f"{name}_s": scale, f"{name}_z": np.full(count, zero)}
            more = {"axis": axis}
        self.nodes.append(
            node("DequantizeLinear", f"{name}_q {name}_s {name}_z", f"{name}_d", **more)
        )
        return f"{name}_d"

    def bias(self, name: str, weights: str, x: str, size: int) -> str:
        """int32 at the product of the scales of x and of the weights."""
        scale = np.float32(self.constants[f"{x}_s"]) * self.constants[f"{weights}_s"]
        self.constants[f"{name}_q"] = self.rng.integers(-400, 400, size).astype(np.int32)
        self.constants[f"{name}_s"] = scale
        self.constants[f"{name}_z"] = np.zeros(np.shape(scale), np.int32)
        more = {} if np.ndim(scale) == 0 else {"axis": 0}
        self.nodes.append(
            node("DequantizeLinear", f"{name}_q {name}_s {name}_z", f"{name}_d", **more)
        )
        return f"{name}_d"


def float_network() -> bytes:
    """A picture through convolutions, a branch, pools, shape arithmetic and a dense layer."""
    rng = np.random.default_rng(1)

    def r(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) * 0.4).astype(np.float32)

    nodes = [
        node("Conv", "x w0 b0", "c0", pads=[1, 1, 1, 1], strides=[2, 2], kernel_shape=[3, 3]),
        node("BatchNormalization", "c0 g be m v", "n0"),
        node("Relu", "n0", "r0"),
        node("Conv", "r0 w1 -", "c1", group=6, auto_pad="SAME_UPPER"),
        node("Clip", "c1 lo hi", "r1"),
        node("Add", "r1 r0", "a"),
        node("MaxPool", "a", "p", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("Concat", "p p", "cc", axis=1),
        node("LeakyRelu", "cc", "l", alpha=0.1),
        node("Transpose", "l", "t", perm=[0, 2, 3, 1]),
        node("Shape", "t", "sh"),
        node("Gather", "sh zero", "n"),
        node("Unsqueeze", "n axes", "nu"),
        node("Concat", "nu minus", "target", axis=0),
        node("Reshape", "t target", "f"),
        node("Gemm", "f w2 b2", "y", transB=1),
        node("Softmax", "y", "out", axis=-1),
    ]
    constants = {
        "w0": r(6, 3, 3, 3),
        "b0": r(6),
        "g": r(6) + 1,
        "be": r(6),
        "m": r(6),
        "v": np.abs(r(6)) + 0.5,
        "w1": r(6, 1, 3, 3),
        "lo": np.float32(0),
        "hi": np.float32(6),
        "zero": np.int64(0),
        "axes": np.array([0], np.int64),
        "minus": np.array([-1], np.int64),
        "w2": r(5, 108),
        "b2": r(5),
    }
    return model(nodes, {"x": ("N", 3, 12, 12)}, ["out"], constants)


def qdq_network(dtype: str = "uint8", *, axis: int | None = 0, weights: str = "int8") -> bytes:
    """A residual block and a dense head, each value behind its Q and DQ."""
    q = Quantiser(np.random.default_rng(2), dtype)
    x = q.pair("x", 0.03, -5)
    w, b = q.weights("w", (8, 4, 3, 3), axis=axis, kind=weights), ""
    b = q.bias("b", "w", "x", 8)
    q.nodes += [node("Conv", f"{x} {w} {b}", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "r")]
    y = q.pair("r", 0.05, -128)
    w = q.weights("v", (8, 1, 3, 3), axis=axis, kind=weights)
    q.nodes.append(node("Conv", f"{y} {w}", "d", pads=[1, 1, 1, 1], group=8))
    z = q.pair("d", 0.06, 3)
    q.nodes.append(node("Add", f"{y} {z}", "a"))
    a = q.pair("a", 0.08, -20)
    q.nodes.append(node("Sigmoid", a, "s"))
    s = q.pair("s", 1 / 256, -128)
    q.nodes.append(node("Mul", f"{a} {s}", "m"))
    m = q.pair("m", 0.07, -60)
    q.nodes.append(node("GlobalAveragePool", m, "g"))
    g = q.pair("g", 0.04, -40)
    q.nodes.append(node("Flatten", g, "f"))
    w = q.weights("u", (5, 8), axis=axis, kind=weights)
    q.nodes.append(node("Gemm", f"f {w}", "y", transB=1))
    y = q.pair("y", 0.05, 0)
    q.nodes.append(node("Softmax", y, "p", axis=-1))
    out = q.pair("p", 1 / 255, -128)
    return model(q.nodes, {"x": (1, 4, 6, 6)}, [out], q.constants)


def qoperator_network() -> bytes:
    """uint8 values between integer operators, int8 weights."""
    rng = np.random.default_rng(3)

    def w(*shape: int) -> np.ndarray:
        return rng.integers(-127, 128, shape).astype(np.int8)

    zero = np.uint8(120)
    constants = {
        "s": np.float32(0.03),
        "z": zero,
        "w": w(6, 3, 3, 3),
        "ws": rng.uniform(0.004, 0.01, 6).astype(np.float32),
        "wz": np.zeros(6, np.int8),
        "b": rng.integers(-300, 300, 6).astype(np.int32),
        "s1": np.float32(0.05),
        "s2": np.float32(0.04),
        "m": w(6, 4),
        "ms": np.float32(0.01),
        "mz": np.int8(0),
        "k": rng.integers(0, 255, 4).astype(np.uint8),
    }
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("QLinearConv", "q s z w ws wz s1 z b", "c", pads=[1, 1, 1, 1]),
        node("MaxPool", "c", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("QLinearLeakyRelu", "p s1 z s1 z", "l", alpha=0.2),
        node("QLinearAdd", "p s1 z l s1 z s1 z", "a"),
        node("QLinearAveragePool", "a s1 z s2 z", "v", kernel_shape=[2, 2], strides=[1, 1]),
        node("QLinearGlobalAveragePool", "v s2 z s2 z", "g"),
        node("Flatten", "g", "f"),
        node("QLinearMatMul", "f s2 z m ms mz s1 z", "y"),
        node("QLinearAdd", "y s1 z k s2 z s1 z", "o"),
        node("DequantizeLinear", "o s1 z", "out"),
    ]
    return model(nodes, {"x": (1, 3, 8, 8)}, ["out"], constants)


def words_network() -> bytes:
    """Indices into a table, a mean over time, a dense layer."""
    rng = np.random.default_rng(4)
    constants = {
        "table": rng.normal(size=(11, 6)).astype(np.float32),
        "w": rng.normal(size=(6, 3)).astype(np.float32),
        "b": rng.normal(size=3).astype(np.float32),
    }
    nodes = [
        node("Gather", "table i", "e"),
        node("ReduceMean", "e", "m", axes=[1], keepdims=0),
        node("MatMul", "m w", "y"),
        node("Add", "y b", "out"),
    ]
    return model(nodes, {"i": (1, 7)}, ["out"], constants, dtypes={"i": "int64"})


def networks() -> dict[str, bytes]:
    """All of them, by name."""
    return {
        "float": float_network(),
        "qdq int8": qdq_network("int8"),
        "qdq uint8, one scale": qdq_network("uint8", axis=None),
        "qdq uint8 weights": qdq_network("uint8", axis=None, weights="uint8"),
        "qoperator": qoperator_network(),
        "words": words_network(),
    }
