"""fieldloop plan."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldloop.cli.console import Console, Output, table
from fieldloop.cli.files import prepare_file, write_file
from fieldloop.cli.source import add_source_arguments, options_of, source_of
from fieldloop.cli.tiling import (
    MODES,
    TILINGS,
    add_tiling_arguments,
    bound_words,
    check_tiling,
    numbered,
    overhead,
    stages,
    tile_rows,
)
from fieldloop.errors import UsageError

if TYPE_CHECKING:
    from fieldloop.ir.graph import Graph
    from fieldloop.plan.chart import Band, Chart
    from fieldloop.plan.search import Goal
    from fieldloop.plan.tiled import Planned

HELP = f"""Shows where everything lies in RAM while a network runs, untiled and tiled: as text,
or drawn (--svg). --pareto tells what less RAM costs in work: every plan that none
beats in both.

MODEL is a .tflite, an .onnx or a Python file, as for compile. --tiling:
{TILINGS}"""
EXAMPLE = """fieldloop plan network.tflite --svg memory.svg
  fieldloop plan network.tflite --pareto"""

SVG_COLUMNS, TEXT_ROWS = 1000, 48  # of one map; where a plan has more steps, the fullest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="MODEL", help="a network file")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw it")
    parser.add_argument(
        "--pareto", action="store_true", help="RAM against work, for all that tiling can do"
    )
    add_tiling_arguments(parser, "auto")
    add_source_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> Output:
    from fieldloop.sources import compile_source

    goal = check_tiling(args)
    prepare_file(args.svg, source=Path(args.source), option="--svg")
    source = source_of(args)
    if args.pareto and args.tiling == "none":
        raise UsageError("--pareto is about tiling; leave --tiling none out")
    console.stage(f"plan {args.source}")
    with stages(console) as progress:
        graph = compile_source(source, options=options_of(args), progress=progress).graph
    return _front(args, graph, console) if args.pareto else _map(args, graph, goal, console)


def _front(args: argparse.Namespace, graph: Graph, console: Console) -> Output:
    """What all searches have met and nothing else beats in RAM, work and steps."""
    from fieldloop.compile_report import tile_reports
    from fieldloop.plan.pareto import pareto
    from fieldloop.plan.svg_front import Spot, front_svg

    modes = tuple(m for m in MODES if m != "none") if args.tiling == "auto" else (args.tiling,)
    begun = time.monotonic()
    with stages(console) as progress:
        points = pareto(graph, modes=modes, mac_limit=args.mac_limit, progress=progress)
    work = graph.macs()
    found: list[dict[str, Any]] = [
        {
            "ram_bytes": point.ram_bytes,
            "macs": point.macs,
            "mac_overhead": point.macs / work - 1.0 if work else 0.0,
            "added_instructions": point.added,
            "steps": point.steps,
            "tiles": [asdict(tile) for tile in tile_reports(graph, point.tilings)],
        }
        for point in points
    ]
    data: dict[str, Any] = {
        "untiled_macs": work,
        "points": found,
        "planner_seconds": time.monotonic() - begun,
        "svg": None if args.svg is None else str(args.svg),
    }
    rows: list[tuple[str, ...]] = [("RAM", "MACs", "more", "added", "steps", "tiled layers")]
    spots = []
    for point, entry in zip(points, found, strict=True):
        more, tiled = entry["mac_overhead"], numbered(point.tilings)
        numbers = (point.ram_bytes, point.macs, f"{100 * more:+.1f} %", point.added, point.steps)
        rows.append((*map(str, numbers), tiled))
        says = f"{point.ram_bytes:,} bytes, {point.macs:,} MACs, {point.steps} steps\n{tiled}"
        spots.append(Spot(point.ram_bytes, more, point.added, says))
    note = (
        "added: instructions of a Cortex-M4 for steps and copies, about; steps: as they run, each "
        "turn of a loop; layers from 1"
    )
    text = f"{table(rows)}\n\n{note}"
    if args.svg is not None:
        write_file(
            args.svg, front_svg(f"{Path(args.source).name}: RAM against work", spots).encode()
        )
        text += f"\ndrawn: {args.svg}"
    return Output(data, text)


def _map(args: argparse.Namespace, graph: Graph, goal: Goal, console: Console) -> Output:
    """Untiled and tiled, one above the other, or drawn side by side."""
    from fieldloop.compile_report import tile_reports
    from fieldloop.plan.svg import memory_map_svg
    from fieldloop.plan.text_map import text_map
    from fieldloop.plan.tiled import plan_tiled
    from fieldloop.plan.types import PlanKind

    begun = time.monotonic()
    with stages(console) as progress:
        planned = plan_tiled(graph, PlanKind.INFER, goal, progress)
    seconds = time.monotonic() - begun
    if args.svg is not None:
        write_file(args.svg, memory_map_svg(_charts(graph, planned, SVG_COLUMNS)).encode())
    untiled, ram = planned.untiled.arena_bytes, planned.plan.arena_bytes
    work, steps = graph.macs(), len(planned.plan.steps)
    more = planned.macs / work - 1.0 if work else 0.0
    tiles = tile_reports(graph, planned.tilings)
    charts = _charts(graph, planned, TEXT_ROWS)
    data: dict[str, Any] = {
        "ram_bytes": ram,
        "untiled_ram_bytes": untiled,
        "macs": planned.macs,
        "untiled_macs": work,
        "mac_overhead": more,
        "tiles": [asdict(tile) for tile in tiles],
        "steps": steps,
        "optimal": planned.optimal,
        "bound_bytes": planned.bound,
        "planner_seconds": seconds,
        "buffers": {chart.title: [_value(band) for band in chart.bands] for chart in charts},
        "svg": None if args.svg is None else str(args.svg),
    }
    least = bound_words(planned.bound, optimal=planned.optimal, tiling=args.tiling)
    rows = [
        ("RAM", f"{ram} bytes, {least}"),
        ("RAM without tiling", f"{untiled} bytes"),
        ("work", f"{planned.macs} multiply-accumulates{overhead(more)}"),
        *(tile_rows(tiles) or [("tiled", "nothing: no tiling needs less RAM")]),
        ("steps", str(steps or len(graph.ops))),
    ]
    if args.tiling == "none":
        rows = [row for row in rows if row[0] not in ("RAM without tiling", "tiled")]
    text = table(rows)
    if args.svg is not None:
        return Output(data, f"{text}\n\ndrawn: {args.svg}")
    full = max(chart.peak for chart in charts)
    maps = [f"{chart.title}\n{text_map(chart, full=full)}" for chart in charts]
    return Output(data, "\n\n".join([text, *maps]))


def _charts(graph: Graph, planned: Planned, most: int) -> list[Chart]:
    from fieldloop.plan.chart import chart_of_plan, chart_of_program

    charts = [chart_of_plan(graph, planned.untiled, "untiled", most=most)]
    if planned.draft is not None and planned.tilings:
        program, offsets = planned.draft.program, planned.draft.stacking.offsets
        charts.append(chart_of_program(graph, program, offsets, "tiled", most=most))
    return charts


def _value(band: Band) -> dict[str, Any]:
    return {
        "name": band.name,
        "kind": band.kind.name.lower(),
        "bytes": band.bytes,
        "from": band.start,
        "to": band.end,
        "first": band.first,
        "last": band.last,
    }
