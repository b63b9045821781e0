"""House rules a machine can hold: one-way dependencies, no torch at import, no registry named."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOST = ROOT / "host" / "fieldloop"
CORE = ROOT / "cmodules" / "fieldloop"

BASE = {"errors", "paths"}  # anybody may use these two
BELOW_API = {
    "ir",
    "frontends",
    "quantize",
    "plan",
    "image",
    "compile_report",
    "compiler",
    "runtime",
    "link",
    "targets",
    "zoo",
    "train",
    "demo",
    "sources",
    "compare",
    "bench",
    "study",
}
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "paths": set(),
    "ir": set(),
    "frontends": {"ir", "quantize"},
    "quantize": {"ir"},
    "plan": {"ir"},
    "image": {"ir", "plan"},
    "compile_report": {"ir", "plan", "image"},
    "compiler": {"ir", "frontends", "quantize", "plan", "image", "compile_report"},
    "runtime": {"image"},
    "link": set(),
    "targets": {"link", "image"},  # a ROMFS is how a file gets onto a board without a file system
    "zoo": {"ir", "frontends", "quantize", "plan", "image", "compiler", "runtime"},
    "train": {"ir", "frontends", "quantize", "plan", "image", "compiler", "runtime", "zoo"},
    "study": {"ir", "frontends", "quantize", "plan", "compiler", "runtime", "zoo", "train"},
    "sources": {"ir", "frontends", "quantize", "compiler"},
    "compare": {
        "ir",
        "frontends",
        "plan",
        "image",
        "compiler",
        "runtime",
        "link",
        "targets",
        "sources",
        "quantize",
    },
    "bench": BELOW_API - {"demo", "bench"},
    "demo": BELOW_API - {"demo"},
    "api": BELOW_API,
    "cli": BELOW_API | {"api"},
}
TORCH_ROOMS = {"frontends", "train", "zoo", "compare", "study"}


def room_of(path: Path) -> str:
    return path.relative_to(HOST).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def host_files() -> list[Path]:
    return sorted(path for path in HOST.rglob("*.py") if "_data" not in path.parts)


@pytest.mark.parametrize("path", host_files(), ids=lambda p: str(p.relative_to(HOST)))
def test_host_dependencies_point_one_way(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return  # the front door names api lazily
    assert room in ARROWS, (
        f"{room} is not a room of the house: add it to ARROWS and docs/DESIGN.md"
    )
    used = set()
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] == "fieldloop" and len(parts) > 1 and parts[1] != "__version__":
            used.add(parts[1])
    assert used - BASE - {room} <= ARROWS[room]


@pytest.mark.parametrize("path", host_files(), ids=lambda p: str(p.relative_to(HOST)))
def test_torch_stays_in_its_rooms(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported_modules(path)}
    assert "torch" not in roots or room_of(path) in TORCH_ROOMS


def test_import_fieldloop_loads_neither_torch_nor_the_core() -> None:
    code = (
        "import sys, fieldloop, fieldloop.runtime, fieldloop.image, fieldloop.cli.main\n"
        "print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(HOST.parent), "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout.split() == ["False", "False"], done.stderr


# Folder of the C core -> the folders whose private headers it may include.
C_ARROWS = {
    "base": {"base"},
    "kernels": {"base", "kernels"},
    "core": {"base", "kernels", "core"},
    "learn": {"base", "kernels", "core", "learn"},
    "store": {"base", "store"},
    "link": {"base", "link"},
    "server": {"base", "kernels", "core", "learn", "store", "link", "server"},
}
# Public header -> the folder that implements it.
C_HEADER_HOME = {
    "fl_error": "base",
    "fl_crc": "base",
    "fl_sha256": "base",
    "fl_random": "base",
    "fl_kernels": "kernels",
    "fl_kernels_f32": "kernels",
    "fl_kernels_sum": "kernels",
    "fl_image": "kernels",  # the data types that kernels read; implemented by core
    "fl_model": "core",
    "fl_quantize": "core",
    "fl_backward": "learn",
    "fl_backward_q": "learn",
    "fl_select": "learn",
    "fl_learn": "learn",
    "fl_flash": "store",
    "fl_store": "store",
    "fl_slot": "store",
    "fl_cbor": "link",
    "fl_link": "link",
    "fl_server": "server",
}


@pytest.mark.parametrize("folder", sorted(C_ARROWS))
def test_c_dependencies_point_one_way(folder: str) -> None:
    files = sorted([*(CORE / folder).glob("*.c"), *(CORE / folder).glob("*.h")])
    assert files, f"cmodules/fieldloop/{folder} is empty"
    for path in files:
        for name in re.findall(r'^#include "([^"]+)"', path.read_text(), re.M):
            if name.startswith("fieldloop/"):
                stem = Path(name).stem
                home = C_HEADER_HOME.get(stem)
                assert home is not None, f"{name}: add its home to C_HEADER_HOME"
            else:
                home = name.split("/")[0] if "/" in name else folder
            assert home in C_ARROWS[folder], f"{path.name} includes {name}"


def test_the_core_knows_no_home() -> None:
    for folder in C_ARROWS:
        for path in (CORE / folder).iterdir():
            text = path.read_text()
            assert not re.search(
                r"MICROPY|__ZEPHYR__|CONFIG_FIELDLOOP|py/runtime\.h|#include <zephyr", text
            ), f"{path} knows a home"


def tracked_files() -> list[Path]:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name]


def test_no_registry_is_named_and_no_path_of_one_machine() -> None:
    hosts = ("pypi" + ".org", "pythonhosted" + ".org", "deb.debian" + ".org", "npmjs" + ".org")
    places = ("/work" + "/main", "/work" + "/shared")
    for path in tracked_files():
        if path.suffix in {".png", ".flm", ".npz"} or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        for word in (*hosts, *places):
            assert word not in text, f"{path.relative_to(ROOT)} names {word}"


def test_no_file_is_longer_than_a_sitting() -> None:
    for path in tracked_files():
        if path.suffix in {".py", ".c", ".h"} and path.is_file():
            lines = len(path.read_text().splitlines())
            assert lines <= 700, f"{path.relative_to(ROOT)} has {lines} lines, 700 at most"
