"""Flash on the host, and the store and the slot writer of the C core over it.

`NorFlash` keeps its bytes in a file (it survives the process) or in memory. It enforces the rules
of NOR flash more strictly than any part does, and can lose power after or inside its n-th
operation.
`Store` and `write_slot` are thin: the work is done by the device's own C.
"""

from __future__ import annotations

import mmap
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fieldloop.errors import DoesNotFitError, FieldloopError, VersionError
from fieldloop.runtime.core import core, error_name

ANY_TYPE = 0
UID_BYTES = 16

_EIO = -5
_ENOENT = -2
_ENOSPC = -28
_ENOTSUP = -95


class NorFlash:
    """A NOR flash of `sector_count` sectors; `path` None keeps it in memory.

    A unit may be programmed only when this object has erased its sector to the end, and once. What
    was opened from a file, or torn by a power cut, is not known to be erased, whatever it reads. A
    broken rule fails the call, and `check()` raises what it was.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        sector_bytes: int = 4096,
        sector_count: int = 16,
        prog_bytes: int = 8,
    ) -> None:
        self.sector_bytes = sector_bytes
        self.sector_count = sector_count
        self.prog_bytes = prog_bytes
        size = sector_bytes * sector_count
        self._file = None
        self._bytes: mmap.mmap | bytearray = bytearray(b"\xff" * size)
        if path is not None:
            if not path.exists():
                path.write_bytes(b"\xff" * size)
            if path.stat().st_size != size:
                raise FieldloopError(
                    f"flash file {path}: expected {size} bytes ({sector_count} sectors of "
                    f"{sector_bytes}), got {path.stat().st_size}; delete it or name its geometry"
                )
            self._file = path.open("r+b")
            self._bytes = mmap.mmap(self._file.fileno(), size)
        self._clean = bytearray(size // prog_bytes)
        self.operations = 0  # programs and erases so far
        self.erases = [0] * sector_count
        self.has_power = True
        self._cut_in: int | None = None
        self._cut_inside: random.Random | None = None
        self.broken_rule: str | None = None
        self._handles: list[Any] = []
        self.c_flash = self._make_c_flash()

    def __enter__(self) -> NorFlash:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets the file go; may be called twice."""
        if isinstance(self._bytes, mmap.mmap) and not self._bytes.closed:
            self._bytes.flush()
            self._bytes.close()
        if self._file is not None:
            self._file.close()

    def image(self) -> bytes:
        """All bytes as they read now."""
        return bytes(self._bytes)

    def fail_after(self, n: int) -> None:
        """Power is lost right after the n-th program or erase from now (1 = the next)."""
        self._cut_in, self._cut_inside = n, None

    def fail_inside(self, n: int, seed: int) -> None:
        """Power is lost inside the n-th program or erase from now; `seed` draws what it leaves."""
        self._cut_in, self._cut_inside = n, random.Random(seed)

    def power_on(self) -> None:
        """Power is back; no further cut is planned. Nothing is known to be erased any more."""
        self.has_power = True
        self._cut_in = None
        self._clean = bytearray(len(self._clean))

    def check(self) -> None:
        """Raises when a rule was broken."""
        if self.broken_rule is not None:
            raise FieldloopError(f"NOR flash: {self.broken_rule}")

    def _breaks(self, rule: str) -> int:
        self.broken_rule = rule
        return _EIO

    def _loses_power(self) -> bool:
        self.operations += 1
        if self._cut_in is None:
            return False
        self._cut_in -= 1
        if self._cut_in == 0:
            self.has_power = False
        return not self.has_power

    def _read(self, addr: int, out: Any) -> int:
        if not self.has_power:
            return _EIO
        if addr + len(out) > len(self._bytes):
            return self._breaks(f"read of {len(out)} bytes at {addr} leaves the flash")
        out[:] = self._bytes[addr : addr + len(out)]
        return 0

    def _prog(self, addr: int, data: bytes) -> int:
        if not self.has_power:
            return _EIO
        unit = self.prog_bytes
        if addr % unit or len(data) % unit or not data:
            return self._breaks(f"program of {len(data)} bytes at {addr}: not whole units")
        if addr // self.sector_bytes != (addr + len(data) - 1) // self.sector_bytes:
            return self._breaks(f"program of {len(data)} bytes at {addr} leaves its sector")
        units = slice(addr // unit, (addr + len(data)) // unit)
        if not all(self._clean[units]):
            return self._breaks(f"program at {addr}: a unit that is not known to be erased")
        self._clean[units] = bytes(len(data) // unit)
        cut = self._loses_power()
        if cut and self._cut_inside is not None:
            mask = self._cut_inside.choice(("none", "some", "all"))
            data = {
                "none": b"\xff" * len(data),
                "some": bytes(b | self._cut_inside.getrandbits(8) for b in data),
                "all": data,
            }[mask]
        old = self._bytes[addr : addr + len(data)]
        self._bytes[addr : addr + len(data)] = bytes(a & b for a, b in zip(old, data, strict=True))
        return _EIO if cut else 0

    def _erase(self, sector: int) -> int:
        if not self.has_power:
            return _EIO
        if sector >= self.sector_count:
            return self._breaks(f"erase of sector {sector} of {self.sector_count}")
        size = self.sector_bytes
        at = slice(sector * size, (sector + 1) * size)
        units = slice(at.start // self.prog_bytes, at.stop // self.prog_bytes)
        self.erases[sector] += 1
        cut = self._loses_power()
        if cut and self._cut_inside is not None:
            dice = self._cut_inside
            self._bytes[at] = dice.choice(
                (
                    self._bytes[at],
                    b"\xff" * size,
                    bytes(b | dice.getrandbits(8) for b in self._bytes[at]),
                    dice.randbytes(size),
                )
            )
            self._clean[units] = bytes(size // self.prog_bytes)
            return _EIO
        self._bytes[at] = b"\xff" * size
        self._clean[units] = b"\x01" * (size // self.prog_bytes)
        return _EIO if cut else 0

    def _sync(self) -> int:
        if not self.has_power:
            return _EIO
        if isinstance(self._bytes, mmap.mmap):
            self._bytes.flush()
        return 0

    def _make_c_flash(self) -> Any:
        ffi, _ = core()

        @ffi.callback("int(void *, uint32_t, void *, uint32_t)", error=_EIO)
        def read(_ctx: Any, addr: int, buf: Any, n: int) -> int:
            return self._read(addr, ffi.buffer(buf, n))

        @ffi.callback("int(void *, uint32_t, const void *, uint32_t)", error=_EIO)
        def prog(_ctx: Any, addr: int, buf: Any, n: int) -> int:
            return self._prog(addr, bytes(ffi.buffer(buf, n)))

        @ffi.callback("int(void *, uint32_t)", error=_EIO)
        def erase(_ctx: Any, sector: int) -> int:
            return self._erase(sector)

        @ffi.callback("int(void *)", error=_EIO)
        def sync(_ctx: Any) -> int:
            return self._sync()

        self._handles = [read, prog, erase, sync]
        return ffi.new(
            "fl_flash_t *",
            {
                "sector_bytes": self.sector_bytes,
                "sector_count": self.sector_count,
                "prog_bytes": self.prog_bytes,
                "read": read,
                "prog": prog,
                "erase": erase,
                "sync": sync,
            },
        )


@dataclass(frozen=True, slots=True)
class Record:
    """A live record of the store; `nth` of its key is told by `seq`: larger is newer."""

    type: int
    uid: bytes
    seq: int
    payload: bytes


class Store:
    """The power-safe store of the C core over a `NorFlash`; mounted when made.

    `uids` lists the models whose records are to be kept (None: all). See fl_store.h.
    """

    def __init__(self, flash: NorFlash, uids: Sequence[bytes] | None = None) -> None:
        self._ffi, self._lib = core()
        self.flash = flash
        self._st = self._ffi.new("fl_store_t *")
        self.mount(uids)

    def mount(self, uids: Sequence[bytes] | None = None) -> None:
        """Reads the flash again, as after a reboot."""
        listed = self._ffi.NULL
        if uids is not None:
            # One more than there are, since an empty C array has no address to tell it from NULL.
            listed = self._ffi.new("uint8_t[][16]", len(uids) + 1)
            for i, uid in enumerate(uids):
                self._ffi.memmove(listed[i], _uid(uid), UID_BYTES)
        code = self._lib.fl_store_mount(self._st, self.flash.c_flash, listed, len(uids or ()))
        self._raise(code, "mounting the store")

    def format(self) -> None:
        """Erases everything."""
        code = self._lib.fl_store_format(self._st, self.flash.c_flash)
        self._raise(code, "formatting the store")

    def append(self, type_: int, uid: bytes, *pieces: bytes | bytearray | memoryview) -> None:
        """Writes a new newest record of (type_, uid); the pieces follow one another in it."""
        buffers = [self._ffi.from_buffer(piece) for piece in pieces]
        array = self._ffi.new("fl_store_piece_t[]", len(buffers) + 1)
        for i, buffer in enumerate(buffers):
            array[i].data = buffer
            array[i].len = len(buffer)
        code = self._lib.fl_store_append(self._st, type_, _uid(uid), array, len(buffers))
        self._raise(code, "appending to the store")

    def find(self, type_: int, uid: bytes, nth: int = 0) -> Record | None:
        """The nth newest record (0 or 1) of the key, or None. ANY_TYPE: over all types."""
        rec = self._ffi.new("fl_store_rec_t *")
        code = self._lib.fl_store_find(self._st, type_, _uid(uid), nth, rec)
        if code == _ENOENT:
            return None
        self._raise(code, "finding a record")
        return self._record(rec)

    def records(self) -> Iterator[Record]:
        """Every live record, in no particular order."""
        index = 0
        rec = self._ffi.new("fl_store_rec_t *")
        while self._lib.fl_store_each(self._st, index, rec) == 0:
            yield self._record(rec)
            index += 1

    def copy(self, type_: int, uid: bytes, nth: int) -> None:
        """Appends the nth newest record of the key again, as its newest: nth 1 undoes."""
        rec = self._ffi.new("fl_store_rec_t *")
        code = self._lib.fl_store_find(self._st, type_, _uid(uid), nth, rec)
        if code == 0:
            code = self._lib.fl_store_copy(self._st, rec)
        self._raise(code, "copying a record")

    def _record(self, rec: Any) -> Record:
        payload = bytearray(rec.len)
        if rec.len:
            target = self._ffi.from_buffer(payload)
            code = self._lib.fl_store_read(self._st, rec, 0, target, rec.len)
            self._raise(code, "reading a record")
        return Record(rec.type, bytes(rec.uid), rec.seq, bytes(payload))

    def _raise(self, code: int, what: str) -> None:
        self.flash.check()
        if code == 0:
            return
        if code == _ENOSPC:
            raise DoesNotFitError(
                "the record with two of every kind in use",
                needed_bytes=self._st.needed,
                available_bytes=self._st.available,
            )
        if code == _ENOTSUP:
            raise VersionError(
                f"{what}: expected store version 1 of {self.flash.sector_count} sectors, found "
                "another version or geometry; format it to start over"
            )
        raise FieldloopError(f"{what}: the C core answered {error_name(code)}")


def write_slot(flash: NorFlash, image: bytes, chunk_bytes: int = 4096) -> None:
    """Writes an image into a raw slot as a push does, chunk by chunk, and checks what it reads."""
    ffi, lib = core()
    slot = ffi.new("fl_slot_t *")
    code = lib.fl_slot_begin(slot, flash.c_flash, len(image))
    if code == _ENOSPC:
        raise DoesNotFitError(
            "the image in its slot",
            needed_bytes=len(image),
            available_bytes=flash.sector_bytes * flash.sector_count,
        )
    for at in range(0, len(image), chunk_bytes):
        if code == 0:
            chunk = image[at : at + chunk_bytes]
            code = lib.fl_slot_write(slot, at, chunk, len(chunk))
    if code == 0:
        code = lib.fl_slot_end(slot)
    crc = ffi.new("uint32_t *")
    if code == 0:
        code = lib.fl_slot_crc(flash.c_flash, len(image), crc)
    flash.check()
    if code != 0:
        raise FieldloopError(f"writing the slot: the C core answered {error_name(code)}")
    if crc[0] != lib.fl_crc32(0, image, len(image)):
        raise FieldloopError("writing the slot: what it reads is not what was written; push again")


def _uid(uid: bytes) -> bytes:
    if len(uid) != UID_BYTES:
        raise FieldloopError(f"a model uid: expected {UID_BYTES} bytes, got {len(uid)}")
    return bytes(uid)
