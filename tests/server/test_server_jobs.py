"""Jobs of the C server: the checks of tests/device/test_jobs.py, and what memory decides."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from math import gcd
from typing import Any

import numpy as np
import pytest
from host_app import HostApp
from images import CLASSES, digits_image, patterns, samples

from fieldloop.link.board import Board, connect
from fieldloop.link.errors import LinkError
from fieldloop.link.replies import JobStatus
from fieldloop.runtime import Learner, LearnerConfig, Model

SETTINGS: dict[str, Any] = {"lr": 1.0, "memory": 10, "seed": 3, "holdout": 5}
COUNT = 40  # samples that travel with the image
CARRIED = samples(COUNT, 1)


@pytest.fixture(params=[False, True], ids=["plain", "sanitized"])
def app(request: pytest.FixtureRequest) -> Iterator[HostApp]:
    with HostApp(sanitize=request.param) as target:
        yield target


@contextlib.contextmanager
def learning(
    target: HostApp, image: bytes | None = None, settings: dict[str, Any] = SETTINGS
) -> Iterator[Board]:
    """The server with the model active and a learner open."""
    with connect(target.link_port, dedicated=True) as board:
        image = digits_image() if image is None else image
        board.push(image, to="model0")
        board.activate(image, slot="model0")
        board.learner_open(settings)
        yield board


class Host:
    """The host's learner, taught as SPEC-link says that a training job does."""

    def __init__(
        self, image: bytes, xs: Any = CARRIED, settings: dict[str, Any] = SETTINGS
    ) -> None:
        self.learner = Learner(Model(image), LearnerConfig(**settings))
        self.xs = xs
        every = settings["holdout"]
        self.own = [i for i in range(COUNT) if not every or i % every != every - 1]
        self.held = [i for i in range(COUNT) if not every or i % every == every - 1]
        self.stride = max(1, len(self.own) * 5 // 8)
        while gcd(self.stride, len(self.own)) != 1:
            self.stride += 1

    def train(self, first: int, end: int) -> int:
        """The steps of a job; how many samples were right before."""
        hits = 0
        for step in range(first, end):
            i = self.own[step % len(self.own) * self.stride % len(self.own)]
            hits += self.learner.train(self.xs[i], i % 8).predicted == i % 8
        return hits

    def held_out_right(self) -> int:
        predicted = self.learner.model.classify(self.xs[self.held])
        return int((predicted == np.array(self.held) % 8).sum())

    @property
    def state(self) -> bytes:
        return bytes(self.learner.state)


def state(board: Board) -> bytes:
    board.commit()
    return board.pull("state")


@pytest.mark.parametrize("holdout", [5, 2, 0, 40], ids="holdout {}".format)
def test_training_is_the_hosts(app: HostApp, holdout: int) -> None:
    """The same bytes, progress told, and evaluations on what is held out."""
    settings = {**SETTINGS, "holdout": holdout}
    host = Host(digits_image(), settings=settings)
    with learning(app, settings=settings) as board:
        held = len(host.held)
        assert board.evaluate() == (host.held_out_right(), held)
        seen: list[JobStatus] = []
        status = board.train(70, every=30, watch=seen.append)
        rights = [host.held_out_right()]
        hits = 0
        for first, end in ((0, 30), (30, 60), (60, 70)):
            hits += host.train(first, end)
            rights.append(host.held_out_right())
        assert (status.state, status.done, status.of, status.hits) == ("done", 70, 70, hits)
        assert (status.right, status.total, status.evaluations) == (rights[-1], held, 4)
        assert status.best == max(rights)
        assert not status.early and not status.brought_back and status.record is None
        assert [s.done for s in seen] == sorted(s.done for s in seen)
        assert state(board) == host.state
        assert board.evaluate() == (rights[-1], held)
        assert state(board) == host.state


def test_a_batch_is_flushed_before_an_evaluation_and_at_the_end(app: HostApp) -> None:
    settings = {**SETTINGS, "batch": 8}
    host = Host(digits_image(), settings=settings)
    with learning(app, settings=settings) as board:
        board.train(33, every=11)
        for first in (0, 11, 22):
            host.train(first, first + 11)
            host.learner.flush()
        assert state(board) == host.state
        board.train(5)
        host.train(0, 5)
        host.learner.flush()
        assert state(board) == host.state


def test_a_paused_job_keeps_still_and_can_be_committed(app: HostApp) -> None:
    host = Host(digits_image())
    with learning(app) as board:
        job = board.train_job(200_000)
        while job.status().done < 50:
            time.sleep(0.01)
        job.pause()
        paused = job.status()
        assert paused.state == "paused" and paused.active and not paused.running
        time.sleep(0.1)
        assert job.status() == paused
        job.pause()  # once more is nothing
        host.train(0, paused.done)
        assert state(board) == host.state
        x = samples(1, 7)
        for call in (
            lambda: board.step(x, [1]),
            lambda: board.learner_open({}),
            board.undo,
            board.reset,
            board.restore,
            lambda: board.push(digits_image(4), to="model1"),
            lambda: board.activate(digits_image(), slot="model0"),
            lambda: board.paint(1),
            lambda: board.count_step(x, 1),
            lambda: board.train(5),
        ):
            with pytest.raises(LinkError, match="job 1 is paused"):
                call()
        board.predict(x)
        job.resume()
        deadline = time.monotonic() + 10
        while job.status().done <= paused.done:
            assert time.monotonic() < deadline
        with pytest.raises(LinkError, match="job 1 is running"):
            board.commit()
        job.cancel()
        ended = job.status()
        assert ended.state == "cancelled" and paused.done < ended.done < ended.of
        job.resume()  # what is over stays so
        assert board.job(job.number).status() == ended
        host.train(paused.done, ended.done)
        assert state(board) == host.state  # nothing was lost, and nothing done twice
        board.step(x, [1])
        with pytest.raises(LinkError, match="no job 77"):
            board.job(77).pause()


def early_stop(host: Host, patience: int) -> tuple[list[int], list[bytes], int]:
    """Evaluations, the state of each, and steps, until `patience` of them were no better."""
    rights, states, done = [], [], 0
    while True:
        rights.append(host.held_out_right())
        states.append(host.state)
        if len(rights) - 1 - rights.index(max(rights)) == patience:
            return rights, states, done
        host.train(done, done + 5)
        done += 5


def test_a_job_stops_early_with_its_best_state(app: HostApp) -> None:
    image = digits_image(learnable=True)
    rights, states, done = early_stop(Host(image, patterns()), 3)
    best = rights.index(max(rights))
    assert rights[best] > rights[0]  # it learned
    assert states[best] != states[-1]
    with learning(app, image) as board:
        status = board.train(1000, every=5, patience=3, commit=True)
        assert status.state == "done" and status.early and status.brought_back
        assert status.done == done
        assert status.evaluations == len(rights) and status.best == rights[best]
        assert board.evaluate()[0] == rights[best]
        assert status.record is not None
        assert board.pull("state") == states[best]
        assert board.restore() == status.record


def test_without_room_for_the_best_state_the_last_one_stays() -> None:
    image = digits_image(learnable=True)
    _, states, done = early_stop(Host(image, patterns()), 3)
    with HostApp() as target, learning(target, image) as board:
        planned = board.memory().arena_bytes
    room = planned + len(states[0])
    for memory, back in ((room + 64, True), (room - 64, False)):
        with HostApp(memory=memory) as target, learning(target, image) as board:
            status = board.train(1000, every=5, patience=3, commit=True)
            assert status.early and status.done == done
            assert status.brought_back is back
            assert ("no memory to keep" in status.message) is not back
            assert (board.pull("state") == states[-1]) is not back


def test_a_commit_that_fails_at_the_end_fails_the_job() -> None:
    settings = {**SETTINGS, "memory": 400}
    with HostApp(store=2) as target, learning(target, settings=settings) as board:
        job = board.train_job(10, commit=True)
        while job.status().active:
            time.sleep(0.01)
        status = job.status()
        assert (status.state, status.done, status.record) == ("failed", 10, None)
        assert "needs" in status.message
        assert board.stats()["samples"] == 10


def test_a_restart_ends_a_job(app: HostApp) -> None:
    with learning(app) as board:
        board.commit()
        job = board.train_job(200_000)
        assert job.status().running
    app.restart()
    with connect(app.link_port, dedicated=True) as board:
        with pytest.raises(LinkError, match=f"no job {job.number} since"):
            board.job(job.number).status()
        assert board.stats()["samples"] == 0  # the newest commit is in use
        with pytest.raises(LinkError, match="no job"):
            board.job(0).status()


def test_another_model_ends_a_job_that_is_over(app: HostApp) -> None:
    with learning(app) as board:
        assert board.train(5).job == 1
        image = digits_image(4)
        board.push(image, to="model1")
        board.activate(image, slot="model1")
        with pytest.raises(LinkError, match="no job 1 since this model was opened"):
            board.job(1).status()
        assert board.job_start("selftest", 1) == 2


def test_reads_are_answered_while_a_selftest_runs(app: HostApp) -> None:
    x = samples(1, 7)
    with connect(app.link_port, dedicated=True) as board:
        image = digits_image()
        board.push(image, to="model0")
        board.activate(image, slot="model0")
        job = board.job_start("selftest", 300_000)  # it needs no learner
        first = board.job_status(job)
        board.predict(x)
        later = board.job_status(job)
        assert first.running and later.running and later.done > first.done
        board.job_cancel(job)
        ended = board.job_status(job)
        assert ended.message == f"{ended.right} of {ended.done} samples right"
        job = board.job_start("selftest", 2 * COUNT + 3)
        while board.job_status(job).running:
            time.sleep(0.01)
        right = Model(image).classify(CARRIED) == np.arange(COUNT) % 8
        expected = int(2 * right.sum() + right[:3].sum())
        assert board.job_status(job).message == f"{expected} of {2 * COUNT + 3} samples right"


def test_jobs_that_make_no_sense_are_refused(app: HostApp) -> None:
    with learning(app) as board:
        for fields, words in (
            ({"do": "train", "of": 0}, "of: expected 1 or more, got 0"),
            ({"do": "train", "of": 5, "every": -1}, "every: expected 0 or more, got -1"),
            ({"do": "train", "of": 5, "every": -(2**40)}, "every"),
            ({"do": "train", "of": 2**32}, "4294967295"),
            ({"do": "train", "of": "many"}, "of: expected a number"),
            ({"do": "train", "of": 5, "patience": 2}, "patience"),
            ({"do": "train"}, "lacks `of`"),
            ({"do": "selftest"}, "lacks `of`"),
            ({"of": 5}, "lacks `do`"),
            ({"do": "dance", "of": 5}, "evaluate, selftest, train.*got dance"),
            ({"do": "pause", "job": 99}, "no job 99"),
            ({"do": "pause"}, "lacks `job`"),
        ):
            with pytest.raises(LinkError, match=words):
                board.client.write(14, fields, what="job")
        with pytest.raises(LinkError, match="lacks `job`"):
            board.client.read(14, {}, what="job")
        board.learner_open({"holdout": 41})
        with pytest.raises(LinkError, match="holdout 41 of 40 samples is none"):
            board.evaluate()


def test_plan_and_layers_are_told(app: HostApp) -> None:
    host = Host(digits_image()).learner
    x, y = samples(30, 7), np.arange(30) % CLASSES
    with learning(app) as board:
        assert board.learner_plan() == dataclasses.asdict(host.plan)
        board.step(x, y)
        host.run(x, y.tolist())
        assert board.stats() == dataclasses.asdict(host.stats)
        for told, own in zip(board.layer_stats(), host.layer_stats(), strict=True):
            fields = dataclasses.asdict(told)
            assert fields.pop("ratio") == pytest.approx(own.ratio)
            assert fields == dataclasses.asdict(own)
