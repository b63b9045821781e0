"""The verifier of tiled plans: sound ones pass; whatever else passes computes the same bytes."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from random_graphs import random_graph, samples_for
from random_mixed import mixed_graph
from tiled_by_hand import CASES, COPY, LOOP, OP, TILE, Case, box, build, weights

from fieldloop.compiler import compile_graph
from fieldloop.frontends.builder import Constant
from fieldloop.image.writer import write_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Mean, OpKind, Window
from fieldloop.ir.tensor import Array, DType
from fieldloop.plan.bind import bind, places
from fieldloop.plan.loops import compress, expand
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.program import CannotTileError
from fieldloop.plan.tiled import plan_of
from fieldloop.plan.tilings import Draft, Tiling, TilingKind, draft
from fieldloop.plan.types import More, Plan, PlanKind, Step, StepKind
from fieldloop.plan.verify import PlanError, verify
from fieldloop.plan.verify_tiles import verify_tiles
from fieldloop.runtime import Model

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared")) / "models" / "tflite"


def inputs_of(graph: Graph, count: int = 2) -> list[Array]:
    rng = np.random.default_rng(1)
    given: list[Array] = []
    for name in graph.inputs:
        tensor = graph.tensors[name]
        shape = (count, *tensor.shape[1:])
        if tensor.dtype is DType.FLOAT32:
            given.append(rng.normal(size=shape).astype(np.float32))
        elif tensor.dtype is DType.INT32:
            given.append(rng.integers(0, 9, shape).astype(np.int32))
        else:
            given.append(rng.integers(-128, 128, shape).astype(np.int8))
    return given


def ran(graph: Graph, plan: Plan, *, variant: str = "plain") -> list[bytes]:
    """Output bytes of the C core, its arena full of garbage."""
    model = Model(write_image(graph, [plan]), variant=variant)
    model._arena[:] = 0xA5
    return [out.tobytes() for out in model.run(*inputs_of(graph))]


def untiled(graph: Graph) -> list[bytes]:
    return ran(graph, plan_graph(graph, PlanKind.INFER))


def accepts(graph: Graph, plan: Plan, keep: frozenset[str] = frozenset()) -> bool:
    try:
        verify(graph, plan, keep=keep)
    except PlanError as error:
        assert "\n" not in str(error)
        return False
    return True


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


# ---- what must pass


def test_plans_made_by_hand_are_sound(case: Case) -> None:
    verify(case.graph, case.plan)
    want = untiled(case.graph)
    for variant in ("plain", "dsp", "mve"):
        assert ran(case.graph, case.plan, variant=variant) == want


def test_their_loops_are_sound(case: Case) -> None:
    steps = tuple(expand(case.plan.steps))
    flat, looped = (replace(case.plan, steps=s) for s in (steps, compress(steps)))
    verify(case.graph, flat)
    verify(case.graph, looped)
    assert ran(case.graph, flat) == ran(case.graph, looped) == untiled(case.graph)


def some_tilings(graph: Graph, rng: random.Random) -> list[Tiling]:
    """Random tilings that the graph takes, one behind the other."""
    found: list[Tiling] = []
    at = 0
    while at < len(graph.ops):
        stream = TilingKind.STREAM
        kind = rng.choice([TilingKind.FDT, TilingKind.FFMT, stream, stream])
        end = min(len(graph.ops) - 1, at + rng.randrange(8))
        amount = rng.choice([1, 2, 3, 4])
        tiling = Tiling(at, end, kind, amount if kind is stream else amount + 1)
        try:
            draft(graph, [tiling])
        except CannotTileError:
            at += 1
            continue
        found.append(tiling)
        at = end + 1
    return found


def some_graph(seed: int) -> Graph:
    if seed % 3 == 0:
        return mixed_graph(seed, depth=10)
    graph = random_graph(seed, depth=2 + seed % 6)
    if seed % 3 == 1:
        return graph
    return compile_graph(graph, samples_for(graph, seed, 10), learn=0).graph


def drafts(seeds: range) -> Iterator[Draft]:
    for seed in seeds:
        graph = some_graph(seed)
        tilings = some_tilings(graph, random.Random(seed))
        if tilings:
            yield draft(graph, tilings)


def test_generated_plans_are_sound_and_compute_the_same() -> None:
    steps = Counter[StepKind]()
    for made in drafts(range(150)):
        plan = plan_of(made, PlanKind.INFER)
        verify(made.graph, plan)
        assert ran(made.graph, plan) == untiled(made.graph)
        steps.update(step.kind for step in plan.steps)
    assert min(steps[kind] for kind in StepKind) > 10, steps


# ---- what must not pass, unless it computes the same


def mutants(step: Step) -> Iterator[tuple[str, Step]]:
    """The step with one field changed, and that field's name."""
    for field in fields(Step):
        name, value = field.name, getattr(step, field.name)
        changed: list[object]
        if name == "kind":
            changed = list(StepKind)
        elif name == "map_hw":
            changed = [(0, 0), (1, 1), (value[0] + 1, value[1]), (value[0], value[1] + 1)]
            changed.append(value[::-1])
        elif name == "more":
            changed = [
                replace(value, **{f.name: getattr(value, f.name) + by})
                for f in fields(More)
                for by in (1, -1, 4, -8)
            ]
        elif isinstance(value, bool):
            changed = [not value]
        else:
            changed = sorted({value + 1, value - 1, value + 4, value - 4, value * 2, 0})
        for other in changed:
            if other != value:
                yield name, replace(step, **{name: other})  # type: ignore[arg-type]


