"""The options that choose a device, and the device they choose, connected."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fieldloop.cli.console import Console
from fieldloop.errors import DeviceError, UsageError
from fieldloop.image.format import Dtype
from fieldloop.image.reader import Image
from fieldloop.link import Board, connect
from fieldloop.targets import roster

HELLO_SECONDS = 8.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--board, --map, --flash; --port, --dedicated."""
    group = parser.add_argument_group("device")
    group.add_argument(
        "--board",
        metavar="NAME",
        help="a name of `fieldloop devices`: qemu-an386 is simulated for the time of the command",
    )
    group.add_argument("--map", metavar="NAME", help="memory map of a simulated board")
    group.add_argument(
        "--flash",
        type=Path,
        metavar="FILE",
        help="what a simulated board remembers from one command to the next; made when absent",
    )
    group.add_argument("--port", metavar="PORT", help="a serial port or pseudo-terminal")
    group.add_argument(
        "--dedicated",
        action="store_true",
        help="the port carries nothing but the link (a UART of its own): larger, faster frames",
    )


def is_chosen(args: argparse.Namespace) -> bool:
    """True when the options name a device."""
    return args.board is not None or args.port is not None


def _serial_port(args: argparse.Namespace) -> str | None:
    """The serial port that the options name, or the only one there is; None: a simulated board."""
    if args.board is not None and args.port is not None:
        raise UsageError("--board and --port name two devices; give one of them")
    port = args.port
    if args.board is not None:
        spec = roster.lookup(args.board)
        if spec.kind != "serial":
            return None
        port = spec.port
    if args.flash is not None or args.map is not None:
        raise UsageError("--flash and --map belong to a simulated board; name one with --board")
    return str(port) if port is not None else only_port()


@contextmanager
def chosen(args: argparse.Namespace, console: Console) -> Iterator[Board]:
    """The device that the options name, connected; without any, the only serial port there is."""
    port = _serial_port(args)
    if port is None:
        # Here, since it brings the builder and the simulator.
        from fieldloop.targets.serving import serving

        console.stage(f"starting {args.board}")
        with serving(
            args.board, memory=args.map, flash_file=args.flash, progress=console.note
        ) as device:
            yield device.board
        return
    board = connect(
        port, dedicated=args.dedicated, text=console.device_text, timeout=HELLO_SECONDS
    )
    try:
        yield board
    finally:
        board.close()


@contextmanager
def repl(args: argparse.Namespace, console: Console) -> Iterator[str]:
    """The port of the REPL of the device that the options name."""
    port = _serial_port(args)
    if port is not None:
        yield port
        return
    from fieldloop.targets.qemu import QemuBoard

    if roster.lookup(args.board).kind != "qemu":
        names = ", ".join(roster.names("qemu"))
        raise UsageError(f"{args.board} has no REPL to go through: expected one of {names}")
    console.stage(f"starting {args.board}")
    with QemuBoard(args.board, args.map, flash_file=args.flash, progress=console.note) as board:
        yield board.repl_port


def serial_ports() -> list[tuple[str, str]]:
    """Serial ports of this machine that something is plugged into: name and description."""
    from serial.tools import list_ports

    return [
        (port.device, port.description)
        for port in sorted(list_ports.comports())
        if port.hwid != "n/a"  # a legacy UART that the kernel lists without knowing of one
    ]


def only_port() -> str:
    ports = [name for name, _ in serial_ports()]
    if len(ports) == 1:
        return ports[0]
    if not ports:
        raise DeviceError(
            "no device: no serial port has one; plug a board in, or name a simulated one "
            "(--board qemu-an386), `fieldloop devices` lists them"
        )
    raise UsageError(f"several serial ports, {', '.join(ports)}: choose one with --port")


class Throttle:
    """At most one call in so many seconds, and the last one always."""

    def __init__(self, console: Console, seconds: float = 0.1) -> None:
        self._console = console
        self._seconds = seconds
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now >= self._next:
            self._next = now + self._seconds
            self._console.progress(done, total)


def not_over_the_link(image: Image) -> str | None:
    """Why samples for a model cannot be sent over the link, which carries one int8 tensor."""
    tensors = [image.tensors[t] for t in (*image.inputs, *image.outputs)]
    if len(tensors) == 2 and all(tensor.dtype is Dtype.I8 for tensor in tensors):
        return None
    kinds = ", ".join(tensor.dtype.name.lower() for tensor in tensors)
    return (
        f"the link carries samples of one int8 input and output, this model has {kinds}; run it "
        "with fieldloop.Model on the device, or here with fieldloop run --model"
    )
