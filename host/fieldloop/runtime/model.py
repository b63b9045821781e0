"""A model image, run by the C core on the host: the same bytes out as on every board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from fieldloop.errors import FieldloopError, UsageError, VersionError
from fieldloop.runtime.core import core, error_name

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
    """An input or output of the model. Real value of an element: `scale * (q - zero_point)`."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int
    bytes: int

    def quantize(self, real: npt.NDArray[Any]) -> Int8:
        """Nearest int8 of real values (ties to even), clipped."""
        q = np.rint(np.asarray(real, np.float64) / self.scale) + self.zero_point
        return np.asarray(np.clip(q, -128, 127), np.int8)

    def dequantize(self, q: Int8) -> Float32:
        """Real values of int8 elements."""
        return ((q.astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)


class Model:
    """An image that is open and bound to its inference plan; a learner rebinds it to the other."""

    def __init__(self, image: bytes | bytearray | memoryview | Path) -> None:
        data = image.read_bytes() if isinstance(image, Path) else bytes(image)
        self._ffi, self._lib = core()
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
        self.inputs = tuple(
            self._info(self._lib.fl_model_input_info(self._model, i))
            for i in range(self._model.input_count)
        )
        self.outputs = tuple(
            self._info(self._lib.fl_model_output_info(self._model, i))
            for i in range(self._model.output_count)
        )
        self.labels = self._read_labels()
        self.owner: object = None  # the learner whose weights the model runs with
        self.bind("INFER")

    def __repr__(self) -> str:
        return (
            f"<Model {self.uid[:8]} {self.inputs[0].shape} -> {self.outputs[0].shape} int8, "
            f"{self.image_bytes} B image, {self.arena_bytes} B arena, {self.macs} MACs>"
        )

    @property
    def handle(self) -> Any:
        """The `fl_model_t *`."""
        return self._model

    @property
    def arena_bytes(self) -> int:
        """Arena of the plan that is bound, as the planner put it into the image."""
        return len(self._arena)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        ops = range(self._model.op_count)
        return sum(self._lib.fl_model_op_macs(self._model, op) for op in ops)

    def plan_bytes(self, plan: str) -> int:
        """Arena bytes of the plan "INFER" or "LEARN"; 0 when the image carries none."""
        kind = getattr(self._lib, f"FL_PLAN_{plan}")
        return int(self._lib.fl_model_arena_bytes(self._model, kind))

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
        lib, model = self._lib, self._model
        self._input = self._view(lib.fl_model_input(model, 0), self.inputs[0].bytes)
        self._output = self._view(lib.fl_model_output(model, 0), self.outputs[0].bytes)

    def predict_int8(self, x: npt.NDArray[Any]) -> Int8:
        """Raw outputs [n, outputs] of a batch of inputs (int8, or float: quantised first)."""
        batch = self.as_inputs(x)
        out = np.empty((len(batch), self.outputs[0].bytes), np.int8)
        for i, sample in enumerate(batch):
            self._input[:] = sample
            code = self._lib.fl_model_run(self._model)
            if code != 0:
                refuse(code, "running the model", "report this: a bound model runs")
            out[i] = self._output
        return out

    def predict(self, x: npt.NDArray[Any]) -> Float32:
        """Real outputs [n, outputs] of a batch of inputs."""
        return self.outputs[0].dequantize(self.predict_int8(x))

    def classify(self, x: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
        """Class of the highest output of each sample; of equal ones the lowest class."""
        return np.asarray(np.argmax(self.predict_int8(x), axis=1))

    def as_inputs(self, x: npt.NDArray[Any]) -> Int8:
        """One sample or a batch, in any shape of the right size, as int8 [n, input bytes]."""
        info = self.inputs[0]
        array = np.asarray(x)
        sample = tuple(info.shape[1:]) if info.shape[0] == 1 else tuple(info.shape)
        if (
            array.size == 0
            or array.size % info.bytes
            or (array.shape[-len(sample) :] != sample and array.shape[-1:] != (info.bytes,))
        ):
            raise UsageError(
                f"input: expected [n, {', '.join(map(str, sample))}] or [n, {info.bytes}], "
                f"got {list(array.shape)}"
            )
        if array.dtype == np.int8:
            quantised = array
        elif np.issubdtype(array.dtype, np.floating):
            quantised = info.quantize(array)
        else:
            raise UsageError(f"input: expected int8 or float, got {array.dtype}; convert it first")
        return np.ascontiguousarray(quantised.reshape(-1, info.bytes))

    def watermark(self) -> int:
        """Bytes of arena that one run really touches; equals `arena_bytes` when the plan is."""

        def run() -> None:
            self._input[:] = 0
            self._lib.fl_model_run(self._model)

        return touched_bytes(self._arena, run)

    def _view(self, place: Any, count: int) -> Int8:
        return np.frombuffer(self._ffi.buffer(place, count), np.int8)

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
