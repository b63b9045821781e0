"""Runs the ztest suites through twister, on boards that it simulates and on two that QEMU does.

With the Python of the workspace, and ZEPHYR_BASE set:

    python zephyr_app/tests/run.py -O /tmp/twister -p native_sim/native/64 -p mps2/an386

Zephyr's board files name Arm's own simulator for mps2/an386 and mps2/an500, so twister only builds
for them; what it built is then started in QEMU here, and its report is read as twister would.
The last line of the output is one JSON object: {board: {"passed", "failed", "seconds"}}.
Exit code 1: a suite failed, was not built, or gave no report.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MACHINES = {"mps2/an386": "mps2-an386", "mps2/an500": "mps2-an500"}
BOARDS = ("native_sim/native/64", "qemu_cortex_m3", "mps2/an386", "mps3/corstone300/an547")
TIMEOUT_S = 120.0
Counts = dict[str, "dict[str, float]"]


def environment() -> dict[str, str]:
    """What the user set; else Debian's compiler for Arm, and this clone as the module."""
    env = dict(os.environ)
    if "ZEPHYR_TOOLCHAIN_VARIANT" not in env and "ZEPHYR_SDK_INSTALL_DIR" not in env:
        compiler = shutil.which("arm-none-eabi-gcc")
        if compiler is not None:
            env["ZEPHYR_TOOLCHAIN_VARIANT"] = "gnuarmemb"
            env["GNUARMEMB_TOOLCHAIN_PATH"] = str(Path(compiler).parents[1])
    env.setdefault("EXTRA_ZEPHYR_MODULES", str(HERE.parents[1]))
    return env


def twister(
    boards: list[str], out: Path, env: dict[str, str], jobs: int
) -> list[dict[str, object]]:
    """Builds all, runs what it can; the suites of its report."""
    script = Path(env["ZEPHYR_BASE"]) / "scripts" / "twister"
    words = [sys.executable, str(script), "-T", str(HERE), "-O", str(out), "-j", str(jobs)]
    words += ["--clobber-output", "--no-detailed-test-id"]
    if env.get("ZEPHYR_TOOLCHAIN_VARIANT") == "gnuarmemb":
        words.append("-x=TOOLCHAIN_HAS_PICOLIBC=ON")  # Debian's compiler brings its own
    for board in boards:
        words += ["-p", board]
    subprocess.run(words, env=env, check=False)
    report = out / "twister.json"
    if not report.exists():
        raise SystemExit(f"run.py: twister left no {report}; its words above say why")
    suites: list[dict[str, object]] = json.loads(report.read_text())["testsuites"]
    return suites


def in_qemu(elf: Path, machine: str) -> str:
    """What a suite says until it ends; the simulator never ends by itself."""
    words = ["qemu-system-arm", "-machine", machine, "-nographic", "-kernel", str(elf)]
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        said, until = b"", time.monotonic() + TIMEOUT_S
        os.set_blocking(process.stdout.fileno(), False)
        while b"PROJECT EXECUTION" not in said and time.monotonic() < until:
            said += process.stdout.read() or b""
            if process.poll() is not None:
                break
            time.sleep(0.05)
        process.kill()
    return said.decode(errors="replace")


def elf_of(out: Path, board: str, suite: str) -> Path | None:
    """Where twister built it."""
    found = [
        p
        for p in out.rglob("zephyr/zephyr.elf")
        if board.replace("/", "_") in p.parts[len(out.parts)]
        and suite in [part.rpartition("/")[2] for part in p.parts]
    ]
    return found[0] if found else None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "-O", "--out", type=Path, required=True, help="folder for twister's output"
    )
    parser.add_argument("-p", "--board", action="append", help=f"default: {', '.join(BOARDS)}")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    if "ZEPHYR_BASE" not in os.environ:
        parser.error(
            "set ZEPHYR_BASE to a checkout of Zephyr, for example /path/to/workspace/zephyr"
        )
    boards: list[str] = args.board or list(BOARDS)
    out = args.out.resolve()
    suites = twister(boards, out, environment(), args.jobs)
    counts: Counts = {b: {"passed": 0, "failed": 0, "seconds": 0.0} for b in boards}
    wrong: list[str] = []
    for suite in suites:
        board, name = str(suite["platform"]), str(suite["name"])
        if board not in counts:
            continue
        row, cases = counts[board], suite.get("testcases", [])
        assert isinstance(cases, list)
        if board in MACHINES and suite.get("status") in ("not run", None, "passed"):
            elf = elf_of(out, board, name)
            begin = time.monotonic()
            said = in_qemu(elf, MACHINES[board]) if elf is not None else ""
            row["seconds"] += time.monotonic() - begin
            (out / f"{board}-{name}.log".replace("/", "_")).write_text(said)
            passed = len(re.findall(r"^ PASS - ", said, re.M))
            failed = len(re.findall(r"^ FAIL - ", said, re.M))
            fine = "PROJECT EXECUTION SUCCESSFUL" in said and passed == len(cases) and not failed
        else:
            passed = sum(case.get("status") == "passed" for case in cases)
            failed = len(cases) - passed
            row["seconds"] += float(str(suite.get("execution_time", 0)))
            fine = suite.get("status") == "passed" and passed > 0 and not failed
        row["passed"] += passed
        row["failed"] += failed
        if not fine:
            wrong.append(f"{board} {name}: {suite.get('status')}, {passed} passed")
    wrong += [f"{board}: no suite ran" for board, row in counts.items() if row["passed"] == 0]
    for line in wrong:
        print(f"run.py: {line}", file=sys.stderr)
    print(json.dumps(counts))
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
