"""The own application of docs/getting-started/zephyr.md, taken from the page, built and run."""

from __future__ import annotations

import contextlib
import io
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from images import SAMPLE_BYTES, digits_image

from fieldloop.runtime import Model
from fieldloop.targets import zephyr_workspace

PAGE = Path(__file__).resolve().parents[2] / "docs" / "getting-started" / "zephyr.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


def write_application(folder: Path) -> bytes:
    """The three files as they stand on the page, beside a model."""
    for name, language in (("CMakeLists.txt", "cmake"), ("prj.conf", "ini"), ("main.c", "c")):
        (text,) = blocks(language)
        assert f"`{name}`" in PAGE.read_text()
        (folder / name).write_text(text)
    image = digits_image()
    (folder / "model.flm").write_bytes(image)
    return image


def expected(image: bytes) -> str:
    """What the example prints: the scores of a sample of zeros."""
    scores = Model(image).predict_int8(np.zeros((1, SAMPLE_BYTES), np.int8))[0]
    return " ".join(str(int(score)) for score in np.ravel(scores))


def first_line_with(program: list[str], pattern: str, limit_s: float = 30) -> str:
    """Of what a program says that never ends by itself."""
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    said, end = b"", time.monotonic() + limit_s
    try:
        while time.monotonic() < end:
            ready, _, _ = select.select([process.stdout], [], [], 0.5)
            if ready:
                piece = process.stdout.read1(4096)
                if not piece:
                    break
                said += piece
            for line in said.decode(errors="replace").splitlines(keepends=True):
                if line.endswith("\n") and re.fullmatch(pattern, line.strip()):
                    return line.strip()
        raise AssertionError(f"{program[0]} did not say {pattern}: {said!r}")
    finally:
        process.send_signal(signal.SIGKILL)  # native_sim ignores gentler ones while it spins
        process.wait()
        process.stdout.close()


def test_the_page_holds_one_whole_application(tmp_path: Path) -> None:
    """Without a workspace: the main.c compiles against the public headers as far as they go."""
    write_application(tmp_path)
    assert "CONFIG_FIELDLOOP=y" in (tmp_path / "prj.conf").read_text()
    stub = tmp_path / "zephyr" / "sys"
    stub.mkdir(parents=True)
    (stub / "printk.h").write_text(
        "#define __aligned(n) __attribute__((aligned(n)))\n"
        "void printk(const char *, ...) __attribute__((format(printf, 1, 2)));\n"
    )
    (tmp_path / "model.flm.inc").write_text("0x46,")
    include = PAGE.parents[2] / "cmodules" / "fieldloop" / "include"
    command = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{include}", f"-I{tmp_path}"]
    done = subprocess.run(
        [*command, "-c", str(tmp_path / "main.c"), "-o", str(tmp_path / "main.o")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_what_the_page_points_to_is_there() -> None:
    for name in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text()):
        assert (PAGE.parent / name).exists(), name


@pytest.mark.zephyr
def test_the_lines_that_start_micropython(workspace: object) -> None:
    (text,) = blocks("python")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.input", said.write)
        exec(compile(text, str(PAGE), "exec"), {})
    assert re.fullmatch(r"\d+\.\d+\.\d+\r?\n\r?\n?mpremote connect /dev/pts/\d+", said.getvalue())


@pytest.mark.zephyr
def test_it_runs_on_native_sim(tmp_path: Path) -> None:
    image = write_application(tmp_path)
    build = tmp_path / "build"
    program = zephyr_workspace.build(tmp_path, "native_sim/native/64", build)
    assert first_line_with([str(program)], r"(-?\d+ ?){10}") == expected(image)


@pytest.mark.zephyr
def test_it_runs_on_a_simulated_cortex_m4(tmp_path: Path) -> None:
    image = write_application(tmp_path)
    elf = zephyr_workspace.build(tmp_path, "mps2/an386", tmp_path / "build")
    qemu = ["qemu-system-arm", "-machine", "mps2-an386", "-nographic", "-monitor", "none"]
    line = first_line_with([*qemu, "-serial", "stdio", "-kernel", str(elf)], r"(-?\d+ ?){10}")
    assert line == expected(image)
