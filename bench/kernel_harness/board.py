"""Builds the bare-metal counter for a simulated board, runs a case on it, reads what it tells."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fieldloop import paths
from fieldloop.errors import FieldloopError

GCC, SIZE, QEMU = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
# As micropython.mk has it: what is hot for speed, the rest for size.
LEVELS = {"base": "-Os", "core": "-Os", "kernels": "-O2"}
FLAGS = ("-std=gnu99", "-ffp-contract=off", "-fno-math-errno", "--specs=picolibc.specs")
CPU_LINE = re.compile(r"^CFLAGS_CPU = (.+)$", re.MULTILINE)
LIMIT_S = 600
DRIVER = Path(__file__).with_name("main.c")
COUNTER = Path(__file__).with_name("counter.h")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a program without an operating system must know of a board. Addresses, bytes, MHz."""

    name: str
    qemu: str
    core: str  # as kernel-anchors.md calls it
    memory: int  # of code at 0, and of data at 0x20000000
    external: int  # where the case lies
    fpgaio: int
    counter_mhz: int


MACHINES = {
    m.name: m
    for m in (
        Machine("an385", "mps2-an385", "M3", 0x400000, 0x21000000, 0x40028000, 25),
        Machine("an386", "mps2-an386", "M4", 0x400000, 0x21000000, 0x40028000, 25),
        Machine("an500", "mps2-an500", "M7", 0x400000, 0x60000000, 0x40028000, 25),
        Machine("an547", "mps3-an547", "M55", 0x80000, 0x70000000, 0x49302000, 20),
    )
}


@dataclass(frozen=True, slots=True)
class OpCount:
    """One operator's executed instructions, scratch bytes and CRC-32 of its output."""

    instructions: int
    scratch: int
    crc: int


@dataclass(frozen=True, slots=True)
class RunCount:
    """A whole model: instructions from entry to return of fl_model_run; stack, arena in bytes."""

    ops: tuple[OpCount, ...]
    instructions: int
    stack: int
    arena: int


def cpu_flags(machine: Machine) -> list[str]:
    """The compiler's options for the board's processor, from the firmware's own makefile."""
    makefile = paths.boards_dir() / "mps2" / f"{machine.name}.mk"
    match = CPU_LINE.search(makefile.read_text())
    if match is None:
        raise FieldloopError(f"{makefile.name}: expected a line CFLAGS_CPU = ..., found none")
    return match[1].split()


def build(
    machine: Machine,
    levels: dict[str, str] | None = None,
    *,
    driver: Path = DRIVER,
    options: tuple[str, ...] = (),
) -> Path:
    """The program, compiled when a source, a flag or the compiler has changed.

    `levels`: optimisation by folder; `driver`: what holds main; `options`: more for the compiler
    and, those that begin with -Wl, for the linker.
    """
    core, levels = paths.core_dir(), LEVELS if levels is None else levels
    sources = {driver: "-Os"}
    for folder, level in levels.items():
        sources |= dict.fromkeys(sorted((core / folder).glob("*.c")), level)
    common = [
        *(*FLAGS, *cpu_flags(machine), f"-I{core / 'include'}", f"-I{core}"),
        *(f"-DFPGAIO={machine.fpgaio:#x}", f"-DCASE_ADDRESS={machine.external:#x}"),
        *(f"-DCOUNTER_MHZ={machine.counter_mhz}", "-ffunction-sections", "-fdata-sections"),
        *(option for option in options if not option.startswith("-Wl,")),
    ]
    digest = hashlib.sha256(" ".join([*common, _run([GCC, "-dumpfullversion"])]).encode())
    for header in [*sorted(core.rglob("*.h")), COUNTER]:
        digest.update(header.read_bytes())
    folder = paths.build_dir() / "kernel_harness"
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for source, level in sources.items():
        own = digest.copy()
        own.update(f"{source.name} {level}".encode() + source.read_bytes())
        target = folder / f"{source.stem}-{own.hexdigest()[:20]}.o"
        if not target.exists():
            with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp", delete=False) as partial:
                _run([GCC, *common, level, "-c", str(source), "-o", partial.name])
            Path(partial.name).replace(target)
        objects.append(str(target))
    names = hashlib.sha256(" ".join([*objects, *options]).encode()).hexdigest()[:20]
    program = folder / f"{machine.name}-{names}.elf"
    if not program.exists():
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp", delete=False) as partial:
            where = [("flash", 0), ("ram", 0x20000000)]
            symbols = [f"-Wl,--defsym=__{n}={at}" for n, at in where]
            symbols += [f"-Wl,--defsym=__{n}_size={machine.memory}" for n, _ in where]
            link = ["--oslib=semihost", "--crt0=hosted", *symbols, "-Wl,--gc-sections"]
            link += [option for option in options if option.startswith("-Wl,")]
            _run([GCC, *common, *link, *objects, "-o", partial.name])
        Path(partial.name).replace(program)
    return program


