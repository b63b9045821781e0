"""A device without a model behind the real C codec and session: it counts what it is made to do.

It keeps every sample in the order in which it "learned" it, so that a test can tell a sample that
was lost, doubled or damaged.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from fieldloop.errors import DeviceError
from fieldloop.link import cbor
from fieldloop.link.frames import GAP_S, Framing, console_frame
from fieldloop.link.header import GROUP_FIELDLOOP, Header, Op, decode_message, encode_message
from fieldloop.link.transport import Port
from fieldloop.runtime.core import core

Reply = dict[str, object]
Args = dict[str, cbor.Value]
IN, OUT = 64, 10


class Refusal(Exception):
    """An error reply of a command."""

    def __init__(self, rc: int, msg: str, **more: object) -> None:
        super().__init__(msg)
        self.reply: Reply = {"err": {"group": GROUP_FIELDLOOP, "rc": rc}, "msg": msg, **more}


class CodecServer(threading.Thread):
    """Serves one port until stop()."""

    def __init__(self, port: Port, *, buf: int = 4096, proto: int = 1, boot: int = 1) -> None:
        super().__init__(daemon=True)
        self.ffi, self.lib = core()
        self.port, self.buf, self.proto = port, buf, proto
        self.rx = self.ffi.new("fl_deframe_t *")
        self.rx_buf = self.ffi.new("uint8_t[]", buf)
        assert self.lib.fl_deframe_init(self.rx, self.rx_buf, buf, self.lib.FL_DEFRAME_RAW) == 0
        self.session = self.ffi.new("fl_session_t *")
        self.kept = self.ffi.new("uint8_t[]", 512)
        self.lib.fl_session_init(self.session, boot, self.kept, 512)
        self.learned: list[tuple[bytes, int]] = []
        self.runs: dict[int, int] = {}  # command -> times a handler ran
        self.slots: dict[str, bytearray] = {"model0": bytearray(), "model1": bytearray()}
        self.upload: tuple[str, int, bytes] = ("", 0, b"")
        self.active: Reply | None = None
        self.last_raw = False
        self.framings: set[Framing] = set()
        self.break_off = 0  # the number of writes to break off in the middle, as Ctrl-C would
        self.fault: str | None = None
        self._halt = threading.Event()

    def stop(self) -> None:
        self._halt.set()
        self.join()

    # ---- bytes

    def run(self) -> None:
        while not self._halt.is_set():
            try:
                data = self.port.read(GAP_S)
            except DeviceError:
                return
            if data:
                self._feed(data)
            else:
                self.lib.fl_deframe_gap(self.rx)

    def _feed(self, data: bytes) -> None:
        block = self.ffi.new("uint8_t[]", data)
        used = self.ffi.new("size_t *")
        at = 0
        while at < len(data):
            n = self.lib.fl_deframe_feed(self.rx, block + at, len(data) - at, used)
            at += used[0]
            if n < 0:
                note = self.ffi.new("uint8_t[]", 32)
                size = self.lib.fl_smp_damaged(note, 32, GROUP_FIELDLOOP)
                assert size > 0
                self._send(bytes(self.ffi.buffer(note, size)), raw=self.last_raw)
            if n > 0:
                self.last_raw = raw = self.rx.framing == self.lib.FL_FRAMING_RAW
                self.framings.add(Framing.RAW if raw else Framing.CONSOLE)
                reply = self.answer(bytes(self.ffi.buffer(self.rx.msg, n)))
                self._send(reply, raw=raw)

    def _send(self, message: bytes, *, raw: bool) -> None:
        self.port.write(message if raw else console_frame(message))

    # ---- messages

    def answer(self, message: bytes) -> bytes:
        header = Header.unpack(message)
        check = self.lib.fl_smp_check(message, len(message), self.ffi.NULL)
        fields: Reply
        if header.group == 0:
            fields = self._os(header, decode_message(message).fields)
        elif check == self.lib.FL_EBADMSG:
            fields = {"rc": 9}
        elif check == self.lib.FL_ENOENT and header.op == Op.WRITE:
            fields = {"rc": 3}
        else:
            args = decode_message(message).fields
            kept = self._write(header, args) if self._numbered(header) else None
            if kept is not None:
                return self._with_header(header, kept)
            fields = self._command(header, args)
        return self._encode(header, fields)

    def _numbered(self, header: Header) -> bool:
        return header.op == Op.WRITE and header.cmd != 1

    def _encode(self, header: Header, fields: Reply) -> bytes:
        return encode_message(
            fields,
            op=Op(header.op + 1),
            cmd=header.cmd,
            seq=header.seq,
            group=header.group,
            check=header.group != 0,
        )

    def _with_header(self, header: Header, body: bytes) -> bytes:
        op = Op(header.op + 1)
        out = Header(op=op, group=header.group, cmd=header.cmd, seq=header.seq, length=len(body))
        return out.pack() + body

    def _write(self, header: Header, args: Args) -> bytes:
        """A state-changing call, through the C session; returns the reply's map."""
        lib, st = self.lib, self.session
        rc = lib.fl_session_begin(st, args["s"], args["n"], header.cmd)
        if rc == lib.FL_SESSION_REPEAT:
            return bytes(self.ffi.buffer(st.reply, st.len))
        if rc != lib.FL_SESSION_RUN:
            fields: Reply = {
                "err": {"group": GROUP_FIELDLOOP, "rc": -rc},
                "want": st.last + 1,
                "boot": st.boot,
            }
            return self._encode(header, fields)[8:]
        if self.break_off > 0:
            self.break_off -= 1
            return self._encode(header, {"rc": 9})[8:]  # the client tries again
        body = self._encode(header, self._command(header, args))[8:]
        lib.fl_session_end(st, body, len(body))
        return body

    def _os(self, header: Header, args: Args) -> Reply:
        if header.cmd == 0:
            return {"r": args["d"]}
        if header.cmd == 6:
            return {"buf_size": self.buf, "buf_count": 1}
        return {"rc": 8}

    def _command(self, header: Header, args: Args) -> Reply:
        handlers: dict[tuple[int, int], Callable[[Args], Reply]] = {
            (0, 0): self._info,
            (1, 2): self._session,
            (2, 2): self._push,
            (3, 2): self._activate,
            (4, 0): self._predict,
            (6, 2): self._step,
            (7, 2): lambda _: {"seq": len(self.learned), "bytes": 1},
            (11, 0): lambda _: {"samples": len(self.learned), "loss": 0.5},
            (12, 0): self._pull,
        }
        handler = handlers.get((header.cmd, header.op))
        if handler is None:
            return {"rc": 8}
        self.runs[header.cmd] = self.runs.get(header.cmd, 0) + 1
        try:
            return handler(args)
        except Refusal as e:
            return e.reply

    # ---- commands

    def _info(self, _: Args) -> Reply:
        told = {} if self.fault is None else {"fault": self.fault}
        return told | {
            "proto": self.proto,
            "ver": "test",
            "board": "loopback",
            "mpy": "none",
            "boot": self.session.boot,
            "s": self.session.id,
            "n": self.session.last,
            "buf": self.buf,
            "slots": {name: 1 << 20 for name in self.slots},
            "model": self.active,
            "learner": True,
            "free": 1000,
            "rx": [self.rx.frames, self.rx.bad, self.rx.noise, 0],
        }

    def _session(self, args: Args) -> Reply:
        s = self.lib.fl_session_open(self.session, args["nonce"])
        return {"s": s, "n": self.session.last, "boot": self.session.boot}

    def _push(self, args: Args) -> Reply:
        to, off, data = str(args["to"]), args["off"], args["data"]
        assert isinstance(off, int) and isinstance(data, bytes)
        if to not in self.slots:
            raise Refusal(2, f"slot {to} expected one of model0, model1")
        slot = self.slots[to]
        if off == 0:
            length, sha = args["len"], args["sha"]
            assert isinstance(length, int) and isinstance(sha, bytes)
            if length > 1 << 20:
                raise Refusal(28, "slot too small", need=length, have=1 << 20)
            if self.upload != (to, length, sha):
                slot.clear()
                self.upload = (to, length, sha)
        if off == len(slot) and self.upload[0] == to:
            slot += data
        reply: Reply = {"off": len(slot)}
        if len(slot) == self.upload[1]:
            reply["match"] = hashlib.sha256(slot).digest() == self.upload[2]
        return reply

    def _activate(self, args: Args) -> Reply:
        slot = self.slots[str(args["slot"])]
        if hashlib.sha256(slot).digest() != args["sha"]:
            raise Refusal(74, "SHA-256 of the slot differs")
        self.active = {
            "slot": args["slot"],
            "sha": args["sha"],
            "len": len(slot),
            "in": [1, 8, 8, 1],
            "out": [1, OUT],
            "in_q": [0.5, -128],
            "out_q": [0.25, 3],
            "learn": True,
        }
        return self.active

    def _predict(self, args: Args) -> Reply:
        x = args["x"]
        assert isinstance(x, bytes)
        if not x or len(x) % IN:
            raise Refusal(22, f"a multiple of {IN} bytes expected, got {len(x)}")
        return {"y": b"".join(x[i : i + OUT] for i in range(0, len(x), IN))}

    def _step(self, args: Args) -> Reply:
        x, y = args["x"], args["y"]
        assert isinstance(x, bytes) and isinstance(y, bytes)
        if len(x) != IN * len(y):
            raise Refusal(22, f"{IN * len(y)} bytes expected, got {len(x)}")
        if max(y) >= OUT:
            raise Refusal(22, f"labels below {OUT} expected, got {max(y)}")
        for i, label in enumerate(y):
            self.learned.append((x[i * IN : (i + 1) * IN], label))
        return {"k": len(y), "hit": 0, "loss": 1.0, "trained": len(y), "macs": 10}

    def _pull(self, args: Args) -> Reply:
        whole = b"".join(x + bytes((y,)) for x, y in self.learned)
        off, most = args["off"], args["max"]
        assert isinstance(off, int) and isinstance(most, int)
        reply: Reply = {"off": off, "data": whole[off : off + most], "len": len(whole)}
        if off == 0:
            reply["sha"] = hashlib.sha256(whole).digest()
        return reply
