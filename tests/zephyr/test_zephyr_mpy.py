"""MicroPython on Zephyr: the console, mpremote, the link, and the bytes that learning makes.

The device's own tests run there too: pytest tests/device --fieldloop-board mpy-native_sim,mpy-m3
"""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldloop import __version__
from fieldloop.errors import DoesNotFitError
from fieldloop.image.writer import RehearsalSet, Trainable
from fieldloop.ir.op import OpKind, Window
from fieldloop.link import connect
from fieldloop.link.board import Board
from fieldloop.runtime import Learner, LearnerConfig, Model
from fieldloop.targets.pytest_plugin import firmware
from fieldloop.targets.zephyr_mpy import ROMFS_BYTES, ZephyrMpyBoard, capabilities

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "learn"))
from nets import LINEAR, NetBuilder, finish

pytestmark = pytest.mark.zephyr

SETTINGS: dict[str, Any] = {"lr": 1.0, "memory": 8, "seed": 3}
STEPS = 60
CLASSES = 5


@pytest.fixture(params=("mpy-native_sim", "mpy-m3"))
def target(request: pytest.FixtureRequest) -> Iterator[ZephyrMpyBoard]:
    with ZephyrMpyBoard(request.param, firmware=firmware(request.param)) as started:
        yield started


@functools.cache
def small_image() -> bytes:
    """conv 4, pool, fully connected 5 on 8 x 8 samples, both layers trainable: fits any part."""
    rng = np.random.default_rng(1)
    net = NetBuilder(rng, (1, 8, 8, 1))
    net.weighted(OpKind.CONV2D, 4, Window((3, 3), pads=(1, 1, 1, 1)))
    net.pool(OpKind.MAX_POOL, Window((2, 2), (2, 2)))
    net.flatten()
    net.weighted(OpKind.FULLY_CONNECTED, CLASSES, clamp=LINEAR, out_scale=0.08)
    graph = net.graph()
    names = [op.name for op in graph.ops if len(op.inputs) > 1]
    carried = RehearsalSet(samples(5, 2), np.arange(5, dtype=np.int64))
    labels = ("one", "two", "three", "four", "five")
    return finish(graph, [Trainable(n, 1e-3) for n in names], carried, labels).image


def samples(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.int8]]:
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (count, 8, 8, 1)).astype(np.int8)


def learned() -> Learner:
    """What the host's learner makes of STEPS samples."""
    host = Learner(Model(small_image()), LearnerConfig(**SETTINGS))
    for i, x in enumerate(samples(STEPS, 7)):
        host.step(x, i % CLASSES)
    return host


def test_the_package_is_there(target: ZephyrMpyBoard) -> None:
    target.exec("import sys, fieldloop, _fieldloop")
    assert target.eval("fieldloop.__version__") == __version__
    assert target.eval("sys.platform") == "zephyr"
    assert target.eval("hasattr(sys.stdin, 'buffer')") is False  # BASIC: a text console
    assert target.eval("_fieldloop.crc32(b'123456789')") == 0xCBF43926


def test_mpremote_connects(target: ZephyrMpyBoard) -> None:
    code = "import fieldloop; print(fieldloop.__version__)"
    words = [sys.executable, "-m", "mpremote", "connect", target.repl_port, "exec", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == __version__, done.stderr


def test_more_than_the_console_holds_arrives_whole(target: ZephyrMpyBoard) -> None:
    """512 bytes of input: raw-paste mode asks for less at a time."""
    text = "".join(chr(33 + i * 7 % 90) for i in range(3000))
    target.exec(f"text = {text!r}\nprint(len(text))")
    assert target.eval("text") == text


def test_ctrl_c_ends_a_loop(target: ZephyrMpyBoard) -> None:
    target.begin("n = 0\nwhile True:\n    n += 1")
    time.sleep(0.5)
    target.interrupt()
    assert target.eval("n") > 0


def test_learning_makes_the_bytes_of_the_host(target: ZephyrMpyBoard) -> None:
    """A state is told by its SHA-256: its text would fill a small heap."""
    target.put("/small.flm", small_image())
    target.put("/x.bin", samples(STEPS, 7).tobytes())
    target.exec(
        "import fieldloop, _fieldloop\nmodel = fieldloop.Model('/small.flm')\n"
        f"learner = fieldloop.Learner(model, **{SETTINGS!r})\n"
        "x = bytearray(64)\nwith open('/x.bin', 'rb') as f:\n"
        f"    for i in range({STEPS}):\n        f.readinto(x)\n"
        f"        learner.step(x, i % {CLASSES})\n"
        "out = bytearray(5)\nmodel.predict(x, out)",
        timeout=60,
    )
    host = learned()
    assert host.stats.trained > STEPS // 2
    digest = hashlib.sha256(bytes(host.state)).hexdigest()
    assert target.eval("_fieldloop.sha256(learner.state()).hex()") == digest
    y = host.model.predict_int8(samples(STEPS, 7)[-1:])
    assert target.eval("bytes(out)") == y.tobytes()


def test_a_host_teaches_it_over_the_second_port(target: ZephyrMpyBoard) -> None:
    image = small_image()
    files = "files" in capabilities(target.name)
    slot = "model0" if files else "/small.flm"  # in the ROMFS already, and run in place there
    if not files:
        target.put(slot, image)
    with served(target) as device:
        device.push(image, to=slot)
        device.activate(image, slot=slot)
        device.learner_open(SETTINGS)
        stats = device.step(samples(STEPS, 7), np.arange(STEPS) % CLASSES)
        host = learned()
        assert (stats.samples, stats.backward_macs) == (STEPS, host.stats.backward_macs)
        device.commit()
        assert device.pull("state") == bytes(host.state)
        device.reset()
        y = Model(image).predict_int8(samples(4, 9))
        assert device.predict(samples(4, 9)).tobytes() == y.tobytes()
        device.undo()
        assert device.pull("state") == bytes(host.state)
        device.commit()
    target.restart()  # a power cut
    with served(target) as device:
        info = device.info()
        if files:
            assert info.learner and device.pull("state") == bytes(host.state)
        else:
            assert info.model is None  # it remembers nothing, and says so
            assert info.note is not None and "restart" in info.note


def served(target: ZephyrMpyBoard) -> Board:
    target.begin("import fieldloop\nfieldloop.serve(1, buf=1024)")
    return connect(target.link_port, dedicated=True)


def test_what_the_romfs_cannot_hold_is_refused(target: ZephyrMpyBoard) -> None:
    if "files" in capabilities(target.name):
        pytest.skip("it has a file system")
    with pytest.raises(DoesNotFitError):
        target.put("/large.bin", bytes(ROMFS_BYTES))
    target.put("/part.bin", b"part")
    assert target.get("/part.bin") == b"part"
