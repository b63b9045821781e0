"""The backward kernels of the C core on numpy arrays, for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fieldloop.runtime.core import core

Array = np.ndarray[Any, Any]


def c(array: Array | None, ctype: str) -> Any:
    """Memory of an array for C; None is NULL."""
    ffi, _ = core()
    return ffi.NULL if array is None else ffi.cast(ctype, array.ctypes.data)


def f32(*shape: int) -> Array:
    """Memory for a result, full of NaN, so that what a kernel leaves out is seen."""
    return np.full(shape, np.nan, np.float32)


@dataclass(frozen=True)
class Conv:
    """A convolution's or pool's window and maps; `pads` are top and left."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int]
    in_shape: tuple[int, int, int]  # h, w, c
    out_shape: tuple[int, int, int]
    multiplier: int = 1

    @property
    def positions(self) -> int:
        return self.out_shape[0] * self.out_shape[1]

    def c_params(self) -> Any:
        ffi, _ = core()
        p = ffi.new("fl_conv_params_t *")
        p.kernel_h, p.kernel_w = self.kernel
        p.stride_h, p.stride_w = self.stride
        p.dilation_h, p.dilation_w = self.dilation
        p.pad_top, p.pad_left = self.pads
        p.depth_multiplier = self.multiplier
        return p

    def c_dims(self) -> Any:
        ffi, _ = core()
        return ffi.new("fl_map_dims_t *", [*self.in_shape, *self.out_shape])


def scales(values: Array) -> Any:
    """fl_row_scales_t of one scale or one per row; the caller keeps `values` alive."""
    ffi, _ = core()
    return ffi.new("fl_row_scales_t *", [c(values, "float *"), int(values.size > 1)])


def update(
    lr: float, x_scale: float, x_zero: int, w_scale: Array, key: int = 1
) -> tuple[Any, Array]:
    """fl_update_t, and the array it points to."""
    ffi, _ = core()
    u = ffi.new("fl_update_t *")
    u.lr, u.x_scale, u.x_zero, u.key = lr, x_scale, x_zero, key
    u.w_scale = scales(w_scale)[0]
    return u, w_scale


def top_k(delta: Array, k: int) -> Array:
    _, lib = core()
    kept = np.empty(k, np.uint16)
    lib.fl_top_k(c(delta, "float *"), delta.size, k, c(kept, "uint16_t *"))
    return kept


def group_by_channel(kept: Array, positions: int, channels: int) -> Array:
    _, lib = core()
    grouped = kept.copy()
    lib.fl_group_by_channel(c(grouped, "uint16_t *"), grouped.size, positions, channels)
    return grouped


def count(kept: Array | None, everything: int) -> int:
    return everything if kept is None else int(kept.size)


def fully_connected_input(delta: Array, kept: Array | None, w: Array, w_scale: Array) -> Array:
    _, lib = core()
    out = f32(w.shape[1])
    lib.fl_backward_fully_connected_input(
        c(delta, "float *"),
        c(kept, "uint16_t *"),
        count(kept, delta.size),
        c(w, "int8_t *"),
        scales(w_scale),
        w.shape[1],
        c(out, "float *"),
    )
    return out


def conv_input(
    kind: str, conv: Conv, delta: Array, kept: Array | None, w: Array, w_scale: Array
) -> Array:
    """kind: "conv2d" or "depthwise_conv2d"."""
    _, lib = core()
    out = f32(*conv.in_shape)
    getattr(lib, f"fl_backward_{kind}_input")(
        conv.c_params(),
        conv.c_dims(),
        c(delta, "float *"),
        c(kept, "uint16_t *"),
        count(kept, delta.size),
        c(w, "int8_t *"),
        scales(w_scale),
        c(out, "float *"),
    )
    return out


def conv_row(
    kind: str,
    conv: Conv,
    delta: Array,
    grouped: Array | None,
    channel: int,
    x: Array,
    x_zero: int,
) -> Array:
    """Gradient of one output channel; `grouped` holds entries of that channel only."""
    _, lib = core()
    channels = conv.in_shape[2] if kind == "conv2d" else 1
    row = f32(*conv.kernel, channels)
    getattr(lib, f"fl_backward_{kind}_row")(
        conv.c_params(),
        conv.c_dims(),
        c(delta, "float *"),
        c(grouped, "uint16_t *"),
        count(grouped, conv.positions),
        channel,
        c(x, "int8_t *"),
        x_zero,
        c(row, "float *"),
    )
    return row


def pool_input(kind: str, conv: Conv, x: Array, delta: Array) -> Array:
    """kind: "max_pool" or "avg_pool"."""
    _, lib = core()
    out = f32(*conv.in_shape)
    maps = [c(x, "int8_t *")] if kind == "max_pool" else []
    getattr(lib, f"fl_backward_{kind}")(
        conv.c_params(), conv.c_dims(), *maps, c(delta, "float *"), c(out, "float *")
    )
    return out
