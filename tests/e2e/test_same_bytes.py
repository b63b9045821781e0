"""What a board learns, the host learns too: every byte of the state and every output, on an M3
without an FPU, an M4F and an M7."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from digits_student import Student, settings, student

from fieldloop.runtime import LearnerConfig, Model
from fieldloop.targets import qemu
from fieldloop.targets.serving import Device, serving

pytestmark = pytest.mark.skipif(
    bool(qemu.missing_tools()), reason=f"needs {', '.join(qemu.missing_tools())}"
)

STEPS = 60
REPLAYS = 4
CHECKED = 40  # test samples whose outputs are compared

CONFIGS = {
    "tinypropv2": LearnerConfig(selector="tinypropv2", replays=REPLAYS, memory=40, seed=7),
    "dense": LearnerConfig(selector="dense", replays=REPLAYS, memory=40, seed=8),
}


@pytest.fixture(scope="module")
def net() -> Student:
    return student()


@pytest.fixture(scope="module", params=["qemu-an385", "qemu-an386", "qemu-an500", "qemu-an547"])
def device(request: pytest.FixtureRequest, net: Student) -> Iterator[Device]:
    """A board of the part that people own, with the student active."""
    with serving(request.param, memory="realistic") as device:
        device.board.push(net.image, to="model0")
        device.board.activate(net.image, slot="model0")
        yield device


@pytest.mark.parametrize("name", CONFIGS)
def test_board_learns_the_hosts_bytes(device: Device, net: Student, name: str) -> None:
    config = CONFIGS[name]
    host = net.learn(config, STEPS)
    board = device.board
    board.learner_open(settings(config))
    board.reset()
    told = board.step(net.stream_x[:STEPS], net.stream_y[:STEPS])
    seq = board.commit()
    state = board.pull("state")

    differing = [i for i, (a, b) in enumerate(zip(state, host.state, strict=True)) if a != b]
    assert not differing, f"{len(differing)} bytes differ, first at {differing[0]}"
    assert told.samples == STEPS
    assert told.backward_macs == host.stats.backward_macs
    assert told.trained == host.stats.trained
    assert board.stats()["replayed"] == STEPS * REPLAYS

    # Something was learned, and the board runs with it.
    x = net.test_x[:CHECKED]
    learned = host.model.predict_int8(x)
    assert (learned != Model(net.image).predict_int8(x)).any()
    assert (board.predict(x).reshape(CHECKED, -1) == learned).all()

    device.power_cut()
    assert device.board.info().learner
    assert device.board.pull("state") == state
    assert device.board.restore() == seq
    assert (device.board.predict(x).reshape(CHECKED, -1) == learned).all()


def test_dense_and_sparse_learn_different_bytes(net: Student) -> None:
    """So that the comparison above is of two things."""
    states = [np.frombuffer(net.learn(c, STEPS).state, np.uint8) for c in CONFIGS.values()]
    assert (states[0] != states[1]).any()