# Fields of steps that sound plans may differ in, and why.
HARMLESS = {
    (TILE, "map_hw"): "of other operators than fully connected layers: none and (1, 1) are one",
    (TILE, "x_step"): "of one pixel",
    (TILE, "y_step"): "of one pixel",
    (TILE, "z_step"): "of one pixel",
    (TILE, "rows"): "more than needed, made again later",
    (TILE, "channels"): "more than needed, made again later",
    (TILE, "y"): "accumulators that lie where nothing else does",
    (COPY, "op"): "another operator that reads the same",
    (COPY, "z"): "more than needed, over garbage",
    (LOOP, "rows"): "once more what is there already",
    (LOOP, "op"): "the steps behind, over and over again",
    (OP, "op"): "a reshape in place needs no step, others may run twice",
}


def check_mutants(case: Case, wanted: list[bytes], which: list[tuple[int, str, Step]]) -> int:
    """How many pass; each of them computes the same, and in its field that is known."""
    passed = 0
    for i, name, step in which:
        steps = (*case.plan.steps[:i], step, *case.plan.steps[i + 1 :])
        plan = replace(case.plan, steps=steps)
        if not accepts(case.graph, plan, case.keep):
            continue
        passed += 1
        kind = case.plan.steps[i].kind
        assert (kind, name) in HARMLESS, f"step {i}: {case.plan.steps[i]} became {step}"
        assert ran(case.graph, plan) == wanted, f"step {i}: {case.plan.steps[i]} became {step}"
    return passed


def all_mutants(plan: Plan) -> list[tuple[int, str, Step]]:
    return [(i, name, m) for i, step in enumerate(plan.steps) for name, m in mutants(step)]


def test_one_changed_field_is_refused_or_harmless(case: Case) -> None:
    which = all_mutants(case.plan)
    passed = check_mutants(case, untiled(case.graph), which)
    assert len(which) > 200 and passed < len(which) / 30


def test_one_changed_field_of_generated_plans_is_refused_or_harmless() -> None:
    """Some mutants of many plans."""
    tried = passed = 0
    for made in drafts(range(100, 140)):
        case = Case(made.graph, plan_of(made, PlanKind.INFER))
        which = all_mutants(case.plan)
        which = random.Random(len(which)).sample(which, min(len(which), 150))
        tried += len(which)
        passed += check_mutants(case, untiled(case.graph), which)
    assert tried > 2000 and passed < tried / 20, (passed, tried)


