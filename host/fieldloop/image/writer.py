"""The writer: a graph and its plans -> the bytes of a .flm image.

The same arguments give the same bytes. Constants lie in DATA in execution order, each at a
multiple of 4 bytes (16 for weights of 16 bytes and more), so that no kernel meets a misaligned
word.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.errors import UsageError
from fieldloop.image import format as f
from fieldloop.image.params import op_params, record
from fieldloop.image.tiles import tiles_bytes
from fieldloop.ir.arithmetic import check_fixed
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import WEIGHTED, Op, OpKind, Requant, SoftmaxFixed
from fieldloop.ir.tensor import Array, DType, Tensor
from fieldloop.plan.types import Plan, PlanKind

_DTYPES = {DType.INT8: f.Dtype.I8, DType.INT32: f.Dtype.I32, DType.FLOAT32: f.Dtype.F32}
_PLAN_KINDS = {PlanKind.INFER: f.ImagePlanKind.INFER, PlanKind.LEARN: f.ImagePlanKind.LEARN}


@dataclass(frozen=True, slots=True)
class Trainable:
    """A layer that may be trained: its operator's name, and the factor of its learning rate."""

    op: str
    lr_scale: float


@dataclass(frozen=True, slots=True, eq=False)
class RehearsalSet:
    """Old samples that travel with the model: int8 [count, ...input shape], class numbers."""

    samples: npt.NDArray[np.int8]
    labels: npt.NDArray[np.int64]


def write_image(
    graph: Graph,
    plans: Sequence[Plan],
    *,
    labels: Sequence[str] = (),
    trainables: Sequence[Trainable] = (),
    rehearsal: RehearsalSet | None = None,
    meta: Mapping[str, Any] | None = None,
) -> bytes:
    """The image of an int8, float32 or mixed graph, its operators in execution order.

    Plans are verified ones of this graph.

    `labels`: one name per class; `meta`: anything JSON can hold, for people and tools.
    """
    body = _Body(graph, frozenset(layer.op for layer in trainables))
    required = [
        (f.Section.IO, body.io()),
        *((f.Section.PLAN, body.plan(plan)) for plan in plans),
        *((f.Section.TILES, body.tiles(plan)) for plan in plans if plan.steps),
    ]
    optional: list[tuple[f.Section, bytes]] = []
    if labels:
        optional.append((f.Section.LABELS, _labels(labels)))
    if trainables:
        optional.append((f.Section.LEARN, body.learn(trainables)))
    if rehearsal is not None:
        optional.append((f.Section.REHEARSAL, body.rehearsal(rehearsal)))
    if meta:
        optional.append((f.Section.META, _meta(meta)))
    return body.assemble(required, optional)


