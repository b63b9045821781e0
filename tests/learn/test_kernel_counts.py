"""Kernels on simulated boards: the host's bytes, and the instructions that docs promise at most.

kernel_counts.c runs every f32 kernel on fixed cases, among them deltas so small that vectors of an
M55 would take them for 0. QEMU counts; a count repeats to the instruction.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import toolchain
from toolchain import GCC, QEMU

from fieldloop import paths
from fieldloop.runtime import core

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from kernel_harness import board  # noqa: E402

DRIVER = Path(__file__).with_name("kernel_counts.c")
# Instructions for a multiply-accumulate, or for a weight; an M4 and an M7, then an M55.
MOST = {
    "3x3 16 channels input": (4.8, 3.3),
    "3x3 16 channels row": (6.3, 2.9),
    "1x1 64 channels input": (3.6, 2.1),
    "1x1 64 channels row": (6.2, 2.9),
    "5x5 6 channels input": (6.8, 3.3),
    "5x5 6 channels row": (6.1, 2.7),
    "depthwise 3x3 stride 2 input": (14.0, 14.0),
    "depthwise 3x3 stride 2 row": (15.0, 15.0),
    "784 to 32 input": (5.3, 1.9),
    "784, tiny steps step": (16.5, 16.5),
    "784, small steps, 80 % zeros step": (7.5, 7.5),
    "144, small steps step": (26.0, 26.0),
}

pytestmark = pytest.mark.skipif(
    toolchain.missing(qemu=True) is not None, reason=f"needs {toolchain.missing(qemu=True)}"
)


@dataclass(frozen=True)
class Case:
    """One line of kernel_counts.c."""

    macs: int
    instructions: int
    crc: str


def sources() -> list[str]:
    rooms = ("base", "learn")
    return [str(DRIVER), *(str(s) for s in core.sources() if s.parent.name in rooms)]


def told(command: list[str]) -> dict[str, Case]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    lines = done.stdout.split("\n")
    assert lines[-2:] == ["end", ""], done.stdout[-300:] + done.stderr[-300:]
    cells = [line.split("|") for line in lines[:-2]]
    return {f"{a} {b}": Case(int(macs), int(spent), crc) for a, b, macs, spent, crc in cells}


def compiled(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    program = tmp_path_factory.mktemp("host") / "counts"
    root = paths.core_dir()
    flags = [*core.CFLAGS, f"-I{root / 'include'}", f"-I{root}", "-ffunction-sections"]
    flags += ["-fdata-sections", "-Wl,--gc-sections"]
    compiled([core.compiler(), *flags, *sources(), "-o", str(program)])
    return told([str(program)])


@pytest.mark.parametrize("name", board.MACHINES)
def test_kernels_on_a_board(tmp_path: Path, host: dict[str, Case], name: str) -> None:
    machine, root = board.MACHINES[name], paths.core_dir()
    program = tmp_path / "counts.elf"
    where = [("flash", 0), ("ram", 0x20000000)]
    link = [f"-Wl,--defsym=__{n}={at}" for n, at in where]
    link += [f"-Wl,--defsym=__{n}_size={machine.memory}" for n, _ in where]
    flags = [*board.FLAGS, *board.cpu_flags(machine), "-O2", f"-I{root / 'include'}", f"-I{root}"]
    flags += [f"-DFPGAIO={machine.fpgaio:#x}", f"-DCOUNTER_MHZ={machine.counter_mhz}"]
    flags += ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
    hosted = ["--oslib=semihost", "--crt0=hosted"]
    compiled([GCC, *flags, *hosted, *link, *sources(), "-o", str(program)])
    command = [
        *(QEMU, "-M", machine.qemu, "-display", "none", "-monitor", "none", "-serial", "none"),
        *("-chardev", "stdio,id=console", "-icount", "shift=8,sleep=off"),
        *("-semihosting-config", "enable=on,target=native,chardev=console"),
        *("-kernel", str(program)),
    ]
    counted = told(command)
    assert {k: v.crc for k, v in counted.items()} == {k: v.crc for k, v in host.items()}
    if name == "an385":  # every f32 operation is a call there
        return
    over = {
        case: counted[case].instructions / counted[case].macs
        for case, most in MOST.items()
        if counted[case].instructions > most[name == "an547"] * counted[case].macs
    }
    assert not over
