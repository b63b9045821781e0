"""What targets share that have a REPL: bring-up goes through it, `with` closes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, TypeVar

from fieldloop.targets.raw_repl import RawRepl

Self = TypeVar("Self", bound="ClosedByWith")


class ClosedByWith(ABC):
    """Closed at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class ReplTarget(ClosedByWith):
    """The calls of bring-up, as Target describes them, through the REPL."""

    @abstractmethod
    def _repl(self) -> RawRepl:
        """The REPL as it is now: a simulated board has another port after each start."""

    def exec(self, code: str, *, timeout: float = 10.0, soft_reset: bool = False) -> str:
        return self._repl().exec(code, timeout=timeout, soft_reset=soft_reset)

    def begin(self, code: str) -> None:
        self._repl().begin(code)

    def interrupt(self) -> None:
        self._repl().interrupt()

    def eval(self, expression: str, *, timeout: float = 10.0) -> Any:
        return self._repl().eval(expression, timeout=timeout)

    def put(self, path: str, content: bytes) -> None:
        self._repl().put(path, content)

    def get(self, path: str) -> bytes:
        return self._repl().get(path)
