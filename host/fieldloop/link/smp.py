"""Any SMP server, by the groups that SMP brings: Zephyr's own servers, and fieldloop devices.

    with connect_smp("/dev/ttyACM0") as server:
        server.echo("hello")
        server.upload(content, "/lfs1/model.flm")

What a server was not built with it answers with LinkError, rc 8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fieldloop.errors import FieldloopError, UsageError
from fieldloop.link import cbor
from fieldloop.link.client import OS_PARAMETERS, Client, Fields, Reply
from fieldloop.link.errors import (
    FILE_OFFSET_NOT_VALID,
    GROUP_FILES,
    SMP_ENOTSUP,
    CodecError,
    LinkError,
)
from fieldloop.link.header import GROUP_IMAGES, GROUP_OS, Op
from fieldloop.link.replies import ReplyFields, text_keys
from fieldloop.link.transport import Port, StreamTransport, TextSink, open_port

OS_TASKS, OS_INFO = 2, 7
IMAGES, IMAGE_UPLOAD = 0, 1
FILE, FILE_STATUS, FILE_HASH, FILE_HASH_TYPES = 0, 1, 2, 3

_OVERHEAD = 24  # of a message with a piece: header, and the head of the piece
_SLOW = 60.0  # seconds: the first chunk may erase flash, the last one be checked
_SMALLEST = 128  # bytes of a server's buffer: a name and some of a file
_PATIENCE = 8  # pieces in a row that brought nothing

Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True, slots=True)
class Parameters:
    """The server's buffers; a message fills one, but for 4 bytes."""

    buf_bytes: int
    buf_count: int


@dataclass(frozen=True, slots=True)
class FileHash:
    kind: str  # sha256, crc32
    covered: int  # bytes
    value: bytes | int


@dataclass(frozen=True, slots=True)
class _Upload:
    group: int
    cmd: int
    what: str
    always: Fields  # of each piece
    first: Fields  # and of the first
    lost: Callable[[LinkError], int]  # where to go on after a refusal, or raises it


