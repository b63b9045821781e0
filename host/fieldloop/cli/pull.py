"""fieldloop pull."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from fieldloop.cli import device
from fieldloop.cli.console import Console, Output
from fieldloop.cli.files import prepare_file, write_file

HELP = "Fetches what a device has learned (its newest commit), or the model it runs."
EXAMPLE = "fieldloop pull -o learned.state --board qemu-an386 --flash board.bin"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write"
    )
    parser.add_argument(
        "--kind", choices=("state", "image"), default="state", help="default: state"
    )
    device.add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> Output:
    prepare_file(args.output)
    with device.chosen(args, console) as board:
        board.model()
        console.stage(f"pull the {args.kind}")
        content = board.pull(args.kind, device.Throttle(console))
    write_file(args.output, content)
    digest = hashlib.sha256(content).hexdigest()
    return Output(
        {
            "file": str(args.output),
            "kind": args.kind,
            "bytes": len(content),
            "sha256": digest,
        },
        f"{args.output}: {len(content)} bytes of {args.kind}, sha256 {digest[:16]}...",
    )
