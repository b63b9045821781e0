"""Runs images through the C core, straight over its public headers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import OpKind
from fieldloop.ir.tensor import Array, DType
from fieldloop.runtime.core import core, error_name
from fieldloop.runtime.model import aligned_bytes, pointer

DTYPES = (np.dtype(np.int8), np.dtype(np.int32), np.dtype(np.float32))  # by fl_dtype_t


class CoreModel:
    """An image opened and bound to its inference plan, with as many inputs as it has."""

    def __init__(self, image: bytes) -> None:
        self.ffi, self.lib = core()
        self.flash = aligned_bytes(len(image))
        self.flash[:] = np.frombuffer(image, np.uint8)
        self.model = self.ffi.new("fl_model_t *")
        code = self.lib.fl_model_open(self.model, pointer(self.flash), len(image))
        assert code == 0, error_name(code)
        need = self.lib.fl_model_arena_bytes(self.model, self.lib.FL_PLAN_INFER)
        self.arena = aligned_bytes(need)
        code = self.lib.fl_model_bind(
            self.model, self.lib.FL_PLAN_INFER, pointer(self.arena), need
        )
        assert code == 0, error_name(code)

    def run(self, *inputs: Array) -> Array:
        """Outputs [n, output elements] for inputs [n, ...], in the dtypes of the model."""
        info = self.lib.fl_model_output_info(self.model, 0)
        size = info.bytes
        outputs = []
        for sample in zip(*inputs, strict=True):
            for i, value in enumerate(sample):
                dtype = DTYPES[self.lib.fl_model_input_info(self.model, i).dtype]
                raw = np.ascontiguousarray(value, dtype).tobytes()
                assert len(raw) == self.lib.fl_model_input_info(self.model, i).bytes
                self.ffi.memmove(self.lib.fl_model_input(self.model, i), raw, len(raw))
            assert self.lib.fl_model_run(self.model) == 0
            place: Any = self.lib.fl_model_output(self.model, 0)
            made = np.frombuffer(self.ffi.buffer(place, size), DTYPES[info.dtype])
            outputs.append(made.copy())
        return np.array(outputs)


def check_image(image: bytes | Array, *, skip: int = 0) -> str:
    """Name of what fl_image_check says; `skip`: bytes off the 16-byte boundary."""
    ffi, lib = core()
    data = np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image
    flash = aligned_bytes(len(data) + 16)
    flash[skip : skip + len(data)] = data
    code = lib.fl_image_check(ffi.cast("void *", flash.ctypes.data + skip), len(data))
    return "FL_OK" if code == 0 else error_name(code)


def random_inputs(graph: Graph, rng: np.random.Generator, count: int) -> list[Array]:
    """Inputs [count, ...] for every input of a graph; of int8 ones some are extremes only."""
    arrays = []
    for name in graph.inputs:
        tensor = graph.tensors[name]
        shape = (count, *tensor.shape)
        if tensor.dtype is DType.FLOAT32:
            x = rng.normal(0, 3, shape).astype(np.float32)
        elif any(op.kind is OpKind.EMBEDDING for op in graph.ops):
            x = rng.integers(0, graph.tensors["table"].shape[0], shape).astype(np.int32)
        else:
            x = rng.integers(-128, 128, shape).astype(np.int8)
            x[0] = rng.choice(np.array([-128, 127], np.int8), shape[1:])
        arrays.append(x)
    return arrays
