"""A .tflite file as plain data: tensors, nodes, inputs and outputs of its one subgraph."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fieldloop.frontends.builder import UnsupportedModelError
from fieldloop.frontends.tflite.flatbuffer import Table, damaged
from fieldloop.frontends.tflite.names import NUMPY_TYPES, OPERATORS, OPTIONS, TYPES
from fieldloop.ir.tensor import Array

MAX_TENSORS, MAX_NODES, MAX_LINKS = 20_000, 10_000, 1_000
MAX_DIMS, MAX_ELEMENTS = 8, 2**28  # a device has no more


@dataclass(frozen=True, slots=True, eq=False)
class FileTensor:
    """A tensor as the file has it. `data` is None for what operators make and for inputs.

    `label` names it: its name, with its index where another tensor has the same.
    """

    index: int
    label: str
    shape: tuple[int, ...]
    dtype: str
    data: Array | None
    scales: Array  # float32 [0], [1] or one for each channel
    zero_points: Array  # int64, as many
    axis: int
    signature: tuple[int, ...]
    is_variable: bool
    is_sparse: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """An operator. `inputs`: tensor indices, -1 for one that is left out."""

    index: int
    operator: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None
    has_more_options: bool

    def option(self, name: str) -> int:
        """An integer option by its name; its default where the file has none."""
        slot, layout, default = OPTIONS[self.operator][name]
        return default if self.options is None else self.options.number(slot, layout, default)

    def real(self, slot: int, default: float) -> float:
        return default if self.options is None else self.options.real(slot, default)

    def numbers(self, slot: int) -> tuple[int, ...]:
        """An option that is a vector of int32."""
        found = None if self.options is None else self.options.array(slot, "<i4")
        if found is None or len(found) > MAX_DIMS:
            return ()
        return tuple(int(n) for n in found)


@dataclass(frozen=True, slots=True, eq=False)
class ModelFile:
    """The subgraph of a .tflite file; nodes are in the order they run in."""

    tensors: tuple[FileTensor, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_file(data: bytes) -> ModelFile:
    """Parses a .tflite file; UnsupportedModelError says what is wrong with it."""
    if data[4:8] != b"TFL3":
        raise UnsupportedModelError(
            f"expected a .tflite file (TFL3 at byte 4), got {bytes(data[4:8])!r}; "
            "convert the model with TensorFlow Lite's converter"
        )
    model = Table.root(data)
    version = model.number(0, "I")
    if version != 3:
        raise UnsupportedModelError(
            f"expected version 3 of the .tflite format, got {version}; convert the model again"
        )
    subgraphs = model.tables(2, 1_000)
    if len(subgraphs) != 1:
        raise UnsupportedModelError(
            f"expected one subgraph, got {len(subgraphs)}: control flow and several signatures "
            "are not supported; export one function without loops, conditions or variables"
        )
    subgraph = subgraphs[0]
    codes = [_operator(code) for code in model.tables(1, 1_000)]
    buffers = model.tables(4, MAX_TENSORS * 2)
    tables = subgraph.tables(0, MAX_TENSORS)
    labels = _labels([table.text(3) for table in tables])
    tensors = tuple(
        _tensor(i, label, table, buffers, data)
        for i, (label, table) in enumerate(zip(labels, tables, strict=True))
    )
    nodes = tuple(
        _node(i, table, codes, len(tensors))
        for i, table in enumerate(subgraph.tables(3, MAX_NODES))
    )
    ends = [_indices(subgraph, slot, len(tensors), "the model") for slot in (1, 2)]
    if -1 in ends[0] or -1 in ends[1]:
        raise damaged(0, "an input or output of the model is left out")
    return ModelFile(tensors, nodes, ends[0], ends[1])


def cut_file(data: bytes, outputs: Sequence[int]) -> bytes:
    """The same file without the nodes after those that make `outputs`.

    It has as many outputs as before at most, because nothing in it is moved.
    """
    file = read_file(data)
    last = max((n.index for n in file.nodes if set(outputs) & set(n.outputs)), default=-1)
    subgraph = Table.root(data).tables(2, 1)[0]
    nodes, ends = subgraph.vector(3), subgraph.vector(2)
    if nodes is None or ends is None:
        return data
    kept = list(outputs)[: len(file.outputs)]
    made = bytearray(data)
    struct.pack_into("<I", made, nodes, last + 1)
    struct.pack_into(f"<I{len(kept)}i", made, ends, len(kept), *kept)
    return bytes(made)


def _operator(code: Table) -> str:
    # The old field is a byte; the new one has every code. A file may have either.
    number = max(code.number(0, "b"), code.number(3, "i"))
    if number == OPERATORS.index("CUSTOM"):
        return f"custom operator {code.text(1)}"
    return OPERATORS[number] if 0 <= number < len(OPERATORS) else f"operator {number}"


def _labels(names: list[str]) -> list[str]:
    counts = Counter(names)
    clean = [name if name and counts[name] == 1 else f"{name}#{i}" for i, name in enumerate(names)]
    if len(set(clean)) != len(clean):  # a name may look like another's label
        return [f"{name}#{i}" for i, name in enumerate(names)]
    return clean


def _tensor(index: int, label: str, table: Table, buffers: list[Table], data: bytes) -> FileTensor:
    shape = _shape(table, 0, label)
    number = table.number(1, "b")
    dtype = TYPES[number] if 0 <= number < len(TYPES) else f"type {number}"
    quant = table.table(4)
    scales: Array = np.zeros(0, np.float32)
    zero_points: Array = np.zeros(0, np.int64)
    if quant is not None:
        found, zeros = quant.array(2, "<f4"), quant.array(3, "<i8")
        if found is not None and len(found):
            scales = found
            zero_points = np.zeros(len(found), np.int64) if zeros is None else zeros
            if len(zero_points) != len(scales):
                raise UnsupportedModelError(
                    f"tensor {label}: {len(scales)} scales and {len(zero_points)} zero points, "
                    "expected as many; convert the model again"
                )
    sparse = table.has(6)
    number = table.number(2, "I")
    if number >= len(buffers):
        raise UnsupportedModelError(
            f"tensor {label}: buffer {number} of {len(buffers)}; export or copy the model again"
        )
    return FileTensor(
        index=index,
        label=label,
        shape=shape,
        dtype=dtype,
        data=None if sparse else _constant(label, shape, dtype, buffers[number], data),
        scales=scales,
        zero_points=zero_points,
        axis=quant.number(6, "i") if quant is not None else 0,
        signature=_shape(table, 7, label, low=-1),
        is_variable=table.flag(5),
        is_sparse=sparse,
    )


def _shape(table: Table, slot: int, label: str, low: int = 0) -> tuple[int, ...]:
    found = table.array(slot, "<i4")
    if found is None:
        return ()
    shape = tuple(int(n) for n in found[: MAX_DIMS + 1])
    if len(shape) > MAX_DIMS or any(n < low for n in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise UnsupportedModelError(
            f"tensor {label}: expected at most {MAX_DIMS} dimensions and 2**28 elements, got "
            f"{list(shape)}; export or copy the model again"
        )
    return shape


def _constant(
    label: str, shape: tuple[int, ...], dtype: str, buffer: Table, data: bytes
) -> Array | None:
    """A view of the file, or None where the buffer is empty."""
    raw = buffer.array(0, "u1")
    offset, size = buffer.number(1, "Q"), buffer.number(2, "Q")
    if raw is None and offset > 1 and size:  # kept behind the flatbuffer
        if offset + size > len(data):
            raise damaged(len(data), f"buffer {offset}..{offset + size} lies outside")
        raw = np.frombuffer(data, np.uint8, size, offset)
    if raw is None or not len(raw) or dtype not in NUMPY_TYPES:
        return None
    element = np.dtype(dtype).newbyteorder("<")
    if len(raw) != math.prod(shape) * element.itemsize:
        raise UnsupportedModelError(
            f"tensor {label}: expected {math.prod(shape) * element.itemsize} bytes of {dtype} "
            f"{list(shape)}, got {len(raw)}; export or copy the model again"
        )
    return np.asarray(raw.view(element)).reshape(shape)


def _indices(table: Table, slot: int, count: int, who: str) -> tuple[int, ...]:
    found = table.array(slot, "<i4")
    if found is None:
        return ()
    if len(found) > MAX_LINKS or (len(found) and not -1 <= found.min() <= found.max() < count):
        raise UnsupportedModelError(
            f"{who}: reads or writes tensors that do not exist (there are {count}); "
            "export or copy the model again"
        )
    return tuple(int(i) for i in found)


def _node(index: int, table: Table, codes: list[str], tensors: int) -> Node:
    number = table.number(0, "I")
    if number >= len(codes):
        raise UnsupportedModelError(
            f"node {index}: operator code {number} of {len(codes)}; export or copy the model again"
        )
    who = f"node {index} ({codes[number]})"
    return Node(
        index=index,
        operator=codes[number],
        inputs=_indices(table, 1, tensors, who),
        outputs=_indices(table, 2, tensors, who),
        options=table.table(4),
        has_more_options=table.has(5) and table.count(5) > 0,
    )
