"""The C server behind the host's client: what tests/device/test_server.py asks of a board."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_app import HostApp
from images import CLASSES, digits_image, samples

from fieldloop.errors import DoesNotFitError
from fieldloop.link.board import Board, connect
from fieldloop.link.errors import LinkError
from fieldloop.link.header import Op, decode_message, encode_message
from fieldloop.link.lossy import Faults, LossyPort
from fieldloop.link.transport import StreamTransport, open_port
from fieldloop.runtime import Learner, LearnerConfig, Model

SETTINGS: dict[str, Any] = {"lr": 1.0, "memory": 10, "seed": 3}


@pytest.fixture
def app() -> Iterator[HostApp]:
    with HostApp() as target:
        yield target


def client(target: HostApp) -> Board:
    return connect(target.link_port, dedicated=True)


def host_learner() -> Learner:
    return Learner(Model(digits_image()), LearnerConfig(**SETTINGS))


def load(device: Board, slot: str = "model0", seed: int = 0) -> None:
    image = digits_image(seed)
    device.push(image, to=slot)
    device.activate(image, slot=slot)


@pytest.mark.parametrize("sanitize", [False, True], ids=["plain", "sanitized"])
def test_whole_way(sanitize: bool) -> None:
    image = digits_image()
    x, labels = samples(60, 7), np.arange(60) % CLASSES
    host = host_learner()
    with HostApp(sanitize=sanitize) as target:
        with client(target) as device:
            info = device.info()
            assert (info.model, info.learner, info.buf_bytes) == (None, False, 4096)
            assert (info.board, info.os, info.micropython) == ("host", "linux", None)
            assert info.slots == {"model0": 32 * 4096, "model1": 32 * 4096}
            device.push(image, to="model0")
            model = device.activate(image, slot="model0")
            assert (model.slot, model.bytes, model.learnable) == ("model0", len(image), True)
            assert target.partition("model0")[: len(image)] == image
            assert device.predict(x).tobytes() == host.model.predict_int8(x).tobytes()
            planned = device.learner_open(SETTINGS)
            stats = device.step(x, labels)
            steps = [host.step(a, int(y)) for a, y in zip(x, labels, strict=True)]
            assert stats.samples == 60
            assert stats.hits == sum(s.predicted == y for s, y in zip(steps, labels, strict=True))
            assert stats.loss_sum == pytest.approx(sum(s.error for s in steps), rel=1e-6)
            assert stats.backward_macs == host.stats.backward_macs
            assert device.stats()["trained"] == host.stats.trained
            first = device.commit()
            assert device.pull("state") == bytes(host.state)
            assert device.pull("image") == image

            # The arena is used to its last planned byte, and a paint loses nothing.
            for paint in (0x55, 0xAA):
                device.paint(paint)
                device.step(x[:1], labels[:1])
                memory = device.memory()
                assert memory.used_bytes == memory.arena_bytes == planned
            for _ in range(2):
                host.step(x[0], 0)
            assert device.commit() > first
            assert device.pull("state") == bytes(host.state)
            device.undo()
            assert device.pull("state") != bytes(host.state)
            device.undo()
            assert device.pull("state") == bytes(host.state)  # undo of undo
            device.step(x[:3], labels[:3])
            device.restore()
            device.commit()
            assert device.pull("state") == bytes(host.state)

        target.restart()  # a power cut
        with client(target) as device:
            info = device.info()
            assert info.model is not None and info.learner and info.fault is None
            assert device.pull("state") == bytes(host.state)
            assert device.predict(x).tobytes() == host.model.predict_int8(x).tobytes()
            device.reset()
            assert device.predict(x).tobytes() == Model(image).predict_int8(x).tobytes()
        target.restart()
        with client(target) as device:
            assert device.predict(x).tobytes() == Model(image).predict_int8(x).tobytes()
            assert device.info().learner is False  # factory's weights need none
            device.learner_open(SETTINGS)
            device.undo()  # a reset can be undone
            assert device.predict(x).tobytes() == host.model.predict_int8(x).tobytes()


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


def refused(call: Any, *words: str) -> LinkError:
    with pytest.raises(LinkError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)
    return caught.value


def test_faults_are_told_and_change_nothing(app: HostApp) -> None:
    image, other = digits_image(), digits_image(4)
    x = samples(4, 7)
    with client(app) as device:
        refused(lambda: device.client.read(4, {"x": b"x" * 64}, what="predict"), "no model")
        load(device)
        refused(lambda: device.learner_open({"speed": 3}), "speed")
        refused(lambda: device.learner_open({"selector": "best"}), "selector", "best")
        refused(lambda: device.learner_open({"s_min": 3.0}), "s_min")
        refused(lambda: device.step(x[:1], [1]), "no learner is open")
        refused(device.commit, "no learner is open")
        device.learner_open(SETTINGS)
        refused(device.undo, "nothing was committed")
        device.step(x, [0, 1, 2, 3])
        device.commit()
        state = device.pull("state")
        refused(lambda: device.step(x, [0, 1, 2, 10]), "0..9", "10")
        wrong = {"x": b"x" * 65, "y": b"\0"}
        refused(lambda: device.client.write(6, wrong, what="step"), "64", "65")
        refused(lambda: device.client.write(6, {"x": b"x" * 64}, what="step"), "lacks `y`")
        refused(lambda: device.client.write(99, {}, what="nonsense"), "nonsense")
        refused(lambda: device.push(image, to="model7"), "no slot model7")
        with pytest.raises(DoesNotFitError, match="131072 available"):
            device.push(image * 9, to="model1")
        refused(lambda: device.activate(other, slot="model1"), "push again")
        damaged = image[:-1] + bytes([image[-1] ^ 1])
        device.push(damaged, to="model1")
        refused(lambda: device.activate(damaged, slot="model1"), "no whole .flm image")
        refused(lambda: device.activate(other, slot="model1"), "SHA-256")
        device.commit()
        assert device.pull("state") == state  # the first four steps and nothing else
        info = device.info()
        assert info.model is not None and info.model.slot == "model0"


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
    x = samples(20, 7)
    with client(app) as device:
        load(device, "model0")
        device.learner_open(SETTINGS)
        device.step(x, np.arange(20) % CLASSES)
        device.commit()
        learned = device.predict(x)
        load(device, "model1", seed=4)
        other = Model(digits_image(4)).predict_int8(x)
        assert device.predict(x).tobytes() == other.tobytes()
        assert device.info().learner is False
        device.activate(digits_image(), slot="model0")
        assert device.info().learner is True  # what it learned is still in the store
        assert device.predict(x).tobytes() == learned.tobytes()


def test_a_push_that_was_cut_off_begins_again(app: HostApp) -> None:
    image = digits_image()
    with client(app) as device:
        load(device)
        half: dict[str, Any] = {"to": "model1", "off": 0, "len": len(image)}
        half |= {"sha": b"s" * 32, "data": image[:1000]}
        assert device.client.write(2, half, what="push")["off"] == 1000
        assert device.client.write(2, half, what="push")["off"] == 1000  # it goes on there
    app.restart()
    with client(app) as device:
        assert device.info().model is not None
        load(device, "model1", seed=4)


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
    x, labels = samples(100, 7), np.arange(100) % CLASSES
    host = host_learner()
    faults = Faults(drop=0.001, corrupt=0.001, duplicate=0.02, stall=0.01, stall_s=0.05)
    port = LossyPort(open_port(app.link_port), faults=faults, seed=5)
    with connect(port, dedicated=True) as device:
        load(device)
        device.learner_open(SETTINGS)
        for a, y in zip(x, labels, strict=True):
            device.step(a[None], [int(y)])
            host.step(a, int(y))
        device.commit()
        assert device.pull("state") == bytes(host.state)
        assert device.stats()["samples"] == 100
        assert device.client.stats.resent > 0 and port.counts.corrupted > 0


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


COMMANDS: dict[int, str] = {
    2: "to off len sha data",
    3: "slot sha",
    4: "x",
    5: "cfg",
    6: "x y",
    7: "",
    8: "",
    9: "",
    10: "",
    11: "layers",
    12: "kind off max",
    13: "paint",
    14: "do job of every patience commit",
    15: "x y",
    40: "x",
}
SETTING_KEYS = ("seed", "lr", "memory", "replays", "selector", "mask", "batch", "d_thr", "model")


def anything(rng: random.Random, depth: int = 0) -> Any:
    values: list[Any] = [
        None,
        True,
        rng.choice([0, 1, 2, -1, 63, 64, 65, 2**31, 2**32, -(2**40), 2**62]),
        rng.choice([0.0, -1.5, 1e30, float("nan"), float("inf")]),
        rng.randbytes(rng.choice([0, 1, 32, 63, 64, 128, 500])),
        rng.choice(["", "model0", "model1", "/f.flm", "state", "image", "train", "evaluate"]),
        rng.choice(["selftest", "cancel", "pause", "dense", "topk", "tinyprop", "\u00e4" * 90]),
    ]
    if depth < 3:
        values.append([anything(rng, depth + 1) for _ in range(rng.randrange(4))])
        values.append({rng.choice(SETTING_KEYS): anything(rng, depth + 1) for _ in range(2)})
    return rng.choice(values)


def test_no_request_ends_the_server() -> None:
    rng = random.Random(1)
    x = samples(4, 7)
    answered = jobs = 0
    with HostApp(sanitize=True) as target, client(target) as device:
        for i in range(3000):
            if i % 50 == 0:
                with contextlib.suppress(LinkError):
                    device.job_cancel(jobs)
                if device.info().model is None:
                    load(device)
                with contextlib.suppress(LinkError):
                    device.learner_open(SETTINGS)
            cmd = rng.choice(list(COMMANDS))
            keys = [key for key in COMMANDS[cmd].split() if rng.random() < 0.95]
            fields = {key: anything(rng) for key in keys}
            ask = device.client.write if rng.random() < 0.7 and cmd != 4 else device.client.read
            with contextlib.suppress(LinkError):
                jobs = ask(cmd, fields, what="anything").get("job", jobs)
                answered += 1
        assert answered > 240
        with contextlib.suppress(LinkError):
            device.job_cancel(jobs)
        load(device)
        assert device.predict(x).shape == (4, CLASSES)


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
