"""What a person sees on stderr: stages, notes and progress; and what a verb gives back."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

_WIDTH = 32
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"
_ERASE = "\r\x1b[K"


@dataclass(frozen=True, slots=True)
class Output:
    """The result of a verb: an object for --json, the same as text, and the exit code."""

    data: dict[str, Any]
    text: str
    code: int = 0


class Console:
    """Progress as a bar on a terminal, and as one line per 10 % anywhere else.

    NO_COLOR turns colours off, quiet (for pipes that want errors only) all but errors.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self._terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self._color = self._terminal and not os.environ.get("NO_COLOR")
        self._bar_shown = False
        self._tenth = -1

    def stage(self, title: str) -> None:
        self._tenth = -1
        self._line(f"{_BOLD}{title}{_PLAIN}" if self._color else title)

    def note(self, text: str) -> None:
        self._line(f"  {text}")

    def progress(self, done: int, total: int) -> None:
        if self.quiet or total <= 0:
            return
        if self._terminal:
            filled = _WIDTH * done // total
            bar = "#" * filled + "." * (_WIDTH - filled)
            self.stream.write(f"{_ERASE}  [{bar}] {100 * done // total:3} %")
            self._bar_shown = True
            if done >= total:
                self._clear()
            self.stream.flush()
            return
        tenth = 10 * done // total
        if tenth > self._tenth:
            self._tenth = tenth if done < total else -1
            self._line(f"  {10 * tenth} %")

    def error(self, text: str) -> None:
        self._clear()
        self.stream.write(f"fieldloop: {text}\n")
        self.stream.flush()

    def device_text(self, data: bytes) -> None:
        """What a device prints between its answers."""
        self._clear()
        self.stream.write(data.decode(errors="replace"))
        self.stream.flush()

    def _line(self, text: str) -> None:
        if self.quiet:
            return
        self._clear()
        self.stream.write(text + "\n")
        self.stream.flush()

    def _clear(self) -> None:
        if self._bar_shown:
            self.stream.write(_ERASE)
            self._bar_shown = False


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns padded to their widest entry."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def plural(count: int, noun: str) -> str:
    """1 sample, 2 samples."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def short(name: str, width: int = 32) -> str:
    """A layer's name for a table: TFLite joins those of all that it fused, with semicolons."""
    last = name.rpartition(";")[2]
    return last if len(last) <= width else "..." + last[3 - width :]
