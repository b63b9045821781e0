"""Client and board against a server behind the real C codec, over clean, bad and dead lines."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from link_server import CodecServer

from fieldloop.errors import DeviceError, DoesNotFitError, UsageError, VersionError
from fieldloop.link import Board, connect
from fieldloop.link.client import Client
from fieldloop.link.errors import LinkError, SessionLostError
from fieldloop.link.frames import Framing
from fieldloop.link.lossy import Faults, LossyPort, LossyProxy
from fieldloop.link.transport import FdPort, Port, StreamTransport

LINE = Faults(drop=0.001, corrupt=0.001, duplicate=0.02, stall=0.005, stall_s=0.3)


def wires() -> tuple[Port, Port]:
    a, b = socket.socketpair()
    return FdPort(a.detach(), "loopback"), FdPort(b.detach(), "server")


@contextmanager
def served(
    *, buf: int = 4096, lossy: int | None = None, faults: Faults = LINE, dedicated: bool = True
) -> Iterator[tuple[Board, CodecServer]]:
    near, far = wires()
    server = CodecServer(far, buf=buf)
    server.start()
    port: Port = near if lossy is None else LossyPort(near, seed=lossy, faults=faults)
    board = connect(port, dedicated=dedicated, timeout=20.0)
    try:
        yield board, server
    finally:
        board.close()
        server.stop()
        far.close()


def samples(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (n, 8, 8, 1), np.int8), rng.integers(0, 10, n)


def work(board: Board, server: CodecServer, steps: int, seed: int) -> None:
    """Push, predict, learn, pull: what a field visit does, checked to the byte."""
    image = random.Random(seed).randbytes(6000)
    board.push(image, to="model0")
    board.activate(image, slot="model0")
    assert bytes(server.slots["model0"]) == image
    x, y = samples(steps, seed)
    assert (board.predict(x) == x.reshape(steps, 64)[:, :10]).all()
    for i in range(steps):
        assert board.step(x[i], y[i]).samples == 1
    assert server.learned == [(x[i].tobytes(), int(y[i])) for i in range(steps)]
    assert board.pull() == b"".join(x[i].tobytes() + bytes((y[i],)) for i in range(steps))
    assert board.commit() == steps


def test_clean_line_is_raw_and_sends_nothing_twice() -> None:
    with served() as (board, server):
        work(board, server, 30, 1)
        assert server.framings == {Framing.RAW}
        stats = board.client.stats
        assert (stats.resent, stats.damaged, stats.ignored) == (0, 0, 0)
        assert server.runs[6] == 30


@pytest.mark.parametrize("buf", [256, 372, 1024, 4096])
def test_console_framing_at_several_buffer_sizes(buf: int) -> None:
    with served(buf=buf, dedicated=False) as (board, server):
        work(board, server, 5, buf)
        assert server.framings == {Framing.CONSOLE}


@pytest.mark.parametrize("seed", range(3))
def test_a_bad_line_ends_with_the_same_result(seed: int) -> None:
    with served(lossy=seed) as (board, server):
        work(board, server, 100, seed)
        assert server.runs[6] == 100  # no step twice
        port = board.client.transport._port  # type: ignore[attr-defined]
        assert min(port.counts.dropped, port.counts.corrupted, port.counts.duplicated) > 0
        assert board.client.stats.resent > 0


def test_a_batch_shrinks_on_a_bad_line_and_nothing_is_learned_twice() -> None:
    with served(lossy=5) as (board, server):
        image = bytes(100)
        board.push(image, to="model0")
        board.activate(image, slot="model0")
        x, y = samples(200, 5)
        assert board.step(x, y).samples == 200
        assert server.learned == [(x[i].tobytes(), int(y[i])) for i in range(200)]


def test_the_proxy_is_a_bad_line_for_anybody() -> None:
    near, far = wires()
    server = CodecServer(far)
    server.start()
    with LossyProxy(near, seed=1, faults=LINE) as proxy:
        with connect(proxy.name, dedicated=True, timeout=20.0) as board:
            work(board, server, 10, 3)
        assert proxy.counts.frames > 20
    server.stop()
    far.close()


def test_a_lost_reply_is_not_a_second_step() -> None:
    """Every first reply is lost: each call is sent at least twice and runs once."""

    class Deaf(FdPort):
        writes = 0

        def write(self, data: bytes) -> None:
            self.writes += 1
            if self.writes % 2 == 0:
                super().write(data)

    a, b = socket.socketpair()
    near, far = FdPort(a.detach(), "loopback"), Deaf(b.detach(), "server")
    server = CodecServer(far)
    server.start()
    client = Client(StreamTransport(near, dedicated=True, framing=Framing.CONSOLE))
    for i in range(10):
        fields = {"x": bytes(64), "y": bytes((i,))}
        assert client.write(6, fields, what="step")["k"] == 1
    assert [y for _, y in server.learned] == list(range(10))
    assert client.stats.resent >= 10
    client.close()
    server.stop()
    far.close()


def test_the_newest_session_wins() -> None:
    near, far = wires()
    server = CodecServer(far)
    server.start()
    old = Client(StreamTransport(near, dedicated=True))
    step = {"x": bytes(64), "y": b"\x01"}
    old.write(6, step, what="step")
    new = Client(old.transport)
    new.write(6, step, what="step")
    with pytest.raises(SessionLostError, match="newer session"):
        old.write(6, step, what="step")
    new.write(6, step, what="step")
    assert len(server.learned) == 3
    new.close()
    server.stop()
    far.close()


def test_a_restart_is_told() -> None:
    near, far = wires()
    server = CodecServer(far)
    server.start()
    client = Client(StreamTransport(near, dedicated=True))
    client.write(7, {}, what="commit")
    server.lib.fl_session_init(server.session, 77, server.kept, 512)
    with pytest.raises(SessionLostError, match="restarted"):
        client.write(7, {}, what="commit")
    client.close()
    server.stop()
    far.close()


def test_a_call_broken_off_is_never_run_again() -> None:
    with served() as (board, server):
        server.break_off = 1
        with pytest.raises(LinkError, match="effect is unknown"):
            board.client.write(6, {"x": bytes(64), "y": b"\x01"}, what="step")
        assert server.learned == []
        board.client.write(6, {"x": bytes(64), "y": b"\x02"}, what="step")  # goes on
        assert [y for _, y in server.learned] == [2]


def test_errors_of_the_device_are_one_clear_line() -> None:
    with served() as (board, server):
        with pytest.raises(LinkError, match=r"not found.*model0") as refused:
            board.push(b"x", to="nowhere")
        assert (refused.value.rc, refused.value.exit_code) == (2, 1)
        with pytest.raises(DoesNotFitError, match="1048577 bytes, 1048576 available") as full:
            board.push(bytes((1 << 20) + 1), to="model0")
        assert full.value.exit_code == 5
        with pytest.raises(UsageError, match="no model is active"):
            board.predict(np.zeros((1, 64), np.int8))
        board.push(b"abc", to="model1")
        with pytest.raises(LinkError, match="damaged"):
            board.activate(b"abd", slot="model1")
        board.activate(b"abc", slot="model1")
        x, _ = samples(1)
        with pytest.raises(LinkError, match="labels below 10"):
            board.step(x, 10)
        with pytest.raises(UsageError, match="int8 or float samples expected"):
            board.predict(x.astype(np.uint8))
        with pytest.raises(UsageError, match=r"sample 0 .*not a finite number"):
            board.predict(np.full((2, 64), np.nan))
        with pytest.raises(UsageError, match="shape"):
            board.predict(x[:, :7])
        assert board.step(x, 9).samples == 1
        with pytest.raises(LinkError, match="no such group or command"):
            board.undo()
        assert len(server.learned) == 1


def test_a_push_goes_on_where_it_stopped() -> None:
    image = random.Random(3).randbytes(50_000)
    near, far = wires()
    server = CodecServer(far)
    server.start()
    board = connect(near, dedicated=True)

    class StopHere(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise StopHere

    with pytest.raises(StopHere):
        board.push(image, to="model0", progress=stop)
    before = board.client.stats.bytes_out
    again = Board(Client(board.client.transport))
    again.connect()
    again.push(image, to="model0")
    assert bytes(server.slots["model0"]) == image
    assert again.client.stats.bytes_out < 30_000
    assert before > 25_000
    again.close()
    server.stop()
    far.close()


def test_nobody_answers() -> None:
    near, far = wires()
    started = time.monotonic()
    with pytest.raises(DeviceError, match=r"nothing answers on loopback.*serve\(\)") as nobody:
        connect(near, dedicated=True, timeout=0.5)
    assert time.monotonic() - started < 2
    assert nobody.value.exit_code == 3
    far.close()


def test_the_port_goes() -> None:
    with served() as (board, server):
        server.stop()
        server.port.close()
        with pytest.raises(DeviceError, match="is gone"):
            board.info()
    with pytest.raises(DeviceError, match="cannot open the port"):
        connect("/dev/no-such-port", dedicated=True)


def test_a_port_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldloop.link.transport.WRITE_TIMEOUT_S", 0.2)
    near, far = wires()
    with pytest.raises(DeviceError, match="takes no bytes"):
        near.write(bytes(10 << 20))
    near.close()
    far.close()


def test_a_newer_protocol_is_refused() -> None:
    near, far = wires()
    server = CodecServer(far, proto=2)
    server.start()
    with pytest.raises(VersionError, match=r"protocol 2, expected 1.*pip install") as newer:
        connect(near, dedicated=True)
    assert newer.value.exit_code == 4
    server.stop()
    far.close()


def test_a_board_that_boots_late_is_still_served_raw() -> None:
    near, far = wires()
    server = CodecServer(far)
    timer_started = time.monotonic()
    client = Client(StreamTransport(near, dedicated=True))
    # Nobody reads for longer than two transmissions take, so that the client tries console lines.
    import threading

    threading.Timer(2.5, server.start).start()
    client.connect(timeout=10.0)
    assert time.monotonic() - timer_started > 2
    assert client.transport.framing is Framing.RAW
    client.close()
    server.stop()
    far.close()


def test_text_on_a_shared_port_reaches_the_sink() -> None:
    near, far = wires()
    server = CodecServer(far)
    server.start()
    seen: list[bytes] = []
    board = connect(near, dedicated=False, text=seen.append)
    far.write(b"hello from print()\r\n")
    board.info()
    far.write(b"and again\r\n")
    board.info()
    assert b"".join(seen) == b"hello from print()\r\nand again\r\n"
    board.close()
    server.stop()
    far.close()


def test_serial_port_over_a_pseudo_terminal() -> None:
    import tty

    master, slave = os.openpty()
    tty.setraw(slave)
    far = FdPort(master, "pty")
    server = CodecServer(far)
    server.start()
    with connect(os.ttyname(slave), dedicated=True) as board:
        work(board, server, 10, 8)
        assert board.client.stats.resent == 0
    server.stop()
    far.close()
    os.close(slave)
