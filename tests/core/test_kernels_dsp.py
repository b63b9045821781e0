"""The kernels for Armv7E-M equal plain C in every byte: emulated on the host, and as assembly."""

from __future__ import annotations

from pathlib import Path

import pytest
import toolchain
from variant_runner import assert_same, run_on_board, run_on_host

DSP = 1
CPUS = {
    "mps2-an386": ["-mthumb", "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"],
    "mps2-an500": ["-mthumb", "-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"],
}


def test_emulated_kernels_equal_plain_c(tmp_path: Path) -> None:
    """What the sanitizers see here holds for the assembly too: both read the same addresses."""
    assert_same(run_on_host(tmp_path, DSP, 4000, seed=20), DSP, 4000)


@pytest.mark.skipif(
    toolchain.missing(qemu=True) is not None, reason=f"needs {toolchain.missing(qemu=True)}"
)
@pytest.mark.parametrize("level", ["-O2", "-Os"])
@pytest.mark.parametrize("machine", CPUS)
def test_assembly_equals_plain_c(tmp_path: Path, machine: str, level: str) -> None:
    told = run_on_board(tmp_path, machine, [*CPUS[machine], level], 1000, seed=21)
    assert_same(told, DSP, 1000)
