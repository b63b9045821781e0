"""The pipeline: what may be trained, what is reported, what does not fit, and real digits."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from c_executor import run_c
from random_graphs import Grower, random_graph, samples_for

from fieldloop.compiler import INNER_RATE, compile_graph
from fieldloop.errors import DoesNotFitError, UsageError
from fieldloop.image.reader import read_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, OpKind, Window
from fieldloop.ir.reference import run
from fieldloop.ir.reference_int8 import run_int8
from fieldloop.plan.way import trainable_layers
from fieldloop.quantize.options import Method, QuantizeOptions
from fieldloop.runtime.model import Model


def plain(*, softmax: bool = True, clamp_head: bool = False) -> Graph:
    """conv, depthwise, pool, conv, flatten, head, softmax."""
    grower = Grower(np.random.default_rng(1))
    build = grower.build
    x = build.input("x", (1, 8, 8, 1))
    same = Window((3, 3), pads=(1, 1, 1, 1))
    for name, kind, shape in (
        ("one", OpKind.CONV2D, (4, 3, 3, 1)),
        ("two", OpKind.DEPTHWISE_CONV2D, (1, 3, 3, 4)),
    ):
        x = build.add(name, kind, [x], window=same, weights=grower.weights(*shape))
        x = build.clamp("relu", x, Clamp(0.0), private=True) or ""
    x = build.add("pool", OpKind.MAX_POOL, [x], window=Window((2, 2), (2, 2)))
    x = build.add("three", OpKind.CONV2D, [x], window=same, weights=grower.weights(6, 3, 3, 4))
    y = grower.head(x, softmax=softmax)
    if clamp_head:
        build.clamp("relu", "head", Clamp(0.0), private=True)
    return build.graph([y])


def residual() -> Graph:
    grower = Grower(np.random.default_rng(2))
    build = grower.build
    x = build.input("x", (1, 4, 4, 2))
    weights = grower.weights(2, 1, 1, 2)
    a = build.add("a", OpKind.CONV2D, [x], window=Window((1, 1)), weights=weights)
    b = build.add("b", OpKind.CONV2D, [a], window=Window((1, 1)), weights=weights)
    c = build.add("c", OpKind.ADD, [a, b])
    d = build.add("d", OpKind.CONV2D, [c], window=Window((1, 1)), weights=weights)
    return build.graph([grower.head(d, softmax=True)])


def test_what_can_be_trained() -> None:
    assert [op.name for op in trainable_layers(plain())] == ["head", "three", "two", "one"]
    assert [op.name for op in trainable_layers(residual())] == ["head", "d", "b", "a"]


@pytest.mark.parametrize(
    ("learn", "names"),
    [
        (None, []),
        (0, []),
        (1, ["head"]),
        (2, ["head", "three"]),
        (99, ["head", "three", "two", "one"]),
        (["two", "head"], ["head", "two"]),
    ],
)
def test_layers_are_chosen_from_the_output(learn: Any, names: list[str]) -> None:
    graph = plain()
    x = samples_for(graph, 0, 20)
    compiled = compile_graph(graph, x, learn=learn)
    assert [layer.op for layer in compiled.trainables] == names
    image = read_image(compiled.image)
    assert len(image.trainables) == len(names)
    assert len(image.plans) == (2 if names else 1)
    if not names:
        assert compiled.report.ram_learn_bytes is None
        return
    # what the backward pass reads has a place of its own in the learning plan
    plan = compiled.plans[1]
    chosen = [op.name for op in compiled.graph.ops].index(names[-1])
    kept = [compiled.graph.ops[chosen].inputs[0]]
    for op in compiled.graph.ops[chosen:-1]:
        if op.kind is not OpKind.RESHAPE:
            kept.append(op.output)
    tensors = compiled.graph.tensors
    spans = sorted((plan.offsets[n], plan.offsets[n] + tensors[n].bytes) for n in kept)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_learning_rates() -> None:
    graph = plain()
    x = samples_for(graph, 0, 50)
    seen: dict[str, np.ndarray] = {}
    run(graph, {"x": x}, lambda name, value: seen.update({name: value}))
    norm = np.square(seen["flatten"]).sum(axis=1).mean()
    compiled = compile_graph(graph, x, learn=2)
    rates = {layer.op: layer.lr_scale for layer in compiled.trainables}
    assert rates["head"] == pytest.approx(1.0 / norm)
    assert rates["three"] == pytest.approx(INNER_RATE / norm)


@pytest.mark.parametrize(
    ("graph", "options", "match"),
    [
        (plain(), {"learn": ["one", "pool"]}, r"\['pool'\] cannot be trained"),
        (plain(), {"learn": -1}, ">= 0"),
        (plain(clamp_head=True), {}, "linear logits"),
        (plain(), {"labels": ["a", "b"]}, "one per class"),
        (plain(), {"rehearsal": (np.zeros((2, 3)), np.zeros(2, int))}, "rehearsal: expected"),
        (plain(), {"rehearsal": (np.zeros((2, 8, 8, 1)), np.zeros(2))}, "class numbers"),
        (plain(), {"rehearsal": (np.zeros((2, 8, 8, 1)), np.array([0, 99]))}, "got 0 to 99"),
        (plain(), {"rehearsal": (np.zeros((2, 8, 8, 1)), np.array([-1, 0]))}, "got -1 to 0"),
    ],
)
def test_bad_requests(graph: Graph, options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        compile_graph(graph, samples_for(graph, 0, 10), **options)


def test_a_map_of_logits_cannot_be_learned() -> None:
    grower = Grower(np.random.default_rng(0))
    x = grower.build.input("x", (1, 4, 4, 2))
    y = grower.build.add(
        "map", OpKind.CONV2D, [x], window=Window((1, 1)), weights=grower.weights(3, 1, 1, 2)
    )
    graph = grower.build.graph([y])
    samples = samples_for(graph, 0, 10)
    with pytest.raises(UsageError, match="one logit per class"):
        compile_graph(graph, samples)
    assert compile_graph(graph, samples, learn=None).report.ram_learn_bytes is None


def test_a_dead_head_input_is_refused() -> None:
    graph = plain()
    with pytest.raises(UsageError, match="zero for every calibration sample"):
        compile_graph(graph, np.zeros((3, 8, 8, 1)))


def test_what_does_not_fit_says_by_how_much() -> None:
    graph = plain()
    x = samples_for(graph, 0, 10)
    report = compile_graph(graph, x).report
    assert report.ram_learn_bytes is not None
    compile_graph(graph, x, flash_limit=report.flash_bytes, ram_limit=report.ram_learn_bytes)
    with pytest.raises(DoesNotFitError, match="100 missing") as caught:
        compile_graph(graph, x, flash_limit=report.flash_bytes - 100)
    assert caught.value.exit_code == 5
    assert caught.value.needed_bytes == report.flash_bytes
    with pytest.raises(DoesNotFitError, match="in RAM"):
        compile_graph(graph, x, ram_limit=report.ram_learn_bytes - 1)


def test_the_report_adds_up() -> None:
    graph = plain()
    compiled = compile_graph(graph, samples_for(graph, 0, 10))
    report, image = compiled.report, read_image(compiled.image)
    assert report.flash_bytes == len(compiled.image)
    assert report.macs == image.macs == sum(layer.macs for layer in report.layers)
    assert report.macs == 8 * 8 * 4 * 9 + 8 * 8 * 4 * 9 + 4 * 4 * 6 * 36 + image.ops[-2].macs
    assert report.ram_infer_bytes == 512  # two maps of 8 x 8 x 4
    assert "three" in report.memory_map


@pytest.mark.parametrize("seed", range(10))
def test_both_plans_give_the_same_outputs(seed: int) -> None:
    graph = random_graph(seed, depth=4)
    compiled = compile_graph(graph, samples_for(graph, seed, 30), learn=3)
    q = compiled.input_quant.quantize(samples_for(graph, seed + 1, 5))
    np.testing.assert_array_equal(run_c(compiled.image, q), run_c(compiled.image, q, plan_kind=1))


@pytest.mark.parametrize("seed", range(10))
def test_the_arena_is_touched_to_its_last_byte(seed: int) -> None:
    graph = random_graph(seed, depth=4)
    compiled = compile_graph(graph, samples_for(graph, seed, 30), learn=None)
    model = Model(compiled.image)
    assert model.watermark() == compiled.report.ram_infer_bytes


@pytest.fixture(scope="module")
def digits() -> dict[str, Any]:
    """A small convolutional network trained on scikit-learn's digits for a few seconds."""
    torch = pytest.importorskip("torch")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from torch import nn

    data = load_digits()
    images = (data.images / 16.0).astype(np.float32)[:, None]
    x, xt, y, yt = train_test_split(
        images, data.target, test_size=0.3, random_state=0, stratify=data.target
    )
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 16, 10),
    )
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    inputs, targets = torch.tensor(x), torch.tensor(y)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors are tiny; threads would only wait for each other
    try:
        for _ in range(8):
            for rows in torch.randperm(len(inputs)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(inputs[rows]), targets[rows]).backward()
                optimizer.step()
    finally:
        torch.set_num_threads(threads)
    return {"net": net.eval(), "x": x, "xt": xt, "yt": yt}


