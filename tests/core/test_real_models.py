"""Real networks and real layers, where they are at hand: the core = TensorFlow Lite Micro."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from core_runner import CoreModel, random_inputs
from single_ops import image_of

pytest.importorskip("tflite_micro", reason="the oracle: pip install tflite-micro")

from tflite_reader import read_graph
from tflite_writer import run_tflite

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared"))
MODELS = SHARED / "models"
NETWORKS = ("kws_ref_model", "vww_96_int8", "resnet8_int8", "ad01_int8", "str_ww_ref_model", "aww")

pytestmark = pytest.mark.skipif(
    not MODELS.is_dir(), reason="no models beside the clone; set FIELDLOOP_SHARED"
)


def compare(path: Path, samples: int) -> None:
    model = path.read_bytes()
    graph = read_graph(model)
    rng = np.random.default_rng(1)
    inputs = random_inputs(graph, rng, samples)
    got = CoreModel(image_of(graph)).run(*inputs)
    np.testing.assert_array_equal(got, run_tflite(model, *inputs))


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str) -> None:
    compare(MODELS / "tflite" / f"{name}.tflite", 3)


def test_single_layers() -> None:
    files = sorted((MODELS / "layers").rglob("*.tflite"))
    assert len(files) >= 60
    for path in files:
        compare(path, 2)
