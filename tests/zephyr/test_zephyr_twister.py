"""The ztest suites in zephyr_app/tests, built and run by twister.

Zephyr 4.2 knows no other simulator of mps2/an386 than Arm's FVP: without one twister builds for
it, runs nothing, and calls that passed. So the status of every single case is looked at, and what
twister only built is run here, in QEMU.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fieldloop import paths
from fieldloop.targets import zephyr_workspace

ROOT = Path(__file__).resolve().parents[2]
SUITES = ("core", "link", "server", "store")
# Board -> the machine that QEMU calls it, where twister cannot start it.
PLATFORMS = {
    "native_sim/native/64": None,
    "qemu_cortex_m3": None,
    "mps2/an386": "mps2-an386",
    "mps3/corstone300/an547": None,
}
pytestmark = pytest.mark.zephyr


@dataclass(frozen=True, slots=True)
class Report:
    folder: Path
    suites: list[dict[str, Any]]
    said: str

    def of(self, platform: str) -> list[dict[str, Any]]:
        """Twister adds the chip to a board's name where that is left out."""
        return [s for s in self.suites if f"{s['platform']}/".startswith(f"{platform}/")]


@pytest.fixture(scope="module")
def report(workspace: zephyr_workspace.Workspace) -> Report:
    folder = paths.build_dir() / "zephyr" / "twister"
    # For Arm; native_sim takes the host's compiler in any case, and no libc but the host's.
    environment, words = zephyr_workspace.tools(workspace, "mps2/an386")
    environment["EXTRA_ZEPHYR_MODULES"] = str(ROOT)
    command = [
        *(str(workspace.python), str(workspace.base / "scripts" / "twister")),
        *("-T", str(ROOT / "zephyr_app" / "tests"), "-O", str(folder), "--clobber-output"),
        *("-j", "2", "--inline-logs", "--no-detailed-test-id", "--timeout-multiplier", "3"),
        *(f"-x={word.removeprefix('-D')}" for word in words if "PICOLIBC=ON" in word),
        *(word for platform in PLATFORMS for word in ("-p", platform)),
    ]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=workspace.top, timeout=3600
    )
    said = done.stdout + done.stderr
    made = folder / "twister.json"
    assert made.is_file(), said[-4000:]
    return Report(folder, json.loads(made.read_text())["testsuites"], said)


def run_in_qemu(elf: Path, machine: str, limit_s: float = 180) -> str:
    """What a suite says until it has ended; QEMU itself never does."""
    command = ["qemu-system-arm", "-machine", machine, "-nographic", "-vga", "none"]
    log = elf.parent / "qemu.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "-kernel", str(elf)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            end = time.monotonic() + limit_s
            while time.monotonic() < end and process.poll() is None:
                if "PROJECT EXECUTION" in log.read_text(errors="replace"):
                    break
                time.sleep(0.2)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    return log.read_text(errors="replace")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_twister_passes_on(
    platform: str, report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report.of(platform)
    by_twister = by_us = 0
    for suite in found:
        what = f"{suite['name']} on {platform}"
        assert suite["status"] == "passed", f"{what}: {suite['status']}\n{report.said[-4000:]}"
        cases = suite["testcases"]
        assert cases, what
        states = {case["status"] for case in cases}
        machine = PLATFORMS[platform]
        if states == {"passed"}:
            by_twister += len(cases)
            continue
        assert machine and not states & {"failed", "error", "blocked"}, f"{what}: {states}"
        place = report.folder / platform.replace("/", "_")
        (elf,) = place.rglob(f"{suite['name']}/zephyr/zephyr.elf")
        said = run_in_qemu(elf, machine)
        assert "PROJECT EXECUTION SUCCESSFUL" in said, f"{what}:\n{said[-4000:]}"
        passed = set(re.findall(r"^ ?PASS - (?:test_)?(\w+) in ", said, re.M))
        assert len(passed) == len(cases), f"{what}: {len(cases)} cases expected\n{said[-4000:]}"
        by_us += len(passed)
    assert {suite["name"] for suite in found} >= {f"fieldloop.{name}" for name in SUITES}
    with capsys.disabled():
        run = f"{by_twister} cases by twister" if by_twister else f"{by_us} cases in QEMU"
        print(f"\n{platform}: {len(found)} suites, {run}, all passed", end=" ")
