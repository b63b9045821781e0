"""The bytes of an .onnx file as plain data: nodes with their attributes, constants as arrays.

The protobuf's parser keeps to the bytes it is given; everything it found is checked here before it
is used: counts against lengths, types against what can be read, and no file beside this one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fieldloop.errors import FieldloopError
from fieldloop.frontends.builder import UnsupportedModelError, unsupported
from fieldloop.ir.tensor import Array

OPSETS = range(1, 27)
MAX_CONSTANT = 2**28  # elements of one constant

# TensorProto's types: numpy's, and the field that holds elements that are not raw.
_TYPES: dict[int, tuple[str, str]] = {
    1: ("float32", "float_data"),
    2: ("uint8", "int32_data"),
    3: ("int8", "int32_data"),
    5: ("int16", "int32_data"),
    6: ("int32", "int32_data"),
    7: ("int64", "int64_data"),
    9: ("bool", "int32_data"),
    10: ("float16", "int32_data"),
    11: ("float64", "double_data"),
}
DTYPES = {code: name for code, (name, _) in _TYPES.items()}


@dataclass(frozen=True, slots=True)
class Unread:
    """An attribute of a kind that no supported operator has: a graph, a sparse tensor."""

    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator. An absent optional input is ""."""

    name: str
    operator: str
    domain: str  # "" for ONNX's own
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Declared:
    """An input of the model; a dimension that is not a number is None."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True, eq=False)
class OnnxFile:
    """What the frontend reads of a model."""

    name: str
    opset: int
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    inputs: tuple[Declared, ...]
    outputs: tuple[str, ...]


def read_file(data: bytes) -> OnnxFile:
    """The parts of an .onnx file; UnsupportedModelError where they cannot be used."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise FieldloopError(
            f"onnx is needed to read .onnx files: {error}; pip install onnx"
        ) from (error)
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise UnsupportedModelError(
            f"model: not an ONNX file ({len(data)} bytes that do not parse); expected .onnx"
        ) from error
    if not model.graph.node:
        raise UnsupportedModelError("model: no nodes; expected an .onnx file with a graph")
    if model.functions:
        raise UnsupportedModelError(
            f"model: {len(model.functions)} functions of its own; inline them with "
            "onnx.inliner.inline_local_functions"
        )
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset not in OPSETS:
        raise UnsupportedModelError(
            f"model: opset {opset}; expected {OPSETS.start} to {OPSETS.stop - 1}, convert it with "
            "onnx.version_converter"
        )
    graph = model.graph
    if graph.sparse_initializer:
        raise UnsupportedModelError("model: sparse constants; store them densely")
    constants = {_text(t.name): array_of(t, _text(t.name)) for t in graph.initializer}
    nodes = tuple(_node(n, i) for i, n in enumerate(graph.node))
    inputs = tuple(_declared(v) for v in graph.input if _text(v.name) not in constants)
    outputs = tuple(_text(v.name) for v in graph.output)
    return OnnxFile(_text(graph.name) or "onnx", opset, nodes, constants, inputs, outputs)


def _text(name: str | bytes) -> str:
    """A name that fits in a line; one that is not UTF-8 comes as bytes."""
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    return "".join(c if c.isprintable() else "?" for c in text)


def array_of(tensor: Any, what: str) -> Array:
    """A TensorProto's elements."""

    def refuse(why: str, instead: str) -> UnsupportedModelError:
        return unsupported(f"constant {what!r}", "tensor", why, instead)

    if tensor.data_location == 1 or tensor.external_data:
        raise refuse(
            "its data lie in another file",
            "save the model as one file, onnx.save(..., save_as_external_data=False)",
        )
    if tensor.data_type not in _TYPES:
        raise refuse(
            f"elements of type {tensor.data_type}",
            "expected float, double, float16, bool or integers of 8 to 64 bits",
        )
    dtype, field = _TYPES[tensor.data_type]
    shape = tuple(int(n) for n in tensor.dims)
    if any(n < 0 for n in shape) or math.prod(shape) > MAX_CONSTANT or len(shape) > 8:
        raise refuse(f"shape {shape}", f"expected at most {MAX_CONSTANT} elements")
    count = math.prod(shape)
    if tensor.raw_data or not getattr(tensor, field):
        have = len(tensor.raw_data) // np.dtype(dtype).itemsize
        if len(tensor.raw_data) != count * np.dtype(dtype).itemsize:
            raise refuse(f"{have} elements for shape {shape}", f"expected {count}: damaged?")
        array = np.frombuffer(tensor.raw_data, np.dtype(dtype).newbyteorder("<"))
        return array.astype(dtype).reshape(shape)
    held = getattr(tensor, field)
    if len(held) != count:
        raise refuse(f"{len(held)} elements for shape {shape}", f"expected {count}: damaged?")
    if dtype == "float16":  # the bits of each
        return np.array(held, np.int64).astype(np.uint16).view(np.float16).reshape(shape)
    wide = np.array(held, "float64" if field == "double_data" else None)
    return wide.astype(dtype).reshape(shape)


def _node(node: Any, place: int) -> Node:
    domain, operator = _text(node.domain), _text(node.op_type)
    name = _text(node.name) or f"{operator}_{place}"
    attributes = {_text(a.name): _attribute(a, name) for a in node.attribute}
    return Node(
        name,
        operator,
        "" if domain == "ai.onnx" else domain,
        tuple(_text(n) for n in node.input),
        tuple(_text(n) for n in node.output),
        attributes,
    )


def _attribute(attribute: Any, what: str) -> Any:
    kind = attribute.type
    if kind == 1:
        return float(attribute.f)
    if kind == 2:
        return int(attribute.i)
    if kind == 3:
        return _text(attribute.s)
    if kind == 4:
        return array_of(attribute.t, what)
    if kind == 6:
        return tuple(float(v) for v in attribute.floats)
    if kind == 7:
        return tuple(int(v) for v in attribute.ints)
    return Unread(str(kind))


def _declared(value: Any) -> Declared:
    kind = value.type.tensor_type
    dtype = DTYPES.get(kind.elem_type, f"type {kind.elem_type}")
    if not kind.HasField("shape"):
        return Declared(_text(value.name), dtype, None)
    shape = tuple(
        int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None
        for d in kind.shape.dim
    )
    return Declared(_text(value.name), dtype, shape)
