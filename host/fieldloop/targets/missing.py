"""What this machine lacks for a target."""

from __future__ import annotations

from fieldloop.targets import build, qemu, roster, zephyr_board


def missing_for(name: str) -> list[str]:
    """What building and running a target needs and this machine lacks; empty: nothing."""
    spec = roster.lookup(name)
    if spec.kind == "qemu":
        return qemu.missing_tools()
    if spec.kind in ("zephyr", "zephyr-mpy"):
        return zephyr_board.missing_tools(spec)
    return build.missing_tools(spec.kind)
