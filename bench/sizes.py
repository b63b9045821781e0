"""What fieldloop takes of a microcontroller's flash and RAM, before models.

    python bench/sizes.py --write --json

Two tables: the firmware of each simulated board and memory map, with and without our C module, and
the C core by folder, compiled for each processor for size (-Os) and for speed (-O2). The core has
no initialised data and no zeroed data of its own; a line that shows some is a mistake. `--write`
puts the tables into docs/results/sizes.md.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "host"))

from fieldloop import paths  # noqa: E402
from fieldloop.errors import FieldloopError  # noqa: E402
from fieldloop.targets import build, roster  # noqa: E402

Say = Callable[[str], None]

PAGE = ROOT / "docs" / "results" / "sizes.md"
FOLDERS = ("base", "core", "kernels", "learn", "store", "link")
LEVELS = ("-Os", "-O2")
# As micropython.mk and the port build it; sections of their own, so that only what is used counts.
FLAGS = (
    *("-std=c99", "-DNDEBUG", "-ffp-contract=off", "-fno-math-errno", "--specs=picolibc.specs"),
    *("-ffunction-sections", "-fdata-sections"),
)
ARM = "arm-none-eabi-"
CPU_LINE = re.compile(r"^CFLAGS_CPU = (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class FirmwareSize:
    """A linked firmware; `module_*`: how much of it is our C module."""

    board: str
    memory: str
    text_rodata: int  # code and constants
    data: int
    bss: int
    module_text_rodata: int
    module_data: int
    module_bss: int


@dataclass(frozen=True, slots=True)
class CoreSize:
    """The objects of a folder, not linked."""

    cpu: str
    level: str
    folder: str
    text: int
    rodata: int
    data: int
    bss: int


def firmwares(say: Say) -> list[FirmwareSize]:
    sizes = []
    for name in roster.names("qemu"):
        for memory in roster.lookup(name).maps:
            say(f"firmware {name} {memory.name}")
            full = build.build_firmware(name, memory.name)
            bare = build.build_firmware(name, memory.name, user_modules=False)
            sizes.append(
                FirmwareSize(
                    name,
                    memory.name,
                    full.text_bytes,
                    full.data_bytes,
                    full.bss_bytes,
                    full.text_bytes - bare.text_bytes,
                    full.data_bytes - bare.data_bytes,
                    full.bss_bytes - bare.bss_bytes,
                )
            )
    return sizes


def cores(say: Say) -> list[CoreSize]:
    sizes = []
    for name in roster.names("qemu"):
        spec = roster.lookup(name)
        makefile = (paths.boards_dir() / "mps2" / f"{spec.board}.mk").read_text()
        match = CPU_LINE.search(makefile)
        if match is None:
            raise FieldloopError(f"{spec.board}.mk: expected a line CFLAGS_CPU = ..., found none")
        for level in LEVELS:
            say(f"core {spec.cpu} {level}")
            for folder in FOLDERS:
                sections = compile_folder(folder, [*match[1].split(), level])
                sizes.append(CoreSize(spec.cpu, level, folder, *sections))
    return sizes


def compile_folder(folder: str, flags: list[str]) -> tuple[int, int, int, int]:
    """Bytes of text, rodata, data and bss of all objects of a folder of the core."""
    core = paths.core_dir()
    sources = sorted(str(path) for path in (core / folder).glob("*.c"))
    if not sources:
        raise FieldloopError(f"{core / folder}: expected C files, found none")
    with tempfile.TemporaryDirectory() as out:
        includes = [f"-I{core / 'include'}", f"-I{core}"]
        _run(f"{ARM}gcc", *FLAGS, *flags, *includes, "-c", *sources, cwd=out)
        objects = sorted(str(path) for path in Path(out).glob("*.o"))
        listing = _run(f"{ARM}size", "-A", *objects, cwd=out)
    total = dict.fromkeys(("text", "rodata", "data", "bss"), 0)
    for line in listing.splitlines():
        words = line.split()
        if len(words) == 3 and words[0].startswith("."):
            section = words[0].split(".")[1]
            if section in total:
                total[section] += int(words[1])
    return total["text"], total["rodata"], total["data"], total["bss"]


def _run(*command: str, cwd: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if done.returncode != 0:
        raise FieldloopError(f"{command[0]} failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def compiler_version() -> str:
    return _run(f"{ARM}gcc", "-dumpfullversion", cwd=".").strip()


def page(firmware: list[FirmwareSize], core: list[CoreSize]) -> str:
    lines = [
        "# Sizes",
        "",
        f"Written by `python bench/sizes.py --write` with arm-none-eabi-gcc {compiler_version()}; "
        "all figures in bytes.",
        "",
        "## Firmware",
        "",
        "MicroPython with our port, linked; code and constants count as text, as `size` has it. "
        "The module's part is the difference to a build without it. The heap takes the rest of "
        "the RAM and is not counted.",
        "",
        "| board | map | text | data | bss | module: text | data | bss |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for f in firmware:
        lines.append(
            f"| {f.board} | {f.memory} | {f.text_rodata} | {f.data} | {f.bss} "
            f"| {f.module_text_rodata} | {f.module_data} | {f.module_bss} |"
        )
    lines += [
        "",
        "## The C core",
        "",
        "Objects before linking: a linker drops the functions that nobody calls. MicroPython "
        "builds `kernels` and `learn` with -O2, the rest with -Os.",
        "",
        "| cpu | flags | folder | text | rodata | data | bss |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for cpu, level in dict.fromkeys((c.cpu, c.level) for c in core):
        rows = [c for c in core if (c.cpu, c.level) == (cpu, level)]
        for c in rows:
            lines.append(
                f"| {cpu} | {level} | {c.folder} | {c.text} | {c.rodata} | {c.data} | {c.bss} |"
            )
        sums = [sum(getattr(c, key) for c in rows) for key in ("text", "rodata", "data", "bss")]
        lines.append(
            f"| {cpu} | {level} | **all** | " + " | ".join(f"**{n}**" for n in sums) + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write docs/results/sizes.md")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    lacking = build.missing_tools("qemu") + [
        tool for tool in (f"{ARM}size",) if shutil.which(tool) is None
    ]
    if lacking:
        say(f"sizes: {', '.join(lacking)} missing; apt-get install gcc-arm-none-eabi")
        return 1
    try:
        firmware, core = firmwares(say), cores(say)
        text = page(firmware, core)
    except FieldloopError as error:
        say(f"sizes: {error}")
        return 1
    if args.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(text)
    if args.json:
        print(
            json.dumps(
                {"firmware": [asdict(f) for f in firmware], "core": [asdict(c) for c in core]}
            )
        )
    else:
        print(text, end="")
    return 1 if any(c.data or c.bss for c in core) else 0


if __name__ == "__main__":
    sys.exit(main())
