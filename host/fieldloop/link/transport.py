"""Ports carry bytes, transports carry messages.

A `Port` is three calls over a serial line, a pseudo-terminal or a socket; the fault injector of
`lossy.py` is one, too. `StreamTransport` frames messages over a port and keeps the text that comes
between them.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from fieldloop.errors import DeviceError
from fieldloop.link.frames import GAP_S, Deframer, Frame, Framing, frame

_BLOCK = 1 << 16
WRITE_TIMEOUT_S = 10.0

TextSink = Callable[[bytes], None]


class Port(Protocol):
    """Bytes in both directions. Every call raises DeviceError when the port is gone."""

    @property
    def name(self) -> str: ...

    def read(self, timeout: float) -> bytes:
        """What has come, as soon as anything has; b"" when nothing did in `timeout` seconds."""
        ...

    def write(self, data: bytes) -> None:
        """Hands over all of it; called once a frame."""
        ...

    def close(self) -> None: ...


class Transport(Protocol):
    """Whole SMP messages in both directions."""

    framing: Framing

    @property
    def name(self) -> str: ...

    @property
    def dedicated(self) -> bool:
        """Nobody but the link uses the port, so that raw framing is possible."""
        ...

    @property
    def damaged(self) -> int:
        """Frames that came damaged, so far."""
        ...

    def send(self, message: bytes) -> None: ...

    def recv(self, timeout: float) -> bytes | None:
        """The next message; None after `timeout` seconds, or as soon as a frame came damaged."""
        ...

    def wire_bytes(self, message_bytes: int) -> int:
        """Size on the wire of a message in the present framing."""
        ...

    def close(self) -> None: ...


class FdPort:
    """A port over a file descriptor: a pseudo-terminal, a socket, a serial line on POSIX."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        os.set_blocking(fd, False)

    @property
    def name(self) -> str:
        return self._name

    def _gone(self, why: object) -> DeviceError:
        return DeviceError(
            f"the port {self._name} is gone ({why}); "
            "check the cable or the board, and connect again"
        )

    def read(self, timeout: float) -> bytes:
        try:
            ready, _, _ = select.select([self._fd], [], [], max(timeout, 0.0))
            if not ready:
                return b""
            data = os.read(self._fd, _BLOCK)
        except BlockingIOError:
            return b""
        except (OSError, ValueError) as e:
            raise self._gone(e) from e
        if not data:
            raise self._gone("closed by the other side")
        return data

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        deadline = time.monotonic() + WRITE_TIMEOUT_S
        while view:
            try:
                view = view[os.write(self._fd, view) :]
                deadline = time.monotonic() + WRITE_TIMEOUT_S
            except BlockingIOError:
                self._wait_writable(deadline)
            except (OSError, ValueError) as e:
                raise self._gone(e) from e

    def _wait_writable(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        try:
            _, ready, _ = select.select([], [self._fd], [], max(left, 0.0))
        except (OSError, ValueError) as e:
            raise self._gone(e) from e
        if not ready:
            raise DeviceError(
                f"the port {self._name} takes no bytes for {WRITE_TIMEOUT_S:.0f} s; "
                "is the board running? Reset it and connect again"
            )

    def close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1


class SerialPort:
    """A serial line by device name or pyserial URL; pseudo-terminals of the simulator, too."""

    def __init__(self, name: str, baudrate: int = 115200) -> None:
        # Here, so that importing the package does not load pyserial.
        import serial  # type: ignore[import-untyped]

        try:
            self._serial: Any = serial.serial_for_url(
                name, baudrate=baudrate, timeout=0, write_timeout=WRITE_TIMEOUT_S, exclusive=None
            )
        except (OSError, ValueError) as e:  # serial.SerialException is an OSError
            raise DeviceError(
                f"cannot open the port {name}: {e}; `fieldloop devices` lists what is there"
            ) from e
        self._name = name
        self._fd: FdPort | None = None
        if os.name == "posix" and "://" not in name:
            # select() on the descriptor wakes on the first byte and takes all that came; pyserial
            # would ask once a byte or wait for a full buffer.
            self._fd = FdPort(self._serial.fileno(), name)

    @property
    def name(self) -> str:
        return self._name

    def read(self, timeout: float) -> bytes:
        if self._fd is not None:
            return self._fd.read(timeout)
        try:
            self._serial.timeout = max(timeout, 0.0)
            first: bytes = self._serial.read(1)
            more: bytes = self._serial.read(self._serial.in_waiting) if first else b""
        except (OSError, TypeError) as e:
            raise DeviceError(f"the port {self._name} is gone ({e}); connect again") from e
        return first + more

    def write(self, data: bytes) -> None:
        if self._fd is not None:
            self._fd.write(data)
            return
        try:
            self._serial.write(data)
        except (OSError, TypeError) as e:
            raise DeviceError(f"the port {self._name} is gone ({e}); connect again") from e

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._serial.close()


def open_port(name: str, baudrate: int = 115200) -> Port:
    """A port by name: a serial device, a pseudo-terminal, a pyserial URL, or unix:/path."""
    if not name.startswith("unix:"):
        return SerialPort(name, baudrate)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.connect(name.removeprefix("unix:"))
    except OSError as e:
        line.close()
        raise DeviceError(f"cannot open the port {name}: {e}; is the board running?") from e
    return FdPort(line.detach(), name)


class StreamTransport:
    """Messages over a port.

    dedicated: nobody but the link uses the port; raw framing is possible, and there is no text.
    text: gets what comes between the frames of a shared port, as it comes.
    """

    def __init__(
        self,
        port: Port,
        *,
        dedicated: bool,
        framing: Framing | None = None,
        text: TextSink | None = None,
    ) -> None:
        self.framing = framing or (Framing.RAW if dedicated else Framing.CONSOLE)
        if self.framing is Framing.RAW and not dedicated:
            raise ValueError("raw framing needs a dedicated port")
        self._port = port
        self._dedicated = dedicated
        self._text = text
        self._deframer = Deframer(raw=dedicated, replies=True)
        self._ready: deque[Frame] = deque()

    @property
    def name(self) -> str:
        return self._port.name

    @property
    def dedicated(self) -> bool:
        return self._dedicated

    @property
    def damaged(self) -> int:
        return self._deframer.bad

    def wire_bytes(self, message_bytes: int) -> int:
        if self.framing is Framing.RAW:
            return message_bytes
        return message_bytes * 1371 // 1000 + 12

    def send(self, message: bytes) -> None:
        self._port.write(frame(message, self.framing))

    def recv(self, timeout: float) -> bytes | None:
        deadline = time.monotonic() + timeout
        bad = self._deframer.bad
        while not self._ready:
            left = deadline - time.monotonic()
            if left <= 0 or self._deframer.bad != bad:
                return None
            data = self._port.read(min(left, GAP_S))
            if data:
                frames, text = self._deframer.feed(data)
                self._ready.extend(frames)
                if text and self._text is not None:
                    self._text(text)
            elif left > GAP_S:
                self._deframer.gap()
        return self._ready.popleft().message

    def close(self) -> None:
        self._port.close()
