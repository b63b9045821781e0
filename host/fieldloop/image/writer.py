"""The writer: a quantised graph and its plans -> the bytes of a .flm image.

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
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import WEIGHTED, WINDOWED, AddFixed, Op, OpKind, Requant, SoftmaxFixed
from fieldloop.ir.tensor import DType, Tensor
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
    """The image. `graph` is quantised, its operators in execution order; plans are verified.

    `labels`: one name per class; `meta`: anything JSON can hold, for people and tools.
    """
    body = _Body(graph)
    required = [
        (f.Section.IO, body.io()),
        *((f.Section.PLAN, body.plan(plan)) for plan in plans),
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


def _record(layout: np.dtype[Any], /, **fields: Any) -> npt.NDArray[Any]:
    """One record of `layout`, the rest zero; a value that its field cannot hold is refused."""
    record = np.zeros((), layout)
    for name, value in fields.items():
        kind = layout[name].base
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            low, high = int(np.min(value)), int(np.max(value))
            if low < limits.min or high > limits.max:
                raise UsageError(
                    f"image: {name} = {value} does not fit its field ({limits.min}..{limits.max})"
                )
        record[name] = value
    return record


class _Body:
    """Tables of one image. DATA comes first in memory order of building, last in the file."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        constants = [n for op in graph.ops for n in op.inputs if graph.tensors[n].is_constant]
        names = [*(t.name for t in graph.activations), *dict.fromkeys(constants)]
        if len(names) >= f.NO_TENSOR:
            raise UsageError(f"image: expected fewer than {f.NO_TENSOR} tensors, got {len(names)}")
        self.index = {name: i for i, name in enumerate(names)}
        self.data = bytearray()
        # Where in the tables an image offset stands: filled in once DATA's own offset is known.
        self.tensors = np.array([self._tensor(graph.tensors[n]) for n in names], f.TENSOR)
        self.ops = np.array([self._op(op) for op in graph.ops], f.OP)

    def _put(self, blob: bytes, alignment: int = 4) -> int:
        """Appends a constant to DATA; returns its offset there, plus 1 (0 means none)."""
        self.data += bytes(f.aligned(len(self.data), alignment) - len(self.data))
        offset = len(self.data)
        self.data += blob
        return offset + 1

    def _tensor(self, tensor: Tensor) -> npt.NDArray[Any]:
        if tensor.quant is None:
            raise UsageError(f"image: tensor {tensor.name} is not quantised")
        fields: dict[str, Any] = {
            "dtype": _DTYPES[tensor.dtype],
            "kind": f.TensorKind.CONSTANT if tensor.is_constant else f.TensorKind.ACTIVATION,
            "ndim": len(tensor.shape),
            "shape": (*tensor.shape, *(1,) * (4 - len(tensor.shape))),
            "bytes": tensor.bytes,
            "zero_point": tensor.quant.zero_point,
        }
        if tensor.data is not None:
            blob = tensor.data.astype(tensor.data.dtype.newbyteorder("<")).tobytes()
            wide = tensor.dtype is DType.INT8 and len(blob) >= 16
            fields["offset"] = self._put(blob, 16 if wide else 4)
        if tensor.dtype is DType.INT32:
            pass  # a bias: its scale is s_x * s_w, which both stand in the image already
        elif tensor.quant.axis is None:
            fields["scale"] = tensor.quant.scale
        else:
            scales = np.array(tensor.quant.scales, "<f4")
            fields["channel_scales"] = self._put(scales.tobytes())
            fields["channel_count"] = len(scales)
        return _record(f.TENSOR, **fields)

    def _op(self, op: Op) -> npt.NDArray[Any]:
        names = [*(self.index[n] for n in op.inputs), *(f.NO_TENSOR,) * (4 - len(op.inputs))]
        fields: dict[str, Any] = {
            "opcode": f.Opcode[op.kind.name],
            "in": names,
            "out": (self.index[op.output], f.NO_TENSOR),
            "act_min": -128,
            "act_max": 127,
        }
        if op.fixed is None and op.kind is not OpKind.RESHAPE:
            raise UsageError(f"image: operator {op.name} is not quantised")
        if isinstance(op.fixed, Requant | AddFixed):
            fields["act_min"], fields["act_max"] = op.fixed.act_min, op.fixed.act_max
        if isinstance(op.fixed, Requant) and op.kind in WEIGHTED:
            factors = [(x.multiplier, x.shift) for x in op.fixed.factors]
            fields["requant"] = self._put(np.array(factors, "<i4").tobytes())
            fields["requant_count"] = len(factors)
        params = self._params(op)
        if params is not None:
            fields["p"] = np.frombuffer(params.tobytes(), np.uint8)
        return _record(f.OP, **fields)

    def _params(self, op: Op) -> npt.NDArray[Any] | None:
        if op.kind in WINDOWED:
            assert op.window is not None
            window, depth = op.window, 1
            if op.kind is OpKind.DEPTHWISE_CONV2D:
                x, out = self.graph.tensors[op.inputs[0]], self.graph.tensors[op.output]
                depth = out.shape[3] // x.shape[3]
            return _record(
                f.CONV_PARAMS,
                kernel_h=window.kernel[0],
                kernel_w=window.kernel[1],
                stride_h=window.stride[0],
                stride_w=window.stride[1],
                dilation_h=window.dilation[0],
                dilation_w=window.dilation[1],
                pad_top=window.pads[0],
                pad_left=window.pads[2],
                depth_multiplier=depth,
            )
        if isinstance(op.fixed, AddFixed):
            add = op.fixed
            record = _record(f.ADD_PARAMS, left_shift=add.left_shift)
            for name, factor in (("a", add.a), ("b", add.b), ("out", add.out)):
                record[name] = (factor.multiplier, factor.shift)
            return record
        if isinstance(op.fixed, SoftmaxFixed):
            return _record(
                f.SOFTMAX_PARAMS,
                input_multiplier=op.fixed.input_multiplier,
                input_left_shift=op.fixed.input_left_shift,
                diff_min=op.fixed.diff_min,
            )
        return None

    # ---- sections

    def io(self) -> bytes:
        names = [*self.graph.inputs, *self.graph.outputs]
        counts = [len(self.graph.inputs), len(self.graph.outputs)]
        return np.array([*counts, *(self.index[n] for n in names)], "<u2").tobytes()

    def plan(self, plan: Plan) -> bytes:
        head = _record(f.PLAN, kind=_PLAN_KINDS[plan.kind], arena_bytes=plan.arena_bytes)
        offsets = np.full(len(self.index), f.NO_OFFSET, "<u4")
        for tensor in self.graph.activations:
            offsets[self.index[tensor.name]] = plan.offsets[tensor.name]
        return head.tobytes() + offsets.tobytes()

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
            records.append(_record(f.TRAINABLE, op=numbers[layer.op], lr_scale=layer.lr_scale))
        return b"".join(record.tobytes() for record in records)

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
        head = _record(f.REHEARSAL_SET, count=count, sample_bytes=expected)
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
        header = _record(
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


def _labels(labels: Sequence[str]) -> bytes:
    for label in labels:
        if "\0" in label:
            raise UsageError(f"image: a label holds a NUL character: {label!r}")
    names = b"".join(label.encode() + b"\0" for label in labels)
    return len(labels).to_bytes(4, "little") + names


def _meta(meta: Mapping[str, Any]) -> bytes:
    return json.dumps(meta, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
