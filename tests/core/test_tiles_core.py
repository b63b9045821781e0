"""The core runs tiled plans: steps written by hand give the bytes of the whole operators."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from core_runner import check_image, random_inputs
from fuzz_image import HERE, build_sanitised
from more_ops import Maker
from single_ops import image_of
from tile_maker import Arena, NoTilesError, tiled

from fieldloop.errors import UsageError
from fieldloop.frontends.builder import GraphBuilder
from fieldloop.image.writer import Trainable, write_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, Op, OpKind, Requant, Window
from fieldloop.ir.tensor import Array, DType, Quant, Tensor
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.types import NO_MORE, More, Plan, PlanKind, Step, StepKind
from fieldloop.plan.way import saved_tensors
from fieldloop.quantize.fixedpoint import add_params
from fieldloop.quantize.ptq import quantize_graph
from fieldloop.runtime import Learner, LearnerConfig, Model, learner_sizes
from fieldloop.runtime.core import VARIANTS

INT8 = ("conv2d", "depthwise_conv2d", "fully_connected", "max_pool", "avg_pool")
BOTH = ("add_broadcast", "sub", "mul", "minimum", "maximum", "mean", "embedding")
ONE = ("add", "table", "quantize", "dequantize", "unary")
KINDS = (*INT8, *BOTH, *ONE)


def random_graph(maker: Maker, name: str) -> Graph:
    real = bool(maker.rng.random() < 0.4)
    if name in BOTH:
        graph: Graph = getattr(maker, name)(real=real)
        return graph
    graph = getattr(maker, name)()
    return maker.in_float(graph) if real and name in INT8 else graph


def one_dimensional(maker: Maker, rng: np.random.Generator) -> Graph:
    """A convolution, pool or mean along a map of one row, which tiles may turn."""
    width, channels, out = maker.int(4, 20), maker.int(1, 6), maker.int(1, 7)
    kernel, stride = maker.int(1, 4), maker.int(1, 2)
    pads = (0, 0, maker.int(0, kernel - 1), maker.int(0, kernel - 1))
    window = Window((1, kernel), (1, stride), (1, 1), pads)
    columns = window.output_size(1, width)[1]
    shape = (1, 1, width, channels)
    if rng.random() < 0.5:
        w = (out, 1, kernel, channels)
        return maker.weighted(OpKind.CONV2D, shape, w, (1, 1, columns, out), 0, window)
    w = (1, 1, kernel, channels)
    made = (1, 1, columns, channels)
    return maker.weighted(OpKind.DEPTHWISE_CONV2D, shape, w, made, 3, window)


def cases(name: str, seed: int, count: int) -> list[tuple[Graph, bytes]]:
    """Graphs and their images under random tiles, all accepted by the reader."""
    rng = np.random.default_rng([seed, *name.encode()])
    maker = Maker(rng)
    found: list[tuple[Graph, bytes]] = []
    while len(found) < count:
        turned = name in INT8 and rng.random() < 0.25
        graph = one_dimensional(maker, rng) if turned else random_graph(maker, name)
        try:
            image = tiled(graph, rng)
        except NoTilesError:
            continue
        assert check_image(image) == "FL_OK"
        found.append((graph, image))
    return found


@pytest.mark.parametrize("name", KINDS)
def test_boxes_make_the_whole(name: str) -> None:
    rng = np.random.default_rng(7)
    for graph, image in cases(name, 1, 25):
        inputs = random_inputs(graph, rng, 2)
        expected = Model(image_of(graph)).run(*inputs)
        for variant in VARIANTS:
            made = Model(image, variant=variant).run(*inputs)
            assert [m.tobytes() for m in made] == [e.tobytes() for e in expected], variant


@pytest.mark.parametrize("variant", VARIANTS)
def test_boxes_stay_in_the_arena(tmp_path: Path, variant: str) -> None:
    """The same under the sanitizers, in blocks of exactly the planned size."""
    driver = build_sanitised("run_images", [HERE / "run_images.c"], variant)
    rng = np.random.default_rng(8)
    records, expected = [], b""
    for name in KINDS:
        for graph, image in cases(name, 2, 12):
            inputs = random_inputs(graph, rng, 1)
            expected += Model(image_of(graph)).run(*inputs)[0].tobytes()
            records.append(struct.pack("<II", 0, len(image)) + image)
            records.extend(x.tobytes() for x in inputs)
    path = tmp_path / "images"
    path.write_bytes(b"".join(records))
    done = subprocess.run([str(driver), str(path)], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert done.stdout == expected


# ---- several operators


def network(seed: int = 0, *, real: bool = False) -> Graph:
    """x -> conv 3x3 -> conv 3x3 -> depthwise -> mean -> head, every one of them quantised."""
    rng = np.random.default_rng(seed)
    build = GraphBuilder("chain")
    x = build.input("x", (1, 12, 5, 3))
    same = Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    weights = {"a": (4, 3, 3, 3), "b": (6, 3, 3, 4)}
    y = x
    for name, shape in weights.items():
        y = build.add(
            name,
            OpKind.CONV2D,
            [y],
            window=same,
            weights=rng.normal(size=shape),
            bias=rng.normal(size=shape[0]),
        )
        clamped = build.clamp(f"{name}_relu", y, Clamp(0.0), private=True)
        assert clamped is not None
        y = clamped
    y = build.add(
        "d",
        OpKind.DEPTHWISE_CONV2D,
        [y],
        window=Window((3, 3), (2, 2), (1, 1), (1, 1, 1, 1)),
        weights=rng.normal(size=(1, 3, 3, 6)),
        bias=rng.normal(size=6),
    )
    y = build.add("flat", OpKind.RESHAPE, [y], shape=(1, int(np.prod(build.shape(y)))))
    y = build.add(
        "head",
        OpKind.FULLY_CONNECTED,
        [y],
        weights=rng.normal(size=(3, build.shape(y)[1])),
        bias=rng.normal(size=3),
    )
    graph = build.graph([y])
    if real:
        return graph
    return quantize_graph(graph, {"x": rng.normal(size=(16, 12, 5, 3))}).graph


def inputs_of(graph: Graph, count: int = 3) -> Array:
    rng = np.random.default_rng(11)
    shape = (count, *graph.tensors[graph.inputs[0]].shape)
    if graph.tensors[graph.inputs[0]].dtype is DType.FLOAT32:
        return rng.normal(size=shape).astype(np.float32)
    return rng.integers(-128, 128, shape).astype(np.int8)


def streamed(graph: Graph) -> Arena:
    """Both convolutions row by row: three rows of the first one's map are all that ever exists.

    Rows 1 to 9 of the second are one loop: make a row, use the three, shift them.
    """
    arena = Arena(graph)
    a, b, d, _, head = (op.output for op in graph.ops)
    size = graph.tensors[a].dtype.bytes
    arena.whole(graph.inputs[0], b, d)
    arena.offsets[graph.ops[3].output] = arena.offsets[d]
    arena.whole(head)
    xr, ar, br = 5 * 3 * size, 5 * 4 * size, 5 * 6 * size  # bytes of a row
    rows = arena.take(3 * ar)
    x, y = arena.offsets[graph.inputs[0]], arena.offsets[b]

    def first(row: int, slot: int, more: More = NO_MORE) -> Step:
        top, end = max(0, row - 1), min(12, row + 2)
        return Step(
            StepKind.TILE, 0, row, 1, 0, 4, top, end - top, 0, 3,
            x=x + top * xr, y=rows + slot * ar, x_step=3, y_step=4, more=more,
        )  # fmt: skip

    def second(row: int, slot: int, more: More = NO_MORE) -> Step:
        top, end = max(0, row - 1), min(12, row + 2)
        return Step(
            StepKind.TILE, 1, row, 1, 0, 6, top, end - top, 0, 4,
            x=rows + slot * ar, y=y + row * br, x_step=4, y_step=6, more=more,
        )  # fmt: skip

    # the loop makes row r + 1 in the last slot, while 0 and 1 hold rows r - 1 and r
    arena.steps = [
        first(0, 0),
        first(1, 1),
        second(0, 0),
        Step(StepKind.LOOP, 3, rows=9),
        first(2, 2, More(row=1, x_row=1, x=xr)),
        second(1, 0, More(row=1, x_row=1, y=br)),
        Step(StepKind.COPY, 1, x=rows + ar, y=rows, z=2 * ar),
        first(11, 2),
        second(10, 0),
        second(11, 1),
        Step(StepKind.OP, 2),
        Step(StepKind.OP, 4),
    ]
    return arena


def channels(graph: Graph) -> Arena:
    """The second convolution and the depthwise one in slices of two channels, in one loop."""
    arena = Arena(graph)
    a, _, d, _, head = (op.output for op in graph.ops)
    size = graph.tensors[a].dtype.bytes
    arena.whole(graph.inputs[0], a, d)
    arena.offsets[graph.ops[3].output] = arena.offsets[d]
    arena.whole(head)
    piece = arena.take(12 * 5 * 2 * size)
    arena.steps = [
        Step(StepKind.OP, 0),
        Step(StepKind.LOOP, 2, rows=3),
        Step(
            StepKind.TILE, 1, 0, 12, 0, 2, 0, 12, 0, 4,
            x=arena.offsets[a], y=piece, x_step=4, y_step=2, more=More(channel=2),
        ),
        Step(
            StepKind.TILE, 2, 0, 6, 0, 2, 0, 12, 0, 2,
            x=piece, y=arena.offsets[d], x_step=2, y_step=6,
            more=More(channel=2, x_channel=2, y=2 * size),
        ),
        Step(StepKind.OP, 4),
    ]  # fmt: skip
    return arena


def summed(graph: Graph) -> Arena:
    """From the second convolution on in slices of two channels, which end as sums of the head."""
    arena = Arena(graph)
    a, _, _, _, head = (op.output for op in graph.ops)
    size = graph.tensors[a].dtype.bytes
    arena.whole(graph.inputs[0], a)
    sums = arena.take(3 * 4)
    arena.offsets[head] = sums  # finished where it was summed
    piece, small = arena.take(12 * 5 * 2 * size), arena.take(6 * 3 * 2 * size)
    arena.steps.append(Step(StepKind.OP, 0))
    for c in (0, 2, 4):
        arena.steps += [
            Step(
                StepKind.TILE, 1, 0, 12, c, 2, 0, 12, 0, 4,
                x=arena.offsets[a], y=piece, x_step=4, y_step=2,
            ),
            Step(
                StepKind.TILE, 2, 0, 6, c, 2, 0, 12, c, 2,
                x=piece, y=small, x_step=2, y_step=2,
            ),
            Step(
                StepKind.TILE, 4, 0, 1, 0, 3, 0, 6, c, 2,
                x=small, y=sums, z=sums, x_step=2, y_step=3, z_step=3, map_hw=(6, 3),
                partial=True, first=c == 0, last=c == 4,
            ),
        ]  # fmt: skip
    return arena


PLANS = {"streamed": streamed, "channels": channels, "summed": summed}


def with_room(arena: Arena, size: int, *, learn: bool = False) -> bytes:
    """The image of an arena with room behind; with a plan of the same steps to learn its head."""
    arena.make_room(size)
    graph, steps = arena.graph, tuple(arena.steps)
    plans = [Plan(PlanKind.INFER, arena.end, arena.offsets, steps)]
    if not learn or graph.ops[3].output not in arena.offsets:
        return write_image(graph, plans)
    scratch = (arena.end - size + 15) // 16 * 16, size // 2
    plans.append(Plan(PlanKind.LEARN, arena.end, arena.offsets, steps, scratch))
    return write_image(graph, plans, trainables=[Trainable("head", 0.01)])


@pytest.mark.parametrize("real", [False, True], ids=["int8", "f32"])
@pytest.mark.parametrize("name", PLANS)
def test_networks_in_steps(name: str, real: bool) -> None:
    graph = network(real=real)
    arena = PLANS[name](graph)
    whole, x = Model(image_of(graph)), inputs_of(graph)
    expected = whole.run(x)[0]
    for variant in VARIANTS:
        model = Model(arena.image(), variant=variant)
        (made,) = model.run(x)
        if real and name == "summed":  # channels are not the order of a flattened map
            np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4)
        else:
            assert made.tobytes() == expected.tobytes()
        # every byte of the arena is used, scratch or not
        assert model.watermark() == model.arena_bytes == model.plan_bytes("INFER")
    assert model.steps == len(arena.steps)


def test_multiply_accumulates_are_those_that_run() -> None:
    graph = network()
    whole = Model(image_of(graph))
    for make in PLANS.values():
        assert Model(make(graph).image()).macs == whole.macs
    arena = streamed(graph)
    arena.steps.insert(0, arena.steps[0])  # a row twice
    twice = Model(arena.image())
    assert twice.macs - whole.macs == 5 * 4 * 3 * 3 * 3
    loop = next(i for i, s in enumerate(arena.steps) if s.kind is StepKind.LOOP)
    body = arena.steps[loop + 1]
    arena.steps.insert(loop + 1, body)  # and nine more
    arena.steps[loop] = replace(arena.steps[loop], op=4)
    assert Model(arena.image()).macs - twice.macs == 9 * 5 * 4 * 3 * 3 * 3


def test_operators_run_by_their_steps() -> None:
    """run_ops takes the steps of its operators, inside of loops too."""
    graph = network()
    arena = channels(graph)
    x = inputs_of(graph, 1)
    model, expected = Model(arena.image()), Model(image_of(graph)).run(x)[0]
    given = model.tensor(model.input_tensors[0])
    given[...] = x[0]
    model.run_ops(0, 1)
    model.run_ops(1, 3)
    model.run_ops(3, 5)
    made = model.tensor(model.output_tensors[0])
    np.testing.assert_array_equal(made.reshape(-1), expected[0])
    # the depthwise convolution alone sees what the last slice left
    before = model.tensor(model.output_tensors[0]).copy()
    model.run_ops(2, 3)
    model.run_ops(3, 5)
    assert (model.tensor(model.output_tensors[0]) != before).any()


def test_a_tensor_that_is_nowhere_whole() -> None:
    graph = network()
    arena = channels(graph)
    model = Model(arena.image())
    names = [t.name for t in graph.activations]
    missing = [n for n in names if n not in arena.offsets]
    assert missing == [graph.ops[1].output]
    numbers = [t for t in range(model.handle.tensor_count) if not is_there(model, t)]
    assert len(numbers) == 1
    assert model.info(numbers[0]).shape == graph.tensors[missing[0]].shape
    assert "in 5 steps" in repr(model)


def is_there(model: Model, t: int) -> bool:
    try:
        model.tensor(t)
    except UsageError as error:
        assert "never holds whole" in str(error)
        return False
    return True


def test_scratch_is_the_most_of_any_step() -> None:
    graph = network()
    whole, model = Model(image_of(graph)), Model(streamed(graph).image())
    plain = model.variant_arena_bytes("plain")
    for variant in ("dsp", "mve"):
        steps = [model.op_scratch_bytes(op, variant) for op in range(model.op_count)]
        assert model.variant_arena_bytes(variant) == -(-plain // 16) * 16 + max(steps)
        assert 0 < max(steps) <= whole.scratch_bytes(variant)


# ---- whole operators in place


QUANT = Quant((0.5,), 3)


def in_place(kind: OpKind) -> Arena:
    """Two inputs, and an operator whose output lies on the first."""
    shapes = {n: Tensor(n, (1, 4, 3), DType.INT8, QUANT) for n in "aby"}
    fixed = add_params(QUANT, QUANT, QUANT, Clamp())
    op = Op("op", kind, ("a", "b"), "y", fixed=fixed if kind is OpKind.ADD else Requant(-128, 127))
    arena = Arena(Graph("in_place", shapes, (op,), ("a", "b"), ("y",)))
    arena.whole("a", "b")
    arena.offsets["y"] = arena.offsets["a"]
    arena.steps = [Step(StepKind.OP, 0)]
    return arena


@pytest.mark.parametrize("kind", [OpKind.ADD, OpKind.MAXIMUM])
def test_elements_lie_on_their_input(kind: OpKind) -> None:
    arena = in_place(kind)
    x = np.random.default_rng(3).integers(-128, 128, (2, 5, 12)).astype(np.int8)
    expected = Model(image_of(arena.graph)).run(*x)[0]
    for variant in VARIANTS:
        np.testing.assert_array_equal(Model(arena.image(), variant=variant).run(*x)[0], expected)
    # without tiles, nothing may
    plan = Plan(PlanKind.INFER, arena.end, arena.offsets)
    assert check_image(write_image(arena.graph, [plan])) == "FL_EBADMSG"


# ---- learning


def test_learning_over_tiles() -> None:
    """The frozen front in tiles, the trained head whole: the same weights, byte for byte."""
    graph = network()
    infer = plan_graph(graph, PlanKind.INFER)
    whole = plan_graph(graph, PlanKind.LEARN, keep=[graph.ops[3].output, graph.ops[4].output])
    layers = [Trainable("head", 0.01)]
    arena = streamed(graph)
    # the trained layer, too: an output a step, from the weights that lie in RAM now
    x, y = (arena.offsets[name] for name in (graph.ops[4].inputs[0], graph.ops[4].output))
    n = graph.tensors[graph.ops[4].inputs[0]].size
    head = Step(
        StepKind.TILE, 4, 0, 1, 0, 1, 0, 1, 0, n,
        x=x, y=y, x_step=n, y_step=3, map_hw=(1, 1), more=More(channel=1, y=1),
    )  # fmt: skip
    arena.steps[-1:] = [Step(StepKind.LOOP, 1, rows=3), head]
    tiles = Plan(PlanKind.LEARN, arena.end, arena.offsets, tuple(arena.steps))
    images = [write_image(graph, [infer, p], trainables=layers) for p in (whole, tiles)]
    config = LearnerConfig(lr=3.0, replays=0, selector="dense", seed=5)
    learners = [Learner(Model(image), config) for image in images]
    for i, x in enumerate(inputs_of(graph, 20)):
        steps = [learner.step(x, i % 3) for learner in learners]
        assert steps[0] == steps[1]
    ours, theirs = (learner.state[32:] for learner in learners)  # behind the models' names
    assert ours == theirs
    start = Learner(Model(images[0]), config).state[32:]
    assert ours != start


def test_what_learning_reads_lies_whole() -> None:
    graph = network()
    infer = plan_graph(graph, PlanKind.INFER)
    arena = channels(graph)
    tiles = Plan(PlanKind.LEARN, arena.end, arena.offsets, tuple(arena.steps))

    def learns(layer: str, *plans: Plan) -> bool:
        image = write_image(graph, plans, trainables=[Trainable(layer, 0.01)])
        try:
            return learner_sizes(Model(image), LearnerConfig()).total_bytes > 0
        except UsageError as error:
            assert "FL_ENOTSUP" in str(error)
            return False

    assert learns("head", infer, tiles)
    assert not learns("d", infer, tiles)
    assert not learns("b", infer, tiles)
    # of no interest to a plan that nothing is learned under
    whole = plan_graph(graph, PlanKind.LEARN, keep=saved_tensors(graph, ["b"]))
    assert learns("b", replace(tiles, kind=PlanKind.INFER), whole)
    # a step that does not fit is one in either plan
    steps = (*arena.steps[:-1], Step(StepKind.COPY, 0, x=arena.end, z=1))
    layers = [Trainable("head", 0.01)]
    damaged = write_image(graph, [infer, replace(tiles, steps=steps)], trainables=layers)
    assert check_image(damaged) == "FL_EBADMSG"