class _Body:
    """Tables of one image. DATA comes first in memory order of building, last in the file."""

    def __init__(self, graph: Graph, trained: frozenset[str]) -> None:
        self.graph = graph
        constants = [n for op in graph.ops for n in op.inputs if graph.tensors[n].is_constant]
        names = [*(t.name for t in graph.activations), *dict.fromkeys(constants)]
        self.index = {name: i for i, name in enumerate(names)}
        self.data = bytearray()
        self.places: dict[bytes, int] = {}
        # Where in the tables an image offset stands: filled in once DATA's own offset is known.
        rows = [self._tensor(graph.tensors[n]) for n in names]
        folded: dict[str, int] = {}  # operator -> tensor
        for op in graph.ops:
            bias = None if op.name in trained else _folded_bias(graph, op)
            if bias is not None:
                folded[op.name] = len(rows)
                rows.append(self._tensor(Tensor("", bias.shape, DType.INT32, None, bias)))
        if len(rows) >= f.NO_TENSOR:
            raise UsageError(f"image: expected fewer than {f.NO_TENSOR} tensors, got {len(rows)}")
        self.tensors = np.array(rows, f.TENSOR)
        self.ops = np.array([self._op(op, folded.get(op.name)) for op in graph.ops], f.OP)

    def _put(self, blob: bytes, alignment: int = 4) -> int:
        """A constant's offset in DATA, plus 1 (0 means none); the same bytes lie there once."""
        known = self.places.get(blob)
        if known is not None and (known - 1) % alignment == 0:
            return known
        self.data += bytes(f.aligned(len(self.data), alignment) - len(self.data))
        offset = len(self.data)
        self.data += blob
        self.places[blob] = offset + 1
        return offset + 1

    def _tensor(self, tensor: Tensor) -> npt.NDArray[Any]:
        fields: dict[str, Any] = {
            "dtype": _DTYPES[tensor.dtype],
            "kind": f.TensorKind.CONSTANT if tensor.is_constant else f.TensorKind.ACTIVATION,
            "ndim": len(tensor.shape),
            "shape": (*tensor.shape, *(1,) * (4 - len(tensor.shape))),
            "bytes": tensor.bytes,
        }
        if tensor.data is not None:
            blob = tensor.data.astype(tensor.data.dtype.newbyteorder("<")).tobytes()
            wide = tensor.dtype is DType.INT8 and len(blob) >= 16
            fields["offset"] = self._put(blob, 16 if wide else 4)
        if tensor.dtype is not DType.INT8:
            return record(f.TENSOR, **fields)  # a bias: its scales are s_x * s_w
        if tensor.quant is None:
            if not tensor.is_constant:
                raise UsageError(f"image: tensor {tensor.name} is int8 and not quantised")
            fields["scale"] = 1.0  # a table
        elif tensor.quant.axis is None:
            fields["scale"] = tensor.quant.scale
            fields["zero_point"] = tensor.quant.zero_point
        else:
            scales = np.array(tensor.quant.scales, "<f4")
            fields["channel_scales"] = self._put(scales.tobytes())
            fields["channel_count"] = len(scales)
        return record(f.TENSOR, **fields)

    def _op(self, op: Op, folded: int | None) -> npt.NDArray[Any]:
        check_fixed(op, self.graph.tensors)
        given = [self.index[n] for n in op.inputs]
        places = [*given[: f.CONCAT_FIRST], *(f.NO_TENSOR,) * (f.CONCAT_FIRST - len(given))]
        if folded is not None:
            places[3] = folded
        fields: dict[str, Any] = {
            "opcode": f.Opcode[op.kind.name],
            "in": places,
            "out": (self.index[op.output], f.NO_TENSOR),
            "act_min": -128,
            "act_max": 127,
        }
        if self.graph.tensors[op.output].dtype is DType.FLOAT32:
            bits = np.array([op.clamp.lo, op.clamp.hi], "<f4").view("<i4")
            fields["act_min"], fields["act_max"] = (int(b) for b in bits)
        elif op.fixed is not None and not isinstance(op.fixed, SoftmaxFixed):
            fields["act_min"], fields["act_max"] = op.fixed.act_min, op.fixed.act_max
        if isinstance(op.fixed, Requant) and op.kind in WEIGHTED:
            factors = [(x.multiplier, x.shift) for x in op.fixed.factors]
            fields["requant"] = self._put(np.array(factors, "<i4").tobytes())
            fields["requant_count"] = len(factors)
            fields["flags"] = f.OP_SINGLE_ROUNDING if op.fixed.single_rounding else 0
        params = op_params(op, self.graph.tensors, given)
        if params is not None:
            fields["p"] = np.frombuffer(params.tobytes(), np.uint8)
        return record(f.OP, **fields)

    # ---- sections

    def io(self) -> bytes:
        names = [*self.graph.inputs, *self.graph.outputs]
        counts = [len(self.graph.inputs), len(self.graph.outputs)]
        return np.array([*counts, *(self.index[n] for n in names)], "<u2").tobytes()

    def plan(self, plan: Plan) -> bytes:
        scratch, scratch_bytes = plan.learner_scratch
        head = record(
            f.PLAN,
            kind=_PLAN_KINDS[plan.kind],
            arena_bytes=plan.arena_bytes,
            learner_scratch=scratch,
            learner_scratch_bytes=scratch_bytes,
        )
        offsets = np.full(len(self.tensors), f.NO_OFFSET, "<u4")
        for tensor in self.graph.activations:
            if tensor.name in plan.offsets:
                offsets[self.index[tensor.name]] = plan.offsets[tensor.name]
            elif not plan.steps:
                raise UsageError(
                    f"image: the {plan.kind.value} plan has no place for {tensor.name}, and no "
                    "tiles that do without it"
                )
        return head.tobytes() + offsets.tobytes()

    def tiles(self, plan: Plan) -> bytes:
        names = [op.name for op in self.graph.ops]
        return tiles_bytes(_PLAN_KINDS[plan.kind], plan.steps, names)

    def learn(self, trainables: Sequence[Trainable]) -> bytes:
        numbers = {op.name: i for i, op in enumerate(self.graph.ops)}
        records = []
        for layer in sorted(trainables, key=lambda t: numbers.get(t.op, -1)):
            if layer.op not in numbers:
                raise UsageError(f"image: no operator is called {layer.op!r}")
            if not (math.isfinite(layer.lr_scale) and layer.lr_scale > 0):
                raise UsageError(
                    f"image: learning rate scale of {layer.op}: expected a finite value > 0, "
                    f"got {layer.lr_scale}"
                )
            records.append(record(f.TRAINABLE, op=numbers[layer.op], lr_scale=layer.lr_scale))
        return b"".join(row.tobytes() for row in records)

    def rehearsal(self, samples: RehearsalSet) -> bytes:
        count = len(samples.samples)
        expected = self.graph.tensors[self.graph.inputs[0]].bytes
        blob = np.ascontiguousarray(samples.samples).tobytes()
        if samples.samples.dtype != np.int8 or len(blob) != count * expected:
            raise UsageError(
                f"image: rehearsal samples: expected int8, {expected} bytes each, got "
                f"{samples.samples.dtype} of shape {samples.samples.shape}"
            )
        numbers = samples.labels
        if numbers.shape != (count,) or (
            count and not (0 <= numbers.min() <= numbers.max() < 256)
        ):
            raise UsageError(f"image: expected {count} rehearsal labels in 0..255")
        head = record(f.REHEARSAL_SET, count=count, sample_bytes=expected)
        padding = bytes(f.aligned(count) - count)
        return head.tobytes() + numbers.astype(np.uint8).tobytes() + padding + blob

    # ---- the whole

    def assemble(
        self,
        required: Sequence[tuple[f.Section, bytes]],
        optional: Sequence[tuple[f.Section, bytes]],
    ) -> bytes:
        # The two tables are views: the offsets that are filled in below reach the image.
        sections: list[tuple[f.Section, int, memoryview]] = [
            (f.Section.TENSORS, f.SECTION_REQUIRED, self.tensors.view(np.uint8).data),
            (f.Section.OPERATORS, f.SECTION_REQUIRED, self.ops.view(np.uint8).data),
            *((kind, f.SECTION_REQUIRED, memoryview(blob)) for kind, blob in required),
            (f.Section.DATA, f.SECTION_REQUIRED, memoryview(self.data)),
            *((kind, 0, memoryview(blob)) for kind, blob in optional),
        ]
        table = np.zeros(len(sections), f.SECTION)
        at = f.aligned(f.HEADER.itemsize + table.nbytes)
        data_at = 0
        for row, (kind, flags, blob) in zip(table, sections, strict=True):
            row["type"], row["flags"], row["offset"], row["bytes"] = kind, flags, at, len(blob)
            data_at = at if kind is f.Section.DATA else data_at
            at = f.aligned(at + len(blob))
        total = at
        if total > 0xFFFFFFFF:
            raise UsageError(f"image: expected less than 4 GiB, got {total} bytes")

        for values in (
            self.tensors["offset"],
            self.tensors["channel_scales"],
            self.ops["requant"],
        ):
            values[values > 0] += data_at - 1

        image = bytearray(total)
        image[f.HEADER.itemsize : f.HEADER.itemsize + table.nbytes] = table.tobytes()
        for row, (_, _, blob) in zip(table, sections, strict=True):
            start = int(row["offset"])
            image[start : start + len(blob)] = blob
        header = record(
            f.HEADER,
            magic=f.MAGIC,
            version_major=f.VERSION_MAJOR,
            version_minor=f.VERSION_MINOR,
            total_bytes=total,
            section_count=len(sections),
            tensor_count=len(self.tensors),
            op_count=len(self.ops),
        )
        image[: f.HEADER.itemsize] = header.tobytes()
        uid = hashlib.sha256(image[f.UID_FROM :]).digest()[: f.UID_BYTES]
        image[f.CRC_FROM : f.CRC_FROM + f.UID_BYTES] = uid
        header["uid"] = np.frombuffer(uid, np.uint8)
        header["crc32"] = zlib.crc32(image[f.CRC_FROM :])
        image[: f.HEADER.itemsize] = header.tobytes()
        return bytes(image)


