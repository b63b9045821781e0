"""Bytes that move over themselves: what windows of rows do before new rows come."""

from __future__ import annotations

import numpy as np
import pytest

from fieldloop.runtime.core import load


@pytest.mark.parametrize("variant", ["plain", "dsp", "mve"])
def test_every_length_and_overlap(variant: str) -> None:
    ffi, lib = load(variant)
    rng = np.random.default_rng(0)
    for count in (*range(40), 63, 64, 65, 200):
        for away in (1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 40):
            for source, target in ((away, 0), (0, away), (away, away)):
                room = rng.integers(0, 256, 300, dtype=np.uint8)
                wanted = room.copy()
                wanted[target + 5 : target + 5 + count] = room[source + 5 : source + 5 + count]
                start = ffi.cast("uint8_t *", room.ctypes.data) + 5
                lib.fl_move(count, start + source, start + target)
                assert (room == wanted).all(), (count, source, target)
