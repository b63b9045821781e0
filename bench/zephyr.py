"""What fieldloop takes of flash, RAM and stacks under Zephyr.

    python bench/zephyr.py --write --json

Three tables: the module by its switches, as linked into the application for mps2/an386 (its map
says what each file takes); the application and MicroPython, per board; and the most that each
thread's stack has held after what a host does to a device: push, predict, learn, commit. `--write`
puts them into docs/results/zephyr.md and zephyr.json. It needs a Zephyr workspace; what could not
be measured is told.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "host"), str(ROOT / "tests" / "e2e")]

from digits_student import Student, settings, student  # noqa: E402
from every_way_net import every_way  # noqa: E402

from fieldloop import paths  # noqa: E402
from fieldloop.errors import FieldloopError  # noqa: E402
from fieldloop.runtime import LearnerConfig  # noqa: E402
from fieldloop.targets import roster, zephyr_board, zephyr_mpy, zephyr_workspace  # noqa: E402
from fieldloop.targets.build import Firmware  # noqa: E402
from fieldloop.targets.serving import serving  # noqa: E402

Say = Callable[[str], None]

PAGE = ROOT / "docs" / "results" / "zephyr.md"
TABLE_BOARD = "zephyr-an386"
CONFIG = LearnerConfig(replays=4, memory=40, seed=1)
SMALL = LearnerConfig(replays=1, memory=4, layers=1, seed=1)
STEPS = 40

# Switch -> lists of cmodules/fieldloop/zephyr/CMakeLists.txt, or files of its own.
SWITCHES: dict[str, tuple[str, ...]] = {
    "FIELDLOOP": ("fieldloop_inference", "fieldloop_kernels"),
    "FIELDLOOP_LEARNING": ("fieldloop_learning",),
    "FIELDLOOP_STORE": ("fieldloop_store",),
    "FIELDLOOP_FLASH_AREA": ("flash_area.c",),
    "FIELDLOOP_LINK": ("fieldloop_link",),
    "FIELDLOOP_SERVER": ("fieldloop_server",),
    "FIELDLOOP_SERVER_THREAD": ("server_thread.c",),
    "FIELDLOOP_MCUMGR": ("mcumgr_group.c",),
    "FIELDLOOP_SMP_UART": ("smp_port.c",),
    "FIELDLOOP_SHELL": ("shell.c", "shell_values.c"),
}
# What else is in the application, by a piece of the archive's path.
PARTS = {
    "fieldloop": "libfieldloop.a",
    "the application's own files": "app/libapp.a",
    "MCUmgr, net_buf and zcbor": r"mgmt__mcumgr|libmodules__zcbor|net__lib|net_buf",
    "shell and logging": r"\((shell|log)_?\w*\.c\.obj|subsys__shell|logging",
    "flash, UART and timer drivers": r"libdrivers__|subsys__storage",
    "kernel, architecture, boot": "libkernel|libarch|libisr_tables|libzephyr|soc|boards",
    "C library and compiler": r"libc\.a|libgcc|libm\.a|libc__",
}
PLACE = re.compile(r"^ (\S+)?\s+0x([0-9a-f]+)\s+0x([0-9a-f]+) (\S+)$")
STACK = re.compile(r"^\S+ (.*?)\s+\(real size\s+(\d+)\):\s+unused\s+\d+\s+usage\s+(\d+) /", re.M)


@dataclass(slots=True)
class Size:
    """Bytes of flash (code, constants, initial values) and of RAM."""

    flash: int = 0
    ram: int = 0


@dataclass(frozen=True, slots=True)
class FirmwareSize:
    target: str
    board: str
    flash: int
    ram: int


@dataclass(frozen=True, slots=True)
class Stack:
    """The most a thread's stack has held, of its size."""

    target: str
    thread: str
    used: int
    size: int


@dataclass(slots=True)
class Found:
    switches: dict[str, Size] = field(default_factory=dict)
    parts: dict[str, Size] = field(default_factory=dict)
    arena: int = 0
    firmwares: list[FirmwareSize] = field(default_factory=list)
    stacks: list[Stack] = field(default_factory=list)
    not_measured: list[str] = field(default_factory=list)


