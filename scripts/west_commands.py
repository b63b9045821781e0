"""`west fieldloop ...`: fieldloop's command line from within a west workspace.

West runs in a Python of its own, often newer than fieldloop's and without torch. So this is only a
way to the program `fieldloop`, whichever Python that is installed in: every argument goes there as
it is, and its exit code comes back. Nothing of fieldloop is imported here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from west.commands import WestCommand

REPOSITORY = Path(__file__).resolve().parent.parent
# Zephyr 4.2 refuses to be built with a Python older than this.
ZEPHYR_PYTHON = (3, 12)


def find_program(environ: Mapping[str, str]) -> Path | str:
    """The program, or what is wrong and how to put it right."""
    given = environ.get("FIELDLOOP")
    if given:
        path = Path(given).expanduser()
        if path.is_file() and os.access(path, os.X_OK):
            return path
        return (
            f"FIELDLOOP should be the path of the program fieldloop, but {given} is not a file "
            "that can be run; set it to PATH/TO/VENV/bin/fieldloop or unset it"
        )
    for folder in ("bin", "Scripts"):
        found = shutil.which("fieldloop", path=str(REPOSITORY / ".venv" / folder))
        if found:
            return Path(found)
    found = shutil.which("fieldloop", path=environ.get("PATH"))
    if found:
        return Path(found)
    return (
        f"the program fieldloop is neither in {REPOSITORY / '.venv' / 'bin'} nor on the PATH, and "
        f"FIELDLOOP is not set; type `make -C {REPOSITORY} setup`, or install fieldloop with pip "
        "and set FIELDLOOP=PATH/TO/VENV/bin/fieldloop"
    )


class Fieldloop(WestCommand):
    """Passes everything on."""

    def __init__(self) -> None:
        super().__init__(
            "fieldloop",
            "runs fieldloop's own command line",
            "Every argument goes to the program fieldloop: $FIELDLOOP, .venv/bin/fieldloop of its "
            "clone, or the one on the PATH. `west fieldloop --help` tells its verbs.",
        )

    def do_add_parser(self, parser_adder: Any) -> argparse.ArgumentParser:
        # No character starts an option here, so that argparse takes none away, not even --help.
        parser: argparse.ArgumentParser = parser_adder.add_parser(
            self.name,
            help=self.help,
            description=self.description,
            add_help=False,
            prefix_chars="\0",
        )
        parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of fieldloop")
        return parser

    def do_run(self, args: argparse.Namespace, unknown: list[str]) -> None:
        program = find_program(os.environ)
        if isinstance(program, str):
            self.die(program, exit_code=2)
        environ = dict(os.environ)
        if sys.version_info >= ZEPHYR_PYTHON:
            # West's Python is the one that Zephyr's scripts run in.
            environ.setdefault("FIELDLOOP_ZEPHYR_PYTHON", sys.executable)
        command = [str(program), *args.arguments]
        self.dbg("running", *command)
        sys.stdout.flush()
        if os.name == "posix":
            # In place of west: its exit code and its answer to Ctrl-C are fieldloop's.
            os.execve(program, command, environ)
        sys.exit(subprocess.run(command, env=environ).returncode)