def test_digits_lose_nothing_in_int8(digits: dict[str, Any]) -> None:
    import torch

    from fieldloop.frontends.torch_frontend import from_torch, to_nhwc

    net, xt, yt = digits["net"], digits["xt"], digits["yt"]
    graph = from_torch(net, torch.tensor(xt[:1]))
    compiled = compile_graph(graph, to_nhwc(digits["x"][:200]), labels=[str(i) for i in range(10)])
    with torch.no_grad():
        logits = net(torch.tensor(xt)).numpy()
    (real,) = run(graph, {graph.inputs[0]: to_nhwc(xt)}).values()
    np.testing.assert_allclose(real, logits, atol=1e-4)
    q = compiled.input_quant.quantize(to_nhwc(xt))
    (int8,) = run_int8(compiled.graph, {graph.inputs[0]: q}).values()
    float_accuracy = (logits.argmax(1) == yt).mean()
    int8_accuracy = (int8.argmax(1) == yt).mean()
    assert float_accuracy > 0.96
    assert abs(float_accuracy - int8_accuracy) <= 0.01
    np.testing.assert_array_equal(run_c(compiled.image, q[:60]), int8[:60])


def test_options_say_how_to_quantise() -> None:
    graph = plain()
    x = samples_for(graph, 0, 40)
    stages: list[tuple[str, int, int]] = []
    wide = compile_graph(graph, x, learn=None)
    narrow = compile_graph(
        graph,
        x,
        learn=None,
        options=QuantizeOptions(method=Method.PERCENTILE, percentile=90.0),
        progress=lambda *stage: stages.append(stage),
    )
    assert narrow.input_quant.scale < wide.input_quant.scale
    assert stages and stages[-1][1] == stages[-1][2]


def test_float_outputs_are_not_learned() -> None:
    graph = plain()
    x = samples_for(graph, 0, 40)
    options = QuantizeOptions(float_io=True)
    compiled = compile_graph(graph, x, options=options)
    assert compiled.trainables == ()
    model = Model(compiled.image)
    assert [t.dtype for t in (*model.inputs, *model.outputs)] == ["float32", "float32"]
    (real,) = run(graph, {"x": x}).values()
    assert np.abs(model.predict(x) - real).mean() < 0.05
    with pytest.raises(UsageError, match="something of float32"):
        compile_graph(graph, x, learn=1, options=options)