def measure(say: Say) -> Found:
    found = Found()
    built: dict[str, Firmware] = {}

    def attempt(what: str, work: Callable[[], None]) -> None:
        say(what)
        try:
            work()
        except FieldloopError as error:
            text = str(error)
            found.not_measured.append(f"{what}: {text.splitlines()[0]}")
            say(text)

    def application(name: str) -> None:
        built[name] = zephyr_board.build_app(name, progress=say)
        if roster.lookup(name).machine:
            found.firmwares.append(_size(built[name]))

    def micropython(name: str) -> None:
        made = zephyr_mpy.build_mpy(name, progress=say)
        if roster.lookup(name).machine:
            found.firmwares.append(_size(made))

    for name in roster.names("zephyr"):
        attempt(f"application on {name}", lambda name=name: application(name))
    for name in roster.names("zephyr-mpy"):
        attempt(f"MicroPython on {name}", lambda name=name: micropython(name))
    if TABLE_BOARD in built:
        attempt("the module by switch", lambda: by_switch(built[TABLE_BOARD], found))
    net = student()
    for name in built:
        if roster.lookup(name).machine:  # native_sim's threads run on the host's stacks
            attempt(f"stacks on {name}", lambda name=name: found.stacks.extend(stacks(name, net)))
    return found


def _size(firmware: Firmware) -> FirmwareSize:
    board = roster.lookup(firmware.target).board
    return FirmwareSize(firmware.target, board, firmware.rom_bytes, firmware.ram_bytes)


# ---- by switch: the linker's map


def by_switch(firmware: Firmware, found: Found) -> None:
    switch_of = _switches()
    for name in SWITCHES:
        found.switches[name] = Size()
    parts: dict[str, Size] = defaultdict(Size)
    spec = roster.lookup(firmware.target)
    simulated = range(spec.psram_address, spec.psram_address + spec.psram_size)
    for section, size, place, address in _sections(firmware.elf.with_suffix(".map")):
        if address in simulated:  # the flash, not the firmware
            continue
        takes = _takes(section, size)
        part = next((name for name, p in PARTS.items() if re.search(p, place)), "the rest")
        _add(parts[part], takes)
        if part == "fieldloop":
            member = place.rpartition("(")[2].removesuffix(".obj)")
            if member not in switch_of:
                raise FieldloopError(f"{member} of the module belongs to no switch: add it")
            _add(found.switches[switch_of[member]], takes)
    found.parts = {name: parts[name] for name in (*PARTS, "the rest") if name in parts}
    config = (firmware.elf.parent / ".config").read_text()
    arena = re.search(r"^CONFIG_FIELDLOOP_MEMORY_BYTES=(\d+)$", config, re.M)
    found.arena = int(arena[1]) if arena else 0


def _switches() -> dict[str, str]:
    """Name of a source -> its switch."""
    lists = (paths.core_dir() / "zephyr" / "CMakeLists.txt").read_text()
    switch_of = {}
    for switch, names in SWITCHES.items():
        for name in names:
            if name.endswith(".c"):
                switch_of[name] = switch
                continue
            block = re.search(rf"set\({name}\s([^)]*)\)", lists)
            if block is None:
                raise FieldloopError(f"CMakeLists.txt of the module has no list {name}")
            switch_of.update({Path(source).name: switch for source in block[1].split()})
    return switch_of


def _sections(path: Path) -> list[tuple[str, int, str, int]]:
    """Name, size, archive and address of all input sections that were linked."""
    text = path.read_text().partition("Linker script and memory map")[2]
    sections, name = [], ""
    for line in text.splitlines():
        if re.fullmatch(r" [.\w]\S*", line):
            name = line.strip()  # too long for one line: the next has the numbers
            continue
        match = PLACE.match(line)
        if match and int(match[3], 16) and not match[4].startswith(("*", "load")):
            sections.append((match[1] or name, int(match[3], 16), match[4], int(match[2], 16)))
        name = ""
    return [section for section in sections if not _is_note(section[0])]


def _is_note(section: str) -> bool:
    """Debug information and the like: in the file, not in the device."""
    return section.startswith((".debug", ".comment", ".ARM.attributes", ".stab", ".symtab"))


def _takes(section: str, size: int) -> Size:
    if section.startswith((".bss", ".noinit", "COMMON", ".sbss", "noinit")):
        return Size(0, size)
    writable = section.startswith((".data", "._k_", "._net_buf")) and ".static" in section
    if section.startswith(".data") or writable:
        return Size(size, size)
    return Size(size, 0)


def _add(total: Size, more: Size) -> None:
    total.flash += more.flash
    total.ram += more.ram


# ---- stacks


