"""What a user types: mip install from the clone, and the examples by mpremote run."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from images import LABELS, digits_image, samples
from package import install, serve

from fieldloop import paths
from fieldloop.link.board import connect
from fieldloop.runtime import Learner, LearnerConfig, Model

pytestmark = pytest.mark.fieldloop_board(only=("qemu",))


def mpremote(board: Any, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mpremote", "connect", board.repl_port, *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=paths.data_root(),
    )


def activate(board: Any) -> None:
    serve(board)
    with connect(board.link_port, dedicated=True) as device:
        device.push(digits_image(), to="model0")
        device.activate(digits_image(), slot="model0")
    board.interrupt()


def test_mip_installs_all_of_the_package(board: Any) -> None:
    done = mpremote(board, "mip", "install", "device/package.json")
    assert done.returncode == 0, done.stdout + done.stderr
    board.exec("import os, fieldloop, fieldloop.server")
    there = set(board.eval("os.listdir('/lib/fieldloop')"))
    assert there == {f.name for f in (paths.device_dir() / "fieldloop").glob("*.py")}


def test_predict_example(board: Any) -> None:
    install(board)
    done = mpremote(board, "run", "device/examples/predict.py")
    assert "no model is active" in done.stdout + done.stderr
    activate(board)
    done = mpremote(board, "run", "device/examples/predict.py")
    assert done.returncode == 0, done.stdout + done.stderr
    predicted = np.argmax(Model(digits_image()).predict_int8(samples(40, 1)[:10]), axis=1)
    lines = re.findall(r"sample (\d+) is (\w+) and looks like (\w+)", done.stdout)
    assert lines == [(str(i), LABELS[i % 8], LABELS[int(p)]) for i, p in enumerate(predicted)]


def test_learn_example_until_ctrl_c(board: Any) -> None:
    install(board)
    activate(board)
    seen = []
    for _ in range(2):  # the second run goes on from the first
        process = subprocess.Popen(
            [sys.executable, "-m", "mpremote", "connect", board.repl_port, "run",
             "device/examples/learn.py"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=paths.data_root(),
        )  # fmt: skip
        assert process.stdout is not None
        output = b""
        deadline = time.monotonic() + 40
        while output.count(b"commit ") < 3 and time.monotonic() < deadline:
            if select.select([process.stdout], [], [], 1)[0]:
                output += os.read(process.stdout.fileno(), 4096)
        process.send_signal(signal.SIGINT)
        process.wait(10)
        board.interrupt()
        seen.append(output.decode())
    assert "starts at commit 0" in seen[0] and "goes on from commit" in seen[1]
    board.exec(
        "import fieldloop\nmodel, store = fieldloop.active()\n"
        "l = fieldloop.Learner(model, store, memory=20, seed=1)"
    )
    assert board.eval("l.restored") is True
    steps = board.eval("l.stats()['samples']")
    assert steps >= 20 and steps % 10 == 0
    # What is there equals that many steps on the host: nothing half-done was kept. A commit in the
    # first run may have been the last thing it did, so each run began at the first sample again.
    counts = [int(n) for n in re.findall(r"after (\d+) samples", seen[0])]
    host = Learner(Model(digits_image()), LearnerConfig(memory=20, seed=1))
    x = samples(40, 1)
    state = board.eval("bytes(l.state())")
    for first in range(counts[-1], steps, 10):
        host.load(fresh_state())
        for i in [*range(first), *range(steps - first)]:
            host.step(x[i % 40], i % 40 % 8)
        if bytes(host.state) == state:
            return
    raise AssertionError("the state on the board is no run of whole steps")


def fresh_state() -> bytes:
    return bytes(Learner(Model(digits_image()), LearnerConfig(memory=20, seed=1)).state)
