"""The file group of the server in C: smpclient, and the server in Python, reply for reply."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_app import HostApp

from fieldloop.link.board import Board, connect
from fieldloop.link.errors import LinkError
from fieldloop.link.header import Op
from fieldloop.link.smp import connect_smp
from fieldloop.targets.pytest_plugin import firmware
from fieldloop.targets.unix import UnixBoard

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "interop"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "device"))
from images import CLASSES, digits_image, samples

from interop import check_interoperability

FILES = 8
IMAGES = digits_image(), digits_image(4)
# The server in Python with partitions of the same size as the program's, not with files.
SERVE = """
from fieldloop.server import Server
from fieldloop.slots import FileBlocks
from fieldloop.storage import Storage
FileBlocks.prog_size = 8  # as there
slots = {name: FileBlocks("/" + name, 32, 4096) for name in ("model0", "model1")}
storage = Storage(slots, FileBlocks("/store", 16, 4096))
Server(open(%d, "r+b", 0), storage).run()
"""


@pytest.fixture
def in_c() -> Iterator[HostApp]:
    with HostApp(sanitize=True) as app:
        yield app


@pytest.fixture
def in_python() -> Iterator[UnixBoard]:
    with UnixBoard(firmware=firmware("unix")) as target:
        target.begin(SERVE % target.link_fd)
        yield target


@pytest.mark.parametrize("raw", [False, True], ids=["console", "raw"])
def test_smpclient(in_c: HostApp, raw: bool) -> None:
    labels = np.arange(20) % CLASSES
    check_interoperability(in_c.link_port, *IMAGES, samples(20, 7), labels, raw=raw)


def ask(device: Board, op: Op, cmd: int, fields: dict[str, object], group: int = FILES) -> Any:
    """The reply, or (group, rc) of a refusal: the texts are each server's own."""
    try:
        return device.client.call(op, cmd, fields, what="file", group=group)
    except LinkError as error:
        return error.group, error.rc


def chance_request(rng: random.Random, expected: dict[str, int]) -> tuple[Op, int, Any]:
    names: list[object] = ["/model0", "/model1", "/state", "/image", "model0", "/", "", 7, b"/x"]
    name = rng.choice(names[:2] * 6 + names)
    image = IMAGES[name == "/model1"]  # so that some come whole
    odd: list[object] = [0, 1, -1, 1 << 31, 1 << 32, 1 << 40, True, "0", b"", None, 1.5]
    offset: object = expected.get(str(name), 0) if rng.random() < 0.7 else rng.choice(odd)
    kind = rng.choice(["upload"] * 6 + ["download", "status", "hash", "none"])
    if kind == "upload":
        at = offset if isinstance(offset, int) and 0 <= offset < len(image) else 0
        most = 4 if rng.random() < 0.1 else 3000
        fields = {"name": name, "off": offset, "data": image[at : at + rng.randrange(most)]}
        fields["len"] = len(image) if rng.random() < 0.8 else rng.choice([*odd, 1 << 17, 131073])
        if rng.random() < 0.1:
            del fields[rng.choice(sorted(fields))]
        elif rng.random() < 0.05:
            fields["data"] = "text"
        return Op.WRITE, 0, fields
    if kind == "none":
        return rng.choice([Op.READ, Op.WRITE]), rng.randrange(3, 9), {}
    fields = {"name": name}
    if kind == "download":
        return Op.READ, 0, fields | {"off": offset}
    if kind == "status":
        return Op.READ, 1, fields
    fields |= {
        key: rng.choice([0, 5, 20000, *odd]) for key in ("off", "len") if rng.random() < 0.4
    }
    if rng.random() < 0.7:
        fields["type"] = rng.choice(["sha256", "crc32", "md5", 3])
    return Op.READ, 2, fields


