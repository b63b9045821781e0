"""What a hostile reading of the device side found: each of these broke once, on the unix port.

Arguments whose __int__ is Python code, streams and block devices that lie or are broken off, and
requests that fail half-way: nothing crashes, and nothing that was learned is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from images import SAMPLE_BYTES, digits_image
from package import serve
from test_binding import RAM_BLOCKS, prepare
from test_server import client

from fieldloop.link.errors import LinkError
from fieldloop.link.header import Op
from fieldloop.targets.pytest_plugin import firmware
from fieldloop.targets.unix import UnixBoard

# Blocks whose n-th call from now raises, and a server over them that no host asks.
WORKBENCH = (
    RAM_BLOCKS
    + """
import io
from fieldloop import commands
from fieldloop.errors import Refuse
from fieldloop.learner import SETTINGS, STATE, resume
from fieldloop.storage import ACTIVE, NO_UID, Storage

class Blocks(RamBlocks):
    left = -1
    why = KeyboardInterrupt
    def count(self):
        self.left -= 1
        if self.left == 0:
            raise self.why
    def readblocks(self, *args):
        self.count()
        return super().readblocks(*args)
    def writeblocks(self, *args):
        self.count()
        return super().writeblocks(*args)
    def ioctl(self, command, argument):
        if command == 6:
            self.count()
        return super().ioctl(command, argument)

class Silence(io.IOBase):
    def readinto(self, buffer): return None
    def write(self, buffer): return len(buffer)
    def ioctl(self, request, argument): return 0

def outcome(function, *args, **more):
    try:
        return function(*args, **more)
    except BaseException as e:
        return '%s: %s' % (type(e).__name__, e)

def put(slot, image):
    slot.begin(len(image))
    slot.write(0, image)
    slot.end(True)

def workbench(sectors=16):
    image = open('/m.flm', 'rb').read()
    store = Blocks(sectors)
    storage = Storage({'model0': Blocks(8), 'model1': Blocks(8)}, store)
    put(storage.slot('model0'), image)
    storage.activate('model0', len(image), _fieldloop.sha256(image), model.uid)
    return fieldloop.Server(Silence(), storage=storage), store

def labelled(n, label=8):
    return {'x': x[: n * 64], 'y': bytes([label] * n)}
