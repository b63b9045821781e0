"""What all targets have in common: name and link; with MicroPython bring-up through the REPL."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, TypeVar

Self = TypeVar("Self", bound="LinkTarget")


class LinkTarget(Protocol):
    """A device under our hands, simulated, on this machine, or real, of any firmware."""

    @property
    def name(self) -> str:
        """Its name in the roster."""
        ...

    @property
    def kind(self) -> str:
        """unix, qemu, zephyr, zephyr-mpy or serial."""
        ...

    @property
    def link_port(self) -> str | None:
        """The dedicated serial port of the link (UART1); None where there is none."""
        ...

    def close(self) -> None:
        """Let go of it; ends a simulated one. May be called twice."""
        ...

    def __enter__(self: Self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Target(LinkTarget, Protocol):
    """A device with MicroPython on it.

    These calls are for bring-up and tests. What a user does with a device goes over the link.
    """

    @property
    def repl_port(self) -> str | None:
        """The serial port of the REPL, for mpremote; None where there is none."""
        ...

    def exec(self, code: str, *, timeout: float = 10.0) -> str:
        """Run Python code on the device and return what it printed.

        Names that it binds are there for the next call. `timeout` is the longest silence, seconds.
        Raises RemoteError for an exception on the device, DeviceError when it does not answer.
        """
        ...

    def begin(self, code: str) -> None:
        """Start code, a server for example, and let it run.

        interrupt() ends it; on a board any other call of bring-up does too.
        """
        ...

    def interrupt(self) -> None:
        """Ctrl-C: stop what runs."""
        ...

    def eval(self, expression: str, *, timeout: float = 10.0) -> Any:
        """The value of an expression on the device, which must be a Python literal."""
        ...

    def put(self, path: str, content: bytes) -> None:
        """Write a file of the device, whole; makes missing folders."""
        ...

    def get(self, path: str) -> bytes:
        """Read a file of the device."""
        ...
