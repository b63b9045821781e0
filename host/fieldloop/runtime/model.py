"""A model image, run by the C core on the host: the same bytes out as on every board."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from fieldloop.errors import FieldloopError, UsageError, VersionError
from fieldloop.runtime.core import VARIANTS, core, error_name, load

Array = npt.NDArray[Any]
Int8 = npt.NDArray[np.int8]
Float32 = npt.NDArray[np.float32]

ALIGN = 16
PATTERNS = (0x55, 0xAA)  # a byte that keeps both was not touched


def aligned_bytes(count: int) -> npt.NDArray[np.uint8]:
    """`count` zero bytes that start at a 16-byte boundary, as the core wants arenas and images."""
    raw = np.zeros(count + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + count]


def pointer(array: npt.NDArray[Any], ctype: str = "void *") -> Any:
    """The array's memory for C; the caller keeps the array alive."""
    ffi, _ = core()
    return ffi.cast(ctype, array.ctypes.data)


def refuse(code: int, what: str, hint: str, kind: type[FieldloopError] | None = None) -> NoReturn:
    """Raises a negative return value of the core as the project's error of that kind."""
    name = error_name(code)
    kinds: dict[str, type[FieldloopError]] = {
        "FL_EINVAL": UsageError,
        "FL_ENOENT": UsageError,
        "FL_ENOTSUP": VersionError,
    }
    error = kind or kinds.get(name, FieldloopError)
    raise error(f"{what}: the core says {name}; {hint}")


def check_float_mode() -> None:
    """Refuses a process whose f32 arithmetic is not the boards' (contract 2)."""
    _, lib = core()
    if lib.fl_float_mode_check() != 0:
        raise FieldloopError(
            "float arithmetic: expected IEEE 754 with subnormals, got flush-to-zero in this "
            "thread; switch it off (torch.set_flush_denormal(False)), or results would differ "
            "from the device's"
        )


