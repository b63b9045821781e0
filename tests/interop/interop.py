"""smpclient, an SMP client that is not ours, against a device of ours: what each of them does."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from enum import IntEnum, unique
from hashlib import sha256
from typing import Any, TypeVar

from pydantic import ConfigDict
from smp import error, message
from smpclient import SMPClient
from smpclient.exceptions import SMPUploadError
from smpclient.generics import success
from smpclient.requests.file_management import (
    FileClose,
    FileDownload,
    FileHashChecksum,
    FileStatus,
    FileUpload,
    SupportedFileHashChecksumTypes,
)
from smpclient.requests.os_management import EchoWrite, MCUMgrParametersRead
from smpclient.transport.serial import SMPSerialRawTransport, SMPSerialTransport

from fieldloop.link.board import connect
from fieldloop.runtime import Learner, LearnerConfig, Model

T = TypeVar("T")
SETTINGS: dict[str, Any] = {"lr": 1.0, "memory": 10, "seed": 3}
NO_NAME, NOT_FOUND, OFFSET, TOO_LARGE, NO_HASH, READ_ONLY = 2, 3, 11, 12, 13, 15


# ---- our group, as a user of smpclient would add it


@unique
class FieldloopError(IntEnum):
    ENOENT = 2
    EINVAL = 22


class _ErrorV1(error.ErrorV1):
    _GROUP_ID = 70
    crc: int | None = None


class _ErrorV2(error.ErrorV2[FieldloopError]):
    _GROUP_ID = 70
    msg: str
    crc: int


class InfoReply(message.ReadResponse):
    _GROUP_ID = 70
    _COMMAND_ID = 0
    model_config = ConfigDict(extra="allow", frozen=True)
    proto: int
    board: str
    buf: int
    slots: dict[str, int]
    crc: int


class Info(message.ReadRequest):
    """The application group's `info`: reads need no check."""

    _GROUP_ID = 70
    _COMMAND_ID = 0
    _Response = InfoReply
    _ErrorV1 = _ErrorV1
    _ErrorV2 = _ErrorV2


class NoReply(message.ReadResponse):
    _GROUP_ID = 70
    _COMMAND_ID = 99


class Unknown(Info):
    _COMMAND_ID = 99
    _Response = NoReply


class PredictReply(message.ReadResponse):
    _GROUP_ID = 70
    _COMMAND_ID = 4
    y: bytes
    crc: int


class Predict(message.ReadRequest):
    _GROUP_ID = 70
    _COMMAND_ID = 4
    _Response = PredictReply
    _ErrorV1 = _ErrorV1
    _ErrorV2 = _ErrorV2
    x: bytes


def talk(port: str, calls: Callable[[SMPClient], Awaitable[T]], *, raw: bool = False) -> T:
    """Runs calls with a connected smpclient; connecting reads the MCUmgr parameters."""

    async def whole() -> T:
        transport = SMPSerialRawTransport() if raw else SMPSerialTransport()
        async with SMPClient(transport, port, timeout_s=20.0) as smp:
            return await calls(smp)

    try:
        return asyncio.run(whole())
    except TimeoutError:  # its text is all of the request
        pass
    raise AssertionError("no answer to a request of smpclient")


async def told(smp: SMPClient, request: Any) -> Any:
    reply = await smp.request(request)
    assert success(reply), reply
    return reply


async def refused(smp: SMPClient, request: Any, rc: int, *, group: int | None = 8) -> None:
    """An error reply as smpclient's strict classes read it: of the group, or SMP's own."""
    reply = await smp.request(request)
    assert not success(reply), reply
    if group is None:
        assert reply.rc == rc, reply
    else:
        assert (int(reply.err.group), int(reply.err.rc)) == (group, rc), reply


async def upload(smp: SMPClient, content: bytes, name: str) -> list[int]:
    return [offset async for offset in smp.upload_file(content, name)]


def _check_hello(port: str, *, raw: bool) -> None:
    async def calls(smp: SMPClient) -> None:
        for text in ("hello", "x" * 200, "Grüße"):
            assert (await told(smp, EchoWrite(d=text))).r == text
        parameters = await told(smp, MCUMgrParametersRead())
        info = await told(smp, Info())
        assert parameters.buf_size <= info.buf - 4  # a raw message fills it
        assert info.proto == 1
        assert {"model0", "model1"} <= set(info.slots)
        await refused(smp, Unknown(), 8, group=None)
        types = (await told(smp, SupportedFileHashChecksumTypes())).types
        assert {name: (t.format, t.size) for name, t in types.items()} == {
            "sha256": (1, 32),
            "crc32": (0, 4),
        }
        await told(smp, FileClose())

    talk(port, calls, raw=raw)


