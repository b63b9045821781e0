"""MCUmgr's file group (8): any SMP client pushes a model, and fetches what is there.

/model0, /model1: the slots. /image: the active model. /state: the newest commit. Requests carry
neither session nor check: an upload is held together by its offsets, and by the image's own CRC.
"""

import gc

import _fieldloop

from fieldloop import commands
from fieldloop.errors import EBUSY, EINVAL, EIO, ENOSPC, ENOTSUP, Refuse
from fieldloop.learner import STATE

GROUP = 8
INVALID_NAME, NOT_FOUND, READ_FAILED, WRITE_FAILED = 2, 3, 7, 10
OFFSET_NOT_VALID, OFFSET_TOO_LARGE, NO_SUCH_HASH, READ_ONLY = 11, 12, 13, 15
SMP_EUNKNOWN, SMP_ENOMEM, SMP_EINVAL, SMP_ENOTSUP, SMP_EBUSY = 1, 2, 3, 8, 10
CODES = {EBUSY: SMP_EBUSY, ENOTSUP: SMP_ENOTSUP}
PIECE = 256
MOST = 0xFFFFFFFF


class FileError(Exception):
    """A failure that the file group has a number for."""

    def __init__(self, rc):
        super().__init__(rc)
        self.rc = rc


def answer(server):
    """Answers a request of SMP's own groups, 0 and 8.

    Their clients may be strict: an error is a number, at most with `rsn`, a text.
    """
    link = server.link
    ours = link.group == GROUP
    if link.write:
        handler = (WRITE if ours else commands.OS_WRITE).get(link.command)
    else:
        handler = (READ if ours else commands.OS_READ).get(link.command)
    if handler is None:
        link.refuse(SMP_ENOTSUP)
        return
    try:
        reply = handler(server, link.body())
    except FileError as e:
        reply = {"err": {"group": GROUP, "rc": e.rc}}
    except Refuse as e:
        reply = {"rc": CODES.get(e.code, SMP_EINVAL), "rsn": e.text}
    except KeyError as e:
        reply = {"rc": SMP_EINVAL, "rsn": "the request lacks `%s`" % e.args[0]}
    except MemoryError as e:
        gc.collect()
        reply = {"rc": SMP_ENOMEM, "rsn": str(e)}
    except OSError as e:
        if ours and e.errno == -EIO:
            reply = {"err": {"group": GROUP, "rc": WRITE_FAILED if link.write else READ_FAILED}}
        else:
            reply = {"rc": SMP_ENOMEM if e.errno == -ENOSPC else SMP_EUNKNOWN, "rsn": str(e)}
    except Exception as e:  # of a shape nobody thought of
        reply = {"rc": SMP_EINVAL, "rsn": str(e)}
    link.reply(reply)


# ---- what there is: (length, read(offset, buffer)) by name


def _slot_of(server, name):
    if name[:1] == "/" and name[1:] in server.storage.slots:
        return server.storage.slots[name[1:]]
    raise FileError(INVALID_NAME)


def _find(server, name):
    if name == "/state":
        return _state(server)
    if name == "/image":
        if server.slot is None:
            raise FileError(NOT_FOUND)
        return server.slot[1], server.storage.slot(server.slot[0]).readinto
    slot = _slot_of(server, name)
    push = server.push
    under_way = push.to == slot.name and push.next < push.length and not hasattr(slot, "part")
    length = 0 if under_way else push.image_bytes(slot)
    if length == 0:
        raise FileError(NOT_FOUND)
    return length, slot.readinto


def _state(server):
    store, model = server.storage.store, server.model
    record = None if model is None else store.find(STATE, model.uid)
    if record is None or record[3] == 0:
        raise FileError(NOT_FOUND)

    def read(offset, buffer):
        store.read(STATE, model.uid, 0, buffer, offset)

    return record[3], read


def _number(body, key, default=None):
    value = body[key] if default is None else body.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
        raise ValueError("%s: expected an unsigned 32-bit number" % key)
    return value


def _name(body):
    if not isinstance(body["name"], str):
        raise ValueError("name: expected text")
    return body["name"]


# ---- commands


def download(server, body):
    offset = _number(body, "off")
    length, read = _find(server, _name(body))
    if offset > length:
        raise FileError(OFFSET_TOO_LARGE)
    data = bytearray(min(server.link.buf - commands.OVERHEAD, length - offset))
    if data:
        read(offset, data)
    reply = {"off": offset, "data": data}
    if offset == 0:
        reply["len"] = length
    return reply


def upload(server, body):
    name, offset, data = _name(body), _number(body, "off"), body["data"]
    if isinstance(data, str):
        raise ValueError("data: expected a byte string")
    if name in ("/state", "/image"):
        raise FileError(READ_ONLY)
    slot = _slot_of(server, name)
    server.need_no_job()
    length = _number(body, "len") if offset == 0 else 0
    expected, match = server.push.take_file(slot.name, offset, memoryview(data), length)
    if expected is None:
        raise FileError(OFFSET_NOT_VALID)
    if match is False:
        raise Refuse(EINVAL, "%s: what came is no whole .flm image; upload it again" % name)
    return {"off": expected}


def status(server, body):
    return {"len": _find(server, _name(body))[0]}


def checksum(server, body):
    kind = body.get("type", "sha256")
    if kind not in ("sha256", "crc32"):
        raise FileError(NO_SUCH_HASH)
    offset, most = _number(body, "off", 0), _number(body, "len", MOST)
    length, read = _find(server, _name(body))
    if offset > length:
        raise FileError(OFFSET_TOO_LARGE)
    length = min(length - offset, most)
    if kind == "sha256":
        output = _fieldloop.sha256(_pieces(read, offset, length))
    else:
        output = 0
        for piece in _pieces(read, offset, length):
            output = _fieldloop.crc32(piece, output)
    reply = {"type": kind, "len": length, "output": output}
    if offset:
        reply["off"] = offset
    return reply


def _pieces(read, offset, length):
    buffer = memoryview(bytearray(min(PIECE, length)))
    while length > 0:
        piece = buffer[: min(length, PIECE)]
        read(offset, piece)
        yield piece
        offset += len(piece)
        length -= len(piece)


def types(server, _):
    return {"types": {"sha256": {"format": 1, "size": 32}, "crc32": {"format": 0, "size": 4}}}


def close(server, _):
    return {}  # nothing is kept open


READ = {0: download, 1: status, 2: checksum, 3: types}
WRITE = {0: upload, 4: close}
