"""The server on a device, asked by the host's client: the whole way, over both kinds of port."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import serial
from images import digits_image, samples
from package import install, serve
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

from fieldloop.link.board import connect
from fieldloop.link.lossy import Faults
from fieldloop.link.transport import open_port
from fieldloop.runtime import Model
from fieldloop.targets.pytest_plugin import firmware
from fieldloop.targets.unix import UnixBoard


@pytest.fixture
def unix() -> Iterator[UnixBoard]:
    with UnixBoard(firmware=firmware("unix")) as target:
        yield target


def whole_way(target: Any) -> None:
    install(target)
    check_whole_way(target, serve)
    target.interrupt()


def test_whole_way_on_unix(unix: UnixBoard) -> None:
    whole_way(unix)


@pytest.mark.fieldloop_board(only=("qemu", "zephyr-mpy"), needs=("partitions",))
def test_whole_way_on_board(board: Any) -> None:
    whole_way(board)


@pytest.mark.fieldloop_board(only=("qemu",), memory="realistic")
def test_whole_way_on_a_small_part(board: Any) -> None:
    whole_way(board)


def test_faults_are_told_and_change_nothing(unix: UnixBoard) -> None:
    serve(unix)
    check_faults(unix)
    unix.interrupt()


def test_no_request_ends_the_server(unix: UnixBoard) -> None:
    serve(unix)
    check_no_request_ends_the_server(unix, 1500)
    unix.interrupt()


def test_another_model_takes_over_and_back(unix: UnixBoard) -> None:
    serve(unix)
    check_another_model_takes_over_and_back(unix)


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
    check_a_push_that_was_cut_off(unix, serve)


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
    check_a_lossy_line(unix, Faults(stall_s=0.05))
    unix.interrupt()
