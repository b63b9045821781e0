"""Random .tflite files of single operators: numpy = C = TensorFlow Lite's reference kernels."""

from __future__ import annotations

import pytest

pytest.importorskip("tflite_micro", reason="the oracle: pip install tflite-micro")

from tflite_compare import compare
from tflite_single import BOTH, Single, quantize, single

SEEDS = range(4)
TABLES = ("RELU", "RELU6", "LOGISTIC", "TANH", "LEAKY_RELU", "PRELU", "HARD_SWISH", "ELU", "ABS")
PAIRS = [
    ("float32", "int8"),
    ("int8", "int8"),
    ("int8", "float32"),
    ("uint8", "int8"),
    ("int8", "uint8"),
    ("float32", "uint8"),
    ("uint8", "float32"),
]


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize("name", BOTH)
def test_against_tflite_micro(name: str, dtype: str) -> None:
    for seed in SEEDS:
        compare(single(name, dtype, seed), 2, seed=seed)


# LiteRT's kernels of uint8 know neither.
@pytest.mark.parametrize("name", sorted(BOTH.keys() - {"ELU", "ABS"}))
def test_uint8_against_litert(name: str) -> None:
    pytest.importorskip("ai_edge_litert", reason="the oracle: pip install ai-edge-litert")
    for seed in SEEDS:
        compare(single(name, "uint8", seed), 2, seed=seed)


@pytest.mark.parametrize("name", TABLES)
def test_every_int8_at_many_scales(name: str) -> None:
    """Each file holds all 256 values; the tables are worked out in the kernel's integers."""
    for seed in range(100, 160):
        compare(single(name, "int8", seed), 1, seed=seed)


@pytest.mark.parametrize("name", ["RELU", "RELU6", "LOGISTIC", "TANH", "LEAKY_RELU", "HARD_SWISH"])
def test_every_uint8_at_many_scales(name: str) -> None:
    pytest.importorskip("ai_edge_litert", reason="the oracle: pip install ai-edge-litert")
    for seed in range(100, 160):
        compare(single(name, "uint8", seed), 1, seed=seed)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_between_types(source: str, target: str) -> None:
    if "uint8" in (source, target):
        pytest.importorskip("ai_edge_litert", reason="the oracle: pip install ai-edge-litert")
    for seed in range(20):
        compare(quantize(Single(seed, "int8"), source=source, target=target), 2, seed=seed)
