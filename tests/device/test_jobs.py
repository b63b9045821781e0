"""Learning over the link: jobs with progress, pause, cancel and early stop, plan and counters."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from math import gcd
from typing import Any

import numpy as np
import pytest
from images import CLASSES, digits_image, patterns, samples
from package import install, serve

from fieldloop.errors import UsageError
from fieldloop.link.board import Board, connect
from fieldloop.link.errors import LinkError
from fieldloop.link.replies import JobStatus
from fieldloop.runtime import Learner, LearnerConfig, Model
from fieldloop.targets.pytest_plugin import firmware
from fieldloop.targets.unix import UnixBoard

SETTINGS: dict[str, Any] = {"lr": 1.0, "memory": 10, "seed": 3, "holdout": 5}
OWN = [i for i in range(40) if i % 5 != 4]  # of the image's samples, those that are not held out
CARRIED = samples(40, 1)  # by the image
HELD = [i for i in range(40) if i % 5 == 4]


@pytest.fixture
def unix() -> Iterator[UnixBoard]:
    with UnixBoard(firmware=firmware("unix")) as target:
        yield target


@contextlib.contextmanager
def learning(target: Any, image: bytes | None = None) -> Iterator[Board]:
    """The board's server with the model active and a learner open."""
    install(target)
    serve(target)
    with connect(target.link_port, dedicated=True) as board:
        image = digits_image() if image is None else image
        board.push(image, to="model0")
        board.activate(image, slot="model0")
        board.learner_open(SETTINGS)
        yield board
    target.interrupt()


def host_learner() -> Learner:
    return Learner(Model(digits_image()), LearnerConfig(**SETTINGS))


def mixed(step: int) -> int:
    """The image's sample that step number `step` of a training job is made with (SPEC-link)."""
    count = len(OWN)
    stride = count * 5 // 8
    while gcd(stride, count) != 1:
        stride += 1
    return OWN[step % count * stride % count]


def train_host(host: Learner, first: int, end: int, xs: Any = CARRIED) -> int:
    """The steps of a training job; how many were right before."""
    steps = [host.train(xs[mixed(i)], mixed(i) % 8) for i in range(first, end)]
    return sum(s.predicted == mixed(i) % 8 for s, i in zip(steps, range(first, end), strict=True))


def held_out_right(host: Learner, xs: Any = CARRIED) -> int:
    return int((host.model.classify(xs[HELD]) == np.array(HELD) % 8).sum())


def state(board: Board) -> bytes:
    board.commit()
    return board.pull("state")


def check_train(target: Any) -> None:
    """The job makes the host's bytes, tells its progress, and evaluates on what it held out."""
    host = host_learner()
    with learning(target) as board:
        assert board.evaluate() == (held_out_right(host), len(HELD))
        seen: list[JobStatus] = []
        status = board.train(70, every=30, watch=seen.append)
        rights = [held_out_right(host)]
        hits = 0
        for first, end in ((0, 30), (30, 60), (60, 70)):
            hits += train_host(host, first, end)
            rights.append(held_out_right(host))
        assert (status.state, status.done, status.of, status.hits) == ("done", 70, 70, hits)
        assert (status.right, status.total, status.evaluations) == (rights[-1], len(HELD), 4)
        assert status.best == max(rights)
        assert not status.early and not status.brought_back
        assert [s.done for s in seen] == sorted(s.done for s in seen)
        assert state(board) == bytes(host.state)
        assert board.evaluate() == (rights[-1], len(HELD))
        assert state(board) == bytes(host.state)


def test_training_on_unix(unix: UnixBoard) -> None:
    check_train(unix)


@pytest.mark.fieldloop_board(only=("qemu", "zephyr-mpy"), needs=("partitions",))
def test_training_on_board(board: Any) -> None:
    check_train(board)


def test_a_paused_job_keeps_still_and_can_be_committed(unix: UnixBoard) -> None:
    host = host_learner()
    with learning(unix) as board:
        job = board.train_job(200_000)
        while job.status().done < 50:
            time.sleep(0.01)
        job.pause()
        paused = job.status()
        assert paused.state == "paused" and paused.active and not paused.running
        time.sleep(0.1)
        assert job.status() == paused
        job.pause()  # once more is nothing
        train_host(host, 0, paused.done)
        assert state(board) == bytes(host.state)
        with pytest.raises(LinkError, match="is paused"):
            board.step(samples(1, 7), [1])
        with pytest.raises(LinkError, match="is paused"):
            board.learner_open({})
        board.predict(samples(1, 7))
        job.resume()
        deadline = time.monotonic() + 10
        while job.status().done <= paused.done:
            assert time.monotonic() < deadline
        job.cancel()
        ended = job.status()
        assert ended.state == "cancelled" and paused.done < ended.done < ended.of
        job.resume()  # what is over stays so
        assert board.job(job.number).status() == ended
        train_host(host, paused.done, ended.done)
        assert state(board) == bytes(host.state)  # nothing was lost, and nothing done twice
        board.step(samples(1, 7), [1])
        with pytest.raises(LinkError, match="no job 77"):
            board.job(77).pause()


