"""Both framings: vectors, interop with the `smp` package, and Python = C on any stream."""

from __future__ import annotations

import random

import pytest
from link_helpers import CDeframer, Outcome, pieces, random_message, random_stream

from fieldloop.link.frames import (
    Deframer,
    Frame,
    Framing,
    console_bytes,
    console_frame,
    crc16,
)
from fieldloop.runtime.core import core

smp_packet = pytest.importorskip("smp.packet")


def c_console_frame(message: bytes, cap: int = 4096) -> bytes:
    ffi, lib = core()
    framer = ffi.new("fl_framer_t *")
    block = ffi.new("uint8_t[]", message)
    out = ffi.new("uint8_t[]", cap)
    lib.fl_framer_init(framer, block, len(message))
    wire = b""
    while n := lib.fl_framer_next(framer, out, cap):
        assert n <= cap
        wire += bytes(ffi.buffer(out, n))
    return wire


def run(deframer: Deframer | CDeframer, stream: list[bytes | None]) -> Outcome:
    frames: list[Frame] = []
    text = b""
    for piece in stream:
        if piece is None:
            deframer.gap()
            continue
        done, shown = deframer.feed(piece)
        frames += done
        text += shown
    if isinstance(deframer, CDeframer):
        return Outcome(frames, text, deframer.counters)
    return Outcome(frames, text, (deframer.frames, deframer.bad, deframer.noise))


def both(*, raw: bool, replies: bool = False, buf_bytes: int = 4096) -> list[Deframer | CDeframer]:
    return [
        Deframer(raw=raw, replies=replies, buf_bytes=buf_bytes),
        CDeframer(raw=raw, replies=replies, buf_bytes=buf_bytes),
    ]


def test_crc16_check_value() -> None:
    _, lib = core()
    assert crc16(b"123456789") == 0x31C3 == lib.fl_crc16(0, b"123456789", 9)


def test_a_console_frame_byte_by_byte() -> None:
    # The example of the `smp` package's own documentation.
    assert console_frame(b"Hello, world!") == b"\x06\tAA9IZWxsbywgd29ybGQhet4=\n"


@pytest.mark.parametrize("seed", range(20))
def test_interop_with_the_smp_package(seed: int) -> None:
    rng = random.Random(seed)
    message = random_message(rng, rng.choice((1, 60, 400, 3000)))
    theirs = b"".join(smp_packet.encode(message))
    for wire in (theirs, console_frame(message), c_console_frame(message)):
        for deframer in both(raw=False):
            assert run(deframer, pieces(rng, wire)).frames == [Frame(message, Framing.CONSOLE)]
    decoder = smp_packet.decode()
    next(decoder)
    with pytest.raises(StopIteration) as done:
        for line in console_frame(message).splitlines(keepends=True):
            decoder.send(line)
    assert done.value.value == message


@pytest.mark.parametrize("size", [8, 9, 10, 88, 89, 90, 91, 92, 181, 182, 183, 4092])
def test_python_and_c_framers_write_the_same_bytes(size: int) -> None:
    _, lib = core()
    message = bytes(i & 255 for i in range(size))
    wire = console_frame(message)
    assert c_console_frame(message) == wire == c_console_frame(message, cap=127)
    assert len(wire) == console_bytes(size) == lib.fl_framer_bytes(size)
    assert max(len(line) for line in wire.splitlines(keepends=True)) <= 127
    assert 0x03 not in wire and max(wire) <= 0x7A  # Ctrl-C never travels


def test_raw_and_console_on_one_port() -> None:
    rng = random.Random(1)
    a, b, c = (random_message(rng) for _ in range(3))
    for deframer in both(raw=True):
        out = run(deframer, [a + console_frame(b) + c])
        assert out.frames == [
            Frame(a, Framing.RAW),
            Frame(b, Framing.CONSOLE),
            Frame(c, Framing.RAW),
        ]
        assert out.counters == (3, 0, 0)


def test_text_passes_and_frames_inside_text_are_found() -> None:
    rng = random.Random(2)
    a, b = random_message(rng, 300), random_message(rng, 300)
    wire = console_frame(b)
    cut = wire.index(b"\n") + 1
    stream = b"boot\r\n" + console_frame(a) + b"x \x06y\x04" + wire[:cut] + b"log\n" + wire[cut:]
    for one_by_one in (False, True):
        parts: list[bytes | None] = [bytes((x,)) for x in stream] if one_by_one else [stream]
        for deframer in both(raw=False):
            out = run(deframer, parts)
            assert [f.message for f in out.frames] == [a, b]
            assert out.text == b"boot\r\nx \x06y\x04log\n"


def test_a_raw_message_cut_short_is_given_up_after_the_gap() -> None:
    message = random_message(random.Random(3))
    for deframer in both(raw=True):
        out = run(deframer, [message[:-1], None, message])
        assert [f.message for f in out.frames] == [message]
        assert out.counters[:2] == (1, 1)


def test_a_frame_too_long_is_dropped_and_the_next_one_found() -> None:
    short = random_message(random.Random(4), 20)
    long = console_frame(bytes((0x0A, 0, 3, 0xE0, 0, 70, 1, 2)) + bytes(992))
    for deframer in both(raw=False, buf_bytes=256):
        out = run(deframer, [long + console_frame(short)])
        assert [f.message for f in out.frames] == [short]
        assert out.counters[1] == 1
        assert out.text == b""


@pytest.mark.parametrize("seed", range(300))
def test_python_and_c_agree_on_damaged_streams(seed: int) -> None:
    rng = random.Random(seed)
    raw, replies = rng.random() < 0.6, rng.random() < 0.5
    damage = rng.choice((0, 0.001, 0.01, 0.1))
    ours, theirs = both(raw=raw, replies=replies, buf_bytes=rng.choice((64, 256, 512, 4096)))
    for _ in range(4):
        stream = pieces(rng, random_stream(rng, raw=raw, reply=replies, damage=damage))
        assert run(ours, stream) == run(theirs, stream)
