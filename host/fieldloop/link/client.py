"""Requests and replies: one outstanding call, sent again until it is answered, run at most once.

A call keeps its sequence number and its session counter when it is sent again, so that a late
reply to an earlier transmission is as good as a new one, and the device runs it once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from fieldloop.errors import DeviceError, VersionError
from fieldloop.link import cbor
from fieldloop.link.errors import SMP_ECORRUPT, CodecError, LinkError, remote_error
from fieldloop.link.frames import EXTRA_BYTES, GAP_S, Framing
from fieldloop.link.header import (
    GROUP_FIELDLOOP,
    GROUP_OS,
    HEADER_BYTES,
    Message,
    Op,
    decode_message,
    encode_message,
)
from fieldloop.link.transport import Transport

PROTO = 1
SMALLEST_BUF = 256

OS_ECHO, OS_RESET, OS_PARAMETERS = 0, 5, 6
INFO, SESSION = 0, 1
DAMAGED = 255  # not a command: the device tells that a frame came damaged

Fields = dict[str, object]
Reply = dict[str, cbor.Value]
FieldsFor = Callable[[], Fields]  # asked again for each transmission


@dataclass(slots=True)
class LinkStats:
    """What the client saw of the line."""

    calls: int = 0
    sent: int = 0  # transmissions
    resent: int = 0
    damaged: int = 0  # replies that came damaged, or requests the device reports so
    ignored: int = 0  # replies to earlier calls
    bytes_out: int = 0
    bytes_in: int = 0


class _Pace:
    """How long to wait for an answer before sending again.

    From the measured rate and round trip of this line; sending too early is harmless (the device
    answers twice, the second answer is ignored), only slow.
    """

    def __init__(self) -> None:
        self._rate = 8000.0  # bytes a second, both directions together, until measured
        self._round_trip = 0.2

    def wait(self, wire_bytes: int, attempt: int, framing: Framing) -> float:
        # Raw: above the receiver's gap time, so that it has given up a message cut short.
        base = 0.05 if framing is Framing.CONSOLE else GAP_S + 0.05
        on_the_way = 2.0 * wire_bytes / self._rate
        # A device that is at work answers later; a line that damages is best tried again soon.
        patience = 1.5 ** min(max(attempt - 3, 0), 12)
        return min((base + 2.0 * self._round_trip) * patience, 4.0) + on_the_way

    def answered(self, wire_bytes: int, seconds: float, attempt: int) -> None:
        """An answer came so long after the last transmission, which was number `attempt`."""
        if attempt > 0:  # to which transmission is unknown: come down slowly
            self._round_trip = max(min(seconds, self._round_trip), 0.8 * self._round_trip)
        elif wire_bytes >= 1024:
            self._rate += 0.25 * (wire_bytes / max(seconds, 1e-4) - self._rate)
        else:
            self._round_trip += 0.25 * (min(seconds, 2.0) - self._round_trip)

    def hurried(self) -> None:
        """An answer came twice: the call was sent again too soon."""
        self._round_trip = min(2.0 * self._round_trip + 0.01, 2.0)


class Client:
    """An SMP client over a transport.

    timeout: seconds without an answer after which a call fails (DeviceError).
    """

    def __init__(
        self, transport: Transport, *, group: int = GROUP_FIELDLOOP, timeout: float = 10.0
    ) -> None:
        self.transport = transport
        self.group = group
        self.timeout = timeout
        self.stats = LinkStats()
        self.buf_bytes = SMALLEST_BUF
        self._pace = _Pace()
        self._limit = SMALLEST_BUF - EXTRA_BYTES  # of a message, present
        self._good = 0  # calls in a row answered at the first transmission
        self._preferred = transport.framing
        self._seq = random.randrange(256)
        self._session = 0
        self._n = 0  # the last counter used
        self._in_doubt = False  # the device may or may not have counted the last call

    # ---- life

    def connect(self, timeout: float = 5.0) -> Reply:
        """Says hello: somebody answers, in our protocol; learns the buffer; returns `info`."""
        info = self.call(Op.READ, INFO, {}, what="info", timeout=timeout)
        if self.stats.damaged == 0:
            # A board that was still booting is no noisy line.
            self.transport.framing = self._preferred
        proto = info.get("proto")
        if not isinstance(proto, int):
            raise VersionError(
                f"the device on {self.transport.name} tells no protocol version; "
                f"expected {PROTO}; update its fieldloop package"
            )
        if proto != PROTO:
            newer = "this fieldloop (pip install -U fieldloop)"
            older = "the device's fieldloop package (mpremote mip install)"
            raise VersionError(
                f"the device on {self.transport.name} speaks link protocol {proto}, "
                f"expected {PROTO}; update {newer if proto > PROTO else older}"
            )
        buf = info.get("buf")
        if isinstance(buf, int) and buf >= SMALLEST_BUF:
            self.fill(buf)
        return info

    def close(self) -> None:
        self.transport.close()

    # ---- sizes

    @property
    def message_limit(self) -> int:
        """Bytes of the largest message to send now: the device's, less on a noisy line."""
        return self._limit

    def fill(self, buf_bytes: int) -> None:
        """Messages may fill the server's buffer of so many bytes from now on."""
        self.buf_bytes = buf_bytes
        self._limit = self._largest()

    def _largest(self) -> int:
        return self.buf_bytes - EXTRA_BYTES

    def _went_well(self) -> None:
        self._good += 1
        if self._good % 8 == 0:
            self._limit = min(2 * self._limit, self._largest())
        if self._good == 32:  # whatever it was has passed
            self.transport.framing = self._preferred

    def _went_wrong(self, attempt: int) -> None:
        """A transmission was lost: smaller messages, and on a dedicated port lines with a CRC."""
        self._good = 0
        if attempt < 1:
            return
        if self.transport.framing is Framing.RAW:
            self.transport.framing = Framing.CONSOLE
            self._limit = min(self._limit, 512)
        else:
            smallest = min(SMALLEST_BUF - EXTRA_BYTES, self._largest())
            self._limit = max(self._limit // 2, smallest)

    # ---- calls

    def read(
        self, cmd: int, fields: Fields | FieldsFor, *, what: str, timeout: float | None = None
    ) -> Reply:
        """A call that changes nothing."""
        return self.call(Op.READ, cmd, fields, what=what, timeout=timeout)

    def write(
        self, cmd: int, fields: Fields | FieldsFor, *, what: str, timeout: float | None = None
    ) -> Reply:
        """A call that changes something: runs at most once, however often it is sent.

        `fields` may be a function that is asked for each transmission, so that a bulk call can
        shrink with `message_limit`; the device must not mind which of them it runs.
        """
        self._enter()
        n = self._n + 1
        more = fields if callable(fields) else lambda: fields
        self._in_doubt = True
        session = self._session
        try:
            reply = self.call(
                Op.WRITE,
                cmd,
                lambda: {"s": session, "n": n, **more()},
                what=what,
                timeout=timeout,
            )
        except DeviceError:
            # A transmission may still be on its way: a new session makes the device refuse it.
            self._session = 0
            raise
        self._n = n
        self._in_doubt = False
        return reply

    def _enter(self) -> None:
        """Opens the session, or finds out where it stands after a call that failed."""
        if self._session == 0:
            nonce = random.getrandbits(32)
            reply = self.call(Op.WRITE, SESSION, {"nonce": nonce}, what="open a session")
            session = reply.get("s")
            if not isinstance(session, int) or session == 0:
                raise CodecError(f"open a session: a session id expected, got {session!r}")
            self._session, self._n, self._in_doubt = session, 0, False
        elif self._in_doubt:
            info = self.call(Op.READ, INFO, {}, what="info")
            n = info.get("n")
            if info.get("s") == self._session and isinstance(n, int):
                self._n = n  # a session lost is told by the call itself
            self._in_doubt = False

    def echo(self, text: str, *, timeout: float | None = None) -> str:
        """Group 0 echo."""
        reply = self.call(
            Op.WRITE, OS_ECHO, {"d": text}, what="echo", group=GROUP_OS, timeout=timeout
        )
        answer = reply.get("r")
        if not isinstance(answer, str):
            raise CodecError(f"echo: text expected, got {answer!r}")
        return answer

    def reset_device(self) -> None:
        """Group 0 reset; the device answers, then restarts."""
        self.call(Op.WRITE, OS_RESET, {}, what="restart the device", group=GROUP_OS)
        self._session = 0

    def call(
        self,
        op: Op,
        cmd: int,
        fields: Fields | FieldsFor,
        *,
        what: str,
        group: int | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """Sends a request until it is answered. Raises what the reply says, or DeviceError."""
        group = self.group if group is None else group
        seq = self._seq = (self._seq + 1) & 0xFF
        self.stats.calls += 1
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        attempt = 0
        while True:
            message = encode_message(
                fields() if callable(fields) else fields,
                op=op,
                cmd=cmd,
                seq=seq,
                group=group,
                check=group == self.group,
            )
            if len(message) > self._largest():
                raise LinkError(
                    f"{what}: a message of {len(message)} bytes, the device takes "
                    f"{self._largest()}; send fewer samples at a time"
                )
            started = time.monotonic()
            self._send(message, attempt)
            wire = self.transport.wire_bytes(len(message))
            wait = min(
                self._pace.wait(wire, attempt, self.transport.framing),
                max(deadline - started, 0.05),
            )
            reply = self._answer(op, group, cmd, seq, started + wait)
            if reply is not None:
                wire += self.transport.wire_bytes(reply.header.length + HEADER_BYTES)
                self._pace.answered(wire, time.monotonic() - started, attempt)
                if attempt == 0:
                    self._went_well()
                error = remote_error(what, reply.fields)
                if error is not None:
                    raise error
                return reply.fields
            if time.monotonic() >= deadline:
                raise self._nobody(what)
            self._went_wrong(attempt)
            attempt += 1

    def _send(self, message: bytes, attempt: int) -> None:
        self.transport.send(message)
        self.stats.sent += 1
        self.stats.resent += attempt > 0
        self.stats.bytes_out += len(message)

    def _answer(self, op: Op, group: int, cmd: int, seq: int, until: float) -> Message | None:
        """The reply to this call; None when it is time to send the call again."""
        while True:
            damaged = self.transport.damaged
            raw = self.transport.recv(max(until - time.monotonic(), 0.0))
            if raw is None:
                self.stats.damaged += self.transport.damaged - damaged
                return None
            self.stats.bytes_in += len(raw)
            try:
                reply = decode_message(raw)
            except CodecError:
                self.stats.damaged += 1
                return None
            header = reply.header
            if (header.group, header.cmd) == (self.group, DAMAGED):
                self.stats.damaged += 1
                return None
            if (header.op, header.group, header.cmd, header.seq) != (op + 1, group, cmd, seq):
                self.stats.ignored += 1
                self._pace.hurried()
                continue
            plain_error = "rc" in reply.fields  # SMP's own errors need no check
            if group == self.group and not reply.checked and not plain_error:
                self.stats.damaged += 1
                return None
            if reply.fields.get("rc") == SMP_ECORRUPT:
                self.stats.damaged += 1
                return None
            return reply

    def _nobody(self, what: str) -> DeviceError:
        return DeviceError(
            f"{what}: nothing answers on {self.transport.name}; expected a server: on MicroPython "
            "start one (import fieldloop; fieldloop.serve()), on Zephyr check which port is its"
        )
