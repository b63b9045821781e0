"""Windows over an NHWC array: what both references use to walk convolutions and pools."""

from __future__ import annotations

import numpy as np

from fieldloop.ir.op import Window
from fieldloop.ir.tensor import Array


def windows(x: Array, window: Window, out: tuple[int, int], fill: float) -> Array:
    """A view [n, out_h, out_w, c, kernel_h, kernel_w] of x [n, h, w, c], padded with `fill`."""
    (eh, ew), (sh, sw), (dh, dw) = window.extent, window.stride, window.dilation
    top, _, left, _ = window.pads
    # Rows that the last window reaches; a stride may leave the input's last rows unread.
    rows, cols = (out[0] - 1) * sh + eh, (out[1] - 1) * sw + ew
    n, h, w, c = x.shape
    padded = np.full((n, rows, cols, c), fill, x.dtype)
    h_used, w_used = min(h, rows - top), min(w, cols - left)
    padded[:, top : top + h_used, left : left + w_used] = x[:, :h_used, :w_used]
    view = np.lib.stride_tricks.sliding_window_view(padded, (eh, ew), axis=(1, 2))
    return view[:, ::sh, ::sw, :, ::dh, ::dw]
