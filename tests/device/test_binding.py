"""The C module `_fieldloop` and the classes over it, on the unix port and on the board under test.

Everything that computes is compared with the same C core run by the host: bytes, not tolerances.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from images import CLASSES, LABELS, SAMPLE_BYTES, digits_image, samples
from package import install

from fieldloop import paths
from fieldloop.runtime import Learner, LearnerConfig, Model
from fieldloop.targets.pytest_plugin import firmware
from fieldloop.targets.raw_repl import RemoteError
from fieldloop.targets.unix import UnixBoard

RAM_BLOCKS = """
class RamBlocks:
    prog_size = 8
    def __init__(self, sectors=16):
        self.n = sectors
        self.d = bytearray(b'\\xff' * (4096 * sectors))
        self.fail = False
    def readblocks(self, block, buffer, offset=0):
        at = block * 4096 + offset
        buffer[:] = memoryview(self.d)[at : at + len(buffer)]
    def writeblocks(self, block, buffer, offset=0):
        if self.fail:
            raise RuntimeError('worn out')
        at = block * 4096 + offset
        self.d[at : at + len(buffer)] = buffer
    def ioctl(self, command, argument):
        if command == 4: return self.n
        if command == 5: return 4096
        if command == 6: self.d[argument * 4096 : argument * 4096 + 4096] = b'\\xff' * 4096
        return 0
