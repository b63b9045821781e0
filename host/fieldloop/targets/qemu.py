"""A simulated board: QEMU with our firmware, two serial ports and a flash that is a file.

    with QemuBoard("qemu-an386") as board:
        print(board.exec("import os; print(os.uname().machine)"))
        board.kill()     # a power cut: SIGKILL
        board.start()    # the flash holds what it held

What the firmware reports goes to `console`: a line FIELDLOOP-BOOT at every start of the machine,
FIELDLOOP-FAULT before it ends itself, FIELDLOOP-POWER-CUT when an armed power cut came.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from fieldloop.errors import FieldloopError, UsageError
from fieldloop.targets import build, flash, roster
from fieldloop.targets.raw_repl import RawRepl
from fieldloop.targets.repl_target import ReplTarget
from fieldloop.targets.simulator import BOOT_SECONDS, Simulator

QEMU = "qemu-system-arm"
ICOUNT = ["-icount", "shift=8,sleep=on"]  # counts instructions, and gives the firmware their time


def missing_simulator() -> list[str]:
    """The programs that running QEMU needs and this machine lacks."""
    return [tool for tool in (QEMU, "setpriv") if shutil.which(tool) is None]


def missing_tools() -> list[str]:
    """The programs that a simulated board needs and this machine lacks."""
    return build.missing_tools("qemu") + missing_simulator()


def machine_words(spec: roster.TargetSpec, flash_file: Path) -> list[str]:
    """How QEMU is started as the machine of a target: two ptys, and the PSRAM is a file."""
    machine = spec.machine
    words = [QEMU, "-display", "none", "-monitor", "none", "-nodefaults"]
    if spec.psram_size:
        path = str(flash_file).replace(",", ",,")
        size = spec.flash_file_size
        machine += ",memory-backend=flash"
        words += ["-object", f"memory-backend-file,id=flash,size={size},mem-path={path},share=on"]
    words += ["-machine", machine]
    # Behind a multiplexer, which reads ahead, a port receives about four times as fast; its
    # escape character must be none that a byte can have.
    for port in ("serial0", "serial1"):
        words += ["-chardev", f"pty,id={port},mux=on", "-serial", f"chardev:{port}"]
    return [*words, "-echr", "256"]


class QemuBoard(ReplTarget, Simulator):
    """One simulated board. Building its firmware is part of making it."""

    kind = "qemu"

    def __init__(
        self,
        name: str = "qemu-an386",
        memory: str | None = None,
        *,
        flash_file: Path | None = None,
        icount: bool = False,
        firmware: build.Firmware | None = None,
        unique_id: bytes | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        """`flash_file` is made when absent and stays; without one the flash lasts as long as the
        object. `icount` counts instructions (simboard.count) and is slower at serial traffic.
        `unique_id` is what machine.unique_id() gives: 8 bytes, by default random ones.
        """
        self.spec = roster.lookup(name)
        if self.spec.kind != "qemu":
            names = ", ".join(roster.names("qemu"))
            raise UsageError(f"{name} is not simulated by QEMU: expected one of {names}")
        if shutil.which("setpriv") is None or shutil.which(QEMU) is None:
            raise FieldloopError(
                f"cannot simulate {name}: {QEMU} or setpriv is missing; "
                "apt-get install qemu-system-arm util-linux"
            )
        self.memory = self.spec.memory(memory)
        self.icount = icount
        if unique_id is not None and len(unique_id) != 8:
            raise UsageError(f"unique_id: expected 8 bytes, got {len(unique_id)}")
        if flash_file is not None and flash_file.exists():
            flash.check(flash_file, self.spec.flash_file_size)
        self.firmware = firmware or build.build_firmware(name, self.memory.name, progress=progress)
        self._unique_id = unique_id or os.urandom(8)
        super().__init__(name, flash_file)

    def _await_start(self) -> None:
        self.wait_for("FIELDLOOP-BOOT", timeout=BOOT_SECONDS)

    # ---- what it says ----

    @property
    def repl_port(self) -> str:
        """The pty of UART0; another one after each start."""
        return self._port("serial0")

    @property
    def link_port(self) -> str:
        """The pty of UART1; another one after each start."""
        return self._port("serial1")

    @property
    def boots(self) -> int:
        """Starts of the machine since start(): 1, and one more for each machine.reset()."""
        return self.console.count("FIELDLOOP-BOOT")

    def _repl(self) -> RawRepl:
        return RawRepl(self.repl_port)

    # ---- the flash, from outside ----

    def read_partition(self, name: str) -> bytes:
        """The bytes of a partition as they are in the flash file now."""
        partition = self.memory.partition(name)
        with self.flash_file.open("rb") as file:
            file.seek(partition.offset)
            return file.read(partition.size)

    def write_partition(self, name: str, content: bytes) -> None:
        """Preload a partition, as a programmer at the factory does; the rest of it reads 0xFF.

        The board must be off, and have been started once: a new flash is erased at that start.
        """
        partition = self.memory.partition(name)
        if self.running:
            raise UsageError("write_partition: the board runs; kill() it first")
        if len(content) > partition.size:
            raise UsageError(
                f"partition {name}: expected at most {partition.size} bytes, got {len(content)}"
            )
        bitmap = self.memory.flash + partition.offset // 8
        with self.flash_file.open("r+b") as file:
            file.seek(partition.offset)
            file.write(content.ljust(partition.size, b"\xff"))
            # Every unit under the content counts as programmed, the rest as erased.
            file.seek(bitmap)
            file.write((b"\xff" * ((len(content) + 7) // 8)).ljust(partition.size // 8, b"\0"))

    # ---- inside ----

    def _make_flash(self, path: Path) -> None:
        flash.create(path, self.spec.psram_size, self._unique_id, self.spec.flash_file_size)

    def _command(self) -> list[str]:
        command = [
            *machine_words(self.spec, self.flash_file),
            "-semihosting",
            *("-kernel", str(self.firmware.elf)),
        ]
        return command + (ICOUNT if self.icount else [])
