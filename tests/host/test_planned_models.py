"""The arenas of real networks, untiled: none gets worse, and each is proven to be the least."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fieldloop.plan.layout import layout_of
from fieldloop.plan.lifetimes import buffers
from fieldloop.plan.order import order_bound
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.types import PlanKind
from fieldloop.plan.verify import verify
from fieldloop.sources import read_source

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared"))
MODELS = SHARED / "models" / "tflite"
TRUNK = ("Squeeze", "convert_scores")  # what the detector's post-processing reads
ARENAS = {
    "ad01_int8": 768,
    "aww": 16_000,
    "cifar10": 144_000,
    "kws_ref_model": 16_000,
    "magic_wand": 13_824,
    "micro_speech": 5_960,
    "mnist_cnn_int8": 2_136,
    "posenet_075_353_481_quant": 3_071_304,
    "resnet8_int8": 49_152,
    "ssd": 1_620_000,
    "str_ww_ref_model": 6_656,
    "text_class": 17_408,
    "vww_96_int8": 55_296,
}

pytestmark = pytest.mark.skipif(
    not MODELS.is_dir(), reason="no models beside the clone; set FIELDLOOP_SHARED"
)


@pytest.mark.parametrize("name", ARENAS)
def test_untiled_arena_is_the_least(name: str) -> None:
    path = MODELS / f"{name}.tflite"
    graph = read_source(path, outputs=TRUNK if name == "ssd" else ()).imported.graph
    found = order_bound(graph)
    plan = plan_graph(found.graph, PlanKind.INFER)
    verify(found.graph, plan)
    assert plan.arena_bytes == ARENAS[name]
    # no order has less live at one step, and the layout needs no more than that
    assert found.proven and found.bound == plan.arena_bytes
    assert layout_of(buffers(found.graph)).optimal
