"""A bad line between host and board changes how long it takes, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from digits_student import Int8, Student, settings, student

from fieldloop.link.board import Board, connect
from fieldloop.link.lossy import FaultCounts, Faults, LossyPort
from fieldloop.link.transport import open_port
from fieldloop.runtime import LearnerConfig
from fieldloop.targets import qemu
from fieldloop.targets.serving import Device, serving

pytestmark = pytest.mark.skipif(
    bool(qemu.missing_tools()), reason=f"needs {', '.join(qemu.missing_tools())}"
)

CONFIG = LearnerConfig(replays=2, memory=40, seed=5)
PREDICTED = 50
STEPS = 100
FAULTS = Faults(drop=0.001, corrupt=0.001, duplicate=0.02, stall=0.01, stall_s=0.3)
SEEDS = (1, 2, 3)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    predicted: Int8  # before learning
    learned: Int8  # after it
    state: bytes
    hits: int
    counters: dict[str, int | float]


@pytest.fixture(scope="module")
def net() -> Student:
    return student()


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    with serving("qemu-an386") as device:
        yield device


@pytest.fixture(scope="module")
def clean(device: Device, net: Student) -> Result:
    """What a clean link gives; one call for each step, as the bad line gets them."""
    return session(device.board, net)


def session(board: Board, net: Student) -> Result:
    """Push, activate, predict, learn, commit, and bring everything home."""
    board.push(net.image, to="model0")
    board.activate(net.image, slot="model0")
    board.learner_open(settings(CONFIG))
    board.reset()
    x = net.test_x[:PREDICTED]
    predicted = board.predict(x)
    hits = 0
    for sample, label in zip(net.stream_x[:STEPS], net.stream_y[:STEPS], strict=True):
        hits += board.step(sample, label).hits
    learned = board.predict(x)
    board.commit()
    return Result(predicted, learned, board.pull("state"), hits, board.stats())


def test_clean_link_agrees_with_the_host(clean: Result, net: Student) -> None:
    host = net.learn(CONFIG, STEPS)
    assert clean.state == host.state
    assert clean.counters["samples"] == STEPS
    assert (clean.learned != clean.predicted).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_bad_link_ends_with_the_same_bytes(
    device: Device, clean: Result, net: Student, seed: int
) -> None:
    device.board.push(bytes(64), to="model0")  # so that all of the image has to go over the line
    device.close()
    port = LossyPort(open_port(device.target.link_port), seed=seed, faults=FAULTS)
    with connect(port, dedicated=True, timeout=30.0) as board:
        before = board.info()
        result = session(board, net)
        after = board.info()
        stats = board.client.stats
        counts = port.counts

    print(
        f"seed {seed}: {stats.calls} calls, {stats.sent} transmissions ({stats.resent} repeated), "
        f"{counts.dropped} bytes dropped, {counts.corrupted} changed, {counts.duplicated} frames "
        f"doubled, {counts.stalled} stalls; the board got {after.frames - before.frames} frames, "
        f"{after.bad_frames - before.bad_frames} damaged"
    )
    assert hurt(counts), "the line was not bad at all"
    assert stats.resent > 0
    assert after.frames - before.frames > stats.calls  # repeated calls reached the board

    assert result.counters == clean.counters  # above all `samples`: no step ran twice
    assert result.counters["samples"] == STEPS
    assert result.hits == clean.hits  # and each was answered with its own answer
    assert result.state == clean.state
    assert np.array_equal(result.predicted, clean.predicted)
    assert np.array_equal(result.learned, clean.learned)


def hurt(counts: FaultCounts) -> bool:
    return min(counts.dropped, counts.corrupted, counts.duplicated, counts.stalled) > 0
