"""Jobs that need a workspace are skipped loudly, and an asked-for run without one fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SELF = "tests/zephyr/test_zephyr_option.py"


def run_pytest(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.zephyr
def test_a_workspace_is_there(workspace: object) -> None:
    """With --zephyr; otherwise the job whose skipping the tests below look at."""
    assert workspace


def test_without_the_option_the_job_is_skipped_loudly() -> None:
    code, text = run_pytest(SELF, "-k", "a_workspace_is_there", "-rs")
    assert code == 0, text
    assert "1 skipped" in text
    assert "needs a Zephyr workspace: make test-zephyr FIELDLOOP_ZEPHYR_WS=/path" in text
    assert "ZEPHYR: NOT RUN" in text
    assert "1 real Zephyr job was SKIPPED" in text


def test_other_runs_do_not_talk_about_zephyr() -> None:
    code, text = run_pytest("tests/test_house.py", "-k", "registry")
    assert code == 0, text
    assert "ZEPHYR" not in text


def test_with_the_option_but_no_workspace_it_is_an_error(tmp_path: Path) -> None:
    env = {"ZEPHYR_BASE": str(tmp_path / "none"), "FIELDLOOP_ZEPHYR_WS": str(tmp_path / "none")}
    code, text = run_pytest(SELF, "--zephyr", "-k", "a_workspace_is_there", env=env)
    assert code == pytest.ExitCode.USAGE_ERROR, text
    assert "--zephyr: " in text and "FIELDLOOP_ZEPHYR_WS" in text
