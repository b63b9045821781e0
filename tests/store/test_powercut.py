"""Power cuts at every flash operation, and hostile flash, in C under the sanitizers."""

from __future__ import annotations

import shutil
import subprocess

import powercut
import pytest

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on the PATH")

QUICK = [g for g in powercut.GEOMETRIES if g.sector_bytes <= 1024 and g.sector_count <= 17]


@pytest.mark.parametrize("geometry", QUICK, ids=lambda g: f"{g.sector_count}x{g.sector_bytes}")
def test_a_cut_at_any_operation_leaves_the_old_state_or_the_new(
    geometry: powercut.Geometry,
) -> None:
    tally = powercut.run(geometry, seeds=3)
    assert tally["after"] == tally["operations"] > 30
    assert tally["inside"] == tally["failed"] == 3 * tally["operations"]
    assert tally["old"] > 0 and tally["new"] > 0
    assert tally["old"] + tally["new"] == tally["after"] + 2 * tally["inside"]
    assert tally["second"] > tally["operations"]


def test_wear_is_spread_over_the_ring() -> None:
    tally = powercut.run(powercut.Geometry(512, 8, 4, 400, 80), seeds=0)
    assert tally["wear_min"] >= 5
    assert tally["wear_max"] <= 2 * tally["wear_min"]


@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_flash_neither_crashes_nor_loops(seed: int) -> None:
    done = subprocess.run(
        [str(powercut.build("fuzz")), "8000", str(seed)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[:2000]
    assert done.stdout.split() == ["rounds=8000"]
