"""A few of the kills of powercut_native.py, which does 200."""

from __future__ import annotations

import powercut_native
import pytest

CUTS = 16


@pytest.mark.zephyr
def test_a_killed_commit_leaves_the_old_state_or_the_new_one() -> None:
    tally = powercut_native.run(CUTS, seed=3, jobs=2)
    assert tally.lost == []
    assert tally.count() == CUTS
    # Both ends of a commit were met, and commits that had begun; every start made one that held.
    assert tally.count(found="old") > 0 and tally.count(found="new") > 0
    assert sum(tally.torn.values()) > 0
    assert tally.commits >= CUTS
