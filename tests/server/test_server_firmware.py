"""What firmware asks of the C server itself: samples from a sensor, settings by name."""

from __future__ import annotations

import dataclasses
import math
import typing
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_server import OPEN, CServer
from images import CLASSES, SAMPLE_BYTES, digits_image, samples

from fieldloop.link import cbor
from fieldloop.link.header import Header, Op, decode_message
from fieldloop.runtime import Learner, LearnerConfig, Model

IMAGE = digits_image()
SETTINGS: dict[str, Any] = {"lr": 1.0, "memory": 10, "seed": 3}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CServer]:
    made = CServer(tmp_path)
    made.load(IMAGE)
    yield made
    made.close()


def real_samples(count: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(2)
    return rng.uniform(-5, 5, (count, 8, 8, 1)).astype(np.float32)  # beyond the range, too


def floats(server: CServer, x: np.ndarray[Any, Any]) -> Any:
    return server.ffi.from_buffer("float[]", x)


def test_predict(server: CServer) -> None:
    ffi, lib = server.ffi, server.lib
    model = Model(IMAGE)
    y = ffi.new("int8_t[]", CLASSES)
    for x in samples(5, 1):
        got = lib.fl_server_predict(server.s, ffi.from_buffer("int8_t[]", x), x.size, y, CLASSES)
        want = model.predict_int8(x[None])[0]
        assert bytes(ffi.buffer(y)) == want.tobytes()
        assert got == int(np.argmax(want))
        assert (
            lib.fl_server_predict(server.s, ffi.from_buffer("int8_t[]", x), 64, ffi.NULL, 0) == got
        )
    for real in real_samples(5):
        got = lib.fl_server_predict_f32(server.s, floats(server, real), 64, y, CLASSES)
        want = model.predict_int8(model.as_inputs(real[None]))[0]
        assert bytes(ffi.buffer(y)) == want.tobytes()
        assert got == int(np.argmax(want))


def test_what_cannot_be_predicted(server: CServer) -> None:
    ffi, lib = server.ffi, server.lib
    x = ffi.new("int8_t[]", 2 * SAMPLE_BYTES)
    y = ffi.new("int8_t[]", CLASSES)
    assert lib.fl_server_predict(server.s, x, 63, y, CLASSES) == lib.FL_EINVAL
    assert "64 bytes each, got 63" in server.text
    assert lib.fl_server_predict(server.s, x, 128, y, CLASSES) == lib.FL_EINVAL
    assert "one sample of 64 values, got 128" in server.text
    assert lib.fl_server_predict(server.s, x, 64, y, CLASSES - 1) == lib.FL_EINVAL
    assert "room for 10 bytes, got 9" in server.text
    real = real_samples(1)[0]
    for wrong in (math.nan, math.inf, -math.inf):
        real[3, 3, 0] = wrong
        assert lib.fl_server_predict_f32(server.s, floats(server, real), 64, y, 10) == lib.FL_EDOM
        assert "value 27 is not a finite number" in server.text
    server.push(digits_image(4))  # which takes the model's place
    assert lib.fl_server_predict(server.s, x, 64, y, CLASSES) == lib.FL_ENOENT
    assert "no model is active" in server.text


def test_steps_are_the_hosts(server: CServer) -> None:
    ffi, lib = server.ffi, server.lib
    server.write(OPEN, cfg=SETTINGS)
    host = Learner(Model(IMAGE), LearnerConfig(**SETTINGS))
    step = ffi.new("fl_step_t *")
    for i, (x, real) in enumerate(zip(samples(20, 1), real_samples(20), strict=True)):
        label = i % CLASSES
        data = ffi.from_buffer("int8_t[]", x)
        assert lib.fl_server_step(server.s, data, 64, label, step) == 0
        done = host.step(x, label)
        assert (step.predicted, step.error) == (done.predicted, done.error)
        assert lib.fl_server_step_f32(server.s, floats(server, real), 64, label, ffi.NULL) == 0
        host.step(real, label)
    assert server.learned == bytes(host.state)
    real = real_samples(1)[0]
    real[0, 0, 0] = math.nan
    assert lib.fl_server_step_f32(server.s, floats(server, real), 64, 0, step) == lib.FL_EDOM
    assert host.step(real, 0).trained is False
    assert server.learned == bytes(host.state)  # counted as refused by both
    seq = ffi.new("uint32_t *")
    assert lib.fl_server_commit(server.s, seq) == 0 and seq[0] > 0
    assert server.pull("state") == bytes(host.state)
    assert lib.fl_server_undo(server.s, ffi.NULL) == 0


def test_what_cannot_be_learned(server: CServer) -> None:
    ffi, lib = server.ffi, server.lib
    x = ffi.new("int8_t[]", SAMPLE_BYTES)
    assert lib.fl_server_step(server.s, x, 64, 0, ffi.NULL) == lib.FL_ENOENT
    assert server.text == "no learner is open; open it first"
    server.write(OPEN, cfg=SETTINGS)
    before = server.learned
    assert lib.fl_server_step(server.s, x, 64, CLASSES, ffi.NULL) == lib.FL_EINVAL
    assert server.text == "label: expected 0..9, got 10"
    assert lib.fl_server_step(server.s, x, 65, 0, ffi.NULL) == lib.FL_EINVAL
    server.s.job.kind, server.s.job.id = lib.FL_JOB_TRAIN, 3
    assert lib.fl_server_step(server.s, x, 64, 0, ffi.NULL) == lib.FL_EBUSY
    assert server.text == "job 3 is running; wait for it or cancel it"
    assert server.learned == before


# ---- settings by name


def packed(config: Any, ffi: Any) -> bytes:
    return bytes(ffi.buffer(config))


def by_name(server: CServer, settings: dict[str, Any]) -> bytes:
    """fl_learner_config_t as fl_server_setting fills it."""
    ffi, lib = server.ffi, server.lib
    config = ffi.new("fl_learner_config_t *")
    lib.fl_learner_defaults(config)
    text = ffi.new("char[]", 160)
    for name, value in settings.items():
        data = ffi.new("uint8_t[]", cbor.dumps(value))
        at = ffi.new("fl_cbor_t *", {"at": data, "end": data + len(data) - 1})
        error = lib.fl_server_setting(config, name.encode(), len(name.encode()), at[0], text)
        assert error == 0, (name, value, ffi.string(text))
    return packed(config, ffi)


def on_host(server: CServer, settings: dict[str, Any]) -> bytes:
    config = server.ffi.new("fl_learner_config_t *")
    LearnerConfig(**settings).fill(config)
    return packed(config, server.ffi)


def test_every_setting_has_the_hosts_name_and_bytes(server: CServer) -> None:
    assert by_name(server, {}) == on_host(server, {})
    hints = typing.get_type_hints(LearnerConfig)
    for field in dataclasses.fields(LearnerConfig):
        choices = typing.get_args(hints[field.name])
        values: tuple[Any, ...]
        if field.name == "mask":
            values = ((0.5, 1.0, 0.25), [1.0] * 16, ())
        elif choices and isinstance(choices[0], str):
            values = choices
        else:
            values = (0.25, 1.0, 2) if isinstance(field.default, float) else (0, 1, 200)
        for value in values:
            sent = list(value) if field.name == "mask" else value
            got = by_name(server, {field.name: sent})
            assert got == on_host(server, {field.name: value}), (field.name, value)


def test_a_choice_may_be_a_number_and_a_seed_negative(server: CServer) -> None:
    assert by_name(server, {"selector": 2}) == on_host(server, {"selector": "dense"})
    assert by_name(server, {"seed": -1}) == on_host(server, {"seed": 2**32 - 1})


def test_of_two_equal_settings_the_first_counts(server: CServer) -> None:
    server.write(OPEN, cfg={"seed": 5})
    wanted = server.learned
    fields = {"s": server.session, "n": server.n + 1, "cfg": {"seed": 5, "seef": 6}}
    body = cbor.dumps(fields).replace(b"seef", b"seed")
    crc = zlib.crc32(body[1:], zlib.crc32(bytes((Op.WRITE, 0, 70, OPEN))))
    body = bytes([body[0] + 1]) + body[1:] + cbor.dumps({"crc": crc})[1:]
    head = Header(op=Op.WRITE, group=70, cmd=OPEN, seq=1, length=len(body))
    reply = server.exchange(head.pack() + body)
    assert reply is not None and "bytes" in decode_message(reply).fields
    assert server.learned == wanted
