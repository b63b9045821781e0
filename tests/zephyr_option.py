"""The marker `zephyr` and the option `--zephyr`: tests that need a Zephyr workspace.

Such a workspace comes from a git host, so a machine that reaches package registries only has none.
There the marked tests are skipped, never silently: each says why, and the end of the run says how
many there were and what would run them. With `--zephyr` (`make test-zephyr`) they run, and a
missing workspace is an error.
"""

from __future__ import annotations

from typing import Any

import pytest

from fieldloop.errors import FieldloopError
from fieldloop.targets import zephyr_workspace

MARKER = "zephyr"
COMMAND = "make test-zephyr FIELDLOOP_ZEPHYR_WS=/path/to/workspace"
BOARDS = ("native_sim/native/64", "mps2/an386")  # of this machine, and of Arm
REASON = f"needs a Zephyr workspace: {COMMAND}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("fieldloop").addoption(
        "--zephyr",
        action="store_true",
        help="run the tests marked `zephyr` too: Zephyr is built, simulated and talked to; needs "
        "a workspace (ZEPHYR_BASE or FIELDLOOP_ZEPHYR_WS)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{MARKER}: needs a Zephyr workspace; skipped, loudly, without --zephyr"
    )
    if config.getoption("--zephyr"):
        try:
            zephyr_workspace.find()
        except FieldloopError as error:
            raise pytest.UsageError(f"--zephyr: {error}") from None
        lacking = {line for board in BOARDS for line in zephyr_workspace.missing(board)}
        if lacking:
            raise pytest.UsageError(f"--zephyr: this machine lacks {'; '.join(sorted(lacking))}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--zephyr"):
        return
    for item in items:
        if item.get_closest_marker(MARKER):
            item.add_marker(pytest.mark.skip(reason=REASON))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", [])
        if REASON in str(report.longrepr)
    ]
    if not skipped:
        return
    files = sorted({report.nodeid.split("::")[0] for report in skipped})
    terminalreporter.section("ZEPHYR: NOT RUN", sep="!", red=True, bold=True)
    what = (
        "1 real Zephyr job was" if len(skipped) == 1 else f"{len(skipped)} real Zephyr jobs were"
    )
    terminalreporter.line(
        f"{what} SKIPPED: no firmware was built with Zephyr, none was simulated. See"
    )
    for name in files:
        terminalreporter.line(f"    {name}")
    terminalreporter.line("A Zephyr workspace (docs/getting-started/zephyr.md) runs them:")
    terminalreporter.line(f"    {COMMAND}")
