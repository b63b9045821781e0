"""The headers that the ztest suites compare with are what the host makes today."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from fieldloop import paths

SCRIPT = paths.core_dir().parents[1] / "zephyr_app" / "tests" / "make_data.py"


def make_data() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_data", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_headers_are_what_the_script_writes() -> None:
    for path, text in make_data().files().items():
        assert path.read_text() == text, f"{path.name} is old: run python {SCRIPT}"


def test_making_them_twice_gives_the_same_bytes() -> None:
    module = make_data()
    assert module.files() == module.files()
