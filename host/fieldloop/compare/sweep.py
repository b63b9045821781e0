"""Many models, many inputs: the oracle, the host's kernels and boards, and a file that remembers.

What was compared once is not compared again: a result is filed under the model's bytes, its image,
and the build (library or firmware) that ran it. Only hashes are kept, and cross the link.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fieldloop.compare.difference import largest_difference, largest_value
from fieldloop.compare.host import HostRun
from fieldloop.compare.inputs import (
    Sample,
    given_samples,
    input_seed,
    is_random_on_board,
    random_sample,
)
from fieldloop.compare.oracles import oracle_of
from fieldloop.compare.probe import checksum, probing, romfs_room, sample_files
from fieldloop.errors import FieldloopError
from fieldloop.image.reader import Image, read_image
from fieldloop.image.romfs import write_romfs
from fieldloop.runtime.core import VARIANTS
from fieldloop.runtime.core import build as build_core
from fieldloop.sources import Source, compile_source, read_source
from fieldloop.targets import roster
from fieldloop.targets.build import build_firmware

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A model with the outputs that its own runtime gives; `stored` samples come after random.

    `painted`: a board is to tell, too, how much of its arena a run touches.
    """

    name: str
    image: bytes
    parsed: Image
    stored: tuple[Sample, ...]
    random: int
    wanted: tuple[tuple[int, ...], ...] = ()  # hashes of the outputs, one row a sample
    reals: tuple[tuple[np.ndarray[Any, Any], ...], ...] = ()  # of a float model: the values
    painted: bool = False

    @property
    def exact(self) -> bool:
        """Bytes are the measure."""
        return not self.reals

    @property
    def key(self) -> str:
        return case_key(self.parsed.uid.hex(), self.random, self.wanted)

    def samples(self) -> Iterable[Sample]:
        """All of them, in order."""
        for seed in range(self.random):
            yield random_sample(self.parsed, seed)
        yield from self.stored


@dataclass(slots=True)
class Result:
    """One model on one runner: samples compared, those that differ, the largest difference."""

    model: str
    runner: str
    samples: int
    different: int
    max_rel_diff: float | None = None
    note: str = ""
    where: str = ""  # the first that differs
    arena_bytes: int = 0  # of a painted case on a board, its kernels' scratch included
    touched_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Nothing differed; where a `note` says that the model does not fit, nothing ran."""
        return self.different == 0


@dataclass(slots=True)
class Memory:
    """Results by key, in a JSON file that is replaced whole."""

    path: Path
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def at(cls, path: Path) -> Memory:
        try:
            return cls(path, json.loads(path.read_text()))
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError) as error:
            raise FieldloopError(f"cannot resume from {path}: {error}; remove it") from error

    def get(self, key: str) -> Result | None:
        kept = self.results.get(key)
        return None if kept is None else Result(**kept)

    def put(self, key: str, result: Result) -> None:
        self.put_all([(key, result)])

    def put_all(self, results: Sequence[tuple[str, Result]]) -> None:
        self.results.update((key, asdict(result)) for key, result in results)
        self.save()

    def save(self) -> None:
        """Others may write to the same file at the same time: what they found is kept."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.results = Memory.at(self.path).results | self.results
            beside = self.path.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps(self.results, indent=1))
            beside.replace(self.path)


def case_key(uid: str, random: int, wanted: Sequence[tuple[int, ...]]) -> str:
    """What results are filed under: the image, the inputs, and the outputs that are wanted."""
    rows = repr((random, wanted)).encode()
    return f"{uid[:16]}-{hashlib.sha256(rows).hexdigest()[:12]}"


def make_case(
    path: Path, *, random: int, outputs: Sequence[str] = (), stored: Sequence[bytes] = ()
) -> Case:
    """Compiles a model and asks its own runtime. `stored`: raw inputs, as the model's README says.

    A raw input is of the model's own dtype, or float32 for an int8 model.
    """
    source = read_source(path, outputs=outputs)
    compiled = compile_source(source)
    parsed = read_image(compiled.image)
    oracle, note = oracle_of(source, compiled)
    if oracle is None:
        raise FieldloopError(f"{path.name}: nothing to compare with: {note}")
    kept = tuple(raw_sample(source, parsed, raw) for raw in stored)
    case = Case(path.stem, compiled.image, parsed, kept, random)
    wanted, reals = [], []
    for sample in case.samples():
        known = oracle.run(sample)
        made = tuple(known[t] for t in parsed.outputs)
        wanted.append(tuple(checksum(np.ascontiguousarray(value)) for value in made))
        reals.append(made)
    is_float = any(value.dtype == np.float32 for value in reals[0])
    return replace(case, wanted=tuple(wanted), reals=tuple(reals) if is_float else ())


