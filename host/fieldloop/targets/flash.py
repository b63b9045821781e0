"""What a simulated board remembers in: a file made whole, with one user at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from fieldloop.errors import FieldloopError, UsageError

UNIQUE_ID_FROM_END = 56  # within the header at the file's end, see boards/mps2/simflash.c
_PATIENCE = 1.0  # seconds for a user that was killed just now to be gone


def create(path: Path, size: int, unique_id: bytes, file_size: int = 0) -> None:
    """Make a new flash file, which the firmware of boards/mps2 erases at its first start.

    All of its bytes are allocated now: QEMU would die of a disk that is full later. Up to
    `file_size` a hole follows, which nobody writes.
    """

    def fill(file: int) -> None:
        os.posix_fallocate(file, 0, size)
        os.pwrite(file, unique_id, size - UNIQUE_ID_FROM_END)

    _make(path, max(size, file_size), fill)


def create_erased(path: Path, size: int, file_size: int = 0) -> None:
    """Make a new flash file as erased flash is, for a firmware that takes it as it comes."""

    def fill(file: int) -> None:
        erased = b"\xff" * 0x10_0000
        for at in range(0, size, len(erased)):
            os.pwrite(file, erased[: size - at], at)

    _make(path, max(size, file_size), fill)


def _make(path: Path, size: int, fill: Callable[[int], None]) -> None:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            fill(file)
            os.truncate(file, size)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(file)
    except OSError as error:
        raise FieldloopError(
            f"cannot make the flash file {path} of {size} bytes: {error.strerror}; "
            "choose another place"
        ) from error


def check(path: Path, size: int) -> None:
    """Refuses what cannot be a flash file of this size."""
    if not path.is_file():
        raise UsageError(f"flash {path}: expected a file, got a folder or device; name another")
    got = path.stat().st_size
    if got != size:
        raise UsageError(
            f"flash file {path}: expected {size} bytes, got {got}; "
            "name another, or one that is not there yet"
        )


def hold(path: Path) -> int:
    """Locks a file or folder; whoever has the descriptor open, in any process, holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FieldloopError(f"cannot open {path}: {error.strerror}") from error
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            os.close(descriptor)
            raise FieldloopError(
                f"{path} is the flash of a board that runs now; wait for it, or name another"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
