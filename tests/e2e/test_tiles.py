"""A part of bench/tiles.py on a board: tiled models make the bytes of untiled ones there, too."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fieldloop.compare.sweep import Case, Memory, Result, on_board
from fieldloop.compare.tiles import Cut, Cutter, whole_model
from fieldloop.image.format import ImagePlanKind
from fieldloop.sources import read_source
from fieldloop.targets.pytest_plugin import need

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared")) / "models"
BOARD = "qemu-an386"
# Two boots: all of the first, then the network with the large table. magic_wand is float32.
NETWORKS = ("mnist_cnn_int8", "micro_speech", "magic_wand", "kws_ref_model", "str_ww_ref_model")
LARGE = "text_class"
CUTS = (
    Cut("auto"),
    Cut("fdt"),
    Cut("fdt", 2),
    Cut("fdt", 7),
    Cut("ffmt", 3),
    Cut("stream", 2),
    Cut("stream", 7),
)

pytestmark = pytest.mark.skipif(
    not MODELS.is_dir(), reason="the shared models are not beside the project"
)


def cases(name: str, cuts: tuple[Cut, ...], folder: Path) -> list[Case]:
    """The cuts of a network that apply."""
    graph = read_source(MODELS / "tflite" / f"{name}.tflite").imported.graph
    cutter = Cutter(whole_model(name, graph, random=2), Memory(folder / f"{name}.json"))
    made = []
    for cut in cuts:
        tiled = cutter.tiled(cut)
        assert not tiled.wrong
        if tiled.uid:
            made.append(cutter.case(cut))
    return made


def check(result: Result, case: Case) -> None:
    assert (result.model, result.samples, result.note) == (case.name, 2, "")
    assert result.different == 0, (result.model, result.where)
    if case.painted:  # what the kernels need beside the plan is in the arena, too
        plan = case.parsed.plan(ImagePlanKind.INFER)
        assert plan is not None
        assert plan.arena_bytes <= result.touched_bytes == result.arena_bytes


def test_small_networks_in_parts(tmp_path: Path) -> None:
    need(BOARD)
    made = [case for name in NETWORKS for case in cases(name, CUTS, tmp_path)]
    assert len(made) > 30
    results = on_board(made, BOARD, Memory.at(tmp_path / "board.json"))
    assert len(results) == len(made)
    for result, case in zip(results, made, strict=True):
        check(result, case)


def test_the_large_table(tmp_path: Path) -> None:
    """And a wrong byte would be seen."""
    need(BOARD)
    right, other = cases(LARGE, (Cut("auto"), Cut("fdt", 7)), tmp_path)
    (first, *more) = other.wanted
    wrong = replace(other, wanted=((first[0] ^ 1,), *more))
    told, refused = on_board([right, wrong], BOARD, Memory.at(tmp_path / "board.json"))
    check(told, right)
    assert (refused.different, refused.where) == (1, "sample 0, output 0")
