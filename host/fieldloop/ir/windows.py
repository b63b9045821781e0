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
    """[n, out_h, out_w, c_out] of x and w in float64: sums of products, padded with 0."""
    assert op.window is not None
    if op.kind is OpKind.CONV2D:
        patches = windows(x, op.window, out, 0.0)
        per_in, per_out = x.shape[3] // op.groups, w.shape[0] // op.groups
        groups = [
            np.tensordot(
                patches[:, :, :, g * per_in : (g + 1) * per_in],
                w[g * per_out : (g + 1) * per_out],
                ([4, 5, 3], [1, 2, 3]),
            )
            for g in range(op.groups)
        ]
        return groups[0] if op.groups == 1 else np.concatenate(groups, axis=3)
    # depthwise: tap by tap
    (sh, sw), (dh, dw) = op.window.stride, op.window.dilation
    padded = _padded(x, op.window, out, 0.0)
    if w.shape[3] != x.shape[3]:
        padded = np.repeat(padded, w.shape[3] // x.shape[3], axis=3)
    y = np.zeros((x.shape[0], *out, w.shape[3]), np.float64)
    for ky in range(w.shape[1]):
        rows = slice(ky * dh, ky * dh + (out[0] - 1) * sh + 1, sh)
        for kx in range(w.shape[2]):
            cols = slice(kx * dw, kx * dw + (out[1] - 1) * sw + 1, sw)
            y += padded[:, rows, cols] * w[0, ky, kx]
    return y
