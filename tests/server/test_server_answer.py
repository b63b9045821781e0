"""Messages of the C server: checks, sessions, errors, sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from c_server import (
    ACTIVATE,
    COMMIT,
    INFO,
    OPEN,
    PREDICT,
    PULL,
    PUSH,
    SESSION,
    STEP,
    CServer,
    error_of,
    sha256,
)
from images import CLASSES, digits_image, samples

from fieldloop.link.header import Op, decode_message, encode_message
from fieldloop.runtime import Model


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CServer]:
    made = CServer(tmp_path)
    assert made.opened == 0
    yield made
    made.close()


def message(op: Op, cmd: int, fields: dict[str, object], *, check: bool = True) -> bytes:
    return encode_message(fields, op=op, cmd=cmd, seq=9, group=70, check=check)


def fields_of(raw: bytes | None) -> dict[str, object]:
    assert raw is not None
    return dict(decode_message(raw).fields)


def test_info_tells_a_device_without_a_model(server: CServer) -> None:
    info = server.read(INFO)
    assert info == {
        "proto": 1,
        "ver": "0.1.0",
        "board": "a test",
        "os": "none 1.0",
        "boot": 1,
        "s": 0,
        "n": 0,
        "buf": 4096,
        "kern": "plain",
        "slots": {"model0": 65536, "model1": 65536},
        "model": None,
        "learner": False,
        "free": 65536,
        "rx": [0, 0, 0, 0],
    }


def test_what_is_not_a_request_gets_no_answer(server: CServer) -> None:
    request = message(Op.READ, INFO, {})
    version_1 = bytes([request[0] & ~0x18]) + request[1:]
    reply = bytes([request[0] | 1]) + request[1:]
    for bad in (b"", request[:7], request[:-1], request + b"\0", version_1, reply):
        assert server.exchange(bad) is None


def test_checks(server: CServer) -> None:
    assert fields_of(server.exchange(message(Op.READ, INFO, {}, check=False)))["proto"] == 1
    unchecked = message(Op.WRITE, SESSION, {"nonce": 1}, check=False)
    assert fields_of(server.exchange(unchecked)) == {"rc": 3}
    good = message(Op.WRITE, SESSION, {"nonce": 1})
    for at in range(8, len(good)):  # every damaged byte is seen, and has no effect
        bad = bytearray(good)
        bad[at] ^= 0x10
        assert fields_of(server.exchange(bytes(bad)))["rc"] in (3, 9)
    assert server.read(INFO)["s"] == 0


def test_other_groups_and_commands(server: CServer) -> None:
    assert server.call(Op.READ, 0, {}, group=1) == {"rc": 8}  # and no `crc`
    assert server.read(99) == {"rc": 8}
    assert server.write(99) == {"rc": 8}
    assert server.read(INFO)["n"] == 0  # what is unknown uses no number


def test_a_call_runs_at_most_once(server: CServer) -> None:
    server.load(digits_image())
    server.write(OPEN, cfg={})
    n = server.n + 1
    x = samples(2, 3).tobytes()
    step = message(Op.WRITE, STEP, {"s": server.session, "n": n, "x": x, "y": b"\0\1"})
    first = server.exchange(step)
    learned = server.learned
    assert fields_of(first)["k"] == 2
    assert server.exchange(step) == first
    assert server.learned == learned
    commit = {"s": server.session, "n": n}
    error = fields_of(server.exchange(message(Op.WRITE, COMMIT, commit)))
    assert (error_of(error)[0], error["want"], error["boot"]) == (22, n + 1, 1)
    commit["n"] = n + 5
    error = fields_of(server.exchange(message(Op.WRITE, COMMIT, commit)))
    assert (error_of(error)[0], error["want"]) == (22, n + 1)
    # An error is kept, too.
    refused = message(Op.WRITE, STEP, {"s": server.session, "n": n + 1, "x": x, "y": b"\0"})
    first = server.exchange(refused)
    assert error_of(fields_of(first)) == (22, "y: expected 2 labels, got 1")
    assert server.exchange(refused) == first


def test_sessions(server: CServer) -> None:
    call = message(Op.WRITE, COMMIT, {"s": 5, "n": 1})
    assert error_of(fields_of(server.exchange(call)))[0] == 2  # no session since this boot
    one = server.call(Op.WRITE, SESSION, {"nonce": 7})
    assert server.call(Op.WRITE, SESSION, {"nonce": 7}) == one  # a retry opens nothing new
    two = server.call(Op.WRITE, SESSION, {"nonce": 8})
    assert (two["n"], two["boot"]) == (0, 1) and two["s"] != one["s"]
    stale = message(Op.WRITE, COMMIT, {"s": one["s"], "n": 1})
    assert error_of(fields_of(server.exchange(stale)))[0] == 16  # the newest session wins
    error = server.call(Op.WRITE, SESSION, {"nonce": -1})
    assert "nonce" in error_of(error)[1]


def test_a_reply_that_does_not_fit(server: CServer) -> None:
    image = digits_image()
    server.load(image)
    x = samples(40, 3)
    ask = message(Op.READ, PREDICT, {"x": x.tobytes()})
    assert fields_of(server.exchange(ask, cap=256)) == {"rc": 7}
    y = fields_of(server.exchange(ask))["y"]
    assert y == Model(image).predict_int8(x).tobytes()
    # More than the home's buffer is given up, whatever the receive buffer is.
    ask = message(Op.READ, PULL, {"kind": "image", "off": 0, "max": 200})
    assert fields_of(server.exchange(ask))["data"] == image[:200]
    assert fields_of(server.exchange(ask, cap=256)) == {"rc": 7}


def test_what_a_request_lacks_is_named(server: CServer) -> None:
    server.load(digits_image())
    server.write(OPEN, cfg={})
    wanted = {
        PUSH: ["to", "off", "data"],
        ACTIVATE: ["slot", "sha"],
        OPEN: ["cfg"],
        STEP: ["x", "y"],
    }
    full = {
        "to": "model0",
        "off": 0,
        "data": b"",
        "slot": "model0",
        "sha": bytes(32),
        "cfg": {},
        "x": bytes(64),
        "y": b"\0",
    }
    for cmd, keys in wanted.items():
        for key in keys:
            rest = {k: full[k] for k in keys if k != key}
            assert error_of(server.write(cmd, **rest)) == (22, f"the request lacks `{key}`")
            wrong = error_of(server.write(cmd, **rest, **{key: 3.5}))
            assert wrong[0] == 22 and wrong[1].startswith(f"{key}: expected"), wrong
    assert "2 samples" not in error_of(server.read(PREDICT, x=b""))[1]
    assert error_of(server.read(PREDICT, x=bytes(65))) == (
        22,
        "x: expected samples of 64 bytes each, got 65 bytes",
    )


def test_labels_are_checked_before_the_first_step(server: CServer) -> None:
    server.load(digits_image())
    server.write(OPEN, cfg={})
    before = server.learned
    labels = np.array([0, 1, CLASSES], dtype=np.uint8)
    reply = server.write(STEP, x=samples(3, 1).tobytes(), y=labels.tobytes())
    assert error_of(reply) == (22, "label: expected 0..9, got 10")
    assert server.learned == before


def test_a_second_push_of_the_same_is_there_already(server: CServer) -> None:
    image = digits_image()
    first = {"to": "model0", "off": 0, "len": len(image), "sha": sha256(image)}
    assert server.write(PUSH, **first, data=image[:1000]) == {"off": 1000}
    # Gaps and repeats are answered with the offset expected, and not stored.
    assert server.write(PUSH, to="model0", off=2000, data=image[2000:2100]) == {"off": 1000}
    assert server.write(PUSH, **first, data=image[:1000]) == {"off": 1000}
    assert error_of(server.write(PUSH, to="model1", off=1000, data=b"x"))[1].endswith("off 0")
    for at in range(1000, len(image), 3000):
        reply = server.write(PUSH, to="model0", off=at, data=image[at : at + 3000])
    assert reply == {"off": len(image), "match": True}
    operations = server.flashes["model0"].operations
    assert server.write(PUSH, **first, data=image[:1000]) == {"off": len(image), "match": True}
    assert server.flashes["model0"].operations == operations
    # Not when somebody else was at the slot since.
    server.flashes["model0"]._bytes[5000] ^= 1
    assert server.write(PUSH, **first, data=image[:1000]) == {"off": 1000}
    for at in range(1000, len(image), 3000):
        server.write(PUSH, to="model0", off=at, data=image[at : at + 3000])
    # Another SHA-256 begins anew, and does not match in the end.
    first["sha"] = bytes(32)
    assert server.write(PUSH, **first, data=image[:3000]) == {"off": 3000}
    for at in range(3000, len(image), 3000):
        reply = server.write(PUSH, to="model0", off=at, data=image[at : at + 3000])
    assert reply == {"off": len(image), "match": False}
    too_long = {**first, "len": 65537}
    reply = server.write(PUSH, **too_long, data=b"")
    assert error_of(reply)[0] == 28
    assert (reply["need"], reply["have"]) == (65537, 65536)
    assert error_of(server.write(PUSH, **{**first, "to": "model7"}, data=b""))[1] == (
        "push: no slot model7; see info"
    )
