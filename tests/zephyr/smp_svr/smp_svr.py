"""Zephyr's own SMP server sample on native_sim: built from the workspace, and started."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import tty
from pathlib import Path

from fieldloop.errors import FieldloopError
from fieldloop.link.transport import FdPort
from fieldloop.targets import zephyr_board, zephyr_workspace

CONFS = Path(__file__).resolve().parent
SAMPLE = Path("samples/subsys/mgmt/mcumgr/smp_svr")
# What the image group of a build without a bootloader lacks: where native_sim's slot 0 begins.
LOAD_OFFSET = "-DEXTRA_CFLAGS=-DCONFIG_FLASH_LOAD_OFFSET=0xC000"


def modules(workspace: zephyr_workspace.Workspace) -> list[str]:
    """Of those that the sample can use, the ones that the workspace has."""
    places = {"littlefs": "modules/fs/littlefs", "mcuboot": "bootloader/mcuboot"}
    return [name for name, path in places.items() if (workspace.top / path / "zephyr").is_dir()]


def build(workspace: zephyr_workspace.Workspace) -> Path:
    there = modules(workspace)
    confs = [CONFS / "serial.conf"]
    confs += [CONFS / "files.conf"] if "littlefs" in there else []
    confs += [CONFS / "images.conf"] if "mcuboot" in there else []
    words = [
        f"-DEXTRA_CONF_FILE={';'.join(map(str, confs))}",
        f"-DEXTRA_DTC_OVERLAY_FILE={CONFS / 'native_sim.overlay'}",
        *([LOAD_OFFSET] if "mcuboot" in there else []),
    ]
    folder = zephyr_board.build_folder("smp_svr")
    return zephyr_workspace.build(
        workspace.base / SAMPLE, "native_sim/native/64", folder, extra=words
    )


class SmpSvr:
    """One process, whose serial port is a pseudo-terminal; port() is our end of it."""

    def __init__(self, program: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fieldloop-smp-svr-")
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._theirs)
        self._process = subprocess.Popen(
            [
                *(program, "-rt"),
                f"--uart_1_port={os.ttyname(self._theirs)}",
                f"--flash={self._folder.name}/flash.bin",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._wait()

    def _wait(self) -> None:
        """Until the sample has opened its terminal, which flushes what is in it."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + 20.0
        said = b""
        while b"connected to the serial port" not in said:
            said += os.read(self._process.stdout.fileno(), 4096)
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise FieldloopError(f"smp_svr did not start: {said[-300:]!r}")

    def port(self) -> FdPort:
        return FdPort(os.dup(self._ours), "smp_svr")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for descriptor in (self._ours, self._theirs):
            os.close(descriptor)
        self._folder.cleanup()
