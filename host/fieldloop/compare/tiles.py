"""Is tiled the same as untiled, in every byte? One model in any number of parts.

A cut is a way to tile a model: a kind by decree (plan/forced.py) in so many parts, or what the
search finds. Its plan is verified, its image runs here with each set of kernels and on boards, and
every output is compared with the untiled image's in plain C. What was done is remembered, filed
under the untiled image, the planner's sources and the library or firmware that ran it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.compare.host import HostRun
from fieldloop.compare.inputs import Sample, is_random_on_board, random_sample
from fieldloop.compare.probe import checksum
from fieldloop.compare.sweep import Case, Memory, Result, case_key
from fieldloop.errors import FieldloopError
from fieldloop.image.reader import Image, read_image
from fieldloop.image.writer import write_image
from fieldloop.ir.graph import Graph
from fieldloop.plan.forced import forced_tilings
from fieldloop.plan.order import best_order
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.search import Goal
from fieldloop.plan.tiled import plan_of, plan_tiled
from fieldloop.plan.tilings import TilingKind, draft
from fieldloop.plan.types import Plan, PlanKind
from fieldloop.plan.verify import verify
from fieldloop.runtime import Model
from fieldloop.runtime.core import VARIANTS
from fieldloop.runtime.core import build as build_core

Array = npt.NDArray[Any]
Outputs = tuple[Array, ...]

KINDS = (TilingKind.FDT.value, TilingKind.FFMT.value, TilingKind.STREAM.value)
MODES = ("fdt", "ffmt", "auto")
# Kinds whose plans must not compute anything twice.
NO_MORE_WORK = ("fdt", "stream", "auto")


@dataclass(frozen=True, slots=True)
class Cut:
    """`parts` of `kind` by decree (streaming: rows at a time); 0: what the search in mode `kind`
    finds.
    """

    kind: str
    parts: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.parts}" if self.parts else f"search {self.kind}"


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """An untiled model and what it makes: inputs, and the outputs, one row a sample."""

    name: str
    graph: Graph
    image: bytes
    parsed: Image
    stored: tuple[Sample, ...]
    random: int  # samples that come before them, with the seeds 0 to random - 1
    outputs: tuple[Outputs, ...]

    @property
    def arena_bytes(self) -> int:
        return self.parsed.plans[0].arena_bytes

    @property
    def wanted(self) -> tuple[tuple[int, ...], ...]:
        """Hashes, as a board tells them."""
        return tuple(tuple(checksum(value) for value in row) for row in self.outputs)

    def case(self, image: bytes, cut: Cut) -> Case:
        """The same samples, for a tiled image."""
        name = f"{self.name} {cut}"
        return Case(
            name,
            image,
            read_image(image),
            self.stored,
            self.random,
            self.wanted,
            painted=not cut.parts,
        )


@dataclass(slots=True)
class Tiled:
    """A cut that was planned. `wrong`: what the verifier or the runtime had against it.

    `uid`: of its image; empty where the cut does not apply. `touched_bytes`: of the arena, by one
    run in plain C.
    """

    uid: str = ""
    arena_bytes: int = 0
    touched_bytes: int = 0
    macs: int = 0
    steps: int = 0
    wrong: str = ""


def whole_model(
    name: str, graph: Graph, *, stored: Sequence[Sample] = (), random: int = 2
) -> Whole:
    """Orders and plans a graph untiled, and runs it on this machine in plain C.

    Random samples that a board cannot make by itself are stored ones.
    """
    graph = best_order(graph)
    image = write_image(graph, (plan_graph(graph, PlanKind.INFER),))
    parsed = read_image(image)
    kept = tuple(stored)
    if not is_random_on_board(parsed):
        kept += tuple(random_sample(parsed, seed) for seed in range(random))
        random = 0
    samples = [*(random_sample(parsed, seed) for seed in range(random)), *kept]
    run = HostRun(image, parsed, ["plain"])
    outputs = tuple(tuple(_contiguous(run.outputs(sample))) for sample in samples)
    return Whole(name, graph, image, parsed, kept, random, outputs)


def plan_cut(graph: Graph, cut: Cut) -> tuple[Plan, int] | None:
    """The plan and its multiply-accumulates; None where nothing of the graph is cut."""
    if not cut.parts:
        planned = plan_tiled(graph, PlanKind.INFER, Goal(cut.kind))
        return (planned.plan, planned.macs) if planned.plan.steps else None
    tilings = forced_tilings(graph, TilingKind(cut.kind), cut.parts)
    if not tilings:
        return None
    made = draft(graph, tilings)
    return plan_of(made, PlanKind.INFER), made.macs


class Cutter:
    """One model in any number of parts; what it did is in `memory`."""

    def __init__(self, whole: Whole, memory: Memory) -> None:
        self.whole = whole
        self.memory = memory
        self.wanted = whole.wanted
        self._image: tuple[Cut, bytes] | None = None

    def tiled(self, cut: Cut) -> Tiled:
        """Plans, verifies and measures a cut, if that was not done before."""
        known = self.known(cut)
        if known is None:
            known = self._plan(cut)
            self.memory.results[self._key_of(cut)] = asdict(known)
            self.memory.save()
        return known

    def known(self, cut: Cut) -> Tiled | None:
        """What the memory has of a cut."""
        kept = self.memory.results.get(self._key_of(cut))
        return None if kept is None else Tiled(**kept)

    def _key_of(self, cut: Cut) -> str:
        return f"{self.whole.parsed.uid.hex()[:16]}/{cut}/{planner_build()}"

    def image(self, cut: Cut) -> bytes:
        """Of a cut that applies."""
        if self._image is None or self._image[0] != cut:
            made = plan_cut(self.whole.graph, cut)
            assert made is not None
            self._image = cut, write_image(self.whole.graph, (made[0],))
        return self._image[1]

    def case(self, cut: Cut) -> Case:
        """For boards."""
        return self.whole.case(self.image(cut), cut)

    def key(self, tiled: Tiled, build: str) -> str:
        """What the memory files a runner's result under, as Case.key has it."""
        return f"{case_key(tiled.uid, self.whole.random, self.wanted)}/{build}"

    def host_key(self, tiled: Tiled, variant: str) -> str:
        return self.key(tiled, f"host-{variant}/{host_build(variant)}")

    def on_host(
        self, cut: Cut, tiled: Tiled, variants: Sequence[str] = tuple(VARIANTS)
    ) -> list[Result]:
        """The cut on this machine, with each set of kernels."""
        made: list[tuple[str, Result]] = []
        results: list[Result] = []
        case: Case | None = None
        for variant in variants:
            key = self.host_key(tiled, variant)
            result = self.memory.get(key)
            if result is None:
                case = case or self.case(cut)
                result = compare_on_host(case, self.whole, variant)
                made.append((key, result))
            results.append(result)
        if made:
            self.memory.put_all(made)
        return results

    def _plan(self, cut: Cut) -> Tiled:
        graph = self.whole.graph
        tiled = Tiled()
        try:
            made = plan_cut(graph, cut)
            if made is None:
                return tiled
            plan, tiled.macs = made
            tiled.arena_bytes, tiled.steps = plan.arena_bytes, len(plan.steps)
            image = write_image(graph, (plan,))
            self._image = cut, image
            tiled.uid = read_image(image).uid.hex()
            verify(graph, plan)
            model = Model(image)
        except FieldloopError as error:
            tiled.wrong = str(error)
            return tiled
        tiled.touched_bytes = model.watermark()
        tiled.wrong = "; ".join(_complaints(cut, tiled, model, graph.macs()))
        return tiled


