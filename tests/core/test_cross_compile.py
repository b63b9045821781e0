"""The core is fit for a microcontroller: clean under strict warnings, no state, no library."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import toolchain

from fieldloop import paths
from fieldloop.runtime.core import compiler, sources

ARM = "arm-none-eabi-"
WARNINGS = (
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wdouble-promotion",
    "-Wfloat-conversion",
)
FLOATS = ("-ffp-contract=off", "-fno-math-errno")
TARGETS = {
    "m3": ("-mcpu=cortex-m3", "-Os"),
    "m4": ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard", "-O2"),
    "m7": ("-mcpu=cortex-m7", "-mfpu=fpv5-d16", "-mfloat-abi=hard", "-O2"),
    "m55": ("-mcpu=cortex-m55+nomve.fp", "-mfloat-abi=hard", "-O2"),
    # as MicroPython's stm32 port builds: what is written as a double constant becomes a float
    "m4-single": (
        "-mcpu=cortex-m4",
        "-mfpu=fpv4-sp-d16",
        "-mfloat-abi=hard",
        "-Os",
        "-fsingle-precision-constant",
    ),
}
MAY_CALL = {"memcpy", "memmove", "memset", "memcmp", "strlen"}  # every port has them
# server/ formats messages, and no MicroPython carries it; strcpy: of snprintf, by the compiler.
MAY_FORMAT = {"vsnprintf", "snprintf", "strcmp", "strcpy"}

needs_arm = pytest.mark.skipif(
    toolchain.missing(qemu=False) is not None, reason=f"needs {toolchain.missing(qemu=False)}"
)


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def includes() -> list[str]:
    return [f"-I{paths.core_dir() / 'include'}", f"-I{paths.core_dir()}"]


def compiled(target: str, folder: Path, files: list[Path]) -> list[str]:
    """The objects of these sources."""
    folder.mkdir()
    flags = ["--specs=picolibc.specs", "-std=c99", *WARNINGS, *FLOATS, *includes()]
    run(f"{ARM}gcc", "-mthumb", *TARGETS[target], *flags, "-c", *map(str, files), cwd=folder)
    objects = sorted(str(path) for path in folder.glob("*.o"))
    assert len(objects) == len(files)
    return objects


def needed(objects: list[str], folder: Path) -> set[str]:
    """What they call and do not bring, linked together."""
    run(f"{ARM}ld", "-r", *objects, "-o", "all.o", cwd=folder)
    lines = run(f"{ARM}nm", "-u", "all.o", cwd=folder).splitlines()
    return {line.split()[-1] for line in lines}


@needs_arm
@pytest.mark.parametrize("target", TARGETS)
def test_no_state_and_no_library(target: str, tmp_path: Path) -> None:
    server = [path for path in sources() if path.parent.name == "server"]
    core = compiled(target, tmp_path / "core", [p for p in sources() if p not in server])
    objects = core + compiled(target, tmp_path / "server", server)

    rows = [line.split() for line in run(f"{ARM}size", *objects, cwd=tmp_path).splitlines()[1:]]
    stateful = {row[5]: (row[1], row[2]) for row in rows if row[1:3] != ["0", "0"]}
    assert not stateful, "mutable globals (.data, .bss)"

    libgcc = run(
        f"{ARM}gcc", "-mthumb", *TARGETS[target], "-print-libgcc-file-name", cwd=tmp_path
    ).strip()
    offered = {
        line.split()[-1]
        for line in run(f"{ARM}nm", "--defined-only", libgcc, cwd=tmp_path).splitlines()
        if len(line.split()) == 3
    }
    assert needed(core, tmp_path) - MAY_CALL <= offered
    assert needed(core, tmp_path) - offered  # memcpy at least: the names are read right
    assert needed(objects, tmp_path) - MAY_CALL - MAY_FORMAT <= offered


def test_core_and_kernels_convert_nothing_silently(tmp_path: Path) -> None:
    folders = ("core", "kernels")
    files = [str(path) for path in sources() if path.parent.name in folders]
    strict = ("-Wconversion", "-Wshadow", "-Wcast-align", "-Wstrict-prototypes")
    flags = ["-std=c99", "-O2", *WARNINGS, *strict]
    run(compiler(), *flags, *FLOATS, *includes(), "-c", *files, cwd=tmp_path)
