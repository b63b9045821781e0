"""A device that answers on its link: package installed, server running, host connected.

    with serving("qemu-an386", flash_file=Path("board.bin")) as device:
        device.board.push(image, to="model0")
        device.power_cut()             # SIGKILL, and it serves again
        device.board.info()

A simulated board begins with an empty flash, or goes on with the flash file of an earlier time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from fieldloop import paths
from fieldloop.errors import DeviceError, FieldloopError, UsageError
from fieldloop.link import Board, connect
from fieldloop.targets import roster
from fieldloop.targets.base import LinkTarget
from fieldloop.targets.build import Firmware
from fieldloop.targets.qemu import QemuBoard
from fieldloop.targets.unix import UnixBoard
from fieldloop.targets.zephyr_board import ZephyrBoard

PACKAGE = "/lib/fieldloop"
MARK = f"{PACKAGE}/installed.sha256"  # of all files: written last, so it stands for a whole copy
HELLO_SECONDS = 20.0  # a simulated board on a busy machine

Progress = Callable[[str], None]


class Served(LinkTarget, Protocol):
    """What can serve: simulated, so that its power can be cut."""

    firmware: Firmware

    @property
    def link_port(self) -> str: ...

    @property
    def running(self) -> bool: ...

    def kill(self) -> None: ...

    def restart(self) -> Any: ...


class Device:
    """A simulated device with a server on its link, and the host's end of it."""

    def __init__(self, target: Served) -> None:
        self.target = target
        self._board: Board | None = None

    @property
    def board(self) -> Board:
        """The host's end of the link; another one after a power cut."""
        if self._board is None:
            self._board = connect(self.target.link_port, dedicated=True, timeout=HELLO_SECONDS)
        return self._board

    def power_cut(self) -> None:
        """Ends it as a power cut does, by SIGKILL, starts it again and connects."""
        self.close()
        self.target.restart()
        self.serve()

    def serve(self) -> None:
        """Has it serve: a board does so by itself, the unix port is told to."""
        if isinstance(self.target, UnixBoard):
            self.target.begin(
                "import fieldloop\n"
                f"fieldloop.serve(open({self.target.link_fd}, 'r+b', 0))"  # our end is link_port
            )
        self.board.info()

    def close(self) -> None:
        """Lets go of the link; the device runs on."""
        if self._board is not None:
            self._board.close()
            self._board = None


@contextmanager
def serving(
    name: str,
    *,
    memory: str | None = None,
    flash_file: Path | None = None,
    icount: bool = False,
    progress: Progress | None = None,
) -> Iterator[Device]:
    """A device of the roster that this machine can simulate, serving; ended afterwards.

    `flash_file`: what it remembers, a file (the unix port: a folder); made when absent, kept.
    `memory` and `icount` are for those that QEMU simulates, memory maps for those of MicroPython.
    """
    spec = roster.lookup(name)
    new = flash_file is None or not flash_file.exists()
    if memory is not None and not spec.maps:
        raise UsageError(f"{name} has no memory maps; only qemu boards do")
    target: QemuBoard | UnixBoard | ZephyrBoard
    if spec.kind == "qemu":
        target = QemuBoard(name, memory, flash_file=flash_file, icount=icount, progress=progress)
    elif spec.kind == "unix":
        if icount:
            raise UsageError("unix does not count instructions; a board that QEMU simulates does")
        if flash_file is not None:
            _make_folder(flash_file)
        target = UnixBoard(root=flash_file, progress=progress)
    elif spec.kind == "zephyr":
        target = ZephyrBoard(name, flash_file=flash_file, icount=icount, progress=progress)
    elif spec.kind == "zephyr-mpy":
        raise UsageError(
            f"{name} serves when told to on its REPL; start it with targets.open_target"
        )
    else:
        raise UsageError(f"{name} is a real board: reach it by its port")
    with target:
        device = Device(target)
        try:
            if isinstance(target, QemuBoard):
                if not new:
                    _let_it_start(device)
                install(target, progress)
            device.serve()
            yield device
        finally:
            device.close()


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{path}: the unix port remembers in a folder, this cannot be one: {error.strerror}"
        ) from error


def _let_it_start(device: Device) -> None:
    """Waits until a board serves that did so before; a Ctrl-C that comes earlier is lost."""
    with suppress(DeviceError):  # it has no package yet, or one that fails
        device.board.info()
    device.close()


def install(target: QemuBoard, progress: Progress | None = None) -> None:
    """Puts the package where mip puts it, unless it is there; the board then serves by itself."""
    files = sorted((paths.device_dir() / "fieldloop").glob("*.py"))
    if not files:
        raise FieldloopError(f"no device package in {paths.device_dir()}; install fieldloop again")
    contents = {f"{PACKAGE}/{path.name}": path.read_bytes() for path in files}
    digest = hashlib.sha256()
    for path, content in contents.items():
        digest.update(f"{path}:{len(content)}:".encode() + content)
    if _installed(target) != digest.hexdigest():
        if progress is not None:
            progress(f"installing the device package on {target.name}")
        for path, content in contents.items():
            target.put(path, content)
        target.exec("import fieldloop\nfieldloop.install_main()", timeout=30.0)
        target.put(MARK, digest.hexdigest().encode())
    target.restart()  # main.py serves from here on


def _installed(target: QemuBoard) -> str:
    return str(
        target.eval(
            f"open({MARK!r}).read() if 'installed.sha256' in "
            f"(__import__('os').listdir({PACKAGE!r}) if 'lib' in __import__('os').listdir('/') "
            "and 'fieldloop' in __import__('os').listdir('/lib') else ()) else ''",
            timeout=30.0,
        )
    )
