"""The search for the least arena: never worse than untiled, the same every time, and how low."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from random_graphs import random_graph

from fieldloop.errors import UsageError
from fieldloop.frontends.builder import GraphBuilder
from fieldloop.frontends.load import load_model
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import OpKind, Window
from fieldloop.plan.order import best_order
from fieldloop.plan.pareto import pareto
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.search import Goal, best_draft
from fieldloop.plan.tiled import plan_tiled
from fieldloop.plan.types import PlanKind
from fieldloop.plan.verify import verify

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared")) / "models" / "tflite"
needs_models = pytest.mark.skipif(
    not MODELS.is_dir(), reason=f"the shared models are not at {MODELS} (FIELDLOOP_SHARED)"
)

# Bytes of the whole arena without a multiply-accumulate more: what the issue of tiling asks for.
FDT = {
    "text_class": 2_112,
    "micro_speech": 2_480,
    "magic_wand": 4_416,
    "cifar10": 44_688,
    "vww_96_int8": 46_080,
}
AUTO = {**FDT, "vww_96_int8": 32_000, "kws_ref_model": 8_700, "magic_wand": 3_456}
LARGE = {  # mode, mac_limit -> bytes
    "ssd": (("fdt", None, 855_000), ("auto", 1.054, 518_136)),
    "posenet_075_353_481_quant": (("fdt", None, 1_625_994), ("auto", 1.05, 943_179)),
}


def model(name: str) -> Graph:
    ends = ("Squeeze", "convert_scores") if name == "ssd" else ()
    return best_order(load_model(MODELS / f"{name}.tflite", ends).graph)


def arena(graph: Graph, mode: str, mac_limit: float | None = None) -> int:
    planned = plan_tiled(graph, PlanKind.INFER, Goal(mode, mac_limit))
    verify(graph, planned.plan)
    limit = 1.0 if mac_limit is None else mac_limit
    assert mode == "ffmt" or planned.macs <= limit * graph.macs()
    assert planned.bound <= planned.plan.arena_bytes <= planned.untiled.arena_bytes
    return planned.plan.arena_bytes


@needs_models
@pytest.mark.parametrize("name", FDT)
def test_slices_of_channels_reach_the_published_figures(name: str) -> None:
    assert arena(model(name), "fdt") <= FDT[name]


@needs_models
@pytest.mark.parametrize("name", AUTO)
def test_all_ways_together_go_below_them(name: str) -> None:
    assert arena(model(name), "auto") <= AUTO[name]


@pytest.mark.slow
@needs_models
@pytest.mark.parametrize("name", LARGE)
def test_large_detectors(name: str) -> None:
    graph = model(name)
    for mode, mac_limit, most in LARGE[name]:
        assert arena(graph, mode, mac_limit) <= most


@needs_models
def test_tiles_with_a_halo_keep_to_their_budget() -> None:
    graph = model("vww_96_int8")
    free, little, any_ = (arena(graph, "ffmt", limit) for limit in (1.0, 1.05, None))
    assert free >= little >= any_
    assert little <= 39_768


@pytest.mark.parametrize("mode", ["fdt", "ffmt", "auto"])
@pytest.mark.parametrize("seed", range(12))
def test_never_worse_than_untiled_and_the_same_every_time(seed: int, mode: str) -> None:
    graph = best_order(random_graph(seed, depth=6))
    goal = Goal(mode)
    planned = plan_tiled(graph, PlanKind.INFER, goal)
    verify(graph, planned.plan)
    assert planned.plan.arena_bytes <= plan_graph(graph, PlanKind.INFER).arena_bytes
    assert plan_tiled(graph, PlanKind.INFER, goal).plan == planned.plan


@pytest.mark.parametrize("seed", range(8))
def test_what_allows_more_is_never_worse(seed: int) -> None:
    graph = best_order(random_graph(seed, depth=6))
    slices, rows, more = (
        plan_tiled(graph, PlanKind.INFER, goal).plan.arena_bytes
        for goal in (Goal("fdt"), Goal("auto"), Goal("auto", 1.3))
    )
    assert slices >= rows >= more


def test_the_floor_counts_reshapes_of_one_value_once() -> None:
    build = GraphBuilder("twice")
    x = build.input("x", (1, 4, 4, 8))
    w = np.ones((8, 1, 1, 8), np.float32)
    y = build.add("conv", OpKind.CONV2D, [x], window=Window((1, 1)), weights=w)
    graph = build.graph([y, build.add("flat", OpKind.RESHAPE, [y], shape=(1, 128))])
    planned = plan_tiled(graph, PlanKind.INFER, Goal("auto"))
    assert planned.bound == 512 < planned.plan.arena_bytes == 640


def test_what_must_stay_stays() -> None:
    """A plan to learn with: kept tensors, and the learner's scratch beside them at the end."""
    graph = best_order(random_graph(3, depth=6))
    keep = frozenset({graph.ops[-2].output, graph.ops[-1].output})
    planned = plan_tiled(graph, PlanKind.LEARN, Goal("auto", keep=keep, scratch=100))
    verify(graph, planned.plan, keep=keep)
    offset, size = planned.plan.learner_scratch
    assert size >= 100 and offset % 16 == 0 and offset + size <= planned.plan.arena_bytes


def test_the_front_has_no_point_that_another_beats() -> None:
    graph = best_order(random_graph(5, depth=6))
    front = pareto(graph)
    assert front[0].ram_bytes == best_draft(graph, Goal("auto")).peak
    for a in front:
        for b in front:
            better = (b.ram_bytes, b.macs, b.added) != (a.ram_bytes, a.macs, a.added)
            assert not (
                better and b.ram_bytes <= a.ram_bytes and b.macs <= a.macs and b.added <= a.added
            )
    assert min(point.added for point in front) == 0


@pytest.mark.parametrize("limit", [0.99, -1.0, math.nan, math.inf])
def test_limits_that_mean_nothing_are_refused(limit: float) -> None:
    with pytest.raises(UsageError, match="factor of 1 or more"):
        Goal("auto", limit)


def test_a_limit_without_tiling_is_refused() -> None:
    with pytest.raises(UsageError, match="for tiled plans"):
        Goal("none", 1.5)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="none, fdt, ffmt, auto, got 'best'"):
        Goal("best")
