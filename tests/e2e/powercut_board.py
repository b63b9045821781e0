"""Cuts the power of a simulated board while it commits, and looks at what its flash holds.

    python tests/e2e/powercut_board.py --count 500 --board qemu-an386 --seed 0 --json

The board learns and commits, over and over. At a random flash operation, right after it or inside
it, it loses power (the firmware stops there, and the simulator is ended by SIGKILL); every tenth
time it is a SIGKILL out of the blue instead. Then the host, which knows every byte of every state
since it learns the same samples, reads the newest record from the flash file: it must be the state
of the commit under way or the one before, whole. The board starts again, must come up with
exactly that state, and make a further commit before the next cut.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import random
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent / "host"), str(HERE)]

from cutting import LostError, Say, side_by_side  # noqa: E402
from digits_student import Student, settings, student  # noqa: E402

from fieldloop.errors import DeviceError, FieldloopError  # noqa: E402
from fieldloop.link.transport import Port, open_port  # noqa: E402
from fieldloop.runtime import Learner, LearnerConfig, Model  # noqa: E402
from fieldloop.runtime.flashfile import NorFlash, Record, Store  # noqa: E402
from fieldloop.targets import qemu, roster  # noqa: E402
from fieldloop.targets.build import build_firmware  # noqa: E402
from fieldloop.targets.qemu import QemuBoard  # noqa: E402
from fieldloop.targets.serving import serving  # noqa: E402

STATE = 1  # record type, see device/fieldloop/learner.py
MEMORY = "realistic"  # its store has just the sectors that this model needs
CONFIG = LearnerConfig(replays=4, memory=40, seed=11)
SAMPLES = 50
PATIENCE = 60.0  # seconds; two boards on a busy machine
KILL_EVERY = 10
LAST_SHARE = 0.25


@dataclass(slots=True)
class Tally:
    """Cuts by how, in which operation, and what was found; commits that returned."""

    cuts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    commits: int = 0
    operations: int = 0
    lost: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.cuts += other.cuts
        self.commits += other.commits
        self.operations += other.operations
        self.lost += other.lost

    def count(self, **wanted: str) -> int:
        names = ("how", "operation", "found")
        return sum(
            n
            for cut, n in self.cuts.items()
            if all(cut[names.index(name)] == value for name, value in wanted.items())
        )


def prepare(name: str, flash_file: Path, net: Student) -> None:
    """A flash with package, model and one commit, whose main.py is powercut_job."""
    with serving(name, memory=MEMORY, flash_file=flash_file) as device:
        board = device.board
        board.push(net.image, to="model0")
        board.activate(net.image, slot="model0")
        board.learner_open(settings(CONFIG))
        board.step(net.stream_x[:1], net.stream_y[:1])
        board.commit()
        device.close()
        target = device.target
        assert isinstance(target, QemuBoard)
        target.put("/lib/powercut_job.py", (HERE / "powercut_job.py").read_bytes())
        target.put("/samples.bin", _samples(net))
        target.put("/main.py", b"import powercut_job\npowercut_job.run()\n")


def _samples(net: Student) -> bytes:
    pairs = zip(net.stream_y[:SAMPLES], net.stream_x[:SAMPLES], strict=True)
    return b"".join(bytes((int(label),)) + x.tobytes() for label, x in pairs)


class Bench:
    """One board, and the host's learner that knows what the board's flash must hold."""

    def __init__(self, name: str, flash_file: Path, net: Student, seed: str) -> None:
        self._board = QemuBoard(name, MEMORY, flash_file=flash_file)
        self._net = net
        self._uid = net.image[16:32]
        self._random = random.Random(seed)
        self._learner = Learner(Model(net.image), CONFIG)
        self._operations = 20  # of one commit; measured from the first on
        self.tally = Tally()
        self._known = self._newest()

    def close(self) -> None:
        self._board.close()

    def cut(self) -> None:
        """One start, some commits, one power cut, one look at the flash. LostError says what."""
        self._board.start()
        port = open_port(self._board.link_port)
        try:
            self._greet(port)
            out_of_the_blue = self._random.randrange(KILL_EVERY) == 0
            if out_of_the_blue:
                port.write(struct.pack("<IIB", 0, 0, 0))
                returned = self._commits_until_killed(port)
                how, operation = "killed", "any"
            else:
                # At any operation of the next two commits; more often at the last one, since the
                # new state is there only after it.
                at = self._random.randint(1, 2 * self._operations)
                if self._random.random() < LAST_SHARE:
                    at = self._operations
                inside = self._random.random() < 0.5
                port.write(struct.pack("<IIB", at, self._random.getrandbits(32), inside))
                line = self._board.wait_for("FIELDLOOP-POWER-CUT", timeout=PATIENCE)
                returned = self._commits(_rest(port))
                self._board.kill()
                _, how, operation, place = line.split()
                if not place.startswith("store+"):
                    raise LostError(f"the cut came in another partition: {line}")
        finally:
            self._board.kill()
            port.close()
        found = self._look(returned, 3 if out_of_the_blue else 1)
        self.tally.cuts[how, operation, found] += 1

    def _greet(self, port: Port) -> None:
        hello = _read(port, 37)
        seq = int.from_bytes(hello[1:5], "little")
        if hello[:1] != b"H" or seq != self._known.seq:
            raise LostError(f"the board came up with commit {seq}, not {self._known.seq}")
        if hello[5:] != hashlib.sha256(self._known.payload).digest():
            raise LostError(f"the board came up with other bytes than commit {seq} has")

    def _commits(self, data: bytes) -> int:
        """Reads the board's words; returns how many commits returned."""
        words = [data[at : at + 9] for at in range(0, len(data), 9)]
        if words and len(words[-1]) < 9:
            words.pop()  # it was killed while it said so
        operations = 0
        for word in words:
            tag, _, so_far = struct.unpack("<cII", word)
            if tag != b"C":
                raise FieldloopError(f"the board said {word!r}, not what powercut_job says")
            self._operations = so_far - operations
            operations = so_far
        self.tally.commits += len(words)
        self.tally.operations += operations
        return len(words)

    def _commits_until_killed(self, port: Port) -> int:
        heard = _read(port, 9)  # the one commit that must succeed
        until = time.monotonic() + self._random.uniform(0.0, 0.3)
        while (left := until - time.monotonic()) > 0:
            heard += port.read(left)
        self._board.kill()
        return self._commits(heard + _rest(port))

    def _newest(self) -> Record:
        """The newest record of the flash file, read by the host's own build of the store."""
        partition = self._board.memory.partition("store")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "store.bin"
            path.write_bytes(self._board.read_partition("store"))
            with NorFlash(
                path,
                sector_bytes=partition.sector_size,
                sector_count=partition.size // partition.sector_size,
                prog_bytes=partition.prog_size,
            ) as flash:
                record = Store(flash).find(STATE, self._uid)
        if record is None:
            raise LostError("the store holds no state at all")
        return record

    def _look(self, returned: int, ahead: int) -> str:
        """ "old": the last commit that returned; "new": one that was under way."""
        if returned < 1:
            raise LostError("the board could not commit again after a power cut")
        self._learner.load(self._known.payload)
        for _ in range(returned):
            self._learn()
        found = self._newest()
        self._known = dataclasses.replace(found)
        if found.payload == self._learner.state:
            return "old"
        for _ in range(ahead):
            self._learn()
            if found.payload == self._learner.state:
                return "new"
        raise LostError(f"commit {found.seq} is neither the old state nor the new one")

    def _learn(self) -> None:
        at = self._learner.stats.samples % SAMPLES
        self._learner.step(self._net.stream_x[at], int(self._net.stream_y[at]))