def raw_sample(source: Source, parsed: Image, raw: bytes) -> Sample:
    """A stored input: in the source's own dtype, or reals for an int8 input."""
    name = source.imported.graph.inputs[0]
    mapped = source.imported.values[name]
    size = int(np.prod(mapped.shape))
    for dtype in (np.dtype(mapped.dtype), np.dtype("<f4")):
        if len(raw) == size * dtype.itemsize:
            value = np.frombuffer(raw, dtype)
            if dtype != mapped.dtype:
                quantised = parsed.tensors[parsed.inputs[0]].quantize(value)
                value = (quantised.astype(np.int16) - mapped.offset).astype(mapped.dtype)
            return given_samples(parsed, {"x": source.to_graph(name, value)}, ["x"])[0]
    raise FieldloopError(
        f"{source.name}: a stored input has {len(raw)} bytes, expected {size} {mapped.dtype}"
    )


def on_host(case: Case, memory: Memory, variants: Sequence[str] = tuple(VARIANTS)) -> list[Result]:
    """The case on this machine, with each set of kernels."""
    results = []
    host: HostRun | None = None
    for variant in variants:
        key = f"{case.key}/host-{variant}/{build_core(variant).stem}"
        done = memory.get(key)
        if done is None:
            host = host or HostRun(case.image, case.parsed, variants)
            done = _host_result(case, host, variant)
            memory.put(key, done)
        results.append(done)
    return results


def _host_result(case: Case, host: HostRun, variant: str) -> Result:
    different, apart = 0, 0.0
    for k, sample in enumerate(case.samples()):
        made = host.outputs(sample, variant)
        if case.exact:
            hashes = tuple(checksum(np.ascontiguousarray(v)) for v in made)
            different += hashes != case.wanted[k]
            continue
        for value, real in zip(made, case.reals[k], strict=True):
            size = largest_value(real) or 1.0
            apart = max(apart, largest_difference(value, real) / size)
    count = case.random + len(case.stored)
    return Result(case.name, f"host-{variant}", count, different, None if case.exact else apart)


def on_board(
    cases: Sequence[Case],
    board: str,
    memory: Memory,
    *,
    memory_map: str | None = None,
    say: Say | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """The exact cases on a board, as many to a flash as fit; those that do not fit are noted."""
    build = board_build(board, memory_map, say=say)
    results: list[Result] = []
    waiting: list[tuple[str, Case]] = []
    for case in cases:
        if not case.exact or (case.random and not is_random_on_board(case.parsed)):
            continue
        key = f"{case.key}/{build}"
        done = memory.get(key)
        if done is None:
            waiting.append((key, case))
        else:
            results.append(done)
    total, room = len(waiting), romfs_room(board, memory_map)
    while waiting:
        batch = _batch(waiting, room)
        if not batch:
            key, case = waiting.pop(0)
            note = f"larger than the ROMFS of {board}"
            results.append(Result(case.name, board, 0, 0, None, note))
            continue
        waiting = waiting[len(batch) :]
        made = _run_batch(batch, board, memory_map, say)
        memory.put_all([(key, result) for key, result in made if not result.note])
        results += [result for _, result in made]
        if progress is not None:
            progress(total - len(waiting), total)
    return results


def board_build(board: str, memory_map: str | None = None, *, say: Say | None = None) -> str:
    """Builds the firmware; the board and what runs there, for keys of results."""
    firmware = build_firmware(board, memory_map, progress=say)
    return f"{board}/{hashlib.sha256(firmware.elf.read_bytes()).hexdigest()[:16]}"


def _files(cases: Sequence[tuple[str, Case]]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for i, (_, case) in enumerate(cases):
        files[f"m{i}.flm"] = case.image
        files.update(sample_files(case.stored, f"m{i}s"))
    return files


def _batch(waiting: Sequence[tuple[str, Case]], room: int) -> list[tuple[str, Case]]:
    count = len(waiting)
    while count and len(write_romfs(_files(waiting[:count]))) > room:
        count -= 1 if count < 8 else count // 4
    return list(waiting[:count])


def _run_batch(
    batch: Sequence[tuple[str, Case]], board: str, memory_map: str | None, say: Say | None
) -> list[tuple[str, Result]]:
    results = []
    with probing(board, _files(batch), memory=memory_map, progress=say) as probe:
        for i, (key, case) in enumerate(batch):
            try:
                probe.open(f"m{i}.flm")
            except FieldloopError as error:
                results.append((key, Result(case.name, board, 0, 0, None, str(error))))
                continue
            inputs, outputs = len(case.parsed.inputs), case.parsed.outputs
            told = []
            if case.random:
                told = probe.random_hashes(case.random, input_seed(0, 1), inputs, outputs)
            for k in range(len(case.stored)):
                told.append(tuple(probe.output_hashes(f"m{i}s{k}", inputs, outputs)))
            result = Result(case.name, board, len(told), 0)
            for k, (made, wanted) in enumerate(zip(told, case.wanted, strict=True)):
                if made != wanted:
                    output = [a == b for a, b in zip(made, wanted, strict=True)].index(False)
                    result.where = result.where or f"sample {k}, output {output}"
                    result.different += 1
            if case.painted:
                result.arena_bytes = probe.arena_bytes
                result.touched_bytes = probe.touched_bytes(inputs)
            results.append((key, result))
    return results


def boards(names: Sequence[str]) -> list[str]:
    """The boards asked for, checked before the long work begins; none: all that are simulated."""
    chosen = list(dict.fromkeys(names)) or list(roster.names("qemu"))
    for name in chosen:
        roster.lookup(name)
    return chosen
