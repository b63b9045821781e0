"""What a board learns, the host learns too: every byte of the state and every output, on the unix
port, an M3 without an FPU, an M4F, an M7 and an M55, in each numeric mode.

One start of each board for all of it: about a minute for all five on an idle machine.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from digits_student import Student, settings, student
from every_way_net import STEPS as ALL
from every_way_net import every_way

from fieldloop.runtime import Learner, LearnerConfig, Model
from fieldloop.targets import build, qemu, roster
from fieldloop.targets.serving import Device, serving

STEPS = 60
REPLAYS = 4
CHECKED = 40  # test samples whose outputs are compared

CONFIGS = {
    "tinypropv2": LearnerConfig(selector="tinypropv2", replays=REPLAYS, memory=40, seed=7),
    "dense": LearnerConfig(selector="dense", replays=REPLAYS, memory=40, seed=8),
}

BOARDS = ["unix", "qemu-an385", "qemu-an386", "qemu-an500", "qemu-an547"]

# Name: steps, and how every_way() learns. Each numeric mode over the whole stream.
USUAL: dict[str, Any] = {"lr": 10.0, "rho": 0.995, "replays": 1, "memory": 20, "holdout": 4}
MODES: dict[str, tuple[int, LearnerConfig]] = {
    "f32": (ALL, LearnerConfig(**USUAL, seed=1)),
    "int16": (ALL, LearnerConfig(**USUAL, seed=2, deltas="int16")),
    "int16 weights": (
        ALL,
        LearnerConfig(**USUAL, seed=3, deltas="int16", weights="int16", selector="loss"),
    ),
    "channels": (
        200,
        LearnerConfig(
            **USUAL, seed=4, unit="channel", rank="activation", selector="topk", bias_mode="dense"
        ),
    ),
    "master, momentum": (
        ALL - 1,  # the last batch is not full
        LearnerConfig(
            **USUAL, seed=5, weights="f32", optimizer="momentum", batch=4, selector="dense"
        ),
    ),
    "adam": (
        ALL,
        LearnerConfig(**USUAL, seed=6, optimizer="adam", batch=2, selector="budget", floor=3),
    ),
    "mask": (
        200,
        LearnerConfig(**USUAL, seed=7, selector="mask", mask=(1.0, 0.5, 0.0, 0.25)),
    ),
    "random": (200, LearnerConfig(**USUAL, seed=8, selector="random", weights="int16")),
}


@functools.cache
def learned(mode: str) -> Learner:
    """The host's learner after its stream."""
    steps, config = MODES[mode]
    stream = every_way()
    learner = Learner(Model(stream.image), config)
    learner.run(stream.x[:steps], stream.y[:steps].tolist())
    learner.flush()
    return learner


@pytest.fixture(scope="module")
def net() -> Student:
    return student()


@pytest.fixture(scope="module", params=BOARDS)
def device(request: pytest.FixtureRequest, net: Student) -> Iterator[Device]:
    """The unix port, or a board of the part that people own; it has both models in its slots."""
    is_unix = roster.lookup(request.param).kind == "unix"
    if missing := build.missing_tools("unix") if is_unix else qemu.missing_tools():
        pytest.skip(f"needs {', '.join(missing)}")
    with serving(request.param, memory=None if is_unix else "realistic") as device:
        device.board.push(net.image, to="model0")
        device.board.push(every_way().image, to="model1")
        yield device


@pytest.mark.parametrize("name", CONFIGS)
def test_board_learns_the_hosts_bytes(device: Device, net: Student, name: str) -> None:
    config = CONFIGS[name]
    host = net.learn(config, STEPS)
    board = device.board
    board.activate(net.image, slot="model0")
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


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_makes_the_same_bytes_everywhere(device: Device, mode: str) -> None:
    steps, config = MODES[mode]
    stream = every_way()
    host = learned(mode)
    board = device.board
    board.activate(stream.image, slot="model1")
    board.learner_open(settings(config))
    board.reset()
    board.step(stream.x[:steps], stream.y[:steps])
    board.commit()  # flushes
    state = board.pull("state")
    differing = [i for i, (a, b) in enumerate(zip(state, host.state, strict=True)) if a != b]
    assert not differing, f"{len(differing)} bytes differ, first at {differing[0]}"
    assert board.evaluate() == host.evaluate()
    x = stream.test_x[:CHECKED]
    assert (board.predict(x).reshape(CHECKED, -1) == host.model.predict_int8(x)).all()


def test_what_is_compared_is_of_many_things() -> None:
    """Each mode learns, and other weights than the others."""
    stream = every_way()
    factory = Model(stream.image).predict_int8(stream.test_x)
    outputs = [factory, *(learned(mode).model.predict_int8(stream.test_x) for mode in MODES)]
    for i, one in enumerate(outputs):
        assert all((one != other).any() for other in outputs[:i]), i
    for mode in ("f32", "int16"):
        host = learned(mode)
        assert host.stats.samples == 1000 and host.stats.skipped > 0
        right = (host.model.classify(stream.test_x) == stream.test_y).mean()
        assert right > 0.4, (mode, right)


def test_dense_and_sparse_learn_different_bytes(net: Student) -> None:
    """So that the comparison above is of two things."""
    states = [np.frombuffer(net.learn(c, STEPS).state, np.uint8) for c in CONFIGS.values()]
    assert (states[0] != states[1]).any()
