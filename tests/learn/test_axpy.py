"""Contract 2 for the inner sums of f32: assembler rounds as plain C does, the host's bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import toolchain
from toolchain import GCC, QEMU

from fieldloop import paths
from fieldloop.runtime import core

BARE = ["--specs=picolibc.specs", "--oslib=semihost", "--crt0=hosted", "-mthumb"]
BOARDS = {
    "mps2-an385": (0, ["-mcpu=cortex-m3", "-mfloat-abi=soft"], 0x20000000),
    "mps2-an386": (1, ["-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"], 0x20000000),
    "mps2-an500": (1, ["-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-d16"], 0x20000000),
    "mps3-an547": (
        2,
        ["-mcpu=cortex-m55+nomve.fp", "-mfloat-abi=hard", "-DFL_MVE_F32=1"],
        0x60000000,
    ),
}


def build(program: Path, compiler: str, *flags: str) -> None:
    root = paths.core_dir()
    sources = [Path(__file__).with_name("axpy.c"), root / "base" / "fl_crc.c"]
    sources += sorted((root / "learn").glob("axpy*.c"))
    command = [compiler, "-std=c99", "-ffp-contract=off", f"-I{root}", f"-I{root}/include", *flags]
    done = subprocess.run(
        [*command, *map(str, sources), "-o", str(program)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def told_by(*command: str) -> tuple[int, int, str]:
    """Which form it is, rounds that differed from the plain one, and a checksum of all sums."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    form, wrong, checksum = done.stdout.split()
    return int(form), int(wrong), checksum


@pytest.fixture(scope="module")
def checksum(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The host's, under the sanitizers."""
    program = tmp_path_factory.mktemp("host") / "axpy"
    build(program, core.compiler(), "-O1", "-g", "-fsanitize=address,undefined")
    form, wrong, checksum = told_by(str(program))
    assert (form, wrong) == (0, 0)
    return checksum


@pytest.mark.skipif(
    toolchain.missing(qemu=True) is not None, reason=f"needs {toolchain.missing(qemu=True)}"
)
@pytest.mark.parametrize("level", ["-O2", "-Os"])
@pytest.mark.parametrize("machine", BOARDS)
def test_a_board_sums_as_the_host(tmp_path: Path, checksum: str, machine: str, level: str) -> None:
    expected, cpu, data_at = BOARDS[machine]
    where = {"flash": 0, "flash_size": 1 << 19, "ram": data_at, "ram_size": 1 << 22}
    memory = [f"-Wl,--defsym=__{name}={value}" for name, value in where.items()]
    build(tmp_path / "axpy.elf", GCC, *BARE, *cpu, level, *memory)
    run = [QEMU, "-M", machine, "-display", "none", "-monitor", "none", "-serial", "none"]
    run += ["-chardev", "stdio,id=console", "-kernel", str(tmp_path / "axpy.elf")]
    run += ["-semihosting-config", "enable=on,target=native,chardev=console"]
    assert told_by(*run) == (expected, 0, checksum)
