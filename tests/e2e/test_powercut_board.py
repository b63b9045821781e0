"""A few of the power cuts of powercut_board.py, which does 500."""

from __future__ import annotations

import powercut_board
import pytest

from fieldloop.targets import qemu

CUTS = 20


@pytest.mark.skipif(bool(qemu.missing_tools()), reason=f"needs {', '.join(qemu.missing_tools())}")
def test_a_power_cut_leaves_the_old_state_or_the_new_one() -> None:
    tally = powercut_board.run("qemu-an386", CUTS, seed=3, jobs=2)
    assert tally.lost == []
    assert tally.count() == CUTS
    # Both ends of a commit were met, in both ways, and every start was followed by a commit.
    assert tally.count(found="old") > 0 and tally.count(found="new") > 0
    assert tally.count(how="after") > 0 and tally.count(how="inside") > 0
    assert tally.commits >= CUTS
