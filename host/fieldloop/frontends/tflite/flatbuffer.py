"""Reads flatbuffers by slot number, every access checked: the bytes come from outside.

A table is a position; at that position a signed offset leads back to its vtable, which says where
each slot's value lies within the table (0: it has its default). Strings, vectors and tables are
reached by an unsigned offset from where the offset is written. All little-endian.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from fieldloop.frontends.builder import UnsupportedModelError
from fieldloop.ir.tensor import Array

MAX_TEXT = 1_000


def damaged(where: int, what: str) -> UnsupportedModelError:
    """The one way a file that is no flatbuffer ends."""
    return UnsupportedModelError(
        f"the .tflite file is damaged at byte {where}: {what}; export or copy the model again"
    )


class Table:
    """A table of a flatbuffer. Errors: UnsupportedModelError where it points out of the file."""

    __slots__ = ("_data", "_position", "_slots")

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position
        vtable = position - _unpack(data, position, "<i")
        size = _unpack(data, vtable, "<H")
        if size < 4 or vtable + size > len(data):
            raise damaged(vtable, f"a table's layout of {size} bytes")
        self._slots: npt.NDArray[np.uint16] = np.frombuffer(data, "<u2", size // 2 - 2, vtable + 4)

    @classmethod
    def root(cls, data: bytes) -> Table:
        """The table that the first four bytes of a file point to."""
        return cls(data, _unpack(data, 0, "<I"))

    def _place(self, slot: int) -> int | None:
        if slot >= len(self._slots) or not self._slots[slot]:
            return None
        return self._position + int(self._slots[slot])

    def _target(self, slot: int) -> int | None:
        place = self._place(slot)
        return None if place is None else place + int(_unpack(self._data, place, "<I"))

    def vector(self, slot: int) -> int | None:
        """Where a vector's count lies in the file; its elements follow."""
        return self._target(slot)

    def has(self, slot: int) -> bool:
        """Whether a value is written there."""
        return self._place(slot) is not None

    def number(self, slot: int, layout: str, default: int = 0) -> int:
        """A scalar, by struct's letter: b B h H i I q Q."""
        place = self._place(slot)
        return default if place is None else _unpack(self._data, place, f"<{layout}")

    def flag(self, slot: int, default: bool = False) -> bool:
        return bool(self.number(slot, "B", int(default)))

    def real(self, slot: int, default: float = 0.0) -> float:
        """A float32."""
        place = self._place(slot)
        if place is None:
            return default
        _check(self._data, place, 4)
        return float(struct.unpack_from("<f", self._data, place)[0])

    def table(self, slot: int) -> Table | None:
        target = self._target(slot)
        return None if target is None else Table(self._data, target)

    def array(self, slot: int, dtype: str) -> Array | None:
        """A vector of scalars, a view of the file; None where there is none."""
        target = self._target(slot)
        if target is None:
            return None
        count, item = _unpack(self._data, target, "<I"), np.dtype(dtype).itemsize
        _check(self._data, target + 4, count * item)
        return np.frombuffer(self._data, dtype, count, target + 4)

    def count(self, slot: int) -> int:
        """How many elements the vector of a slot says it has."""
        target = self._target(slot)
        return 0 if target is None else _unpack(self._data, target, "<I")

    def tables(self, slot: int, most: int) -> list[Table]:
        """A vector of tables; at most `most`, because each costs time and a file may lie."""
        target = self._target(slot)
        if target is None:
            return []
        count = _unpack(self._data, target, "<I")
        _check(self._data, target + 4, count * 4)
        if count > most:
            raise damaged(target, f"{count} entries, expected at most {most}")
        places = range(target + 4, target + 4 + 4 * count, 4)
        return [Table(self._data, at + _unpack(self._data, at, "<I")) for at in places]

    def text(self, slot: int) -> str:
        """A name: what cannot be printed in one line is replaced, what is too long cut off."""
        raw = self.array(slot, "u1")
        text = "" if raw is None else raw[:MAX_TEXT].tobytes().decode("utf-8", "replace")
        return "".join(char if char.isprintable() else "?" for char in text)


def _check(data: bytes, position: int, count: int) -> None:
    if position < 0 or position + count > len(data):
        raise damaged(position, f"{count} bytes wanted, the file has {len(data)}")


def _unpack(data: bytes, position: int, layout: str) -> int:
    _check(data, position, struct.calcsize(layout))
    return int(struct.unpack_from(layout, data, position)[0])
