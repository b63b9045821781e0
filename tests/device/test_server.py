"""The server on a device, asked by the host's client: the whole way, over both kinds of port."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import serial
from images import CLASSES, digits_image, samples
from package import install, serve

from fieldloop.link.board import Board, connect
from fieldloop.link.errors import LinkError
from fieldloop.link.lossy import Faults, LossyPort
from fieldloop.link.transport import open_port
from fieldloop.runtime import Learner, LearnerConfig, Model
from fieldloop.targets.pytest_plugin import firmware
from fieldloop.targets.unix import UnixBoard

SETTINGS: dict[str, Any] = {"lr": 1.0, "memory": 10, "seed": 3}


@pytest.fixture
def unix() -> Iterator[UnixBoard]:
    with UnixBoard(firmware=firmware("unix")) as target:
        yield target


def client(target: Any) -> Board:
    return connect(target.link_port, dedicated=True)


def host_learner() -> Learner:
    return Learner(Model(digits_image()), LearnerConfig(**SETTINGS))


def load(device: Board, slot: str = "model0", seed: int = 0) -> None:
    image = digits_image(seed)
    device.push(image, to=slot)
    device.activate(image, slot=slot)


def check_whole_way(target: Any) -> None:
    install(target)
    serve(target)
    image = digits_image()
    x, labels = samples(60, 7), np.arange(60) % CLASSES
    host = host_learner()
    with client(target) as device:
        info = device.info()
        assert (info.model, info.learner, info.buf_bytes) == (None, False, 4096)
        assert set(info.slots) == {"model0", "model1"}
        device.push(image, to="model0")
        model = device.activate(image, slot="model0")
        assert (model.slot, model.bytes, model.learnable) == ("model0", len(image), True)
        assert device.predict(x).tobytes() == host.model.predict_int8(x).tobytes()
        planned = device.learner_open(SETTINGS)
        stats = device.step(x, labels)
        steps = [host.step(a, int(y)) for a, y in zip(x, labels, strict=True)]
        assert stats.samples == 60
        assert stats.hits == sum(s.predicted == y for s, y in zip(steps, labels, strict=True))
        assert stats.backward_macs == host.stats.backward_macs
        assert device.stats()["trained"] == host.stats.trained
        device.commit()
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
        device.commit()
        assert device.pull("state") == bytes(host.state)
        device.undo()
        assert device.pull("state") != bytes(host.state)
        device.undo()
        assert device.pull("state") == bytes(host.state)  # undo of undo
        assert target.running

    target.restart()  # a power cut
    serve(target)
    with client(target) as device:
        info = device.info()
        assert info.model is not None and info.learner
        assert device.pull("state") == bytes(host.state)
        assert device.predict(x).tobytes() == host.model.predict_int8(x).tobytes()
        device.reset()
        assert device.predict(x).tobytes() == Model(image).predict_int8(x).tobytes()
    target.restart()
    serve(target)
    with client(target) as device:
        assert device.predict(x).tobytes() == Model(image).predict_int8(x).tobytes()
    target.interrupt()


def test_whole_way_on_unix(unix: UnixBoard) -> None:
    check_whole_way(unix)


@pytest.mark.fieldloop_board(only=("qemu", "zephyr-mpy"), needs=("partitions",))
def test_whole_way_on_board(board: Any) -> None:
    check_whole_way(board)


@pytest.mark.fieldloop_board(only=("qemu",), memory="realistic")
def test_whole_way_on_a_small_part(board: Any) -> None:
    check_whole_way(board)


def refused(call: Any, *words: str) -> None:
    with pytest.raises(LinkError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_faults_are_told_and_change_nothing(unix: UnixBoard) -> None:
    serve(unix)
    image, other = digits_image(), digits_image(4)
    x = samples(4, 7)
    with client(unix) as device:
        refused(lambda: device.client.read(4, {"x": b"x" * 64}, what="predict"), "no model")
        load(device)
        refused(lambda: device.learner_open({"speed": 3}), "speed")
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
        refused(lambda: device.activate(other, slot="model1"), "push again")
        damaged = image[:-1] + bytes([image[-1] ^ 1])
        device.push(damaged, to="model1")
        refused(lambda: device.activate(damaged, slot="model1"), "no whole .flm image")
        refused(lambda: device.activate(other, slot="model1"), "SHA-256")
        device.commit()
        assert device.pull("state") == state  # the first four steps and nothing else
        info = device.info()
        assert info.model is not None and info.model.slot == "model0"
    unix.interrupt()


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
    11: "",
    12: "kind off max",
    13: "paint",
    14: "do job of",
    15: "x y",
    40: "x",
}
SETTING_KEYS = ("seed", "lr", "memory", "replays", "selector", "packed", "self", "d_thr", "model")


def anything(rng: random.Random, depth: int = 0) -> Any:
    values: list[Any] = [
        None,
        True,
        rng.choice([0, 1, -1, 63, 64, 65, 2**31, 2**32, -(2**40), 2**62]),
        rng.choice([0.0, -1.5, 1e30, float("nan"), float("inf")]),
        rng.randbytes(rng.choice([0, 1, 32, 63, 64, 128, 500])),
        rng.choice(
            ["", "model0", "model1", "/f.flm", "/no/such/f.flm", "state", "image", "train"]
        ),
        rng.choice(["selftest", "cancel", "dense", "topk", "tinyprop", "\u00e4" * 40]),
    ]
    if depth < 3:
        values.append([anything(rng, depth + 1) for _ in range(rng.randrange(4))])
        values.append({rng.choice(SETTING_KEYS): anything(rng, depth + 1) for _ in range(2)})
    return rng.choice(values)


def test_no_request_ends_the_server(unix: UnixBoard) -> None:
    serve(unix)
    rng = random.Random(1)
    x = samples(4, 7)
    answered, jobs = 0, 0
    with client(unix) as device:
        for i in range(1500):
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
        assert answered > 120
        with contextlib.suppress(LinkError):
            device.job_cancel(jobs)
        load(device)
        assert device.predict(x).shape == (4, CLASSES)
    unix.interrupt()


def test_another_model_takes_over_and_back(unix: UnixBoard) -> None:
    serve(unix)
    x = samples(20, 7)
    with client(unix) as device:
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


@pytest.mark.fieldloop_board(only=("qemu", "zephyr-mpy"), needs=("files",))
def test_a_model_can_be_a_file(board: Any) -> None:
    # Not on the unix port: os.rename() of two absolute paths is broken there (MicroPython 1.25).
    install(board)
    serve(board)
    image, x = digits_image(4), samples(20, 7)
    with client(board) as device:
        load(device)
        device.push(image, to="/other.flm")
        device.activate(image, slot="/other.flm")
        assert device.predict(x).tobytes() == Model(image).predict_int8(x).tobytes()
        assert device.pull("image") == image
        damaged = image[:-1] + bytes([image[-1] ^ 1])
        device.push(damaged, to="/third.flm")
        refused(lambda: device.activate(damaged, slot="/third.flm"), "no whole .flm image")
    board.restart()
    serve(board)
    with client(board) as device:
        model = device.info().model
        assert model is not None and model.slot == "/other.flm"
        assert device.predict(x).tobytes() == Model(image).predict_int8(x).tobytes()


def test_a_push_that_was_cut_off_begins_again(unix: UnixBoard) -> None:
    serve(unix)
    image = digits_image()
    with client(unix) as device:
        load(device)
        half: dict[str, Any] = {"to": "model1", "off": 0, "len": len(image)}
        half |= {"sha": b"s" * 32, "data": image[:1000]}
        reply = device.client.write(2, half, what="push")
        assert reply["off"] == 1000
    unix.restart()
    serve(unix)
    with client(unix) as device:
        assert device.info().model is not None
        load(device, "model1", seed=4)


def test_jobs_run_while_reads_are_answered(unix: UnixBoard) -> None:
    serve(unix)
    x = samples(1, 7)
    with client(unix) as device:
        load(device)
        device.learner_open(SETTINGS)
        job = device.job_start("train", 200_000)
        time.sleep(0.05)
        first = device.job_status(job)
        device.predict(x)
        refused(lambda: device.step(x, [1]), "is running")
        later = device.job_status(job)
        assert first.state == later.state == "running" and later.done > first.done
        device.job_cancel(job)
        assert device.job_status(job).state == "cancelled"
        device.step(x, [1])
        job = device.job_start("selftest", 40)
        while device.job_status(job).state == "running":
            time.sleep(0.01)
        right = sum(
            int(np.argmax(device.predict(sample)) == label)
            for sample, label in zip(samples(40, 1)[:, None], np.arange(40) % 8, strict=True)
        )
        assert device.job_status(job).message == f"{right} of 40 samples right"
    unix.interrupt()


@pytest.mark.fieldloop_board(only=("qemu", "zephyr-mpy"), needs=("partitions",))
def test_console_with_prints_between(board: Any) -> None:
    install(board)
    # Zephyr's console holds 512 bytes: a message must fit in, framed.
    size = 352 if board.kind == "zephyr-mpy" else 4096
    board.begin(
        f"import fieldloop\ns = fieldloop.Server(buf={size}, text=lambda t: print('heard', t))\n"
        "n = 0\n"
        "while True:\n    s.poll(5)\n    n += 1\n    print('tick', n)"
    )
    heard = bytearray()
    x = samples(8, 7)
    port = open_port(board.repl_port)
    with connect(port, dedicated=False, text=heard.extend) as device:
        load(device)
        assert device.predict(x).tobytes() == Model(digits_image()).predict_int8(x).tobytes()
        device.learner_open(SETTINGS)
        device.step(x, np.arange(8))
        device.commit()
        state = device.pull("state")
        port.write(b"hello\n")
        device.info()
        deadline = time.monotonic() + 5
        while b"heard b'hello" not in heard and time.monotonic() < deadline:
            device.info()
    host = host_learner()
    for i in range(8):
        host.step(x[i], i)
    assert state == bytes(host.state)
    assert b"heard b'hello" in heard and heard.count(b"tick") > 5
    board.interrupt()
    assert "ready" in board.exec("print('ready', s.learner is not None)")
    assert board.eval("s.learner.seq") > 0


@pytest.mark.fieldloop_board(only=("qemu", "zephyr-mpy"))
def test_what_follows_ctrl_c_is_left_to_the_repl(board: Any) -> None:
    """Both arrive at once, as mpremote sends them: the server must not take the second."""
    install(board)
    serve(board, console=True)
    with connect(board.repl_port, dedicated=False) as device:
        device.info()  # it serves
    with serial.Serial(board.repl_port, timeout=5, exclusive=True) as port:
        port.write(b"\r\x03\r\x01")
        banner = b"raw REPL; CTRL-B to exit\r\n>"
        assert port.read_until(banner).endswith(banner)


@pytest.mark.fieldloop_board(only=("qemu", "zephyr-mpy"), needs=("files",))
def test_an_installed_main_serves_after_a_power_cut(board: Any) -> None:
    install(board)
    board.exec("import fieldloop\nfieldloop.install_main(1)\nfieldloop.install_main(1)")
    board.restart()
    with client(board) as device:
        load(device)
        device.client.reset_device()
    time.sleep(0.5)
    with client(board) as device:
        model = device.info().model
        assert model is not None and model.slot == "model0"
        time.sleep(0.1)
    assert board.eval("6 * 7") == 42  # Ctrl-C ends the server, the REPL is there
    board.put("/main.py", b"print('mine')")
    assert "is there already" in board.exec(
        "import fieldloop\ntry:\n    fieldloop.install_main(1)\nexcept OSError as e:\n    print(e)"
    )


def test_a_lossy_line_changes_nothing(unix: UnixBoard) -> None:
    serve(unix)
    x, labels = samples(100, 7), np.arange(100) % CLASSES
    host = host_learner()
    port = LossyPort(open_port(unix.link_port), faults=Faults(stall_s=0.05), seed=5)
    with connect(port, dedicated=True) as device:
        load(device)
        device.learner_open(SETTINGS)
        for a, y in zip(x, labels, strict=True):
            device.step(a[None], [int(y)])
            host.step(a, int(y))
        device.commit()
        assert device.pull("state") == bytes(host.state)
        assert device.stats()["samples"] == 100
    unix.interrupt()
