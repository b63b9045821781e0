"""MicroPython on Zephyr with the C module and the device package: native_sim, or QEMU.

    with ZephyrMpyBoard("mpy-native_sim") as board:
        print(board.exec("import fieldloop; print(fieldloop.__version__)"))
        board.begin("fieldloop.serve(1)")     # answers on link_port

mpy-native_sim has a flash that is a file. mpy-m3 has 64 KiB of RAM, and none of its flash can be
written while it runs: put() is what a programmer does, the board is started again with a ROMFS
that holds the files.
"""

from __future__ import annotations

import os
import re
import select
import tempfile
import threading
import tty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fieldloop import paths
from fieldloop.errors import DeviceError, DoesNotFitError, FieldloopError, UsageError
from fieldloop.image.romfs import write_romfs
from fieldloop.targets import flash, qemu, zephyr_board, zephyr_workspace
from fieldloop.targets.build import Firmware
from fieldloop.targets.micropython_source import mpy_cross
from fieldloop.targets.raw_repl import RawRepl
from fieldloop.targets.repl_target import ReplTarget
from fieldloop.targets.simulator import QEMU_PTY, Simulator
from fieldloop.targets.zephyr_board import NATIVE_LABELS, QEMU_LABELS, spec_of

Progress = Callable[[str], None]

# As in zephyr_app/micropython/boards/qemu_cortex_m3.overlay.
ROMFS_ADDRESS, ROMFS_BYTES = 0x3D000, 0x3000

_TTY = re.compile(rb"(?P<label>\w+) connected to the serial port: (?P<path>\S+)")


def capabilities(name: str) -> frozenset[str]:
    """What a target has, of what a test may need: `files` that are written while it runs, a heap
    of a `megabyte`, `partitions` with raw flash, the module `math`."""
    if spec_of(name, "zephyr-mpy").machine:
        return frozenset()
    return frozenset({"files", "megabyte", "partitions", "math"})


def build_mpy(name: str, *, progress: Progress | None = None) -> Firmware:
    """MicroPython for a target of the roster, built if anything changed."""
    spec = spec_of(name, "zephyr-mpy")
    micropython = zephyr_workspace.find().micropython
    if micropython is None:
        raise FieldloopError(
            f"cannot build {name}: no MicroPython; {zephyr_workspace.HOW_MICROPYTHON}"
        )
    ours = paths.data_root() / "zephyr_app" / "micropython"
    board = spec.board.replace("/", "_")
    words = [
        f"-DCONF_FILE={ours / 'prj.conf'};{ours / 'boards' / f'{board}.conf'}",
        f"-DDTC_OVERLAY_FILE={ours / 'boards' / f'{board}.overlay'}",
        f"-DCMAKE_PROJECT_micropython_INCLUDE={ours / 'fieldloop.cmake'}",
    ]
    elf = zephyr_workspace.build(
        micropython / "ports" / "zephyr",
        spec.board,
        zephyr_board.build_folder(name),
        extra=words,
        # Otherwise the port builds it inside MicroPython's own folder.
        environment={"MICROPY_MPYCROSS": str(mpy_cross(progress, source=micropython))},
        progress=progress,
    )
    return zephyr_board.measure(elf, spec)