def _read(port: Port, count: int) -> bytes:
    data = b""
    deadline = time.monotonic() + PATIENCE
    while len(data) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeviceError(f"the board said {data!r} and then nothing for {PATIENCE:.0f} s")
        data += port.read(left)
    return data


def _rest(port: Port) -> bytes:
    """What has come and was not read yet."""
    data = b""
    with suppress(DeviceError):  # a killed simulator's port is gone
        while more := port.read(0.05):
            data += more
    return data


def run(name: str, count: int, *, seed: int, jobs: int = 2, say: Say | None = None) -> Tally:
    """`count` power cuts on `jobs` boards side by side."""
    net = student()
    build_firmware(name, MEMORY)
    total = Tally()
    with tempfile.TemporaryDirectory(prefix="fieldloop-powercut-") as folder:
        template = Path(folder) / "template.bin"
        prepare(name, template, net)

        def make(job: int) -> Bench:
            flash_file = Path(folder) / f"{job}.bin"
            shutil.copyfile(template, flash_file)
            return Bench(name, flash_file, net, f"{seed}/{job}")

        side_by_side(make, total, count, jobs=jobs, say=say)
    return total


def as_json(tally: Tally, name: str, seed: int, seconds: float) -> dict[str, object]:
    return {
        "board": name,
        "seed": seed,
        "cuts": tally.count(),
        "old": tally.count(found="old"),
        "new": tally.count(found="new"),
        "lost": tally.lost,
        "by_kind": {" ".join(cut): n for cut, n in sorted(tally.cuts.items())},
        "commits": tally.commits,
        "flash_operations": tally.operations,
        "seconds": round(seconds, 1),
    }


def table(tally: Tally) -> str:
    lines = ["| power cut | operation | old state | new state |", "|---|---|--:|--:|"]
    for how, operation in sorted({cut[:2] for cut in tally.cuts}):
        old, new = (tally.cuts[how, operation, found] for found in ("old", "new"))
        lines.append(f"| {how} | {operation} | {old} | {new} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--board", choices=roster.names("qemu"), default="qemu-an386")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="boards side by side (default 2)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()
    if args.count < 1 or args.jobs < 1:
        parser.error("--count, --jobs: 1 or more")
    if lacking := qemu.missing_tools():
        print(f"powercut_board: {', '.join(lacking)} missing", file=sys.stderr)
        return 1

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    started = time.monotonic()
    try:
        tally = run(args.board, args.count, seed=args.seed, jobs=args.jobs, say=say)
    except FieldloopError as error:
        say(f"powercut_board: {error}")
        return 1
    seconds = time.monotonic() - started
    if args.json:
        print(json.dumps(as_json(tally, args.board, args.seed, seconds)))
    else:
        print(table(tally))
        print(
            f"\n{tally.count()} power cuts, {tally.commits} commits, {tally.operations} flash "
            f"operations, {len(tally.lost)} lost, {seconds:.0f} s"
        )
        print("\n".join(tally.lost), end="\n" if tally.lost else "")
    return 1 if tally.lost else 0


if __name__ == "__main__":
    sys.exit(main())
