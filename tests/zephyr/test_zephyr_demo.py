"""`fieldloop demo --json` on Zephyr meets what it must on MicroPython."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_demo import counts_instructions, demo, meets_what_it_must

from fieldloop.cli.main import main
from fieldloop.targets import roster
from fieldloop.targets.pytest_plugin import need


@pytest.mark.zephyr
@pytest.mark.parametrize("name", ["native_sim", "zephyr-an386"])
def test_demo(capfd: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    need(name)
    r = demo(capfd, tmp_path, "--board", name)
    meets_what_it_must(r)
    assert (r["board"], r["memory_map"]) == (name, None)
    assert r["firmware_rom_bytes"] > r["model_bytes"]
    if roster.lookup(name).machine:
        counts_instructions(r)
    else:
        assert r["instructions_predict"] is None and r["instructions_step"] is None
        assert r["instructions_repeat"] is None


def test_the_demo_wants_a_board_that_remembers(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["demo", "--output", str(tmp_path), "--board"]
    for name in ("zephyr-m3", "mpy-m3", "serial:/dev/null"):
        assert main([*words, name]) == 2
        assert "native_sim" in capfd.readouterr().err
    assert main([*words, "native_sim", "--map", "full"]) == 2
    assert "no memory maps" in capfd.readouterr().err


def test_without_a_workspace_the_demo_says_so_before_it_trains(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIELDLOOP_ZEPHYR_WS", "ZEPHYR_BASE"):
        monkeypatch.delenv(name, raising=False)
    assert main(["demo", "--output", str(tmp_path), "--board", "native_sim"]) == 1
    said = capfd.readouterr().err
    assert "set FIELDLOOP_ZEPHYR_WS" in said and "docs/getting-started/zephyr.md" in said
    assert "train a teacher" not in said
