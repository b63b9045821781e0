"""pytest plugin: the fixture `board`, and `--fieldloop-board` to say which.

    pytest --fieldloop-board qemu-an386,qemu-an500 --fieldloop-board serial:/dev/ttyACM0

A test that takes `board` runs once for each named target (default qemu-an386), on a target of its
own: started, with an empty flash, and killed afterwards; a serial board is used as it is. The
marker

    @pytest.mark.fieldloop_board(memory="realistic", icount=True, only=("qemu",))

chooses the memory map, counts instructions, and names the kinds of target that the test is for.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from fieldloop.errors import FieldloopError
from fieldloop.targets import build, qemu, roster
from fieldloop.targets.base import Target
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
        f"{MARKER}(memory, icount, only): how the fixture `board` is started, and the kinds of "
        "target the test is for",
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
    kind = roster.lookup(name).kind
    missing = qemu.missing_tools() if kind == "qemu" else build.missing_tools(kind)
    if missing:
        pytest.skip(f"{name} needs {', '.join(missing)}")


@functools.cache
def firmware(name: str, memory: str | None = None) -> build.Firmware:
    """The firmware of a target, built at most once in a test run; skips when tools are absent."""
    need(name)
    return build.build_firmware(name, memory)


@pytest.fixture
def board(request: pytest.FixtureRequest) -> Iterator[Target]:
    """A started target with an empty flash, see the module's text."""
    name: str = request.param
    marker = request.node.get_closest_marker(MARKER)
    wanted = dict(marker.kwargs) if marker else {}
    spec = roster.lookup(name)
    only = wanted.get("only", ())
    if only and spec.kind not in only:
        pytest.skip(f"{name} is {spec.kind}; the test is for {', '.join(only)}")
    target: Target
    if spec.kind == "serial":
        target = SerialBoard(name)
    elif spec.kind == "unix":
        target = UnixBoard(firmware=firmware(name))
    else:
        memory = wanted.get("memory")
        icount = wanted.get("icount", False)
        target = qemu.QemuBoard(name, memory, icount=icount, firmware=firmware(name, memory))
    with target:
        yield target
