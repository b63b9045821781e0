"""`fieldloop demo --json` shows what issue 2 says it must."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fieldloop.cli.main import main
from fieldloop.targets import qemu


def demo(capfd: pytest.CaptureFixture[str], folder: Path, *words: str) -> dict[str, Any]:
    missing = qemu.missing_tools() + ([] if shutil.which("setpriv") else ["setpriv"])
    if missing:
        pytest.skip(f"the demo needs {', '.join(missing)}")
    code = main(["demo", "--json", "--output", str(folder), *words])
    done = capfd.readouterr()
    assert code == 0, done.err + done.out
    result: dict[str, Any] = json.loads(done.out)
    assert result["ok"] is True
    written = json.loads((folder / "report.json").read_text())
    assert written.items() <= result.items()
    page = (folder / "report.html").read_text()
    assert page.count("<svg") >= 4 and "http-equiv" not in page and "<script" not in page
    return result


def meets_what_it_must(r: dict[str, Any]) -> None:
    """Of any board."""
    assert r["teacher_accuracy"] >= 0.97
    assert abs(r["student_int8_accuracy"] - r["student_float_accuracy"]) <= 0.01
    assert r["device_bit_exact"] is True and r["device_samples_checked"] == 540
    assert r["device_learned_bit_exact"] is True
    assert r["ram_planned_bytes"] == r["ram_watermark_bytes"] > 0
    assert r["ram_learn_planned_bytes"] == r["ram_learn_watermark_bytes"] > 0
    assert r["new_class_accuracy_before"] <= 0.05
    assert r["new_class_accuracy_after"] >= 0.90
    assert r["old_class_accuracy_before"] - r["old_class_accuracy_after"] <= 0.045
    assert r["old_class_accuracy_before"] - r["naive_old_class_accuracy_after"] >= 0.10
    assert r["backward_mac_share"] <= 0.10
    assert r["backward_mac_share"] < r["total_mac_share"] < 1.0
    assert abs(r["dense_new_class_accuracy_after"] - r["new_class_accuracy_after"]) <= 0.03
    assert r["state_survived_power_cut"] is True
    assert r["state_equals_host"] is True


def counts_instructions(r: dict[str, Any]) -> None:
    """Of a board that QEMU simulates."""
    assert r["instructions_predict"] > r["ram_planned_bytes"]
    assert r["instructions_step"] > r["instructions_predict"]
    assert r["instructions_repeat"] is True


@pytest.mark.slow
def test_demo_on_a_cortex_m4(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    r = demo(capfd, tmp_path, "--board", "qemu-an386")
    meets_what_it_must(r)
    counts_instructions(r)


@pytest.mark.slow
def test_demo_without_an_fpu_on_a_part_that_people_own(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Soft floats, 256 KiB of RAM and 1 MiB of flash: the same bytes."""
    r = demo(capfd, tmp_path, "--board", "qemu-an385", "--map", "realistic", "--missing", "3,7")
    assert r["missing"] == [3, 7] and r["memory_map"] == "realistic"
    assert r["state_equals_host"] is True and r["device_bit_exact"] is True
