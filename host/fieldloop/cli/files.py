"""Files: read in one piece, and written whole: a full disk or Ctrl-C leaves the old one."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.errors import FieldloopError, UsageError


def file_bytes(path: Path) -> bytes:
    """The bytes of a file, or one clear error."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FieldloopError(f"cannot read {path}: {error.strerror}") from error


def prepare_file(path: Path | None, *, source: Path | None = None, option: str = "-o") -> None:
    """Refuses a place that cannot be written, before the work is done and not after.

    `source`: the model that is read, which must not be lost; `option`: what named the place.
    """
    if path is None:
        return
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise UsageError(f"{path} is the model itself; choose another place for {option}")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> FieldloopError:
    return FieldloopError(f"cannot write {path}: {error.strerror}; choose another place")


def write_file(path: Path, content: bytes) -> None:
    """Writes beside the place, then moves there; makes the folder.

    What is there and no plain file (/dev/stdout, a pipe) is written to, never replaced.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(beside, 0o644)
            os.replace(beside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(beside)
            raise
    except OSError as error:
        raise _cannot_write(path, error) from error


def write_npz(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Arrays as a compressed .npz."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_file(path, content.getvalue())