def _folded_bias(graph: Graph, op: Op) -> Array | None:
    """int32 [out_c]: b - x_zero * sum of w, wrapping; None where the kernels want none."""
    if op.kind not in WEIGHTED or graph.tensors[op.inputs[0]].dtype is not DType.INT8:
        return None
    x, w = (graph.tensors[name] for name in op.inputs[:2])
    assert x.quant is not None and w.data is not None
    if w.quant is not None and w.quant.zero_point:
        return None
    channel = 3 if op.kind is OpKind.DEPTHWISE_CONV2D else 0
    taps = tuple(i for i in range(w.data.ndim) if i != channel)
    folded = -x.quant.zero_point * w.data.astype(np.int64).sum(axis=taps)
    if len(op.inputs) > 2:
        bias = graph.tensors[op.inputs[2]].data
        assert bias is not None
        folded = folded + bias
    return np.asarray(folded.astype(np.int32))


def _labels(labels: Sequence[str]) -> bytes:
    for label in labels:
        if "\0" in label:
            raise UsageError(f"image: a label holds a NUL character: {label!r}")
    names = b"".join(label.encode() + b"\0" for label in labels)
    return len(labels).to_bytes(4, "little") + names


def _meta(meta: Mapping[str, Any]) -> bytes:
    return json.dumps(meta, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
