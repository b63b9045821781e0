"""Makes `fieldloop` importable from a clone; brings the fixture `board` and `--zephyr`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

if importlib.util.find_spec("fieldloop") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "host"))

# The oracles serve the tests of several rooms.
sys.path.insert(0, str(Path(__file__).resolve().parent / "oracles"))

_PLUGIN = "fieldloop.targets.pytest_plugin"


def _comes_by_itself() -> bool:
    """True when the installed package's entry point has pytest load the plugin already."""
    if os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD"):
        return False
    return any(
        point.value == _PLUGIN for point in importlib.metadata.entry_points(group="pytest11")
    )


pytest_plugins = ["zephyr_option"] if _comes_by_itself() else [_PLUGIN, "zephyr_option"]
