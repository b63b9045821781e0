"""A bad line on purpose: drops, changes and doubles bytes and frames, and stalls. Seeded.

`LossyPort` wraps a port on the host's side. `LossyProxy` offers a pseudo-terminal whose other end
is a real port, so that any program meets the bad line.
"""

from __future__ import annotations

import os
import random
import threading
import time
import tty
from dataclasses import dataclass

from fieldloop.errors import DeviceError
from fieldloop.link.frames import Deframer
from fieldloop.link.transport import FdPort, Port


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Probabilities: of each byte to be dropped or changed, of each frame to be sent twice, and of
    each frame to be held up for `stall_s` seconds."""

    drop: float = 0.001
    corrupt: float = 0.001
    duplicate: float = 0.02
    stall: float = 0.01
    stall_s: float = 0.3


@dataclass(slots=True)
class FaultCounts:
    frames: int = 0
    dropped: int = 0
    corrupted: int = 0
    duplicated: int = 0
    stalled: int = 0


class _Injector:
    """Applies the faults to one direction, a frame at a time."""

    def __init__(self, faults: Faults, rng: random.Random, counts: FaultCounts) -> None:
        self._faults = faults
        self._rng = rng
        self._counts = counts

    def spoil(self, frame: bytes) -> bytes:
        """What the other side receives instead of `frame`."""
        self._counts.frames += 1
        if self._rng.random() < self._faults.stall:
            self._counts.stalled += 1
            time.sleep(self._faults.stall_s)
        out = self._bytes(frame)
        if self._rng.random() < self._faults.duplicate:
            self._counts.duplicated += 1
            out += self._bytes(frame)
        return out

    def _bytes(self, frame: bytes) -> bytes:
        out = bytearray()
        for byte in frame:
            roll = self._rng.random()
            if roll < self._faults.drop:
                self._counts.dropped += 1
                continue
            if roll < self._faults.drop + self._faults.corrupt:
                self._counts.corrupted += 1
                byte ^= self._rng.randrange(1, 256)
            out.append(byte)
        return bytes(out)


class _FrameCutter:
    """Cuts a clean stream after each whole message, so that faults hit frames and not reads."""

    def __init__(self, *, replies: bool) -> None:
        self._deframer = Deframer(raw=True, replies=replies)
        self._pending = bytearray()

    def cut(self, data: bytes) -> list[bytes]:
        out: list[bytes] = []
        for byte in data:
            one = bytes((byte,))
            frames, _ = self._deframer.feed(one)
            self._pending.append(byte)
            if frames:
                out.append(bytes(self._pending))
                self._pending.clear()
        return out

    def rest(self) -> bytes:
        data = bytes(self._pending)
        self._pending.clear()
        return data


class LossyPort:
    """A port with faults in both directions."""

    def __init__(self, port: Port, *, seed: int, faults: Faults | None = None) -> None:
        self._port = port
        self.counts = FaultCounts()
        faults = faults or Faults()
        self._out = _Injector(faults, random.Random(2 * seed), self.counts)
        self._in = _Injector(faults, random.Random(2 * seed + 1), self.counts)
        self._cutter = _FrameCutter(replies=True)

    @property
    def name(self) -> str:
        return self._port.name

    def write(self, data: bytes) -> None:
        self._port.write(self._out.spoil(data))

    def read(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        while True:
            data = self._port.read(max(deadline - time.monotonic(), 0.0))
            if not data:
                return self._cutter.rest()
            out = b"".join(self._in.spoil(frame) for frame in self._cutter.cut(data))
            if out:
                return out

    def close(self) -> None:
        self._port.close()


class LossyProxy:
    """A pseudo-terminal at `name` whose bytes pass through a LossyPort; a context manager."""

    def __init__(self, port: Port, *, seed: int, faults: Faults | None = None) -> None:
        self._far = LossyPort(port, seed=seed, faults=faults)
        master, self._slave = os.openpty()
        tty.setraw(self._slave)  # held open, so that a client may come and go
        self.name = os.ttyname(self._slave)
        self._near = FdPort(master, self.name)
        self._cutter = _FrameCutter(replies=False)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._pump_out, daemon=True),
            threading.Thread(target=self._pump_in, daemon=True),
        ]

    @property
    def counts(self) -> FaultCounts:
        return self._far.counts

    def __enter__(self) -> LossyProxy:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._near.close()
        os.close(self._slave)
        self._far.close()

    def _pump_out(self) -> None:
        try:
            while not self._stop.is_set():
                data = self._near.read(0.05)
                for frame in self._cutter.cut(data) if data else [self._cutter.rest()]:
                    if frame:
                        self._far.write(frame)
        except DeviceError:
            self._stop.set()

    def _pump_in(self) -> None:
        try:
            while not self._stop.is_set():
                data = self._far.read(0.05)
                if data:
                    self._near.write(data)
        except DeviceError:
            self._stop.set()
