"""Puts new flatbuffer tables in front of an old file, so that they can refer into it.

A flatbuffer is followed forwards: an offset is unsigned, from where it is written. So a new root
before the old bytes reaches every old table, string and vector, and none of them is touched.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

ALIGNMENT = 64  # the old bytes move by a multiple: more than any vector in them asks for


class Front:
    """The new bytes. Places are offsets from their start; what is referred to comes after."""

    def __init__(self, identifier: bytes) -> None:
        self._bytes = bytearray(4) + identifier
        self._into_old: list[tuple[int, int]] = []

    def put(self, content: bytes, alignment: int, lead: int = 0) -> int:
        """Appends bytes; the one at `lead` comes to lie at a multiple of `alignment`."""
        self._bytes += bytes(-(len(self._bytes) + lead) % alignment) + content
        return len(self._bytes) - len(content)

    def table(self, slots: Sequence[int]) -> tuple[int, list[int]]:
        """A table whose fields are all of four bytes; its place and its fields' places."""
        fields = {slot: 4 + 4 * i for i, slot in enumerate(slots)}
        offsets = [fields.get(slot, 0) for slot in range(max(slots) + 1)]
        layout = struct.pack(
            f"<{2 + len(offsets)}H", 4 + 2 * len(offsets), 4 + 4 * len(slots), *offsets
        )
        vtable = self.put(layout, 2)
        table = self.put(bytes(4 + 4 * len(slots)), 4)
        struct.pack_into("<i", self._bytes, table, table - vtable)
        return table, [table + fields[slot] for slot in slots]

    def vector(self, count: int) -> tuple[int, list[int]]:
        """A vector of offsets; its place and its elements' places."""
        place = self.put(struct.pack("<I", count) + bytes(4 * count), 4)
        return place, [place + 4 + 4 * i for i in range(count)]

    def data(self, content: bytes) -> int:
        """A vector of bytes, aligned to 16 as a tensor's are."""
        return self.put(struct.pack("<I", len(content)) + content, 16, lead=4)

    def text(self, text: str) -> int:
        raw = text.encode()
        return self.put(struct.pack("<I", len(raw)) + raw + b"\0", 4)

    def number(self, place: int, value: int) -> None:
        struct.pack_into("<I", self._bytes, place, value)

    def refer(self, place: int, target: int) -> None:
        """Writes an offset to a later place of the new bytes; place 0 is the root's."""
        self.number(place, target - place)

    def refer_old(self, place: int, target: int) -> None:
        """Writes an offset to a byte of the old file."""
        self._into_old.append((place, target))

    def before(self, old: bytes) -> bytes:
        """The whole file."""
        self.put(b"", ALIGNMENT)
        for place, target in self._into_old:
            self.refer(place, len(self._bytes) + target)
        return bytes(self._bytes) + old
