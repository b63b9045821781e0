"""A model, its samples, and the command line in process, as fixtures."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Cli, Done, Model

from fieldloop.cli.main import main
from fieldloop.runtime.core import core

# A device behind the real codec that can be told to speak another protocol.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "link"))


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Runs `fieldloop WORDS` in this process."""
    monkeypatch.delenv("FIELDLOOP_DEBUG", raising=False)

    def run(*words: object) -> Done:
        capfd.readouterr()
        code = main([str(word) for word in words])
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    yield run
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    from fieldloop.train import digits as recipe
    from fieldloop.train.distill import deterministic, quiet_rows
    from fieldloop.zoo import digits

    core()  # built here, so that no command has to
    folder = tmp_path_factory.mktemp("model")
    data = digits.load(seed=7)
    with deterministic(7):
        student = digits.Student().eval()
    quiet_rows(student.head, data.known)
    image = recipe.compile_student(student, data).image
    made = Model(folder / "digits.flm", folder / "stream.npz", folder / "test.npz", image)
    made.path.write_bytes(image)
    x, y = data.stream(1, 7)
    np.savez(made.stream, x=x[:40], y=y[:40])
    np.savez(made.test, x=data.x_test[:30], y=data.y_test[:30])
    return made


@pytest.fixture
def silent_port() -> Iterator[str]:
    """A serial line on which nobody answers."""
    near, far = os.openpty()
    yield os.ttyname(far)
    os.close(near)
    os.close(far)
