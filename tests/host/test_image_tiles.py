"""Section TILE: what is written is read, what does not fit is refused, no byte is trusted."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from random_graphs import random_graph, samples_for

from fieldloop.compiler import Compiled, compile_graph
from fieldloop.errors import FieldloopError, UsageError
from fieldloop.image import format as f
from fieldloop.image.reader import ImageError, read_image
from fieldloop.image.writer import write_image
from fieldloop.plan.types import More, Plan, PlanKind, Step, StepKind

HEAD = f.TILES.itemsize
EACH = f.PLAN_STEP.itemsize


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    graph = random_graph(5)
    return compile_graph(graph, samples_for(graph, 5, 30), learn=1)


def random_steps(rng: np.random.Generator, compiled: Compiled, plan: Plan) -> tuple[Step, ...]:
    """Steps that mean nothing, with every field set; one loop among them."""
    arena, ops = plan.arena_bytes, len(compiled.graph.ops)

    def some(low: int, high: int) -> int:
        return int(rng.integers(low, high))

    def one(kind: StepKind, more: More) -> Step:
        box = {n: some(1, 50) for n in ("rows", "channels", "x_rows", "x_channels")}
        box |= {n: some(40, 90) for n in ("row", "channel", "x_row", "x_channel")}
        box |= {n: some(0, 0x10000) for n in ("x_step", "y_step", "z_step")}
        box |= {n: some(10, arena // 2) for n in ("x", "y", "z")}
        flags = {n: bool(rng.integers(2)) for n in ("partial", "first", "last", "turned")}
        map_hw = (some(0, 0x10000), some(0, 0x10000))
        return Step(kind, some(0, ops), **box, **flags, map_hw=map_hw, more=more)  # type: ignore[arg-type]

    more = More(3, -4, 5, -6, some(0, arena // 20), -1, 70_000)
    tile, copy, whole = StepKind.TILE, StepKind.COPY, StepKind.OP
    return (
        one(tile, More()),
        replace(one(copy, More()), z=arena // 4),
        Step(StepKind.LOOP, 2, rows=7),
        one(tile, more),
        one(tile, replace(more, y=0)),
        *(Step(whole, i) for i in range(ops)),
        Step(StepKind.LOOP, 1, rows=1),
        one(tile, more),
    )


def tiled(compiled: Compiled, seed: int) -> list[Plan]:
    rng = np.random.default_rng(seed)
    return [replace(p, steps=random_steps(rng, compiled, p)) for p in compiled.plans]


def kind_of(plan: Plan) -> f.ImagePlanKind:
    return f.ImagePlanKind[plan.kind.name]


def test_steps_are_read_as_they_were_written(compiled: Compiled) -> None:
    for seed in range(50):
        plans = tiled(compiled, seed)
        plans[1] = replace(plans[1], learner_scratch=(16, 32))
        image = read_image(write_image(compiled.graph, plans))
        for plan in plans:
            found = image.plan(kind_of(plan))
            assert found is not None and found.is_tiled
            assert found.steps == plan.steps
            assert found.learner_scratch == plan.learner_scratch
        tables = [s for s in image.sections if s.name == "TILE"]
        assert len(tables) == 2 and all(s.required for s in tables)


def test_an_untiled_image_has_no_tiles(compiled: Compiled) -> None:
    image = read_image(compiled.image)
    assert "TILE" not in {s.name for s in image.sections}
    assert not any(plan.is_tiled for plan in image.plans)


def test_one_plan_may_be_tiled_and_the_other_not(compiled: Compiled) -> None:
    infer, learn = tiled(compiled, 0)
    image = read_image(write_image(compiled.graph, [infer, compiled.plans[1]]))
    assert [p.is_tiled for p in image.plans] == [True, False]
    image = read_image(write_image(compiled.graph, [compiled.plans[0], learn]))
    assert [p.is_tiled for p in image.plans] == [False, True]


def test_what_tiles_never_hold_whole_has_no_place(compiled: Compiled) -> None:
    graph, plan = compiled.graph, tiled(compiled, 1)[0]
    inner = graph.ops[0].output
    steps = tuple(s for s in plan.steps if s.kind is not StepKind.OP)
    offsets = {name: at for name, at in plan.offsets.items() if name != inner}
    image = read_image(write_image(graph, [replace(plan, steps=steps, offsets=offsets)]))
    index = image.ops[0].outputs[0]
    assert image.plans[0].offsets[index] is None
    for without in (inner, graph.inputs[0], graph.outputs[0]):
        offsets = {name: at for name, at in plan.offsets.items() if name != without}
        steps = plan.steps if without == inner else steps
        made = write_image(graph, [replace(plan, steps=steps, offsets=offsets)])
        with pytest.raises(ImageError, match="has no place in the arena"):
            read_image(made)
    offsets = {name: at for name, at in plan.offsets.items() if name != inner}
    with pytest.raises(UsageError, match=f"no place for {inner}"):
        write_image(graph, [replace(plan, steps=(), offsets=offsets)])


LIMITS = {
    "row": 0xFFFF,
    "x_rows": 0xFFFF,
    "channels": 0xFFFF,
    "y_step": 0xFFFF,
    "x": 0xFFFFFFFF,
    "op": 0xFFFF,
}


@pytest.mark.parametrize("name", LIMITS)
def test_what_does_not_fit_a_field_is_refused(compiled: Compiled, name: str) -> None:
    plan, op = compiled.plans[0], compiled.graph.ops[0].name
    for value in (LIMITS[name] + 1, -1):
        step = Step(StepKind.TILE, 0)
        step = replace(step, **{name: value})  # type: ignore[arg-type]
        who = "tile" if name == "op" else f"tile of operator {op}"
        with pytest.raises(UsageError, match=rf"step 0 \({who}\): {name} = {value} does not fit"):
            write_image(compiled.graph, [replace(plan, steps=(step,))])


@pytest.mark.parametrize("name", [field.name for field in fields(More)])
def test_increments_that_do_not_fit_are_refused(compiled: Compiled, name: str) -> None:
    high = 0x7FFFFFFF if name in "xyz" else 0x7FFF
    for value in (high + 1, -high - 2):
        step = Step(StepKind.TILE, 0, more=More(**{name: value}))
        with pytest.raises(UsageError, match=f"{name}_more = {value} does not fit"):
            write_image(compiled.graph, [replace(compiled.plans[0], steps=(step,))])


def test_too_many_steps_are_refused(compiled: Compiled) -> None:
    steps = (Step(StepKind.OP, 0),) * 0x10000
    with pytest.raises(UsageError, match="at most 65535 steps in a tiled plan, got 65536"):
        write_image(compiled.graph, [replace(compiled.plans[0], steps=steps)])


# ---- hostile bytes


def resealed(data: bytearray) -> bytes:
    """The same bytes with checksums that match, so that a reader looks further."""
    total = min(struct.unpack_from("<I", data, 8)[0], len(data))
    data[16:32] = hashlib.sha256(data[32:total]).digest()[:16]
    struct.pack_into("<I", data, 12, zlib.crc32(data[16:total]))
    return bytes(data)


def field(name: str) -> int:
    return int(f.PLAN_STEP.fields[name][1])  # type: ignore[index]


def test_faults_behind_a_good_checksum(compiled: Compiled) -> None:
    plans = tiled(compiled, 2)
    good = write_image(compiled.graph, plans)
    image = read_image(good)
    rows = [64 + 16 * i for i, s in enumerate(image.sections) if s.name == "TILE"]
    at = [s.offset for s in image.sections if s.name == "TILE"]
    infer = next(s.offset for s in image.sections if s.name == "PLAN")
    first = at[0] + HEAD
    arena, ops = plans[0].arena_bytes, len(compiled.graph.ops)
    loop = first + 2 * EACH
    cases: list[tuple[int, str, int, str]] = [
        (at[0], "<I", 1, "two sections TILE are of one kind"),
        (at[0], "<I", 2, "tiles of kind 2"),
        (at[0] + 4, "<I", 0, "0 steps in a section"),
        (at[0] + 4, "<I", 1, "1 steps in a section"),
        (at[0] + 4, "<I", 0xFFFFFFFF, "steps in a section"),
        (rows[0] + 12, "<I", 15, "section TILE has 15 bytes"),
        (first + field("kind"), "<B", 4, "unknown kind"),
        (first + field("flags"), "<B", 16, "unknown flags"),
        (first + field("op"), "<H", ops, "names operator"),
        (first + field("x"), "<I", arena, "step 0 has x at"),
        (first + field("y"), "<I", 0xFFFFFFFF, "step 0 has y at"),
        (first + field("rows"), "<H", 0, "computes 0 rows"),
        (first + EACH + field("z"), "<I", arena, "step 1 has x at"),
        (loop + field("op"), "<H", 0, "repeats 0 steps"),
        (loop + field("op"), "<H", 0xFFFF, "repeats 65535 steps"),
        (loop + field("op"), "<H", ops + 4, "is a loop in a loop"),
        (loop + field("rows"), "<H", 0, "0 times"),
        (loop + field("rows"), "<H", 0xFFFF, "step 3 has "),
        (loop + EACH + field("row_more"), "<h", -15, "step 3 has row -"),
        (infer + 8, "<I", 16, "plan for inference has scratch"),
    ]
    for offset, layout, value, match in cases:
        data = bytearray(good)
        struct.pack_into(layout, data, offset, value)
        with pytest.raises(ImageError, match=match) as caught:
            read_image(resealed(data))
        assert "\n" not in str(caught.value)


def test_tiles_without_their_plan_are_refused(compiled: Compiled) -> None:
    good = write_image(compiled.graph, tiled(compiled, 3)[:1])
    at = next(s.offset for s in read_image(good).sections if s.name == "TILE")
    data = bytearray(good)
    struct.pack_into("<I", data, at, f.ImagePlanKind.LEARN)
    with pytest.raises(ImageError, match="tiles of a kind that no plan has"):
        read_image(resealed(data))


@pytest.mark.parametrize("scratch", [(8, 16), (16, 1 << 30)])
def test_scratch_of_the_learner_lies_in_the_arena(
    compiled: Compiled, scratch: tuple[int, int]
) -> None:
    learn = next(p for p in compiled.plans if p.kind is PlanKind.LEARN)
    made = write_image(compiled.graph, [replace(learn, learner_scratch=scratch)])
    with pytest.raises(ImageError, match="leaves the arena"):
        read_image(made)


def test_fuzzed_tiles_never_raise_anything_else(compiled: Compiled) -> None:
    """Bytes of the two sections are flipped and set; the checksums match."""
    rng = np.random.default_rng(0)
    good = write_image(compiled.graph, tiled(compiled, 4))
    sections = [s for s in read_image(good).sections if s.name == "TILE"]
    results = {"read": 0, "refused": 0}
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            section = sections[rng.integers(2)]
            at = section.offset + int(rng.integers(section.bytes))
            values: list[Any] = [data[at] ^ 1 << int(rng.integers(8)), 0, 1, 0x7F, 0x80, 0xFF]
            data[at] = int(values[rng.integers(len(values))])
        try:
            read_image(resealed(data))
            results["read"] += 1
        except FieldloopError as error:
            assert "\n" not in str(error)
            results["refused"] += 1
    assert min(results.values()) > 300, results
