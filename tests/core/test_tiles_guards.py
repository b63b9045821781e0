"""Tiles that the reader refuses: each case breaks one rule, and all else about it fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from core_runner import CoreModel, check_image
from patch import Patch
from test_tiles_core import channels, network, streamed
from tile_bases import (
    FREE,
    LIMIT,
    NOWHERE,
    PARTIAL,
    TILED,
    WINDOWED,
    X,
    Y,
    Z,
    add,
    avg_sum,
    batch,
    change,
    column_conv,
    concat,
    constant,
    conv,
    conv_sum,
    depthwise,
    depthwise_of_one,
    embedding,
    full,
    full_sum,
    grouped,
    long_table,
    loop_of,
    looped,
    max_pool,
    mean,
    nested,
    nothing,
    padded,
    quantize,
    row_conv,
    softmax,
    square_conv,
    table,
    turned_square,
    unary,
)
from tile_maker import Arena

from fieldloop.image import format as f
from fieldloop.image.format import Section as S
from fieldloop.image.format import StepFlag as Flag
from fieldloop.image.writer import write_image
from fieldloop.ir.op import OpKind
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.types import More, Plan, PlanKind, Step, StepKind
from fieldloop.runtime.core import error_name
from fieldloop.runtime.model import aligned_bytes, pointer

BAD, NEW, GOOD = "FL_EBADMSG", "FL_ENOTSUP", "FL_OK"

CASES: list[tuple[Callable[[], Arena], Callable[[Patch], None], str]] = [
    # what a step is
    (conv, change(kind=4), NEW),
    (conv, change(flags=16), NEW),
    (conv, change(kind=0, flags=1), NEW),
    (conv, change(kind=0), GOOD),
    (conv, change(at=0, flags=8), NEW),
    (conv, change(op=1), BAD),
    (conv, change(kind=0, op=1), BAD),
    (conv, change(at=0, op=1), BAD),
    (softmax, change(**TILED), NEW),
    (concat, change(**TILED), NEW),
    # copies
    (conv, change(at=0, x=LIMIT), BAD),
    (conv, change(at=0, y=LIMIT), BAD),
    (conv, change(at=0, x=0, y=1, z=LIMIT), BAD),
    (conv, change(at=0, x=1, y=0, z=LIMIT), BAD),
    (conv, change(at=0, x=0, y=0, z=LIMIT), GOOD),
    (conv, change(at=0, z=NOWHERE), BAD),
    (conv, change(at=0, x=NOWHERE, z=2), BAD),
    # loops
    (looped, change(flags=1), NEW),
    (looped, change(rows=0), BAD),
    (looped, change(op=0), BAD),
    (looped, change(op=2), BAD),
    (looped, change(op=0xFFFF), BAD),
    (looped, change(at=0, kind=3, op=2, rows=1), BAD),  # a loop around the loop
    (looped, change(at=0, kind=3, op=1, rows=1), BAD),
    (looped, change(rows=5), BAD),  # its last row needs one less
    (lambda: looped(2), change(at=2, x_row_more=2), BAD),
    (looped, change(at=2, x_row_more=0, x_more=0), BAD),
    (looped, change(at=2, row_more=0, x_row_more=1), BAD),
    (looped, change(at=2, row_more=-1), BAD),
    (looped, change(at=2, channel_more=-1), BAD),
    (looped, change(at=2, channel_more=32767), BAD),
    (looped, change(at=2, x_channel_more=1), BAD),
    (looped, change(at=2, x_more=-1), BAD),
    (looped, change(at=2, y_more=-Y), BAD),
    (looped, change(at=2, y_more=LIMIT), BAD),
    (looped, change(at=2, x_more=2**31 - 1), BAD),
    (looped, change(at=2, y_more=-(2**31)), BAD),
    (looped, change(at=2, z_more=-1), BAD),
    # ... that come back to where they began by running over
    (loop_of(full_sum, 5), nothing, GOOD),
    (loop_of(full_sum, 5, row=16384), nothing, BAD),
    (loop_of(full_sum, 5, channel=16384), nothing, BAD),
    (loop_of(full_sum, 5, x_row=16384), nothing, BAD),
    (loop_of(full_sum, 5, x_channel=16384), nothing, BAD),
    (loop_of(full_sum, 5, x=2**30), nothing, BAD),
    (loop_of(full_sum, 5, y=2**30), nothing, BAD),
    (loop_of(full_sum, 5, z=2**30), nothing, BAD),
    # ... whose windows keep pace with their rows, where there are any between the ends
    *((loop_of(padded(kind), 3, row=1), nothing, BAD) for kind in WINDOWED),
    *((loop_of(padded(kind), 2, row=1), nothing, GOOD) for kind in WINDOWED),
    # ... and whose pieces do not meet, nor lose their alignment, between the ends
    (loop_of(conv, 3, x=300), nothing, GOOD),
    (loop_of(conv, 3, x=516), nothing, BAD),
    (loop_of(conv, 3, x=516, y=-300), change(at=2, y=Y + 312), BAD),
    (loop_of(conv, 4, x=300, y=-10), change(at=2, x=0, y=450), GOOD),
    (loop_of(conv, 4, x=150, y=-10), change(at=2, x=0, y=330), BAD),
    (loop_of(add, 3, z=300), nothing, GOOD),
    (loop_of(add, 3, z=256), nothing, GOOD),  # just where it may
    (loop_of(add, 3, z=250), nothing, BAD),
    (loop_of(add, 3, x=300), nothing, GOOD),
    (loop_of(add, 3, x=510), nothing, BAD),
    (loop_of(add, 3, x=512), nothing, GOOD),  # just where it may
    (loop_of(table, 3, y=2), change(at=2, y=X), BAD),
    (loop_of(table, 4, y=-12), change(at=2, y=X + 36), GOOD),  # in one place in the end
    (loop_of(table, 4, y=-8), change(at=2, y=X + 24), BAD),  # but not just before
    (loop_of(conv_sum, 4, z=-48), change(at=2, z=FREE + 144), GOOD),
    (loop_of(conv_sum, 4, z=-40), change(at=2, z=FREE + 120), BAD),
    (loop_of(conv_sum, 3, z=500), nothing, GOOD),
    (loop_of(conv_sum, 3, z=501), nothing, BAD),
    (loop_of(conv_sum, 3, z=-242), nothing, GOOD),
    (loop_of(conv_sum, 3, z=-243), nothing, BAD),
    (loop_of(conv_sum, 3, x=514), change(at=2, y=2048), BAD),
    (loop_of(conv_sum, 3, x=300), change(at=2, y=2048), GOOD),
    (loop_of(conv_sum, 3, y=-512), nothing, BAD),
    (loop_of(conv_sum, 3, y=4), nothing, GOOD),
    (loop_of(conv_sum, 3, y=2), nothing, BAD),
    (loop_of(lambda: conv(True), 3, x=4), nothing, GOOD),
    (loop_of(lambda: conv(True), 3, x=2), nothing, BAD),
    (loop_of(lambda: conv(True), 3, y=2), nothing, BAD),
    (loop_of(lambda: conv(True), 3, z=2), nothing, BAD),
    (loop_of(lambda: conv_sum(True), 3, z=2), nothing, BAD),
    (loop_of(conv_sum, 3, z=1), nothing, GOOD),
    (loop_of(avg_sum, 3, x_row=1, x=12), change(at=2, x_row=0), GOOD),
    (loop_of(mean, 3, x_row=1, x=12), nothing, GOOD),
    (loop_of(conv, 3), change(at=2, kind=2, z=1, x_row_more=1), GOOD),
    (loop_of(conv, 3), change(rows=0), BAD),
    (lambda: nested(StepKind.COPY), nothing, GOOD),
    (lambda: nested(StepKind.LOOP), nothing, BAD),
    # its first row needs one less
    (lambda: looped(2), change(at=2, row=0, x_row_more=0), BAD),
    # boxes
    (conv, change(rows=0, x_rows=2), BAD),
    (conv, change(channels=0), BAD),
    (conv, change(channels=4, y_step=4), BAD),
    (conv, change(channel=1), BAD),
    (conv, change(row=5, x_row=4, x_rows=2), BAD),
    (conv, change(row=5, rows=1, x_row=4, x_rows=2), GOOD),
    (conv, change(x_rows=0), BAD),
    (conv, change(x_row=0), BAD),
    (conv, change(x_row=2), BAD),
    (conv, change(x_rows=3), BAD),
    (conv, change(x_rows=5), BAD),
    (conv, change(x_channel=1, x_channels=3), BAD),
    (conv, change(x_channels=3), BAD),
    (conv, change(row=0, x_row=0, x_rows=3), GOOD),
    (conv_sum, nothing, GOOD),
    (conv_sum, change(x_channel=3), BAD),
    (conv_sum, change(x_channel=3, x_channels=1), GOOD),
    (conv_sum, change(flags=Flag.PARTIAL), GOOD),
    (conv_sum, change(x_rows=3), BAD),
    (conv, change(flags=Flag.FIRST), BAD),
    (conv, change(flags=Flag.LAST), BAD),
    (grouped, nothing, BAD),
    (depthwise, nothing, GOOD),
    (depthwise, change(channel=1), BAD),
    (depthwise, change(channels=1), BAD),
    (depthwise, change(x_channel=0), BAD),
    (depthwise, change(x_rows=3), BAD),
    (depthwise, change(flags=PARTIAL, x=X, y=FREE, z=Y, z_step=4), BAD),
    (full, nothing, GOOD),
    (full, change(x_row=0), BAD),
    (full, change(x_rows=1), BAD),
    (full, change(x_channels=11), BAD),
    (full, change(flags=PARTIAL, y=FREE, z=Y, z_step=4), BAD),
    (full, change(flags=Flag.TURNED), BAD),
    (full_sum, nothing, GOOD),
    (full_sum, change(map_h=0), BAD),
    (full_sum, change(map_h=5), BAD),
    (full_sum, change(map_h=65535, map_w=65535), BAD),
    (full_sum, change(x_row=3), BAD),
    (full_sum, change(x_channel=1), BAD),
    (full_sum, change(row=1), BAD),
    (max_pool, nothing, GOOD),
    (max_pool, change(x_channel=0), BAD),
    (max_pool, change(x_channels=1), BAD),
    (max_pool, change(x_row=1), BAD),
    (max_pool, change(flags=PARTIAL, x=X, y=FREE, z=Y, z_step=4), BAD),
    (lambda: max_pool(OpKind.AVG_POOL), nothing, GOOD),
    (lambda: max_pool(OpKind.AVG_POOL), change(x_channel=0), BAD),
    (lambda: max_pool(OpKind.AVG_POOL), change(x_row=1), BAD),
    (lambda: max_pool(OpKind.AVG_POOL), change(flags=PARTIAL, y=FREE, z=Y, z_step=4), BAD),
    (avg_sum, nothing, GOOD),
    (avg_sum, change(x_row=3, x_rows=2), BAD),
    (avg_sum, change(x_channel=1, x_channels=3), BAD),
    (lambda: avg_sum(pads=(1, 0, 0, 0)), nothing, BAD),
    (lambda: avg_sum(pads=(0, 0, 1, 0)), nothing, BAD),
    (lambda: avg_sum((7, 2), (0, 1, 0, 0)), nothing, BAD),
    (lambda: avg_sum((4, 4), (0, 0, 0, 1)), nothing, BAD),
    (lambda: avg_sum(stride=(2, 2)), nothing, BAD),
    (lambda: avg_sum(stride=(5, 1)), nothing, BAD),
    (depthwise_of_one, nothing, GOOD),
    (depthwise_of_one, change(x_rows=2), BAD),
    (depthwise_of_one, change(x_channel=1), BAD),
    (depthwise_of_one, change(flags=PARTIAL, x=X, y=FREE, z=Y, z_step=4), BAD),
    (mean, nothing, GOOD),
    (mean, change(flags=0, y=Y, y_step=4), BAD),
    (mean, change(x_channel=0), BAD),
    (mean, change(x_channels=1), BAD),
    (mean, change(rows=2), BAD),
    (mean, change(x_rows=6), BAD),
    (lambda: mean((1,), (1, 3, 4)), nothing, BAD),
    (lambda: mean((1, 2, 3), (1,)), nothing, BAD),
    (lambda: mean((0, 1, 2), (4,)), nothing, GOOD),
    (embedding, nothing, GOOD),
    (embedding, change(x_row=2), BAD),
    (embedding, change(x_rows=2), BAD),
    (embedding, change(x_channel=1), BAD),
    (embedding, change(flags=PARTIAL, y=FREE, z=Y, z_step=4), BAD),
    (embedding, change(flags=Flag.TURNED), BAD),
    (add, nothing, GOOD),
    (add, change(x_row=0), BAD),
    (add, change(x_rows=1), BAD),
    (add, change(x_channel=0), BAD),
    (add, change(x_channels=3), BAD),
    (add, change(flags=PARTIAL, y=FREE, z=Y, z_step=4), BAD),
    (lambda: add((1, 1, 1, 4)), nothing, BAD),
    (lambda: add((6, 3, 4)), nothing, BAD),
    (lambda: constant(0), nothing, BAD),
    (lambda: constant(1), nothing, BAD),
    (batch, change(kind=1, rows=1, channels=2, x_rows=1, x_channels=2), BAD),
    # turned
    (row_conv, nothing, GOOD),
    (row_conv, change(x_rows=5), BAD),
    (row_conv, change(flags=0), BAD),
    (column_conv, nothing, GOOD),
    (square_conv, nothing, GOOD),
    (square_conv, turned_square(), BAD),
    (conv, change(flags=Flag.TURNED), BAD),
    (unary, change(flags=Flag.TURNED), BAD),
    # pieces
    (conv, change(x_step=3), BAD),
    (conv, change(y_step=2), BAD),
    (conv, change(x_step=0), BAD),
    (conv, change(x=LIMIT - 31), BAD),
    (conv, change(x=LIMIT - 32), GOOD),
    (conv, change(x=NOWHERE), BAD),
    (conv, change(y=LIMIT - 11), BAD),
    (conv, change(y=LIMIT - 12), GOOD),
    (conv, change(x=Y), BAD),
    (conv, change(x=Y - 19), BAD),
    (conv, change(x=Y - 20), GOOD),
    (conv, change(x=Y + 24), GOOD),
    (conv, change(x=Y + 23), BAD),
    (lambda: conv(True), nothing, GOOD),
    (lambda: conv(True), change(x=X + 34), BAD),
    (lambda: conv(True), change(y=Y + 50), BAD),
    (conv_sum, change(y=FREE + 1), BAD),
    (conv_sum, change(y=FREE + 2), BAD),
    (conv_sum, change(y=LIMIT - 44), BAD),
    (conv_sum, change(y=LIMIT - 48), GOOD),
    (conv_sum, change(y=4), BAD),  # over x
    (conv_sum, change(z=LIMIT - 11), BAD),
    (conv_sum, change(z=LIMIT - 11, flags=Flag.PARTIAL | Flag.FIRST), GOOD),
    (conv_sum, change(z_step=2), BAD),
    (conv_sum, change(z=12), BAD),  # over x
    (conv_sum, change(z=FREE), GOOD),
    (conv_sum, change(z=FREE, z_step=12), GOOD),
    (conv_sum, change(z=FREE, z_step=13), BAD),
    (conv_sum, change(z=FREE + 1), BAD),
    (conv_sum, change(z=FREE + 48), GOOD),
    (lambda: conv_sum(True), nothing, GOOD),
    (lambda: conv_sum(True), change(z=FREE), GOOD),
    (lambda: conv_sum(True), change(z=Y + 50), BAD),
    (lambda: conv_sum(True), change(z=FREE, z_step=4), BAD),
    (add, change(y=X + 13), GOOD),
    (add, change(y=X + 13, y_step=5), BAD),
    (add, change(y=X + 14), BAD),
    (add, change(y=Z + 13), GOOD),
    (add, change(y=Z + 13, y_step=5), BAD),
    (add, change(y=Z + 14), BAD),
    (add, change(z=LIMIT - 21), BAD),
    (add, change(z=LIMIT - 22), GOOD),
    (add, change(z_step=1), BAD),
    (long_table, nothing, GOOD),
    (long_table, change(x_step=65535), BAD),
    (table, change(y=X), GOOD),
    (table, change(y=X + 1), BAD),
    (unary, change(y=X), GOOD),
    (unary, change(y=X + 4), BAD),
    (quantize, nothing, GOOD),
    (quantize, change(y=X), BAD),
    (quantize, change(x=X + 1), BAD),
    (embedding, change(x=X + 2), BAD),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_one_rule_stands_against_it(case: int) -> None:
    make, spoil, expected = CASES[case]
    patch = Patch(make().image())
    spoil(patch)
    assert check_image(patch.bytes()) == expected, CASES[case]


def test_the_bases_are_good() -> None:
    bases = {make for make, _, _ in CASES if make.__name__ not in ("<lambda>", "make")} - {grouped}
    assert len(bases) > 15
    for make in bases:
        assert check_image(make().image()) == GOOD, make.__name__


# ---- sections, plans, and what whole operators need


def plan_of(p: Patch, nth: int = 0) -> tuple[Any, Any]:
    return p.plan(nth)


def test_one_section_a_plan() -> None:
    graph = max_pool().graph
    plan = Plan(PlanKind.INFER, LIMIT, {"x": X, "y": LIMIT - 24}, (Step(StepKind.OP, 0),))
    image = write_image(graph, [plan], meta={"room": "for another section of the same size" * 3})
    assert check_image(image) == GOOD

    def verdict(spoil: Callable[[Patch], object]) -> str:
        patch = Patch(image)
        spoil(patch)
        return check_image(patch.bytes())

    def second(p: Patch) -> None:
        i, j = p.where(S.TILES), p.where(S.META)
        for field in ("type", "offset", "bytes"):
            p.table[field][j] = p.table[field][i]

    def of_kind(kind: int) -> Callable[[Patch], None]:
        return lambda p: p.section(S.TILES, f.TILES)["kind"].__setitem__(0, kind)

    def size(change: int, count: int | None = None) -> Callable[[Patch], None]:
        def spoil(p: Patch) -> None:
            row = p.where(S.TILES)
            p.table["bytes"][row] = int(p.table["bytes"][row]) + change
            if count is not None:
                p.section(S.TILES, f.TILES)["count"][0] = count

        return spoil

    assert verdict(second) == BAD
    assert verdict(of_kind(1)) == BAD  # no plan for learning
    assert verdict(of_kind(7)) == GOOD  # of a newer version, skipped
    assert verdict(size(-64, 0)) == BAD
    assert verdict(size(-64)) == BAD
    assert verdict(size(1)) == BAD
    assert verdict(size(64)) == BAD
    assert verdict(size(64, 2)) != GOOD  # what lies behind is no step
    assert verdict(lambda p: p.table["bytes"].__setitem__(p.where(S.TILES), 8)) == BAD
    assert verdict(lambda p: p.section(S.TILES, f.TILES)["count"].__setitem__(0, 2**26)) == BAD


def test_plans_of_a_newer_version_are_nobodys() -> None:
    """They are skipped when an image is checked: nothing may run on them."""
    graph = network()
    patch = Patch(write_image(graph, [plan_graph(graph, kind) for kind in PlanKind]))
    head, offsets = plan_of(patch, 1)
    head["kind"], head["arena_bytes"] = 7, 16
    offsets[:] = 2**31
    core = CoreModel(patch.bytes())
    arena = aligned_bytes(1 << 16)
    for kind, there in ((0, True), (1, False), (7, False)):
        assert (core.lib.fl_model_arena_bytes(core.model, kind) > 0) == there
        code = core.lib.fl_model_bind(core.model, kind, pointer(arena), len(arena))
        assert error_name(code) == "FL_ENOENT" if not there else code == 0


def test_at_most_65535_steps() -> None:
    graph = max_pool().graph
    steps = (Step(StepKind.OP, 0),) * 65535
    image = write_image(graph, [Plan(PlanKind.INFER, LIMIT, {"x": X, "y": LIMIT - 24}, steps)])
    assert check_image(image) == GOOD
    patch = Patch(image + bytes(64))
    patch.header["total_bytes"] += 64
    row = patch.where(S.TILES)
    start = int(patch.table["offset"][row])
    patch.table["bytes"][row] += 64
    patch.section(S.TILES, f.TILES)["count"][0] = 65536
    end = start + int(patch.table["bytes"][row])
    assert end <= len(patch.raw)
    assert check_image(patch.bytes()) == NEW


def test_places_of_whole_tensors() -> None:
    """By operator: its input (place 0) or its output (-1) loses its place."""
    graph = network()

    def verdict(image: bytes, op: int = 0, place: int | None = None) -> str:
        patch = Patch(image)
        if place is not None:
            t = int(patch.ops["out"][op, 0] if place < 0 else patch.ops["in"][op, place])
            assert plan_of(patch)[1][t] != NOWHERE
            plan_of(patch)[1][t] = NOWHERE
        return check_image(patch.bytes())

    image = streamed(graph).image()
    assert verdict(image) == GOOD
    assert verdict(image, 4, 0) == BAD  # the head is run whole
    assert verdict(image, 2, 0) == BAD
    assert verdict(image, 2, -1) == BAD
    image = channels(graph).image()
    assert verdict(image, 0, -1) == BAD
    assert verdict(image, 2, -1) == GOOD  # its slices have places of their own
    # inputs and outputs lie somewhere even where no step runs whole over them
    for place in (0, -1):
        assert verdict(conv().image(), 0, place) == BAD
    # without tiles everything lies somewhere
    image = write_image(graph, [plan_graph(graph, PlanKind.INFER)])
    assert verdict(image, 1, -1) == BAD


def test_whole_operators_overlap_as_they_may() -> None:
    def verdict(arena: Arena, **places: int) -> str:
        arena.offsets.update(places)
        arena.steps[1] = Step(StepKind.OP, 0)
        return check_image(arena.image())

    assert verdict(add(), y=X) == GOOD
    assert verdict(add(), y=Z) == GOOD
    assert verdict(add(), y=X + 4) == BAD
    assert verdict(add((1, 1, 1, 4)), y=X) == GOOD
    assert verdict(add((1, 1, 1, 4)), y=Z) == BAD
    assert verdict(table(), y=X) == GOOD
    assert verdict(unary(), y=X) == GOOD
    assert verdict(unary(), y=X + 4) == BAD
    assert verdict(softmax(), y=X) == BAD
    assert verdict(quantize(), y=X) == BAD
    assert verdict(conv(), y=X) == BAD
    assert verdict(max_pool(), y=X) == BAD


def test_the_arena_is_as_large_as_what_lies_in_it() -> None:
    def verdict(limit: int, *steps: Step) -> str:
        arena = conv()
        arena.steps = list(steps)
        arena.end = limit
        return check_image(arena.image())

    tile = conv().steps[1]
    high = Step(StepKind.COPY, 0, x=Y + 36, y=X, z=100)
    assert verdict(Y + 36, tile) == GOOD  # the output's end
    assert verdict(Y + 37, tile) == BAD
    assert verdict(Y + 136, tile, high) == GOOD
    assert verdict(Y + 135, tile, high) == BAD
    assert verdict(Y + 137, tile, high) == BAD
    loop = [Step(StepKind.LOOP, 1, rows=3), Step(StepKind.COPY, 0, x=Y, z=36, more=More(x=9))]
    assert verdict(Y + 54, *loop) == GOOD
    assert verdict(Y + 53, *loop) == BAD
    sums = conv_sum().steps[1]
    assert verdict(FREE + 48, sums) == GOOD
    assert verdict(FREE + 47, sums) == BAD
    assert verdict(FREE + 49, sums) == BAD


def test_scratch_of_the_learner() -> None:
    graph = network()
    infer = plan_graph(graph, PlanKind.INFER)
    learn = plan_graph(graph, PlanKind.LEARN)
    end = learn.arena_bytes

    def verdict(nth: int, scratch: int, size: int, arena: int = 0) -> str:
        patch = Patch(write_image(graph, [infer, learn]))
        head = plan_of(patch, nth)[0]
        head["learner_scratch"], head["learner_scratch_bytes"] = scratch, size
        if arena:
            head["arena_bytes"] = arena
        return check_image(patch.bytes())

    last = end // 16 * 16
    assert verdict(1, 0, 0) == GOOD
    assert verdict(1, 16, 0) == GOOD
    assert verdict(1, 16, 20) == GOOD
    assert verdict(0, 16, 20) == BAD
    assert verdict(1, 8, 20) == BAD
    assert verdict(1, last, end - last + 1) == BAD
    assert verdict(1, last, end - last + 1, end + 1) == GOOD
    assert verdict(1, last, end - last + 1, end + 2) == BAD
    assert verdict(1, 16, 2**32 - 16) == BAD
    assert verdict(1, 2**32 - 16, 16) == BAD
    assert verdict(1, 2**32 - 16, 20) == BAD