def test_steps_left_out_swapped_or_repeated() -> None:
    """Steps of sound plans in another order, or not at all."""
    tried = passed = 0
    for made in drafts(range(200, 225)):
        graph, plan = made.graph, plan_of(made, PlanKind.INFER)
        want, steps = untiled(graph), list(expand(plan.steps))
        rng = random.Random(len(steps))
        for _ in range(40):
            i, j = rng.randrange(len(steps)), rng.randrange(len(steps))
            other = list(steps)
            choice = rng.randrange(3)
            if choice == 0:
                del other[i]
            elif choice == 1:
                other[i], other[j] = other[j], other[i]
            else:
                other.insert(j, steps[i])
            changed = replace(plan, steps=tuple(other))
            tried += 1
            if other and accepts(graph, changed):
                passed += 1
                assert ran(graph, changed) == want
    assert 0 < passed < tried / 2, (passed, tried)


def test_a_store_that_is_moved_is_refused_or_harmless() -> None:
    """Stores over each other: the layout ignored for one of them."""
    refused = harmless = 0
    for made in drafts(range(300, 330)):
        graph, program, good = made.graph, made.program, made.stacking.offsets
        want = untiled(graph)
        for i, store in enumerate(program.stores):
            for j in range(len(program.stores)):
                offsets = list(good)
                offsets[i] = -(-offsets[j] // store.alignment) * store.alignment
                if i == j or offsets[i] == good[i]:
                    continue
                steps = compress(bind(program, offsets))
                ends = [offsets[s] + int(made.occupied.hi[s].max()) for s in range(len(offsets))]
                plan = Plan(PlanKind.INFER, max(ends), places(program, offsets), steps)
                if accepts(graph, plan):
                    harmless += 1
                    assert ran(graph, plan) == want
                else:
                    refused += 1
    assert refused > 3 * harmless > 0, (refused, harmless)


def test_a_tensor_whose_place_is_another_is_refused(case: Case) -> None:
    for name, start in case.plan.offsets.items():
        for by in (-8, -4, -1, 1, 4, 8):
            offsets = {**case.plan.offsets, name: start + by}
            assert not accepts(case.graph, replace(case.plan, offsets=offsets)), (name, by)


# ---- one rule each


def refused(case: Case, match: str, **changes: object) -> None:
    with pytest.raises(PlanError, match=match) as caught:
        verify(case.graph, replace(case.plan, **changes), keep=case.keep)  # type: ignore[arg-type]
    assert str(caught.value).startswith("plan for infer of hand: ")


def with_step(case: Case, i: int, **changes: object) -> tuple[Step, ...]:
    steps = list(case.plan.steps)
    steps[i] = replace(steps[i], **changes)  # type: ignore[arg-type]
    return tuple(steps)


def test_the_arena_ends_where_its_last_byte_does() -> None:
    case = CASES["streamed"]()
    size = case.plan.arena_bytes
    refused(case, f"highest end is {size}, arena_bytes says {size + 4}", arena_bytes=size + 4)
    refused(case, f"ends at {size}, the arena at {size - 4}", arena_bytes=size - 4)
    refused(case, "the arena at -4", arena_bytes=-4)


def test_places() -> None:
    case = CASES["whole"]()
    at = dict(case.plan.offsets)
    refused(case, "a at 73 is not aligned to 4", offsets={**at, "a": 73})
    refused(case, "a at -4 is not aligned", offsets={**at, "a": -4})
    refused(case, "z is no activation", offsets={**at, "z": 0})
    refused(case, "a.weights is no activation", offsets={**at, "a.weights": 0})
    for name in ("x", "y", "a"):
        without = {n: start for n, start in at.items() if n != name}
        refused(case, f"{name} has no place", offsets=without)


def test_a_place_of_what_is_never_there_whole() -> None:
    case = CASES["streamed"]()
    refused(case, "a at 256..512: .* of its bytes", offsets={**case.plan.offsets, "a": 256})


def test_loops() -> None:
    case = CASES["streamed"]()
    steps = case.plan.steps
    refused(case, "step 3: a loop of 0 iterations", steps=with_step(case, 3, rows=0))
    refused(case, "step 3: a loop of 5 iterations, or with", steps=with_step(case, 3, x=1))
    refused(case, "step 3: a loop of 0 steps", steps=with_step(case, 3, op=0))
    refused(case, "step 3: a loop of 8 steps", steps=with_step(case, 3, op=8))
    nested = (*steps[:5], Step(LOOP, 1, rows=1), *steps[5:])
    refused(case, "step 3: a loop of 3 steps, or with a loop inside", steps=nested)
    alone = with_step(case, 0, more=More(row=1))
    refused(case, "step 0: increments outside", steps=alone)
    refused(case, "step 4, iteration 1: ", steps=with_step(case, 4, more=More(row=1, x_row=1)))


def test_copies() -> None:
    case = CASES["streamed"]()
    shift = case.plan.steps[6]
    assert shift.kind is COPY
    refused(case, "a copy for a of what it does not read", steps=with_step(case, 6, op=0))
    refused(case, "a copy of 0 bytes", steps=with_step(case, 6, z=0))
    refused(case, "or with other fields", steps=with_step(case, 6, rows=1))
    refused(case, "a copy ends at", steps=with_step(case, 6, y=case.plan.arena_bytes - 4))
    sums = CASES["sliced float32"]()
    moved = Step(COPY, 2, x=sums.plan.offsets["y"], y=0, z=4)
    steps = (*sums.plan.steps[:3], moved, *sums.plan.steps[3:])
    refused(sums, "of what it does not read", steps=steps)


def test_partial_sums_are_of_every_part_once() -> None:
    case = CASES["sliced int8"]()
    steps = case.plan.steps
    refused(case, "y adds rows 0..1, channels 2..4 twice", steps=(*steps[:6], *steps[3:]))
    without = tuple(s for i, s in enumerate(steps) if i not in (3, 4, 5))
    refused(case, "y finishes 6 of 8 parts", steps=without)
    refused(case, "its accumulators are not at", steps=with_step(case, 2, first=False))
    refused(case, "y finishes 2 of 8 parts", steps=with_step(case, 11, first=True))
    refused(case, "accumulators 6 apart, not 5", steps=with_step(case, 2, y_step=6))
    over = case.plan.steps[2].x // 4 * 4
    refused(case, "y adds into its input", steps=with_step(case, 2, y=over))


def test_accumulators_belong_to_one_sum() -> None:
    case = CASES["flattened"]()
    other = with_step(case, 2, map_hw=(3, 6), x_row=1, x_rows=1)
    refused(case, "y: its accumulators hold another sum", steps=other)
    b, x = build((1, 1, 1, 4))
    window = Window((1, 1))
    y, z = (b.add(n, OpKind.CONV2D, [x], window=window, weights=weights(2, 1, 1, 4)) for n in "yz")
    graph = b.graph([b.add("s", OpKind.ADD, [y, z])])
    steps = tuple(
        box(i, (0, 1), (0, 2), (0, 1), (2 * i, 2), x=(8 * i, 2), y=(16, 2), sums="fp"[i])
        for i in range(2)
    )
    mixed = Case(graph, Plan(PlanKind.INFER, 24, {"x": 0, "s": 16}, steps))
    refused(mixed, "z: its accumulators hold another sum")


def in_reverse(case: Case) -> tuple[Step, ...]:
    """The slices of a fan-in, the last one first."""
    steps = [case.plan.steps[i : i + 3] for i in (9, 6, 3, 0)]
    turned = [
        (a, d, replace(y, first=i == 0, last=i == 3, z=0, z_step=0))
        for i, (a, d, y) in enumerate(steps)
    ]
    a, d, y = turned[3]
    turned[3] = (a, d, replace(y, z=y.y, z_step=5))
    return tuple(step for slices in turned for step in slices)


def test_integers_are_added_in_any_order_and_reals_in_theirs() -> None:
    case = CASES["sliced int8"]()
    steps = in_reverse(case)
    verify(case.graph, replace(case.plan, steps=steps))
    case = CASES["sliced float32"]()
    refused(case, "y adds real numbers in another order", steps=in_reverse(case))
    other = replace(case.plan, steps=in_reverse(case))
    verify_tiles(case.graph, other, reordered=frozenset({"y"}))


def test_slices_of_a_float_window_are_another_order() -> None:
    """Taps before channels: what each slice adds of all taps is not what comes next."""
    b, x = build((1, 3, 3, 4))
    y = b.add("y", OpKind.CONV2D, [x], window=Window((3, 3)), weights=weights(2, 3, 3, 4))
    graph = b.graph([y])
    steps = tuple(
        box(0, (0, 1), (0, 2), (0, 3), (2 * i, 2), x=(8 * i, 4), y=(144, 2),
            z=(144, 2) if i else (0, 0), sums="fl"[i])
        for i in range(2)
    )  # fmt: skip
    case = Case(graph, Plan(PlanKind.INFER, 152, {"x": 0, "y": 144}, steps))
    refused(case, "another order")
    verify_tiles(graph, case.plan, reordered=frozenset({"y"}))


def test_what_a_step_writes_overlaps_nothing_it_reads() -> None:
    case = CASES["added"]()
    second = case.plan.steps[1]
    refused(case, "y writes over its second input", steps=with_step(case, 1, y=0))
    refused(case, "a writes over its input", steps=with_step(case, 0, y=0))
    refused(case, "y writes over its input", steps=with_step(case, 1, y=second.y + 8))
    case = CASES["flattened"]()
    x = case.plan.steps[3].x
    moved = {**case.plan.offsets, "y": x}
    refused(case, "y writes over its input", steps=with_step(case, 3, z=x), offsets=moved)
    whole = CASES["whole"]()
    refused(whole, "a writes over its own input x", offsets={**whole.plan.offsets, "a": 0})
    refused(whole, "r writes over its own input a", offsets={**whole.plan.offsets, "r": 68})


def test_what_has_no_tiles() -> None:
    b, x = build((1, 4, 4, 4))
    y = b.add(
        "y", OpKind.CONV2D, [x], window=Window((1, 1)), weights=weights(4, 1, 1, 2), groups=2
    )
    step = box(0, (0, 4), (0, 4), (0, 4), (0, 4), x=(0, 4), y=(256, 4))
    case = Case(b.graph([y]), Plan(PlanKind.INFER, 512, {"x": 0, "y": 256}, (step,)))
    refused(case, "y: a convolution in groups has no tiles")
    b, x = build((1, 4))
    y = b.add("y", OpKind.SOFTMAX, [x])
    step = box(0, (0, 1), (0, 4), (0, 1), (0, 4), x=(0, 4), y=(16, 4))
    case = Case(b.graph([y]), Plan(PlanKind.INFER, 32, {"x": 0, "y": 16}, (step,)))
    refused(case, "y: softmax has no tiles")


def test_several_samples_of_a_map_have_no_tiles() -> None:
    b, x = build((2, 4, 4, 1))
    y = b.add("y", OpKind.MAX_POOL, [x], window=Window((2, 2), stride=(2, 2)))
    step = box(0, (0, 2), (0, 1), (0, 4), (0, 1), x=(0, 1), y=(128, 1))
    case = Case(b.graph([y]), Plan(PlanKind.INFER, 160, {"x": 0, "y": 128}, (step,)))
    refused(case, r"shape \(2, 4, 4, 1\) is no map, but several")


def lone(shape: tuple[int, ...], op: OpKind, step: Step, **how: object) -> Case:
    """One operator on an input, in one step; the places do not matter."""
    b, x = build(shape)
    y = b.add("y", op, [x], **how)  # type: ignore[arg-type]
    size = b.graph([y]).tensors[y].bytes
    plan = Plan(PlanKind.INFER, 1024, {"x": 0, "y": 1024 - size}, (step,))
    return Case(b.graph([y]), plan)


def test_sums_of_pools_and_means() -> None:
    some = box(0, (0, 1), (0, 1), (0, 3), (0, 1), x=(0, 1), y=(900, 1), z=(1020, 1), sums="fl")
    window = Window((3, 3))
    case = lone((1, 3, 3, 1), OpKind.MAX_POOL, some, window=window)
    refused(case, "y: a pool in parts is an average of one row and column")
    case = lone((1, 3, 4, 1), OpKind.AVG_POOL, some, window=window)
    refused(case, "y: a pool in parts is an average of one row and column")
    padded = Window((4, 4), pads=(1, 0, 1, 0))
    case = lone((1, 3, 3, 1), OpKind.AVG_POOL, some, window=padded)
    refused(case, "y: a pool in parts has all its taps on the map")
    strided = Window((3, 3), stride=(3, 3))
    case = lone((1, 5, 3, 1), OpKind.AVG_POOL, replace(some, x_row=1), window=strided)
    refused(case, r"y: rows 1\.\.4 of a window of 3")
    for axes in ((1,), (2,), (1, 2, 3)):
        case = lone((1, 3, 3, 2), OpKind.MEAN, some, attrs=Mean(axes))
        refused(case, "y: a mean that leaves more than the channels")
    case = lone((1, 3, 3, 1), OpKind.MEAN, replace(some, partial=False, first=False, last=False),
                attrs=Mean((1, 2)))  # fmt: skip
    refused(case, "y: a mean has tiles in parts only")
    case = CASES["looked up"]()
    refused(case, r"a map \(2, 2\) of a sample that", steps=with_step(case, 4, map_hw=(2, 2)))


def test_two_inputs_of_tiles_are_alike() -> None:
    step = box(0, (0, 2), (0, 3), (0, 2), (0, 3), x=(0, 3), y=(64, 3), z=(0, 3))
    b, x = build((1, 2, 2, 3))
    small = b.input("small", (1, 1, 1, 3))
    graph = b.graph([b.add("y", OpKind.ADD, [x, small])])
    places = {"x": 0, "small": 48, "y": 64}
    case = Case(graph, Plan(PlanKind.INFER, 112, places, (step,)))
    refused(case, "y: tiles of two inputs that are not activations of one shape")
    b, x = build((1, 2, 2, 3))
    fixed = b.constant("fixed", Constant(np.ones((1, 2, 2, 3))))
    graph = b.graph([b.add("y", OpKind.ADD, [x, fixed])])
    case = Case(graph, Plan(PlanKind.INFER, 112, {"x": 0, "y": 64}, (step,)))
    refused(case, "y: tiles of two inputs that are not activations of one shape")


def test_weights_of_a_square_window_cannot_be_turned() -> None:
    b, x = build((1, 1, 5, 1))
    window = Window((3, 3), pads=(1, 1, 1, 1))
    y = b.add("y", OpKind.CONV2D, [x], window=window, weights=weights(1, 3, 3, 1))
    step = box(0, (0, 5), (0, 1), (0, 5), (0, 1), x=(0, 1), y=(20, 1), turned=True)
    case = Case(b.graph([y]), Plan(PlanKind.INFER, 40, {"x": 0, "y": 20}, (step,)))
    refused(case, r"a window of \(3, 3\) weights cannot be turned")
    case = CASES["two boxes"]()
    refused(case, "cannot be turned", steps=with_step(case, 0, turned=True))
    case = CASES["flattened"]()
    refused(case, "has no window to turn", steps=with_step(case, 1, turned=True))


def test_boxes_of_what_operators_read() -> None:
    case = CASES["two boxes"]()
    refused(case, "input rows 0..5 where the box takes 0..4", steps=with_step(case, 0, x_rows=5))
    refused(case, "input rows 1..5 where the box takes 2..6", steps=with_step(case, 1, x_row=1))
    refused(case, "channels 0..1 of 2", steps=with_step(case, 0, x_channels=1))
    refused(
        case, "rows 3..7 of the output, which has 6", steps=with_step(case, 1, rows=4, x_rows=4)
    )
    refused(case, "channels 0..4 of the output", steps=with_step(case, 0, channels=4))
    refused(case, "bytes are not pixels 0..16", steps=with_step(case, 0, x=4))
    refused(case, "1 elements from a pixel", steps=with_step(case, 0, x_step=1))
    refused(case, "a third place that nothing uses", steps=with_step(case, 0, z=4))
    refused(case, "the first or last of no partial sums", steps=with_step(case, 0, first=True))
    refused(case, r"a map \(0, 1\) of no fully connected", steps=with_step(case, 0, map_hw=(0, 1)))
    refused(case, "operator 1 of 1", steps=with_step(case, 0, op=1))
    refused(case, "runs whole, but its step says more", steps=with_step(case, 0, kind=OP))
    refused(case, "of its bytes were overwritten or never written", steps=case.plan.steps[:1])


def test_channels_that_one_input_channel_makes_stay_together() -> None:
    case = CASES["multiplied"]()
    shifted = with_step(case, 1, channel=3, y=case.plan.steps[1].y + 4)
    refused(case, "no multiples of the multiplier 2", steps=shifted)
    refused(case, "no multiples of the multiplier 2", steps=with_step(case, 1, channels=3))
    refused(case, "input channel 0, 1 of them", steps=with_step(case, 1, x_channel=0))


def test_what_is_kept_survives() -> None:
    case = CASES["whole"]()
    verify(case.graph, case.plan, keep=frozenset({"s", "f"}))
    for name in ("a", "r", "x"):
        kept = replace(case, keep=frozenset({name}))
        refused(kept, f"the end: {name} at")


def test_scratch_of_the_learner_lies_on_nothing_that_stays() -> None:
    case = CASES["whole"]()
    learn = replace(case.plan, kind=PlanKind.LEARN, arena_bytes=208)
    keep = frozenset({"f"})  # at 72..144, the output at 0..72

    def check(offset: int, size: int, arena: int = 208) -> bool:
        plan = replace(learn, learner_scratch=(offset, size), arena_bytes=arena)
        return accepts(case.graph, plan, keep)

    assert check(144, 64)
    assert not check(128, 80)  # on what is kept
    assert not check(64, 144)
    assert not check(152, 56)  # not aligned
    assert not check(144, 64, 144)
    assert accepts(case.graph, replace(case.plan, kind=PlanKind.LEARN), keep)
    infer = replace(case.plan, learner_scratch=(144, 64), arena_bytes=208)
    assert not accepts(case.graph, infer)


@pytest.mark.skipif(not MODELS.is_dir(), reason="no models beside the clone; set FIELDLOOP_SHARED")
@pytest.mark.parametrize("name", ["vww_96_int8", "resnet8_int8", "posenet_075_353_481_quant"])
def test_real_networks_are_verified_in_seconds(name: str) -> None:
    from fieldloop.sources import read_source

    graph = read_source(MODELS / f"{name}.tflite").imported.graph
    for seed in range(4):
        made = draft(graph, some_tilings(graph, random.Random(seed)))
        plan = plan_of(made, PlanKind.INFER)
        started = time.process_time()
        verify(made.graph, plan)
        assert time.process_time() - started < 30
