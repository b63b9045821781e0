"""Slots and the active model of the C server: opened, refused, remembered, power cuts."""

from __future__ import annotations

import itertools
import random
import struct
import zlib
from pathlib import Path

import pytest
from c_server import ACTIVATE, COMMIT, INFO, OPEN, PREDICT, STEP, CServer, error_of, sha256
from images import digits_image, samples

from fieldloop.link.header import Op
from fieldloop.runtime import Model
from fieldloop.runtime.flashfile import NorFlash, Store

X = samples(5, 7)
ACTIVE = 2
NO_UID = bytes(16)


def uid_of(image: bytes) -> bytes:
    return image[16:32]


def outputs(image: bytes) -> bytes:
    return Model(image).predict_int8(X).tobytes()


def predicted(server: CServer) -> object:
    return server.read(PREDICT, x=X.tobytes())["y"]


def restarted(server: CServer, folder: Path, **options: object) -> CServer:
    server.close()
    return CServer(folder, boot=2, **options)  # type: ignore[arg-type]


def test_the_active_model_comes_back_after_a_restart(tmp_path: Path) -> None:
    one, other = digits_image(), digits_image(4)
    server = CServer(tmp_path)
    server.load(one)
    assert predicted(server) == outputs(one)
    server.push(other, to="model1")
    assert predicted(server) == outputs(one)  # a push changes nothing yet
    shown = server.write(ACTIVATE, slot="model1", sha=sha256(other))
    assert (shown["slot"], shown["len"], shown["learn"]) == ("model1", len(other), True)
    assert server.read(INFO)["model"] == shown
    server = restarted(server, tmp_path)
    assert server.read(INFO)["model"] == shown
    assert predicted(server) == outputs(other)
    server.close()


def test_the_record_is_the_one_that_python_writes(tmp_path: Path) -> None:
    """device/fieldloop/storage.py reads it, and the other way round."""
    image = digits_image()
    server = CServer(tmp_path)
    server.load(image, slot="model1")
    server.close()
    with NorFlash(tmp_path / "store") as flash:
        record = Store(flash).find(ACTIVE, NO_UID)
    assert record is not None
    head = struct.pack("<I", len(image)) + sha256(image) + uid_of(image)
    assert record.payload == head + b"model1"


def refused(server: CServer, slot: str, image: bytes) -> tuple[int, str]:
    return error_of(server.write(ACTIVATE, slot=slot, sha=sha256(image)))


def test_a_refused_model_leaves_the_old_one(tmp_path: Path) -> None:
    one, other = digits_image(), digits_image(4)
    server = CServer(tmp_path)
    server.load(one)
    server.write(OPEN, cfg={})
    assert refused(server, "model7", one) == (2, "no slot model7")
    assert refused(server, "model1", other) == (
        74,
        "the SHA-256 of slot model1 is another; push again",
    )
    damaged = other[:-1] + bytes([other[-1] ^ 1])
    server.push(damaged, to="model1")
    assert refused(server, "model1", damaged) == (74, "slot model1 holds no whole .flm image")
    body = bytearray(other)
    body[4] = 2  # another major version
    body[12:16] = struct.pack("<I", zlib.crc32(bytes(body[16:])))
    server.push(bytes(body), to="model1")
    assert refused(server, "model1", bytes(body))[0] == 95
    assert predicted(server) == outputs(one)
    assert server.read(INFO)["learner"] is True
    server.close()


def test_a_model_too_large_for_the_memory(tmp_path: Path) -> None:
    image = digits_image()
    arena = Model(image).plan_bytes("INFER")
    server = CServer(tmp_path, memory_bytes=arena - 1)
    server.push(image)
    reply = server.write(ACTIVATE, slot="model0", sha=sha256(image))
    assert error_of(reply)[0] == 12
    assert (reply["need"], reply["have"]) == (arena, arena - 1)
    assert server.read(INFO)["model"] is None
    server = restarted(server, tmp_path, memory_bytes=arena)
    server.load(image)
    assert predicted(server) == outputs(image)
    server = restarted(server, tmp_path, memory_bytes=arena - 1)
    info = server.read(INFO)
    assert info["model"] is None and str(arena) in str(info["fault"])
    assert error_of(server.read(PREDICT, x=b"x"))[1] == info["fault"]
    server.close()


def test_a_push_into_the_active_slot_closes_its_model(tmp_path: Path) -> None:
    one, other = digits_image(), digits_image(4)
    server = CServer(tmp_path)
    server.load(one)
    server.push(other)
    assert error_of(server.read(PREDICT, x=X.tobytes()))[1].startswith("no model is active")
    server = restarted(server, tmp_path)  # before it was activated
    fault = server.read(INFO)["fault"]
    assert fault == "slot model0 holds another model than the active one"
    assert "err" not in server.write(ACTIVATE, slot="model0", sha=sha256(other))
    assert "fault" not in server.read(INFO)
    assert predicted(server) == outputs(other)
    server.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (b"model7", "slot model7 is gone"),
        (b"a name that no slot of this device has room for", "is gone"),
    ],
)
def test_an_active_model_that_is_nowhere(tmp_path: Path, name: bytes, words: str) -> None:
    image = digits_image()
    with NorFlash(tmp_path / "store") as flash:
        head = struct.pack("<I", len(image)) + sha256(image) + uid_of(image)
        Store(flash).append(ACTIVE, NO_UID, head + name)
    server = CServer(tmp_path)
    assert server.opened == 0
    assert words in str(server.read(INFO)["fault"])
    server.load(image)
    assert predicted(server) == outputs(image)
    server.close()


def learn(server: CServer, count: int = 1) -> None:
    server.write(OPEN, cfg={"replays": 0})
    for i in range(count):
        server.write(STEP, x=X[i % 5].tobytes(), y=bytes([i % 10]))
        assert "err" not in server.write(COMMIT)


