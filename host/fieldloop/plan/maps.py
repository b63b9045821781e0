"""How a tile sees a tensor: rows of pixels of channels (fl_image.h, "maps")."""

from __future__ import annotations

from dataclasses import dataclass

from fieldloop.ir.op import Op, Window

MAX_FIELD = 0xFFFF  # of what a step of the image counts in 16 bits


@dataclass(frozen=True, slots=True)
class Map:
    """Rows, columns and channels, row-major; no padding."""

    rows: int
    width: int
    channels: int

    @property
    def row_elements(self) -> int:
        return self.width * self.channels


def map_of(shape: tuple[int, ...], *, turned: bool = False) -> Map | None:
    """The map of a shape; None for what tiles do not see (several samples of a map).

    `turned`: a map of one row as one of one column.
    """
    if len(shape) == 1:
        return Map(1, 1, shape[0])
    if len(shape) == 2:
        return Map(shape[0], 1, shape[1])
    if len(shape) == 3:
        a, b, c = shape
        return Map(b, 1, c) if a == 1 else Map(a, b, c)
    n, h, w, c = shape
    if n != 1:
        return None
    if turned:
        return Map(w, 1, c) if h == 1 else None
    return Map(h, w, c)


def turned_window(window: Window) -> Window:
    """Height and width exchanged."""
    top, bottom, left, right = window.pads
    return Window(
        kernel=window.kernel[::-1],
        stride=window.stride[::-1],
        dilation=window.dilation[::-1],
        pads=(left, right, top, bottom),
    )


def rows_needed(window: Window | None, first: int, end: int, height: int) -> tuple[int, int]:
    """Input rows [a, b) that output rows [first, end) of a window over `height` rows read.

    Without a window (elementwise operators) they are the same rows.
    """
    if window is None:
        return first, end
    top = window.pads[0]
    a = max(0, first * window.stride[0] - top)
    b = min(height, (end - 1) * window.stride[0] - top + window.extent[0])
    return a, b


def op_window(op: Op, *, turned: bool = False) -> Window | None:
    """The window as a tile sees it."""
    if op.window is None or not turned:
        return op.window
    return turned_window(op.window)
