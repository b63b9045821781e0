"""What a run of the command line left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """stdout, which must be one object and nothing else."""
        content: dict[str, Any] = json.loads(self.out)
        return content

    def refused(self, code: int, *words: str) -> None:
        """One line on stderr, no traceback, the documented code, nothing on stdout."""
        assert self.code == code, self
        lines = [line for line in self.err.splitlines() if line.startswith("fieldloop: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        assert self.out == ""
        for word in words:
            assert word in lines[0], lines[0]


Cli = Callable[..., Done]


@dataclass(frozen=True, slots=True)
class Model:
    """An untrained student, whose shapes, sections and samples are those of a trained one."""

    path: Path
    stream: Path
    test: Path
    image: bytes
