"""The ROMFS writer: every file at a 16-byte boundary, in records that MicroPython accepts."""

from __future__ import annotations

import pytest

from fieldloop.errors import UsageError
from fieldloop.image.romfs import write_romfs


def varuint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    while True:
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, at


def records(data: bytes, at: int, end: int) -> list[tuple[int, int, int]]:
    """(kind, payload's start, payload's end) of each, by the format's description."""
    found = []
    while at < end:
        kind, at = varuint(data, at)
        length, at = varuint(data, at)
        found.append((kind, at, at + length))
        at += length
    assert at == end
    return found


def files_of(romfs: bytes) -> dict[str, tuple[int, bytes]]:
    """name -> (where its content starts, content)"""
    ((kind, at, end),) = records(romfs, 0, len(romfs))
    assert kind == 0x14A6B1
    found = {}
    for kind, start, stop in records(romfs, at, end):
        if kind == 1:
            continue
        assert kind == 5
        length, name_at = varuint(romfs, start)
        ((inner, data_at, data_end),) = records(romfs, name_at + length, stop)
        assert inner == 2
        found[romfs[name_at : name_at + length].decode()] = (data_at, romfs[data_at:data_end])
    return found


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_every_file_is_aligned_and_whole(count: int) -> None:
    files = {"m" * (i + 1) + ".flm": bytes([i]) * (i * 37 + 1) for i in range(count)}
    romfs = write_romfs(files)
    assert len(romfs) % 2 == 0
    found = files_of(romfs)
    assert {name: content for name, (_, content) in found.items()} == files
    assert all(start % 16 == 0 for start, _ in found.values())


def test_a_long_name_and_a_large_file() -> None:
    name, content = "n" * 127, bytes(range(256)) * 4096
    assert files_of(write_romfs({name: content}))[name][1] == content


@pytest.mark.parametrize("name", ["", "a/b", "ä.flm", "n" * 128, "a\n"])
def test_a_name_that_cannot_be_opened_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a name on a ROMFS"):
        write_romfs({name: b""})
