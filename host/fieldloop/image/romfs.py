"""A ROMFS that holds model images where they can be executed in place.

MicroPython's ROMFS is a read-only file system of nested records, mounted at /rom:

    record = kind (varuint), length of the payload (varuint), payload
    varuint = big-endian groups of 7 bits, the high bit set on all but the last; leading 0x80 bytes
              change nothing, which is why every length here can take the same 5 bytes

A file's bytes lie wherever the records before them end, and neither `mpremote romfs` nor
MicroPython aligns them. An .flm image must start at a multiple of 16 bytes, so a padding record
goes before each file. The partition itself starts at an erase sector, which is aligned.
"""

from __future__ import annotations

from collections.abc import Mapping

from fieldloop.errors import UsageError
from fieldloop.image.format import ALIGN

_MAGIC = b"\xd2\xcd\x31"  # the varuint 0x14a6b1: the file system's own record kind
_PADDING, _DATA, _FILE = b"\x01", b"\x02", b"\x05"
_LENGTH_BYTES = 5


def _length(value: int) -> bytes:
    groups = [(value >> shift) & 0x7F for shift in (28, 21, 14, 7, 0)]
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])


def _record(kind: bytes, payload: bytes) -> bytes:
    return kind + _length(len(payload)) + payload


def write_romfs(files: Mapping[str, bytes]) -> bytes:
    """A ROMFS of `files` (name in its root -> content), each content at a multiple of 16 bytes.

    UsageError for a name that MicroPython could not open.
    """
    out = bytearray()
    start = len(_MAGIC) + _LENGTH_BYTES  # of the file system's payload
    for name, content in files.items():
        if not name.isascii() or not name.isprintable() or "/" in name or not 0 < len(name) < 128:
            raise UsageError(
                f"{name!r} cannot be a name on a ROMFS: expected 1 to 127 printable ASCII "
                "characters without a slash; rename the file"
            )
        head = bytes([len(name)]) + name.encode()
        before_content = 3 * (1 + _LENGTH_BYTES) + len(head)  # padding, file and data records
        gap = -(start + len(out) + before_content) % ALIGN
        out += _record(_PADDING, bytes(gap))
        out += _record(_FILE, head + _record(_DATA, content))
    if (start + len(out)) % 2:  # the format wants an even size: one more padding record
        out += _record(_PADDING, b"\x00")
    return _MAGIC + _length(len(out)) + bytes(out)
