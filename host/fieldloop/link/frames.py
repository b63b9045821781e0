"""The two framings of SMP: console lines on any port, raw messages on a dedicated one.

`Deframer` is the same state machine as the C one (cmodules/fieldloop/link/fl_deframe.c), state for
state, worked through in blocks: on every stream of bytes, whole or damaged, both find the same
messages, texts and counts. A test holds them together.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from dataclasses import dataclass
from enum import Enum, auto

from fieldloop.link.header import HEADER_BYTES

LINE_BYTES = 127  # of a console line, newline included: what Zephyr's servers take
EXTRA_BYTES = 4  # of a receive buffer that a message cannot use: frame length and CRC
GAP_S = 0.25  # a raw message that stands still for so long is given up
_PIECE = (LINE_BYTES - 3) // 4 * 4
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/]*")
_TEXT_RUN = re.compile(rb"[^\x06\x04]*")
_RAW_HEAD = HEADER_BYTES + 1  # a raw message is believed once its map has begun


class Framing(Enum):
    CONSOLE = "console"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Frame:
    message: bytes
    framing: Framing


def crc16(data: bytes) -> int:
    """CRC-16/XMODEM."""
    return binascii.crc_hqx(data, 0)


def console_frame(message: bytes) -> bytes:
    """The lines that carry a message on a console."""
    head = struct.pack(">H", len(message) + 2)
    text = base64.b64encode(head + message + struct.pack(">H", crc16(message)))
    out = bytearray()
    for at in range(0, len(text), _PIECE):
        out += b"\x06\x09" if at == 0 else b"\x04\x14"
        out += text[at : at + _PIECE] + b"\n"
    return bytes(out)


def frame(message: bytes, framing: Framing) -> bytes:
    """The bytes that carry a message in that framing."""
    return message if framing is Framing.RAW else console_frame(message)


def console_bytes(message_bytes: int) -> int:
    """Size on the wire of a message as console lines."""
    chars = (message_bytes + EXTRA_BYTES + 2) // 3 * 4
    return chars + 3 * -(-chars // _PIECE)


class _State(Enum):
    IDLE = auto()
    MARK_06 = auto()
    MARK_04 = auto()
    BODY = auto()
    SKIP = auto()
    TAIL = auto()
    HEAD = auto()
    RAW = auto()


class Deframer:
    """Bytes in, whole messages out.

    raw: a dedicated port, raw messages are taken as well and text is noise.
    replies: this side is the client; raw headers are those of replies.
    buf_bytes: the largest message is this less EXTRA_BYTES.
    """

    def __init__(self, *, raw: bool, replies: bool = True, buf_bytes: int = 0xFFFF) -> None:
        self._takes_raw = raw
        self._reply_bit = 1 if replies else 0
        self._cap = buf_bytes
        self._state = _State.IDLE
        self._open = False  # a console frame has begun and waits for more
        self._padded = False  # '=' seen: the line's base64 is at its end
        self._pads_due = 0
        self._held = b""  # a group of base64, or the head of a raw message
        self._frame = bytearray()
        self._want = 0  # bytes of the frame in all; 0: not known yet
        self.frames = 0  # whole messages
        self.bad = 0  # frames given up: damaged, too long, interrupted
        self.noise = 0  # bytes dropped outside frames

    @property
    def partial(self) -> bool:
        """True while a raw message has begun, so that the gap timeout matters."""
        return self._state in (_State.HEAD, _State.RAW)

    def feed(self, data: bytes) -> tuple[list[Frame], bytes]:
        """Takes bytes; returns the messages they complete and the text between them."""
        done: list[Frame] = []
        text = bytearray()
        at = 0
        while at < len(data):
            at = self._step(data, at, done, text)
        return done, bytes(text)

    def gap(self) -> int:
        """No byte came for GAP_S: gives up a raw message cut short; returns the bytes dropped."""
        dropped = 0
        if self._state is _State.RAW:
            dropped = len(self._frame)
            self._give_up(_State.IDLE)
        elif self._state is _State.HEAD:
            dropped = len(self._held)
            self.noise += dropped
            self._held = b""
            self._state = _State.IDLE
        elif self._takes_raw and self._state in (_State.SKIP, _State.TAIL):
            self._state = _State.IDLE
        return dropped

    # ---- one block, from data[at] on; returns where the next one begins

    def _step(self, data: bytes, at: int, done: list[Frame], text: bytearray) -> int:
        c = data[at]
        state = self._state
        if state is _State.BODY:
            return self._body(data, at, done)
        if state is _State.RAW:
            end = min(len(data), at + self._want - len(self._frame))
            self._frame += data[at:end]
            if len(self._frame) == self._want:
                self._deliver(bytes(self._frame), Framing.RAW, done, _State.IDLE)
            return end
        if state is _State.HEAD:
            self._head(c, done)
            return at + 1
        if state is _State.SKIP:
            self.noise += 1
            if c == 0x0A:
                self._state = _State.IDLE
            elif c == 0x06:
                self._state = _State.MARK_06
            return at + 1
        if state is _State.TAIL and c in b"\n\r=":
            if c == 0x0A:
                self._state = _State.IDLE
            return at + 1
        if state is _State.MARK_06 and c == 0x09:
            if self._open:
                self.bad += 1
            self._close(_State.BODY)
            self._open = True
            return at + 1
        if state is _State.MARK_04 and c == 0x14:
            self._state = _State.BODY if self._open else _State.SKIP
            return at + 1
        return self._idle(data, at, done, text)

    def _idle(self, data: bytes, at: int, done: list[Frame], text: bytearray) -> int:
        if self._state in (_State.MARK_06, _State.MARK_04):  # the marker that came is none
            if self._takes_raw:
                self.noise += 1
            else:
                text.append(0x06 if self._state is _State.MARK_06 else 0x04)
        self._state = _State.IDLE
        c = data[at]
        if c == 0x06 or c == 0x04:
            self._state = _State.MARK_06 if c == 0x06 else _State.MARK_04
            return at + 1
        if self._takes_raw:
            self._state = _State.HEAD
            self._head(c, done)
            return at + 1
        match = _TEXT_RUN.match(data, at)
        assert match is not None
        text += match.group()
        return match.end()

    def _close(self, state: _State) -> None:
        self._open = False
        self._padded = False
        self._held = b""
        self._frame.clear()
        self._want = 0
        self._state = state

    def _give_up(self, state: _State) -> None:
        self._close(state)
        self.bad += 1

    def _deliver(self, message: bytes, framing: Framing, done: list[Frame], to: _State) -> None:
        self._close(to)
        self.frames += 1
        done.append(Frame(message, framing))

    # ---- console lines

    def _body(self, data: bytes, at: int, done: list[Frame]) -> int:
        if not self._padded:
            match = _BASE64_RUN.match(data, at)
            assert match is not None
            if match.end() > at:
                return self._groups(match.group(), at, done)
        c = data[at]
        if c == 0x0D:
            pass
        elif c == 0x0A:
            if self._held:
                self._give_up(_State.IDLE)
            else:
                self._padded = False
                self._state = _State.IDLE
        elif c == 0x06:
            self._give_up(_State.MARK_06)
        elif c == 0x3D and len(self._held) in (2, 3) and not self._padded:
            self._padded = True
            self._pads_due = 3 - len(self._held)
            held, self._held = self._held, b""
            self._bytes(base64.b64decode(held.ljust(4, b"A"))[: len(held) - 1], done)
        elif c == 0x3D and self._padded and self._pads_due > 0:
            self._pads_due -= 1
        else:
            self._give_up(_State.SKIP)
        return at + 1

    def _groups(self, run: bytes, at: int, done: list[Frame]) -> int:
        """Whole groups of four, at most as many as the frame still needs (one if unknown)."""
        chars = self._held + run
        needed = -(-(self._want - len(self._frame)) // 3) if self._want else 1
        groups = min(len(chars) // 4, needed)
        if groups == 0:
            self._held = chars
            return at + len(run)
        taken = 4 * groups - len(self._held)
        self._held = b""
        self._bytes(base64.b64decode(chars[: 4 * groups]), done)
        return at + taken

    def _bytes(self, piece: bytes, done: list[Frame]) -> None:
        self._frame += piece
        if self._want == 0 and len(self._frame) >= 2:
            rest = self._frame[0] << 8 | self._frame[1]
            if rest < HEADER_BYTES + 2 or rest + 2 > self._cap:
                self._give_up(_State.SKIP)
                return
            self._want = rest + 2
        if self._want == 0 or len(self._frame) < self._want:
            return
        if len(self._frame) > self._want:
            self._give_up(_State.SKIP)
            return
        message = bytes(self._frame[2:-2])
        crc = self._frame[-2] << 8 | self._frame[-1]
        length = message[2] << 8 | message[3]
        if crc != crc16(message) or length != len(message) - HEADER_BYTES:
            self._give_up(_State.TAIL)
        else:
            self._deliver(message, Framing.CONSOLE, done, _State.TAIL)

    # ---- raw messages

    def _plausible(self) -> bool:
        h = self._held
        if h[0] & 0xFD != 0x08 | self._reply_bit:
            return False
        if len(h) >= 2 and h[1] != 0:
            return False
        if len(h) >= 4:
            length = h[2] << 8 | h[3]
            if length == 0 or length + HEADER_BYTES + EXTRA_BYTES > self._cap:
                return False
        if len(h) >= 5 and h[4] != 0:
            return False
        return len(h) < _RAW_HEAD or h[HEADER_BYTES] & 0xE0 == 0xA0

    def _head(self, c: int, done: list[Frame]) -> None:
        self._held += bytes((c,))
        if not self._plausible():
            # The first byte is noise; the others, too few to end a message, are looked at again.
            again, self._held = self._held[1:], b""
            self._state = _State.IDLE
            self.noise += 1
            at = 0
            while at < len(again):
                at = self._step(again, at, done, bytearray())
            return
        if len(self._held) < _RAW_HEAD:
            return
        if self._open:  # a console frame that will never be ended
            self.bad += 1
        head = self._held
        self._close(_State.RAW)
        self._frame += head
        self._want = HEADER_BYTES + (head[2] << 8 | head[3])
        if len(self._frame) == self._want:
            self._deliver(head, Framing.RAW, done, _State.IDLE)
