"""The Zephyr application on a simulated board: native_sim on this machine, or QEMU.

    with ZephyrBoard("native_sim", flash_file=Path("board.bin")) as board:
        connect(board.link_port, dedicated=True).info()
        print(board.shell("fieldloop info"))
        board.kill()     # a power cut: SIGKILL
        board.start()    # the flash holds what it held

There is no Python on it: what a host wants goes over the link, which answers soon after start().
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from fieldloop import paths
from fieldloop.errors import DeviceError, FieldloopError, UsageError
from fieldloop.targets import flash, qemu, roster, zephyr_workspace
from fieldloop.targets.build import Firmware
from fieldloop.targets.simulator import NATIVE_PTY, QEMU_PTY, Simulator

Progress = Callable[[str], None]

PROMPT = "uart:~$ "
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
NATIVE_LABELS = ("uart", "uart_1")  # of the console and of the link
QEMU_LABELS = ("serial0", "serial1")


def app_dir() -> Path:
    """The C application."""
    return paths.data_root() / "zephyr_app"


def build_folder(name: str) -> Path:
    """Where a target of the roster is built."""
    return paths.build_dir() / "zephyr" / name


def missing_tools(spec: roster.TargetSpec) -> list[str]:
    """What building and running a Zephyr target needs and this machine lacks; a line each."""
    lacking = zephyr_workspace.missing(spec.board)
    if spec.kind == "zephyr-mpy" and zephyr_workspace.is_named():
        with suppress(FieldloopError):  # told above
            if zephyr_workspace.find().micropython is None:
                lacking.append(f"MicroPython: {zephyr_workspace.HOW_MICROPYTHON}")
    return lacking + _missing_simulator(spec)


def need_simulator(spec: roster.TargetSpec) -> None:
    """Raises FieldloopError when this machine cannot run a Zephyr target, however it is built."""
    if lacking := _missing_simulator(spec):
        raise FieldloopError(
            f"cannot simulate {spec.name}: {', '.join(lacking)} missing; "
            "apt-get install qemu-system-arm util-linux"
        )


def _missing_simulator(spec: roster.TargetSpec) -> list[str]:
    return [x for x in qemu.missing_simulator() if spec.machine or x != qemu.QEMU]


def spec_of(name: str, kind: roster.Kind) -> roster.TargetSpec:
    """The target of that name, which must be of the kind."""
    spec = roster.lookup(name)
    if spec.kind != kind:
        names = ", ".join(roster.names(kind))
        raise UsageError(f"{name} is not of the kind {kind}: expected one of {names}")
    return spec


def build_app(
    name: str,
    *,
    variant: str = "",
    extra: Sequence[str] = (),
    progress: Progress | None = None,
) -> Firmware:
    """The application for a target of the roster, built if anything changed.

    `extra` are further words for CMake; such a build has a folder of its own, by `variant`.
    """
    spec = spec_of(name, "zephyr")
    if extra and not variant:
        raise UsageError("build_app: what is built with further words needs a variant's name")
    folder = build_folder(f"{name}-{variant}" if variant else name)
    elf = zephyr_workspace.build(app_dir(), spec.board, folder, extra=extra, progress=progress)
    return measure(elf, spec)


def measure(elf: Path, spec: roster.TargetSpec) -> Firmware:
    """The sizes of a firmware, by its loaded sections; what lies in the simulated flash is not
    the firmware's. Of native_sim they are a program of this machine, its C library not in it."""
    text = data = bss = 0
    simulated = range(spec.psram_address, spec.psram_address + spec.psram_size)
    try:
        with elf.open("rb") as file:
            for section in ELFFile(file).iter_sections():
                flags, size = section["sh_flags"], section["sh_size"]
                if not flags & SH_FLAGS.SHF_ALLOC or section["sh_addr"] in simulated:
                    continue
                if section["sh_type"] == "SHT_NOBITS":
                    bss += size
                elif flags & SH_FLAGS.SHF_WRITE:
                    data += size
                else:
                    text += size
    except (ELFError, OSError) as error:
        raise FieldloopError(f"cannot measure {elf}: {error}") from error
    return Firmware(elf, spec.name, "", text, data, bss)


