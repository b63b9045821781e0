"""The weights that ship are those of the table: the same file, the same answers."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from fieldloop import zoo
from fieldloop.train import measure
from fieldloop.train import zoo as training
from fieldloop.train.recipes import RECIPES
from fieldloop.zoo import data as data_sets
from fieldloop.zoo import registry

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared")) / "data"
TABLE = json.loads((ROOT / "docs" / "results" / "zoo.json").read_text())["trained"]
LARGEST = 400_000  # bytes of a weights file


@pytest.mark.parametrize("name", [name for name in RECIPES if name in TABLE])
def test_the_shipped_file_is_the_one_measured(name: str) -> None:
    path = registry.SHIPPED / f"{name}.npz"
    row = TABLE[name][0]
    assert row["seed"] == 0 and row["recipe"] == training.recipe_of(name).in_words()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == row["weights_sha256"]
    assert path.stat().st_size < LARGEST
    assert sum(p.numel() for p in zoo.load(name).parameters()) == row["parameters"]


@pytest.mark.parametrize("name", [name for name in RECIPES if name in TABLE])
def test_the_shipped_weights_answer_as_the_table_says(name: str) -> None:
    if not (DATA / str(registry.entry(name).data)).is_file():
        pytest.skip(f"the data set of {name} is not here")
    data = data_sets.load(name, DATA)
    network = zoo.load(name)
    compiled = measure.compile_trained(network, data, meta={"seed": 0})
    row = TABLE[name][0]
    assert compiled.report.macs == row["macs"]
    first = row["first"]["samples"]
    assert asdict(measure.measure(network, compiled.image, data, first=first)) == row["first"]


def test_int8_is_within_the_limit_for_every_seed() -> None:
    assert set(TABLE) >= {"har", "strokes", "spells"}
    for rows in TABLE.values():
        assert [row["seed"] for row in rows] == list(range(len(rows)))
        assert all(row["within_limit"] for row in rows)
