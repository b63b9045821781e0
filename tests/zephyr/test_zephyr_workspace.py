"""What is said of a workspace that is not there, or is half there; and of a wrong flash file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fieldloop.errors import FieldloopError, UsageError
from fieldloop.targets import qemu, roster, zephyr_workspace
from fieldloop.targets.missing import missing_for
from fieldloop.targets.zephyr_board import ZephyrBoard
from fieldloop.targets.zephyr_mpy import ZephyrMpyBoard

NAMES = ("FIELDLOOP_ZEPHYR_WS", "ZEPHYR_BASE", "FIELDLOOP_ZEPHYR_PYTHON", "MICROPY_DIR")


@pytest.fixture(autouse=True)
def nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """As much of a workspace as is looked at."""
    (tmp_path / "zephyr" / "cmake" / "modules").mkdir(parents=True)
    numbers = "VERSION_MAJOR = 4\nVERSION_MINOR = 2\nPATCHLEVEL = 0\nEXTRAVERSION = rc9\n"
    (tmp_path / "zephyr" / "VERSION").write_text(numbers)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    return tmp_path


def refused(*words: str) -> None:
    with pytest.raises(FieldloopError) as raised:
        zephyr_workspace.find()
    for word in words:
        assert word in str(raised.value)


def test_each_way_to_name_it(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDLOOP_ZEPHYR_WS", str(top))
    by_top = zephyr_workspace.find()
    assert (by_top.base, by_top.version, by_top.micropython) == (top / "zephyr", "4.2.0-rc9", None)
    assert by_top.python == top / "venv" / "bin" / "python"
    monkeypatch.delenv("FIELDLOOP_ZEPHYR_WS")
    monkeypatch.setenv("ZEPHYR_BASE", str(top / "zephyr"))
    assert zephyr_workspace.find() == by_top


def test_what_is_not_there_is_told(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not zephyr_workspace.is_named()
    refused("no Zephyr workspace", "set FIELDLOOP_ZEPHYR_WS", "zephyr.md")
    assert any("workspace" in line for line in missing_for("native_sim"))
    monkeypatch.setenv("FIELDLOOP_ZEPHYR_WS", str(top / "zephyr"))  # one folder too deep
    refused("no Zephyr in", "zephyr/zephyr", "set FIELDLOOP_ZEPHYR_WS")
    assert any("no Zephyr in" in line for line in missing_for("native_sim"))
    monkeypatch.setenv("FIELDLOOP_ZEPHYR_WS", str(top))
    monkeypatch.setenv("FIELDLOOP_ZEPHYR_PYTHON", str(top / "none"))
    refused("FIELDLOOP_ZEPHYR_PYTHON", "is no program")


def test_a_workspace_without_micropython(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDLOOP_ZEPHYR_WS", str(top))
    for name in roster.names("zephyr-mpy"):
        assert any("MICROPY_DIR" in line for line in missing_for(name))
    assert not any("MICROPY_DIR" in line for line in missing_for("native_sim"))
    port = top / "micropython" / "ports" / "zephyr"
    port.mkdir(parents=True)
    (port / "CMakeLists.txt").write_text("")
    assert not any("MICROPY_DIR" in line for line in missing_for("mpy-m3"))


def test_a_registered_sdk_is_a_toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZEPHYR_TOOLCHAIN_VARIANT", "ZEPHYR_SDK_INSTALL_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # no compiler there
    if not any(Path(place).glob("zephyr-sdk-*") for place in ("/opt", "/usr", "/usr/local")):
        assert any("no toolchain for Arm" in line for line in missing_for("zephyr-an386"))
    (tmp_path / ".cmake" / "packages" / "Zephyr-sdk").mkdir(parents=True)
    assert not any("toolchain" in line for line in missing_for("zephyr-an386"))


@pytest.mark.skipif("setpriv" in qemu.missing_simulator(), reason="setpriv is not installed")
@pytest.mark.parametrize("size", [0, 1000, 0x44_0001])
def test_a_file_that_is_no_flash_is_left_as_it_is(tmp_path: Path, size: int) -> None:
    """native_sim would cut it to the size of its flash."""
    path = tmp_path / "thesis.pdf"
    path.write_bytes(bytes(size))
    with pytest.raises(UsageError, match="expected 4456448 bytes"):
        ZephyrBoard("native_sim", flash_file=path)
    with pytest.raises(UsageError, match="expected 2097152 bytes"):
        ZephyrMpyBoard("mpy-native_sim", flash_file=path)
    with pytest.raises(UsageError, match="expected a file"):
        ZephyrBoard("native_sim", flash_file=tmp_path)
    assert path.read_bytes() == bytes(size)