def _complaints(cut: Cut, tiled: Tiled, model: Model, whole: int) -> list[str]:
    """What a plan promises and its run does not keep."""
    wrong = []
    if model.macs != tiled.macs:
        wrong.append(f"{model.macs} multiply-accumulates, planned {tiled.macs}")
    if cut.kind in NO_MORE_WORK and model.macs > whole:
        wrong.append(f"{model.macs} multiply-accumulates, untiled {whole}")
    if not tiled.touched_bytes == tiled.arena_bytes == model.arena_bytes:
        wrong.append(f"{tiled.touched_bytes} bytes touched, planned {tiled.arena_bytes}")
    return wrong


def compare_on_host(case: Case, whole: Whole, variant: str) -> Result:
    """Every byte of every output with the untiled ones, with one set of kernels."""
    samples = case.random + len(case.stored)
    result = Result(case.name, f"host-{variant}", samples, 0)
    run = HostRun(case.image, case.parsed, [variant])
    for k, sample in enumerate(case.samples()):
        where = first_difference(_contiguous(run.outputs(sample, variant)), whole.outputs[k])
        if where:
            result.where = result.where or f"sample {k}, {where}"
            result.different += 1
    return result


def first_difference(made: Sequence[Array], wanted: Sequence[Array]) -> str:
    """The first element whose bytes are not those that are wanted; empty: none."""
    for output, (a, b) in enumerate(zip(made, wanted, strict=True)):
        rows = [v.view(np.uint8).reshape(v.size, v.itemsize) for v in (a.ravel(), b.ravel())]
        bad = np.flatnonzero((rows[0] != rows[1]).any(axis=1))
        if bad.size:
            e = int(bad[0])
            return f"output {output}, element {e}: {a.ravel()[e]}, untiled {b.ravel()[e]}"
    return ""


def _contiguous(values: Sequence[npt.NDArray[np.generic]]) -> list[Array]:
    return [np.ascontiguousarray(value) for value in values]


@functools.cache
def host_build(variant: str) -> str:
    """Which library runs here; asked once, as the library is loaded once."""
    return build_core(variant).stem


@functools.cache
def planner_build() -> str:
    """A hash of what a plan and its image depend on beside the graph."""
    root = Path(__file__).resolve().parents[1]
    sha = hashlib.sha256(host_build("plain").encode())
    for room in ("ir", "plan", "image"):
        for path in sorted((root / room).glob("*.py")):
            sha.update(path.name.encode() + path.read_bytes())
    return sha.hexdigest()[:16]
