"""--tiling and --mac-limit, and a tiled plan in words."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fieldloop.cli.console import Console, plural, short

if TYPE_CHECKING:
    from fieldloop.compile_report import TileReport
    from fieldloop.plan.search import Goal
    from fieldloop.plan.tilings import Tiling

MODES = ("none", "fdt", "ffmt", "auto")
TILINGS = """fdt   channels in slices through several layers, weights used once: no more work
ffmt  maps in tiles of rows, borders computed again: more work, see --mac-limit
auto  slices, rows that pass several layers through windows, layers in place: the
      least RAM without more work; with --mac-limit FACTOR tiles of rows as well"""


def add_tiling_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """How layers may be computed in parts, and what that may cost."""
    parser.add_argument(
        "--tiling",
        choices=MODES,
        default=default,
        help=f"compute layers in parts, for less RAM (default: {default})",
    )
    parser.add_argument(
        "--mac-limit",
        type=float,
        metavar="FACTOR",
        help="multiply-accumulates at most, as a multiple of the untiled model's: 1.05 is 5 %% "
        "more (default: 1 with fdt and auto, any number with ffmt)",
    )


def check_tiling(args: argparse.Namespace) -> Goal:
    """What is wanted, checked before any work is done."""
    from fieldloop.plan.search import Goal

    return Goal(args.tiling, args.mac_limit)


@contextmanager
def stages(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Progress of a long compilation: each stage by its name, once."""
    seen: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in seen:
            console.note(stage)
        seen[stage] = (done, total)
        console.progress(done, total)

    yield progress
    for done, total in list(seen.values())[-1:]:
        if done < total:  # a search may end before it has tried everything
            console.progress(total, total)


def tile_rows(tiles: Sequence[TileReport]) -> list[tuple[str, str]]:
    """A table's rows: which layers, and how."""
    return [
        ("tiled" if number == 0 else "", f"{_layers(tile)}: {_how(tile)}")
        for number, tile in enumerate(tiles)
    ]


def numbered(tilings: Sequence[Tiling]) -> str:
    """Tilings in short, layers by number from 1."""
    words = []
    for tiling in tilings:
        first, last = tiling.first + 1, tiling.last + 1
        layers = f"{first}" if first == last else f"{first}-{last}"
        amount = "" if tiling.kind.value == "in_place" else f" {tiling.amount}"
        words.append(f"{layers} {tiling.kind.value}{amount}")
    return ", ".join(words) or "none"


def overhead(factor: float) -> str:
    """What a plan computes twice, in words; empty when it is nothing."""
    return "" if factor == 0 else f", {100 * factor:+.1f} % to untiled"


def bound_words(bound: int, *, optimal: bool, tiling: str) -> str:
    """What is known about the least; without tiling, of plans without."""
    known = "the least there can be" if optimal else f"none can need less than {bound} bytes"
    return known if tiling != "none" else f"{known} without tiling"


def _layers(tile: TileReport) -> str:
    ends = dict.fromkeys((short(tile.first), short(tile.last)))
    return " to ".join(ends)


def _how(tile: TileReport) -> str:
    if tile.kind == "fdt":
        return f"in {plural(tile.amount, 'slice')} of channels"
    if tile.kind == "ffmt":
        return f"in {plural(tile.amount, 'tile')} of rows"
    if tile.kind == "stream":
        return "row by row" if tile.amount == 1 else f"{tile.amount} rows at a time"
    return "in place"
