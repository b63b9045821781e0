"""Puts the device package and a model on a board under test."""

from __future__ import annotations

from typing import Any

from fieldloop import paths
from fieldloop.targets.base import Target


def install(board: Target) -> None:
    """The package in /lib; the unix port has it in its path, and Zephyr's frozen, already."""
    if board.kind not in ("unix", "zephyr-mpy"):
        folder = paths.device_dir() / "fieldloop"
        for file in sorted(folder.glob("*.py")):
            board.put(f"/lib/fieldloop/{file.name}", file.read_bytes())


def serve(board: Any, *, console: bool = False) -> None:
    """Start the server, on the dedicated link or on the console."""
    if console:
        board.begin("import fieldloop\nfieldloop.serve()")
    elif board.kind == "unix":
        board.begin(
            f"import fieldloop\nlink = open({board.link_fd}, 'r+b', 0)\nfieldloop.serve(link)"
        )
    else:
        board.begin("import fieldloop\nfieldloop.serve(1)")