class ZephyrMpyBoard(ReplTarget, Simulator):
    """One simulated board with MicroPython on Zephyr. Building it is part of making it."""

    kind = "zephyr-mpy"

    def __init__(
        self,
        name: str = "mpy-native_sim",
        *,
        flash_file: Path | None = None,
        firmware: Firmware | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`flash_file` is made when absent and stays; without one the flash lasts as long as the
        object."""
        self.spec = spec_of(name, "zephyr-mpy")
        self._native = not self.spec.machine
        if flash_file is not None and not self._native:
            raise UsageError(f"{name} remembers nothing: it takes no flash file")
        zephyr_board.need_simulator(self.spec)
        if flash_file is not None and flash_file.exists():
            flash.check(flash_file, self.spec.flash_file_size)
        self.firmware = firmware or build_mpy(name, progress=progress)
        self.port_line = _TTY if self._native else QEMU_PTY
        self._cables: list[_Cable] = []
        self._files: dict[str, bytes] = {}  # of the ROMFS
        self._stale = False  # the ROMFS changed since the start
        super().__init__(name, flash_file)

    @property
    def capabilities(self) -> frozenset[str]:
        """What a test may need of it; see capabilities()."""
        return capabilities(self.name)

    @property
    def repl_port(self) -> str:
        """The pty of the console; another one after each start."""
        return self._host_port(0)

    @property
    def link_port(self) -> str:
        """The pty of the link's UART; another one after each start."""
        return self._host_port(1)

    def put(self, path: str, content: bytes) -> None:
        """Write a file. A board that cannot write its flash forgets its names over that."""
        if self._native:
            super().put(path, content)
            return
        name = path.lstrip("/")
        if self._files.get(name) == content:
            return
        files = self._files | {name: content}
        size = len(write_romfs(files))
        if size > ROMFS_BYTES:
            raise DoesNotFitError(
                f"the ROMFS of {self.name}", needed_bytes=size, available_bytes=ROMFS_BYTES
            )
        self._files = files
        self._stale = True

    def power_up_anew(self) -> None:
        """Start again when files were put since the start."""
        if self._stale and self.running:
            self.restart()

    # ---- inside ----

    def _repl(self) -> RawRepl:
        self.power_up_anew()
        return RawRepl(self.repl_port)

    def _host_port(self, which: int) -> str:
        if self._native:
            if not self.running:
                raise DeviceError(f"{self.name} is off: start() it first")
            return self._cables[which].host
        self.power_up_anew()
        return self._port(QEMU_LABELS[which])

    def _make_flash(self, path: Path) -> None:
        flash.create_erased(path, self.spec.flash_file_size)

    def _command(self) -> list[str]:
        elf = str(self.firmware.elf)
        if self._native:
            self._cables = [_Cable(), _Cable()]
            ports = zip(NATIVE_LABELS, self._cables, strict=True)
            words = [f"--{label}_port={cable.device}" for label, cable in ports]
            # Without -rt an idle device would spin.
            return [elf, f"--flash={self.flash_file}", *words, "-rt"]
        words = [*qemu.machine_words(self.spec, self.flash_file), "-kernel", elf]
        self._stale = False
        if self._files:
            # A new name each time: QEMU may not have read the one of the start before.
            handle, name = tempfile.mkstemp(suffix=".romfs", dir=self.flash_file.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(write_romfs(self._files))
            words += ["-device", f"loader,file={name},addr={ROMFS_ADDRESS:#x},force-raw=on"]
        return words

    def _forget(self) -> None:
        super()._forget()
        for cable in getattr(self, "_cables", []):
            cable.close()
        self._cables = []


class _Cable:
    """Two ptys, joined: native_sim opens a serial port by its name, and so do we, at the other
    end. `device` is its name, `host` is ours."""

    def __init__(self) -> None:
        # All four ends stay open here, so that the names live as long as the cable.
        self._ends = [os.openpty(), os.openpty()]
        for master, slave in self._ends:
            tty.setraw(slave)
            os.set_blocking(master, False)
        self.device, self.host = (os.ttyname(slave) for _, slave in self._ends)
        self._wake = os.pipe()
        self._thread = threading.Thread(target=self._move, daemon=True, name="fieldloop-cable")
        self._thread.start()

    def close(self) -> None:
        """Takes the cable away; may be called once."""
        os.write(self._wake[1], b"x")
        self._thread.join()
        for descriptor in (*self._ends[0], *self._ends[1], *self._wake):
            os.close(descriptor)

    def _move(self) -> None:
        """Bytes of each end to the other; what it does not take yet waits, and so does who sent
        it."""
        masters = [master for master, _ in self._ends]
        waiting = [b"", b""]  # for masters[i]
        while True:
            sources = [masters[i] for i in (0, 1) if not waiting[1 - i]]
            sinks = [masters[i] for i in (0, 1) if waiting[i]]
            readable, writable, _ = select.select([self._wake[0], *sources], sinks, [])
            if self._wake[0] in readable:
                return
            for i in (0, 1):
                with suppress(OSError):  # EAGAIN: it was not ready after all
                    if masters[i] in readable:
                        waiting[1 - i] = os.read(masters[i], 4096)
                    if masters[i] in writable:
                        waiting[i] = waiting[i][os.write(masters[i], waiting[i]) :]
