"""The CBOR subset of the link (RFC 8949): exactly what the C codec reads and writes.

Integers of 64 bits signed, byte and text strings, lists, dicts, booleans, None, floats (written as
float32; half, single and double are read). Indefinite-length lists and dicts are read, because
Zephyr sends them. Tags and indefinite-length strings are refused.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

from fieldloop.link.errors import CodecError

Value: TypeAlias = "bool | int | float | bytes | str | list[Value] | dict[Value, Value] | None"

DEPTH = 8  # FL_CBOR_DEPTH
_INT64_MAX = (1 << 63) - 1


class _Break:
    pass


_BREAK = _Break()


def dumps(value: object) -> bytes:
    """Encodes one value, every head in its shortest form."""
    out = bytearray()
    _put(out, value)
    return bytes(out)


def dump_entries(fields: dict[str, object]) -> bytes:
    """The pairs of a map without its head."""
    out = bytearray()
    for key, value in fields.items():
        _put(out, key)
        _put(out, value)
    return bytes(out)


def map_head(pairs: int) -> bytes:
    """The head of a map of that many pairs."""
    return _head(5, pairs)


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major << 5 | value,))
    for ai, fmt in ((24, ">BB"), (25, ">BH"), (26, ">BI"), (27, ">BQ")):
        if value < 1 << (8 << (ai - 24)):
            return struct.pack(fmt, major << 5 | ai, value)
    raise CodecError(f"integer {value} does not fit 64 bits")


def _put(out: bytearray, value: object) -> None:
    if value is None:
        out.append(0xF6)
    elif isinstance(value, bool):
        out.append(0xF5 if value else 0xF4)
    elif isinstance(value, int):
        if not -_INT64_MAX - 1 <= value <= _INT64_MAX:
            raise CodecError(f"integer {value} does not fit 64 bits signed")
        out += _head(0, value) if value >= 0 else _head(1, -1 - value)
    elif isinstance(value, float):
        try:
            out += b"\xfa" + struct.pack(">f", value)
        except OverflowError as e:
            raise CodecError(f"float {value} does not fit float32") from e
    elif isinstance(value, (bytes, bytearray, memoryview)):
        raw = bytes(value)
        out += _head(2, len(raw)) + raw
    elif isinstance(value, str):
        raw = value.encode()
        out += _head(3, len(raw)) + raw
    elif isinstance(value, (list, tuple)):
        out += _head(4, len(value))
        for item in value:
            _put(out, item)
    elif isinstance(value, dict):
        out += _head(5, len(value))
        for key, item in value.items():
            _put(out, key)
            _put(out, item)
    else:
        raise CodecError(
            f"cannot send a {type(value).__name__} over the link: expected None, bool, int, "
            "float, bytes, str, list or dict"
        )


class Reader:
    """A cursor over encoded bytes; every read is checked against the end."""

    __slots__ = ("_data", "at")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at

    @property
    def at_end(self) -> bool:
        return self.at == len(self._data)

    def _take(self, n: int) -> bytes:
        if n > len(self._data) - self.at:
            raise CodecError(
                f"CBOR ends early: {n} bytes expected at offset {self.at}, "
                f"{len(self._data) - self.at} left"
            )
        piece = self._data[self.at : self.at + n]
        self.at += n
        return piece

    def _raw_head(self) -> tuple[int, int, int]:
        first = self._take(1)[0]
        major, ai = first >> 5, first & 31
        value = ai
        if 24 <= ai <= 27:
            value = int.from_bytes(self._take(1 << (ai - 24)), "big")
        elif 27 < ai < 31:
            raise CodecError(f"CBOR item 0x{first:02x} at offset {self.at - 1} is reserved")
        return major, ai, value

    def map_len(self) -> int | None:
        """Reads a map's head; None for an indefinite one."""
        major, ai, value = self._raw_head()
        if major != 5:
            raise CodecError(f"expected a CBOR map, got major type {major}")
        if ai == 31:
            return None
        self._check_count(2 * value)
        return value

    def at_break(self) -> bool:
        """Takes the end mark of an indefinite map or list, if it stands here."""
        if self._data[self.at : self.at + 1] == b"\xff":
            self.at += 1
            return True
        return False

    def _check_count(self, items: int) -> None:
        if items > len(self._data) - self.at:
            raise CodecError(
                f"CBOR count {items} exceeds the {len(self._data) - self.at} bytes left"
            )

    def value(self) -> Value:
        """Reads one whole value."""
        item = self._item(0)
        if isinstance(item, _Break):
            raise CodecError(f"CBOR break at offset {self.at - 1} ends nothing")
        return item

    def _item(self, depth: int) -> Value | _Break:
        start = self.at
        major, ai, value = self._raw_head()
        if major <= 1:
            if ai == 31:
                raise CodecError(f"CBOR integer at offset {start} has no length")
            if value > _INT64_MAX:
                raise CodecError(f"CBOR integer at offset {start} exceeds 64 bits signed")
            return value if major == 0 else -1 - value
        if major <= 3:
            if ai == 31:
                raise CodecError(f"CBOR string of indefinite length at offset {start}")
            raw = self._take(value)
            if major == 2:
                return raw
            try:
                return raw.decode()
            except UnicodeDecodeError as e:
                raise CodecError(f"CBOR text at offset {start} is not UTF-8") from e
        if major <= 5:
            return self._container(depth, major, None if ai == 31 else value)
        if major == 7:
            return self._simple(start, ai, value)
        raise CodecError(f"CBOR tag at offset {start} is outside the subset")

    def _container(self, depth: int, major: int, count: int | None) -> Value:
        if depth == DEPTH:
            raise CodecError(f"CBOR nested deeper than {DEPTH}")
        if count is not None:
            self._check_count(count * (major - 3))
        items: list[Value] = []
        pairs: dict[Value, Value] = {}
        done = 0
        while count is None or done < count:
            key = self._item(depth + 1)
            if isinstance(key, _Break):
                if count is not None:
                    raise CodecError("CBOR break inside a list or map of definite length")
                break
            done += 1
            if major == 4:
                items.append(key)
                continue
            value = self._item(depth + 1)
            if isinstance(value, _Break):
                raise CodecError("CBOR map ends between a key and its value")
            if isinstance(key, (list, dict)):
                raise CodecError("CBOR map with a list or map as a key")
            pairs.setdefault(key, value)  # the first of two equal keys wins, as in C
        return items if major == 4 else pairs

    def _simple(self, start: int, ai: int, value: int) -> Value | _Break:
        if ai in (20, 21):
            return ai == 21
        if ai in (22, 23):
            return None
        if ai == 25:
            return float(struct.unpack(">e", value.to_bytes(2, "big"))[0])
        if ai == 26:
            return float(struct.unpack(">f", value.to_bytes(4, "big"))[0])
        if ai == 27:
            return float(struct.unpack(">d", value.to_bytes(8, "big"))[0])
        if ai == 31:
            return _BREAK
        raise CodecError(f"CBOR simple value {value} at offset {start} is outside the subset")


def loads(data: bytes) -> Value:
    """Decodes exactly one value; CodecError on anything else."""
    reader = Reader(bytes(data))
    value = reader.value()
    if not reader.at_end:
        raise CodecError(f"{len(data) - reader.at} bytes after the CBOR value")
    return value
