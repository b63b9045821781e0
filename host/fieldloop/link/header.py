"""SMP messages: the 8-byte header, the CBOR map, and the CRC-32 that ends it."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

from fieldloop.link import cbor
from fieldloop.link.errors import CodecError

HEADER_BYTES = 8
GROUP_OS = 0
GROUP_IMAGES = 1
GROUP_FIELDLOOP = 70
_STRUCT = struct.Struct(">BBHHBB")


class Op(IntEnum):
    READ = 0
    READ_REPLY = 1
    WRITE = 2
    WRITE_REPLY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """SMP version 2. `length` counts the bytes after the header."""

    op: Op
    group: int
    cmd: int
    seq: int
    length: int
    version: int = 1

    def pack(self) -> bytes:
        first = self.version << 3 | self.op
        return _STRUCT.pack(first, 0, self.length, self.group, self.seq, self.cmd)

    @staticmethod
    def unpack(message: bytes) -> Header:
        if len(message) < HEADER_BYTES:
            raise CodecError(f"SMP message of {len(message)} bytes, at least 8 expected")
        first, _flags, length, group, seq, cmd = _STRUCT.unpack_from(message)
        if length != len(message) - HEADER_BYTES:
            raise CodecError(
                f"SMP header announces {length} bytes, {len(message) - HEADER_BYTES} came"
            )
        if first & 7 > Op.WRITE_REPLY:
            raise CodecError(f"SMP operation {first & 7} is unknown, 0 to 3 expected")
        op = Op(first & 7)
        version = first >> 3 & 3
        return Header(op=op, group=group, cmd=cmd, seq=seq, length=length, version=version)


@dataclass(frozen=True, slots=True)
class Message:
    """A decoded message. `checked` tells whether it ended with a `crc`, which then was right."""

    header: Header
    fields: dict[str, cbor.Value]
    checked: bool


def message_crc(op: int, group: int, cmd: int, entries: bytes) -> int:
    """CRC-32 over op, group and command, then the encoded pairs before `crc`."""
    return zlib.crc32(entries, zlib.crc32(struct.pack(">BHB", op, group, cmd)))


def encode_message(
    fields: dict[str, object],
    *,
    op: Op,
    cmd: int,
    seq: int,
    group: int = GROUP_FIELDLOOP,
    check: bool = True,
) -> bytes:
    """Header and map; with `check`, the CRC is appended as the last pair."""
    entries = cbor.dump_entries(fields)
    pairs = len(fields)
    if check:
        entries += cbor.dump_entries({"crc": message_crc(op, group, cmd, entries)})
        pairs += 1
    body = cbor.map_head(pairs) + entries
    if len(body) > 0xFFFF:
        raise CodecError(f"SMP message of {len(body)} bytes, at most 65535 fit")
    return Header(op=op, group=group, cmd=cmd, seq=seq, length=len(body)).pack() + body


def decode_message(message: bytes) -> Message:
    """Parses header and map and checks the CRC where there is one; CodecError when not whole."""
    header = Header.unpack(message)
    reader = cbor.Reader(message, HEADER_BYTES)
    pairs = reader.map_len()
    first = reader.at
    fields: dict[str, cbor.Value] = {}
    last_key: cbor.Value = None
    last_at = first
    done = 0
    while not (reader.at_break() if pairs is None else done == pairs):
        last_at = reader.at
        last_key = reader.value()
        value = reader.value()
        done += 1
        if isinstance(last_key, str):
            fields.setdefault(last_key, value)
    if not reader.at_end:
        raise CodecError("bytes after the CBOR map of an SMP message")
    checked = last_key == "crc"
    if checked:
        expected = message_crc(header.op, header.group, header.cmd, message[first:last_at])
        got = fields.pop("crc")
        if isinstance(got, bool) or got != expected:
            raise CodecError(f"message damaged on the way: crc {expected} expected, got {got!r}")
    return Message(header, fields, checked)
