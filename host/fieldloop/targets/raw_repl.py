"""MicroPython's raw REPL over a serial port: run code, move files.

A client of our own, because every read here has a deadline, a simulated board answers within a
millisecond, and mpremote's classes are not an interface. The port is opened for each call and
closed after it, so that mpremote or a person can use it in between.
"""

from __future__ import annotations

import ast
import binascii
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import serial

from fieldloop.errors import DeviceError, FieldloopError

_BANNER = b"raw REPL; CTRL-B to exit\r\n>"
_PATIENCE = 1.0  # seconds for a Ctrl-C to be answered before it is sent again
_CHUNK = 3072  # bytes of a file sent as one line of code; 4 KiB as base64


class RemoteError(FieldloopError):
    """An exception on the device; `traceback` is what it printed, the message its last line."""

    def __init__(self, traceback: str, output: str = "") -> None:
        self.traceback = traceback
        self.output = output
        lines = traceback.strip().splitlines()
        super().__init__(lines[-1] if lines else "the device raised an exception")

    @property
    def type_name(self) -> str:
        """The name of the exception's type: ValueError, OSError, ..."""
        return str(self).partition(":")[0]


class RawRepl:
    """The raw REPL behind a serial port."""

    def __init__(self, port: str, *, baudrate: int = 115200) -> None:
        self.port = port
        self.baudrate = baudrate

    def exec(self, code: str, *, timeout: float = 10.0, soft_reset: bool = False) -> str:
        """Run code and return what it printed; see Target.exec."""
        with self._session(timeout, soft_reset) as session:
            return session.run(code)

    def eval(self, expression: str, *, timeout: float = 10.0) -> Any:
        """The value of an expression, which must be a Python literal."""
        output = self.exec(f"print(repr({expression}))", timeout=timeout)
        try:
            return ast.literal_eval(output.strip())
        except (SyntaxError, ValueError):
            raise FieldloopError(
                f"cannot read the value of {expression!r}: expected a Python literal, "
                f"got {output.strip()[:200]!r}"
            ) from None

    def put(self, path: str, content: bytes, *, timeout: float = 10.0) -> None:
        """Write a file, whole; makes missing folders."""
        folders = path.split("/")[1 if path.startswith("/") else 0 : -1]
        prefix = "/" if path.startswith("/") else ""
        with self._session(timeout) as session:
            session.run("import os\nfrom binascii import a2b_base64 as _d")
            for depth in range(1, len(folders) + 1):
                folder = prefix + "/".join(folders[:depth])
                session.run(f"try:\n os.stat({folder!r})\nexcept OSError:\n os.mkdir({folder!r})")
            session.run(f"_f=open({path!r},'wb')")
            for start in range(0, len(content), _CHUNK):
                chunk = binascii.b2a_base64(content[start : start + _CHUNK], newline=False)
                session.run(f"_f.write(_d({chunk!r}))")
            session.run("_f.close()\ndel _f,_d")

    def get(self, path: str, *, timeout: float = 10.0) -> bytes:
        """Read a file."""
        code = (
            "from binascii import b2a_base64 as _e\n"
            f"with open({path!r},'rb') as _f:\n"
            f" while True:\n  _b=_f.read({_CHUNK})\n  if not _b: break\n  print(_e(_b),end='')\n"
            "del _f,_b,_e"
        )
        output = self.exec(code, timeout=timeout)
        return b"".join(binascii.a2b_base64(literal) for literal in _literals(output))

    def begin(self, code: str, *, timeout: float = 10.0) -> None:
        """Start code and let it run; what it prints from then on is for whoever opens the port."""
        with self._open(timeout) as port:
            session = _Session(port, self.port, timeout)
            session.enter(soft_reset=False)
            session.send(code.encode())

    def interrupt(self) -> None:
        """Ctrl-C: stop what runs."""
        with self._open(1.0) as port:
            port.write(b"\r\x03")

    @contextmanager
    def _open(self, timeout: float) -> Iterator[serial.Serial]:
        try:
            port = serial.Serial(self.port, self.baudrate, timeout=timeout, exclusive=True)
        except (OSError, ValueError) as error:
            raise DeviceError(
                f"cannot open {self.port}: {error}; close what else uses it, or name another port"
            ) from error
        try:
            yield port
        except OSError as error:
            raise DeviceError(f"{self.port} is gone: {error}; plug it in again") from error
        finally:
            with suppress(OSError):  # a pty whose simulator was killed cannot be closed
                port.close()

    @contextmanager
    def _session(self, timeout: float, soft_reset: bool = False) -> Iterator[_Session]:
        with self._open(timeout) as port:
            session = _Session(port, self.port, timeout)
            session.enter(soft_reset)
            yield session
            session.leave()


