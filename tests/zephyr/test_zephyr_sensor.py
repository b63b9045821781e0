"""The sensor example on native_sim, and the shell.

What an emulated accelerometer plays is classified, and a motion that the model never met is
learned from the labels that a person gives.
"""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from fieldloop.link import connect
from fieldloop.targets import roster
from fieldloop.targets.zephyr_board import ZephyrBoard, app_dir, build_folder, measure
from fieldloop.targets.zephyr_workspace import Workspace, build

pytestmark = pytest.mark.zephyr

HUM = 3  # the model was not trained on it
LABELS_GIVEN = 12


def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_motion", app_dir() / "train_motion.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def image() -> bytes:
    """Trained on the host on what the emulated sensor plays."""
    made: bytes = recipe().train().image
    return made


@pytest.fixture
def native(workspace: Workspace, tmp_path: Path) -> Iterator[ZephyrBoard]:
    elf = build(
        app_dir(),
        roster.lookup("native_sim").board,
        build_folder("native_sim-sensor"),
        extra=["-DEXTRA_CONF_FILE=sensor.conf", "-DEXTRA_DTC_OVERLAY_FILE=sensor.overlay"],
    )
    firmware = measure(elf, roster.lookup("native_sim"))
    with ZephyrBoard("native_sim", flash_file=tmp_path / "flash.bin", firmware=firmware) as made:
        yield made


def seen(board: ZephyrBoard) -> tuple[int, int, int]:
    """Windows so far, class of the last, windows learned."""
    said = board.shell("fieldloop sensor")
    found = re.search(
        r"window (\d+): class (-?\d+); (\d+) learned", said
    )  # log lines come between
    assert found is not None, said
    return int(found[1]), int(found[2]), int(found[3])


def wait_for(board: ZephyrBoard, windows: int, learned: int = 0) -> int:
    """The class of the last window once there are so many more of them."""
    begin = seen(board)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        now = seen(board)
        if now[0] >= begin[0] + windows and now[2] >= begin[2] + learned:
            return now[1]
        time.sleep(0.2)
    raise AssertionError(f"{windows} windows expected within 30 s, got from {begin} to {now}")


def classes(board: ZephyrBoard) -> list[int]:
    """What each motion is taken for; the window under way when it begins is of two."""
    found = []
    for motion in range(HUM + 1):
        board.shell(f"fieldloop motion {motion}")
        found.append(wait_for(board, 2))
    return found


def test_a_motion_is_learned_from_a_persons_labels(native: ZephyrBoard, image: bytes) -> None:
    assert "no windows" in native.shell("fieldloop sensor")
    with connect(native.link_port, dedicated=True) as link:
        link.push(image, to="model0")
        link.activate(image, slot="model0")
    assert seen_soon(native)
    assert classes(native)[:HUM] == [0, 1, 2]
    assert "no learner is open" in native.shell(f"fieldloop label {HUM}")
    assert "a learner is open" in native.shell("fieldloop open lr=0.5 replays=8 memory=16")
    assert "expected 0 to 3, got 4" in native.shell("fieldloop label 4")
    native.shell(f"fieldloop motion {HUM}")
    for _ in range(LABELS_GIVEN):
        assert "learned as class 3" in native.shell(f"fieldloop label {HUM}")
        wait_for(native, 1, learned=1)
    assert classes(native) == [0, 1, 2, HUM]
    assert "kept; record" in native.shell("fieldloop commit")
    native.kill()
    native.start()
    assert seen_soon(native)
    assert classes(native) == [0, 1, 2, HUM], "what was learned is lost with the power"


def seen_soon(board: ZephyrBoard) -> bool:
    """The model's windows have begun."""
    until = time.monotonic() + 10
    while "no windows" in board.shell("fieldloop sensor"):
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def test_shell_commands_and_their_errors(native: ZephyrBoard, image: bytes) -> None:
    def says(command: str, expected: str) -> None:
        said = native.shell(command)
        assert re.search(expected, said), f"{command}: {said}"

    says("fieldloop info", r"model +none; push one")
    says("fieldloop predict 00", "no model")
    with connect(native.link_port, dedicated=True) as link:
        link.push(image, to="model1")
        link.activate(image, slot="model1")
        says("fieldloop info", rf"model +model1, {len(image)} bytes, sha256 [0-9a-f]{{8}}")
        says("fieldloop predict sample 0", r"class 0 \(rest\), scores( -?\d+){4}")
        says("fieldloop predict sample 48", "expected, got 48")
        says("fieldloop predict 0g", "pairs of hexadecimal digits")
        says("fieldloop predict 0011", "expected samples of 96 bytes each, got 2")
        says("fieldloop learn 1 sample 0", "no learner is open")
        says("fieldloop learn x sample 0", "number of a class before the sample")
        says("fieldloop open lr=fast", "lr: expected a number")
        says("fieldloop open speed=1", "unknown setting 'speed'")
        says("fieldloop open selector=best", "selector")
        says("fieldloop open lr=0.1 selector=topk s_max=0.5", "a learner is open")
        says("fieldloop learn 9 sample 0", r"label: expected 0\.\.3, got 9")
        says("fieldloop commit", r"kept; record \d+")
        factory = link.pull()
        says("fieldloop learn 3 sample 0", r"was class 0, p\(3\) \d+ %, learned")
        says("fieldloop commit", r"kept; record \d+")
        learned = link.pull()
        assert learned != factory
        says("fieldloop undo", "commit before; record")
        assert link.pull() == factory
        says("fieldloop reset", "factory's weights are back")
        says("fieldloop info", r"learner +from commit \d+; 0 samples seen")
        says("fieldloop info", "slot +model0, 2097152 bytes, empty")
