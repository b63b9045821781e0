"""A part of bench/sweep.py: shared models equal to their own runtimes, here and on boards."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fieldloop.compare.report import FLOAT_TOLERANCE
from fieldloop.compare.sweep import Case, Memory, make_case, on_board, on_host
from fieldloop.runtime.core import VARIANTS
from fieldloop.targets.pytest_plugin import need

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared")) / "models"
# The smallest of each kind of network; the whole of it is bench/sweep.py's.
NETWORKS = ("mnist_cnn_int8", "micro_speech", "kws_ref_model", "ad01_int8", "str_ww_ref_model")
FLOATS = ("magic_wand", "text_class")
INPUTS = 3

pytestmark = pytest.mark.skipif(
    not MODELS.is_dir(), reason="the shared models are not beside the project"
)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    layers = sorted((MODELS / "layers").glob("*.tflite"))
    networks = [MODELS / "tflite" / f"{name}.tflite" for name in NETWORKS]
    return [make_case(path, random=INPUTS) for path in (*layers, *networks)]


def test_every_layer_and_small_network_on_this_machine(cases: list[Case], tmp_path: Path) -> None:
    memory = Memory.at(tmp_path / "sweep.json")
    results = [result for case in cases for result in on_host(case, memory)]
    assert len(results) == len(VARIANTS) * (70 + len(NETWORKS))
    assert {r.samples for r in results} == {INPUTS}
    assert [r for r in results if not r.ok] == []


@pytest.mark.parametrize("name", ["qemu-an386", "qemu-an547"])
def test_layers_and_small_networks_on_a_board(
    cases: list[Case], tmp_path: Path, name: str
) -> None:
    need(name)
    # Every third layer: the rest differ in sizes only.
    part = [*cases[:70:3], *cases[70:]]
    results = on_board(part, name, Memory.at(tmp_path / "sweep.json"))
    assert len(results) == len(part)
    assert [r for r in results if not r.ok or r.note or r.samples != INPUTS] == []


@pytest.mark.parametrize("name", FLOATS)
def test_float_networks(tmp_path: Path, name: str) -> None:
    case = make_case(MODELS / "tflite" / f"{name}.tflite", random=INPUTS)
    assert not case.exact
    for result in on_host(case, Memory.at(tmp_path / "sweep.json")):
        assert result.max_rel_diff is not None and result.max_rel_diff <= FLOAT_TOLERANCE


def test_a_difference_is_counted_and_what_was_done_is_remembered(
    cases: list[Case], tmp_path: Path
) -> None:
    state = tmp_path / "sweep.json"
    right = cases[-1]
    first, *others = right.wanted
    wrong = replace(right, wanted=((first[0] ^ 1,), *others))
    assert [r.different for r in on_host(wrong, Memory.at(state))] == [1] * len(VARIANTS)
    assert [r.different for r in on_host(right, Memory.at(state))] == [0] * len(VARIANTS)
    # From the file: an image that would not open is not even looked at.
    broken = replace(right, image=b"")
    assert [r.different for r in on_host(broken, Memory.at(state))] == [0] * len(VARIANTS)
