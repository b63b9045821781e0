"""A model on a board, by operators: images and inputs enter through flash, hashes come back."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fieldloop.compare.inputs import Sample
from fieldloop.errors import DoesNotFitError, FieldloopError, UsageError
from fieldloop.image.romfs import write_romfs
from fieldloop.targets import roster
from fieldloop.targets.base import Target
from fieldloop.targets.qemu import QemuBoard
from fieldloop.targets.romfs import deploy
from fieldloop.targets.serial_board import SerialBoard
from fieldloop.targets.unix import UnixBoard

Progress = Callable[[str], None]

ROMFS = "romfs"
# A model of a hundred million multiply-accumulates on a core without a multiplier's pipeline.
SILENCE_SECONDS = 900.0

# What runs there. MicroPython at its BASIC feature level; a line is printed for each sample, so
# that a long run is never silent for longer than one of them takes.
_DEVICE = """\
import _fieldloop
def _image(path):
    with open(path, 'rb') as f:
        try:
            return memoryview(f)
        except TypeError:
            pass
        b = bytearray(f.seek(0, 2))
        f.seek(0)
        f.readinto(b)
        return b
def _open(path):
    import gc
    gc.collect()
    return _fieldloop.Model(_image(path))
def _fill(m, n, path):
    for i in range(n):
        m.input(i)[:] = _image(path + '_' + str(i))
def _outputs(m, outs):
    m.run_ops(0, m.op_count)
    print(' '.join(str(_fieldloop.crc32(m.tensor(t))) for t in outs))
def _layers(m, outs):
    r = []
    for i in range(m.op_count):
        m.run_ops(i, i + 1)
        r.append(str(_fieldloop.crc32(m.tensor(outs[i]))))
    print(' '.join(r))
def _random(m, n, seed, step):
    for i in range(n):
        _fieldloop.random_fill(m.input(i), (seed + i * step) & 0xffffffff)
def _touched(m, n):
    high = 0
    for p in (0x55, 0xaa):
        m.paint(p)
        _random(m, n, 0, 1)
        m.run_ops(0, m.op_count)
        high = max(high, m.touched(p))
    print(high)
def _count(m):
    import simboard
    for i in range(m.op_count):
        print(simboard.count(m.run_ops, i, i + 1)[0] - simboard.count(m.run_ops, i, i)[0])
    print(simboard.count(m.run_ops, 0, m.op_count)[0] - simboard.count(m.run_ops, 0, 0)[0])
"""


def checksum(value: Any) -> int:
    """The hash that a board tells of a tensor."""
    return zlib.crc32(memoryview(value).cast("B"))


@dataclass(frozen=True, slots=True)
class Cost:
    """Executed instructions: of each operator, and of a whole run from call to return."""

    layers: tuple[int, ...]
    total: int


class Probe:
    """A board that holds some files; one model of them is open at a time."""

    def __init__(self, target: Target, folder: str) -> None:
        self.target = target
        self._folder = folder
        target.exec(_DEVICE)

    def open(self, name: str) -> None:
        """Opens the image of that file name; FieldloopError when its arena does not fit."""
        said = self.target.exec(
            f"m = None\ntry:\n    m = _open('{self._folder}/{name}')\n"
            "except MemoryError as e:\n    print(e)",
            timeout=60.0,
        )
        if said.strip():
            raise FieldloopError(f"{name} does not fit {self.target.name}: {said.strip()}")

    @property
    def arena_bytes(self) -> int:
        """Arena of the open model on this board, the kernels' scratch included."""
        return int(self.target.eval("m.arena_bytes"))

    def fill(self, sample: str, inputs: int) -> None:
        """Puts a stored sample into the model's inputs."""
        self.target.exec(f"_fill(m, {inputs}, '{self._folder}/{sample}')")

    def layer_hashes(self, sample: str, inputs: int, made: Sequence[int]) -> list[int]:
        """Hashes of what each operator makes from the stored sample; `made`: their tensors."""
        self.fill(sample, inputs)
        return self._numbers(f"_layers(m, {list(made)})")

    def output_hashes(self, sample: str, inputs: int, outputs: Sequence[int]) -> list[int]:
        """Hashes of the model's outputs for a stored sample."""
        self.fill(sample, inputs)
        return self._numbers(f"_outputs(m, {list(outputs)})")

    def random_hashes(
        self, count: int, step: int, inputs: int, outputs: Sequence[int]
    ) -> list[tuple[int, ...]]:
        """The same for samples that the board makes itself, with the seeds 0 to count - 1."""
        said = self.target.exec(
            f"for s in range({count}):\n"
            f"    _random(m, {inputs}, s, {step})\n"
            f"    _outputs(m, {list(outputs)})\n",
            timeout=SILENCE_SECONDS,
        )
        return [tuple(map(int, line.split())) for line in said.split("\n") if line.strip()]

    def touched_bytes(self, inputs: int) -> int:
        """Highest byte of the open model's arena that a run writes, plus one; painted twice."""
        return self._numbers(f"_touched(m, {inputs})")[0]

    def cost(self) -> Cost:
        """Executed instructions; the board was started with icount."""
        numbers = self._numbers("_count(m)")
        return Cost(tuple(numbers[:-1]), numbers[-1])

    def _numbers(self, code: str) -> list[int]:
        return [int(word) for word in self.target.exec(code, timeout=SILENCE_SECONDS).split()]


def sample_files(samples: Sequence[Sample], prefix: str = "s") -> dict[str, bytes]:
    """Each array of each sample as a file; sample k is called `{prefix}{k}`."""
    return {
        f"{prefix}{k}_{i}": array.tobytes()
        for k, sample in enumerate(samples)
        for i, array in enumerate(sample)
    }


def romfs_room(name: str, memory: str | None = None) -> int:
    """Bytes that the board's ROMFS partition has."""
    return roster.lookup(name).memory(memory).partition(ROMFS).size


@contextmanager
def probing(
    name: str,
    files: dict[str, bytes],
    *,
    memory: str | None = None,
    icount: bool = False,
    progress: Progress | None = None,
) -> Iterator[Probe]:
    """A board of the roster with `files` in its flash (the unix port: its folder), ready."""
    spec = roster.lookup(name)
    if spec.kind not in ("unix", "qemu", "serial"):
        raise UsageError(f"{name} cannot be probed: expected MicroPython of ours, or serial:PORT")
    if icount and spec.kind != "qemu":
        raise UsageError(f"{name} counts no instructions; expected a board of QEMU, qemu-...")
    if spec.kind == "unix":
        with UnixBoard() as unix:
            for file, content in files.items():
                unix.put(f"/{file}", content)
            yield Probe(unix, "")
        return
    romfs = write_romfs(files)
    if spec.kind == "serial":
        deploy(spec.port, romfs)
        with SerialBoard(name) as real:
            real.exec("", soft_reset=True)  # the new ROMFS is mounted at a start
            yield Probe(real, "/rom")
        return
    room = romfs_room(name, memory)
    if len(romfs) > room:
        raise DoesNotFitError(
            f"model and inputs in the ROMFS of {name}",
            needed_bytes=len(romfs),
            available_bytes=room,
        )
    with QemuBoard(name, memory, icount=icount, progress=progress) as board:
        board.kill()  # a new flash was erased by that start
        board.write_partition(ROMFS, romfs)
        board.start()
        yield Probe(board, "/rom")