def stacks(name: str, net: Student) -> list[Stack]:
    """After a host's calls, what Zephyr's shell tells."""
    with serving(name) as device:
        board, target = device.board, device.target
        assert isinstance(target, zephyr_board.ZephyrBoard)
        image, x, labels, test = net.image, net.stream_x, net.stream_y, net.test_x
        config = CONFIG
        if not target.spec.remembers:  # the small part: a small model, of which the head learns
            stream, config = every_way(), SMALL
            image, x, labels, test = stream.image, stream.x, stream.y, stream.test_x
        board.push(image, to="model0")
        board.activate(image, slot="model0")
        board.predict(test[:STEPS])
        board.learner_open(settings(config))
        board.step(x[:STEPS], labels[:STEPS])
        board.commit()
        board.evaluate()
        board.pull("state")
        board.undo()
        board.reset()
        said = target.shell("kernel thread stacks")
    rows = [(m[1].strip(), int(m[3]), int(m[2])) for m in STACK.finditer(said)]
    if not rows:
        raise FieldloopError(f"{name}: the shell told of no stack: {said[-200:]!r}")
    return [Stack(name, thread, used, size) for thread, used, size in rows]


# ---- the page


def page(found: Found) -> str:
    lines = [
        "# Zephyr: flash, RAM and stacks",
        "",
        "Written by `python bench/zephyr.py --write` with Zephyr "
        f"{zephyr_workspace.find().version}; all figures in bytes. RAM holds data, zeroed data "
        "and stacks; initial values count in both.",
    ]
    if found.switches:
        lines += [
            "",
            "## The module by switch",
            "",
            "As linked into the application for mps2/an386 (Cortex-M4F), from the linker's map: "
            "what is not called is not there. Plain and DSP kernels. FIELDLOOP_SERVER_THREAD "
            f"holds a model's arena and learner, {found.arena} bytes here "
            "(CONFIG_FIELDLOOP_MEMORY_BYTES; the demo's model needs 16,346), and the stack of "
            "the thread.",
            "",
            "| switch | flash | RAM |",
            "|---|--:|--:|",
            *(f"| {name} | {size.flash} | {size.ram} |" for name, size in found.switches.items()),
            f"| **all** | **{sum(s.flash for s in found.switches.values())}** "
            f"| **{sum(s.ram for s in found.switches.values())}** |",
            "",
            "What else is in that firmware:",
            "",
            "| part | flash | RAM |",
            "|---|--:|--:|",
            *(f"| {name} | {size.flash} | {size.ram} |" for name, size in found.parts.items()),
        ]
    lines += [
        "",
        "## Firmwares",
        "",
        "The application with all switches, MCUmgr, shell and logging; `mpy-`: MicroPython with "
        "our module and package. The simulated flash is not in the figures, but on zephyr-m3, "
        "where 23 KB of the RAM are it. native_sim is a program of this machine and has none "
        "that mean anything.",
        "",
        "| target | Zephyr's board | flash | RAM |",
        "|---|---|--:|--:|",
        *(f"| {f.target} | {f.board} | {f.flash} | {f.ram} |" for f in found.firmwares),
        "",
        "## Stacks",
        "",
        f"The most that was used, of the stack's size, after push, {STEPS} predictions, {STEPS} "
        "steps with their replays, commit, evaluation, pull, undo and reset over the link, and "
        "one command of the shell: the demo's student, trained for seconds; on zephyr-m3 a "
        "smaller network, of which the head learns.",
        "",
        *_stack_table(found.stacks),
    ]
    if found.not_measured:
        lines += ["", "## Not measured", "", *(f"* {line}" for line in found.not_measured)]
    return "\n".join(lines) + "\n"


def _stack_table(rows: list[Stack]) -> list[str]:
    targets = list(dict.fromkeys(row.target for row in rows))
    threads = list(dict.fromkeys(row.thread for row in rows))
    cells = {(row.target, row.thread): f"{row.used} of {row.size}" for row in rows}
    return [
        f"| thread | {' | '.join(targets)} |",
        f"|---|{'--:|' * len(targets)}",
        *(
            f"| {thread} | {' | '.join(cells.get((t, thread), '') for t in targets)} |"
            for thread in threads
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write docs/results/zephyr.md, .json")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        zephyr_workspace.find()
        found = measure(say)
        text = page(found)
    except FieldloopError as error:
        say(f"zephyr: {error}")
        return 1
    data: dict[str, Any] = {"zephyr": zephyr_workspace.find().version, **asdict(found)}
    if args.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(text)
        PAGE.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    print(json.dumps(data) if args.json else text, end="\n" if args.json else "")
    for line in found.not_measured:
        say(f"not measured: {line}")
    return 1 if found.not_measured else 0


if __name__ == "__main__":
    sys.exit(main())