def touched_bytes(arena: npt.NDArray[np.uint8], run: Callable[[], object]) -> int:
    """Highest byte of `arena` that `run` writes, plus one: painted and run once per pattern."""
    highest = 0
    for pattern in PATTERNS:
        arena[:] = pattern
        run()
        places = np.flatnonzero(arena != pattern)
        if places.size:
            highest = max(highest, int(places[-1]) + 1)
    return highest


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor of the model. Real value of an int8 element: `scale * (q - zero_point)`."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int
    bytes: int

    @property
    def size(self) -> int:
        """Elements."""
        return self.bytes // np.dtype(self.dtype).itemsize

    def quantize(self, real: Array) -> Int8:
        """Nearest int8 of real values (ties to even), clipped."""
        q = np.rint(np.asarray(real, np.float64) / self.scale) + self.zero_point
        return np.asarray(np.clip(q, -128, 127), np.int8)

    def dequantize(self, q: Array) -> Array:
        """Real values of int8 elements; other dtypes stay what they are."""
        if self.dtype != "int8":
            return q
        return ((q.astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)


class Model:
    """An image that is open and bound to its inference plan; a learner rebinds it to the other.

    `variant`: which kernels run it, "plain", "dsp" or "mve". All give the same bytes; the last two
    are what boards have, emulated here.
    """

    def __init__(
        self, image: bytes | bytearray | memoryview | Path, *, variant: str = "plain"
    ) -> None:
        data = image.read_bytes() if isinstance(image, Path) else bytes(image)
        self.variant = variant
        self.core = load(variant)  # (ffi, lib)
        self._ffi, self._lib = self.core
        check_float_mode()
        self._image = aligned_bytes(len(data))
        self._image[:] = np.frombuffer(data, np.uint8)
        self._model = self._ffi.new("fl_model_t *")
        name = str(image) if isinstance(image, Path) else f"image of {len(data)} bytes"
        code = self._lib.fl_model_open(self._model, pointer(self._image), len(data))
        if code != 0:
            refuse(code, f"{name} is not a usable model", "compile it again with this fieldloop")
        self.uid = data[16:32].hex()
        self.image_bytes = len(data)
        self.op_count = int(self._model.op_count)
        io = [
            int(self._model.io[i])
            for i in range(self._model.input_count + self._model.output_count)
        ]
        # tensor numbers, for `tensor`
        self.input_tensors = tuple(io[: self._model.input_count])
        self.output_tensors = tuple(io[self._model.input_count :])
        self.inputs = tuple(self.info(t) for t in self.input_tensors)
        self.outputs = tuple(self.info(t) for t in self.output_tensors)
        self.labels = self._read_labels()
        self.owner: object = None  # the learner whose weights the model runs with
        self.bind("INFER")

    def __repr__(self) -> str:
        ins, outs = (
            ", ".join(f"{t.shape} {t.dtype}" for t in infos)
            for infos in (self.inputs, self.outputs)
        )
        tiles = f" in {self.steps} steps" if self.steps else ""
        return (
            f"<Model {self.uid[:8]} {ins} -> {outs}, {self.image_bytes} B image, "
            f"{self.arena_bytes} B arena, {self.macs} MACs{tiles}>"
        )

    @property
    def handle(self) -> Any:
        """The `fl_model_t *`."""
        return self._model

    @property
    def arena_bytes(self) -> int:
        """Arena of the plan that is bound, the kernels' scratch included."""
        return len(self._arena)

    @property
    def steps(self) -> int:
        """Steps of the bound plan where it is tiled, loops as they are; else 0."""
        tiles = self._model.tiles
        return 0 if tiles == self._ffi.NULL else int(tiles.count)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run; what tiles compute twice counts twice."""
        return sum(self._lib.fl_model_op_macs(self._model, op) for op in range(self.op_count))

    # ---- sizes

    def plan_bytes(self, plan: str) -> int:
        """Arena bytes of the plan "INFER" or "LEARN"; 0 when the image carries none."""
        return self.variant_arena_bytes(self.variant, plan)

    def variant_arena_bytes(self, variant: str, plan: str = "INFER") -> int:
        """The same in a build of other kernels: what a board with them needs."""
        kind = getattr(self._lib, f"FL_PLAN_{plan}")
        return int(self._lib.fl_model_variant_arena_bytes(self._model, kind, VARIANTS[variant]))

    def scratch_bytes(self, variant: str | None = None) -> int:
        """The most scratch that an operator's kernel needs; 0 in plain C."""
        return max(self.op_scratch_bytes(op, variant) for op in range(self.op_count))

    def op_scratch_bytes(self, op: int, variant: str | None = None) -> int:
        """Scratch of one operator's kernel: the most of its steps where the plan is tiled."""
        number = VARIANTS[variant or self.variant]
        return int(self._lib.fl_model_op_scratch(self._model, op, number))

    # ---- running

    def bind(self, plan: str) -> None:
        """Takes a new arena for the plan "INFER" or "LEARN" and binds it."""
        need = self.plan_bytes(plan)
        if need == 0:
            raise UsageError(
                f"model {self.uid[:8]}: expected a plan {plan}, got an image without one; "
                "compile it with trainable layers"
            )
        self._arena = aligned_bytes(need)
        kind = getattr(self._lib, f"FL_PLAN_{plan}")
        code = self._lib.fl_model_bind(self._model, kind, pointer(self._arena), need)
        if code != 0:
            refuse(code, f"binding plan {plan}", "compile the model again")
        self._inputs = [self.tensor(t).reshape(-1) for t in self.input_tensors]
        self._outputs = [self.tensor(t).reshape(-1) for t in self.output_tensors]

    def info(self, t: int) -> TensorInfo:
        """Shape, dtype and quantisation of tensor `t` of the image."""
        if not 0 <= t < self._model.tensor_count:
            raise UsageError(
                f"model {self.uid[:8]}: expected a tensor of 0 to "
                f"{self._model.tensor_count - 1}, got {t}"
            )
        return self._info(self._model.tensors[t])

    def tensor(self, t: int) -> Array:
        """Tensor `t` where it lies, as a writable view (a constant: read-only).

        What an operator makes is there after it ran, until another value needs the place; a `bind`
        (a new learner) makes all views stale. A tiled plan may never hold a tensor whole.
        """
        info = self.info(t)
        place = self._lib.fl_model_tensor(self._model, t)
        if place == self._ffi.NULL:
            raise UsageError(
                f"model {self.uid[:8]}: expected a tensor that lies in the arena, got {t}, which "
                "the tiled plan never holds whole; compile without tiling to look at it"
            )
        raw = np.frombuffer(self._ffi.buffer(place, info.bytes), np.dtype(info.dtype))
        raw.flags.writeable = self._model.tensors[t].kind == self._lib.FL_ACTIVATION
        return raw.reshape(info.shape)

    def run_ops(self, first: int, end: int) -> None:
        """Runs operators first to end - 1 on what lies in the arena; of tiles, their steps."""
        if not 0 <= first <= end <= self.op_count:
            raise UsageError(
                f"model {self.uid[:8]}: expected operators within 0 to {self.op_count}, "
                f"got {first} to {end}"
            )
        code = self._lib.fl_model_run_ops(self._model, first, end)
        if code != 0:
            refuse(code, "running the model", "report this: a bound model runs")

    def run(self, *inputs: Array) -> tuple[Array, ...]:
        """Raw outputs, each [n, elements], for one array per input.

        int8 inputs take int8, or floats (quantised first); float32 ones any real numbers; int32
        ones integers.
        """
        if len(inputs) != len(self.inputs):
            raise UsageError(f"model: expected {len(self.inputs)} inputs, got {len(inputs)}")
        batches = [self.as_inputs(x, i) for i, x in enumerate(inputs)]
        counts = {len(batch) for batch in batches}
        if len(counts) != 1:
            raise UsageError(
                f"model: expected as many samples in each input, got {sorted(counts)}"
            )
        count = counts.pop()
        outs = tuple(np.empty((count, t.size), t.dtype) for t in self.outputs)
        for i in range(count):
            for place, batch in zip(self._inputs, batches, strict=True):
                place[:] = batch[i]
            self.run_ops(0, self.op_count)
            for out, made in zip(outs, self._outputs, strict=True):
                out[i] = made
        return outs

    def predict_int8(self, x: Array) -> Int8:
        """Raw outputs [n, outputs] of a batch of inputs (int8, or float: quantised first)."""
        if self.outputs[0].dtype != "int8":
            raise UsageError(f"model: expected int8 outputs, got {self.outputs[0].dtype}")
        return self.run(x)[0]

    def predict(self, x: Array | Sequence[Array]) -> Any:
        """Real outputs [n, outputs] of a batch: an array, or a list with one array per input.

        A tuple of arrays where the model has several outputs. int32 outputs stay int32.
        """
        inputs = tuple(x) if isinstance(x, list | tuple) and len(self.inputs) > 1 else (x,)
        raw = self.run(*inputs)  # type: ignore[arg-type]
        real = tuple(info.dequantize(out) for info, out in zip(self.outputs, raw, strict=True))
        return real[0] if len(real) == 1 else real

    def classify(self, x: Array) -> npt.NDArray[np.intp]:
        """Class of the highest output of each sample; of equal ones the lowest class."""
        return np.asarray(np.argmax(self.run(x)[0], axis=1))

    def as_samples(self, x: Array, i: int = 0) -> Array:
        """One sample or a batch of input `i`, in any shape of the right size: [n, elements]."""
        info = self.inputs[i]
        array = np.asarray(x)
        sample = tuple(info.shape[1:]) if info.shape[0] == 1 else tuple(info.shape)
        if (
            array.size == 0
            or array.size % info.size
            or (
                array.shape[array.ndim - len(sample) :] != sample
                and array.shape[-1:] != (info.size,)
            )
        ):
            raise UsageError(
                f"input: expected [n, {', '.join(map(str, sample))}] or [n, {info.size}], "
                f"got {list(array.shape)}"
            )
        return array.reshape(-1, info.size)

    def as_inputs(self, x: Array, i: int = 0) -> Array:
        """The same, in the input's own dtype; floats for an int8 input are quantised."""
        info = self.inputs[i]
        array = self.as_samples(x, i)
        kind = array.dtype.kind
        if info.dtype == "int8" and kind == "f":
            array = info.quantize(array)
        elif (
            (info.dtype == "int8" and array.dtype != np.int8)
            or (info.dtype == "int32" and kind not in "iu")
            or (info.dtype == "float32" and kind not in "fiu")
        ):
            wanted = {"int8": "int8 or float", "int32": "integers", "float32": "numbers"}
            raise UsageError(
                f"input: expected {wanted[info.dtype]}, got {array.dtype}; convert it first"
            )
        return np.ascontiguousarray(array, info.dtype)

    def watermark(self) -> int:
        """Bytes of arena that one run really touches; equals `arena_bytes` when the plan is."""

        def run() -> None:
            for place in self._inputs:
                place[:] = 0
            self._lib.fl_model_run(self._model)

        return self.touched(run)

    def touched(self, run: Callable[[], object]) -> int:
        """Highest byte of the arena that `run` writes, plus one."""
        return touched_bytes(self._arena, run)

    def _info(self, t: Any) -> TensorInfo:
        dtypes = {
            self._lib.FL_I8: "int8",
            self._lib.FL_I32: "int32",
            self._lib.FL_F32: "float32",
            self._lib.FL_U8: "uint8",
        }
        return TensorInfo(
            shape=tuple(t.shape[i] for i in range(t.ndim)),
            dtype=dtypes[t.dtype],
            scale=float(t.scale),
            zero_point=int(t.zero_point),
            bytes=int(t.bytes),
        )

    def _read_labels(self) -> tuple[str, ...]:
        cursor = self._ffi.new("uint32_t *", 0)
        data = self._ffi.new("void const **")
        count = self._ffi.new("uint32_t *")
        code = self._lib.fl_image_section(
            pointer(self._image), self._lib.FL_SECTION_LABELS, cursor, data, count
        )
        if code != 0:
            return ()
        raw = bytes(self._ffi.buffer(data[0], count[0]))
        names = raw[4:].split(b"\0")[: int.from_bytes(raw[:4], "little")]
        return tuple(name.decode("utf-8", "replace") for name in names)
