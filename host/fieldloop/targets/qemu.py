"""A simulated board: QEMU with our firmware, two serial ports and a flash that is a file.

    with QemuBoard("qemu-an386") as board:
        print(board.exec("import os; print(os.uname().machine)"))
        board.kill()     # a power cut: SIGKILL
        board.start()    # the flash holds what it held

What the firmware reports goes to `console`: a line FIELDLOOP-BOOT at every start of the machine,
FIELDLOOP-FAULT before it ends itself, FIELDLOOP-POWER-CUT when an armed power cut came.
"""

from __future__ import annotations

import atexit
import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from fieldloop.errors import DeviceError, FieldloopError, UsageError
from fieldloop.targets import build, flash, roster
from fieldloop.targets.raw_repl import RawRepl
from fieldloop.targets.repl_target import ReplTarget

QEMU = "qemu-system-arm"
BOOT_SECONDS = 20.0

_PTY = re.compile(rb"char device redirected to (\S+) \(label (\w+)(?:-base)?\)")


def missing_tools() -> list[str]:
    """The programs that a simulated board needs and this machine lacks."""
    tools = (QEMU, "setpriv")
    return build.missing_tools("qemu") + [tool for tool in tools if shutil.which(tool) is None]


class QemuBoard(ReplTarget):
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
        self._folder: Path | None = None
        if flash_file is None:
            self._folder = Path(tempfile.mkdtemp(prefix="fieldloop-flash-"))
            flash_file = self._folder / "flash.bin"
        self.flash_file = flash_file
        if not flash_file.exists():
            try:
                flash.create(
                    flash_file,
                    self.spec.psram_size,
                    unique_id or os.urandom(8),
                    self.spec.flash_file_size,
                )
            except BaseException:
                self._remove_folder()
                raise
        self._lock = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, str] = {}
        self._held: list[int] = []
        self._console = _Console()
        _living.add(self)

    # ---- life ----

    def start(self) -> QemuBoard:
        """Power on, and wait until the firmware runs. Returns itself."""
        if self.running:
            return self
        self._forget()
        self._console = _Console()
        self._lock = flash.hold(self.flash_file)
        try:
            self._process = _spawn(self._command(), self._lock)
            self._console.follow(self._process)
            self._ports = self._console.wait_for_ports(BOOT_SECONDS)
            # Held open: QEMU looks for a reader of a closed pty only once a second.
            self._held = [os.open(p, os.O_RDWR | os.O_NOCTTY) for p in self._ports.values()]
            self.wait_for("FIELDLOOP-BOOT", timeout=BOOT_SECONDS)
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """Cut the power: SIGKILL. The flash file keeps what was written so far."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._console.join()
        self._forget()

    def restart(self) -> QemuBoard:
        """Cut the power and start again with the same flash."""
        self.kill()
        return self.start()

    def close(self) -> None:
        """End the simulation; a flash that was not given is removed."""
        self.kill()
        self._remove_folder()
        _living.discard(self)

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> QemuBoard:
        return self.start()

    @property
    def running(self) -> bool:
        """True while the simulator runs, also after a power cut inside it."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the simulator ended: 1 after a fault; None while it runs or before it started."""
        return None if self._process is None else self._process.poll()

    # ---- what it says ----

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def repl_port(self) -> str:
        """The pty of UART0; another one after each start."""
        return self._port("serial0")

    @property
    def link_port(self) -> str:
        """The pty of UART1; another one after each start."""
        return self._port("serial1")

    @property
    def console(self) -> str:
        """What the firmware reported since the last start; not what is printed on the REPL."""
        return self._console.text()

    def wait_for(self, text: str, *, timeout: float = 10.0, count: int = 1) -> str:
        """Wait until a line of the console starts with `text`, `count` times; returns that line.

        Raises DeviceError when the time (seconds) is over or the simulator ended.
        """
        return self._console.wait_for(text, count, timeout, self.spec.name)

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

    def _command(self) -> list[str]:
        path = str(self.flash_file).replace(",", ",,")
        size = self.spec.flash_file_size
        command = [
            # The kernel ends QEMU should this process die, even by SIGKILL.
            *("setpriv", "--pdeathsig", "SIGKILL", QEMU),
            *("-machine", f"{self.spec.machine},memory-backend=flash"),
            *("-object", f"memory-backend-file,id=flash,size={size},mem-path={path},share=on"),
            *("-display", "none", "-monitor", "none", "-nodefaults", "-semihosting"),
            # Behind a multiplexer, which reads ahead, a port receives about four times as fast;
            # its escape character must be none that a byte can have.
            *("-chardev", "pty,id=serial0,mux=on", "-serial", "chardev:serial0"),
            *("-chardev", "pty,id=serial1,mux=on", "-serial", "chardev:serial1"),
            *("-echr", "256"),
            *("-kernel", str(self.firmware.elf)),
        ]
        if self.icount:
            command += ["-icount", "shift=8,sleep=on"]
        return command

    def _port(self, label: str) -> str:
        if not self.running:
            raise DeviceError(f"{self.spec.name} is off: start() it first")
        return self._ports[label]

    def _forget(self) -> None:
        for descriptor in (*self._held, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._held, self._lock = [], -1
        self._ports = {}


class _Console:
    """Follows QEMU's standard output, which carries the pty names and the firmware's reports."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._bytes = b""
        self._ended = False
        self._thread: threading.Thread | None = None

    def follow(self, process: subprocess.Popen[bytes]) -> None:
        self._thread = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._thread.start()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def text(self) -> str:
        with self._changed:
            return self._bytes.decode(errors="replace")

    def wait_for_ports(self, timeout: float) -> dict[str, str]:
        def ports() -> dict[str, str] | None:
            found = {label.decode(): path.decode() for path, label in _PTY.findall(self._bytes)}
            return found if len(found) == 2 else None

        return cast("dict[str, str]", self._wait(ports, timeout, "QEMU opened no serial ports"))

    def wait_for(self, text: str, count: int, timeout: float, name: str) -> str:
        def line() -> str | None:
            complete = self._bytes.decode(errors="replace").rpartition("\n")[0]
            lines = [line for line in complete.splitlines() if line.startswith(text)]
            return lines[count - 1] if len(lines) >= count else None

        return cast(str, self._wait(line, timeout, f"{name} did not report {text!r}"))

    def _wait(self, found: Callable[[], Any], timeout: float, otherwise: str) -> Any:
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                result = found()
                if result is not None:
                    return result
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = "it ended" if self._ended else f"within {timeout:.0f} s"
                    tail = self._bytes[-300:].decode(errors="replace").strip()
                    raise DeviceError(f"{otherwise}: {why}, it said {tail!r}")
                self._changed.wait(left)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        while True:
            got = os.read(process.stdout.fileno(), 4096)
            with self._changed:
                self._bytes += got
                self._ended = not got
                self._changed.notify_all()
            if not got:
                process.stdout.close()
                return


# ---- no QEMU outlives us ----

_living: weakref.WeakSet[QemuBoard] = weakref.WeakSet()
_requests: queue.SimpleQueue[tuple[list[str], int, queue.SimpleQueue[Any]]] = queue.SimpleQueue()
_spawner: threading.Thread | None = None
_spawner_lock = threading.Lock()


def _spawn(command: list[str], lock: int) -> subprocess.Popen[bytes]:
    """Start a process, which holds the lock too, from a thread that lives as long as we do.

    The parent-death signal is sent when the *thread* that forked ends, so the caller's own thread
    will not do.
    """
    global _spawner
    with _spawner_lock:
        if _spawner is None or not _spawner.is_alive():
            _spawner = threading.Thread(target=_serve_spawns, daemon=True, name="fieldloop-qemu")
            _spawner.start()
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
    _requests.put((command, lock, answer))
    result = answer.get()
    if isinstance(result, OSError):
        raise DeviceError(f"cannot start {QEMU}: {result}") from result
    return cast("subprocess.Popen[bytes]", result)


def _serve_spawns() -> None:
    while True:
        command, lock, answer = _requests.get()
        try:
            answer.put(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=[lock],
                    start_new_session=True,  # Ctrl-C at the terminal is for us, not for QEMU
                )
            )
        except OSError as error:
            answer.put(error)


@atexit.register
def _close_all() -> None:
    for board in list(_living):
        board.close()
