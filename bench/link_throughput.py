"""How fast a model is pushed, against what the simulator's UART can move at best.

    python bench/link_throughput.py --board qemu-an386 --runs 5 --json

Each run moves the same number of bytes four ways, one after the other: `raw` is the dedicated
UART with a loop on the board that reads and throws away, the better of two such loops; `push_raw`
is a push over the dedicated port in raw framing; `push_console` the same port in console framing;
`push_shared` the REPL's own port, where console framing is the only one. Rates are bytes of the
image a second, from the first byte sent to the SHA-256 confirmed; a ratio is the median of a push
over the median of raw.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "host"))

from fieldloop.errors import FieldloopError  # noqa: E402
from fieldloop.link.board import Board  # noqa: E402
from fieldloop.link.client import Client  # noqa: E402
from fieldloop.link.frames import Framing  # noqa: E402
from fieldloop.link.transport import StreamTransport, open_port  # noqa: E402
from fieldloop.targets import qemu, roster  # noqa: E402
from fieldloop.targets.qemu import QemuBoard  # noqa: E402
from fieldloop.targets.serving import serving  # noqa: E402

CHUNK = 4092  # bytes: the largest message that a server's buffer of 4096 takes
WAYS = ("raw", "push_raw", "push_console", "push_shared")
REQUIRED = {"push_raw": 0.80, "push_console": 0.60, "push_shared": 0.60}

# Two ways to take bytes from the UART, since which is the faster one depends on what else the host
# does; the better of the two counts. `SINK` never sleeps and lets the host send without a pause:
# QEMU looks for more bytes only while the simulated processor is up, and waiting in readinto() for
# long gets a seventh. `ACKED` has the host wait after each chunk, as the link does.
SINK = """
from machine import UART
u = UART(1, 115200)
buf = bytearray({chunk})
def sink(left):
    while left > 0:
        left -= u.readinto(buf) or 0
    u.write(b'!')
u.write(b'?')
sink({count})
"""
ACKED = """
from machine import UART
u = UART(1, 115200, timeout=1)
buf = bytearray({chunk})
def sink(left):
    while left > 0:
        due = min(left, {chunk})
        left -= due
        while due > 0:
            due -= u.readinto(buf, due) or 0
        u.write(b'!')
u.write(b'?')
sink({count})
"""


def stopped(board: QemuBoard) -> None:
    """Nothing runs but the REPL."""
    board.exec("pass", timeout=30)


def raw(board: QemuBoard, data: bytes, *, acked: bool) -> float:
    """Seconds until the board has read all of it."""
    stopped(board)
    port = open_port(board.link_port)
    try:
        board.begin((ACKED if acked else SINK).format(chunk=CHUNK, count=len(data)))
        _expect(port.read(20.0), b"?")
        started = time.perf_counter()
        for at in range(0, len(data), CHUNK):
            port.write(data[at : at + CHUNK])
            if acked:
                _expect(port.read(20.0), b"!")
        if not acked:
            _expect(port.read(60.0), b"!")
        return time.perf_counter() - started
    finally:
        port.close()


def _expect(got: bytes, expected: bytes) -> None:
    if got != expected:
        raise FieldloopError(f"raw: expected {expected!r} of the board, got {got!r}; run again")


def push(board: QemuBoard, data: bytes, framing: Framing, *, shared: bool) -> float:
    """Seconds until the board has stored and confirmed all of it."""
    stopped(board)
    board.begin(f"import fieldloop\nfieldloop.serve({'' if shared else 1})")
    port = open_port(board.repl_port if shared else board.link_port)
    transport = StreamTransport(port, dedicated=not shared, framing=framing)
    with Board(Client(transport)) as link:
        link.connect(20.0)
        started = time.perf_counter()
        link.push(data, to="model0")
        seconds = time.perf_counter() - started
        if link.client.stats.resent:
            print(f"  {link.client.stats.resent} transmissions repeated", file=sys.stderr)
    return seconds


def measure(board: QemuBoard, count: int) -> dict[str, float]:
    """One run: bytes a second for each way. The bytes differ, or there were nothing to push."""
    seconds = {
        "raw": min(raw(board, os.urandom(count), acked=acked) for acked in (False, True)),
        "push_raw": push(board, os.urandom(count), Framing.RAW, shared=False),
        "push_console": push(board, os.urandom(count), Framing.CONSOLE, shared=False),
        "push_shared": push(board, os.urandom(count), Framing.CONSOLE, shared=True),
    }
    return {way: count / s for way, s in seconds.items()}


def run(name: str, runs: int, count: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The result as an object of plain values."""
    rates: list[dict[str, float]] = []
    with serving(name) as device:
        board = device.target
        assert isinstance(board, QemuBoard)
        device.close()
        for n in range(runs):
            rates.append(measure(board, count))
            shown = ", ".join(f"{way} {rate / 1000:.0f}" for way, rate in rates[-1].items())
            say(f"run {n + 1} of {runs}: {shown} kB/s")
    median = {way: statistics.median(rate[way] for rate in rates) for way in WAYS}
    ratio = {way: median[way] / median["raw"] for way in REQUIRED}
    return {
        "board": name,
        "runs": runs,
        "image_bytes": count,
        "bytes_per_second": {way: [round(rate[way]) for rate in rates] for way in WAYS},
        "median_bytes_per_second": {way: round(rate) for way, rate in median.items()},
        "ratio": {way: round(value, 3) for way, value in ratio.items()},
        "required": REQUIRED,
        "ok": all(ratio[way] >= least for way, least in REQUIRED.items()),
    }


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--board", choices=roster.names("qemu"), default="qemu-an386")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--kib", type=int, default=512, help="size of the image (default 512)")
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return p


def main() -> int:
    args = parser().parse_args()
    if args.runs < 1 or not 4 <= args.kib <= 2048:
        parser().error("--runs: 1 or more; --kib: 4 to 2048")
    lacking = qemu.missing_tools()
    if lacking:
        print(f"link_throughput: {', '.join(lacking)} missing", file=sys.stderr)
        return 1

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        result = run(args.board, args.runs, args.kib * 1024, say)
    except FieldloopError as error:
        say(f"link_throughput: {error}")
        return 1
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{args.board}, median of {args.runs} runs, image of {args.kib} KiB")
        for way in WAYS:
            rate = result["median_bytes_per_second"][way] / 1000
            share = result["ratio"].get(way)
            note = "" if share is None else f"  {share:.2f} of raw, required {REQUIRED[way]:.2f}"
            print(f"  {way:13}{rate:8.0f} kB/s{note}")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
