"""Windows over an NHWC array: what both references use to walk convolutions and pools."""

from __future__ import annotations

import numpy as np

from fieldloop.ir.op import Op, OpKind, Window
from fieldloop.ir.tensor import Array


def _padded(x: Array, window: Window, out: tuple[int, int], fill: float) -> Array:
    """x [n, h, w, c] from the first to the last row and column that a window reaches."""
    (eh, ew), (sh, sw) = window.extent, window.stride
    top, _, left, _ = window.pads
    # A stride may leave the input's last rows unread.
    rows, cols = (out[0] - 1) * sh + eh, (out[1] - 1) * sw + ew
    n, h, w, c = x.shape
    padded = np.full((n, rows, cols, c), fill, x.dtype)
    h_used, w_used = min(h, rows - top), min(w, cols - left)
    padded[:, top : top + h_used, left : left + w_used] = x[:, :h_used, :w_used]
    return padded


def windows(x: Array, window: Window, out: tuple[int, int], fill: float) -> Array:
    """A view [n, out_h, out_w, c, kernel_h, kernel_w] of x [n, h, w, c], padded with `fill`."""
    (sh, sw), (dh, dw) = window.stride, window.dilation
    padded = _padded(x, window, out, fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, window.extent, axis=(1, 2))
    return view[:, ::sh, ::sw, :, ::dh, ::dw]


def convolve(op: Op, x: Array, w: Array, out: tuple[int, int]) -> Array:
    """[n, out_h, out_w, c_out] of x and w in float64: sums of products, padded with 0.

    Tap by tap: the patches of a whole batch would take kernel_h * kernel_w times its memory.
    """
    assert op.window is not None
    (sh, sw), (dh, dw) = op.window.stride, op.window.dilation
    padded = _padded(x, op.window, out, 0.0)
    is_depthwise = op.kind is OpKind.DEPTHWISE_CONV2D
    if is_depthwise and w.shape[3] != x.shape[3]:
        padded = np.repeat(padded, w.shape[3] // x.shape[3], axis=3)
    y = np.zeros((x.shape[0], *out, w.shape[3 if is_depthwise else 0]), np.float64)
    for ky in range(w.shape[1]):
        rows = slice(ky * dh, ky * dh + (out[0] - 1) * sh + 1, sh)
        for kx in range(w.shape[2]):
            cols = slice(kx * dw, kx * dw + (out[1] - 1) * sw + 1, sw)
            seen = padded[:, rows, cols]
            y += seen * w[0, ky, kx] if is_depthwise else _mix(seen, w[:, ky, kx], op.groups)
    return y


def _mix(x: Array, w: Array, groups: int) -> Array:
    """Each pixel of x [n, h, w, c] times w [c_out, c / groups]: a linear map of its channels."""
    pixels = x.reshape(-1, x.shape[3])  # one large product is much faster than one a row
    if groups == 1:
        y = pixels @ w.T
    else:
        per_in, per_out = x.shape[3] // groups, w.shape[0] // groups
        parts = [
            pixels[:, g * per_in : (g + 1) * per_in] @ w[g * per_out : (g + 1) * per_out].T
            for g in range(groups)
        ]
        y = np.concatenate(parts, axis=1)
    return np.asarray(y.reshape(*x.shape[:3], w.shape[0]))