def _literals(output: str) -> Iterator[bytes]:
    """The bytes literals of a line b'...'b'...'; base64 holds no quotes."""
    for part in output.split("b'")[1:]:
        yield part.rstrip().removesuffix("'").removesuffix("\\n").encode()


class _Session:
    """One stay in the raw REPL."""

    def __init__(self, port: serial.Serial, name: str, timeout: float) -> None:
        self._port = port
        self._name = name
        self._timeout = timeout
        self._buffer = bytearray()

    def enter(self, soft_reset: bool) -> None:
        self._interrupt()
        if soft_reset:
            self._port.write(b"\x04")
            self._read_until(b"soft reboot\r\n", "soft reset")
            self._read_until(_BANNER, "enter the raw REPL after a soft reset")

    def _interrupt(self) -> None:
        """Stop what runs. A device that is just starting hears no Ctrl-C, so it is sent again."""
        deadline = time.monotonic() + self._timeout
        self._port.timeout = min(_PATIENCE, self._timeout)
        try:
            for attempt in itertools.count():
                self._port.write(b"\r\x03")
                self._port.write(b"\r\x01")
                try:
                    self._read_until(_BANNER, "enter the raw REPL")
                except DeviceError:
                    if time.monotonic() >= deadline:
                        raise
                    continue
                if attempt > 0:  # the other attempts may have been heard, too
                    self._port.timeout = self._timeout
                    self._fall_into_step()
                return
        finally:
            self._port.timeout = self._timeout

    def _fall_into_step(self) -> None:
        """Read past answers to earlier attempts: what a device hears later it answers later."""
        mark = b"in step %d" % time.monotonic_ns()
        self._port.write(b"print('" + mark + b"')\x04")
        self._read_until(b"OK" + mark + b"\r\n\x04\x04>", "fall into step")

    def leave(self) -> None:
        self._port.write(b"\x02")

    def run(self, code: str) -> str:
        self.send(code.encode())
        output = self._read_until(b"\x04", "finish")
        traceback = self._read_until(b"\x04", "finish")
        self._read_until(b">", "give its prompt")
        text = output.decode(errors="replace").replace("\r\n", "\n")
        if traceback:
            raise RemoteError(traceback.decode(errors="replace").replace("\r\n", "\n"), text)
        return text

    def send(self, code: bytes) -> None:
        """Send code by raw-paste mode, which tells how much the device can take."""
        self._port.write(b"\x05A\x01")
        answer = self._read(2, "answer to raw-paste mode")
        if answer != b"R\x01":
            raise DeviceError(
                f"{self._name} does not know raw-paste mode: expected MicroPython 1.14 or newer, "
                f"got {bytes(answer)!r}; update its firmware"
            )
        window = int.from_bytes(self._read(2, "tell its window"), "little")
        room = window
        sent = 0
        while sent < len(code):
            while room == 0 or self._buffer or self._port.in_waiting:
                signal = self._read(1, "take code")
                if signal == b"\x04":  # it has enough: a syntax error, or no memory
                    self._port.write(b"\x04")
                    return
                room += window
            part = code[sent : sent + room]
            self._port.write(part)
            sent += len(part)
            room -= len(part)
        self._port.write(b"\x04")
        while self._read(1, "acknowledge the code") != b"\x04":
            pass  # windows it still had to grant

    def _read(self, size: int, doing: str) -> bytes:
        while len(self._buffer) < size:
            self._fill(doing)
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _read_until(self, ending: bytes, doing: str) -> bytes:
        searched = 0
        while True:
            at = self._buffer.find(ending, searched)
            if at >= 0:
                taken = bytes(self._buffer[:at])
                del self._buffer[: at + len(ending)]
                return taken
            searched = max(0, len(self._buffer) - len(ending) + 1)
            self._fill(doing)

    def _fill(self, doing: str) -> None:
        start = time.monotonic()
        got = self._port.read(max(1, self._port.in_waiting))
        if not got:
            waited = time.monotonic() - start
            raise DeviceError(
                f"{self._name} did not {doing}: silent for {waited:.1f} s, last heard "
                f"{bytes(self._buffer[-80:])!r}; reset the board or try again"
            )
        self._buffer += got