def run(
    machine: Machine, image: bytes, x: bytes, levels: dict[str, str] | None = None
) -> RunCount:
    """Runs an image on one input. FieldloopError when the board tells of a mistake."""
    program = build(machine, levels)
    image_from = 64
    input_from = _up(image_from + len(image))
    arena_from = _up(input_from + len(x))
    head = (0x43424C46, image_from, len(image), input_from, len(x), arena_from, 0, 0)
    case = bytearray(arena_from)
    case[:32] = np.array(head, "<u4").tobytes()
    case[image_from : image_from + len(image)] = image
    case[input_from : input_from + len(x)] = x
    told = execute(machine, program, bytes(case))
    ops: list[OpCount] = []
    whole: list[int] = []
    for line in told:
        words = line.split()
        if words[:1] == ["op"]:
            ops.append(OpCount(int(words[2]), int(words[3]), int(words[4], 16)))
        elif words[:1] == ["run"]:
            whole = [int(word) for word in words[1:]]
    if not whole:
        raise FieldloopError(f"{machine.name}: expected counts, got {told}")
    return RunCount(tuple(ops), *whole)


def execute(machine: Machine, program: Path, case: bytes) -> list[str]:
    """Runs a program of `build` with a case in external memory; what it prints before "end"."""
    with tempfile.NamedTemporaryFile(suffix=".case") as file:
        file.write(case)
        file.flush()
        place = f"loader,file={file.name},addr={machine.external:#x},force-raw=on"
        told = _run(
            [
                *(QEMU, "-M", machine.qemu, "-display", "none", "-monitor", "none"),
                *("-serial", "none", "-chardev", "stdio,id=console"),
                *("-semihosting-config", "enable=on,target=native,chardev=console"),
                *("-icount", "shift=8,sleep=off", "-device", place, "-kernel", str(program)),
            ]
        )
    lines = told.splitlines()
    if lines[-1:] != ["end"]:
        raise FieldloopError(f"{machine.name}: expected an end, got {told.strip()[-200:]!r}")
    return lines[:-1]


# The operators that the other library's figure has: its union of seven networks.
SEVEN = ("conv2d", "depthwise_conv2d", "fully_connected", "max_pool", "avg_pool", "add", "softmax")


@dataclass(frozen=True, slots=True)
class CodeSize:
    """Bytes of code and constants: of the SEVEN linked, and of all int8 kernels' objects."""

    linked: int
    objects: int


def code_size(machine: Machine, level: str) -> CodeSize:
    """Plain C included where a variant falls back to it."""
    folder = paths.core_dir() / "kernels"
    sources = [str(p) for p in sorted(folder.glob("*.c")) if not p.name.startswith("f32_")]
    common = [GCC, *FLAGS, *cpu_flags(machine), level, "-ffunction-sections", "-fdata-sections"]
    includes = [f"-I{paths.core_dir() / 'include'}", f"-I{paths.core_dir()}"]
    with tempfile.TemporaryDirectory() as out:
        _run([*common, *includes, "-c", *sources], cwd=out)
        objects = sorted(map(str, Path(out).glob("*.o")))
        together = sum(_text(line) for line in _run([SIZE, *objects]).splitlines()[1:])
        roots = [f"-Wl,-u,fl_{name}" for name in SEVEN]
        link = ["-nostartfiles", "-Wl,--gc-sections", "-Wl,-e,fl_conv2d", *roots]
        program = str(Path(out) / "linked.elf")
        _run([*common, *link, *objects, "-o", program])
        linked = _text(_run([SIZE, program]).splitlines()[1])
    return CodeSize(linked, together)


def _text(line: str) -> int:
    return int(line.split()[0])


def _up(n: int) -> int:
    return (n + 63) & ~63


def _run(command: list[str], cwd: str | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        raise FieldloopError(f"{command[0]}: expected an end within {LIMIT_S} s") from None
    except FileNotFoundError:
        raise FieldloopError(f"{command[0]} is missing; install it (apt-get install)") from None
    if done.returncode != 0:
        raise FieldloopError(f"{command[0]} failed: {done.stderr.strip()[-600:]}")
    return done.stdout
