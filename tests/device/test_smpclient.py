"""smpclient (PyPI) against the server on MicroPython, and our client by SMP's own groups."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import CLASSES, digits_image, samples
from package import install, serve

from fieldloop.targets.pytest_plugin import firmware
from fieldloop.targets.unix import UnixBoard

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "interop"))
from interop import check_interoperability

LABELS = np.arange(20) % CLASSES


def check(target: Any, *, raw: bool = False) -> None:
    install(target)
    serve(target)
    images = digits_image(), digits_image(4)
    check_interoperability(target.link_port, *images, samples(20, 7), LABELS, raw=raw)
    target.interrupt()


def test_smpclient_on_unix() -> None:
    with UnixBoard(firmware=firmware("unix")) as target:
        check(target)


def test_smpclient_on_unix_raw() -> None:
    with UnixBoard(firmware=firmware("unix")) as target:
        check(target, raw=True)


@pytest.mark.fieldloop_board(only=("qemu", "zephyr-mpy"), needs=("partitions",))
def test_smpclient_on_board(board: Any) -> None:
    check(board)
