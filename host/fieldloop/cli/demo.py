"""fieldloop demo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fieldloop import paths
from fieldloop.cli.console import Console, Output, table
from fieldloop.cli.digit_options import add_digit_arguments
from fieldloop.targets import roster

if TYPE_CHECKING:
    from fieldloop.demo.flow import Demo

HELP = """Trains a network on some handwritten digits, flashes it to a simulated board,
checks it bit by bit, teaches it the missing digits there, cuts the power, and
writes a report."""
EXAMPLE = "fieldloop demo --board qemu-an500 --missing 3,7 --output report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--board",
        default="qemu-an386",
        metavar="NAME",
        help=f"a simulated board: {', '.join(_boards())} (default: %(default)s)",
    )
    parser.add_argument("--map", metavar="NAME", help="memory map: full or realistic")
    add_digit_arguments(parser)
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="repeat training and learning from N seeds on the host, and report the means",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where the report goes (default: build/demo)"
    )


def _boards() -> list[str]:
    """As flow.boards() has them; not asked there, since that brings torch."""
    return [name for name, spec in roster.load().items() if spec.remembers]


def run(args: argparse.Namespace, console: Console) -> Output:
    from fieldloop.demo.flow import DemoOptions, run_demo
    from fieldloop.demo.report import prepare, write_report
    from fieldloop.demo.result import as_json

    folder = args.output or paths.build_dir() / "demo"
    prepare(folder)
    options = DemoOptions(
        board=args.board,
        memory=args.map,
        seed=args.seed,
        missing=args.missing,
        seeds=args.seeds,
    )
    demo = run_demo(options, console)
    page, data = write_report(demo, folder)
    content = as_json(demo.result, demo.seeds)
    content["report_html"], content["report_json"] = str(page), str(data)
    return Output(content, f"{_text(demo)}\n\nreport: {page}", 0 if content["ok"] else 1)


def _text(demo: Demo) -> str:
    from fieldloop.demo.result import checks

    rows = [
        ("ok" if check.ok else "FAILED", check.name, check.got, check.expected)
        for check in checks(demo.result, demo.seeds)
    ]
    failed = sum(row[0] == "FAILED" for row in rows)
    digits = " and ".join(map(str, demo.result.missing))
    verdict = (
        f"{failed} of {len(rows)} checks failed"
        if failed
        else f"The board learned {digits}, kept them through a power cut, and equals the host "
        "to the byte."
    )
    return f"{table(rows)}\n\n{verdict}"
