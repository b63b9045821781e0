"""push, info, run, learn and pull one after another on a simulated board, and its own faults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_helpers import Cli, Model

import fieldloop
from fieldloop.errors import UsageError
from fieldloop.targets import roster
from fieldloop.targets.pytest_plugin import need

BOARDS = ("unix", "qemu-an386")


@pytest.mark.parametrize("name", BOARDS)
def test_a_life_in_the_field(cli: Cli, model: Model, tmp_path: Path, name: str) -> None:
    """Every command starts the board anew: what it knows, it knows from its flash."""
    need(name)
    device = ("--board", name, "--flash", tmp_path / "flash", "--json", "-q")

    empty = cli("info", *device)
    assert empty.code == 0, empty.err
    assert empty.json["model"] is None
    cli("run", model.test, *device[:-2]).refused(2, "no model is active", "fieldloop push")

    pushed = cli("push", model.path, *device)
    assert pushed.code == 0, pushed.err
    assert pushed.json["active"] and pushed.json["bytes"] == len(model.image)
    again = cli("push", model.path, *device)  # the active model is not written over
    assert again.json["slot"] != pushed.json["slot"]
    info = cli("info", *device).json
    assert info["model"]["slot"] == again.json["slot"]
    assert info["model"]["input"] == [1, 8, 8, 1] and info["learner"] is False

    here = cli("run", model.test, "--model", model.path, "--json").json
    there = cli("run", model.test, *device).json
    assert there["classes"] == here["classes"]
    assert there["outputs"] == here["outputs"]
    assert there["labels"] == here["labels"] and there["labels"] is not None

    learned = cli("learn", model.stream, *device)
    assert learned.code == 0, learned.err
    assert learned.json["samples"] == 40 and learned.json["committed"] > 0
    state, own, image = tmp_path / "state", tmp_path / "own", tmp_path / "image"
    assert cli("pull", "-o", state, *device).json["bytes"] == state.stat().st_size
    cli("learn", model.stream, "--model", model.path, "-o", own)
    assert state.read_bytes() == own.read_bytes()
    cli("pull", "--kind", "image", "-o", image, *device)
    assert image.read_bytes() == model.image

    more = cli("learn", model.stream, *device)  # goes on where it was
    assert more.json["stats"]["samples"] == 80


def test_what_does_not_fit_the_board_is_refused_with_bytes(cli: Cli, tmp_path: Path) -> None:
    """160 KiB slots of the realistic map."""
    need("qemu-an386")
    source, path = tmp_path / "wide.py", tmp_path / "wide.flm"
    source.write_text(
        "import torch\ntorch.manual_seed(0)\n"
        "model = torch.nn.Linear(64, 3000)\ncalibration = torch.rand(8, 64)\n"
    )
    size = cli("compile", source, "-o", path, "--learn", 0, "--json").json["flash_bytes"]
    room = roster.lookup("qemu-an386").memory("realistic").partition("model0").size
    cli("push", path, "--board", "qemu-an386", "--map", "realistic", "-q").refused(
        5, f"needs {size} bytes", f"{room} available", f"{size - room} missing"
    )


def test_a_full_file_system_and_a_wrong_slot(cli: Cli, model: Model, tmp_path: Path) -> None:
    need("qemu-an386")
    device = ("--board", "qemu-an386", "--map", "realistic", "--flash", tmp_path / "flash", "-q")
    cli("push", model.path, "--slot", "model7", *device).refused(2, "no slot model7", "model0")
    # The fs partition is 128 KiB, and the package takes its part of it.
    source, path = tmp_path / "wide.py", tmp_path / "wide.flm"
    source.write_text(
        "import torch\ntorch.manual_seed(0)\n"
        "model = torch.nn.Linear(64, 2000)\ncalibration = torch.rand(8, 64)\n"
    )
    assert cli("compile", source, "-o", path, "--learn", 0).code == 0
    cli("push", path, "--slot", "/wide.flm", *device).refused(1, "no space left")
    assert cli("push", model.path, *device).code == 0  # the device is none the worse


def test_ctrl_c_leaves_no_simulator(tmp_path: Path) -> None:
    need("qemu-an386")
    flash = tmp_path / "flash"
    words = ("info", "--board", "qemu-an386", "--flash", str(flash))
    process = subprocess.Popen(
        [sys.executable, "-m", "fieldloop.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not flash.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    users = [
        path for path in Path("/proc").glob("[0-9]*/cmdline") if str(flash).encode() in _read(path)
    ]
    assert users == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_python_api(model: Model, tmp_path: Path) -> None:
    import numpy as np

    from fieldloop.runtime import Model as HostModel

    need("unix")
    assert fieldloop.check(model.path).uid == fieldloop.check(model.image).uid
    host = HostModel(model.image)
    x = host.as_inputs(np.load(model.test)["x"])
    with fieldloop.connect("unix", flash_file=tmp_path / "flash") as board:
        board.push(model.image, to="model0")
        board.activate(model.image, slot="model0")
        assert (board.predict(x).reshape(30, -1) == host.predict_int8(x)).all()
    with pytest.raises(UsageError, match="no target 'nowhere'"), fieldloop.connect("nowhere"):
        pass
    with (
        pytest.raises(UsageError, match="simulated boards"),
        fieldloop.connect("/dev/ttyX", memory="full"),
    ):
        pass


@pytest.mark.parametrize("name", BOARDS)
def test_two_at_once_on_one_flash_are_refused(cli: Cli, tmp_path: Path, name: str) -> None:
    need(name)
    flash = tmp_path / "flash"
    with fieldloop.connect(name, flash_file=flash) as board:
        cli("info", "--board", name, "--flash", flash, "-q").refused(1, "board that runs now")
        assert board.info().model is None  # the first one is none the worse
    assert cli("info", "--board", name, "--flash", flash).code == 0


def test_what_cannot_be_a_flash_is_refused_and_left_alone(cli: Cli, tmp_path: Path) -> None:
    need("qemu-an386")
    other, folder = tmp_path / "notes.txt", tmp_path / "folder"
    other.write_text("keep me")
    folder.mkdir()
    board = ("info", "--board", "qemu-an386", "-q", "--flash")
    cli(*board, other).refused(2, "expected 16777216 bytes, got 7")
    cli(*board, folder).refused(2, "expected a file")
    cli(*board, tmp_path / "absent" / "flash").refused(1, "No such file")
    cli("info", "--board", "unix", "-q", "--flash", other).refused(2, "a folder")
    assert other.read_text() == "keep me" and list(folder.iterdir()) == []


def test_a_full_disk_leaves_no_half_flash(tmp_path: Path) -> None:
    need("qemu-an386")
    flash = tmp_path / "flash"
    done = subprocess.run(
        [
            *("sh", "-c", 'ulimit -f 100; exec "$@"', "sh", sys.executable, "-m", "fieldloop.cli"),
            *("info", "--board", "qemu-an386", "-q", "--flash", str(flash)),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"fieldloop: cannot make the flash file {flash}"), done.stderr
    assert done.stderr.count("\n") == 1 and not flash.exists()


def test_sigterm_ends_the_board_and_leaves_nothing(tmp_path: Path) -> None:
    need("qemu-an386")
    code = (
        "import sys, time\nfrom fieldloop.cli import info, main\n"
        "def wait(board):\n    print('at work', file=sys.stderr, flush=True)\n    time.sleep(60)\n"
        "info._of_device = wait\n"
        "sys.argv = ['fieldloop', 'info', '--board', 'qemu-an386', '-q']\nmain.entry()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "at work\n"
    assert list(tmp_path.iterdir()) != []
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 143 and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
