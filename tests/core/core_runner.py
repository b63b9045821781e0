"""Runs images through the C core, straight over its public headers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fieldloop.ir.graph import Graph
from fieldloop.ir.tensor import Array
from fieldloop.runtime.core import core, error_name
from fieldloop.runtime.model import aligned_bytes, pointer


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
        """int8 outputs [n, output elements] for int8 inputs [n, ...]."""
        size = self.lib.fl_model_output_info(self.model, 0).bytes
        outputs = []
        for sample in zip(*inputs, strict=True):
            for i, value in enumerate(sample):
                raw = np.ascontiguousarray(value, np.int8).tobytes()
                assert len(raw) == self.lib.fl_model_input_info(self.model, i).bytes
                self.ffi.memmove(self.lib.fl_model_input(self.model, i), raw, len(raw))
            assert self.lib.fl_model_run(self.model) == 0
            place: Any = self.lib.fl_model_output(self.model, 0)
            outputs.append(np.frombuffer(self.ffi.buffer(place, size), np.int8).copy())
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
    """int8 inputs [count, ...] for every input of a graph; some of them extremes only."""
    arrays = []
    for name in graph.inputs:
        shape = (count, *graph.tensors[name].shape)
        x = rng.integers(-128, 128, shape).astype(np.int8)
        x[0] = rng.choice(np.array([-128, 127], np.int8), shape[1:])
        arrays.append(x)
    return arrays
