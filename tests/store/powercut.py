"""Cuts the power after and inside every flash operation of runs of commits, and prints the tally.

    python tests/store/powercut.py [--seeds N]

Each row is one flash geometry: a run of commits, undoes and reboots is repeated once for every
flash operation in it, with the power cut right after that operation, and N times with the cut
inside it. After each cut the store must hold the old state or the new one, whole; then a second
cut hits one of the next operations, and after that further commits must work. The same with an
operation that fails while the power stays. All of it is done in C, under ASan and UBSan
(powercut.c, nor.c).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "host"))

from fieldloop import paths  # noqa: E402

FLAGS = (
    *("-std=c99", "-O1", "-g", "-Wall", "-Wextra", "-Werror"),
    *("-Wdouble-promotion", "-Wfloat-conversion"),
    *("-fsanitize=address,undefined,alignment", "-fno-sanitize-recover=all"),
)


@dataclass(frozen=True, slots=True)
class Geometry:
    sector_bytes: int
    sector_count: int
    prog_bytes: int
    payload_bytes: int
    commits: int
    ecc: bool = False


# Every program unit, from the fewest sectors to many, payloads from a handful of bytes to several
# sectors; with ecc, a torn unit answers an error instead of bytes.
GEOMETRIES = (
    Geometry(512, 2, 1, 100, 40),
    Geometry(512, 2, 8, 80, 40, ecc=True),
    Geometry(1024, 2, 32, 200, 30),
    Geometry(512, 3, 16, 60, 40),
    Geometry(256, 7, 4, 190, 40),
    Geometry(256, 8, 2, 5, 40),
    Geometry(256, 16, 32, 600, 40),
    Geometry(256, 17, 16, 600, 40, ecc=True),
    Geometry(4096, 5, 8, 1500, 24),
    Geometry(8192, 5, 32, 3800, 24),
    Geometry(256, 64, 4, 2900, 36),
    Geometry(4096, 16, 8, 14000, 12),
)


def build(name: str) -> Path:
    """Compiles a driver of this folder with the store, under the sanitizers; returns its path."""
    core = paths.core_dir()
    sources = [HERE / f"{name}.c", HERE / "nor.c", core / "base" / "fl_crc.c"]
    sources += sorted((core / "store").glob("*.c"))
    watched = [*sources, HERE / "nor.h", *core.glob("store/*.h"), *core.glob("include/*/*.h")]
    folder = paths.build_dir() / "tests-store"
    folder.mkdir(exist_ok=True)
    out = folder / name
    if out.exists() and out.stat().st_mtime > max(p.stat().st_mtime for p in watched):
        return out
    partial = folder / f"{name}.{os.getpid()}"
    command = [
        os.environ.get("CC", "cc"),
        *FLAGS,
        f"-I{core / 'include'}",
        f"-I{core}",
        f"-I{HERE}",
    ]
    subprocess.run([*command, *map(str, sources), "-o", str(partial)], check=True)
    partial.replace(out)
    return out


def run(geometry: Geometry, seeds: int) -> dict[str, int]:
    """The tally of one geometry. Raises with what was lost."""
    g = geometry
    arguments = (g.sector_bytes, g.sector_count, g.prog_bytes, g.payload_bytes, g.commits, seeds)
    done = subprocess.run(
        [str(build("powercut")), *map(str, arguments), str(int(g.ecc))],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise AssertionError(f"{g}: {done.stdout.strip()} {done.stderr.strip()[:2000]}")
    return {key: int(value) for key, _, value in (w.partition("=") for w in done.stdout.split())}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Power cuts at every flash operation of the store."
    )
    parser.add_argument("--seeds", type=int, default=8, help="cuts inside each operation")
    seeds = parser.parse_args().seeds
    print(
        "| sectors | unit | payload | commits | ops "
        "| after | inside | fail | old | new | 2nd | erases |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    total = lost = 0
    for g in GEOMETRIES:
        shape = f"{g.sector_count} x {g.sector_bytes}{' ECC' if g.ecc else ''}"
        head = f"| {shape} | {g.prog_bytes} | {g.payload_bytes} | {g.commits} |"
        try:
            t = run(g, seeds)
        except AssertionError as error:
            lost += 1
            print(f"{head} {error} |")
            continue
        total += t["after"] + t["inside"] + t["failed"] + t["second"]
        counts = " | ".join(
            str(t[k]) for k in ("operations", "after", "inside", "failed", "old", "new", "second")
        )
        print(f"{head} {counts} | {t['wear_min']}-{t['wear_max']} |", flush=True)
    print(f"\n{total} power cuts and failures, {lost} geometries that lost something")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