"""
)


@pytest.fixture
def unix() -> Iterator[UnixBoard]:
    with UnixBoard(firmware=firmware("unix")) as target:
        prepare(target)
        target.exec(WORKBENCH)
        yield target


@pytest.mark.parametrize(
    "call",
    [
        "_fieldloop.Learner(model, lr=Evil())",
        "learner.step(sample(0), Evil())",
        "learner.paint(Evil())",
        "learner.touched(Evil())",
        "model.paint(Evil())",
        "model.touched(Evil())",
        "model.sample(Evil())",
    ],
)
def test_an_argument_closes_what_it_is_for(unix: UnixBoard, call: str) -> None:
    unix.exec(
        "learner = _fieldloop.Learner(model)\n"
        "class Evil:\n"
        "    def __int__(self):\n"
        "        learner.deinit()\n"
        "        model.deinit()\n"
        "        gc.collect()\n"
        "        return 1\n"
        "    def __float__(self): return float(self.__int__())\n"
    )
    assert "is closed" in unix.eval(f"outcome(lambda: {call})")


def test_an_argument_resizes_a_buffer(unix: UnixBoard) -> None:
    unix.exec(
        "store = _fieldloop.Store(RamBlocks())\n"
        "store.append(1, NO_UID, b'7' * 4000)\n"
        "buffer = bytearray(4000)\n"
        "class Evil:\n"
        "    def __int__(self):\n"
        "        buffer[:] = b''\n"
        "        gc.collect()\n"
        "        self.other = [bytearray(400) for _ in range(100)]\n"
        "        return 0\n"
        "evil = Evil()\n"
    )
    unix.exec("store.read(1, NO_UID, 0, buffer, evil)")
    assert unix.eval("(len(buffer), max([max(b) for b in evil.other]))") == (0, 0)


def test_an_image_is_overwritten_under_a_model(unix: UnixBoard) -> None:
    unix.put("/n.flm", digits_image(5, learn=False))
    unix.exec(
        "image = bytearray(open('/m.flm', 'rb').read())\n"
        "model = _fieldloop.Model(image)\n"
        "learner = _fieldloop.Learner(model)\n"
        "other = open('/n.flm', 'rb').read()\n"
    )
    for change in ("b'\\xff' * 4096", "other"):
        unix.exec(f"image[: len({change})] = {change}")
        for call in ("model.predict(sample(0))", "learner.step(sample(0), 1)"):
            assert "was overwritten" in unix.eval(f"outcome(lambda: {call})")
        assert unix.eval("(repr(model), model.closed)") == ("Model(closed)", True)
    unix.exec("model.deinit()")
    assert unix.eval("learner.closed") is True


def test_a_stream_says_it_moved_more_than_it_was_asked(unix: UnixBoard) -> None:
    unix.exec(
        "class Liar(io.IOBase):\n"
        "    done = 0\n"
        "    def readinto(self, buffer):\n"
        "        hello = b'\\x0a\\x00\\x00\\x06\\x00\\x00\\x05\\x00\\xbf\\x61d\\x61x\\xff'\n"
        "        buffer[: len(hello)] = hello\n"
        "        return self.done or len(hello)\n"
        "    def write(self, buffer): return 100000\n"
        "    def ioctl(self, request, argument): return argument & 1 if request == 3 else -22\n"
        "link = _fieldloop.Link(Liar())\n"
    )
    assert unix.eval("link.poll()") is True
    assert "moved 100000 bytes of" in unix.eval("outcome(link.reply, {'r': 1})")
    unix.exec("Liar.done = 60000")
    assert "moved 60000 bytes of 512" in unix.eval("outcome(link.poll)")


def test_ctrl_c_while_a_store_is_mounted_and_written(unix: UnixBoard) -> None:
    unix.exec(
        "blocks = Blocks(4)\n"
        "store = _fieldloop.Store(blocks)\n"
        "def newest():\n"
        "    data = bytearray(1500)\n"
        "    seen = []\n"
        "    for nth in (0, 1):\n"
        "        store.read(1, NO_UID, nth, data)\n"
        "        seen.append(data[0])\n"
        "    return tuple(seen)\n"
        "for i in range(3): store.append(1, NO_UID, bytes([i]) * 1500)\n"
        "def broken(call, *args):\n"
        "    n = 0\n"
        "    while True:\n"
        "        n += 1\n"
        "        before = newest()\n"
        "        blocks.left = n\n"
        "        why = outcome(call, *args)\n"
        "        over = blocks.left > 0\n"
        "        blocks.left = -1\n"
        "        yield over, why, before, newest()\n"
        "        if over: return\n"
    )
    mounts = unix.eval("list(broken(store.mount, (NO_UID,)))")
    assert len(mounts) > 10
    for over, why, before, after in mounts:
        assert after == before == (2, 1)
        assert over or why == "KeyboardInterrupt: "
    appends = unix.eval("list(broken(store.append, 1, NO_UID, b'\\x09' * 1500))", timeout=60)
    assert len(appends) > 10
    for over, why, before, after in appends:
        assert after in (before, (9, before[0]))
        assert over or why == "KeyboardInterrupt: "


def test_a_broken_activation_keeps_what_the_model_before_learned(unix: UnixBoard) -> None:
    unix.put("/n.flm", digits_image(5))
    unix.exec(
        "server, store = workbench(24)\n"
        "fresh = bytes(store.d)\n"
        "other = open('/n.flm', 'rb').read()\n"
        "put(server.storage.slot('model1'), other)\n"
        "order = {'slot': 'model1', 'sha': _fieldloop.sha256(other)}\n"
        "commands.learner_open(server, {'cfg': {'memory': 10}})\n"
        "for i in range(9):\n"
        "    commands.step(server, labelled(1))\n"
        "    commands.commit(server, {})\n"
        "uid = server.model.uid\n"
        "def kept():\n"
        "    s = server.storage.store\n"
        "    return [s.sha256(STATE, uid, nth) for nth in (0, 1)]\n"
        "learned = kept()\n"
        "before = bytes(store.d)\n"
        "store.why = OSError(5)\n"
        "seen = []\n"
        "for n in range(1, 200):\n"
        "    store.left = n\n"
        "    why = outcome(commands.activate, server, order)\n"
        "    store.left = -1\n"
        "    if server.storage.active()[0] == 'model1': break\n"
        "    commands.step(server, labelled(1))\n"
        "    commands.commit(server, {})\n"  # of the old model: its records are still in use
        "    fresh_store = _fieldloop.Store(store)\n"
        "    seen.append(server.storage.active()[0] == 'model0'\n"
        "        and fresh_store.sha256(STATE, uid, 1) == learned[0])\n"
        "    learned = kept()\n"
    )
    seen = unix.eval("seen")
    assert len(seen) > 10
    assert all(seen)


def test_a_refused_learner_leaves_the_one_before(unix: UnixBoard) -> None:
    unix.exec(
        "server, store = workbench()\n"
        "commands.learner_open(server, {'cfg': {'memory': 10}})\n"
        "commands.step(server, labelled(20))\n"
        "state = bytes(server.learner.state())\n"
        "commands.commit(server, {})\n"
    )
    for settings in ("{'bogus': 1}", "{'lr': -1.0}", "{'selector': 'magic'}", "{'packed': b'x'}"):
        why = unix.eval(f"outcome(commands.learner_open, server, {{'cfg': {settings}}})")
        assert isinstance(why, str)
        assert unix.eval("bytes(server.learner.state()) == state") is True
    # The settings are good, the flash fails as the commit is read: the newest commit comes back.
    unix.exec(
        "for n in range(1, 9):\n"
        "    store.why = OSError(5)\n"
        "    store.left = n\n"
        "    why = outcome(commands.learner_open, server, {'cfg': {'memory': 10}})\n"
        "    store.left = -1\n"
        "    if isinstance(why, dict): break\n"
        "    assert bytes(server.learner.state()) == state, n\n"
    )
    assert unix.eval("(n > 2, why['restored'])") == (True, True)


def test_commits_that_fail_do_not_push_out_the_settings(unix: UnixBoard) -> None:
    unix.exec(
        "server, store = workbench()\n"
        "commands.learner_open(server, {'cfg': {'memory': 10}})\n"
        "commands.step(server, labelled(20))\n"
        "commands.commit(server, {})\n"
        "state = bytes(server.learner.state())\n"
        "answers = []\n"
        "for memory in (400, 500, 600):\n"  # more than the store has room for
        "    commands.learner_open(server, {'cfg': {'memory': memory}})\n"
        "    answers.append(outcome(commands.commit, server, {}))\n"
        "server = fieldloop.Server(Silence(), storage=server.storage)\n"
    )
    assert all("OSError" in answer for answer in unix.eval("answers"))
    assert unix.eval("server.fault") is None
    assert unix.eval("bytes(server.learner.state()) == state") is True
    # Power cuts between the settings and the state, boot after boot.
    unix.exec(
        "for memory in (20, 30, 40):\n"
        "    core = _fieldloop.Learner(server.model, memory=memory)\n"
        "    server.storage.store.append(SETTINGS, server.model.uid, core.packed)\n"
        "    server = fieldloop.Server(Silence(), storage=server.storage)\n"
        "    assert server.fault is None, server.fault\n"
        "    assert bytes(server.learner.state()) == state, memory\n"
    )


def test_learned_state_without_its_settings_is_told(unix: UnixBoard) -> None:
    unix.exec(
        "server, store = workbench()\n"
        "server.storage.store.append(STATE, server.model.uid, b'of nobody')\n"
        "server = fieldloop.Server(Silence(), storage=server.storage)\n"
    )
    assert "stored but not in use" in unix.eval("server.fault")


def test_a_reset_that_cannot_be_stored_changes_nothing(unix: UnixBoard) -> None:
    unix.exec(
        "server, store = workbench()\n"
        "commands.learner_open(server, {'cfg': {}})\n"
        "commands.step(server, labelled(20))\n"
        "commands.commit(server, {})\n"
        "state = bytes(server.learner.state())\n"
        "def fails(call):\n"
        "    store.why = OSError(5)\n"
        "    store.left = 3\n"
        "    why = outcome(call, server, {})\n"
        "    store.left = -1\n"
        "    return why, bytes(server.learner.state()) == state\n"
    )
    assert unix.eval("fails(commands.reset)") == ("OSError: [Errno 5] EIO", True)
    unix.exec("commands.commit(server, {})")
    assert unix.eval("fails(commands.reset)") == ("OSError: [Errno 5] EIO", True)


def test_a_push_that_cannot_fit_leaves_the_model(unix: UnixBoard) -> None:
    unix.exec("server, store = workbench()")
    body = "{'to': 'model0', 'off': 0, 'len': 99999, 'sha': bytes(32), 'data': b'x'}"
    assert "needs 99999 bytes, 32768" in unix.eval(f"outcome(commands.push, server, {body})")
    assert unix.eval("server.model.closed") is False


def test_a_push_that_is_broken_off_can_begin_again(unix: UnixBoard) -> None:
    unix.exec(
        "server, store = workbench()\n"
        "image = open('/m.flm', 'rb').read()\n"
        "slot = server.storage.slot('model1')\n"
        "def chunk(at):\n"
        "    sha = _fieldloop.sha256(image)\n"
        "    data = image[at : at + 4096]\n"
        "    return {'to': 'model1', 'off': at, 'len': len(image), 'sha': sha, 'data': data}\n"
        "commands.push(server, chunk(0))\n"
        "slot.device.left = 2\n"
        "why = outcome(commands.push, server, chunk(4096))\n"
        "slot.device.left = -1\n"
        "reply = commands.push(server, chunk(0))\n"
        "while reply['off'] < len(image): reply = commands.push(server, chunk(reply['off']))\n"
    )
    assert unix.eval("(why, reply['match'])") == ("KeyboardInterrupt: ", True)


def test_a_step_with_one_bad_label_learns_none(unix: UnixBoard) -> None:
    unix.exec("server, store = workbench()\ncommands.learner_open(server, {'cfg': {}})")
    for labels in ("[0, -1]", "[0, 1.5]", "[0, 10]", "bytes([0, 10])", "'01'"):
        body = f"{{'x': x[:{2 * SAMPLE_BYTES}], 'y': {labels}}}"
        assert isinstance(unix.eval(f"outcome(commands.step, server, {body})"), str)
        assert unix.eval("server.learner.stats()['samples']") == 0


def test_a_store_file_that_was_cut_short_is_filled_up(unix: UnixBoard) -> None:
    unix.exec(
        "from fieldloop.slots import FileBlocks\n"
        "with open('/short', 'wb') as f: f.write(b'\\xff' * 5000)\n"
        "blocks = FileBlocks('/short')\n"
        "last = bytearray(4096)\n"
        "blocks.readblocks(15, last)\n"
        "assert last == b'\\xff' * 4096\n"
        "store = _fieldloop.Store(blocks)\n"
        "for i in range(40): store.append(1, NO_UID, bytes([i]) * 3000)\n"
        "data = bytearray(3000)\n"
        "_fieldloop.Store(FileBlocks('/short')).read(1, NO_UID, 0, data)\n"
    )
    assert unix.eval("data == bytes([39]) * 3000") is True


def test_requests_that_must_not_end_the_server(unix: UnixBoard) -> None:
    serve(unix)
    with client(unix) as device:
        nested: Any = 1
        for _ in range(7):  # the deepest that can be read can be sent back
            nested = [nested]
        reply = device.client.call(Op.WRITE, 0, {"d": nested}, what="echo", group=0)
        assert reply["r"] == nested
        with pytest.raises(LinkError, match="cannot reset itself"):
            device.client.reset_device()
        assert device.info().model is None
