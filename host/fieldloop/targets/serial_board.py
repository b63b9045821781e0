"""A real board at a serial port, as a target."""

from __future__ import annotations

from fieldloop.errors import UsageError
from fieldloop.targets import roster
from fieldloop.targets.raw_repl import RawRepl
from fieldloop.targets.repl_target import ReplTarget


class SerialBoard(ReplTarget):
    """A board behind `serial:PORT`; `link_port` names a second port when the board has one."""

    kind = "serial"

    def __init__(self, name: str, *, link_port: str | None = None, baudrate: int = 115200) -> None:
        spec = roster.lookup(name)
        if spec.kind != "serial":
            raise UsageError(f"{name} is not a serial board: expected serial:PORT")
        self.name = name
        self.repl_port = spec.port
        self.link_port = link_port
        self._raw_repl = RawRepl(spec.port, baudrate=baudrate)

    def _repl(self) -> RawRepl:
        return self._raw_repl

    def close(self) -> None:
        """Nothing is held between calls."""
