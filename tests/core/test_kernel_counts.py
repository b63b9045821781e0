"""The instruction counts that docs/results/kernels.md promises, held where QEMU and models are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import toolchain

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from kernel_harness import board, networks, page  # noqa: E402

pytestmark = [
    pytest.mark.skipif(
        toolchain.missing(qemu=True) is not None, reason=f"needs {toolchain.missing(qemu=True)}"
    ),
    pytest.mark.skipif(
        not networks.MODELS.is_dir(), reason="no models beside the clone; set FIELDLOOP_SHARED"
    ),
]


@pytest.mark.parametrize("name", networks.FILES)
@pytest.mark.parametrize(
    ("machine", "core", "share"), [("an386", "M4", 0.8), ("an547", "M55", 0.6)]
)
def test_whole_inference_stays_well_below_cmsis_nn(
    machine: str, core: str, share: float, name: str
) -> None:
    """The same bytes after every layer as plain C on the host, in that share of instructions."""
    net = networks.network(name)
    counted = board.run(board.MACHINES[machine], net.image, net.x)
    assert tuple(op.crc for op in counted.ops) == net.crcs
    theirs = page.ANCHORS["models"][name]["cores"][core]
    assert counted.instructions <= share * theirs["cmsis_nn_o3"]
    assert max(op.scratch for op in counted.ops) <= theirs["scratch"]
    # the layers are all there is, but for the call that each of them was counted with
    layers = sum(op.instructions for op in counted.ops)
    assert 0 <= layers - counted.instructions < 20 * len(counted.ops)


def test_a_count_repeats_to_the_instruction() -> None:
    net = networks.network("ad01")
    runs = [board.run(board.MACHINES["an386"], net.image, net.x) for _ in range(2)]
    assert runs[0] == runs[1]
