"""FDT from moves to the C core: programs, offsets, steps, image, the same bytes as untiled."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
from channel_finder import channel_paths
from random_chains import chain
from random_mixed import F32, I8, inputs_for, mixed_graph
from test_channels import network

from fieldloop.image.writer import write_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.shapes import macs
from fieldloop.ir.tensor import Array, DType
from fieldloop.plan.bind import bind, places
from fieldloop.plan.channel_paths import channel_path
from fieldloop.plan.channels import channel_macs
from fieldloop.plan.loops import compress
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.tilings import Tiling, TilingKind, draft
from fieldloop.plan.types import Plan, PlanKind
from fieldloop.plan.verify import verify
from fieldloop.runtime import Model
from fieldloop.runtime.core import VARIANTS

SAMPLES = 2


def tiled_plan(graph: Graph, first: int, last: int, parts: int, *, loops: bool) -> Plan:
    """One path in slices, the other operators whole."""
    made = draft(graph, [Tiling(first, last, TilingKind.FDT, parts)])
    steps = bind(made.program, made.stacking.offsets)
    return Plan(
        PlanKind.INFER,
        made.peak,
        MappingProxyType(places(made.program, made.stacking.offsets)),
        steps=compress(steps) if loops else steps,
    )


def outputs(graph: Graph, plan: Plan, inputs: dict[str, Array], variant: str) -> list[bytes]:
    model = Model(write_image(graph, [plan]), variant=variant)
    ordered = [inputs[name].reshape(SAMPLES, -1) for name in graph.inputs]
    return [np.ascontiguousarray(y).tobytes() for y in model.run(*ordered)]


def check(graph: Graph, paths: list[tuple[int, int]], counts: tuple[int, ...]) -> int:
    """Every path, in every number of parts that it has: bytes of each variant; how many."""
    inputs = inputs_for(graph, len(graph.ops), SAMPLES)
    whole = plan_graph(graph, PlanKind.INFER)
    expected = {variant: outputs(graph, whole, inputs, variant) for variant in VARIANTS}
    done = 0
    for first, last in paths:
        units = channel_path(graph, first, last).units
        for parts in sorted({min(n, units) for n in counts}):
            plan = tiled_plan(graph, first, last, parts, loops=parts % 2 == 0)
            verify(graph, plan)
            for variant in VARIANTS:
                got = outputs(graph, plan, inputs, variant)
                assert got == expected[variant], (first, last, parts, variant)
            done += 1
    return done


def all_paths(graph: Graph) -> list[tuple[int, int]]:
    return sorted({path for i in range(len(graph.ops)) for path in channel_paths(graph, i)})


@pytest.mark.parametrize("dtype", [I8, F32], ids=["int8", "float32"])
def test_random_chains_in_every_variant(dtype: DType) -> None:
    """float32 too: a path's sums are added in the whole kernel's order."""
    done = 0
    for seed in range(1000, 1040):
        graph = chain(seed, dtype=dtype)
        done += check(graph, all_paths(graph), (2, 3, 5))
    assert done > 100


def test_random_graphs_in_every_variant() -> None:
    done = 0
    for seed in range(5000, 5080):
        graph = mixed_graph(seed, depth=14)
        done += check(graph, all_paths(graph), (2, 4))
    assert done > 20


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("text_class", (7, 16)),
        ("magic_wand", (3, 8)),
        ("micro_speech", (3, 8)),
        ("ad01_int8", (2, 64)),
        ("kws_ref_model", (2, 9)),
        ("mnist_cnn_int8", (2, 18)),
        ("str_ww_ref_model", (4,)),
    ],
)
def test_every_path_of_real_networks(name: str, counts: tuple[int, ...]) -> None:
    graph = network(name)
    assert check(graph, all_paths(graph), counts) > 0


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("cifar10", [(0, 1), (2, 3)]),
        ("vww_96_int8", [(0, 1), (1, 2), (2, 3), (2, 4), (26, 29)]),
        ("resnet8_int8", []),
    ],
)
def test_paths_of_larger_networks(name: str, paths: list[tuple[int, int]]) -> None:
    graph = network(name)
    check(graph, paths or all_paths(graph), (3,))


def test_the_core_counts_what_slices_compute() -> None:
    """Rows that no pool reads are not computed, and nothing is computed twice."""
    for name, first, last in (("cifar10", 2, 3), ("vww_96_int8", 2, 4), ("ad01_int8", 3, 4)):
        graph = network(name)
        plan = tiled_plan(graph, first, last, 4, loops=True)
        whole = sum(op_macs(graph, first, last))
        spared = whole - channel_macs(graph, first, last)
        model = Model(write_image(graph, [plan]))
        assert model.macs == graph.macs() - spared
        assert (spared > 0) == (name == "cifar10")


def op_macs(graph: Graph, first: int, last: int) -> list[int]:
    return [macs(op, graph.tensors) for op in graph.ops[first : last + 1]]