class ZephyrBoard(Simulator):
    """One simulated board with the application. Building it is part of making it."""

    kind = "zephyr"
    repl_port = None

    def __init__(
        self,
        name: str = "native_sim",
        *,
        flash_file: Path | None = None,
        icount: bool = False,
        firmware: Firmware | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`flash_file` is made when absent and stays; without one the flash lasts as long as the
        object. `icount` counts instructions and is slower at serial traffic.
        """
        self.spec = spec_of(name, "zephyr")
        native = not self.spec.machine
        if icount and native:
            raise UsageError(f"{name} does not count instructions; a board of QEMU's does")
        if flash_file is not None and not (native or self.spec.psram_size):
            raise UsageError(f"{name} remembers nothing: it takes no flash file")
        need_simulator(self.spec)
        self.icount = icount
        self.port_line = NATIVE_PTY if native else QEMU_PTY
        self._labels = NATIVE_LABELS if native else QEMU_LABELS
        if flash_file is not None and flash_file.exists():
            flash.check(flash_file, self.spec.flash_file_size)
        self.firmware = firmware or build_app(name, progress=progress)
        self._text = _Text(name)
        super().__init__(name, flash_file)

    # ---- what it says ----

    @property
    def link_port(self) -> str:
        """The pty of the link's UART; another one after each start."""
        return self._port(self._labels[1])

    @property
    def console(self) -> str:
        """What it said since the last start: on its standard output, and on its console."""
        return super().console + self._text.text()

    def shell(self, command: str, *, timeout: float = 10.0) -> str:
        """What a command of Zephyr's shell prints. Raises DeviceError when no prompt follows."""
        return self._text.ask(command, timeout)

    def take_console(self) -> str:
        """The console's pty, which is the caller's to read from now on; shell() hears no more."""
        self._text.stop()
        return self._port(self._labels[0])

    # ---- inside ----

    def _make_flash(self, path: Path) -> None:
        size = self.spec.psram_size or self.spec.flash_file_size
        flash.create_erased(path, size, self.spec.flash_file_size)

    def _command(self) -> list[str]:
        elf = str(self.firmware.elf)
        if not self.spec.machine:
            # Without -rt time is as fast as the machine: an idle device would spin.
            return [elf, f"--flash={self.flash_file}", "-rt"]
        words = [*qemu.machine_words(self.spec, self.flash_file), "-kernel", elf]
        return words + (qemu.ICOUNT if self.icount else [])

    def _await_start(self) -> None:
        self._text.stop()  # of a start that ended by itself
        self._text = _Text(self.name)
        self._text.follow(self._port(self._labels[0]))

    def kill(self) -> None:
        """Cut the power: SIGKILL. The flash file keeps what was written so far."""
        self._text.stop()
        super().kill()


class _Text:
    """The console: read all the time, since a port that nobody reads stops its writer."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._bytes = b""
        self._port = -1
        self._wake: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None

    def follow(self, path: str) -> None:
        self._port = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        self._wake = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """What was read stays."""
        if self._thread is None or self._wake is None:
            return
        os.write(self._wake[1], b"x")
        self._thread.join()
        self._thread = None
        for descriptor in (self._port, *self._wake):
            os.close(descriptor)

    def text(self) -> str:
        with self._changed:
            return self._bytes.decode(errors="replace")

    def ask(self, command: str, timeout: float) -> str:
        if self._thread is None:
            raise DeviceError(f"{self._name} is off: start() it first")
        deadline = time.monotonic() + timeout
        with self._changed:
            before = len(self._bytes)
            try:
                os.write(self._port, command.encode() + b"\n")
            except OSError as error:  # a pty that nobody holds at the other end
                raise DeviceError(f"{self._name} has ended: start() it again") from error
            while True:
                said = _ESCAPE.sub("", self._bytes[before:].decode(errors="replace"))
                _, found, answer = said.partition(command)
                if found and answer.endswith(PROMPT):
                    lines = answer.removesuffix(PROMPT).strip("\r\n")
                    return lines.replace("\r\n", "\n")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DeviceError(
                        f"{self._name}: the shell gave no prompt within {timeout:.0f} s after "
                        f"{command!r}, it said {said[-300:]!r}"
                    )
                self._changed.wait(left)

    def _read(self) -> None:
        assert self._wake is not None
        while True:
            ready, _, _ = select.select([self._port, self._wake[0]], [], [])
            if self._port in ready:
                try:
                    got = os.read(self._port, 4096)
                except OSError:  # it is gone
                    got = b""
                if got:
                    with self._changed:
                        self._bytes += got
                        self._changed.notify_all()
                    continue
                ready = [self._wake[0]]
            if self._wake[0] in ready:
                return
