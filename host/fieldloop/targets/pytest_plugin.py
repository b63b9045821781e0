"""pytest plugin: the fixture `board`, and `--fieldloop-board` to say which.

    pytest --fieldloop-board qemu-an386,qemu-an500 --fieldloop-board serial:/dev/ttyACM0

A test that takes `board` runs once for each named target (default qemu-an386), on a target of its
own: started, with an empty flash, and killed afterwards; a serial board is used as it is. The
marker

    @pytest.mark.fieldloop_board(memory="realistic", icount=True, only=("qemu",), needs=("files",))

chooses the memory map, counts instructions, and names the kinds of target that the test is for
and what such a target must have (zephyr_mpy.capabilities); others are skipped, with the reason.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from fieldloop.errors import FieldloopError
from fieldloop.targets import build, qemu, roster, zephyr_board
from fieldloop.targets.base import LinkTarget
from fieldloop.targets.missing import missing_for
from fieldloop.targets.serial_board import SerialBoard
from fieldloop.targets.unix import UnixBoard

DEFAULT_BOARD = "qemu-an386"
MARKER = "fieldloop_board"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fieldloop")
    group.addoption(
        "--fieldloop-board",
        action="append",
        default=[],
        metavar="NAME",
        help="targets for the fixture `board`, names of boards/roster.toml; repeatable, or a "
        f"comma-separated list (default: {DEFAULT_BOARD})",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}(memory, icount, only, needs): how the fixture `board` is started, the kinds "
        "of target the test is for, and what a target must have for it",
    )
    try:
        for name in board_names(config):
            roster.lookup(name)
    except FieldloopError as error:
        raise pytest.UsageError(f"--fieldloop-board: {error}") from None


def board_names(config: pytest.Config) -> list[str]:
    """The targets asked for, in the order given, each once."""
    given: list[str] = config.getoption("--fieldloop-board")
    names = [name.strip() for option in given for name in option.split(",") if name.strip()]
    return list(dict.fromkeys(names)) or [DEFAULT_BOARD]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "board" in metafunc.fixturenames:
        metafunc.parametrize("board", board_names(metafunc.config), indirect=True)


def need(name: str) -> None:
    """Skips the test when this machine lacks what a target is built and run with."""
    if missing := missing_for(name):
        pytest.skip(f"{name} needs {', '.join(missing)}")


@functools.cache
def firmware(name: str, memory: str | None = None) -> build.Firmware:
    """The firmware of a target, built at most once in a test run; skips when tools are absent."""
    need(name)
    kind = roster.lookup(name).kind
    if kind == "zephyr":
        return zephyr_board.build_app(name)
    if kind == "zephyr-mpy":
        from fieldloop.targets import zephyr_mpy

        return zephyr_mpy.build_mpy(name)
    return build.build_firmware(name, memory)


@pytest.fixture
def board(request: pytest.FixtureRequest) -> Iterator[LinkTarget]:
    """A started target with an empty flash, see the module's text."""
    name: str = request.param
    marker = request.node.get_closest_marker(MARKER)
    wanted = dict(marker.kwargs) if marker else {}
    spec = roster.lookup(name)
    only = wanted.get("only", ())
    if only and spec.kind not in only:
        pytest.skip(f"{name} is {spec.kind}; the test is for {', '.join(only)}")
    if spec.kind == "zephyr" and not only:
        pytest.skip(f"{name} runs no Python; tests that name the kind zephyr are for it")
    if spec.kind == "zephyr-mpy":
        from fieldloop.targets import zephyr_mpy

        lacking = [x for x in wanted.get("needs", ()) if x not in zephyr_mpy.capabilities(name)]
        if lacking:
            pytest.skip(f"{name} has no {', '.join(lacking)}, which the test needs")
    with _target(spec, wanted.get("memory"), wanted.get("icount", False)) as target:
        yield target


def _target(spec: roster.TargetSpec, memory: str | None, icount: bool) -> LinkTarget:
    name = spec.name
    if spec.kind == "serial":
        return SerialBoard(name)
    if spec.kind == "unix":
        return UnixBoard(firmware=firmware(name))
    if spec.kind == "zephyr":
        return zephyr_board.ZephyrBoard(name, icount=icount, firmware=firmware(name))
    if spec.kind == "zephyr-mpy":
        from fieldloop.targets import zephyr_mpy

        return zephyr_mpy.ZephyrMpyBoard(name, firmware=firmware(name))
    return qemu.QemuBoard(name, memory, icount=icount, firmware=firmware(name, memory))
