"""The C codec behind the same shapes as the Python one, and random material for both."""

from __future__ import annotations

import random
from dataclasses import dataclass

from fieldloop.link.frames import Frame, Framing, console_frame
from fieldloop.link.header import Op, encode_message
from fieldloop.runtime.core import core

GAP = None  # in a stream of pieces: nothing came for the gap time


@dataclass(frozen=True, slots=True)
class Outcome:
    frames: list[Frame]
    text: bytes
    counters: tuple[int, int, int]  # frames, bad, noise


class CDeframer:
    """fl_deframe_t with a buffer of its own."""

    def __init__(self, *, raw: bool, replies: bool, buf_bytes: int) -> None:
        self.ffi, self.lib = core()
        self.state = self.ffi.new("fl_deframe_t *")
        self.buf = self.ffi.new("uint8_t[]", buf_bytes)
        flags = (self.lib.FL_DEFRAME_RAW if raw else 0) | (
            self.lib.FL_DEFRAME_REPLIES if replies else 0
        )
        assert self.lib.fl_deframe_init(self.state, self.buf, buf_bytes, flags) == 0

    def feed(self, data: bytes) -> tuple[list[Frame], bytes]:
        ffi, lib, st = self.ffi, self.lib, self.state
        block = ffi.new("uint8_t[]", data)  # one byte longer than data; n tells the size
        used = ffi.new("size_t *")
        done: list[Frame] = []
        text = b""
        at = 0
        while at < len(data):
            rc = lib.fl_deframe_feed(st, block + at, len(data) - at, used)
            assert used[0] <= len(data) - at
            assert used[0] > 0 or st.text_len > 0, "no progress"
            if st.text_len:
                text += bytes(ffi.buffer(st.text, st.text_len))
            if rc > 0:
                framing = Framing.RAW if st.framing == lib.FL_FRAMING_RAW else Framing.CONSOLE
                done.append(Frame(bytes(ffi.buffer(st.msg, rc)), framing))
            else:
                assert rc in (0, lib.FL_EBADMSG, lib.FL_ENOMEM)
            at += used[0]
        return done, text

    def gap(self) -> int:
        return int(self.lib.fl_deframe_gap(self.state))

    @property
    def counters(self) -> tuple[int, int, int]:
        return self.state.frames, self.state.bad, self.state.noise


def random_value(rng: random.Random, depth: int = 0) -> object:
    """Anything the CBOR subset holds; floats are exact in float32."""
    kind = rng.randrange(6 if depth >= 3 else 8)
    if kind == 0:
        return rng.choice((-1, 1)) * rng.getrandbits(rng.randrange(64))
    if kind == 1:
        return rng.randbytes(rng.choice((0, 1, 5, 23, 24, 90, 300)))
    if kind == 2:
        return "".join(rng.choice("abcxyzäß€") for _ in range(rng.randrange(30)))
    if kind == 3:
        return rng.choice((True, False))
    if kind == 4:
        return None
    if kind == 5:
        return rng.randrange(-1000, 1000) / 8
    if kind == 6:
        return [random_value(rng, depth + 1) for _ in range(rng.randrange(5))]
    return {
        f"k{i}" if rng.random() < 0.8 else i: random_value(rng, depth + 1)
        for i in range(rng.randrange(5))
    }


def random_message(rng: random.Random, largest: int = 400, *, reply: bool = False) -> bytes:
    fields: dict[str, object] = {"off": rng.randrange(1 << 20)}
    fields["data"] = rng.randbytes(rng.randrange(largest))
    return encode_message(
        fields,
        op=Op(rng.choice((0, 2)) + reply),
        cmd=rng.randrange(16),
        seq=rng.randrange(256),
        group=rng.choice((0, 70)),
        check=rng.random() < 0.8,
    )


def random_stream(rng: random.Random, *, raw: bool, reply: bool, damage: float) -> bytes:
    """Messages in both framings, text between them, then bytes dropped, changed and doubled."""
    out = bytearray()
    for _ in range(rng.randrange(1, 6)):
        message = random_message(rng, reply=reply)
        if raw and rng.random() < 0.5:
            out += message
        else:
            wire = console_frame(message)
            if rng.random() < 0.3:
                wire = wire.replace(b"\n", b"\r\n")
            if rng.random() < 0.2:  # a print() between two lines of a frame
                cut = wire.find(b"\n") + 1
                wire = wire[:cut] + b"log: \x04 \x06!\r\n" + wire[cut:]
            out += wire
        if rng.random() < 0.4:
            out += rng.choice((b"hello\n", b"\x06", b"\x04\x03", b">>> ", rng.randbytes(12)))
    damaged = bytearray()
    for byte in out:
        roll = rng.random()
        if roll < damage:
            continue
        if roll < 2 * damage:
            byte = rng.choice((0x06, 0x04, 0x0A, 0x3D, 0x08, rng.randrange(256)))
        damaged.append(byte)
        if roll > 1 - damage:
            damaged.append(byte)
    return bytes(damaged)


def pieces(rng: random.Random, data: bytes) -> list[bytes | None]:
    """The stream as it arrives: in pieces of any size, sometimes with a pause."""
    out: list[bytes | None] = []
    at = 0
    while at < len(data):
        n = rng.choice((1, 2, 3, 7, 50, 200, 1000))
        out.append(data[at : at + n])
        at += n
        if rng.random() < 0.05:
            out.append(GAP)
    return out