def test_what_another_model_learned_gives_way(tmp_path: Path) -> None:
    """A store with room for what one model learned, not for two."""
    one, other = digits_image(), digits_image(4)
    server = CServer(tmp_path, store_sectors=14)
    server.load(one)
    learn(server)
    of_one = predicted(server)
    server.load(other, slot="model1")
    assert predicted(server) == outputs(other)
    learn(server)
    of_other = predicted(server)
    # Both are in the flash now, and to keep both is refused.
    assert "err" not in server.write(ACTIVATE, slot="model0", sha=sha256(one))
    assert predicted(server) == of_one != outputs(one)
    learn(server, 5)
    server.write(ACTIVATE, slot="model1", sha=sha256(other))
    assert predicted(server) in (outputs(other), of_other)
    server = restarted(server, tmp_path, store_sectors=14)
    assert predicted(server) in (outputs(other), of_other)
    learn(server, 2)  # what the first one learned gives way after a restart, too
    server.close()


@pytest.mark.parametrize("commits", range(1, 9))
def test_power_cuts_during_activate(tmp_path: Path, commits: int) -> None:
    """After, or inside, each operation of the store's flash, wherever its ring stands: the model
    before with all it learned, or the new one."""
    one, other = digits_image(), digits_image(4)
    rng = random.Random(3)
    seen = set()
    for n in itertools.count(1):
        for inside in (False, True):
            folder = tmp_path / f"{n}{inside}"
            folder.mkdir()
            server = CServer(folder, store_sectors=14)
            server.load(one)
            learn(server, commits)
            learned = predicted(server)
            server.push(other, to="model1")
            if inside:
                server.store.fail_inside(n, rng.randrange(1 << 30))
            else:
                server.store.fail_after(n)
            reply = server.write(ACTIVATE, slot="model1", sha=sha256(other))
            hit = not server.store.has_power
            if hit:
                assert error_of(reply)[0] == 5
                assert predicted(server) == learned  # while it still runs
            server.store.check()
            server = restarted(server, folder, store_sectors=14)
            now = predicted(server)
            assert now in (learned, outputs(other)), (n, inside)
            assert "fault" not in server.read(INFO)
            seen.add((hit, now == learned))
            server.close()
        if not hit:
            break
    assert {(True, True), (False, False)} <= seen


def test_a_store_that_cannot_be_mounted_is_tried_again(tmp_path: Path) -> None:
    image = digits_image()
    server = CServer(tmp_path)
    server.load(image)
    server.close()
    store = NorFlash(tmp_path / "store")
    store.has_power = False
    server = CServer(tmp_path, store=store, boot=2)
    assert server.opened == -5
    info = server.read(INFO)
    assert (info["model"], info["fault"]) == (None, "store: the flash failed")
    assert error_of(server.write(ACTIVATE, slot="model0", sha=sha256(image)))[0] == 5
    store.power_on()
    assert "err" not in server.write(ACTIVATE, slot="model0", sha=sha256(image))
    assert predicted(server) == outputs(image)
    server.close()


def test_a_push_goes_on_only_without_the_model_that_runs_there(tmp_path: Path) -> None:
    """Written once more with the same bytes, a slot has its SHA-256 before it is written whole."""
    image = digits_image()
    server = CServer(tmp_path)
    server.load(image)
    sector = 4096

    def upload(off: int, to: int) -> object:
        piece = {"name": "/model0", "off": off, "data": image[off:to], "len": len(image)}
        return server.call(Op.WRITE, 0, piece, group=8)["off"]

    assert upload(0, sector // 2) == sector // 2
    assert server.read(INFO)["model"] is None
    assert upload(sector // 2, sector) == sector
    server.write(ACTIVATE, slot="model0", sha=sha256(image))
    assert predicted(server) == outputs(image)
    assert upload(sector, sector + 8) == sector + 8
    assert server.read(INFO)["model"] is None  # its second sector was erased
    for off in range(sector + 8, len(image), 3000):
        upload(off, off + 3000)
    server.write(ACTIVATE, slot="model0", sha=sha256(image))
    assert predicted(server) == outputs(image)
    server.close()


@pytest.mark.parametrize("buf_bytes", [310, 324, 388, 512])
def test_info_tells_of_a_fault_what_there_is_room_for(tmp_path: Path, buf_bytes: int) -> None:
    server = CServer(tmp_path, buf_bytes=buf_bytes)
    server.load(digits_image(), chunk=150)
    whole = "x" * 150
    server.s.fault = whole.encode()
    told = server.read(INFO)
    assert told["model"] is not None
    assert whole.startswith(str(told.get("fault", ""))) and (
        buf_bytes < 512 or told["fault"] == whole
    )
    assert buf_bytes == 310 or "fault" in told
    server.close()


def test_a_config_that_breaks_a_rule(tmp_path: Path) -> None:
    server = CServer(tmp_path)
    lib, config = server.lib, server.config
    for field, wrong in (
        ("slot_count", 0),
        ("buf_bytes", 255),
        ("buf_bytes", 65536),
        ("group", 63),
        ("memory", config.memory + 8),
        ("board", server.ffi.NULL),
        ("store", server.ffi.NULL),
    ):
        right = getattr(config, field)
        setattr(config, field, wrong)
        assert lib.fl_server_open(server.s, config) == lib.FL_EINVAL, field
        setattr(config, field, right)
    name = config.slots[0].name
    config.slots[0].name = server._held(server.ffi.new("char[]", b"sixteen letters!"))
    assert lib.fl_server_open(server.s, config) == lib.FL_EINVAL
    config.slots[0].name = name
    assert lib.fl_server_open(server.s, config) == 0
    server.close()
