"""Random graphs, cut in every way: verified, and each byte of each output the untiled one's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from random_graphs import random_graph, samples_for
from random_mixed import mixed_graph
from random_tall import tall_graph

from fieldloop.compare.sweep import Memory
from fieldloop.compare.tiles import KINDS, MODES, Cut, Cutter, whole_model
from fieldloop.ir.graph import Graph
from fieldloop.quantize.ptq import quantize_graph

CUTS = (*(Cut(mode) for mode in MODES), *(Cut(kind, n) for kind in KINDS for n in (1, 2, 3, 5)))


class Forgetful(Memory):
    """Results are not worth a file here."""

    def save(self) -> None:
        pass


def check(graph: Graph, what: str) -> Counter[str]:
    """How many plans of each kind were run, in every variant of the kernels."""
    cutter = Cutter(whole_model(what, graph, random=2), Forgetful(Path()))
    done: Counter[str] = Counter()
    for cut in CUTS:
        tiled = cutter.tiled(cut)
        assert not tiled.wrong, (what, str(cut))
        if not tiled.uid:
            continue
        done[cut.kind if cut.parts else f"search {cut.kind}"] += 1
        for result in cutter.on_host(cut, tiled):
            assert result.different == 0, (result.model, result.runner, result.where)
    return done


def test_tall_graphs() -> None:
    """Odd strides, dilations and pads, maps of one row, residuals, outputs that are read inside,
    embeddings, chains of elementwise operators and of reshapes; int8 and float32.
    """
    done: Counter[str] = Counter()
    for seed in range(30):
        done += check(tall_graph(seed), f"tall {seed}")
    assert min(done[kind] for kind in KINDS) > 40
    assert min(done[f"search {mode}"] for mode in ("ffmt", "auto")) > 10 and done["search fdt"] > 0


def test_mixed_graphs() -> None:
    """Every operator, int8 and float32 in one graph, several inputs and outputs."""
    done: Counter[str] = Counter()
    for seed in range(7000, 7012):
        done += check(mixed_graph(seed, depth=10), f"mixed {seed}")
    assert done.total() > 12


@pytest.mark.parametrize("quantised", [False, True], ids=["float32", "int8"])
def test_classifiers(quantised: bool) -> None:
    done: Counter[str] = Counter()
    for seed in range(6):
        graph = random_graph(seed, depth=5)
        if quantised:
            graph = quantize_graph(graph, {"x": samples_for(graph, seed, 8)}).graph
        done += check(graph, f"classifier {seed}")
    assert done.total() > 30
