"""A model executed in place from a ROMFS that our writer aligned, put there by mpremote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import digits_image, samples
from package import install

from fieldloop.image.romfs import write_romfs
from fieldloop.runtime import Model

pytestmark = pytest.mark.fieldloop_board(only=("qemu",))


def deploy(board: Any, path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "mpremote", "connect", board.repl_port, "romfs", "deploy", path],
        check=True,
        capture_output=True,
        timeout=60,
    )
    board.restart()  # a start mounts what the partition holds


def test_a_model_on_a_romfs_is_executed_in_place(board: Any, tmp_path: Path) -> None:
    image = digits_image()
    path = tmp_path / "models.romfs"
    path.write_bytes(write_romfs({"other.bin": b"odd", "digits.flm": image}))
    install(board)
    deploy(board, path)
    x = samples(5, 3)
    board.put("/x.bin", x.tobytes())
    board.exec(
        "import fieldloop, gc\n"
        "x = open('/x.bin', 'rb').read()\n"
        "gc.collect(); before = gc.mem_free()\n"
        "model = fieldloop.Model('/rom/digits.flm')\n"
        "gc.collect(); taken = before - gc.mem_free()\n"
        "y = bytearray(model.output_bytes * 5)\n"
        "m = memoryview(y)\n"
        "for i in range(5):\n"
        "    out = m[i * model.output_bytes:(i + 1) * model.output_bytes]\n"
        "    model.predict(x[i * 64:(i + 1) * 64], out)\n"
    )
    got = np.frombuffer(bytes(board.eval("bytes(y)")), np.int8)
    np.testing.assert_array_equal(got, Model(image).predict_int8(x).reshape(-1))
    # the arena and a small object, but no copy of the image
    arena = board.eval("model.arena_bytes")
    assert arena <= board.eval("taken") < arena + 1024 < len(image)


def test_an_image_that_is_not_aligned_is_refused_with_the_way_out(
    board: Any, tmp_path: Path
) -> None:
    romfs = write_romfs({"digits.flm": b"\x00" + digits_image()})
    path = tmp_path / "models.romfs"
    path.write_bytes(romfs)
    deploy(board, path)
    said = board.exec(
        "import _fieldloop\n"
        "try:\n"
        "    _fieldloop.Model(memoryview(open('/rom/digits.flm', 'rb'))[1:])\n"
        "except ValueError as e:\n"
        "    print(e)\n"
    )
    assert "16" in said and "--romfs" in said
