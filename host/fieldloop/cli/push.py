"""fieldloop push."""

from __future__ import annotations

import argparse
from pathlib import Path

from fieldloop.cli import device
from fieldloop.cli.console import Console, Output
from fieldloop.cli.files import file_bytes
from fieldloop.errors import DoesNotFitError, UsageError
from fieldloop.image.reader import read_image
from fieldloop.link.replies import BoardInfo

HELP = """Sends a model to a device and activates it. An interrupted push leaves the
active model as it is, and goes on where it stopped when it is repeated."""
EXAMPLE = "fieldloop push digits.flm --board qemu-an386 --flash board.bin"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.flm", help="the model")
    parser.add_argument(
        "--slot", metavar="NAME", help="where to put it (default: a slot that is not active)"
    )
    parser.add_argument(
        "--no-activate", action="store_true", help="only send it; the active model stays"
    )
    device.add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> Output:
    image = file_bytes(args.file)
    uid = read_image(image).uid.hex()  # what is broken is refused before anything is sent
    with device.chosen(args, console) as board:
        info = board.info()
        slot = args.slot or _free_slot(info, image)
        room = info.slots.get(slot)
        if room is None and not slot.startswith("/"):
            raise UsageError(
                f"no slot {slot}: the device has {', '.join(info.slots) or 'none'}; "
                "a path on the device begins with /"
            )
        if room and len(image) > room:
            raise DoesNotFitError(
                f"{args.file} in {slot}", needed_bytes=len(image), available_bytes=room
            )
        console.stage(f"push {len(image)} bytes to {slot}")
        board.push(image, to=slot, progress=device.Throttle(console))
        if not args.no_activate:
            board.activate(image, slot=slot)
    data = {
        "slot": slot,
        "bytes": len(image),
        "uid": uid,
        "active": not args.no_activate,
    }
    state = "sent" if args.no_activate else "active"
    return Output(data, f"{args.file}: {len(image)} bytes in {slot}, {state}")


def _free_slot(info: BoardInfo, image: bytes) -> str:
    """The first slot that is not active and has room; the active one when there is no other."""
    if not info.slots:
        raise UsageError("the device has no slots; name a path on it with --slot /model.flm")
    active = None if info.model is None else info.model.slot
    others = [name for name in sorted(info.slots) if name != active]
    roomy = [name for name in others if not info.slots[name] or info.slots[name] >= len(image)]
    return (roomy or others or [active or ""])[0]
