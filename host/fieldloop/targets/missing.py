"""What this machine lacks for a target."""

from __future__ import annotations

from fieldloop.errors import FieldloopError
from fieldloop.targets import build, qemu, roster, zephyr_board, zephyr_workspace

_ZEPHYR: tuple[roster.Kind, ...] = ("zephyr", "zephyr-mpy")


def missing_for(name: str) -> list[str]:
    """What building and running a target needs and this machine lacks; empty: nothing."""
    spec = roster.lookup(name)
    if spec.kind == "qemu":
        return qemu.missing_tools()
    if spec.kind in _ZEPHYR:
        return zephyr_board.missing_tools(spec)
    return build.missing_tools(spec.kind)


def need_tools(name: str) -> None:
    """Raises FieldloopError, with what to do, when this machine lacks something for a target:
    for who would otherwise find out after minutes of other work."""
    if lacking := missing_for(name):
        if roster.lookup(name).kind in _ZEPHYR:
            zephyr_workspace.find()  # raises with how to get a workspace, when that is it
        raise FieldloopError(f"{name} needs {', '.join(lacking)}; `fieldloop doctor` tells more")
