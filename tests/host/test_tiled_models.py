"""Real networks and layers, cut in every way: each byte of each output is the untiled one's.

A part of bench/tiles.py, which has more parts, and boards.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fieldloop.compare.sweep import Memory, raw_sample
from fieldloop.compare.tiles import KINDS, Cut, Cutter, Whole, first_difference, whole_model
from fieldloop.image.reader import read_image
from fieldloop.runtime.core import VARIANTS
from fieldloop.sources import compile_source, read_source

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared")) / "models"
# Below 20 M multiply-accumulates; how many different images the cuts make at least.
NETWORKS = {
    "ad01_int8": 4,
    "aww": 12,
    "cifar10": 12,
    "kws_ref_model": 12,
    "magic_wand": 12,
    "micro_speech": 11,
    "mnist_cnn_int8": 11,
    "resnet8_int8": 12,
    "str_ww_ref_model": 12,
    "text_class": 11,
    "vww_96_int8": 12,
}
PARTS = (2, 3, 7, 16)
CUTS = (Cut("auto"), *(Cut(kind, parts) for kind in KINDS for parts in PARTS))
STORED = {"micro_speech": "micro_speech", "cifar10": "cifar10", "text_class": "text_class"}

pytestmark = pytest.mark.skipif(
    not MODELS.is_dir(), reason="no models beside the clone; set FIELDLOOP_SHARED"
)


def load(path: Path) -> Whole:
    """A model with one random input, and where it has them one that is stored."""
    source = read_source(path)
    folder = MODELS / "io" / STORED.get(path.stem, "-") / "input"
    parsed = read_image(compile_source(source).image)
    stored = [raw_sample(source, parsed, p.read_bytes()) for p in sorted(folder.glob("*"))[:1]]
    assert len(stored) == (path.stem in STORED)
    return whole_model(path.stem, source.imported.graph, stored=stored, random=1)


def check(path: Path, folder: Path) -> set[str]:
    """Every cut that applies: verified, its promises kept, the same bytes. The images' uids."""
    cutter = Cutter(load(path), Memory(folder / f"{path.stem}.json"))
    seen: set[str] = set()
    for cut in CUTS:
        tiled = cutter.tiled(cut)
        assert not tiled.wrong, (path.stem, str(cut))
        if not tiled.uid or tiled.uid in seen:
            continue
        seen.add(tiled.uid)
        results = cutter.on_host(cut, tiled)
        assert [r.runner for r in results] == [f"host-{variant}" for variant in VARIANTS]
        for result in results:
            assert result.samples > 0
            assert result.different == 0, (result.model, result.runner, result.where)
    return seen


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, tmp_path: Path) -> None:
    assert len(check(MODELS / "tflite" / f"{name}.tflite", tmp_path)) >= NETWORKS[name]


def test_all_single_layers(tmp_path: Path) -> None:
    files = sorted((MODELS / "layers").glob("*.tflite"))
    assert len(files) == 70
    assert sum(len(check(path, tmp_path)) for path in files) > 300


# ---- that a difference would be seen


def test_one_wrong_byte_is_named(tmp_path: Path) -> None:
    whole = load(MODELS / "tflite" / "mnist_cnn_int8.tflite")
    (right,) = whole.outputs[0]
    changed = right.copy()
    changed.reshape(-1)[7] ^= 1
    wrong = replace(whole, outputs=((changed,),))
    cut = Cut("stream", 3)
    cutter = Cutter(wrong, Memory(tmp_path / "wrong.json"))
    tiled = cutter.tiled(cut)
    for result in cutter.on_host(cut, tiled):
        assert (result.samples, result.different) == (1, 1)
        a, b = right.reshape(-1)[7], changed.reshape(-1)[7]
        assert result.where == f"sample 0, output 0, element 7: {a}, untiled {b}"
        assert result.model == "mnist_cnn_int8 stream 3"


def test_bytes_are_the_measure() -> None:
    """Minus zero is not zero, and one NaN is another only where its bits are."""
    zero, nan = np.float32(0.0), np.float32(np.nan)
    for a, b, same in ((zero, -zero, False), (nan, nan, True), (nan, -nan, False)):
        found = first_difference([np.array([[1.0, a]])], [np.array([[1.0, b]])])
        assert (found == "") == same
        assert same or found.startswith("output 0, element 1: ")


def test_what_was_done_is_remembered(tmp_path: Path) -> None:
    whole = load(MODELS / "tflite" / "mnist_cnn_int8.tflite")
    state, cut = tmp_path / "state.json", Cut("ffmt", 2)
    first = Cutter(whole, Memory.at(state))
    tiled = first.tiled(cut)
    results = first.on_host(cut, tiled)
    # From the file: of a graph that cannot be cut, nothing is asked.
    again = Cutter(replace(whole, graph=None), Memory.at(state))  # type: ignore[arg-type]
    assert again.tiled(cut) == tiled
    assert again.on_host(cut, tiled) == results
    with pytest.raises(AttributeError):
        again.tiled(Cut("ffmt", 3))