def test_a_job_stops_early_with_its_best_state(unix: UnixBoard) -> None:
    image = digits_image(learnable=True)
    host = Learner(Model(image), LearnerConfig(**SETTINGS))
    xs = patterns()
    rights, states, done = [], [], 0
    while True:
        rights.append(held_out_right(host, xs))
        states.append(bytes(host.state))
        if len(rights) - 1 - rights.index(max(rights)) == 3:
            break
        train_host(host, done, done + 5, xs)
        done += 5
    best = rights.index(max(rights))
    assert rights[best] > rights[0]  # it learned
    with learning(unix, image=image) as board:
        status = board.train(1000, every=5, patience=3, commit=True)
        assert status.state == "done" and status.early and status.brought_back
        assert status.done == done
        assert status.evaluations == len(rights) and status.best == rights[best]
        assert board.evaluate() == (rights[best], len(HELD))
        assert status.record is not None
        assert board.pull("state") == states[best]
        assert board.restore() == status.record


def test_a_watcher_that_gives_up_cancels_the_job(unix: UnixBoard) -> None:
    with learning(unix) as board:

        def give_up(status: JobStatus) -> None:
            if status.done >= 20:
                raise KeyboardInterrupt

        job = board.train_job(200_000)
        with pytest.raises(KeyboardInterrupt):
            job.wait(give_up)
        assert job.status().state == "cancelled"
        host = host_learner()
        train_host(host, 0, job.status().done)
        assert state(board) == bytes(host.state)


def test_jobs_that_make_no_sense_are_refused(unix: UnixBoard) -> None:
    with learning(unix) as board:
        for fields, words in (
            ({"do": "train", "of": 0}, "1 or more"),
            ({"do": "train", "of": 5, "every": -1}, "every"),
            ({"do": "train", "of": 5, "patience": 2}, "patience"),
            ({"do": "train"}, "lacks `of`"),
            ({"do": "dance", "of": 5}, "evaluate, selftest, train"),
            ({"do": "pause", "job": 99}, "no job 99"),
        ):
            with pytest.raises(LinkError, match=words):
                board.client.write(14, fields, what="job")
        board.learner_open({"holdout": 41})
        with pytest.raises(LinkError, match="holdout 41"):
            board.evaluate()


def test_plan_and_layers_are_told(unix: UnixBoard) -> None:
    host = host_learner()
    x, y = samples(30, 7), np.arange(30) % CLASSES
    with learning(unix) as board:
        assert board.learner_plan() == dataclasses.asdict(host.plan)
        board.step(x, y)
        host.run(x, y.tolist())
        assert board.stats() == dataclasses.asdict(host.stats)
        for told, own in zip(board.layer_stats(), host.layer_stats(), strict=True):
            fields = dataclasses.asdict(told)
            assert fields.pop("ratio") == pytest.approx(own.ratio)
            assert fields == dataclasses.asdict(own)
        with pytest.raises(LinkError, match="s_min"):
            board.learner_open({"s_min": 3.0})


def test_real_samples_over_the_link(unix: UnixBoard) -> None:
    """They are learned as on the host; poison is refused before anything is sent."""
    host = host_learner()
    info = host.model.inputs[0]
    x = info.dequantize(samples(20, 7)) + np.float32(0.5 * info.scale)
    y = np.arange(20) % CLASSES
    with learning(unix) as board:
        sent = board.client.stats.calls
        for poison in (np.nan, np.inf, -np.inf):
            bad = x.copy()
            bad[3, 0, 0, 0] = poison
            for call in (lambda: board.step(bad, y), lambda: board.predict(bad)):  # noqa: B023
                with pytest.raises(UsageError, match=r"sample 3 .*not a finite number"):
                    call()
        assert board.client.stats.calls == sent
        with pytest.raises(UsageError, match="labels 0 to 9"):
            board.step(x, y - 1)
        with pytest.raises(LinkError, match=r"0\.\.9"):
            board.step(x, y + 1)
        assert board.step(x, y).samples == 20
        host.run(host.model.as_inputs(x), y.tolist())
        assert state(board) == bytes(host.state)
