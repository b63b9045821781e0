"""The application on simulated boards learns the host's bytes, and MicroPython's; it outlives a
power cut, says what it does in its shell, and none of its processes outlives us.

The comparisons are those of tests/e2e/test_same_bytes.py, which does them with MicroPython.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_same_bytes as same
from digits_student import Student, settings, student
from every_way_net import every_way

from fieldloop.errors import DeviceError, DoesNotFitError, FieldloopError, UsageError
from fieldloop.runtime import Learner, LearnerConfig, Model
from fieldloop.targets import open_target, roster
from fieldloop.targets.pytest_plugin import firmware, need
from fieldloop.targets.serving import Device, serving
from fieldloop.targets.zephyr_board import ZephyrBoard

pytestmark = pytest.mark.zephyr

BOARDS = [name for name in roster.names("zephyr") if roster.lookup(name).remembers]


@pytest.fixture(scope="module")
def net() -> Student:
    return student()


@pytest.fixture(scope="module", params=BOARDS)
def device(request: pytest.FixtureRequest, net: Student) -> Iterator[Device]:
    """A board that serves, with both models in its slots."""
    need(request.param)
    with serving(request.param) as device:
        device.board.push(net.image, to="model0")
        device.board.push(every_way().image, to="model1")
        yield device


def test_it_tells_what_it_is(device: Device) -> None:
    info = device.board.info()
    spec = device.target
    assert isinstance(spec, ZephyrBoard)
    assert info.board.startswith(spec.spec.board.split("/")[0])
    assert info.os is not None and info.os.startswith("zephyr ") and info.micropython is None
    assert set(info.slots) == {"model0", "model1"}
    assert info.buf_bytes == 4096


@pytest.mark.parametrize("name", same.CONFIGS)
def test_board_learns_the_hosts_bytes(device: Device, net: Student, name: str) -> None:
    same.test_board_learns_the_hosts_bytes(device, net, name)


@pytest.mark.parametrize("mode", same.MODES)
def test_each_mode_makes_the_same_bytes(device: Device, mode: str) -> None:
    same.test_each_mode_makes_the_same_bytes_everywhere(device, mode)


def test_micropython_and_zephyr_learn_the_same_bytes(net: Student) -> None:
    """Both on a Cortex-M4F: the state of the one, loaded by the other's flash, goes on alike."""
    config = same.CONFIGS["tinypropv2"]
    states = []
    for name in ("qemu-an386", "zephyr-an386"):
        need(name)
        with serving(name) as device:
            board = device.board
            board.push(net.image, to="model0")
            board.activate(net.image, slot="model0")
            board.learner_open(settings(config))
            board.step(net.stream_x[: same.STEPS], net.stream_y[: same.STEPS])
            board.commit()
            states.append(board.pull("state"))
    assert states[0] == states[1]
    assert len(states[0]) > 1000


# ---- the application itself


def test_two_boots_differ_in_their_id_and_not_in_their_memory(
    tmp_path: Path, net: Student
) -> None:
    flash = tmp_path / "flash, with comma.bin"
    boots = set()
    for _ in range(3):
        with serving("native_sim", flash_file=flash) as device:
            info = device.board.info()
            boots.add(info.boot)
            if info.model is None:
                device.board.push(net.image, to="model1")
                device.board.activate(net.image, slot="model1")
            assert device.board.model().slot == "model1"
    assert len(boots) == 3


def test_a_flash_file_has_one_user(tmp_path: Path) -> None:
    flash = tmp_path / "flash.bin"
    built = firmware("native_sim")
    with (
        ZephyrBoard(flash_file=flash, firmware=built),
        pytest.raises(FieldloopError, match="runs now"),
    ):
        ZephyrBoard(flash_file=flash, firmware=built).start()


def test_the_shell_learns_what_the_link_reads(net: Student) -> None:
    with serving("native_sim") as device:
        target, board = device.target, device.board
        assert isinstance(target, ZephyrBoard)
        assert "none" in target.shell("fieldloop info")
        board.push(net.image, to="model0")
        board.activate(net.image, slot="model0")
        board.learner_open(settings(same.CONFIGS["dense"]))
        board.step(net.stream_x[:8], net.stream_y[:8])
        committed = target.shell("fieldloop commit")
        number = re.search(r"record (\d+)", committed)
        assert number is not None, committed
        assert board.restore() == int(number[1])
        assert "8 samples" in target.shell("fieldloop info")
        with pytest.raises(DeviceError, match="no prompt within"):
            target.shell("fieldloop info", timeout=0.0)


def test_the_part_that_remembers_nothing_learns_the_same() -> None:
    """64 KiB of RAM, the simulated flash in it: a small model, its head learns; no power cut."""
    need("zephyr-m3")
    stream = every_way()
    config = LearnerConfig(**{**same.USUAL, "holdout": 0, "memory": 4, "layers": 1, "seed": 1})
    host = Learner(Model(stream.image), config)
    host.run(stream.x[:200], stream.y[:200].tolist())
    with serving("zephyr-m3") as device:
        board = device.board
        assert board.info().buf_bytes == 1024
        with pytest.raises(DoesNotFitError, match="push to model0"):
            board.push(student().image, to="model0")
        board.push(stream.image, to="model0")
        board.activate(stream.image, slot="model0")
        x = stream.test_x[:20]
        factory = Model(stream.image).predict_int8(x)
        assert (board.predict(x).reshape(20, -1) == factory).all()
        board.learner_open(settings(config))
        board.step(stream.x[:200], stream.y[:200])
        seq = board.commit()
        assert board.pull("state") == bytes(host.state)
        learned = host.model.predict_int8(x)
        assert (learned != factory).any()
        assert (board.predict(x).reshape(20, -1) == learned).all()
        board.step(stream.x[:8], stream.y[:8])
        assert board.restore() == seq
        assert (board.predict(x).reshape(20, -1) == learned).all()

        # More to keep than its store of 6 KiB holds: it learns all the same, and says so.
        big = same.MODES["f32"][1]
        board.learner_open(settings(big))
        board.step(stream.x[:50], stream.y[:50])
        with pytest.raises(DoesNotFitError, match="commit"):
            board.commit()


# ---- the target


def test_wrong_use_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="runs no Python"):
        open_target("native_sim")
    with pytest.raises(UsageError, match="not of the kind zephyr"):
        ZephyrBoard("qemu-an386")
    with pytest.raises(UsageError, match="does not count"):
        ZephyrBoard("native_sim", icount=True)
    with pytest.raises(UsageError, match="remembers nothing"):
        ZephyrBoard("zephyr-m3", flash_file=tmp_path / "f")
    with pytest.raises(UsageError, match="no memory maps"), serving("native_sim", memory="full"):
        pass
    off = ZephyrBoard(firmware=firmware("native_sim"))
    with pytest.raises(DeviceError, match="is off"):
        _ = off.link_port
    with pytest.raises(DeviceError, match="is off"):
        off.shell("help")


def test_no_native_sim_outlives_a_killed_python() -> None:
    firmware("native_sim")
    script = textwrap.dedent(
        """
        import os, signal
        from fieldloop.targets.zephyr_board import ZephyrBoard
        board = ZephyrBoard("native_sim").start()
        print(board.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    host = Path(__file__).resolve().parents[2] / "host"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(host)},
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout.split()[0])
    deadline = time.monotonic() + 5
    while _is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_alive(pid)


def _is_alive(pid: int) -> bool:
    try:
        state: Any = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
