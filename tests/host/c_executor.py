"""Runs an image through the C core by its public headers, for tests of what the compiler makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fieldloop.errors import FieldloopError
from fieldloop.ir.tensor import Array
from fieldloop.runtime.core import core, error_name


def c_core() -> tuple[Any, Any]:
    """(ffi, lib), or skips where there is no compiler."""
    try:
        return core()
    except FieldloopError as error:
        if "no C compiler" in str(error):
            pytest.skip(str(error))
        raise


def aligned_buffer(count: int) -> Array:
    """`count` bytes at a 16-byte boundary."""
    room = np.zeros(count + 16, np.uint8)
    skip = -room.ctypes.data % 16
    return room[skip : skip + count]


def run_c(image: bytes, samples: Array, *, plan_kind: int = 0) -> Array:
    """int8 outputs [n, output elements] of an image for int8 samples [n, ...]."""
    ffi, lib = c_core()
    flash = aligned_buffer(len(image))
    flash[:] = np.frombuffer(image, np.uint8)
    model = ffi.new("fl_model_t *")

    def check(code: int, what: str) -> None:
        assert code == 0, f"{what}: {error_name(code)}"

    check(lib.fl_model_open(model, ffi.from_buffer(flash), len(image)), "open")
    need = lib.fl_model_arena_bytes(model, plan_kind)
    arena = aligned_buffer(need)
    check(lib.fl_model_bind(model, plan_kind, ffi.from_buffer(arena), need), "bind")
    outputs = []
    for sample in samples:
        raw = np.ascontiguousarray(sample, np.int8).tobytes()
        ffi.memmove(lib.fl_model_input(model, 0), raw, len(raw))
        check(lib.fl_model_run(model), "run")
        size = lib.fl_model_output_info(model, 0).bytes
        outputs.append(
            np.frombuffer(ffi.buffer(lib.fl_model_output(model, 0), size), np.int8).copy()
        )
    return np.array(outputs)
