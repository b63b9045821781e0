"""What every server of ours must do, asked by the host's client: the one in Python on any of its
targets (test_server.py), and the one in C (tests/server/test_host_app.py).

A target has link_port, restart() (a power cut) and running; `up` has it serve after a start.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from images import CLASSES, digits_image, samples

from fieldloop.link.board import Board, connect
from fieldloop.link.errors import LinkError
from fieldloop.link.lossy import Faults, LossyPort
from fieldloop.link.transport import open_port
from fieldloop.runtime import Learner, LearnerConfig, Model

SETTINGS: dict[str, Any] = {"lr": 1.0, "memory": 10, "seed": 3}

Up = Callable[[Any], None]


def client(target: Any) -> Board:
    return connect(target.link_port, dedicated=True)


def host_learner() -> Learner:
    return Learner(Model(digits_image()), LearnerConfig(**SETTINGS))


def load(device: Board, slot: str = "model0", seed: int = 0) -> None:
    image = digits_image(seed)
    device.push(image, to=slot)
    device.activate(image, slot=slot)


def refused(call: Any, *words: str) -> LinkError:
    with pytest.raises(LinkError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)
    return caught.value


def check_whole_way(target: Any, up: Up) -> None:
    image = digits_image()
    x, labels = samples(60, 7), np.arange(60) % CLASSES
    host = host_learner()
    up(target)
    with client(target) as device:
        info = device.info()
        assert (info.model, info.learner, info.buf_bytes) == (None, False, 4096)
        assert set(info.slots) == {"model0", "model1"}
        device.push(image, to="model0")
        model = device.activate(image, slot="model0")
        assert (model.slot, model.bytes, model.learnable) == ("model0", len(image), True)
        assert device.predict(x).tobytes() == host.model.predict_int8(x).tobytes()
        planned = device.learner_open(SETTINGS)
        stats = device.step(x, labels)
        steps = [host.step(a, int(y)) for a, y in zip(x, labels, strict=True)]
        assert stats.samples == 60
        assert stats.hits == sum(s.predicted == y for s, y in zip(steps, labels, strict=True))
        assert stats.loss_sum == pytest.approx(sum(s.error for s in steps), rel=1e-5)
        assert stats.backward_macs == host.stats.backward_macs
        assert device.stats()["trained"] == host.stats.trained
        first = device.commit()
        assert device.pull("state") == bytes(host.state)
        assert device.pull("image") == image

        # The arena is used to its last planned byte, and a paint loses nothing.
        for paint in (0x55, 0xAA):
            device.paint(paint)
            device.step(x[:1], labels[:1])
            memory = device.memory()
            assert memory.used_bytes == memory.arena_bytes == planned
        for _ in range(2):
            host.step(x[0], 0)
        assert device.commit() > first
        assert device.pull("state") == bytes(host.state)
        device.undo()
        assert device.pull("state") != bytes(host.state)
        device.undo()
        assert device.pull("state") == bytes(host.state)  # undo of undo
        device.step(x[:3], labels[:3])
        device.restore()
        device.commit()
        assert device.pull("state") == bytes(host.state)
        assert target.running

    target.restart()  # a power cut
    up(target)
    with client(target) as device:
        info = device.info()
        assert info.model is not None and info.learner and info.fault is None
        assert device.pull("state") == bytes(host.state)
        assert device.predict(x).tobytes() == host.model.predict_int8(x).tobytes()
        device.reset()
        assert device.predict(x).tobytes() == Model(image).predict_int8(x).tobytes()
    target.restart()
    up(target)
    with client(target) as device:
        assert device.predict(x).tobytes() == Model(image).predict_int8(x).tobytes()
        assert device.info().learner is False  # factory's weights need none
        device.learner_open(SETTINGS)
        device.undo()  # a reset can be undone
        assert device.predict(x).tobytes() == host.model.predict_int8(x).tobytes()


def check_faults(target: Any) -> None:
    """They are told and change nothing."""
    image, other = digits_image(), digits_image(4)
    x = samples(4, 7)
    with client(target) as device:
        refused(lambda: device.client.read(4, {"x": b"x" * 64}, what="predict"), "no model")
        load(device)
        refused(lambda: device.learner_open({"speed": 3}), "speed")
        refused(lambda: device.learner_open({"selector": "best"}), "selector", "best")
        refused(lambda: device.learner_open({"s_min": 3.0}), "s_min")
        refused(lambda: device.step(x[:1], [1]), "no learner is open")
        refused(device.commit, "no learner is open")
        device.learner_open(SETTINGS)
        refused(device.undo, "nothing was committed")
        device.step(x, [0, 1, 2, 3])
        device.commit()
        state = device.pull("state")
        refused(lambda: device.step(x, [0, 1, 2, 10]), "0..9", "10")
        wrong = {"x": b"x" * 65, "y": b"\0"}
        refused(lambda: device.client.write(6, wrong, what="step"), "64", "65")
        refused(lambda: device.client.write(6, {"x": b"x" * 64}, what="step"), "lacks `y`")
        refused(lambda: device.client.write(99, {}, what="nonsense"), "nonsense")
        refused(lambda: device.push(image, to="model7"), "no slot model7")
        refused(lambda: device.activate(other, slot="model1"), "push again")
        damaged = image[:-1] + bytes([image[-1] ^ 1])
        device.push(damaged, to="model1")
        refused(lambda: device.activate(damaged, slot="model1"), "no whole .flm image")
        refused(lambda: device.activate(other, slot="model1"), "SHA-256")
        device.commit()
        assert device.pull("state") == state  # the first four steps and nothing else
        info = device.info()
        assert info.model is not None and info.model.slot == "model0"


def check_another_model_takes_over_and_back(target: Any) -> None:
    x = samples(20, 7)
    with client(target) as device:
        load(device, "model0")
        device.learner_open(SETTINGS)
        device.step(x, np.arange(20) % CLASSES)
        device.commit()
        learned = device.predict(x)
        load(device, "model1", seed=4)
        other = Model(digits_image(4)).predict_int8(x)
        assert device.predict(x).tobytes() == other.tobytes()
        assert device.info().learner is False
        device.activate(digits_image(), slot="model0")
        assert device.info().learner is True  # what it learned is still in the store
        assert device.predict(x).tobytes() == learned.tobytes()


def check_a_push_that_was_cut_off(target: Any, up: Up) -> None:
    image = digits_image()
    up(target)
    with client(target) as device:
        load(device)
        half: dict[str, Any] = {"to": "model1", "off": 0, "len": len(image)}
        half |= {"sha": b"s" * 32, "data": image[:1000]}
        assert device.client.write(2, half, what="push")["off"] == 1000
        assert device.client.write(2, half, what="push")["off"] == 1000  # it goes on there
    target.restart()
    up(target)
    with client(target) as device:
        assert device.info().model is not None
        load(device, "model1", seed=4)


def check_a_lossy_line(target: Any, faults: Faults) -> None:
    """Calls over a bad line end with the state of a clean one."""
    x, labels = samples(100, 7), np.arange(100) % CLASSES
    host = host_learner()
    port = LossyPort(open_port(target.link_port), faults=faults, seed=5)
    with connect(port, dedicated=True) as device:
        load(device)
        device.learner_open(SETTINGS)
        for a, y in zip(x, labels, strict=True):
            device.step(a[None], [int(y)])
            host.step(a, int(y))
        device.commit()
        assert device.pull("state") == bytes(host.state)
        assert device.stats()["samples"] == 100
        assert device.client.stats.resent > 0


# ---- requests of any shape

_COMMANDS: dict[int, str] = {
    2: "to off len sha data",
    3: "slot sha",
    4: "x",
    5: "cfg",
    6: "x y",
    7: "",
    8: "",
    9: "",
    10: "",
    11: "layers",
    12: "kind off max",
    13: "paint",
    14: "do job of every patience commit",
    15: "x y",
    40: "x",
}
_SETTINGS = (
    "seed",
    "lr",
    "memory",
    "replays",
    "selector",
    "mask",
    "batch",
    "d_thr",
    "model",
    "self",
)
_TEXTS = ("model0", "model1", "/f.flm", "/no/such/f.flm", "state", "image", "train", "evaluate")
_WORDS = ("selftest", "cancel", "pause", "dense", "topk", "tinyprop")


def _anything(rng: random.Random, depth: int = 0) -> Any:
    values: list[Any] = [
        None,
        True,
        rng.choice([0, 1, 2, -1, 63, 64, 65, 2**31, 2**32, -(2**40), 2**62]),
        rng.choice([0.0, -1.5, 1e30, float("nan"), float("inf")]),
        rng.randbytes(rng.choice([0, 1, 32, 63, 64, 128, 500])),
        rng.choice(["", *_TEXTS]),
        rng.choice([*_WORDS, "\u00e4" * 90]),
    ]
    if depth < 3:
        values.append([_anything(rng, depth + 1) for _ in range(rng.randrange(4))])
        values.append({rng.choice(_SETTINGS): _anything(rng, depth + 1) for _ in range(2)})
    return rng.choice(values)


def check_no_request_ends_the_server(target: Any, requests: int) -> None:
    rng = random.Random(1)
    answered = jobs = 0
    with client(target) as device:
        for i in range(requests):
            if i % 50 == 0:
                with contextlib.suppress(LinkError):
                    device.job_cancel(jobs)
                if device.info().model is None:
                    load(device)
                with contextlib.suppress(LinkError):
                    device.learner_open(SETTINGS)
            cmd = rng.choice(list(_COMMANDS))
            keys = [key for key in _COMMANDS[cmd].split() if rng.random() < 0.95]
            fields = {key: _anything(rng) for key in keys}
            ask = device.client.write if rng.random() < 0.7 and cmd != 4 else device.client.read
            with contextlib.suppress(LinkError):
                jobs = ask(cmd, fields, what="anything").get("job", jobs)
                answered += 1
        assert answered > 0.08 * requests
        with contextlib.suppress(LinkError):
            device.job_cancel(jobs)
        load(device)
        assert device.predict(samples(4, 7)).shape == (4, CLASSES)
