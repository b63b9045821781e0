"""A real board at a serial port, as a target."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from fieldloop.errors import UsageError
from fieldloop.targets import roster
from fieldloop.targets.raw_repl import RawRepl


class SerialBoard:
    """A board behind `serial:PORT`; `link_port` names a second port when the board has one."""

    kind = "serial"

    def __init__(self, name: str, *, link_port: str | None = None, baudrate: int = 115200) -> None:
        spec = roster.lookup(name)
        if spec.kind != "serial":
            raise UsageError(f"{name} is not a serial board: expected serial:PORT")
        self.name = name
        self.repl_port = spec.port
        self.link_port = link_port
        self._repl = RawRepl(spec.port, baudrate=baudrate)

    def exec(self, code: str, *, timeout: float = 10.0, soft_reset: bool = False) -> str:
        return self._repl.exec(code, timeout=timeout, soft_reset=soft_reset)

    def begin(self, code: str) -> None:
        self._repl.begin(code)

    def interrupt(self) -> None:
        self._repl.interrupt()

    def eval(self, expression: str, *, timeout: float = 10.0) -> Any:
        return self._repl.eval(expression, timeout=timeout)

    def put(self, path: str, content: bytes) -> None:
        self._repl.put(path, content)

    def get(self, path: str) -> bytes:
        return self._repl.get(path)

    def close(self) -> None:
        """Nothing is held between calls."""

    def __enter__(self) -> SerialBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
