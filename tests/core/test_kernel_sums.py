"""Operators whose input comes in parts (fl_kernels_sum.h) equal the whole ones in every byte.

All variants: emulated on the host under both sanitizers, and as assembly on machines of QEMU.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from toolchain import GCC, QEMU, missing

from fieldloop import paths
from fieldloop.runtime.core import compiler

DRIVER = Path(__file__).with_name("sum_kernels.c")
KERNELS = (
    *("conv2d", "fully_connected", "scale", "pool", "hostile"),
    *("conv2d_f32", "fc_f32", "pool_f32", "slice_f32"),
)
LINE = re.compile(r"^(\w+) (\d+) cases \d+ bytes (\d+) lively$", re.MULTILINE)
PLAIN, DSP, MVE = range(3)
# machine, variant, options, bytes of code at 0, where the data lies
BOARDS = [
    ("mps2-an385", PLAIN, ["-mcpu=cortex-m3"], 1 << 22, 0x20000000),
    (
        *("mps2-an386", DSP),
        *(["-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"], 1 << 22, 0x20000000),
    ),
    (
        *("mps3-an547", MVE),
        *(["-mcpu=cortex-m55+nomve.fp", "-mfloat-abi=hard"], 1 << 19, 0x60000000),
    ),
]


def _program() -> list[str]:
    core = paths.core_dir()
    sources = [DRIVER, *sorted((core / "kernels").glob("*.c"))]
    return ["-ffp-contract=off", f"-I{core / 'include'}", f"-I{core}", *map(str, sources), "-lm"]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    return done.stdout + done.stderr


def _assert_same(told: str, variant: int, cases: int) -> None:
    """Every kernel ran all its cases without a difference, and most outputs were no constants."""
    assert told.startswith(f"variant {variant}\n") and told.endswith("end\n"), told[-2000:]
    tallies = {name: (int(n), int(lively)) for name, n, lively in LINE.findall(told)}
    assert tuple(tallies) == KERNELS, told
    for name, (n, lively) in tallies.items():
        assert n >= cases and lively > n // 3, f"{name}: {n} cases, {lively} lively"


@pytest.mark.parametrize("variant", [PLAIN, DSP, MVE])
def test_parts_equal_the_whole(tmp_path: Path, variant: int) -> None:
    program = tmp_path / "sums"
    command = [compiler(), "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    told = _run([*command, f"-DFL_KERNELS={variant}", *_program(), "-o", str(program)])
    assert told == ""
    _assert_same(_run([str(program), "4000", f"4{variant}"]), variant, 4000)


@pytest.mark.skipif(missing(qemu=True) is not None, reason=f"needs {missing(qemu=True)}")
@pytest.mark.parametrize("level", ["-O2", "-Os"])
@pytest.mark.parametrize(("machine", "variant", "cpu", "code", "data_at"), BOARDS)
def test_parts_equal_the_whole_on_a_board(
    tmp_path: Path, machine: str, variant: int, cpu: list[str], code: int, data_at: int, level: str
) -> None:
    program = tmp_path / f"{machine}.elf"
    where = {"__flash": 0, "__flash_size": code, "__ram": data_at, "__ram_size": 1 << 22}
    command = [GCC, "--specs=picolibc.specs", "--oslib=semihost", "--crt0=hosted", "-std=gnu99"]
    command += [f"-Wl,--defsym={name}={value}" for name, value in where.items()]
    command += ["-mthumb", *cpu, level, "-DCASES=600", f"-DSEED=5{variant}"]
    told = _run([*command, *_program(), "-o", str(program)])
    assert told == ""
    told = _run(
        [
            *(QEMU, "-M", machine, "-display", "none", "-monitor", "none", "-serial", "none"),
            *("-chardev", "stdio,id=console"),
            *("-semihosting-config", "enable=on,target=native,chardev=console"),
            *("-kernel", str(program)),
        ]
    )
    _assert_same(told, variant, 600)
