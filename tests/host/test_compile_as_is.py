"""Graphs compiled as they came: float32, and int8 from elsewhere, which can still learn."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from random_graphs import random_graph, samples_for

from fieldloop.compiler import compile_graph
from fieldloop.errors import UsageError
from fieldloop.frontends.load import load_model
from fieldloop.image import format as f
from fieldloop.image.reader import read_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Requant
from fieldloop.ir.reference import run
from fieldloop.plan.lifetimes import buffers, lower_bound
from fieldloop.plan.way import trainable_layers
from fieldloop.runtime import Learner, LearnerConfig, Model

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared"))


def quantised(seed: int, *, softmax: bool = True) -> tuple[Graph, np.ndarray]:
    graph = random_graph(seed, depth=3, softmax=softmax)
    x = samples_for(graph, seed, 40)
    return compile_graph(graph, x, learn=None).graph, x


@pytest.mark.parametrize("seed", range(20))
def test_a_float_graph_stays_float(seed: int) -> None:
    graph = random_graph(seed, depth=1 + seed % 5, softmax=seed % 2 > 0)
    x = samples_for(graph, seed, 4).astype(np.float32)
    compiled = compile_graph(graph)
    image = read_image(compiled.image)
    assert {t.dtype for t in image.tensors} == {f.Dtype.F32}
    assert compiled.trainables == () and compiled.report.ram_learn_bytes is None
    assert compiled.report.flash_bytes == len(compiled.image)
    assert {layer.dtype for layer in compiled.report.layers} == {"float32"}
    model = Model(compiled.image)
    (expected,) = run(graph, {"x": x}).values()
    limit = 1e-5 * np.abs(expected).max()
    got = model.predict(x)
    assert got.dtype == np.float32
    assert np.abs(got - expected.reshape(len(x), -1)).max() <= limit
    assert model.watermark() == compiled.report.ram_infer_bytes == model.arena_bytes


def test_a_float_graph_takes_four_times_the_room() -> None:
    graph = random_graph(3, depth=4)
    real = compile_graph(graph).report
    int8 = compile_graph(graph, samples_for(graph, 3, 20), learn=None).report
    assert real.ram_infer_bytes == 4 * int8.ram_infer_bytes
    assert real.macs == int8.macs
    for wide, narrow in zip(real.layers, int8.layers, strict=True):
        assert wide.output_bytes == 4 * narrow.output_bytes


def test_an_int8_graph_is_compiled_as_it_is() -> None:
    graph, x = quantised(7)
    again = compile_graph(graph)
    assert again.trainables == ()
    for name, tensor in graph.tensors.items():
        assert again.graph.tensors[name] is tensor
    # samples change nothing of it
    assert compile_graph(graph, x).image == again.image


@pytest.mark.parametrize("seed", range(6))
def test_an_int8_graph_can_learn(seed: int) -> None:
    """Rates come from the samples: those of the quantised values are near those of the real."""
    source = random_graph(seed, depth=3)
    x = samples_for(source, seed, 40)
    first = compile_graph(source, x, learn=2)
    again = compile_graph(first.graph, x, learn=2)
    assert [t.op for t in again.trainables] == [t.op for t in first.trainables]
    for a, b in zip(again.trainables, first.trainables, strict=True):
        assert a.lr_scale == pytest.approx(b.lr_scale, rel=0.05)
    model = Model(again.image)
    learner = Learner(model, LearnerConfig(lr=0.5, seed=1))
    before = model.predict_int8(x[:8]).copy()
    for i in range(8):
        learner.step(x[i], 1)
    assert learner.stats.trained > 0
    assert (model.predict_int8(x[:8]) != before).any()
    learner.close()
    np.testing.assert_array_equal(model.predict_int8(x[:8]), before)


def test_learning_needs_samples() -> None:
    graph, _ = quantised(2)
    with pytest.raises(UsageError, match="needs samples to find its learning rates; give"):
        compile_graph(graph, learn=1)
    with pytest.raises(UsageError, match="and to become int8"):
        compile_graph(random_graph(2), learn=1)


def test_the_older_arithmetic_is_not_trained() -> None:
    """A zero point of the weights, or a single rounding: the way back stops there."""
    graph, _ = quantised(4)
    head = trainable_layers(graph)[0]
    assert isinstance(head.fixed, Requant)
    once = replace(head, fixed=replace(head.fixed, single_rounding=True))
    assert trainable_layers(graph.with_ops([once if op is head else op for op in graph.ops])) == ()
    w = graph.tensors[head.inputs[1]]
    assert w.quant is not None
    moved = replace(w, quant=replace(w.quant, scales=w.quant.scales[:1], axis=None, zero_point=3))
    assert trainable_layers(replace(graph, tensors={**graph.tensors, w.name: moved})) == ()


def test_a_float_input_has_no_quantisation() -> None:
    compiled = compile_graph(random_graph(1))
    with pytest.raises(UsageError, match="not int8"):
        _ = compiled.input_quant


# What TensorFlow Lite Micro's planner takes for the activations of the same model (measured with
# the package; None: it does not load the model), and the most bytes live at one step.
HEADS: dict[str, tuple[int | None, int]] = {
    "aww": (16_000, 16_000),
    "kws_ref_model": (16_000, 16_000),
    "vww_96_int8": (73_728, 55_296),
    "resnet8_int8": (49_152, 49_152),
    "ad01_int8": (768, 768),
    "str_ww_ref_model": (6_656, 6_656),
    "micro_speech": (5_968, 5_960),
    "mnist_cnn_int8": (2_144, 2_136),
    "text_class": (17_408, 17_408),
    "magic_wand": (13_824, 13_824),
    "cifar10": (144_000, 144_000),
    "posenet_075_353_481_quant": (None, 3_071_304),
    "ssd": (None, 1_620_000),
}
CUTS = {"ssd": ("Squeeze", "convert_scores")}  # up to its post-processing operator


def shared_model(name: str) -> Graph:
    path = SHARED / "models" / "tflite" / f"{name}.tflite"
    if not path.exists():
        pytest.skip("no models beside the clone; set FIELDLOOP_SHARED")
    return load_model(path, outputs=CUTS.get(name, ())).graph


@pytest.mark.parametrize("name", sorted(HEADS))
def test_real_networks_take_no_more_than_their_largest_step(name: str) -> None:
    graph = shared_model(name)
    head, live = HEADS[name]
    begin = time.process_time()
    compiled = compile_graph(graph)
    assert time.process_time() - begin < 10.0
    assert compiled.report.ram_infer_bytes == live == lower_bound(buffers(compiled.graph))
    assert head is None or live <= head
    # what is in flash is mostly weights
    constants = sum(t.bytes for t in graph.tensors.values() if t.is_constant)
    assert constants < compiled.report.flash_bytes < 1.5 * constants + 10_000


def test_a_network_from_elsewhere_learns() -> None:
    graph = shared_model("kws_ref_model")
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (12, *graph.tensors[graph.inputs[0]].shape[1:])).astype(np.int8)
    compiled = compile_graph(graph, x, learn=1)
    model = Model(compiled.image)
    learner = Learner(model, LearnerConfig(lr=0.5, seed=3))
    wrong = int(np.argmin(model.predict_int8(x[:1])))
    for _ in range(40):
        learner.step(x[0], wrong)
    assert int(model.classify(x[:1])[0]) == wrong
