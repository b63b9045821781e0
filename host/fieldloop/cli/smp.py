"""fieldloop smp."""

from __future__ import annotations

import argparse
from pathlib import Path

from fieldloop.cli import device
from fieldloop.cli.console import Console, Output
from fieldloop.cli.files import file_bytes, prepare_file, write_file
from fieldloop.errors import UsageError
from fieldloop.link.smp import SmpServer, connect_smp

HELP = (
    "Talks to any SMP server, Zephyr's own or a fieldloop device, by the groups that SMP brings:\n"
    "  echo TEXT | params | info | tasks | images | hash FILE | upload LOCAL FILE |\n"
    "  download FILE LOCAL\n"
    "FILE is a path of the server. A fieldloop device has /model0, /model1 (its slots), /image\n"
    "(the active model) and /state (the newest commit); an upload is activated by\n"
    "`fieldloop push LOCAL --slot model0`, which finds it there."
)
EXAMPLE = "fieldloop smp upload model.flm /lfs1/model.flm --port /dev/ttyACM0"

# Command -> its words.
COMMANDS = {
    "echo": ("TEXT",),
    "params": (),
    "info": (),
    "tasks": (),
    "images": (),
    "hash": ("FILE",),
    "upload": ("LOCAL", "FILE"),
    "download": ("FILE", "LOCAL"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see above")
    parser.add_argument("words", nargs="*", default=[], metavar="WORD", help="what it takes")
    parser.add_argument("--port", metavar="PORT", help="a serial port or pseudo-terminal")


def run(args: argparse.Namespace, console: Console) -> Output:
    expected = COMMANDS[args.command]
    if len(args.words) != len(expected):
        raise UsageError(
            f"smp {args.command}: expected {' '.join(expected) or 'nothing more'}, "
            f"got {' '.join(args.words) or 'nothing'}"
        )
    content = b""
    if args.command == "upload":
        content = file_bytes(Path(args.words[0]))
    elif args.command == "download":
        prepare_file(Path(args.words[1]))
    port = args.port or device.only_port()
    with connect_smp(port, text=console.device_text, timeout=device.HELLO_SECONDS) as server:
        return _answer(server, args.command, args.words, content, console)


def _answer(
    server: SmpServer, command: str, words: list[str], content: bytes, console: Console
) -> Output:
    if command == "echo":
        text = server.echo(words[0])
        return Output({"echo": text}, text)
    if command == "params":
        p = server.parameters()
        return Output(
            {"buf_bytes": p.buf_bytes, "buf_count": p.buf_count},
            f"{p.buf_count} buffers of {p.buf_bytes} bytes",
        )
    if command == "info":
        text = server.os_info("a")
        return Output({"info": text}, text)
    if command == "tasks":
        tasks = {name: _plain(facts) for name, facts in server.tasks().items()}
        return Output({"tasks": tasks}, _lines(tasks))
    if command == "images":
        images = {str(number): _plain(image) for number, image in enumerate(server.images())}
        return Output({"images": list(images.values())}, _lines(images))
    if command == "hash":
        found = server.file_hash(words[0])
        value = found.value.hex() if isinstance(found.value, bytes) else f"{found.value:08x}"
        return Output(
            {"file": words[0], "kind": found.kind, "bytes": found.covered, "value": value},
            f"{found.kind} {value}  {words[0]} ({found.covered} bytes)",
        )
    console.stage(f"{command} {words[0]}")
    if command == "upload":
        server.upload(content, words[1], device.Throttle(console))
        file = words[1]
    else:
        content = server.download(words[0], device.Throttle(console))
        write_file(Path(words[1]), content)
        file = words[0]
    return Output({"file": file, "bytes": len(content)}, f"{file}: {len(content)} bytes")


def _plain(facts: object) -> dict[str, object]:
    """As JSON has it: bytes as hex."""
    assert isinstance(facts, dict)
    return {
        str(key): value.hex() if isinstance(value, bytes) else value
        for key, value in facts.items()
    }


def _lines(rows: dict[str, dict[str, object]]) -> str:
    return "\n".join(
        f"{name}: " + ", ".join(f"{key} {value}" for key, value in facts.items())
        for name, facts in rows.items()
    )
