"""The device server in C, in this process: no port, no thread, flash in memory or in files."""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fieldloop.link import cbor
from fieldloop.link.header import Op, decode_message, encode_message
from fieldloop.runtime.core import core
from fieldloop.runtime.flashfile import NorFlash

# The boards' test images (images.py) serve here, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "device"))

INFO, SESSION, PUSH, ACTIVATE, PREDICT, OPEN, STEP, COMMIT = range(8)
UNDO, RESET, RESTORE, STATS, PULL, MEM, JOB, COUNT = range(8, 16)

Reply = dict[str, cbor.Value]


class CServer:
    """`fl_server_t` with two slots and a store, which are files of `folder` and outlive it."""

    def __init__(
        self,
        folder: Path,
        *,
        memory_bytes: int = 64 * 1024,
        buf_bytes: int = 4096,
        boot: int = 1,
        store: NorFlash | None = None,
        store_sectors: int = 16,
    ) -> None:
        self.ffi, self.lib = core()
        ffi = self.ffi
        self.flashes = {
            name: NorFlash(folder / name, sector_count=16) for name in ("model0", "model1")
        }
        self.store = store or NorFlash(folder / "store", sector_count=store_sectors)
        self._keep: list[Any] = []
        slots = ffi.new("fl_server_slot_t[]", len(self.flashes))
        for slot, (name, flash) in zip(slots, self.flashes.items(), strict=True):
            slot.name = self._held(ffi.new("char[]", name.encode()))
            slot.flash = flash.c_flash
            slot.bytes = self._held(ffi.from_buffer("uint8_t[]", flash._bytes))
        block = self._held(ffi.new("uint8_t[]", memory_bytes + 15))
        address = int(ffi.cast("uintptr_t", block))
        self.config = ffi.new("fl_server_config_t *")
        self.config.slots = self._held(slots)
        self.config.slot_count = len(self.flashes)
        self.config.store = self.store.c_flash
        self.config.memory = block + (-address % 16)
        self.config.memory_bytes = memory_bytes
        self.config.board = self._held(ffi.new("char[]", b"a test"))
        self.config.os = self._held(ffi.new("char[]", b"none 1.0"))
        self.config.boot = boot
        self.config.buf_bytes = buf_bytes
        self.config.group = 70
        self.s = ffi.new("fl_server_t *")
        self.opened = self.lib.fl_server_open(self.s, self.config)
        self.buf_bytes = buf_bytes
        self.session = self.n = 0
        self._seq = itertools.count()

    def _held(self, thing: Any) -> Any:
        self._keep.append(thing)
        return thing

    def close(self) -> None:
        """Lets go of the files; what was written stays."""
        self._keep.clear()
        for flash in (*self.flashes.values(), self.store):
            flash.close()

    # ---- messages

    def exchange(self, message: bytes, cap: int | None = None) -> bytes | None:
        """The reply to a message; None: there is none."""
        cap = self.buf_bytes - 4 if cap is None else cap
        reply = self.ffi.new("uint8_t[]", cap)
        got = self.lib.fl_server_answer(self.s, message, len(message), reply, cap)
        assert 0 <= got <= cap
        return bytes(self.ffi.buffer(reply, got)) if got else None

    def call(self, op: Op, cmd: int, fields: Mapping[str, Any], *, group: int = 70) -> Reply:
        seq = next(self._seq) & 0xFF
        message = encode_message(
            dict(fields), op=op, cmd=cmd, seq=seq, group=group, check=group == 70
        )
        raw = self.exchange(message)
        assert raw is not None
        reply = decode_message(raw)
        header = reply.header
        assert (header.op, header.group, header.cmd, header.seq) == (op + 1, group, cmd, seq)
        assert reply.checked == (group == 70)
        return reply.fields

    def read(self, cmd: int, **fields: Any) -> Reply:
        return self.call(Op.READ, cmd, fields)

    def write(self, cmd: int, **fields: Any) -> Reply:
        """With a session of its own, opened when there is none."""
        if self.session == 0:
            session = self.call(Op.WRITE, SESSION, {"nonce": 7})["s"]
            assert isinstance(session, int)
            self.session, self.n = session, 0
        self.n += 1
        return self.call(Op.WRITE, cmd, {"s": self.session, "n": self.n, **fields})

    # ---- what most tests do

    def load(self, image: bytes, slot: str = "model0", chunk: int = 3000) -> Reply:
        """Pushes and activates."""
        self.push(image, to=slot, chunk=chunk)
        reply = self.write(ACTIVATE, slot=slot, sha=sha256(image))
        assert "err" not in reply, reply
        return reply

    def push(self, image: bytes, to: str = "model0", chunk: int = 3000) -> Reply:
        reply: Reply = {}
        sha = sha256(image)
        for at in range(0, len(image), chunk):
            more = {"len": len(image), "sha": sha} if at == 0 else {}
            reply = self.write(PUSH, to=to, off=at, data=image[at : at + chunk], **more)
            if reply.get("match"):  # at once, when it was there already
                break
            assert reply.get("off") == min(at + chunk, len(image)), reply
        return reply

    def pull(self, kind: str) -> bytes:
        data = b""
        while True:
            reply = self.read(PULL, kind=kind, off=len(data))
            piece, length = reply["data"], reply["len"]
            assert isinstance(piece, bytes) and isinstance(length, int), reply
            if not data:
                sha = reply["sha"]
            data += piece
            if len(data) == length:
                assert sha256(data) == sha
                return data

    @property
    def learned(self) -> bytes:
        """The state in RAM, as a commit would write it."""
        assert self.s.has_learner
        n = self.s.learner.sizes.state_bytes
        return bytes(
            self.ffi.buffer(self.lib.fl_learner_state(self.ffi.addressof(self.s.learner)), n)
        )

    @property
    def text(self) -> str:
        return bytes(self.ffi.string(self.s.text)).decode()


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def error_of(reply: Reply) -> tuple[int, str]:
    """(errno, text) of an error reply."""
    error = reply["err"]
    assert isinstance(error, dict) and error["group"] == 70, reply
    number, text = error["rc"], reply["msg"]
    assert isinstance(number, int) and isinstance(text, str)
    return number, text