def _check_files(port: str, image: bytes, other: bytes, *, raw: bool) -> None:
    async def calls(smp: SMPClient) -> None:
        for name in ("/model0", "/state", "/image"):
            await refused(smp, FileStatus(name=name), NOT_FOUND)
            await refused(smp, FileDownload(name=name, off=0), NOT_FOUND)
        for name in ("model0", "/", "/model9", "/lib/x.py", "/../state", "/model0/"):
            await refused(smp, FileStatus(name=name), NO_NAME)
            await refused(smp, FileUpload(name=name, off=0, len=4, data=b"1234"), NO_NAME)
        for name in ("/state", "/image"):
            await refused(smp, FileUpload(name=name, off=0, len=4, data=b"1234"), READ_ONLY)
        await refused(smp, FileUpload(name="/model0", off=64, data=b"1234"), OFFSET)
        await refused(smp, FileUpload(name="/model0", off=0, data=b"1"), 3, group=None)
        await refused(smp, FileUpload(name="/model0", off=0, len=0, data=b""), 3, group=None)
        await refused(smp, FileUpload(name="/model0", off=0, len=2, data=b"123"), 3, group=None)

        assert (await upload(smp, image, "/model0"))[-1] == len(image)
        assert (await told(smp, FileStatus(name="/model0"))).len == len(image)
        found = await told(smp, FileHashChecksum(name="/model0"))
        assert (found.type, found.len, found.output) == (
            "sha256",
            len(image),
            sha256(image).digest(),
        )
        part = FileHashChecksum(name="/model0", type="crc32", off=7, len=300)
        found = await told(smp, part)
        assert (found.off, found.len, found.output) == (7, 300, zlib.crc32(image[7:307]))
        end = FileHashChecksum(name="/model0", type="crc32", off=len(image) - 3, len=1000)
        assert (await told(smp, end)).output == zlib.crc32(image[-3:])
        await refused(smp, FileHashChecksum(name="/model0", off=len(image) + 1), TOO_LARGE)
        await refused(smp, FileDownload(name="/model0", off=len(image) + 1), TOO_LARGE)
        assert await smp.download_file("/model0") == image
        await refused(smp, FileStatus(name="/image"), NOT_FOUND)  # it is not active yet

        # A piece at another place is not stored; the reply tells the one that is expected.
        first = FileUpload(name="/model1", off=0, len=len(other), data=other[:100])
        assert (await told(smp, first)).off == 100
        wrong = FileUpload(name="/model1", off=50, data=other[50:150])
        assert (await told(smp, wrong)).off == 100
        again = FileUpload(name="/model1", off=0, len=len(other), data=other[:60])
        assert (await told(smp, again)).off == 60  # from the start
        # Bytes that are no image are told at the last piece, and nothing is there afterwards.
        damaged = other[:-1] + bytes((other[-1] ^ 1,))
        try:
            await upload(smp, damaged, "/model1")
        except SMPUploadError as failed:
            assert "no whole .flm image" in str(failed)
        else:
            raise AssertionError("a damaged image was taken")
        await refused(smp, FileUpload(name="/model1", off=100, data=b"1234"), OFFSET)
        assert (await upload(smp, other, "/model1"))[-1] == len(other)
        assert await smp.download_file("/model1") == other

    talk(port, calls, raw=raw)


def _check_learned(port: str, image: bytes, x: Any, labels: Any, *, raw: bool) -> None:
    """Our client activates and teaches what smpclient brought; smpclient fetches the state."""
    host = Learner(Model(image), LearnerConfig(**SETTINGS))
    with connect(port, dedicated=True, timeout=20.0) as device:
        model = device.activate(image, slot="model0")
        assert (model.slot, model.bytes) == ("model0", len(image))
        assert device.predict(x).tobytes() == host.model.predict_int8(x).tobytes()
        device.learner_open(SETTINGS)
        device.step(x, labels)
        for sample, label in zip(x, labels, strict=True):
            host.step(sample, int(label))
        device.commit()

    async def calls(smp: SMPClient) -> None:
        state = bytes(host.state)
        assert await smp.download_file("/state") == state
        found = await told(smp, FileHashChecksum(name="/state", type="sha256"))
        assert found.output == sha256(state).digest()
        assert await smp.download_file("/image") == image
        y = (await told(smp, Predict(x=x[0].tobytes()))).y
        assert y == host.model.predict_int8(x[:1]).tobytes()

    talk(port, calls, raw=raw)


def check_interoperability(
    port: str, image: bytes, other: bytes, x: Any, labels: Any, *, raw: bool = False
) -> None:
    """Echo, parameters, both slots, their hashes, damage; then learned by ours, fetched by it.

    The device is new: no model, nothing learned. `raw`: without base64, on a dedicated port.
    """
    _check_hello(port, raw=raw)
    _check_files(port, image, other, raw=raw)
    _check_learned(port, image, x, labels, raw=raw)
