"""The kernels for Helium equal plain C in every byte: emulated on the host, and as assembly."""

from __future__ import annotations

from pathlib import Path

import pytest
import toolchain
from variant_runner import assert_same, run_on_board, run_on_host

MVE = 2
CPU = ["-mthumb", "-mcpu=cortex-m55+nomve.fp", "-mfloat-abi=hard"]


def test_emulated_kernels_equal_plain_c(tmp_path: Path) -> None:
    """The sanitizers see every address: the C beside the assembly reads and writes the same."""
    assert_same(run_on_host(tmp_path, MVE, 4000, seed=30), MVE, 4000)


@pytest.mark.skipif(
    toolchain.missing(qemu=True) is not None, reason=f"needs {toolchain.missing(qemu=True)}"
)
@pytest.mark.parametrize("level", ["-O2", "-Os"])
def test_assembly_equals_plain_c(tmp_path: Path, level: str) -> None:
    ddr = 0x60000000
    told = run_on_board(
        tmp_path, "mps3-an547", [*CPU, level], 1000, seed=31, code=1 << 19, data_at=ddr
    )
    assert_same(told, MVE, 1000)
