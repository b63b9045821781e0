"""The same requests to the Python server and to the C server: the same replies, the same bytes."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from host_app import HostApp
from images import CLASSES, digits_image, samples

from fieldloop.link.header import Op, decode_message, encode_message
from fieldloop.link.transport import StreamTransport, open_port
from fieldloop.targets.pytest_plugin import firmware
from fieldloop.targets.unix import UnixBoard

# Of this device, or of this start.
OWN = {"boot", "s", "free", "board", "os", "mpy", "kern", "rx", "ver"}
REQUESTS = 400
SECTORS = {"model0": 32, "model1": 32, "store": 16}

SERVE = f"""
import fieldloop
from fieldloop.slots import FileBlocks
from fieldloop.storage import Storage

class Blocks(FileBlocks):
    prog_size = 8

def part(name):
    return Blocks(name + ".bin", {SECTORS!r}[name])

storage = Storage({{"model0": part("model0"), "model1": part("model1")}}, part("store"))
"""

# Where their words differ: how the Python server begins, and how the C server does.
OTHER_WORDS = (
    ("unknown setting 'speed'", "unknown setting 'speed'"),
    ("slot: needs", "slot model1: needs"),
    ("expected one sample and one label", "label: expected"),
)


@pytest.fixture
def unix() -> Iterator[UnixBoard]:
    with UnixBoard(firmware=firmware("unix")) as target:
        yield target


class Wire:
    """Messages as they are, numbered as a session wants them."""

    def __init__(self, port: str) -> None:
        self.transport = StreamTransport(open_port(port), dedicated=True)
        self.seq = self.n = self.session = 0

    def open(self) -> None:
        self.session = self.ask(Op.WRITE, 1, {"nonce": 5})["s"]
        self.n = 0

    def write(self, cmd: int, fields: dict[str, object]) -> dict[str, Any]:
        self.n += 1
        reply = self.ask(Op.WRITE, cmd, {"s": self.session, "n": self.n, **fields})
        if "rc" in reply:
            self.n = self.ask(Op.READ, 0, {})["n"]
        return reply

    def ask(self, op: Op, cmd: int, fields: dict[str, object]) -> dict[str, Any]:
        self.seq = (self.seq + 1) & 0xFF
        self.transport.send(encode_message(fields, op=op, cmd=cmd, seq=self.seq, group=70))
        reply = self.transport.recv(20.0)
        assert reply is not None, (op, cmd, fields)
        answer = decode_message(reply)
        assert (answer.header.seq, answer.header.cmd, answer.header.op) == (self.seq, cmd, op + 1)
        assert answer.checked
        return {str(key): value for key, value in answer.fields.items()}


Request = tuple[Op, int, dict[str, object]]


def requests(rng: random.Random) -> Iterator[Request]:
    """What a host asks, and what one asks that is mistaken."""
    images = [digits_image(), digits_image(4), digits_image(4, learn=False)]
    xs = samples(64, 3).tobytes()
    yield Op.READ, 0, {}
    yield Op.READ, 4, {"x": xs[:64]}
    yield Op.WRITE, 7, {}
    for image in images[:2]:
        yield from push(image, f"model{images.index(image)}")
    yield Op.WRITE, 3, {"slot": "model0", "sha": hashlib.sha256(images[0]).digest()}
    for _ in range(REQUESTS):
        kind = rng.randrange(24)
        k = rng.randrange(1, 8)
        at = rng.randrange(32) * 64
        x = xs[at : at + 64 * k]
        y = bytes(rng.randrange(CLASSES) for _ in range(k))
        if kind < 6:
            yield Op.WRITE, 6, {"x": x, "y": y}
        elif kind == 6:
            yield Op.READ, 4, {"x": x}
        elif kind == 7:
            yield Op.WRITE, rng.choice((7, 7, 8, 9, 10)), {}
        elif kind == 8:
            yield Op.WRITE, 5, {"cfg": settings(rng)}
        elif kind == 9:
            yield Op.READ, 11, {"layers": rng.random() < 0.5}
        elif kind == 10:
            fields = {"kind": rng.choice(("state", "image", "all")), "off": rng.choice((0, 0, 64))}
            yield Op.READ, 12, {**fields, **({"max": 200} if rng.random() < 0.5 else {})}
        elif kind == 11:
            yield Op.READ, 13, {}
        elif kind == 12:
            yield Op.WRITE, 13, {"paint": rng.choice((0x55, 0xAA, 0x1FF))}
        elif kind == 13:
            job: dict[str, object] = {"do": rng.choice(("train", "evaluate", "selftest"))}
            for key, values in (
                ("of", (0, 1, 30, 50)),
                ("every", (0, 10, -1)),
                ("patience", (0, 1)),
                ("commit", (True, False)),
            ):
                if rng.random() < 0.6:
                    job[key] = rng.choice(values)
            yield Op.WRITE, 14, job
        elif kind == 14:
            do = rng.choice(("pause", "resume", "cancel", "dance"))
            yield Op.WRITE, 14, {"do": do, "job": rng.randrange(5)}
        elif kind == 15:
            yield Op.READ, 14, {"job": rng.randrange(8)}
        elif kind == 16:
            yield Op.READ, 15, {"x": x}
        elif kind == 17:
            yield Op.WRITE, 15, {"x": xs[:64], "y": bytes((rng.randrange(CLASSES + 1),))}
        elif kind == 18:
            slot = rng.choice(("model0", "model1", "model7"))
            image = rng.choice(images)
            yield Op.WRITE, 3, {"slot": slot, "sha": hashlib.sha256(image).digest()}
            if rng.random() < 0.8:
                yield Op.WRITE, 5, {"cfg": {"lr": 1.0, "seed": 3, "memory": 10, "holdout": 5}}
        elif kind == 19 and rng.random() < 0.5:
            image, slot = rng.choice(images), rng.choice(("model0", "model1"))
            yield from push(image, slot)
            if rng.random() < 0.8:
                yield Op.WRITE, 3, {"slot": slot, "sha": hashlib.sha256(image).digest()}
                yield Op.WRITE, 5, {"cfg": {"lr": 1.0, "seed": 3, "memory": 10, "holdout": 5}}
        elif kind == 20:
            yield Op.WRITE, 6, {"x": x[:-1], "y": y}
            yield Op.WRITE, 6, {"x": x, "y": y + b"\0"}
            yield Op.WRITE, 6, {"x": x, "y": bytes([CLASSES]) * k}
            yield Op.WRITE, 6, {rng.choice(("x", "y")): x}
        elif kind == 21:
            yield Op.WRITE, 2, {"to": "model1", "off": 7, "data": b"abc"}
            yield Op.WRITE, 2, {"to": "model9", "off": 0, "data": b"", "len": 9, "sha": bytes(32)}
            yield Op.WRITE, 2, {"to": "model1", "off": 0, "data": b"", "len": 9, "sha": bytes(3)}
            size = SECTORS["model1"] * 4096 + 1
            yield Op.WRITE, 2, {"to": "model1", "off": 0, "data": b"", "len": size, "sha": x[:32]}
        elif kind == 22:
            yield rng.choice((Op.READ, Op.WRITE)), rng.choice((1, 3, 5, 12, 16, 99)), {"x": 1}
        else:
            yield Op.READ, 0, {}


def settings(rng: random.Random) -> dict[str, object]:
    cfg: dict[str, object] = {"lr": 1.0, "seed": 3, "memory": 10, "holdout": 5}
    for key, values in (
        ("selector", ("tinyprop", "dense", "topk", "budget", "best")),
        ("memory", (0, 5, 10, 70000)),
        ("batch", (1, 4)),
        ("replays", (0, 2)),
        ("weights", ("int8", "int16", "f32")),
        ("optimizer", ("sgd", "momentum", "adam")),
        ("holdout", (0, 2, 1, 41)),
        ("s_min", (0.1, 3.0)),
        ("speed", (1,)),
        ("mask", ([0.5, 1.0],)),
    ):
        if rng.random() < 0.15:
            cfg[key] = rng.choice(values)
    return cfg


def push(image: bytes, to: str) -> Iterator[Request]:
    for at in range(0, len(image), 3000):
        fields: dict[str, object] = {"to": to, "off": at, "data": image[at : at + 3000]}
        if at == 0:
            fields |= {"len": len(image), "sha": hashlib.sha256(image).digest()}
        yield Op.WRITE, 2, fields


def told(reply: dict[str, Any]) -> dict[str, Any]:
    """What both must say alike."""
    kept = {key: value for key, value in reply.items() if key not in OWN and key != "crc"}
    if "loss" in kept:  # summed in double precision by one, and not by the other
        kept["loss"] = pytest.approx(kept["loss"], rel=1e-5)
    return kept


def alike(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    words = theirs.get("msg", ""), ours.get("msg", "")
    for python, c in OTHER_WORDS:
        if words[0].startswith(python) and words[1].startswith(c):
            theirs, ours = {**theirs, "msg": ""}, {**ours, "msg": ""}
    return told(theirs) == told(ours)


def ask(wire: Wire, request: Request) -> dict[str, Any]:
    op, cmd, fields = request
    reply = wire.write(cmd, fields) if op is Op.WRITE and cmd != 1 else wire.ask(op, cmd, fields)
    if cmd == 14 and op is Op.WRITE and "job" in reply:  # how far a job has come is its own matter
        deadline = time.monotonic() + 20
        number = reply["job"]
        while True:
            status = wire.ask(Op.READ, 14, {"job": number})
            if status.get("state") != "running":
                return status
            assert time.monotonic() < deadline
            time.sleep(0.002)
    return reply


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_replies_and_the_same_store(unix: UnixBoard, seed: int) -> None:
    unix.begin(SERVE + f"fieldloop.serve(open({unix.link_fd}, 'r+b', 0), storage=storage)")
    answered = refused = 0
    with HostApp(memory=1 << 20) as app:
        python, c = Wire(unix.link_port), Wire(app.link_port)
        python.open()
        c.open()
        for request in requests(random.Random(seed)):
            theirs, ours = ask(python, request), ask(c, request)
            assert alike(theirs, ours), (request, theirs, ours)
            answered += "err" not in theirs
            refused += "err" in theirs
        for name in SECTORS:  # what lies there: records, order, program units, all of it
            assert app.partition(name) == unix.get(f"/{name}.bin"), name
    print(f"{answered} answered, {refused} refused")
    assert answered > 180 and refused > 100
    unix.interrupt()