class SmpServer:
    """A connected server; a context manager."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __enter__(self) -> SmpServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.client.close()

    # ---- group 0

    def connect(self, timeout: float = 5.0) -> Parameters | None:
        """Says hello and learns the buffer; None where the server does not tell."""
        try:
            parameters = self.parameters(timeout=timeout)
        except LinkError as error:
            if error.rc != SMP_ENOTSUP:
                raise
            return None
        if parameters.buf_bytes < _SMALLEST:
            raise LinkError(
                f"the server's buffer has {parameters.buf_bytes} bytes, expected {_SMALLEST} or "
                "more; build it with a larger CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE"
            )
        self.client.fill(parameters.buf_bytes)
        return parameters

    def parameters(self, *, timeout: float | None = None) -> Parameters:
        f = self._read(GROUP_OS, OS_PARAMETERS, {}, "parameters", timeout)
        return Parameters(f.integer("buf_size"), f.integer("buf_count"))

    def echo(self, text: str) -> str:
        return self.client.echo(text)

    def os_info(self, what: str = "s") -> str:
        """What the server runs on, as `uname` tells; "a" for all of it."""
        return self._read(GROUP_OS, OS_INFO, {"format": what}, "os info").text("output")

    def tasks(self) -> dict[str, Mapping[str, cbor.Value]]:
        """The threads and what each tells of itself."""
        reply = self.client.call(Op.READ, OS_TASKS, {}, what="tasks", group=GROUP_OS)
        return _maps("tasks", reply, "tasks")

    # ---- group 1

    def images(self) -> list[Mapping[str, cbor.Value]]:
        """The firmware images that MCUboot would start."""
        reply = self.client.call(Op.READ, IMAGES, {}, what="images", group=GROUP_IMAGES)
        value = reply.get("images")
        images = [text_keys(image) for image in value] if isinstance(value, list) else [None]
        if any(image is None for image in images):
            raise CodecError(f"images: a list of maps expected, got {value!r}")
        return [image for image in images if image is not None]

    def upload_image(self, content: bytes, progress: Progress | None = None) -> None:
        """Sends a firmware image to the slot that MCUboot would test it from."""
        sha = hashlib.sha256(content).digest()
        call = _Upload(
            *(GROUP_IMAGES, IMAGE_UPLOAD, "upload of an image"),
            *({}, {"image": 0, "sha": sha}, _not_lost),
        )
        if self._upload(content, call, progress).get("match") is False:
            raise LinkError(
                "upload of an image: the SHA-256 of what the server stored differs; upload again"
            )

    # ---- group 8

    def upload(self, content: bytes, name: str, progress: Progress | None = None) -> None:
        """Writes a file. Of a fieldloop device: /model0 and /model1 are its slots."""
        _check_name(name)

        def lost(error: LinkError) -> int:
            # A piece that was sent twice: how much of the file is there tells where to go on.
            if (error.group, error.rc) != (GROUP_FILES, FILE_OFFSET_NOT_VALID):
                raise error
            return self.file_bytes(name)

        call = _Upload(GROUP_FILES, FILE, f"upload to {name}", {"name": name}, {}, lost)
        self._upload(content, call, progress)

    def _upload(self, content: bytes, call: _Upload, progress: Progress | None) -> Reply:
        """The last reply."""
        what = call.what
        if not content:
            raise UsageError(f"{what}: at least one byte expected, got an empty file")
        off, stalls = 0, 0
        reply: Reply = {}
        while off < len(content):
            at = off

            def chunk(at: int = at) -> Fields:
                fields: Fields = {"off": at} | call.always
                if at == 0:
                    fields |= {"len": len(content)} | call.first
                room = self.client.message_limit - _OVERHEAD - len(cbor.dumps(fields))
                return fields | {"data": content[at : at + max(room, 32)]}

            try:
                reply = self.client.call(
                    Op.WRITE, call.cmd, chunk, what=what, group=call.group, timeout=_SLOW
                )
                off = ReplyFields(what, reply).integer("off")
            except LinkError as error:
                if at == 0 or isinstance(error, CodecError):
                    raise
                off = call.lost(error)
            if not 0 <= off <= len(content):
                raise CodecError(f"{what}: offset 0 to {len(content)} expected, got {off}")
            if progress is not None:
                progress(off, len(content))
            stalls = stalls + 1 if off <= at else 0
            if stalls > _PATIENCE:
                raise LinkError(
                    f"{what}: the server stays at {off} of {len(content)} bytes; upload again"
                )
        return reply

    def download(self, name: str, progress: Progress | None = None) -> bytes:
        """Reads a file. Of a fieldloop device: /state is the newest commit, /image the model."""
        _check_name(name)
        what = f"download of {name}"
        content = bytearray()
        total = -1
        while total < 0 or len(content) < total:
            f = self._call(Op.READ, FILE, {"off": len(content), "name": name}, what)
            piece, off = f.data("data"), f.integer("off")
            if total < 0:
                total = f.integer("len")
            whole = off == len(content) and len(content) + len(piece) <= total
            if not whole or (not piece and len(content) < total):
                raise CodecError(
                    f"{what}: a piece from byte {len(content)} of {total} expected, "
                    f"got {len(piece)} bytes from {off}; download again"
                )
            content += piece
            if progress is not None:
                progress(len(content), total)
        return bytes(content)

    def file_bytes(self, name: str) -> int:
        _check_name(name)
        return self._call(Op.READ, FILE_STATUS, {"name": name}, f"status of {name}").integer("len")

    def file_hash(self, name: str, kind: str | None = None) -> FileHash:
        """Of the whole file as the server reads it back; without a kind, the server's own."""
        _check_name(name)
        fields: Fields = {"name": name} if kind is None else {"name": name, "type": kind}
        what = f"hash of {name}"
        reply = self.client.call(
            Op.READ, FILE_HASH, fields, what=what, group=GROUP_FILES, timeout=_SLOW
        )
        f = ReplyFields(what, reply)
        output = reply.get("output")
        value = output if isinstance(output, bytes) else f.integer("output")
        return FileHash(f.text("type"), f.integer("len"), value)

    def hash_types(self) -> tuple[str, ...]:
        reply = self.client.call(
            Op.READ, FILE_HASH_TYPES, {}, what="hash types", group=GROUP_FILES
        )
        return tuple(_maps("hash types", reply, "types"))

    # ---- inside

    def _read(
        self, group: int, cmd: int, fields: Fields, what: str, timeout: float | None = None
    ) -> ReplyFields:
        reply = self.client.call(Op.READ, cmd, fields, what=what, group=group, timeout=timeout)
        return ReplyFields(what, reply)

    def _call(
        self, op: Op, cmd: int, fields: Fields | Callable[[], Fields], what: str
    ) -> ReplyFields:
        reply = self.client.call(op, cmd, fields, what=what, group=GROUP_FILES, timeout=_SLOW)
        return ReplyFields(what, reply)


def _not_lost(error: LinkError) -> int:
    raise error


def _check_name(name: str) -> None:
    if not name.startswith("/") or name.endswith("/"):
        raise UsageError(f"the absolute path of a file expected, /lfs1/model.flm, got {name!r}")


def _maps(what: str, reply: Reply, key: str) -> dict[str, Mapping[str, cbor.Value]]:
    out: dict[str, Mapping[str, cbor.Value]] = {}
    for name, value in (text_keys(reply.get(key)) or {}).items():
        of_name = text_keys(value)
        if of_name is None:
            raise CodecError(f"{what}: reply key {key!r}: maps expected, got {value!r}")
        out[name] = of_name
    return out


def connect_smp(
    port: str | Port,
    *,
    baudrate: int = 115200,
    text: TextSink | None = None,
    timeout: float = 5.0,
) -> SmpServer:
    """Opens a port and says hello, in the console framing, which every serial SMP server takes."""
    line = open_port(port, baudrate) if isinstance(port, str) else port
    server = SmpServer(Client(StreamTransport(line, dedicated=False, text=text)))
    try:
        server.connect(timeout)
    except FieldloopError:
        server.close()
        raise
    return server
