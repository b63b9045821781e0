"""The C server loses power while it commits: the old state or the new one is there, whole."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_app import HostApp
from images import CLASSES, digits_image, samples

from fieldloop.errors import DeviceError
from fieldloop.link.board import connect
from fieldloop.runtime import Learner, LearnerConfig, Model

STATE = 1  # record type
SETTINGS: dict[str, Any] = {"lr": 1.0, "memory": 10, "seed": 3}
CUTS = 50
KILL_EVERY = 5
LAST_SHARE = 0.3
XS = samples(50, 7)
IMAGE = digits_image()
UID = IMAGE[16:32]


class Bench:
    """The program, and the host's learner that knows what its flash must hold."""

    def __init__(self, app: HostApp, folder: Path, rng: random.Random) -> None:
        self.app, self.folder, self.rng = app, folder, rng
        self.learner = Learner(Model(IMAGE), LearnerConfig(**SETTINGS))
        self.found: Counter[str] = Counter()
        app.start()
        with connect(app.link_port, dedicated=True) as board:
            board.push(IMAGE, to="model0")
            board.activate(IMAGE, slot="model0")
            board.learner_open(SETTINGS)
            board.commit()
        app.kill()
        self.known = bytes(self.learner.state)
        self.operations = self._operations_of_a_commit()

    def _operations_of_a_commit(self) -> int:
        store = self.app.store(self.folder)
        before = store.flash.operations
        store.append(STATE, UID, self.known)
        return store.flash.operations - before

    def _learn(self) -> tuple[Any, int]:
        at = self.learner.stats.samples % len(XS)
        self.learner.step(XS[at], at % CLASSES)
        return XS[at], at % CLASSES

    def cut(self) -> None:
        out_of_the_blue = self.rng.randrange(KILL_EVERY) == 0
        if out_of_the_blue:
            self.app.start()
        else:
            # More often at the last operation of a commit: the new state is there only after it.
            last = self.rng.random() < LAST_SHARE
            cut = self.operations if last else self.rng.randint(1, 2 * self.operations)
            self.app.start(cut=cut, seed=self.rng.getrandbits(32), inside=self.rng.randrange(2))
        with connect(self.app.link_port, dedicated=True) as board:
            info = board.info()
            assert info.learner and info.fault is None
            assert board.pull("state") == self.known
            if out_of_the_blue:
                threading.Timer(self.rng.uniform(0.0, 0.03), self.app.kill).start()
            committed = self._commit_until_it_dies(board)
        deadline = time.monotonic() + 10
        while self.app.running:
            assert time.monotonic() < deadline, "it did not lose power"
            time.sleep(0.001)
        self._look(committed, "killed" if out_of_the_blue else "cut")

    def _commit_until_it_dies(self, board: Any) -> bytes:
        """The state of the last commit that returned; the learner is one step ahead of it."""
        committed = self.known
        self.learner.load(self.known)
        with suppress(DeviceError):
            while True:
                x, label = self._learn()
                board.step(x[None], np.array([label]))
                board.commit()
                committed = bytes(self.learner.state)
        return committed

    def _look(self, committed: bytes, how: str) -> None:
        record = self.app.store(self.folder).find(STATE, UID)
        assert record is not None, "the store holds no state at all"
        if record.payload == committed:
            self.found[how, "old"] += 1
        else:
            assert record.payload == bytes(self.learner.state), "neither old nor new"
            self.found[how, "new"] += 1
        self.known = record.payload


@pytest.mark.parametrize("store", [16, 13], ids="{} sectors".format)
def test_a_power_cut_leaves_the_old_or_the_new_state(store: int, tmp_path: Path) -> None:
    app = HostApp(flash_file=tmp_path / "flash.bin", store=store)
    bench = Bench(app, tmp_path, random.Random(store))
    try:
        for _ in range(CUTS // 2):
            bench.cut()
    finally:
        app.kill()
    print(f"{bench.operations} operations a commit: {dict(bench.found)}")
    assert sum(bench.found.values()) == CUTS // 2
    for found in ("old", "new"):
        assert sum(n for (_, what), n in bench.found.items() if what == found) > 0, bench.found
