"""Hostile bytes against the C codec under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fieldloop import paths
from fieldloop.runtime.core import compiler

HERE = Path(__file__).resolve().parent
FLAGS = [
    "-std=c99",
    "-O1",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wdouble-promotion",
    "-Wfloat-conversion",
    "-fsanitize=address,undefined,alignment",
    "-fno-sanitize-recover=all",
]


def test_fuzz_the_codec(tmp_path: Path) -> None:
    """Each round: two deframed streams, two messages, two CBOR inputs, one session."""
    core = paths.core_dir()
    sources = [*core.glob("link/*.c"), *core.glob("base/*.c")]
    program = tmp_path / "fuzz_link"
    command = [compiler(), *FLAGS, f"-I{core / 'include'}", str(HERE / "fuzz_link.c")]
    built = subprocess.run(
        [*command, *map(str, sources), "-o", str(program)], capture_output=True, text=True
    )
    if built.returncode != 0 and "libasan" in built.stderr:
        pytest.skip("this compiler has no address sanitizer")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program, "60000", "1"], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "ok 60000\n"), done.stderr[-3000:]
