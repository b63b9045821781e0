"""Puts a ROMFS onto a device through its REPL: mpremote knows how to, on every port with one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from fieldloop.errors import DeviceError, FieldloopError

_SECONDS = 600.0  # erasing and programming a large partition of a real board


def deploy(port: str, romfs: bytes) -> None:
    """Writes `romfs` into the device's ROMFS partition; it is mounted at /rom from the next start.

    port: of the REPL. DeviceError when nobody answers there; FieldloopError when the device has no
    such partition or it is too small.
    """
    with tempfile.TemporaryDirectory(prefix="fieldloop-") as folder:
        path = Path(folder) / "models.romfs"
        path.write_bytes(romfs)
        command = [sys.executable, "-m", "mpremote", "connect", port, "romfs", "deploy", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise DeviceError(
                f"{port}: no answer for {_SECONDS:.0f} s; reset the board"
            ) from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        reason = said[-1].strip() if said else f"exit code {done.returncode}"
        kind = DeviceError if "mpremote: " in reason else FieldloopError
        raise kind(f"{port}: a ROMFS of {len(romfs)} bytes was not written: {reason}")
