"""Slices of channels and rows equal the same box of the whole layer, in every variant and byte.

Every piece has its exact size on the heap, so that the sanitizers see a byte read beyond it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import toolchain
from variant_runner import assert_same, assert_same_slices, run_on_board, run_on_host

M4 = ["-mthumb", "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"]
M55 = ["-mthumb", "-mcpu=cortex-m55+nomve.fp", "-mfloat-abi=hard"]
BOARDS = {
    "mps2-an386": (1, M4, {}),
    "mps3-an547": (2, M55, {"code": 1 << 19, "data_at": 0x60000000}),
}


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_slices_equal_the_whole(tmp_path: Path, variant: int) -> None:
    told = run_on_host(tmp_path, variant, 4000, seed=40 + variant, driver="variant_slices")
    assert_same_slices(told, variant, 4000)


def test_plain_c_with_gaps_equals_plain_c_without(tmp_path: Path) -> None:
    """What the optimised variants are compared with takes steps from pixel to pixel itself."""
    assert_same(run_on_host(tmp_path, 0, 2000, seed=44), 0, 2000)


@pytest.mark.skipif(
    toolchain.missing(qemu=True) is not None, reason=f"needs {toolchain.missing(qemu=True)}"
)
@pytest.mark.parametrize("level", ["-O2", "-Os"])
@pytest.mark.parametrize("machine", BOARDS)
def test_slices_equal_the_whole_in_assembly(tmp_path: Path, machine: str, level: str) -> None:
    variant, flags, memory = BOARDS[machine]
    told = run_on_board(
        tmp_path, machine, [*flags, level], 1000, seed=45, driver="variant_slices", **memory
    )
    assert_same_slices(told, variant, 1000)
