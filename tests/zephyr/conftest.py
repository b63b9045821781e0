"""What tests on real Zephyr share; ../zephyr_option.py says when they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fieldloop.targets import zephyr_workspace


@pytest.fixture(scope="session")
def workspace() -> zephyr_workspace.Workspace:
    """The workspace that the environment names; only tests marked `zephyr` may ask for it."""
    from fieldloop.targets import zephyr_workspace

    return zephyr_workspace.find()
