"""The reader: bytes from anywhere -> what a model image says, or one clear error.

Written for people and tools (`fieldloop info`, the host runtime): it proves bounds, counts,
checksums, shapes and references. The arithmetic (geometry, factors) is proven by the C core, which
is the only one to execute an image.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.errors import FieldloopError, VersionError
from fieldloop.image import format as f
from fieldloop.image.tiles import fault_of, steps_of
from fieldloop.plan.types import Step, StepKind


class ImageError(FieldloopError):
    """Damaged, truncated or foreign bytes in place of a model image."""


@dataclass(frozen=True, slots=True)
class ImageTensor:
    """A tensor as the image has it. `scales`: one, or one per channel; none unless int8."""

    index: int
    dtype: f.Dtype
    kind: f.TensorKind
    shape: tuple[int, ...]
    bytes: int
    offset: int
    scales: tuple[float, ...]
    zero_point: int

    @property
    def scale(self) -> float:
        """The scale of an activation."""
        return self.scales[0]

    def quantize(self, real: npt.ArrayLike) -> npt.NDArray[np.int8]:
        """Nearest int8 of real values (ties to even, in float64), clipped."""
        q = np.rint(np.asarray(real, np.float64) / self.scale) + self.zero_point
        return np.asarray(np.clip(q, -128, 127), np.int8)

    def dequantize(self, q: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Real values of int8 ones."""
        return ((np.asarray(q, np.float64) - self.zero_point) * self.scale).astype(np.float32)


@dataclass(frozen=True, slots=True)
class ImageOp:
    """An operator: tensor indices of what it reads and makes, and its multiply-accumulates.

    `folded`: the tensor of the folded bias, which is none of `inputs`. The clamp is of int8, or
    real (f32).
    """

    index: int
    opcode: f.Opcode
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    act_min: float
    act_max: float
    macs: int
    folded: int | None = None
    single_rounding: bool = False


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """An arena layout; `offsets` by tensor index, None for constants and for activations that a
    tiled plan never holds whole. `steps`: a tiled plan's, loops as they are; else none.
    `learner_scratch`: offset and bytes of the arena that the learner may use after the forward
    pass.
    """

    kind: f.ImagePlanKind
    arena_bytes: int
    offsets: tuple[int | None, ...]
    steps: tuple[Step, ...] = ()
    learner_scratch: tuple[int, int] = (0, 0)

    @property
    def is_tiled(self) -> bool:
        return bool(self.steps)


@dataclass(frozen=True, slots=True)
class ImageTrainable:
    """A layer that may be trained."""

    op: int
    lr_scale: float


