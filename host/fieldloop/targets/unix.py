"""MicroPython's unix port on this machine, as a target.

It runs the same C module and the same device package as a board does, at full speed, and with
sanitizers when asked. Its link is a pty: `link_port` is our end, and the device's end is the open
file descriptor `link_fd` in its process:

    with UnixBoard() as board:
        board.exec(f"link = open({board.link_fd}, 'r+b', 0)")
"""

from __future__ import annotations

import ast
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
import tty
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fieldloop import paths
from fieldloop.errors import DeviceError, FieldloopError
from fieldloop.targets import build, flash
from fieldloop.targets.raw_repl import RemoteError
from fieldloop.targets.repl_target import ClosedByWith

_ENVIRONMENT = {"ASAN_OPTIONS": "detect_stack_use_after_return=0:detect_leaks=0"}


class UnixBoard(ClosedByWith):
    """One process of the unix port with a file system and a link of its own.

    `root` is the folder that the device sees as /; without one it is a temporary one. kill() and
    start() are a power cut: files stay, names are forgotten.
    """

    name = "unix"
    kind = "unix"
    repl_port = None

    def __init__(
        self,
        *,
        root: Path | None = None,
        sanitize: bool = False,
        firmware: build.Firmware | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.firmware = firmware or build.build_firmware(
            "unix", sanitize=sanitize, progress=progress
        )
        self._temporary = root is None
        self.root = root or Path(tempfile.mkdtemp(prefix="fieldloop-unix-"))
        self.link_fd = -1
        self._slave_fd = -1
        self._lock = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    # ---- life ----

    def start(self) -> UnixBoard:
        """Start the process. Returns itself."""
        if self.running:
            return self
        self._forget()
        self._lock = flash.hold(self.root)
        # Both ends stay open here, so that the port's name lives as long as the process.
        self.link_fd, self._slave_fd = os.openpty()
        tty.setraw(self._slave_fd)
        agent = paths.boards_dir() / "unix" / "agent.py"
        self._buffer = b""
        self._process = subprocess.Popen(
            [self.firmware.elf, "-X", "heapsize=8M", agent, self.root, paths.device_dir()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self.link_fd, self._lock],
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,
        )
        return self

    def kill(self) -> None:
        """Cut the power: SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._forget()

    def restart(self) -> UnixBoard:
        """Cut the power and start again on the same files."""
        self.kill()
        return self.start()

    def close(self) -> None:
        """End it; a root that was not given is removed."""
        self.kill()
        if self._temporary:
            shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> UnixBoard:
        return self.start()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def link_port(self) -> str:
        """The host's end of the link."""
        if not self.running:
            raise DeviceError("unix is off: start() it first")
        return os.ttyname(self._slave_fd)

    # ---- bring-up, see Target ----

    def exec(self, code: str, *, timeout: float = 10.0) -> str:
        self.begin(code)
        return self.finish(timeout=timeout)

    def begin(self, code: str) -> None:
        """Start code without waiting for its end, a server for example; finish() collects it."""
        if not self.running:
            raise DeviceError("unix is off: start() it first")
        assert self._process is not None and self._process.stdin is not None
        content = code.encode()
        try:
            self._process.stdin.write(b"%d\n%s" % (len(content), content))
            self._process.stdin.flush()
        except OSError as error:
            raise DeviceError(f"unix ended while it was sent code: {error}") from error
        self._read_until(b"\x06", 10.0)

    def interrupt(self) -> None:
        """Ctrl-C: stop what runs."""
        if self.running:
            assert self._process is not None
            self._process.send_signal(signal.SIGINT)

    def finish(self, *, timeout: float = 10.0) -> str:
        """Wait for the end of what begin() started and return what it printed."""
        output = self._read_until(b"\x04", timeout)
        trace = self._read_until(b"\x04", timeout)
        text = output.decode(errors="replace")
        if trace:
            raise RemoteError(trace.decode(errors="replace"), text)
        return text

    def eval(self, expression: str, *, timeout: float = 10.0) -> Any:
        output = self.exec(f"print(repr({expression}))", timeout=timeout).strip()
        try:
            return ast.literal_eval(output)
        except (SyntaxError, ValueError):
            raise FieldloopError(
                f"cannot read the value of {expression!r}: expected a Python literal, "
                f"got {output[:200]!r}"
            ) from None

    def put(self, path: str, content: bytes) -> None:
        target = self._inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def get(self, path: str) -> bytes:
        try:
            return self._inside(path).read_bytes()
        except OSError as error:
            raise RemoteError(f"OSError: [Errno {error.errno}] {path}") from None

    # ---- inside ----

    def _inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _read_until(self, ending: bytes, timeout: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while ending not in self._buffer:
            started = time.monotonic()
            if not select.select([descriptor], [], [], timeout)[0]:
                raise DeviceError(
                    f"unix did not finish: silent for {time.monotonic() - started:.1f} s, "
                    f"last heard {self._buffer[-80:]!r}; restart() it"
                )
            got = os.read(descriptor, 65536)
            if not got:
                code = self._process.wait()
                raise DeviceError(
                    f"unix ended with exit code {code}, last heard {self._buffer[-200:]!r}"
                )
            self._buffer += got
        taken, _, self._buffer = self._buffer.partition(ending)
        return taken

    def _forget(self) -> None:
        for descriptor in (self.link_fd, self._slave_fd, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self.link_fd = self._slave_fd = self._lock = -1
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # code that it never took
                        pipe.close()
            self._process = None


def run_script(
    script: Path,
    arguments: Sequence[str] = (),
    *,
    search: Sequence[Path] = (),
    sanitize: bool = False,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run a script by the unix port as any program, with the device package in its path."""
    firmware = build.build_firmware("unix", sanitize=sanitize)
    folders = [str(folder) for folder in (*search, paths.device_dir())]
    environment = {**os.environ, **_ENVIRONMENT, "MICROPYPATH": ":".join([*folders, ".frozen"])}
    return subprocess.run(
        [firmware.elf, script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
