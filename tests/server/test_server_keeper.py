"""What the C server's learner keeps: commits, undo, settings, tight memory, a flash that fails."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from c_server import COMMIT, INFO, MEM, OPEN, RESET, RESTORE, STATS, STEP, UNDO, CServer, error_of
from images import CLASSES, digits_image, samples

from fieldloop.runtime import Learner, LearnerConfig, Model
from fieldloop.runtime.flashfile import NorFlash, Store

IMAGE = digits_image()
UID = IMAGE[16:32]
X = samples(60, 7)
STATE, SETTINGS_RECORD = 1, 3
SETTINGS: dict[str, Any] = {"lr": 1.0, "memory": 10, "seed": 3, "replays": 1}
OTHER: dict[str, Any] = {**SETTINGS, "memory": 4}


def open_one(folder: Path, settings: dict[str, Any] = SETTINGS, **options: Any) -> CServer:
    server = CServer(folder, **options)
    if server.read(INFO)["model"] is None:
        server.load(IMAGE)
    reply = server.write(OPEN, cfg=settings)
    assert "err" not in reply, reply
    return server


def step(server: CServer, first: int, count: int = 3) -> None:
    labels = bytes(i % CLASSES for i in range(first, first + count))
    reply = server.write(STEP, x=X[first : first + count].tobytes(), y=labels)
    assert reply["k"] == count, reply


PLAN = Learner(Model(IMAGE), LearnerConfig(**SETTINGS)).plan
NEEDED = (PLAN.arena + 15) // 16 * 16 + PLAN.total - PLAN.arena  # the learner begins at a multiple


@pytest.fixture(params=["roomy", "tight"])
def memory(request: pytest.FixtureRequest) -> int:
    """With room for a second state, and without: then a stored one is taken over in place."""
    return 64 * 1024 if request.param == "roomy" else NEEDED


def test_the_learner_is_the_hosts(tmp_path: Path, memory: int) -> None:
    server = open_one(tmp_path, memory_bytes=memory)
    host = Learner(Model(IMAGE), LearnerConfig(**SETTINGS))
    for i in range(0, 60, 3):
        step(server, i)
        for k in range(i, i + 3):
            host.step(X[k], k % CLASSES)
    assert server.learned == bytes(host.state)
    reply = server.write(COMMIT)
    assert reply["bytes"] == len(host.state)
    assert server.pull("state") == bytes(host.state)
    stats = server.read(STATS, layers=True)
    assert stats["backward_macs"] == host.stats.backward_macs
    layers = stats["layers"]
    assert isinstance(layers, list)
    for told, own in zip(layers, host.layer_stats(), strict=True):
        assert isinstance(told, dict)
        assert (told["kept"], told["saturated"]) == (own.kept, own.saturated)
    server.close()


def test_undo_restore_reset(tmp_path: Path, memory: int) -> None:
    server = open_one(tmp_path, memory_bytes=memory)
    factory = server.learned
    assert error_of(server.write(UNDO)) == (2, "nothing was committed yet")
    step(server, 0)
    one = server.learned
    first = server.write(COMMIT)["seq"]
    step(server, 3)
    two = server.learned
    second = server.write(COMMIT)["seq"]
    step(server, 6)
    assert server.write(RESTORE) == {"seq": second}
    assert server.learned == two
    third = server.write(UNDO)["seq"]
    assert server.learned == one
    assert isinstance(first, int) and isinstance(second, int) and isinstance(third, int)
    assert first < second < third
    server.write(UNDO)  # undo of undo
    assert server.learned == two
    fifth = server.write(RESET)["seq"]
    assert server.learned == factory
    assert server.write(RESTORE) == {"seq": 0}
    assert server.learned == factory
    sixth = server.write(UNDO)["seq"]
    assert server.learned == two
    assert isinstance(fifth, int) and isinstance(sixth, int) and fifth < sixth
    server.close()
    server = CServer(tmp_path, memory_bytes=memory, boot=2)
    assert server.learned == two and server.s.restored
    server.close()


def test_one_commit_and_undo_is_the_factory(tmp_path: Path, memory: int) -> None:
    server = open_one(tmp_path, memory_bytes=memory)
    factory = server.learned
    step(server, 0)
    server.write(COMMIT)
    server.write(UNDO)
    assert server.learned == factory
    server.close()
    server = CServer(tmp_path, memory_bytes=memory, boot=2)
    info = server.read(INFO)
    assert info["learner"] is False and "fault" not in info  # nothing learned is in use
    server.close()


def test_a_state_of_other_settings_changes_nothing(tmp_path: Path, memory: int) -> None:
    server = open_one(tmp_path, memory_bytes=memory)
    step(server, 0)
    server.write(COMMIT)
    reply = server.write(OPEN, cfg=OTHER)
    assert (reply["restored"], reply["seq"]) == (False, 0)
    step(server, 3)
    learned = server.learned
    error = error_of(server.write(RESTORE))
    assert error[0] == 22 and error[1].startswith("learned state belongs to another model or")
    assert server.learned == learned
    server.write(COMMIT)
    assert error_of(server.write(UNDO))[0] == 22
    assert server.learned == learned
    # The one before is still in the store: its settings bring it back.
    server.close()
    server = CServer(tmp_path, memory_bytes=memory, boot=2)
    assert server.learned == learned
    server.close()


def test_refused_settings_leave_the_learner(tmp_path: Path) -> None:
    server = open_one(tmp_path)
    step(server, 0)
    learned = server.learned
    for cfg, number, words in (
        ({"speed": 3}, 22, "unknown setting 'speed'"),
        ({"selector": "best"}, 22, "selector: unknown choice 'best'"),
        ({"batch": 0}, 22, "learner setting batch: expected 1 to 256"),
        ({"s_min": 2.0}, 22, "s_min, s_max"),
        ({"layers": -1}, 22, "layers: expected 0 or more, got -1"),
        ({"layers": 9}, 22, "fewer trainable layers"),
        ({"lr": "fast"}, 22, "lr: expected a number"),
        ({"mask": [2.0]}, 22, "mask: expected shares of 0 to 1"),
        ({"mask": [1.0] * 17}, 22, "mask: more shares"),
        ({"mask": 1}, 22, "mask: expected an array"),
        ({"floor": 2**33}, 22, "floor: expected a whole number"),
    ):
        error = error_of(server.write(OPEN, cfg=cfg))
        assert error[0] == number and words in error[1], error
        assert server.learned == learned
    reply = server.write(OPEN, cfg={**SETTINGS, "memory": 2000})
    assert error_of(reply)[0] == 12
    assert reply["have"] == 64 * 1024
    need = reply["need"]
    assert isinstance(need, int) and need > 64 * 1024
    assert server.learned == learned
    step(server, 3)  # and goes on
    server.close()


def test_an_image_without_trainable_layers(tmp_path: Path) -> None:
    server = CServer(tmp_path)
    server.load(digits_image(learn=False))
    assert "err" not in server.write(OPEN, cfg={})
    assert error_of(server.write(OPEN, cfg={"layers": 2}))[0] == 22
    server.close()


def test_paint_loses_nothing_and_the_plan_is_the_mark(tmp_path: Path, memory: int) -> None:
    server = open_one(tmp_path, memory_bytes=memory)
    step(server, 0)
    learned = server.learned
    marks = []
    for paint in (0x55, 0xAA):
        server.write(MEM, paint=paint)
        assert server.learned == learned
        step(server, 0, 1)
        told = server.read(MEM)
        marks.append(told["used"])
        assert told["arena"] == PLAN.total
        server.write(COMMIT)
        learned = server.learned
    assert max(marks) == PLAN.total
    server.close()


def learner_matches(server: CServer, *states: bytes) -> bytes:
    now = server.learned
    assert now in states
    return now


@pytest.mark.parametrize("inside", [False, True])
def test_power_cuts_during_commit(tmp_path: Path, inside: bool) -> None:
    """After, or inside, each operation of a commit that changes the settings as well."""
    rng = random.Random(8)
    seen = set()
    for n in range(1, 60):
        folder = tmp_path / str(n)
        folder.mkdir()
        server = open_one(folder, OTHER)
        step(server, 0)
        server.write(COMMIT)
        old = server.learned
        server.write(OPEN, cfg=SETTINGS)
        step(server, 3)
        new = server.learned
        if inside:
            server.store.fail_inside(n, rng.randrange(1 << 30))
        else:
            server.store.fail_after(n)
        reply = server.write(COMMIT)
        cut = not server.store.has_power
        assert ("err" in reply) == cut
        server.store.check()
        server.close()
        server = CServer(folder, boot=2)
        seen.add((cut, learner_matches(server, old, new) == new))
        step(server, 6)  # whatever it is, it goes on, and can be kept
        assert "err" not in server.write(COMMIT)
        server.close()
        if not cut:
            break
    assert {(True, False), (False, True)} <= seen


def test_a_commit_that_fails_half_way_keeps_the_old_settings(tmp_path: Path) -> None:
    """New settings are on the flash, their state is not: again and again, without a restart."""
    server = open_one(tmp_path, OTHER)
    step(server, 0)
    server.write(COMMIT)
    old = server.learned
    server.write(OPEN, cfg=SETTINGS)
    step(server, 3)
    for _ in range(4):
        # The record of the settings is whole after three operations; the state's is not.
        server.store.fail_after(5)
        assert error_of(server.write(COMMIT))[0] == 5
        server.store.power_on()
    server.close()
    server = CServer(tmp_path, boot=2)
    assert server.learned == old
    server.close()


def test_states_that_do_not_fit_push_no_settings_out(tmp_path: Path) -> None:
    """The two newest settings are kept: those of the state that is there must be one of them."""
    server = open_one(tmp_path, OTHER)
    step(server, 0)
    server.write(COMMIT)
    old = server.learned
    for memory_samples in (250, 251, 252):
        server.write(OPEN, cfg={**SETTINGS, "memory": memory_samples})
        step(server, 3)
        reply = server.write(COMMIT)
        assert error_of(reply)[0] == 28
        need, have = reply["need"], reply["have"]
        assert isinstance(need, int) and have == 16 * 4096 and need > 16 * 4096
    server.close()
    server = CServer(tmp_path, boot=2)
    assert server.learned == old
    server.close()


def test_a_state_of_the_same_length_but_other_settings(tmp_path: Path) -> None:
    """Without room for a second state, a stored one must be known to fit before it is read."""
    one: dict[str, Any] = {"layers": 1, "replays": 0}
    server = open_one(tmp_path, one)
    step(server, 0)
    length = server.write(COMMIT)["bytes"]
    server.close()
    server = open_one(tmp_path, {**one, "selector": "loss"}, boot=2)
    step(server, 3)
    learned = server.learned
    assert len(learned) == length
    needed = 64 * 1024 - int(str(server.read(MEM)["free"]))
    server.config.memory_bytes = needed
    assert error_of(server.write(RESTORE))[0] == 22
    assert server.learned == learned
    server.close()


def test_a_batch_that_is_not_full(tmp_path: Path) -> None:
    """A commit writes it first; a paint empties it, as every load of a state does."""
    settings: dict[str, Any] = {"batch": 4, "replays": 0}
    server = open_one(tmp_path, settings)
    host = Learner(Model(IMAGE), LearnerConfig(**settings))
    for first, host_does in (
        (0, host.flush),
        (5, lambda: host.load(bytes(host.state))),
        (10, None),
    ):
        step(server, first, 5)
        for k in range(first, first + 5):
            host.step(X[k], k % CLASSES)
        if host_does is not None:
            host_does()
        if first == 0:
            server.write(COMMIT)
        elif first == 5:
            server.write(MEM, paint=0x55)
        assert server.learned == bytes(host.state)
    server.close()


def test_an_undo_that_fails_once_is_not_done(tmp_path: Path, memory: int) -> None:
    """The flash refuses one program and works again: what was taken back is brought back."""
    server = open_one(tmp_path, memory_bytes=memory)
    for first in (0, 3):
        step(server, first)
        server.write(COMMIT)
    learned = server.learned
    works = server.store._prog

    def fails_once(_addr: int, _data: bytes) -> int:
        server.store._prog = works  # type: ignore[method-assign]
        return -5

    server.store._prog = fails_once  # type: ignore[method-assign]
    assert error_of(server.write(UNDO)) == (5, "store: the flash failed")
    assert server.learned == learned
    server.close()


def test_an_undo_that_cannot_be_kept_is_not_done(tmp_path: Path, memory: int) -> None:
    server = open_one(tmp_path, memory_bytes=memory)
    for first in (0, 3):
        step(server, first)
        server.write(COMMIT)
    learned = server.learned
    server.store.fail_after(1)
    assert error_of(server.write(UNDO)) == (5, "store: the flash failed")
    server.store.power_on()
    assert "err" not in server.write(RESTORE)
    assert server.learned == learned
    server.close()


def test_a_flash_that_failed_is_mounted_again(tmp_path: Path) -> None:
    server = open_one(tmp_path)
    step(server, 0)
    server.write(COMMIT)
    step(server, 3)
    server.store.fail_after(2)
    assert error_of(server.write(COMMIT)) == (5, "store: the flash failed")
    assert error_of(server.write(RESTORE))[0] == 5
    server.store.power_on()
    learned = server.learned
    assert "err" not in server.write(COMMIT)
    assert server.pull("state") == learned
    server.close()


def test_settings_that_are_lost_are_told(tmp_path: Path) -> None:
    server = open_one(tmp_path)
    step(server, 0)
    learned = server.learned
    server.close()
    with NorFlash(tmp_path / "store") as flash:
        Store(flash).append(STATE, UID, learned)
    server = CServer(tmp_path, boot=2)
    info = server.read(INFO)
    assert info["learner"] is False
    assert info["fault"] == (
        "what was learned is stored but not in use: "
        "the settings it was learned with are not stored"
    )
    reply = server.write(OPEN, cfg=SETTINGS)
    assert reply["restored"] is True
    assert server.learned == learned
    server.close()


def test_a_learner_too_large_after_a_restart_is_told(tmp_path: Path) -> None:
    server = open_one(tmp_path)
    step(server, 0)
    server.write(COMMIT)
    server.close()
    server = CServer(tmp_path, memory_bytes=NEEDED - 1, boot=2)
    info = server.read(INFO)
    assert info["learner"] is False and f"needs {NEEDED} bytes" in str(info["fault"])
    assert info["model"] is not None  # which predicts with the factory's weights
    server.close()


def test_a_record_of_hostile_settings(tmp_path: Path) -> None:
    server = open_one(tmp_path)
    step(server, 0)
    server.write(COMMIT)
    learned = server.learned
    server.close()
    for settings in (b"\xff" * 128, b"\0" * 128, b"short"):
        with NorFlash(tmp_path / "store") as flash:
            Store(flash).append(SETTINGS_RECORD, UID, settings)
        server = CServer(tmp_path, boot=2)
        assert server.learned == learned  # with the settings before them, which are the newest now
        server.close()