def test_every_reply_is_that_of_the_server_in_python(in_c: HostApp, in_python: UnixBoard) -> None:
    rng = random.Random(3)
    expected: dict[str, int] = {}
    seen: set[str] = set()
    with (
        connect(in_c.link_port, dedicated=True) as c,
        connect(in_python.link_port, dedicated=True) as python,
    ):
        for number in range(400):
            op, cmd, fields = chance_request(rng, expected)
            told = ask(c, op, cmd, fields)
            assert told == ask(python, op, cmd, fields), (number, op, cmd, fields)
            if isinstance(told, dict) and cmd == 0 and op is Op.WRITE:
                length = fields["len"] if fields["off"] == 0 else expected.get("len", 1 << 30)
                expected = {fields["name"]: told["off"], "len": length}
            seen.add(f"{op.name} {cmd} {told if isinstance(told, tuple) else 'ok'}")
    # It met what it was made for.
    refusals = [(8, 2), (8, 3), (8, 11), (8, 12), (8, 13), (8, 15), (0, 3), (0, 8), (0, 2)]
    assert {str(refusal) for refusal in refusals} <= {word.split(" ", 2)[2] for word in seen}
    assert {f"{op} {cmd} ok" for op, cmd in (("WRITE", 0), ("READ", 0), ("READ", 1))} <= seen


def check_beside_a_push(port: str) -> None:
    """Our group's push and an upload take the place of each other, and never mix."""
    image, other = IMAGES
    first = {"name": "/model0", "off": 0, "len": len(other), "data": other[:500]}
    with connect(port, dedicated=True) as device:
        sha = hashlib.sha256(image).digest()
        begun = {"to": "model0", "off": 0, "len": len(image), "sha": sha, "data": image[:500]}
        assert device.client.write(2, begun, what="push") == {"off": 500}
        more = {"name": "/model0", "off": 500, "data": image[500:600]}
        assert ask(device, Op.WRITE, 0, more) == (8, 11)
        assert ask(device, Op.WRITE, 0, first) == {"off": 500}
        with pytest.raises(LinkError, match="no push to model0"):
            device.client.write(2, begun | {"off": 500, "data": image[500:600]}, what="push")
        assert ask(device, Op.READ, 1, {"name": "/model0"}) == (8, 3)  # not yet
        device.push(image, to="model0")
        assert ask(device, Op.WRITE, 0, {**more, "off": 500}) == (8, 11)
        device.activate(image, slot="model0")
        # An upload over the active model lets go of it, as a push does.
        assert ask(device, Op.WRITE, 0, first) == {"off": 500}
        assert device.info().model is None
        assert ask(device, Op.READ, 1, {"name": "/image"}) == (8, 3)


def check_beside_a_job(port: str) -> None:
    image = IMAGES[0]
    with connect(port, dedicated=True) as device:
        device.push(image, to="model0")
        device.activate(image, slot="model0")
        device.learner_open({"lr": 1.0})
        job = device.job_start("train", 1 << 30)
        upload = {"name": "/model1", "off": 0, "len": len(image), "data": image[:100]}
        assert ask(device, Op.WRITE, 0, upload) == (0, 10)  # busy
        assert ask(device, Op.READ, 1, {"name": "/model0"}) == {"len": len(image)}
        device.job_cancel(job)
        assert ask(device, Op.WRITE, 0, upload) == {"off": 100}


@pytest.mark.parametrize("check", [check_beside_a_push, check_beside_a_job])
def test_beside_our_own_group_in_c(in_c: HostApp, check: Any) -> None:
    check(in_c.link_port)


@pytest.mark.parametrize("check", [check_beside_a_push, check_beside_a_job])
def test_beside_our_own_group_in_python(in_python: UnixBoard, check: Any) -> None:
    check(in_python.link_port)


def test_our_client_by_the_file_group(in_c: HostApp) -> None:
    image = IMAGES[0]
    seen: list[int] = []
    with connect_smp(in_c.link_port) as server:
        assert server.echo("hello") == "hello"
        server.upload(image, "/model1", lambda done, total: seen.append(done))
        assert seen == sorted(seen) and seen[-1] == len(image)
        assert server.download("/model1") == image
        assert server.file_bytes("/model1") == len(image)
        assert server.hash_types() == ("sha256", "crc32")
        with pytest.raises(LinkError, match="no such file name"):
            server.upload(image, "/model7")
        with pytest.raises(LinkError, match=r"no whole \.flm image"):
            server.upload(b"x" * 500, "/model1")
        with pytest.raises(LinkError, match="needs 200000 bytes, 131072 available"):
            server.upload(bytes(200000), "/model1")
        server.upload(image, "/model1")
    # A push of our group finds what is there: one message, and it can be activated.
    seen.clear()
    with connect(in_c.link_port, dedicated=True) as device:
        device.push(image, to="model1", progress=lambda done, total: seen.append(done))
        assert seen == [len(image)]
        assert device.activate(image, slot="model1").bytes == len(image)
