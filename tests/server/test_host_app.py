"""The C server behind the host's client: what tests/device/test_server.py asks of a board."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_app import HostApp
from images import CLASSES, digits_image, samples
from server_checks import (
    SETTINGS,
    check_a_lossy_line,
    check_a_push_that_was_cut_off,
    check_another_model_takes_over_and_back,
    check_faults,
    check_no_request_ends_the_server,
    check_whole_way,
    client,
    host_learner,
    load,
    refused,
)

from fieldloop.errors import DoesNotFitError
from fieldloop.link.board import connect
from fieldloop.link.header import Op, decode_message, encode_message
from fieldloop.link.lossy import Faults
from fieldloop.link.transport import StreamTransport, open_port
from fieldloop.runtime import Model


@pytest.fixture
def app() -> Iterator[HostApp]:
    with HostApp() as target:
        yield target


def up(target: HostApp) -> None:
    """It serves from its start on."""


@pytest.mark.parametrize("sanitize", [False, True], ids=["plain", "sanitized"])
def test_whole_way(sanitize: bool) -> None:
    with HostApp(sanitize=sanitize) as target:
        with client(target) as device:
            info = device.info()
            assert (info.board, info.os, info.micropython) == ("host", "linux", None)
            assert info.slots == {"model0": 32 * 4096, "model1": 32 * 4096}
        check_whole_way(target, up)
        assert target.partition("model0").startswith(digits_image())


def test_a_reset_over_the_link_keeps_what_was_committed(app: HostApp) -> None:
    x = samples(10, 7)
    with client(app) as device:
        load(device)
        device.learner_open(SETTINGS)
        device.step(x, np.arange(10))
        device.commit()
        committed = device.predict(x)
        device.step(x, np.arange(10))
        before = device.info().boot
        assert device.client.echo("hallo") == "hallo"
        device.client.reset_device()
        info = device.info()
        assert info.boot != before and info.learner
        assert device.predict(x).tobytes() == committed.tobytes()
        device.step(x[:1], [1])  # in a session of its own


def test_faults_are_told_and_change_nothing(app: HostApp) -> None:
    check_faults(app)
    with client(app) as device, pytest.raises(DoesNotFitError, match="131072 available"):
        device.push(digits_image() * 9, to="model1")


def test_what_does_not_fit_is_told_in_bytes_and_changes_nothing() -> None:
    image = digits_image()
    x = samples(3, 7)
    with HostApp(memory=256) as target, client(target) as device:
        device.push(image, to="model0")
        with pytest.raises(DoesNotFitError, match="256 available"):
            device.activate(image, slot="model0")
        assert device.info().model is None
    host = host_learner()
    with HostApp(memory=1 << 14) as target, client(target) as device:
        load(device)
        with pytest.raises(DoesNotFitError, match="16384 available"):
            device.learner_open({"memory": 1000})
        assert device.predict(x).tobytes() == Model(image).predict_int8(x).tobytes()
        device.learner_open(SETTINGS)
        device.step(x, [1, 2, 3])
        host.run(x, [1, 2, 3])
        with pytest.raises(DoesNotFitError, match="16384 available"):
            device.learner_open({"memory": 1000})
        device.commit()  # of the learner that stayed
        assert device.pull("state") == bytes(host.state)


def test_another_model_takes_over_and_back(app: HostApp) -> None:
    check_another_model_takes_over_and_back(app)


def test_a_push_that_was_cut_off_begins_again(app: HostApp) -> None:
    check_a_push_that_was_cut_off(app, up)


def test_a_push_over_the_active_model_closes_it_first(app: HostApp) -> None:
    with client(app) as device:
        load(device)
        device.push(digits_image(4), to="model0")
        refused(lambda: device.client.read(4, {"x": bytes(64)}, what="predict"), "no model")
        assert device.info().model is None
        device.activate(digits_image(4), slot="model0")
        x = samples(2, 7)
        assert device.predict(x).tobytes() == Model(digits_image(4)).predict_int8(x).tobytes()


def test_the_console_framing_is_taken_as_well(app: HostApp) -> None:
    x = samples(8, 7)
    with connect(app.link_port, dedicated=False) as device:
        load(device)
        assert device.predict(x).tobytes() == Model(digits_image()).predict_int8(x).tobytes()
        assert device.info().frames > 3


@pytest.mark.parametrize("buf", [256, 1024, 65535])
def test_small_and_large_buffers(buf: int) -> None:
    x, labels = samples(20, 7), np.arange(20) % CLASSES
    host = host_learner()
    with HostApp(buf=buf) as target, client(target) as device:
        assert device.info().buf_bytes == buf
        load(device)
        device.learner_open({"lr": 1.0, "memory": 10})
        device.learner_open(SETTINGS)
        device.step(x, labels)
        host.run(x, labels.tolist())
        assert device.predict(x).tobytes() == host.model.predict_int8(x).tobytes()
        device.commit()
        assert device.pull("state") == bytes(host.state)


def test_a_lossy_line_changes_nothing(app: HostApp) -> None:
    faults = Faults(drop=0.001, corrupt=0.001, duplicate=0.02, stall=0.01, stall_s=0.05)
    check_a_lossy_line(app, faults)


class Wire:
    """Messages as they are, without a client that repairs anything."""

    def __init__(self, target: HostApp) -> None:
        self.transport = StreamTransport(open_port(target.link_port), dedicated=True)
        self.seq = 0

    def ask(self, op: Op, cmd: int, fields: dict[str, object], *, group: int = 70) -> Any:
        self.seq = (self.seq + 1) & 0xFF
        message = encode_message(fields, op=op, cmd=cmd, seq=self.seq, group=group)
        reply = self.send(message)
        assert reply is not None
        answer = decode_message(reply)
        assert (answer.header.seq, answer.header.cmd) == (self.seq, cmd)
        return answer.fields

    def send(self, message: bytes, wait: float = 5.0) -> bytes | None:
        self.transport.send(message)
        return self.transport.recv(wait)

    def close(self) -> None:
        self.transport.close()


def test_a_state_changing_call_runs_at_most_once(app: HostApp) -> None:
    with client(app) as device:
        load(device)
        device.learner_open(SETTINGS)
    wire = Wire(app)
    session = wire.ask(Op.WRITE, 1, {"nonce": 7})["s"]
    assert wire.ask(Op.WRITE, 1, {"nonce": 7})["s"] == session
    step: dict[str, object] = {"s": session, "n": 1, "x": samples(1, 7).tobytes(), "y": b"\3"}
    first = wire.ask(Op.WRITE, 6, step)
    for _ in range(3):
        assert wire.ask(Op.WRITE, 6, step) == first
    assert wire.ask(Op.READ, 11, {})["samples"] == 1
    for changed, rc in (({"n": 3}, 22), ({"n": 0}, 22), ({"s": session ^ 1, "n": 2}, 16)):
        reply = wire.ask(Op.WRITE, 6, {**step, **changed})
        assert (reply["err"]["rc"], reply["want"]) == (rc, 2), reply
    assert wire.ask(Op.WRITE, 7, {"s": session, "n": 1})["err"]["rc"] == 22  # another command
    bad = wire.ask(Op.WRITE, 6, {**step, "n": 2, "y": b"\x0a"})
    assert bad["err"]["rc"] == 22
    assert wire.ask(Op.WRITE, 6, {**step, "n": 2}) == bad  # an error is an answer, too
    newer = wire.ask(Op.WRITE, 1, {"nonce": 8})["s"]
    assert newer != session
    assert wire.ask(Op.WRITE, 6, {**step, "n": 3})["err"]["rc"] == 16
    assert wire.ask(Op.READ, 11, {})["samples"] == 1
    assert wire.ask(Op.WRITE, 6, {**step, "s": newer})["k"] == 1
    wire.close()
    app.restart()
    wire = Wire(app)
    gone = wire.ask(Op.WRITE, 7, {"s": newer, "n": 2})
    assert (gone["err"]["rc"], gone["want"]) == (2, 1)
    wire.close()


def test_what_is_damaged_has_no_effect(app: HostApp) -> None:
    wire = Wire(app)
    session = wire.ask(Op.WRITE, 1, {"nonce": 7})["s"]
    good = encode_message({"s": session, "n": 1, "paint": 1}, op=Op.WRITE, cmd=13, seq=1, group=70)
    for at in range(9, len(good)):  # behind the map's head; the header is the framing's matter
        damaged = bytearray(good)
        damaged[at] ^= 0x20
        reply = wire.send(bytes(damaged))
        assert reply is not None
        assert decode_message(reply).fields.get("rc") in (3, 9), (at, reply)
    assert wire.ask(Op.READ, 0, {})["n"] == 0
    unchecked = encode_message(
        {"s": session, "n": 1}, op=Op.WRITE, cmd=7, seq=1, group=70, check=False
    )
    reply = wire.send(unchecked)
    assert reply is not None and decode_message(reply).fields["rc"] == 3
    assert wire.ask(Op.READ, 0, {}, group=71)["rc"] == 8
    assert wire.ask(Op.READ, 99, {})["rc"] == 8
    wire.close()


def test_no_request_ends_the_server() -> None:
    with HostApp(sanitize=True) as target:
        check_no_request_ends_the_server(target, 3000)


def test_a_store_of_another_kind_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    """A flash that a device of another geometry used: it serves, says why, and erases nothing."""
    flash_file = tmp_path / "flash.bin"
    with HostApp(flash_file=flash_file, store=16) as target, client(target) as device:
        load(device)
        device.learner_open(SETTINGS)
        device.commit()
    before = flash_file.read_bytes()
    flash_file.write_bytes(before[: len(before) - 4 * 4096])
    with HostApp(flash_file=flash_file, store=12) as target, client(target) as device:
        info = device.info()
        assert info.model is None and info.fault is not None
        assert "store" in info.fault
        x = {"x": samples(1, 7).tobytes()}
        refused(lambda: device.client.read(4, x, what="predict"), info.fault[:40])
    assert flash_file.read_bytes() == before[: len(before) - 4 * 4096]
