"""The offline memory plan of TensorFlow Lite Micro: where each tensor lies, in the model file.

Its interpreter looks for metadata named OfflineMemoryAllocation, a buffer of int32: version 1, one
subgraph, the number of tensors, then for each tensor a byte offset into the non-persistent part of
the arena (the "head"), or -1 for what it is to place itself. It trusts the offsets: what is live
at one time must not overlap, by the lifetimes that it has, and `live_tensors` tells those.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fieldloop.frontends.builder import UnsupportedModelError
from fieldloop.frontends.tflite.file import MAX_TENSORS, FileTensor, ModelFile, read_file
from fieldloop.frontends.tflite.flatbuffer import Table, damaged
from fieldloop.frontends.tflite.flatbuffer_writer import Front
from fieldloop.frontends.tflite.names import NUMPY_TYPES

NAME = "OfflineMemoryAllocation"
ALIGNMENT = 16  # of offsets and sizes in the interpreter's arena
NOT_PLANNED = -1

_VERSION, _SUBGRAPHS = 1, 1
_SUBGRAPHS_SLOT, _BUFFERS_SLOT, _METADATA_SLOT = 2, 4, 6
_SLOTS = 8  # of the model's table, in the format that this module knows
_MAX_METADATA = 1_000
_MOST_BYTES = 2**31 - 1
_RESOURCES = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"}
_BYTES = {name: np.dtype(name).itemsize for name in NUMPY_TYPES} | {
    "complex64": 8,
    "float64": 8,
    "uint64": 8,
    "uint16": 2,
}


@dataclass(frozen=True, slots=True)
class LiveTensor:
    """A tensor in the arena, live from step `first` to step `last`, both included.

    Step 0 is the caller writing the inputs, step i + 1 is node i of the file, and the step after
    the last node is the caller reading the outputs. `bytes`: as the interpreter rounds them.
    """

    index: int
    label: str
    bytes: int
    first: int
    last: int


def live_tensors(data: bytes) -> tuple[LiveTensor, ...]:
    """What TensorFlow Lite Micro has to place of a .tflite file, as it sees it.

    Every operator has its own output, reshapes too. UnsupportedModelError where the file has
    something that no such plan can say.
    """
    file = read_file(data)
    _check(file)
    constants = _constants(data)
    first = dict.fromkeys(file.inputs, 0)
    last = dict(first)
    for step, node in enumerate(file.nodes, start=1):
        for index in node.outputs:
            first.setdefault(index, step)
        for index in (*node.inputs, *node.outputs):
            last[index] = step
    last.update(dict.fromkeys(file.outputs, len(file.nodes) + 1))
    return tuple(
        LiveTensor(tensor.index, tensor.label, _bytes(tensor), first[tensor.index], last[i])
        for i, tensor in enumerate(file.tensors)
        if i in first and i not in constants and not tensor.is_variable and tensor.size
    )


def offline_plan(data: bytes) -> tuple[int, ...] | None:
    """The offsets that a file carries, one for each tensor; None where it has none to go by."""
    model, tensors = Table.root(data), len(read_file(data).tensors)
    found = None
    for entry in _entries(model):
        buffers = model.tables(_BUFFERS_SLOT, MAX_TENSORS * 2)
        number = entry.number(1, "I")
        raw = buffers[number].array(0, "u1") if number < len(buffers) else None
        whole = raw is not None and len(raw) % 4 == 0
        found = np.frombuffer(raw.tobytes(), "<i4") if raw is not None and whole else None
    if found is None or len(found) != 3 + tensors or found[2] != tensors:
        return None
    return tuple(int(offset) for offset in found[3:])


def with_offline_plan(data: bytes, offsets: Sequence[int]) -> bytes:
    """The file with a plan, one offset for each tensor; one that it has already is replaced."""
    tensors = len(read_file(data).tensors)
    if len(offsets) != tensors:
        raise ValueError(f"expected {tensors} offsets, one for each tensor, got {len(offsets)}")
    if max(offsets, default=0) > _MOST_BYTES:
        raise UnsupportedModelError(
            f"the plan needs {max(offsets)} bytes and more; its offsets end at {_MOST_BYTES}"
        )
    plan = struct.pack(f"<{3 + tensors}i", _VERSION, _SUBGRAPHS, tensors, *offsets)
    place = _room_for(data, len(plan))
    if place is not None:
        return data[:place] + plan + data[place + len(plan) :]
    return _added(data, plan)


def _check(file: ModelFile) -> None:
    for node in file.nodes:
        if node.operator in _RESOURCES:
            raise UnsupportedModelError(
                f"node {node.index} ({node.operator}): variables live outside of the plan's "
                "tensors; export the network as a function of its inputs"
            )


def _constants(data: bytes) -> set[int]:
    """Tensors that have bytes in the file."""
    model = Table.root(data)
    buffers = model.tables(_BUFFERS_SLOT, MAX_TENSORS * 2)
    tables = model.tables(_SUBGRAPHS_SLOT, 1)[0].tables(0, MAX_TENSORS)
    if any(buffer.number(1, "Q") > 1 for buffer in buffers):
        raise UnsupportedModelError(
            "the .tflite file keeps its weights behind the flatbuffer, where TensorFlow Lite "
            "Micro does not look; convert the model again, as one flatbuffer"
        )
    return {i for i, table in enumerate(tables) if buffers[table.number(2, "I")].count(0)}


def _bytes(tensor: FileTensor) -> int:
    if tensor.dtype not in _BYTES:
        raise UnsupportedModelError(
            f"tensor {tensor.label}: TensorFlow Lite Micro's arena has no {tensor.dtype}; "
            "convert the model to int8 or float32"
        )
    size = math.prod(tensor.shape) * _BYTES[tensor.dtype]
    return -(-size // ALIGNMENT) * ALIGNMENT


def _entries(model: Table) -> list[Table]:
    """Metadata of our name; the interpreter goes by the last."""
    return [t for t in model.tables(_METADATA_SLOT, _MAX_METADATA) if t.text(0) == NAME]


def _room_for(data: bytes, size: int) -> int | None:
    """Where a plan of as many bytes lies already, that nothing else uses."""
    model = Table.root(data)
    entries = _entries(model)
    if len(entries) != 1:
        return None
    number = entries[0].number(1, "I")
    buffers = model.tables(_BUFFERS_SLOT, MAX_TENSORS * 2)
    users = [
        table.number(2, "I")
        for table in model.tables(_SUBGRAPHS_SLOT, 1)[0].tables(0, MAX_TENSORS)
    ]
    if not 0 < number < len(buffers) or number in users or buffers[number].count(0) != size:
        return None
    vector = buffers[number].vector(0)
    return None if vector is None or vector + 4 + size > len(data) else vector + 4


def _added(data: bytes, plan: bytes) -> bytes:
    """A new root before the old file: its slots, and one buffer and one metadata entry more."""
    model = Table.root(data)
    if any(model.has(slot) for slot in range(_SLOTS, _SLOTS + 24)):
        raise UnsupportedModelError(
            "the .tflite file has fields that are newer than this fieldloop; update fieldloop"
        )
    buffers = _positions(data, model, _BUFFERS_SLOT, MAX_TENSORS * 2)
    metadata = _positions(data, model, _METADATA_SLOT, _MAX_METADATA)
    metadata = [at for at in metadata if Table(data, at).text(0) != NAME]

    front = Front(data[4:8])
    old = [slot for slot in (1, 2, 3, 5, 7) if model.has(slot)]
    root, fields = front.table([0, *old, _BUFFERS_SLOT, _METADATA_SLOT])
    front.refer(0, root)
    front.number(fields[0], model.number(0, "I"))
    for slot, field in zip(old, fields[1:-2], strict=True):
        target = model.vector(slot)
        if target is None or target >= len(data):
            raise damaged(0, f"slot {slot} of the model lies outside")
        front.refer_old(field, target)

    vector, entries = front.vector(len(buffers) + 1)
    front.refer(fields[-2], vector)
    for entry, at in zip(entries, buffers, strict=False):
        front.refer_old(entry, at)
    table, (field,) = front.table([0])
    front.refer(entries[-1], table)
    front.refer(field, front.data(plan))

    vector, entries = front.vector(len(metadata) + 1)
    front.refer(fields[-1], vector)
    for entry, at in zip(entries, metadata, strict=False):
        front.refer_old(entry, at)
    table, (name, number) = front.table([0, 1])
    front.refer(entries[-1], table)
    front.refer(name, front.text(NAME))
    front.number(number, len(buffers))
    return front.before(data)


def _positions(data: bytes, model: Table, slot: int, most: int) -> list[int]:
    """Where the tables of a vector lie; `tables` checks them."""
    count = len(model.tables(slot, most))
    vector = model.vector(slot)
    if vector is None:
        return []
    places = range(vector + 4, vector + 4 + 4 * count, 4)
    return [at + int(struct.unpack_from("<I", data, at)[0]) for at in places]
