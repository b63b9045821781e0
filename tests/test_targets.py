"""The targets on the host's side: roster, build, source, life and death of a simulated board."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fieldloop import paths
from fieldloop.errors import DeviceError, DoesNotFitError, FieldloopError, UsageError
from fieldloop.targets import build, micropython_source, open_target, qemu, roster
from fieldloop.targets.pytest_plugin import firmware
from fieldloop.targets.raw_repl import RemoteError
from fieldloop.targets.serial_board import SerialBoard
from fieldloop.targets.unix import UnixBoard, run_script

QEMU_BOARDS = ["qemu-an385", "qemu-an386", "qemu-an500", "qemu-an547"]
ZEPHYR_BOARDS = [
    "native_sim",
    *("zephyr-an385", "zephyr-an386", "zephyr-an500", "zephyr-an547", "zephyr-m3"),
]
MAPS = ["full", "realistic"]


# ---- the roster ----


def test_roster_names_every_target_once() -> None:
    mpy = ("mpy-native_sim", "mpy-m3")
    assert roster.names() == ("unix", *QEMU_BOARDS, *ZEPHYR_BOARDS, *mpy, "serial:PORT")
    assert list(roster.names("qemu")) == QEMU_BOARDS
    assert list(roster.names("zephyr")) == ZEPHYR_BOARDS
    assert roster.names("zephyr-mpy") == mpy


def test_unknown_target_error_lists_the_names() -> None:
    with pytest.raises(UsageError, match=r"no target 'qemu-m0'.*qemu-an386.*serial:PORT"):
        roster.lookup("qemu-m0")
    with pytest.raises(UsageError):
        roster.lookup("serial:")
    with pytest.raises(UsageError):
        roster.lookup("serial:PORT")  # the template, not a port


def test_serial_name_carries_its_port() -> None:
    assert roster.lookup("serial:/dev/ttyACM0").port == "/dev/ttyACM0"


@pytest.mark.parametrize("name", QEMU_BOARDS)
def test_maps_hold_what_they_promise(name: str) -> None:
    realistic = roster.lookup(name).memory("realistic")
    assert realistic.ram == 256 * 1024
    assert realistic.rom + realistic.flash == 1024 * 1024
    for memory in roster.lookup(name).maps:
        assert [p.name for p in memory.partitions] == ["fs", "model0", "model1", "store", "romfs"]
        assert memory.partition("store").size >= 16 * roster.SECTOR_SIZE


def test_malformed_roster_is_an_error(tmp_path: Path) -> None:
    for text in ("[targets", "[targets.x]\nkind = 'boat'\ntitle = ''\n[maps]\n", ""):
        path = tmp_path / "roster.toml"
        path.write_text(text)
        roster.load.cache_clear()
        with pytest.raises(FieldloopError, match="malformed"):
            roster.load(path)


# ---- the source ----

DEB822 = """\
# comment
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /nowhere.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://tools.example/apt
Suites: nodistro
Components: main
"""


def test_apt_sources_of_both_formats(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    assert micropython_source.apt_sources(tmp_path) == []
    (parts / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list").write_text(
        "deb [arch=amd64] http://other.example/debian trixie main contrib\n"
        "# deb http://no.example/debian trixie main\n"
        "deb http://sdk.example/apt sdk-bookworm main\n"
    )
    found = micropython_source.apt_sources(tmp_path)
    assert [source.uri for source in found] == [
        "http://mirror.example/debian",
        "http://other.example/debian",
    ]


def test_micropython_dir_override_must_be_micropython(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROPY_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=r"expected .*py/mkenv\.mk"):
        micropython_source.micropython_dir()


def test_tampered_tarball_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDLOOP_BUILD", str(tmp_path))
    monkeypatch.delenv("MICROPY_DIR", raising=False)

    def fetch(downloads: Path) -> None:
        downloads.mkdir()
        (downloads / micropython_source.TARBALL).write_bytes(b"not it")

    monkeypatch.setattr(micropython_source, "_download", fetch)
    with pytest.raises(FieldloopError, match="not the pinned one"):
        micropython_source.micropython_dir()
    assert not (tmp_path / f"micropython-{micropython_source.VERSION}").exists()


# ---- building ----


@pytest.mark.parametrize("memory", MAPS)
@pytest.mark.parametrize("name", QEMU_BOARDS)
def test_boots_and_has_the_layout_of_the_roster(name: str, memory: str) -> None:
    spec = roster.lookup(name)
    chosen = spec.memory(memory)
    built = firmware(name, memory)
    assert built.rom_bytes <= chosen.rom
    with qemu.QemuBoard(name, memory, firmware=built) as board:
        machine = board.eval("__import__('os').uname().machine")
        assert spec.board.upper() in machine and "Cortex-M" in machine
        rows = board.eval(
            "[(p.name, p.address, p.size, p.prog_size, p.sector_size) for p in "
            "map(__import__('simboard').Partition, __import__('simboard').partitions())]"
        )
        assert rows == [
            (p.name, spec.psram_address + p.offset, p.size, p.prog_size, p.sector_size)
            for p in chosen.partitions
        ]
        free = board.eval("__import__('gc').mem_free()")
        assert chosen.ram // 2 < free < chosen.ram - chosen.stack
        assert board.eval("1.5 * 1.5 + 0.25") == 2.5


def test_firmware_that_does_not_fit_tells_the_bytes() -> None:
    firmware("qemu-an386")  # skips where nothing can be built
    message = "region `ROM' overflowed by 1234 bytes"
    spec = roster.lookup("qemu-an386")
    memory = spec.memory("realistic")
    error = build._overflow(f"ld: {message}\n", spec, memory)
    assert isinstance(error, DoesNotFitError)
    assert error.needed_bytes == memory.rom + 1234


def test_build_error_shows_what_the_compiler_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    firmware("qemu-an386")
    port = tmp_path / "Makefile"
    port.write_text("all:\n\t@echo main.c:1: error: no such thing >&2; exit 1\n")
    with pytest.raises(FieldloopError, match=r"(?s)the thing failed.*no such thing"):
        micropython_source.run_make([f"-C{tmp_path}"], "the thing")


# ---- life and death ----


def test_kill_and_restart_keep_the_flash(tmp_path: Path) -> None:
    flash = tmp_path / "flash, with comma.bin"
    with qemu.QemuBoard(firmware=firmware("qemu-an386"), flash_file=flash) as board:
        board.put("/folder/a.txt", b"kept")
        board.kill()
        assert not board.running
        with pytest.raises(DeviceError, match="is off"):
            board.exec("pass")
        board.start()
        assert board.get("/folder/a.txt") == b"kept"
        assert board.boots == 1
    assert flash.stat().st_size == roster.lookup("qemu-an386").psram_size


def test_flash_of_another_map_is_refused_and_kept(tmp_path: Path) -> None:
    flash = tmp_path / "flash.bin"
    realistic = firmware("qemu-an386", "realistic")
    with qemu.QemuBoard(memory="realistic", firmware=realistic, flash_file=flash) as board:
        board.put("kept", b"x" * 1000)
    content = flash.read_bytes()
    other = qemu.QemuBoard(firmware=firmware("qemu-an386"), flash_file=flash)
    with pytest.raises(DeviceError, match="another board or memory map"):
        other.start()
    assert flash.read_bytes() == content


def test_reset_restarts_the_machine_and_keeps_the_ports() -> None:
    with qemu.QemuBoard(firmware=firmware("qemu-an386")) as board:
        port = board.repl_port
        assert board.eval("__import__('machine').reset_cause()") == 1
        board.begin("import machine; machine.reset()")
        board.wait_for("FIELDLOOP-BOOT", count=2)
        assert board.boots == 2
        assert board.repl_port == port
        assert board.eval("__import__('machine').reset_cause()") == 2


def test_fault_prints_one_line_and_ends_the_simulator() -> None:
    with qemu.QemuBoard(firmware=firmware("qemu-an386")) as board:
        with suppress(DeviceError):  # it may be gone before it acknowledges the code
            board.begin("import machine; machine.mem32[0xF0000000]")
        line = board.wait_for("FIELDLOOP-FAULT")
        assert "pc=" in line and "cfsr=" in line
        deadline = time.monotonic() + 5
        while board.running and time.monotonic() < deadline:
            time.sleep(0.01)
        assert board.exit_code == 1


def test_deep_recursion_is_an_error_not_a_fault() -> None:
    with qemu.QemuBoard(firmware=firmware("qemu-an386")) as board:
        with pytest.raises(RemoteError, match="maximum recursion depth"):
            board.exec("def f(): f()\nf()")
        assert board.eval("1 + 1") == 2


def test_unique_id_and_urandom() -> None:
    built = firmware("qemu-an386")
    with qemu.QemuBoard(firmware=built, unique_id=b"fieldlp1") as board:
        assert board.eval("__import__('machine').unique_id()") == b"fieldlp1"
        first = board.eval("__import__('os').urandom(16)")
        board.restart()
        assert board.eval("__import__('machine').unique_id()") == b"fieldlp1"
        assert board.eval("__import__('os').urandom(16)") != first


def test_silent_board_is_a_device_error() -> None:
    with qemu.QemuBoard(firmware=firmware("qemu-an386")) as board:
        with pytest.raises(DeviceError, match="silent for"):
            board.exec("while True: pass", timeout=0.3)
        assert board.eval("2 + 2") == 4  # Ctrl-C on entry has stopped it


def test_no_qemu_outlives_a_killed_python(tmp_path: Path) -> None:
    firmware("qemu-an386")
    script = textwrap.dedent(
        """
        import os, signal, threading
        from fieldloop.targets.qemu import QemuBoard
        board = QemuBoard("qemu-an386")
        thread = threading.Thread(target=board.start)
        thread.start()
        thread.join()
        print(board._process.pid, board.eval("1"), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(qemu.__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    pid = int(result.stdout.split()[0])
    deadline = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_wrong_kind_of_name() -> None:
    with pytest.raises(UsageError, match="not simulated by QEMU"):
        qemu.QemuBoard("unix")
    with pytest.raises(UsageError, match="memory maps"):
        open_target("serial:/dev/null", icount=True)
    with pytest.raises(DeviceError, match="cannot open /dev/fieldloop-none"):
        SerialBoard("serial:/dev/fieldloop-none").exec("pass")


# ---- the unix port ----


def test_unix_board_keeps_names_files_and_link() -> None:
    with UnixBoard(firmware=firmware("unix")) as board:
        board.exec("x = 41")
        assert board.eval("x + 1") == 42
        board.put("/lib/helper.py", b"VALUE = 7\n")
        assert board.eval("__import__('helper').VALUE") == 7
        with pytest.raises(RemoteError, match="ZeroDivisionError") as caught:
            board.exec("print('before')\n1 / 0")
        assert caught.value.output == "before\n"
        board.exec(f"link = open({board.link_fd}, 'r+b', 0)")
        board.begin("link.write(link.read(256))")
        sent = bytes(range(256))
        descriptor = os.open(board.link_port, os.O_RDWR | os.O_NOCTTY)
        try:
            os.write(descriptor, sent)
            got = b""
            while len(got) < len(sent):
                got += os.read(descriptor, 256)
        finally:
            os.close(descriptor)
        assert got == sent
        board.finish()
        board.restart()
        assert board.get("/lib/helper.py") == b"VALUE = 7\n"
        with pytest.raises(RemoteError, match="NameError"):
            board.exec("x")


def test_unix_board_stops_at_ctrl_c() -> None:
    with UnixBoard(firmware=firmware("unix")) as board:
        board.begin("while True: pass")
        board.interrupt()
        with pytest.raises(RemoteError, match="KeyboardInterrupt"):
            board.finish()
        assert board.eval("1") == 1
        board.begin("import sys; sys.stdin.buffer.read(1); print('on')")


def test_unix_runs_a_script(tmp_path: Path) -> None:
    firmware("unix")
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(sys.argv[1:])\nsys.exit(3)\n")
    result = run_script(script, ["a", "b"])
    assert (result.returncode, result.stdout) == (3, "['a', 'b']\n")


def test_build_folder_is_outside_the_sources() -> None:
    assert not any((paths.boards_dir() / "mps2").rglob("*.o"))
