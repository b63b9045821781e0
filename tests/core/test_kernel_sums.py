"""Operators whose input comes in parts (fl_kernels_sum.h) equal the whole ones in every byte.

All variants: emulated on the host under both sanitizers, and as assembly on machines of QEMU.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from toolchain import GCC, QEMU, missing

from fieldloop import paths
from fieldloop.runtime.core import compiler

DRIVER = Path(__file__).with_name("sum_kernels.c")
COUNTS = Path(__file__).with_name("sum_counts.c")
KERNELS = (
    *("conv2d", "fully_connected", "scale", "pool", "hostile"),
    *("conv2d_f32", "fc_f32", "pool_f32", "slice_f32"),
)
COUNT = re.compile(r"^(\w+) (\d+) (\d+)$", re.MULTILINE)
LINE = re.compile(r"^(\w+) (\d+) cases \d+ bytes (\d+) lively$", re.MULTILINE)
PLAIN, DSP, MVE = range(3)


@dataclass(frozen=True)
class Machine:
    """A machine of QEMU: `code` bytes lie at 0, the data at `data_at`."""

    name: str
    variant: int
    cpu: tuple[str, ...]
    code: int
    data_at: int
    fpgaio: int
    counter_mhz: int


M3 = Machine("mps2-an385", PLAIN, ("-mcpu=cortex-m3",), 1 << 22, 0x20000000, 0x40028000, 25)
M4 = Machine(
    *("mps2-an386", DSP, ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")),
    *(1 << 22, 0x20000000, 0x40028000, 25),
)
M55 = Machine(
    *("mps3-an547", MVE, ("-mcpu=cortex-m55+nomve.fp", "-mfloat-abi=hard")),
    *(1 << 19, 0x60000000, 0x49302000, 20),
)
MACHINES = (M3, M4, M55)


def _program(driver: Path) -> list[str]:
    core = paths.core_dir()
    sources = [driver, *sorted((core / "kernels").glob("*.c"))]
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
    told = _run([*command, f"-DFL_KERNELS={variant}", *_program(DRIVER), "-o", str(program)])
    assert told == ""
    _assert_same(_run([str(program), "4000", f"4{variant}"]), variant, 4000)


def _link(driver: Path, machine: Machine, options: list[str], program: Path) -> None:
    where = {"flash": 0, "flash_size": machine.code, "ram": machine.data_at, "ram_size": 1 << 22}
    command = [GCC, "--specs=picolibc.specs", "--oslib=semihost", "--crt0=hosted", "-std=gnu99"]
    command += [f"-Wl,--defsym=__{name}={value}" for name, value in where.items()]
    told = _run(
        [*command, "-mthumb", *machine.cpu, *options, *_program(driver), "-o", str(program)]
    )
    assert told == ""


def _qemu(machine: Machine, program: Path, *options: str) -> str:
    return _run(
        [
            *(QEMU, "-M", machine.name, "-display", "none", "-monitor", "none"),
            *("-serial", "none", "-chardev", "stdio,id=console"),
            *("-semihosting-config", "enable=on,target=native,chardev=console"),
            *(*options, "-kernel", str(program)),
        ]
    )


@pytest.mark.skipif(missing(qemu=True) is not None, reason=f"needs {missing(qemu=True)}")
@pytest.mark.parametrize("level", ["-O2", "-Os"])
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_parts_equal_the_whole_on_a_board(tmp_path: Path, machine: Machine, level: str) -> None:
    program = tmp_path / "sums.elf"
    _link(DRIVER, machine, [level, "-DCASES=600", f"-DSEED=5{machine.variant}"], program)
    _assert_same(_qemu(machine, program), machine.variant, 600)


@pytest.mark.skipif(missing(qemu=True) is not None, reason=f"needs {missing(qemu=True)}")
@pytest.mark.parametrize(
    ("machine", "most"),
    [
        (M4, {"pointwise64": 1.25, "pointwise16": 1.45, "kernel3": 1.65, "vector": 1.1}),
        (M55, {"pointwise64": 1.95, "pointwise16": 2.5, "kernel3": 3.2, "vector": 3.9}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_four_parts_stay_near_the_whole(
    tmp_path: Path, machine: Machine, most: dict[str, float]
) -> None:
    """Instructions, zeros and end included, in those of the whole kernel."""
    program = tmp_path / "counts.elf"
    clock = [f"-DFPGAIO={machine.fpgaio:#x}", f"-DCOUNTER_MHZ={machine.counter_mhz}"]
    _link(COUNTS, machine, ["-O2", *clock], program)
    told = _qemu(machine, program, "-icount", "shift=8,sleep=off")
    assert told.endswith("end\n"), told
    counts = {(name, int(n)): int(count) for name, n, count in COUNT.findall(told)}
    for name, limit in most.items():
        assert 0 < counts[name, 4] <= limit * counts[name, 0], (name, told)
