"""Hostile conversations with the C server under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fieldloop import paths
from fieldloop.image.writer import RehearsalSet, Trainable
from fieldloop.ir.op import OpKind
from fieldloop.runtime.core import compiler, sources

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "learn"))
from nets import LINEAR, NetBuilder, finish

HERE = Path(__file__).resolve().parent
STORE = HERE.parent / "store"
FLAGS = [
    "-std=c99",
    "-O1",
    "-g",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wdouble-promotion",
    "-fsanitize=address,undefined,alignment",
    "-fno-sanitize-recover=all",
]
MESSAGES = 100_000


def small_image() -> bytes:
    """16 values to 4 classes through 12, both layers trainable, 30 samples."""
    rng = np.random.default_rng(1)
    net = NetBuilder(rng, (1, 16))
    net.weighted(OpKind.FULLY_CONNECTED, 12)
    net.weighted(OpKind.FULLY_CONNECTED, 4, clamp=LINEAR, out_scale=0.08)
    graph = net.graph()
    names = [op.name for op in graph.ops]
    carried = rng.integers(-128, 128, (30, 16)).astype(np.int8)
    rehearsal = RehearsalSet(carried, np.arange(30, dtype=np.int64) % 4)
    trainables = [Trainable(names[0], 1e-7), Trainable(names[1], 1e-3)]
    return finish(graph, trainables, rehearsal).image


def build(tmp_path: Path) -> Path:
    core = paths.core_dir()
    program = tmp_path / "fuzz_server"
    files = [HERE / "fuzz_server.c", STORE / "nor.c", *sources()]
    command = [compiler(), *FLAGS, f"-I{core / 'include'}", f"-I{core}", *map(str, files)]
    built = subprocess.run([*command, "-o", str(program)], capture_output=True, text=True)
    if built.returncode != 0 and "libasan" in built.stderr:
        pytest.skip("this compiler has no address sanitizer")
    assert built.returncode == 0, built.stderr
    return program


@pytest.mark.slow
def test_fuzz_the_server(tmp_path: Path) -> None:
    program = build(tmp_path)
    image = tmp_path / "image.flm"
    image.write_bytes(small_image())
    done = subprocess.run(
        [program, image, str(MESSAGES), "1"], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.fullmatch(rf"ok {MESSAGES}, (\d+) commits, (\d+) models\n", done.stdout)
    assert found is not None, done.stdout
    # The conversations are not all refused: models come into use, and learned state is kept.
    assert int(found[1]) > 500 and int(found[2]) > 500, done.stdout
