"""The backward kernels of the C core on numpy arrays, for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass, field
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


def count(kept: Array | None, everything: int) -> int:
    return everything if kept is None else int(kept.size)


# ---- spots ----


def spots(places: Array, deltas: Array) -> Any:
    """fl_spot_t[] of places [n, 2] (y, x) and f32 deltas [n]."""
    ffi, _ = core()
    made = ffi.new("fl_spot_t[]", max(1, len(deltas)))
    for spot, (y, x), delta in zip(made, places.tolist(), deltas.tolist(), strict=False):
        spot.y, spot.x, spot.delta.f = y, x, delta
    return made


def all_spots(conv: Conv, delta: Array, channel: int) -> tuple[Array, Array]:
    """Places and deltas of every entry of a channel that is not 0, positions ascending."""
    values = delta.reshape(conv.positions, -1)[:, channel]
    kept = np.flatnonzero(values)
    return np.stack([kept // conv.out_shape[1], kept % conv.out_shape[1]], 1), values[kept]


def spots_input(
    kind: str,
    conv: Conv,
    places: Array,
    deltas: Array,
    channel: int,
    w: Array,
    scale: float,
    delta_in: Array,
) -> None:
    """Adds to `delta_in`; w as the layer has it: OHWI, or [kh, kw, c] for depthwise."""
    _, lib = core()
    head = (conv.c_params(), conv.c_dims(), spots(places, deltas), len(deltas))
    out = c(delta_in, "float *")
    if kind == "conv2d":
        row = np.ascontiguousarray(w[channel])
        lib.fl_spots_conv2d_input(*head, c(row, "int8_t *"), scale, out)
    else:
        lib.fl_spots_depthwise_conv2d_input(*head, channel, c(w, "int8_t *"), scale, out)


def spots_row(
    kind: str,
    conv: Conv,
    places: Array,
    deltas: Array,
    channel: int,
    x: Array,
    x_zero: int,
    row: Array,
) -> None:
    """Adds to `row`."""
    _, lib = core()
    head = (conv.c_params(), conv.c_dims(), spots(places, deltas), len(deltas))
    tail = (c(x, "int8_t *"), x_zero, c(row, "float *"))
    if kind == "conv2d":
        lib.fl_spots_conv2d_row(*head, *tail)
    else:
        lib.fl_spots_depthwise_conv2d_row(*head, channel, *tail)


def rows_input(
    delta: Array, rows: Array | None, w: Array, w_scale: Array, delta_in: Array
) -> None:
    """Adds to `delta_in`."""
    _, lib = core()
    lib.fl_rows_fully_connected_input(
        c(delta, "float *"),
        c(rows, "uint16_t *"),
        count(rows, delta.size),
        c(w, "int8_t *"),
        scales(w_scale),
        w.shape[1],
        c(delta_in, "float *"),
    )


# ---- writing a row ----


@dataclass
class Trained:
    """What fl_trained_t points to: w [rows, n], or [n, rows] where `step` is rows."""

    w: Array
    low: Array | None = None
    master: Array | None = None
    moment1: Array | None = None
    moment2: Array | None = None
    depthwise: bool = False

    @property
    def rows(self) -> int:
        return int(self.w.shape[1] if self.depthwise else self.w.shape[0])

    def c_struct(self) -> Any:
        ffi, _ = core()
        t = ffi.new("fl_trained_t *")
        t.w, t.low = c(self.w, "int8_t *"), c(self.low, "int8_t *")
        t.master = c(self.master, "float *")
        t.moment1, t.moment2 = c(self.moment1, "float *"), c(self.moment2, "float *")
        t.row_stride, t.step = (1, self.rows) if self.depthwise else (self.w.shape[1], 1)
        return t


@dataclass(frozen=True)
class Rule:
    """fl_step_rule_t; `w_scale` holds one scale or one a row."""

    w_scale: Array
    lr: float = 0.1
    x_scale: float = 0.5
    x_zero: int = 0
    key: int = 1
    max_step: int = 254
    beta1: float = 0.9
    beta2: float = 0.999
    decay1: float = 0.9
    decay2: float = 0.999
    clipped: Array = field(default_factory=lambda: np.zeros(1, np.uint64))

    def c_struct(self) -> Any:
        ffi, _ = core()
        u = ffi.new("fl_step_rule_t *")
        for name in ("lr", "x_scale", "x_zero", "key", "max_step"):
            setattr(u, name, getattr(self, name))
        for name in ("beta1", "beta2", "decay1", "decay2"):
            setattr(u, name, getattr(self, name))
        u.w_scale = scales(self.w_scale)[0]
        u.clipped = c(self.clipped, "uint64_t *")
        return u


def step_row(rule: Rule, trained: Trained, row: int, gradient: Array) -> None:
    _, lib = core()
    u, t = rule.c_struct(), trained.c_struct()
    lib.fl_step_row(u, t, row, c(gradient, "float *"), gradient.size)


def step_fully_connected_row(
    rule: Rule, trained: Trained, row: int, delta: float, x: Array
) -> None:
    _, lib = core()
    u, t = rule.c_struct(), trained.c_struct()
    lib.fl_step_fully_connected_row(u, t, row, delta, c(x, "int8_t *"), x.size)


def step_bias(
    rule: Rule, row: int, total: float, index: int, b: Array, moments: Array | None
) -> None:
    """Bias `row` of b; moments [2, rows], or [1, rows] of momentum alone."""
    ffi, lib = core()
    m = [ffi.NULL, ffi.NULL]
    for i in range(0 if moments is None else len(moments)):
        m[i] = c(moments[i], "float *") + row  # type: ignore[index]
    lib.fl_step_bias(rule.c_struct(), row, total, index, c(b, "int32_t *") + row, *m)
