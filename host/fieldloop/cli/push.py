"""fieldloop push."""

from __future__ import annotations

import argparse
from pathlib import Path

from fieldloop.cli import device
from fieldloop.cli.console import Console, Output
from fieldloop.cli.files import file_bytes
from fieldloop.errors import DoesNotFitError, UsageError
from fieldloop.image.reader import read_image
from fieldloop.image.romfs import write_romfs
from fieldloop.link.replies import BoardInfo
from fieldloop.targets.romfs import deploy

HELP = """Sends a model to a device and activates it. An interrupted push leaves the
active model as it is, and goes on where it stopped when it is repeated.

With --romfs the model goes into the device's ROMFS instead, through the REPL and in
place of what is there: fieldloop.Model("/rom/FILE.flm") then executes it in place.
No server is needed on the device for that."""
EXAMPLE = "fieldloop push digits.flm --board qemu-an386 --flash board.bin"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.flm", help="the model")
    parser.add_argument(
        "--slot", metavar="NAME", help="where to put it (default: a slot that is not active)"
    )
    parser.add_argument(
        "--no-activate", action="store_true", help="only send it; the active model stays"
    )
    parser.add_argument(
        "--romfs", action="store_true", help="into the ROMFS, aligned, for fieldloop.Model"
    )
    device.add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> Output:
    image = file_bytes(args.file)
    parsed = read_image(image)  # what is broken is refused before anything is sent
    uid = parsed.uid.hex()
    if args.romfs:
        return _to_romfs(args, image, uid, console)
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
    reason = device.not_over_the_link(parsed)
    if reason is not None:
        console.note(reason)
    data = {
        "slot": slot,
        "bytes": len(image),
        "uid": uid,
        "active": not args.no_activate,
    }
    state = "sent" if args.no_activate else "active"
    return Output(data, f"{args.file}: {len(image)} bytes in {slot}, {state}")


def _to_romfs(args: argparse.Namespace, image: bytes, uid: str, console: Console) -> Output:
    if args.slot or args.no_activate or args.dedicated:
        raise UsageError("--romfs goes through the REPL; drop --slot, --no-activate, --dedicated")
    romfs = write_romfs({args.file.name: image})
    with device.repl(args, console) as port:
        console.stage(f"write a ROMFS of {len(romfs)} bytes")
        deploy(port, romfs)
    path = f"/rom/{args.file.name}"
    data = {"path": path, "bytes": len(image), "romfs_bytes": len(romfs), "uid": uid}
    return Output(data, f"{args.file}: {len(image)} bytes at {path} from the next start on")


def _free_slot(info: BoardInfo, image: bytes) -> str:
    """The first slot that is not active and has room; the active one when there is no other."""
    if not info.slots:
        raise UsageError("the device has no slots; name a path on it with --slot /model.flm")
    active = None if info.model is None else info.model.slot
    others = [name for name in sorted(info.slots) if name != active]
    roomy = [name for name in others if not info.slots[name] or info.slots[name] >= len(image)]
    return (roomy or others or [active or ""])[0]
