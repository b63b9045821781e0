"""Targets: how to build for, start, reach and count on a device, simulated or real.

with open_target("qemu-an386") as board:
    print(board.exec("print(1 + 1)"))
"""

from __future__ import annotations

from collections.abc import Callable

from fieldloop.errors import UsageError
from fieldloop.targets import roster
from fieldloop.targets.base import Target


def open_target(
    name: str,
    *,
    memory: str | None = None,
    icount: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Target:
    """A target of the roster by its name, built where it must be, and started by `with`.

    `memory` and `icount` are for boards simulated by QEMU. Raises UsageError for an unknown name,
    and for the Zephyr application, which runs no Python: see serving and zephyr_board.
    """
    # Imported late: a caller with a real board needs neither QEMU nor a compiler.
    from fieldloop.targets.qemu import QemuBoard
    from fieldloop.targets.serial_board import SerialBoard
    from fieldloop.targets.unix import UnixBoard

    spec = roster.lookup(name)
    if spec.kind == "zephyr":
        raise UsageError(f"{name} runs no Python; reach it over its link, see targets.serving")
    if spec.kind != "qemu" and (memory is not None or icount):
        raise UsageError(f"{name} has neither memory maps nor icount; only qemu boards do")
    if spec.kind == "unix":
        return UnixBoard(progress=progress)
    if spec.kind == "serial":
        return SerialBoard(name)
    if spec.kind == "zephyr-mpy":
        from fieldloop.targets.zephyr_mpy import ZephyrMpyBoard

        return ZephyrMpyBoard(name, progress=progress)
    return QemuBoard(name, memory, icount=icount, progress=progress)
