"""What tests on real Zephyr share; ../zephyr_option.py says when they run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fieldloop.targets import zephyr_workspace

# The model of the device's tests, and the ways to drive a server.
for _folder in ("device", "link", "e2e"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / _folder))


@pytest.fixture(scope="session")
def workspace() -> zephyr_workspace.Workspace:
    """The workspace that the environment names; only tests marked `zephyr` may ask for it."""
    return zephyr_workspace.find()
