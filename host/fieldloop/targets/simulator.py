"""A process of this machine that stands for a device: its ports, what it says, its life and death.

What all of them have in common, QEMU with any firmware and Zephyr's native_sim: the names of the
ptys come on its standard output, what it remembers is a file that one process at a time holds, a
power cut is SIGKILL, and none outlives us.
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
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from fieldloop.errors import DeviceError
from fieldloop.targets import flash
from fieldloop.targets.repl_target import ClosedByWith

BOOT_SECONDS = 20.0

Self = TypeVar("Self", bound="Simulator")

# `-chardev pty,id=serial0`: the label is serial0, or serial0-base behind a multiplexer.
QEMU_PTY = re.compile(
    rb"char device redirected to (?P<path>\S+) \(label (?P<label>\w+?)(?:-base)?\)"
)
NATIVE_PTY = re.compile(rb"(?P<label>\w+) connected to pseudotty: (?P<path>\S+)")


class Simulator(ClosedByWith):
    """One simulated device; off until start(), which `with` calls.

    A class of its own says what the process is (_command), and may wait for more than the ports
    (_await_start). The flash file is there when the object is made; `_make_flash` makes it.
    """

    port_line: re.Pattern[bytes] = QEMU_PTY  # how it tells of a pty
    port_count: int = 2

    def __init__(self, name: str, flash_file: Path | None) -> None:
        """`flash_file` is made when absent and stays; without one it lasts as long as the
        object."""
        self._name = name
        self._folder: Path | None = None
        if flash_file is None:
            self._folder = Path(tempfile.mkdtemp(prefix="fieldloop-flash-"))
            flash_file = self._folder / "flash.bin"
        self.flash_file = flash_file
        if not flash_file.exists():
            try:
                self._make_flash(flash_file)
            except BaseException:
                self._remove_folder()
                raise
        self._lock = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, str] = {}
        self._held: list[int] = []
        self._console = Console(name)
        _living.add(self)

    # ---- what a class of its own says ----

    @abstractmethod
    def _command(self) -> list[str]:
        """The words that start the process."""

    @abstractmethod
    def _make_flash(self, path: Path) -> None:
        """Makes a new flash file."""

    def _await_start(self) -> None:
        """Waits until the firmware runs."""

    # ---- life ----

    def start(self: Self) -> Self:
        """Power on, and wait until the firmware runs. Returns itself."""
        if self.running:
            return self
        self._forget()
        self._console = Console(self._name)
        self._lock = flash.hold(self.flash_file)
        try:
            # The kernel ends it should this process die, even by SIGKILL.
            words = ["setpriv", "--pdeathsig", "SIGKILL", *self._command()]
            self._process = _spawn(words, self._lock)
            self._console.follow(self._process)
            self._ports = self._console.wait_for_ports(self.port_line, self.port_count)
            # Held open: QEMU looks for a reader of a closed pty only once a second.
            self._held = [os.open(p, os.O_RDWR | os.O_NOCTTY) for p in self._ports.values()]
            self._await_start()
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

    def restart(self: Self) -> Self:
        """Cut the power and start again with the same flash."""
        self.kill()
        return self.start()

    def close(self) -> None:
        """End the simulation; a flash that was not given is removed."""
        self.kill()
        self._remove_folder()
        _living.discard(self)

    def __enter__(self: Self) -> Self:
        return self.start()

    @property
    def running(self) -> bool:
        """True while the simulator runs, also after a power cut inside it."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of its process, while it runs."""
        if self._process is None or not self.running:
            raise DeviceError(f"{self._name} is off: start() it first")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How the simulator ended: 1 after a fault; None while it runs or before it started."""
        return None if self._process is None else self._process.poll()

    # ---- what it says ----

    @property
    def name(self) -> str:
        """Its name in the roster."""
        return self._name

    @property
    def console(self) -> str:
        """What it reported on its standard output since the last start."""
        return self._console.text()

    def wait_for(self, text: str, *, timeout: float = 10.0, count: int = 1) -> str:
        """Wait until a line of the console starts with `text`, `count` times; returns that line.

        Raises DeviceError when the time (seconds) is over or the simulator ended.
        """
        return self._console.wait_for(text, count, timeout)

    # ---- inside ----

    def _port(self, label: str) -> str:
        if not self.running:
            raise DeviceError(f"{self._name} is off: start() it first")
        return self._ports[label]

    def _forget(self) -> None:
        for descriptor in (*self._held, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._held, self._lock = [], -1
        self._ports = {}

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class Console:
    """Follows a simulator's standard output: the pty names, and what the firmware reports."""

    def __init__(self, name: str) -> None:
        self._name = name
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

    def wait_for_ports(self, line: re.Pattern[bytes], count: int) -> dict[str, str]:
        """Paths of so many ptys by their labels."""

        def ports() -> dict[str, str] | None:
            found = {m["label"].decode(): m["path"].decode() for m in line.finditer(self._bytes)}
            return found if len(found) == count else None

        otherwise = f"{self._name} opened no serial ports"
        return cast("dict[str, str]", self._wait(ports, BOOT_SECONDS, otherwise))

    def wait_for(self, text: str, count: int, timeout: float) -> str:
        def line() -> str | None:
            complete = self._bytes.decode(errors="replace").rpartition("\n")[0]
            lines = [line for line in complete.splitlines() if line.startswith(text)]
            return lines[count - 1] if len(lines) >= count else None

        return cast(str, self._wait(line, timeout, f"{self._name} did not report {text!r}"))

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


# ---- none outlives us ----

_living: weakref.WeakSet[Simulator] = weakref.WeakSet()
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
            _spawner = threading.Thread(target=_serve_spawns, daemon=True, name="fieldloop-spawn")
            _spawner.start()
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
    _requests.put((command, lock, answer))
    result = answer.get()
    if isinstance(result, OSError):
        raise DeviceError(f"cannot start {command[0]}: {result}") from result
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
                    start_new_session=True,  # Ctrl-C at the terminal is for us, not for it
                )
            )
        except OSError as error:
            answer.put(error)


@atexit.register
def _close_all() -> None:
    for simulator in list(_living):
        simulator.close()
