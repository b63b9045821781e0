"""The C server as a program of this machine: compiled by host_main.c's rules, started, killed.

    with HostApp() as app:
        board = connect(app.link_port, dedicated=True)
        app.restart()                  # a power cut: its flash is a file

A target in the sense of fieldloop.targets.base, as far as a device without Python can be one.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import select
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fieldloop import paths
from fieldloop.runtime import core
from fieldloop.runtime.flashfile import NorFlash, Store

# The boards' test images (images.py) serve here, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "device"))

MAIN = Path(__file__).resolve().parent / "host_main.c"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wdouble-promotion", "-Wfloat-conversion")
PLAIN = ("-std=c99", "-O2")
SANITIZED = (
    *("-std=c99", "-O1", "-g", "-ffp-contract=off", "-fno-math-errno"),
    "-fsanitize=address,undefined,alignment",
    "-fno-sanitize-recover=all",
)
SECTOR, UNIT = 4096, 8
SLOT_SECTORS, STORE_SECTORS = 32, 16


@functools.cache
def build(*, sanitize: bool = False) -> Path:
    """The program; compiled at most once for the same sources, flags and compiler.

    The plain one runs on the library that the host has; a sanitized one brings its own core.
    """
    root, compiler = paths.core_dir(), core.compiler()
    library = [] if sanitize else [core.build()]
    flags = SANITIZED if sanitize else PLAIN
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    common = [version, " ".join((*flags, *WARNINGS)).encode()]
    common += [header.read_bytes() for header in sorted(root.rglob("*.h"))]
    folder = paths.build_dir() / "host-app"
    folder.mkdir(parents=True, exist_ok=True)
    objects = {
        source: folder / f"{source.stem}-{_digest(*common, source.read_bytes())}.o"
        for source in [*(core.sources() if sanitize else ()), MAIN]
    }
    parts = [*objects.values(), *library]
    program = folder / f"host_main-{_digest(*(part.name.encode() for part in parts))}"

    def compile_one(source: Path) -> None:
        made = objects[source].with_suffix(f".{os.getpid()}.tmp")
        include = (f"-I{root / 'include'}", f"-I{root}")
        _run(compiler, *flags, *WARNINGS, *include, "-c", str(source), "-o", str(made))
        made.replace(objects[source])

    with (folder / "lock").open("w") as lock:  # parallel test runs build once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            missing = [source for source, made in objects.items() if not made.exists()]
            with ThreadPoolExecutor(max_workers=2) as pool:
                list(pool.map(compile_one, missing))
            made = program.with_suffix(".tmp")
            search = [f"-Wl,-rpath,{path.parent}" for path in library]
            _run(compiler, *flags, *map(str, parts), *search, "-o", str(made))
            made.replace(program)
    return program


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 and "libasan" in done.stderr:
        pytest.skip("this compiler has no address sanitizer")
    assert done.returncode == 0, done.stderr[-4000:]


class HostApp:
    """One process of the program with a flash file of its own.

    Options of host_main.c by name: buf, memory, slot, store; for a power cut cut, seed, inside.
    """

    name = "host"
    kind = "host"
    repl_port = None

    def __init__(
        self, *, flash_file: Path | None = None, sanitize: bool = False, **options: int
    ) -> None:
        self.program = build(sanitize=sanitize)
        self.options = options
        self._folder = tempfile.TemporaryDirectory(prefix="fieldloop-host-app-")
        self.flash_file = flash_file or Path(self._folder.name) / "flash.bin"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = ""

    # ---- life

    def start(self, **options: int) -> HostApp:
        """`options` are of this start alone, a power cut for example."""
        assert not self.running, "it runs already"
        named = [f"{name}={value}" for name, value in {**self.options, **options}.items()]
        self._process = subprocess.Popen(
            [self.program, self.flash_file, *named],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], 30.0)
        assert ready, "the program did not tell its port in 30 s"
        self._port = self._process.stdout.readline().decode().strip()
        assert self._port, self.wait()
        return self

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def link_port(self) -> str:
        assert self.running, f"the program ended: {self.wait()}"
        return self._port

    def kill(self) -> None:
        """Cut the power: SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self.wait()

    def wait(self, timeout: float = 30.0) -> tuple[int, str]:
        """Until it ended: exit code (negative: the signal's number) and what it complained of."""
        assert self._process is not None
        process, self._process = self._process, None
        _, told = process.communicate(timeout=timeout)
        return process.returncode, told.decode(errors="replace")

    def restart(self) -> HostApp:
        self.kill()
        return self.start()

    def close(self) -> None:
        """Ends it in order. AssertionError: it broke a rule of flash, of memory or of C."""
        ended = (
            self.wait() if self._process is not None else (0, "")
        )  # its stdin is closed by that
        self._folder.cleanup()
        assert ended == (0, ""), ended

    def __enter__(self) -> HostApp:
        return self.start()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.close()
            return
        self.kill()
        self._folder.cleanup()

    def interrupt(self) -> None:
        """There is nothing to interrupt: it serves and does nothing else."""

    # ---- what the flash holds, read from outside

    def partition(self, name: str) -> bytes:
        slot, store = (
            SECTOR * self.options.get("slot", SLOT_SECTORS),
            SECTOR * self.options.get("store", STORE_SECTORS),
        )
        at, size = {"model0": (0, slot), "model1": (slot, slot), "store": (2 * slot, store)}[name]
        return self.flash_file.read_bytes()[at : at + size]

    def store(self, folder: Path) -> Store:
        """The store as it is now, through the host's own build; a copy lies in `folder`."""
        data = self.partition("store")
        copy = folder / "store.bin"
        copy.write_bytes(data)
        return Store(NorFlash(copy, sector_count=len(data) // SECTOR, prog_bytes=UNIT))