@dataclass(frozen=True, slots=True, eq=False)
class ImageRehearsal:
    """Old samples in the image: labels [count], samples [count, sample bytes]."""

    labels: npt.NDArray[np.uint8]
    samples: npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class ImageSection:
    """An entry of the section table; `name` is its four characters."""

    name: str
    required: bool
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """What a model image says."""

    uid: bytes
    version: tuple[int, int]
    total_bytes: int
    sections: tuple[ImageSection, ...]
    tensors: tuple[ImageTensor, ...]
    ops: tuple[ImageOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    plans: tuple[ImagePlan, ...]
    labels: tuple[str, ...]
    trainables: tuple[ImageTrainable, ...]
    rehearsal: ImageRehearsal | None
    meta: dict[str, Any]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return sum(op.macs for op in self.ops)

    def plan(self, kind: f.ImagePlanKind) -> ImagePlan | None:
        """The plan of a kind, if the image carries one."""
        return next((plan for plan in self.plans if plan.kind is kind), None)

    def input_tensor(self, i: int = 0) -> ImageTensor:
        return self.tensors[self.inputs[i]]

    def output_tensor(self, i: int = 0) -> ImageTensor:
        return self.tensors[self.outputs[i]]


def read_image(data: bytes | bytearray | memoryview) -> Image:
    """Reads an image; ImageError for damaged bytes, VersionError for a newer format."""
    return _Reader(bytes(data)).read()


_TWO_INPUTS = frozenset(
    {
        f.Opcode.ADD,
        f.Opcode.SUB,
        f.Opcode.MUL,
        f.Opcode.MINIMUM,
        f.Opcode.MAXIMUM,
        f.Opcode.TABLE,
        f.Opcode.EMBEDDING,
    }
)


_ONE_PER_PLAN = frozenset({f.Section.PLAN, f.Section.TILES})


def _require(ok: bool, what: str) -> None:
    if not ok:
        raise ImageError(f"not a sound model image: {what}; compile or fetch it again")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def records(self, dtype: np.dtype[Any], offset: int, count: int) -> npt.NDArray[Any]:
        """`count` records at `offset`, inside the image."""
        end = offset + count * dtype.itemsize
        _require(
            0 <= offset <= end <= len(self.data),
            f"{count} records at {offset} reach past the end, {len(self.data)} bytes",
        )
        return np.frombuffer(self.data, dtype, count, offset)

    def header(self) -> npt.NDArray[Any]:
        size = f.HEADER.itemsize
        _require(len(self.data) >= size, f"expected at least {size} bytes, got {len(self.data)}")
        header = self.records(f.HEADER, 0, 1)[0]
        magic = int(header["magic"])
        _require(magic == f.MAGIC, f'expected it to begin with "FLM1", got {self.data[:4]!r}')
        major, minor = int(header["version_major"]), int(header["version_minor"])
        if major != f.VERSION_MAJOR:
            raise VersionError(
                f"model image version: expected {f.VERSION_MAJOR}.x, got {major}.{minor}; "
                "install the fieldloop that wrote it, or compile the model again"
            )
        total = int(header["total_bytes"])
        _require(total <= len(self.data), f"truncated, {len(self.data)} of {total} bytes")
        _require(
            total >= size and total % f.ALIGN == 0, f"total_bytes {total} is not a multiple of 16"
        )
        self.data = self.data[:total]
        crc = zlib.crc32(self.data[f.CRC_FROM :])
        _require(crc == int(header["crc32"]), "the CRC-32 does not match")
        uid = hashlib.sha256(self.data[f.UID_FROM :]).digest()[: f.UID_BYTES]
        _require(uid == header["uid"].tobytes(), "the uid does not match its contents")
        return np.asarray(header)

    def read(self) -> Image:
        header = self.header()
        rows = self.records(f.SECTION, f.HEADER.itemsize, int(header["section_count"]))
        table_end = f.HEADER.itemsize + rows.nbytes
        sections: list[ImageSection] = []
        found: dict[int, list[tuple[int, int]]] = {}
        for row in rows:
            kind, offset, size = int(row["type"]), int(row["offset"]), int(row["bytes"])
            name = kind.to_bytes(4, "little").decode("ascii", "replace")
            required = bool(int(row["flags"]) & f.SECTION_REQUIRED)
            _require(
                offset % f.ALIGN == 0 and table_end <= offset <= offset + size <= len(self.data),
                f"section {name!r} at {offset}, {size} bytes, lies outside or is misaligned",
            )
            if required and kind not in set(f.Section):
                raise VersionError(
                    f"model image: the required section {name!r} is unknown; "
                    "install a newer fieldloop"
                )
            sections.append(ImageSection(name, required, offset, size))
            found.setdefault(kind, []).append((offset, size))
        for needed in f.REQUIRED_SECTIONS:
            _require(needed in found, f"section {needed.name} is missing")
        for kind, places in found.items():
            repeats = kind in _ONE_PER_PLAN or kind not in set(f.Section)
            _require(repeats or len(places) == 1, f"section {kind:#x} occurs {len(places)} times")

        tensors = self.tensors(found[f.Section.TENSORS][0], int(header["tensor_count"]))
        ops = self.ops(found[f.Section.OPERATORS][0], int(header["op_count"]), tensors)
        inputs, outputs = self.io(found[f.Section.IO][0], len(tensors))
        tiles = self.all_tiles(found.get(f.Section.TILES, []))
        places = found[f.Section.PLAN]
        plans = tuple(self.plan(place, tensors, tiles) for place in places)
        kinds = [plan.kind for plan in plans]
        _require(len(set(kinds)) == len(kinds), "two plans are of one kind")
        _require(set(tiles) <= set(kinds), "tiles of a kind that no plan has")
        for plan in plans:
            self.check_tiles(plan, tensors, ops, {*inputs, *outputs})
        sample_bytes = tensors[inputs[0]].bytes
        return Image(
            uid=header["uid"].tobytes(),
            version=(int(header["version_major"]), int(header["version_minor"])),
            total_bytes=len(self.data),
            sections=tuple(sections),
            tensors=tensors,
            ops=ops,
            inputs=inputs,
            outputs=outputs,
            plans=plans,
            labels=self.labels(found.get(f.Section.LABELS)),
            trainables=self.trainables(found.get(f.Section.LEARN), ops),
            rehearsal=self.rehearsal(found.get(f.Section.REHEARSAL), sample_bytes),
            meta=self.meta(found.get(f.Section.META)),
        )

    def table(self, place: tuple[int, int], dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        offset, size = place
        _require(
            size == count * dtype.itemsize,
            f"a table of {count} records takes {count * dtype.itemsize} bytes, got {size}",
        )
        return self.records(dtype, offset, count)

    def tensors(self, place: tuple[int, int], count: int) -> tuple[ImageTensor, ...]:
        _require(0 < count < f.NO_TENSOR, f"{count} tensors")
        return tuple(
            self.tensor(i, row) for i, row in enumerate(self.table(place, f.TENSOR, count))
        )

    def tensor(self, index: int, row: npt.NDArray[Any]) -> ImageTensor:
        what = f"tensor {index}"
        _require(int(row["dtype"]) in set(f.Dtype), f"{what} has dtype {row['dtype']}")
        _require(int(row["kind"]) in set(f.TensorKind), f"{what} has kind {row['kind']}")
        dtype, kind = f.Dtype(int(row["dtype"])), f.TensorKind(int(row["kind"]))
        ndim = int(row["ndim"])
        shape = [int(n) for n in row["shape"]]
        _require(
            1 <= ndim <= 4 and min(shape) >= 1 and all(n == 1 for n in shape[ndim:]),
            f"{what} has {ndim} dimensions, shape {shape}",
        )
        size = math.prod(shape) * f.ELEMENT_BYTES[dtype]
        _require(size == int(row["bytes"]), f"{what}: shape says {size} bytes, got {row['bytes']}")
        if kind is f.TensorKind.CONSTANT:
            self.records(np.dtype("u1"), int(row["offset"]), size)
        channels = int(row["channel_count"])
        if int(row["channel_scales"]):
            _require(channels in shape, f"{what} has {channels} channel scales, shape {shape}")
            values = self.records(np.dtype("<f4"), int(row["channel_scales"]), channels)
        elif dtype is f.Dtype.I8 or float(row["scale"]) != 0.0:
            values = np.array([row["scale"]], np.float32)
        else:
            values = np.zeros(0, np.float32)  # a bias: s_x * s_w
        _require(
            bool(np.isfinite(values).all() and (values > 0).all()),
            f"{what} has a scale that is not a finite value > 0",
        )
        zero_point = int(row["zero_point"])
        _require(-128 <= zero_point <= 127, f"{what} has zero point {zero_point}")
        return ImageTensor(
            index=index,
            dtype=dtype,
            kind=kind,
            shape=tuple(shape[:ndim]),
            bytes=size,
            offset=int(row["offset"]),
            scales=tuple(float(v) for v in values),
            zero_point=zero_point,
        )

    def ops(
        self, place: tuple[int, int], count: int, tensors: tuple[ImageTensor, ...]
    ) -> tuple[ImageOp, ...]:
        _require(0 < count < 0xFFFF, f"{count} operators")
        return tuple(
            self.op(i, row, tensors) for i, row in enumerate(self.table(place, f.OP, count))
        )

    def op(self, index: int, row: npt.NDArray[Any], tensors: tuple[ImageTensor, ...]) -> ImageOp:
        what = f"operator {index}"
        if int(row["opcode"]) not in set(f.Opcode):
            raise VersionError(
                f"model image: {what} has the unknown opcode {row['opcode']}; "
                "install a newer fieldloop"
            )
        opcode = f.Opcode(int(row["opcode"]))
        weighted = opcode <= f.Opcode.FULLY_CONNECTED
        places = [int(t) for t in row["in"]]
        folded = places.pop() if weighted and places[3] != f.NO_TENSOR else None
        if opcode is f.Opcode.CONCAT:
            places = self.concat_inputs(what, row)
        inputs = tuple(t for t in places if t != f.NO_TENSOR)
        outputs = tuple(int(t) for t in row["out"] if t != f.NO_TENSOR)
        _require(
            all(t < len(tensors) for t in (*inputs, *outputs, folded or 0)),
            f"{what} names a tensor beyond {len(tensors)}",
        )
        least = 2 if weighted or opcode in _TWO_INPUTS else 1
        _require(
            len(inputs) >= least and len(outputs) == 1,
            f"{what} has {len(inputs)} inputs and {len(outputs)} outputs",
        )
        flags = int(row["flags"])
        if flags & ~(f.OP_SINGLE_ROUNDING if weighted else 0):
            raise VersionError(
                f"model image: {what} has the unknown flags {flags:#x}; install a newer fieldloop"
            )
        act_min, act_max = self.clamp(what, row, tensors[outputs[0]].dtype)
        taps = 0
        if weighted:
            w = tensors[inputs[1]].shape
            taps = {
                f.Opcode.CONV2D: math.prod(w[1:]),
                f.Opcode.DEPTHWISE_CONV2D: math.prod(w[1:3]),
                f.Opcode.FULLY_CONNECTED: w[-1],
            }[opcode]
        macs = taps * math.prod(tensors[outputs[0]].shape)
        return ImageOp(
            index=index,
            opcode=opcode,
            inputs=inputs,
            outputs=outputs,
            act_min=act_min,
            act_max=act_max,
            macs=macs,
            folded=folded,
            single_rounding=bool(flags & f.OP_SINGLE_ROUNDING),
        )

    def concat_inputs(self, what: str, row: npt.NDArray[Any]) -> list[int]:
        params = np.frombuffer(row["p"].tobytes(), f.CONCAT_PARAMS)[0]
        count = int(params["count"])
        _require(1 <= count <= f.CONCAT_MAX, f"{what} joins {count} inputs")
        places = [*(int(t) for t in row["in"]), *(int(t) for t in params["more"])]
        _require(
            f.NO_TENSOR not in places[:count] and set(places[count:]) <= {f.NO_TENSOR},
            f"{what} says it joins {count} inputs",
        )
        return places[:count]

    def clamp(self, what: str, row: npt.NDArray[Any], dtype: f.Dtype) -> tuple[float, float]:
        act_min, act_max = float(row["act_min"]), float(row["act_max"])
        if dtype is f.Dtype.F32:
            bits = np.array([row["act_min"], row["act_max"]], "<i4").view("<f4")
            act_min, act_max = float(bits[0]), float(bits[1])
        else:
            _require(
                act_min >= -128 and act_max <= 127, f"{what} clamps to [{act_min}, {act_max}]"
            )
        _require(act_min <= act_max, f"{what} clamps to [{act_min}, {act_max}]")
        return act_min, act_max

    def io(
        self, place: tuple[int, int], tensor_count: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        offset, size = place
        _require(size >= 4, f"section INOU has {size} bytes")
        ins, outs = (int(n) for n in self.records(np.dtype("<u2"), offset, 2))
        _require(
            ins > 0 and outs > 0 and size == 4 + 2 * (ins + outs),
            f"{ins} inputs and {outs} outputs in a section of {size} bytes",
        )
        names = [int(t) for t in self.records(np.dtype("<u2"), offset + 4, ins + outs)]
        _require(max(names) < tensor_count, "an input or output names no tensor")
        return tuple(names[:ins]), tuple(names[ins:])

    def all_tiles(self, places: list[tuple[int, int]]) -> dict[f.ImagePlanKind, tuple[Step, ...]]:
        """Steps by the kind of their plan."""
        found: dict[f.ImagePlanKind, tuple[Step, ...]] = {}
        for offset, size in places:
            _require(size >= f.TILES.itemsize, f"section TILE has {size} bytes")
            head = self.records(f.TILES, offset, 1)[0]
            count = int(head["count"])
            _require(
                1 <= count <= f.STEPS_MAX
                and size == f.TILES.itemsize + count * f.PLAN_STEP.itemsize,
                f"{count} steps in a section TILE of {size} bytes",
            )
            _require(int(head["kind"]) in set(f.ImagePlanKind), f"tiles of kind {head['kind']}")
            kind = f.ImagePlanKind(int(head["kind"]))
            _require(kind not in found, "two sections TILE are of one kind")
            rows = self.records(f.PLAN_STEP, offset + f.TILES.itemsize, count)
            _require(int(rows["kind"].max()) <= max(StepKind), "a step of an unknown kind")
            flags = int(np.bitwise_or.reduce(rows["flags"]))
            _require(flags < 2 * max(f.StepFlag), f"a step has the unknown flags {flags:#x}")
            found[kind] = steps_of(rows)
        return found

    def check_tiles(
        self,
        plan: ImagePlan,
        tensors: tuple[ImageTensor, ...],
        ops: tuple[ImageOp, ...],
        ends: set[int],
    ) -> None:
        """The steps, and that what runs whole and what the caller sees has a place."""
        fault = fault_of(plan.steps, len(ops), plan.arena_bytes)
        _require(fault is None, f"tiles: {fault}")
        whole = set(ends)
        for step in plan.steps:
            if step.kind is StepKind.OP:
                whole |= {*ops[step.op].inputs, *ops[step.op].outputs}
        for i in sorted(whole):
            _require(
                tensors[i].kind is f.TensorKind.CONSTANT or plan.offsets[i] is not None,
                f"tensor {i} has no place in the arena",
            )

    def plan(
        self,
        place: tuple[int, int],
        tensors: tuple[ImageTensor, ...],
        tiles: dict[f.ImagePlanKind, tuple[Step, ...]],
    ) -> ImagePlan:
        offset, size = place
        _require(
            size == f.PLAN.itemsize + 4 * len(tensors), f"a plan has {size} bytes for its tensors"
        )
        head = self.records(f.PLAN, offset, 1)[0]
        _require(int(head["kind"]) in set(f.ImagePlanKind), f"a plan has kind {head['kind']}")
        kind, arena = f.ImagePlanKind(int(head["kind"])), int(head["arena_bytes"])
        scratch = int(head["learner_scratch"]), int(head["learner_scratch_bytes"])
        _require(
            kind is f.ImagePlanKind.LEARN or scratch == (0, 0),
            "a plan for inference has scratch for the learner",
        )
        _require(
            scratch[0] % f.ALIGN == 0 and sum(scratch) <= arena,
            f"the learner's scratch, {scratch[1]} bytes at {scratch[0]}, leaves the arena",
        )
        places: list[int | None] = []
        values = self.records(np.dtype("<u4"), offset + f.PLAN.itemsize, len(tensors))
        for tensor, value in zip(tensors, values, strict=True):
            if tensor.kind is f.TensorKind.CONSTANT:
                _require(value == f.NO_OFFSET, f"constant {tensor.index} has a place in the arena")
                places.append(None)
                continue
            if value == f.NO_OFFSET and kind in tiles:
                places.append(None)
                continue
            _require(
                int(value) + tensor.bytes <= arena,
                f"tensor {tensor.index} ends at {int(value) + tensor.bytes}, the arena at {arena}",
            )
            places.append(int(value))
        return ImagePlan(kind, arena, tuple(places), tiles.get(kind, ()), scratch)

    def labels(self, places: list[tuple[int, int]] | None) -> tuple[str, ...]:
        if places is None:
            return ()
        offset, size = places[0]
        _require(size >= 4, f"section LABL has {size} bytes")
        count = int(self.records(np.dtype("<u4"), offset, 1)[0])
        parts = self.data[offset + 4 : offset + size].split(b"\0")
        _require(
            len(parts) == count + 1 and parts[-1] == b"",
            f"expected {count} labels, NUL at each end",
        )
        try:
            return tuple(part.decode() for part in parts[:-1])
        except UnicodeDecodeError:
            raise ImageError("not a sound model image: a label is not UTF-8") from None

    def trainables(
        self, places: list[tuple[int, int]] | None, ops: tuple[ImageOp, ...]
    ) -> tuple[ImageTrainable, ...]:
        if places is None:
            return ()
        offset, size = places[0]
        _require(size % f.TRAINABLE.itemsize == 0, f"section LERN has {size} bytes")
        rows = self.records(f.TRAINABLE, offset, size // f.TRAINABLE.itemsize)
        before = -1
        layers = []
        for row in rows:
            number, scale = int(row["op"]), float(row["lr_scale"])
            _require(before < number < len(ops), f"trainable operator {number} is out of order")
            _require(
                ops[number].opcode <= f.Opcode.FULLY_CONNECTED, f"operator {number} has no weights"
            )
            _require(math.isfinite(scale) and scale > 0, f"learning rate scale {scale}")
            layers.append(ImageTrainable(number, scale))
            before = number
        return tuple(layers)

    def rehearsal(
        self, places: list[tuple[int, int]] | None, sample_bytes: int
    ) -> ImageRehearsal | None:
        if places is None:
            return None
        offset, size = places[0]
        _require(size >= f.REHEARSAL_SET.itemsize, f"section REHS has {size} bytes")
        head = self.records(f.REHEARSAL_SET, offset, 1)[0]
        count, each = int(head["count"]), int(head["sample_bytes"])
        first = f.REHEARSAL_SET.itemsize + f.aligned(count)
        _require(
            each == sample_bytes and size == first + count * each,
            f"rehearsal: {count} samples of {each} bytes in a section of {size}, "
            f"the input takes {sample_bytes}",
        )
        labels = self.records(np.dtype("u1"), offset + f.REHEARSAL_SET.itemsize, count)
        samples = self.records(np.dtype("i1"), offset + first, count * each)
        return ImageRehearsal(labels, samples.reshape(count, each))

    def meta(self, places: list[tuple[int, int]] | None) -> dict[str, Any]:
        if places is None:
            return {}
        offset, size = places[0]
        try:
            value = json.loads(self.data[offset : offset + size].decode())
        except (ValueError, RecursionError):
            raise ImageError("not a sound model image: section META is not JSON") from None
        _require(isinstance(value, dict), "section META is not a JSON object")
        return dict(value)
