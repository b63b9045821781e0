"""Kills native_sim while it commits, and looks at what its flash file holds.

    python tests/zephyr/powercut_native.py --count 200 --seed 0 --json

The application learns and commits over its link, over and over, until SIGKILL: at a random moment
(the simulated flash takes its time, so that most moments lie inside a commit), or aimed: as soon
as the byte that was drawn, of the sectors that the commit writes, is no longer what it was; that
is seen in the flash file, which the process has mapped. The host, which learns the same samples,
reads the newest record from the file: it must be the state of the last commit that returned, or of
the one under way, whole. The application starts again, must come up with exactly that state, and
make a further commit before the next cut.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent / "host"), str(HERE.parent / "e2e")]

from cutting import LostError, Say, side_by_side  # noqa: E402
from digits_student import Student, settings, student  # noqa: E402

from fieldloop.errors import DeviceError, FieldloopError  # noqa: E402
from fieldloop.link import Board, connect  # noqa: E402
from fieldloop.runtime import Learner, LearnerConfig, Model  # noqa: E402
from fieldloop.runtime.flashfile import NorFlash, Record, Store  # noqa: E402
from fieldloop.targets.build import Firmware  # noqa: E402
from fieldloop.targets.zephyr_board import ZephyrBoard, build_app  # noqa: E402

NAME = "native_sim"
STATE = 1  # record type, see fl_server.h
STORE = (0x40_0000, 0x4_0000)  # offset and bytes, see native_sim_native_64.overlay
SECTOR, UNIT = 4096, 8
ERASED = b"\xff" * UNIT
SECTOR_HEADER, RECORD_HEADER = 24, 36  # docs/SPEC-store.md
CONFIG = LearnerConfig(replays=4, memory=40, seed=11)
SAMPLES = 50
LAST_SHARE = 0.25
PATIENCE = 60.0  # seconds; a busy machine
WRITE_US, ERASE_US = 2000, 4000  # of an operation; a commit has about fifteen
SLOW_FLASH = (
    "-DCONFIG_FLASH_SIMULATOR_SIMULATE_TIMING=y",
    f"-DCONFIG_FLASH_SIMULATOR_MIN_WRITE_TIME_US={WRITE_US}",
    f"-DCONFIG_FLASH_SIMULATOR_MIN_ERASE_TIME_US={ERASE_US}",
)


@dataclass(slots=True)
class Tally:
    """Cuts by how and what was found; how many left a record that was begun; commits."""

    cuts: Counter[tuple[str, str]] = field(default_factory=Counter)
    torn: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    lost: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.cuts += other.cuts
        self.torn += other.torn
        self.commits += other.commits
        self.lost += other.lost

    def count(self, *, how: str | None = None, found: str | None = None) -> int:
        return sum(
            n for cut, n in self.cuts.items() if how in (None, cut[0]) and found in (None, cut[1])
        )


def firmware(say: Say | None = None) -> Firmware:
    """The application whose flash takes its time."""
    return build_app(NAME, variant="slow-flash", extra=SLOW_FLASH, progress=say)


class Bench:
    """One device, and the host's learner that knows what its flash must hold."""

    def __init__(self, built: Firmware, flash_file: Path, net: Student, seed: str) -> None:
        self._target = ZephyrBoard(NAME, flash_file=flash_file, firmware=built)
        self._net = net
        self._uid = net.image[16:32]
        self._random = random.Random(seed)
        self._learner = Learner(Model(net.image), CONFIG)
        self._seconds = 0.1  # of a step and a commit; measured at each start
        self._how = ""
        self.tally = Tally()
        self._prepare()
        self._known = self._newest()

    def close(self) -> None:
        self._target.close()

    def cut(self) -> None:
        """One start, some commits, one kill, one look at the flash. LostError says what."""
        self._target.start()
        aimed = self._random.random() < 0.5
        self._how = "moment"
        with self._connected() as board:
            self._greet(board)
            self._commit(board)
            if self._newest().payload != self._learner.state:
                raise LostError("a commit that returned is not in the flash")
            before = self._store()
            killer = threading.Thread(
                target=self._at_a_byte if aimed else self._at_a_moment, args=(before,)
            )
            killer.start()
            returned, last = self._until_killed(board)
        killer.join()
        self._target.kill()
        found = self._look(returned)
        self.tally.cuts[self._how, found] += 1
        if self._store() != (last or before) and found == "old":
            self.tally.torn[self._how] += 1  # something of the new record is there

    # ---- the device

    def _prepare(self) -> None:
        """A model, a learner and its first commit."""
        self._target.start()
        with self._connected() as board:
            board.push(self._net.image, to="model0")
            board.activate(self._net.image, slot="model0")
            board.learner_open(settings(CONFIG))
            self._commit(board)
        self._target.kill()

    def _connected(self) -> Board:
        return connect(self._target.link_port, dedicated=True, timeout=PATIENCE)

    def _greet(self, board: Board) -> None:
        """It must come up with what the flash holds."""
        if not board.info().learner:
            raise LostError(f"the device came up without a learner: {board.info().fault}")
        if board.pull("state") != self._known.payload:
            raise LostError(f"the device came up with other bytes than commit {self._known.seq}")
        seq = board.restore()
        if seq != self._known.seq:
            raise LostError(f"the device came up with commit {seq}, not {self._known.seq}")
        self._learner.load(self._known.payload)

    def _commit(self, board: Board) -> None:
        """Learns a sample and commits, on both sides."""
        at = self._learner.stats.samples % SAMPLES
        x, y = self._net.stream_x[at], int(self._net.stream_y[at])
        started = time.monotonic()
        board.step(x[None], [y])
        board.commit()
        self._seconds = time.monotonic() - started
        self._learner.step(x, y)
        self.tally.commits += 1

    def _until_killed(self, board: Board) -> tuple[int, bytes]:
        """How many commits returned, and the store after the last of them."""
        returned, store = 0, b""
        deadline = time.monotonic() + PATIENCE
        with suppress(DeviceError):
            while True:
                self._commit(board)
                returned += 1
                store = self._store()
                if time.monotonic() > deadline:
                    raise FieldloopError("nobody killed the device")
        return returned, store

    # ---- who kills it

    def _at_a_moment(self, _: bytes) -> None:
        time.sleep(self._random.uniform(0.0, 2.5 * self._seconds))
        os.kill(self._target.pid, signal.SIGKILL)

    def _at_a_byte(self, before: bytes) -> None:
        """As soon as a unit of the next record is erased or written; else at a moment."""
        offset, _ = STORE
        units = _next_units(before, len(self._known.payload))
        # Often the last one, since the new state is there only after it.
        last = self._random.random() < LAST_SHARE
        place = units[-1] if last else self._random.choice(units)
        was = before[place : place + UNIT]
        to_be_erased = was != ERASED and self._random.random() < 0.3
        begin, end = offset + place, offset + place + UNIT
        pid = self._target.pid
        with (
            self._target.flash_file.open("rb") as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as flash,
        ):
            deadline = time.monotonic() + 4 * self._seconds
            while time.monotonic() < deadline:
                now = flash[begin:end]
                if now != was and (to_be_erased or now != ERASED):
                    self._how = "aimed, erase" if to_be_erased else "aimed, program"
                    break
            os.kill(pid, signal.SIGKILL)

    # ---- what is left

    def _store(self) -> bytes:
        offset, size = STORE
        with self._target.flash_file.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def _newest(self) -> Record:
        """The newest record of the flash file, read by the host's own build of the store."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "store.bin"
            path.write_bytes(self._store())
            with NorFlash(
                path,
                sector_bytes=SECTOR,
                sector_count=STORE[1] // SECTOR,
                prog_bytes=UNIT,
            ) as flash:
                record = Store(flash).find(STATE, self._uid)
        if record is None:
            raise LostError("the store holds no state at all")
        return record

    def _look(self, returned: int) -> str:
        """ "old": the last commit that returned; "new": the one that was under way."""
        old = self._learner.state
        found = self._newest()
        self._known = found
        if found.payload == old:
            return "old"
        at = self._learner.stats.samples % SAMPLES
        self._learner.step(self._net.stream_x[at], int(self._net.stream_y[at]))
        if found.payload == self._learner.state:
            return "new"
        raise LostError(
            f"record {found.seq} is neither the old nor the new state, after {returned} commits"
        )


def _next_units(store: bytes, payload: int) -> list[int]:
    """Offsets of the units that the next state is written to: a record of several sectors begins
    in the sector behind the newest one."""
    sectors = len(store) // SECTOR
    _, newest = max(
        (int.from_bytes(store[at + 12 : at + 16], "little"), at // SECTOR)
        for at in range(0, len(store), SECTOR)
        if store[at : at + 4] == b"FLST"
    )
    units, left, sector = [], RECORD_HEADER + payload, newest
    while left > 0:
        sector = (sector + 1) % sectors
        held = min(left, SECTOR - SECTOR_HEADER)
        first = sector * SECTOR + SECTOR_HEADER
        units += range(first, first + held, UNIT)
        left -= held
    return units


def run(count: int, *, seed: int, jobs: int = 2, say: Say | None = None) -> Tally:
    """`count` kills on `jobs` devices side by side."""
    net = student()
    built = firmware(say)
    total = Tally()
    with tempfile.TemporaryDirectory(prefix="fieldloop-powercut-") as folder:

        def make(job: int) -> Bench:
            return Bench(built, Path(folder) / f"{job}.bin", net, f"{seed}/{job}")

        side_by_side(make, total, count, jobs=jobs, say=say)
    return total


def as_json(tally: Tally, seed: int, seconds: float) -> dict[str, object]:
    return {
        "board": NAME,
        "seed": seed,
        "cuts": tally.count(),
        "old": tally.count(found="old"),
        "new": tally.count(found="new"),
        "begun": sum(tally.torn.values()),
        "lost": tally.lost,
        "by_kind": {" ".join(cut): n for cut, n in sorted(tally.cuts.items())},
        "commits": tally.commits,
        "seconds": round(seconds, 1),
    }


def table(tally: Tally) -> str:
    lines = ["| power cut | old state | of these begun | new state |", "|---|--:|--:|--:|"]
    for how in sorted({cut[0] for cut in tally.cuts}):
        old, new = (tally.count(how=how, found=found) for found in ("old", "new"))
        lines.append(f"| {how} | {old} | {tally.torn[how]} | {new} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="devices side by side (default 2)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()
    if args.count < 1 or args.jobs < 1:
        parser.error("--count, --jobs: 1 or more")

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    started = time.monotonic()
    try:
        tally = run(args.count, seed=args.seed, jobs=args.jobs, say=say)
    except FieldloopError as error:
        say(f"powercut_native: {error}")
        return 1
    seconds = time.monotonic() - started
    if args.json:
        print(json.dumps(as_json(tally, args.seed, seconds)))
    else:
        print(table(tally))
        print(
            f"\n{tally.count()} power cuts, {tally.commits} commits, {len(tally.lost)} lost, "
            f"{seconds:.0f} s"
        )
        print("\n".join(tally.lost), end="\n" if tally.lost else "")
    return 1 if tally.lost else 0


if __name__ == "__main__":
    sys.exit(main())