"""

# A block device for a store, by the kind of target; None: of RAM.
STORES = {
    "unix": "None",
    "qemu": "__import__('simboard').Partition('store')",
    "zephyr-mpy": "__import__('fieldloop.storage').storage._flash_areas()[1]",
}


@pytest.fixture
def unix() -> Iterator[UnixBoard]:
    with UnixBoard(firmware=firmware("unix")) as target:
        yield target


def prepare(target: Any, count: int = 100) -> np.ndarray[Any, Any]:
    """The package, a model file and samples; names `fieldloop`, `model`, `x` on the device."""
    install(target)
    x = samples(count, 7)
    target.put("/m.flm", digits_image())
    target.put("/x.bin", x.tobytes())
    target.exec(
        "import fieldloop, _fieldloop, gc\n"
        "model = fieldloop.Model('/m.flm')\n"
        "x = open('/x.bin', 'rb').read()\n"
        f"def sample(i): return memoryview(x)[i * {SAMPLE_BYTES} : (i + 1) * {SAMPLE_BYTES}]\n"
    )
    return x


def remote_error(target: Any, code: str) -> str:
    with pytest.raises(RemoteError) as caught:
        target.exec(code)
    return str(caught.value)


# ---- the same on every target


def check_predict(target: Any) -> None:
    x = prepare(target)
    out = target.eval(
        "b''.join([bytes(y) for y in [bytearray(10)] for i in range(100)"
        " if model.predict(sample(i), y) is not None])",
        timeout=60,
    )
    host = Model(digits_image())
    expected = host.predict_int8(x)
    assert out == expected.tobytes()
    assert target.eval("model.predict(sample(3))") == int(np.argmax(expected[3]))
    assert target.eval("model.labels") == LABELS
    assert target.eval("(model.input_shape, model.output_shape)") == ((1, 8, 8, 1), (1, 10))
    assert target.eval("model.uid.hex()") == host.uid
    assert target.eval("model.macs") == host.macs
    assert target.eval("fieldloop.watermark(model, sample(0)) == model.arena_bytes") is True
    kernels = target.eval("_fieldloop.kernels()")
    assert target.eval("model.arena_bytes") == host.variant_arena_bytes(kernels)
    assert "1x8x8x1 int8 -> 1x10 int8" in target.eval("repr(model)")


def check_floats(target: Any) -> None:
    x = prepare(target, 4)
    info = Model(digits_image()).inputs[0]
    real = np.random.default_rng(3).normal(0, 3, SAMPLE_BYTES).astype(np.float32)
    real[:4] = [1e9, -1e9, 0.5 * info.scale, 1.5 * info.scale]  # clamps and ties
    target.put("/f.bin", real.tobytes())
    target.exec(
        "import array\nf = array.array('f', open('/f.bin', 'rb').read())\n"
        f"q = model.quantize(f, bytearray({SAMPLE_BYTES}))\n"
        "a, b = bytearray(10), bytearray(10)\n"
        "model.predict(f, a)\nmodel.predict(q, b)\ny = array.array('f', bytes(40))\n"
        "model.predict(q, y)"
    )
    assert target.eval("bytes(q)") == info.quantize(real).tobytes()
    assert target.eval("a == b") is True
    host = Model(digits_image())
    q = np.frombuffer(target.eval("bytes(q)"), np.int8).reshape(1, 8, 8, 1)
    expected = host.outputs[0].dequantize(host.predict_int8(q))
    assert target.eval("bytes(y)") == expected.astype(np.float32).tobytes()
    assert len(x) == 4


def check_learner(target: Any) -> None:
    x = prepare(target)
    config = LearnerConfig(lr=1.0, memory=20, seed=3)
    host = Learner(Model(digits_image()), config)
    predicted = [host.step(x[i], i % CLASSES).predicted for i in range(100)]
    target.exec("learner = fieldloop.Learner(model, lr=1.0, memory=20, seed=3)")
    assert target.eval("[learner.step(sample(i), i % 10) for i in range(100)]", timeout=120) == (
        predicted
    )
    assert target.eval("bytes(learner.state())") == bytes(host.state)
    stats = target.eval("learner.stats()")
    assert stats["backward_macs"] == host.stats.backward_macs
    assert (stats["samples"], stats["remembered"]) == (100, 20)
    names = [field.name for field in dataclasses.fields(host.sizes)]
    sizes = ", ".join(f"learner.{name}" for name in names)
    assert target.eval(f"({sizes})") == dataclasses.astuple(host.sizes)
    assert host.sizes.lent_bytes == host.sizes.scratch_bytes  # in the model's arena
    before = target.eval("bytes(learner.state())")
    assert target.eval("learner.watermark(sample(0), 1) == learner.total_bytes", timeout=60)
    assert target.eval("bytes(learner.state())") == before
    target.exec("learner.deinit(); learner.deinit()")
    y = Model(digits_image()).predict_int8(x[5:6])
    assert (
        target.eval("(model.predict(sample(5), a := bytearray(10)), bytes(a))[1]") == y.tobytes()
    )


def check_no_allocation(target: Any) -> None:
    prepare(target, 4)
    code = (
        "import micropython\n"
        "learner = fieldloop.Learner(model, memory=4)\n"
        "out = bytearray(10)\ns = sample(1)\npredict = model.predict\nstep = learner.step\n"
        "micropython.heap_lock()\n"
        "try:\n    predict(s, out); predict(s); step(s, 2); learner.train(s, 3)\n"
        "finally:\n    micropython.heap_unlock()\nprint('ok')"
    )
    assert target.exec(code).strip().endswith("ok")


CHECKS = [check_predict, check_floats, check_learner, check_no_allocation]


@pytest.mark.parametrize("check", CHECKS)
def test_on_unix(unix: UnixBoard, check: Any) -> None:
    check(unix)


@pytest.mark.fieldloop_board(needs=("files",))
@pytest.mark.parametrize("check", CHECKS)
def test_on_board(board: Any, check: Any) -> None:
    check(board)


# ---- wrong arguments: what, expected, got


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("model.predict(b'12')", ["ValueError", "x:", "64", "2"]),
        ("model.predict('x' * 64)", ["TypeError", "bytes-like", "str"]),
        ("model.predict(5)", ["TypeError", "bytes-like", "int"]),
        ("import array; model.predict(array.array('h', range(32)))", ["TypeError", "int8", "'h'"]),
        ("import array; model.predict(array.array('f', range(32)))", ["64 floats", "32"]),
        ("model.predict(sample(0), bytes(10))", ["TypeError", "out", "writable"]),
        ("model.predict(sample(0), bytearray(9))", ["ValueError", "out", "10", "9"]),
        ("learner.step(sample(0), 10)", ["ValueError", "label", "0..9", "10"]),
        ("learner.step(sample(0), -1)", ["ValueError", "label", "-1"]),
        ("learner.step(b'', 1)", ["ValueError", "x:", "64", "0"]),
        ("fieldloop.Learner(model, speed=3)", ["TypeError", "speed"]),
        ("fieldloop.Learner(model, selector='best')", ["ValueError", "selector", "best"]),
        ("fieldloop.Learner(model, replays=-1)", ["ValueError", "replays", "-1"]),
        ("fieldloop.Learner(model, s_min=3.0)", ["ValueError", "s_min", "0 to 1"]),
        (
            "hog = bytearray(5000000); fieldloop.Learner(model, memory=60000)",
            ["MemoryError", "needs", "missing"],
        ),
        ("fieldloop.Learner(5)", ["Error"]),
        ("learner.load(b'x' * 100)", ["ValueError", "learned state"]),
        ("learner.commit()", ["OSError", "no store"]),
        ("fieldloop.Model('/absent.flm')", ["OSError", "2"]),
        ("fieldloop.Model(image[:1000])", ["ValueError", "not a whole .flm"]),
        ("fieldloop.Model(b'not an image at all')", ["ValueError", "not a whole .flm"]),
        ("fieldloop.Model(memoryview(bytearray(1) + image)[1:])", ["ValueError", "16-byte"]),
        ("_fieldloop.Store(bytearray(10))", ["Error"]),
        ("_fieldloop.Link(5)", ["OSError", "stream"]),
    ],
)
def test_wrong_arguments_are_told(unix: UnixBoard, code: str, words: list[str]) -> None:
    prepare(unix, 1)
    unix.exec(
        "learner = fieldloop.Learner(model, memory=2)\n"
        "image = bytearray(open('/m.flm', 'rb').read())"
    )
    message = remote_error(unix, code)
    assert all(word in message for word in words), message
    unix.exec("model.predict(sample(0))")  # and nothing broke


def test_damaged_images_are_refused(unix: UnixBoard) -> None:
    prepare(unix, 1)
    image = digits_image()
    unix.exec("image = bytearray(open('/m.flm', 'rb').read())")
    rng = np.random.default_rng(1)
    places = [int(p) for p in rng.integers(0, len(image), 60)]
    unix.exec(
        "def flipped(p):\n    image[p] ^= 4\n    code = _fieldloop.check(image)\n"
        "    image[p] ^= 4\n    return code"
    )
    refused = unix.eval(f"[flipped(p) for p in {places}]")
    assert all(code in (-74, -95) for code in refused)
    cut = [int(p) for p in rng.integers(0, len(image), 60)]
    assert set(unix.eval(f"[_fieldloop.check(memoryview(image)[:n]) for n in {cut}]")) == {-74}
    assert unix.eval("_fieldloop.check(image)") == 0


def test_an_image_that_moves_is_noticed(unix: UnixBoard) -> None:
    prepare(unix, 1)
    unix.exec(
        "image = bytearray(open('/m.flm', 'rb').read())\nm = _fieldloop.Model(image)\n"
        "keep = [bytearray(64) for _ in range(200)]\nimage.extend(bytes(200000))"
    )
    assert "moved" in remote_error(unix, "m.predict(sample(0))")


def test_objects_live_as_long_as_they_must(unix: UnixBoard) -> None:
    x = prepare(unix, 2)
    unix.exec(
        "def make():\n    l = _fieldloop.Learner(model, lr=1.0, seed=3)\n"
        "    l.step(sample(0), 1)\n"
        "make()\ngc.collect()\njunk = [bytearray(b'\\x7f' * 900) for _ in range(2000)]\n"
        "out = bytearray(10)\nmodel.predict(sample(1), out)"
    )
    host = Learner(Model(digits_image()), LearnerConfig(lr=1.0, seed=3))
    host.step(x[0], 1)
    assert unix.eval("bytes(out)") == host.model.predict_int8(x[1:2]).tobytes()
    unix.exec("view = model.sample(2)[1]\ndel model\ngc.collect()\nprint(sum(view))")
    code = (
        "with _fieldloop.Model(open('/m.flm', 'rb').read()) as m:\n    pass\nm.predict(sample(0))"
    )
    assert "closed" in remote_error(unix, code)
    assert unix.eval("(m.deinit(), repr(m))[1]") == "Model(closed)"


# ---- what was learned is kept


def test_commit_restore_undo_reset(unix: UnixBoard) -> None:
    prepare(unix, 20)
    unix.exec(
        RAM_BLOCKS
        + "flash = RamBlocks()\n"
        + "def learner(): return fieldloop.Learner(model, flash, memory=4, seed=1)\n"
        "l = learner()\nfactory = bytes(l.state())\n"
        "def learn(n):\n    for i in range(n): l.step(sample(i), i % 10)\n"
        "    return bytes(l.state())\n"
    )
    assert "nothing was committed" in remote_error(unix, "l.undo()")
    unix.exec("a = learn(5); s1 = l.commit(); b = learn(5); s2 = l.commit(); c = learn(5)")
    assert unix.eval("len({factory, a, b, c}) == 4 and s2 > s1") is True
    assert unix.eval("(l.restore(), bytes(l.state()) == b)[1]") is True
    assert unix.eval("(l.undo(), bytes(l.state()) == a)[1]") is True
    unix.exec("l.deinit(); l = learner()")  # as after a start
    assert unix.eval("(l.restored, bytes(l.state()) == a)") == (True, True)
    assert unix.eval("(l.reset(), bytes(l.state()) == factory)[1]") is True
    unix.exec("l.deinit(); l = learner()")
    assert unix.eval("(l.restored, bytes(l.state()) == factory)") == (False, True)
    assert unix.eval("(l.undo(), bytes(l.state()) == a)[1]") is True  # reset is undone


def test_other_settings_do_not_take_over_the_state(unix: UnixBoard) -> None:
    prepare(unix, 4)
    unix.exec(
        RAM_BLOCKS + "flash = RamBlocks()\nl = fieldloop.Learner(model, flash, memory=4)\n"
        "l.step(sample(0), 1)\nkept = bytes(l.state())\nl.commit()\nl.deinit()\n"
        "other = fieldloop.Learner(model, flash, memory=6)"
    )
    assert unix.eval("other.restored") is False
    assert "another model or configuration" in remote_error(unix, "other.restore()")
    unix.exec("other.deinit()\nl = fieldloop.Learner(model, flash, memory=4)")
    assert unix.eval("bytes(l.state()) == kept") is True


def test_a_device_that_fails_says_so_and_keeps_the_commit(unix: UnixBoard) -> None:
    prepare(unix, 4)
    unix.exec(
        RAM_BLOCKS + "flash = RamBlocks()\nl = fieldloop.Learner(model, flash, memory=4)\n"
        "l.step(sample(0), 1)\nkept = bytes(l.state())\nl.commit()\nl.step(sample(1), 2)\n"
        "flash.fail = True"
    )
    assert "worn out" in remote_error(unix, "l.commit()")
    unix.exec("flash.fail = False\nl.deinit()\nl = fieldloop.Learner(model, flash, memory=4)")
    assert unix.eval("bytes(l.state()) == kept") is True
    small = "fieldloop.Learner(model, RamBlocks(2), memory=4).commit()"
    message = remote_error(unix, small)
    assert re.search(r"needs \d+ bytes of flash, \d+ available", message), message


@pytest.mark.fieldloop_board(needs=("files",))
def test_ctrl_c_in_a_learner_loop_leaves_the_state_whole(board: Any) -> None:
    prepare(board, 20)
    store = STORES[board.kind]
    board.exec(
        RAM_BLOCKS + f"flash = {store}\n"
        "flash = flash or RamBlocks()\nl = fieldloop.Learner(model, flash, memory=4, seed=1)\n"
    )
    board.begin(
        "i = 0\nwhile True:\n    l.step(sample(i % 20), i % 10)\n    i += 1\n    l.commit()"
    )
    time.sleep(1.5)
    board.interrupt()
    if board.kind == "unix":
        with pytest.raises(RemoteError):
            board.finish()
    board.exec("newest = bytes(l.state())\nseq = l.seq\nl.deinit()")
    board.exec("l = fieldloop.Learner(model, flash, memory=4, seed=1)")
    assert board.eval("l.restored") is True
    steps = board.eval("l.stats()['samples']")
    assert steps >= 1
    # What is there equals a run of exactly so many steps.
    host = Learner(Model(digits_image()), LearnerConfig(memory=4, seed=1))
    x = samples(20, 7)
    for i in range(steps):
        host.step(x[i % 20], i % 10)
    assert board.eval("bytes(l.state())") == bytes(host.state)


# ---- flash


@pytest.mark.fieldloop_board(only=("qemu",))
def test_a_model_runs_in_place_from_a_partition(board: Any) -> None:
    x = prepare(board, 3)
    board.exec(
        "import simboard\np = simboard.Partition('model0')\nw = _fieldloop.Slot(p)\n"
        "data = open('/m.flm', 'rb').read()\nw.begin(len(data))\nat = 0\n"
        "for n in (1, 7, 100, 5000, 20000):\n"
        "    part = data[at : at + n]\n    w.write(at, part)\n    at += len(part)\nw.end()\n"
        "m = fieldloop.Model(p)"
    )
    assert board.eval("w.sha256(len(data)) == _fieldloop.sha256(data)") is True
    out = board.eval("(m.predict(sample(2), o := bytearray(10)), bytes(o))[1]")
    assert out == Model(digits_image()).predict_int8(x[2:3]).tobytes()
    before = board.eval("gc.collect() or gc.mem_free()")
    board.exec("m2 = fieldloop.Model(p)")
    used = before - board.eval("gc.collect() or gc.mem_free()")
    arena = board.eval("m2.arena_bytes")  # scratch of the board's kernels included
    assert used < arena + 1500  # and the objects; 15 KB of image stay where they are
    assert "2097152 available" in remote_error(board, "w.begin(3000000)")
    assert "chunk at byte 0" in remote_error(board, "w.begin(100); w.write(5, b'x')")


# ---- checksums, stubs


def test_checksums(unix: UnixBoard) -> None:
    unix.exec("import _fieldloop")
    assert unix.eval("_fieldloop.crc32(b'123456789')") == 0xCBF43926
    assert unix.eval("_fieldloop.crc32(b'6789', _fieldloop.crc32(b'12345'))") == 0xCBF43926
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert unix.eval("_fieldloop.sha256(b'abc').hex()") == digest
    assert unix.eval("_fieldloop.sha256([b'a', b'', b'bc']).hex()") == digest


def stub_names(stub: str) -> dict[str, set[str]]:
    """{class or "": names} of a .pyi file."""
    import ast

    tree = ast.parse((paths.device_dir() / "stubs" / stub).read_text())
    names: dict[str, set[str]] = {"": set()}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names[""].add(node.name)
            names[node.name] = {
                n.name if isinstance(n, ast.FunctionDef) else n.target.id  # type: ignore[union-attr]
                for n in node.body
                if isinstance(n, (ast.FunctionDef, ast.AnnAssign))
            }
        elif isinstance(node, ast.FunctionDef):
            names[""].add(node.name)
        elif isinstance(node, ast.AnnAssign):
            names[""].add(node.target.id)  # type: ignore[union-attr]
    return names


def test_stubs_name_what_is_there(unix: UnixBoard) -> None:
    prepare(unix, 1)
    stub = stub_names("_fieldloop.pyi")
    module = {n for n in unix.eval("dir(_fieldloop)") if not n.startswith("__")}
    assert stub[""] == module
    unix.exec(RAM_BLOCKS + "import sys\nd = RamBlocks()\nobjects = {'Model': model}")
    unix.exec(
        "objects['Learner'] = _fieldloop.Learner(model)\nobjects['Store'] = _fieldloop.Store(d)\n"
        "objects['Slot'] = _fieldloop.Slot(d)\n"
        "objects['Link'] = _fieldloop.Link(sys.stdin, sys.stdout, dedicated=False)"
    )
    for kind in ("Model", "Learner", "Store", "Slot", "Link"):
        named = {n for n in stub[kind] if not n.startswith("__")}
        there = unix.eval(f"[n for n in {sorted(named)} if hasattr(objects['{kind}'], n)]")
        assert set(there) == named, kind
        methods = {n for n in unix.eval(f"dir(_fieldloop.{kind})") if not n.startswith("__")}
        assert methods <= named, kind
    package = stub_names("fieldloop.pyi")
    assert set(unix.eval("fieldloop.__all__")) <= package[""]
    there = unix.eval("dir(fieldloop)")
    assert {n for n in package[""] if not n.startswith("__")} <= set(there)
