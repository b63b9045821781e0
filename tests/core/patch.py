"""A good image taken apart: its tables as writable arrays, so that a test can spoil one field."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from fieldloop.image import format as f


class Patch:
    """Views into one buffer; `bytes()` sets the CRC right and gives the image."""

    def __init__(self, image: bytes) -> None:
        self.raw = bytearray(image)
        self.header: Any = np.frombuffer(self.raw, f.HEADER, 1)[0:1]
        count = int(self.header["section_count"][0])
        self.table: Any = np.frombuffer(self.raw, f.SECTION, count, f.HEADER.itemsize)
        self.tensors: Any = self.section(f.Section.TENSORS, f.TENSOR)
        self.ops: Any = self.section(f.Section.OPERATORS, f.OP)
        self.io: Any = self.section(f.Section.IO, np.dtype("<u2"))

    def row(self, kind: f.Section, nth: int = 0) -> Any:
        """The section table's entry."""
        return self.table[np.flatnonzero(self.table["type"] == kind)[nth : nth + 1]]

    def where(self, kind: f.Section, nth: int = 0) -> int:
        """Index of a section in the table."""
        return int(np.flatnonzero(self.table["type"] == kind)[nth])

    def section(self, kind: f.Section, layout: np.dtype[Any], nth: int = 0, skip: int = 0) -> Any:
        """The records of a section, `skip` bytes into it."""
        row = self.table[self.where(kind, nth)]
        length = (int(row["bytes"]) - skip) // layout.itemsize
        return np.frombuffer(self.raw, layout, length, int(row["offset"]) + skip)

    def plan(self, nth: int = 0) -> tuple[Any, Any]:
        """A plan's head and its offsets."""
        return (
            self.section(f.Section.PLAN, f.PLAN, nth)[:1],
            self.section(f.Section.PLAN, np.dtype("<u4"), nth, f.PLAN.itemsize),
        )

    def op(self, opcode: f.Opcode) -> Any:
        """The first operator of a kind, as an array of one."""
        return self.ops[self.op_index(opcode) :][:1]

    def op_index(self, opcode: f.Opcode) -> int:
        return int(np.flatnonzero(self.ops["opcode"] == opcode)[0])

    def params(self, opcode: f.Opcode, layout: np.dtype[Any]) -> Any:
        """The parameters of the first operator of a kind."""
        start = int(self.row(f.Section.OPERATORS)["offset"][0])
        start += self.op_index(opcode) * f.OP.itemsize + f.OP.fields["p"][1]  # type: ignore[index]
        return np.frombuffer(self.raw, layout, 1, start)

    def tensor(self, opcode: f.Opcode, place: int) -> Any:
        """Tensor in[place] of the first operator of a kind; place -1: its output."""
        op = self.op(opcode)[0]
        index = int(op["out"][0] if place < 0 else op["in"][place])
        return self.tensors[index : index + 1]

    def at(self, offset: int, layout: str) -> Any:
        """One number anywhere in the image."""
        return np.frombuffer(self.raw, np.dtype(layout), 1, offset)

    def bytes(self) -> bytes:
        total = min(int(self.header["total_bytes"][0]), len(self.raw))
        self.header["crc32"] = zlib.crc32(self.raw[f.CRC_FROM : total])
        return bytes(self.raw)
