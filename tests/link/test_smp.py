"""Our client of SMP's own groups against servers that lose, repeat and misbehave."""

from __future__ import annotations

import os
import tty
from collections.abc import Callable, Iterator

import pytest
from link_server import CodecServer

from fieldloop.errors import UsageError
from fieldloop.link.errors import CodecError, LinkError
from fieldloop.link.header import Header, Op, decode_message, encode_message
from fieldloop.link.smp import SmpServer, connect_smp
from fieldloop.link.transport import FdPort

CONTENT = bytes(range(256)) * 20


class FileServer(CodecServer):
    """Files in memory, as strict about offsets as Zephyr's; `spoil` changes what it answers."""

    def __init__(self, port: FdPort, buf: int) -> None:
        super().__init__(port, buf=buf)
        self.files: dict[str, bytearray] = {}
        self.spoil: Callable[[dict[str, object]], dict[str, object]] = lambda reply: reply
        self.forget = 0  # pieces that are stored, but answered as if their offset were wrong

    def answer(self, message: bytes) -> bytes:
        header = Header.unpack(message)
        if header.group == 0:
            return super().answer(message)
        fields = decode_message(message).fields
        reply = self._file(header, fields) if header.group == 8 else {"rc": 8}
        return self._encode_plain(header, self.spoil(reply))

    def _encode_plain(self, header: Header, fields: dict[str, object]) -> bytes:
        return encode_message(
            fields,
            op=Op(header.op + 1),
            cmd=header.cmd,
            seq=header.seq,
            group=header.group,
            check=False,
        )

    def _file(self, header: Header, fields: dict[str, object]) -> dict[str, object]:
        name = str(fields["name"])
        if header.op == Op.WRITE:
            data, off = fields["data"], fields["off"]
            assert isinstance(data, bytes) and isinstance(off, int)
            if off == 0:
                self.files[name] = bytearray()
            if off != len(self.files.get(name, b"")):
                return {"err": {"group": 8, "rc": 11}, "len": len(self.files[name])}
            self.files[name] += data
            if off > 0 and self.forget > 0:
                self.forget -= 1
                return {"err": {"group": 8, "rc": 11}, "len": len(self.files[name])}
            return {"off": len(self.files[name])}
        if name not in self.files:
            return {"err": {"group": 8, "rc": 3}}
        content = bytes(self.files[name])
        if header.cmd == 1:
            return {"len": len(content)}
        off = fields["off"]
        assert isinstance(off, int)
        return {"off": off, "data": content[off : off + 100], "len": len(content)}


@pytest.fixture(params=[256, 4096])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[SmpServer, FileServer]]:
    master, slave = os.openpty()
    tty.setraw(slave)
    far = FdPort(master, "far")
    server = FileServer(far, request.param)
    server.start()
    with connect_smp(FdPort(slave, "near")) as client:
        yield client, server
    server.stop()
    far.close()


def test_there_and_back(pair: tuple[SmpServer, FileServer]) -> None:
    client, server = pair
    client.upload(CONTENT, "/a/b")
    assert server.files == {"/a/b": bytearray(CONTENT)}
    assert client.download("/a/b") == CONTENT
    assert client.file_bytes("/a/b") == len(CONTENT)
    client.upload(b"x", "/a/b")
    assert client.download("/a/b") == b"x"


def test_a_piece_whose_answer_is_lost(pair: tuple[SmpServer, FileServer]) -> None:
    """Zephyr refuses a piece that it has already: the client asks how far the file is."""
    client, server = pair
    server.forget = 3
    client.upload(CONTENT, "/a")
    assert server.files["/a"] == CONTENT
    assert server.forget < 3


def test_servers_that_lead_nowhere(pair: tuple[SmpServer, FileServer]) -> None:
    client, server = pair
    server.spoil = lambda reply: reply | {"off": 0}
    with pytest.raises(LinkError, match="stays at 0 of 5120"):
        client.upload(CONTENT, "/a")
    server.spoil = lambda reply: reply | {"off": 99999}
    with pytest.raises(CodecError, match="offset 0 to 5120 expected, got 99999"):
        client.upload(CONTENT, "/a")
    server.spoil = lambda reply: {"off": "x"}
    with pytest.raises(CodecError, match="an integer expected"):
        client.upload(CONTENT, "/a")
    server.spoil = lambda reply: reply
    client.upload(CONTENT, "/a")
    for wrong in ({"off": 7}, {"data": b""}, {"data": b"y" * 6000}):
        server.spoil = lambda reply, wrong=wrong: reply | wrong  # type: ignore[misc]
        with pytest.raises(CodecError, match="download again"):
            client.download("/a")
    server.spoil = lambda reply: {"off": 0, "data": b"x"}
    with pytest.raises(CodecError, match="'len'"):
        client.download("/a")


def test_refusals_name_the_groups_own_reason(pair: tuple[SmpServer, FileServer]) -> None:
    client, server = pair
    with pytest.raises(LinkError, match="no such file") as caught:
        client.download("/none")
    assert (caught.value.group, caught.value.rc) == (8, 3)
    with pytest.raises(LinkError, match="no such group") as caught:
        client.images()
    assert (caught.value.group, caught.value.rc) == (0, 8)
    server.spoil = lambda reply: {"rc": 3, "rsn": "the moon is wrong"}
    with pytest.raises(LinkError, match=r"invalid request.*the moon is wrong"):
        client.upload(CONTENT, "/a")
    for name in ("a", "/a/", ""):
        with pytest.raises(UsageError, match="absolute path"):
            client.upload(CONTENT, name)
    with pytest.raises(UsageError, match="empty"):
        client.upload(b"", "/a")
