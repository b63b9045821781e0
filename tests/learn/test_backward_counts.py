"""Kernels on simulated boards: the host's bytes, and the instructions that docs promise at most.

kernels.c of bench/learn_harness runs every f32 kernel on fixed cases, among them deltas so small
that vectors of an M55 would take them for 0. QEMU counts; a count repeats to the instruction.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import toolchain

from fieldloop import paths
from fieldloop.runtime import core

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "bench"))  # behind: it has a kernels.py, too

from kernel_harness import board  # noqa: E402
from learn_harness import kernels  # noqa: E402

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


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> dict[str, kernels.Case]:
    program = str(tmp_path_factory.mktemp("host") / "counts")
    root = paths.core_dir()
    flags = [*core.CFLAGS, f"-I{root / 'include'}", f"-I{root}", "-ffunction-sections"]
    flags += ["-fdata-sections", "-Wl,--gc-sections"]
    rooms = [str(s) for s in core.sources() if s.parent.name in kernels.LEVELS]
    command = [core.compiler(), *flags, str(kernels.DRIVER), *rooms, "-o", program]
    subprocess.run(command, check=True)
    told = subprocess.run([program], capture_output=True, text=True, check=True, timeout=120)
    lines = told.stdout.splitlines()
    assert lines[-1] == "end"
    return kernels.parsed(lines[:-1])


@pytest.mark.parametrize("name", board.MACHINES)
def test_kernels_on_a_board(host: dict[str, kernels.Case], name: str) -> None:
    counted = kernels.count(board.MACHINES[name])
    assert {k: v.crc for k, v in counted.items()} == {k: v.crc for k, v in host.items()}
    if name == "an385":  # every f32 operation is a call there
        return
    over = {
        case: counted[case].instructions / counted[case].macs
        for case, most in MOST.items()
        if counted[case].instructions > most[name == "an547"] * counted[case].macs
    }
    assert not over
