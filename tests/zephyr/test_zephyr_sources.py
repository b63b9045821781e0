"""The module builds every source of the core, and each of its switches brings what it needs."""

from __future__ import annotations

import collections
import itertools
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from zephyr_cmake import CORE, GLUE, LIST, ROOMS, Built, evaluate, listed
from zephyr_kconfig import load, own, switches

from fieldloop.runtime import core as host

needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")

# Which switch brings a room.
SWITCH_OF = {
    "base": "FIELDLOOP",
    "core": "FIELDLOOP",
    "kernels": "FIELDLOOP",
    "learn": "FIELDLOOP_LEARNING",
    "store": "FIELDLOOP_STORE",
    "link": "FIELDLOOP_LINK",
    "server": "FIELDLOOP_SERVER",
}
# What a C compiler and a C library bring.
LIBC = re.compile(r"mem(cpy|set|cmp|move)|str\w+|v?snprintf|__.*|_GLOBAL_OFFSET_TABLE_")


def sources_of(room: str) -> set[Path]:
    return set((CORE / room).glob("*.c"))


@pytest.mark.parametrize("room", ROOMS)
def test_every_source_of_the_core_is_listed_once(room: str) -> None:
    named = collections.Counter(path for path in listed() if path.parent.name == room)
    there = sources_of(room)
    assert there, room
    assert not there - set(named), f"not in {LIST}: the firmware would not link"
    assert not set(named) - there, "listed, but there is no such file"
    assert {path.name: count for path, count in named.items() if count > 1} == {}


def test_the_rooms_are_the_hosts() -> None:
    """A new room of the core has to be thought of here too."""
    assert set(ROOMS) == set(host.SOURCE_FOLDERS) == set(SWITCH_OF)


def test_every_source_of_the_glue_is_listed_once() -> None:
    named = collections.Counter(path for path in listed() if path.parent == GLUE)
    assert set(named) == set(GLUE.glob("*.c"))
    assert max(named.values()) == 1


@pytest.fixture(scope="module")
def combinations(tmp_path_factory: pytest.TempPathFactory) -> dict[frozenset[str], Built]:
    """Every set of switches that Kconfig lets a user have -> what CMake builds of it."""
    folder = tmp_path_factory.mktemp("kconfig")
    kconf = load(folder, app=False)
    free = switches(kconf)
    found: dict[frozenset[str], Built] = {}
    for wish in itertools.product((0, 2), repeat=len(free)):
        for sym, value in zip(free, wish, strict=True):
            sym.set_value(value)
        on = frozenset(sym.name for sym in free if sym.tri_value)
        if on not in found:
            values = {
                f"CONFIG_{sym.name}": sym.str_value for sym in own(kconf) if sym.str_value != "n"
            }
            found[on] = evaluate(folder, values)
    return found


@needs_cmake
def test_a_switch_brings_its_room_and_no_other(
    combinations: dict[frozenset[str], Built],
) -> None:
    assert len(combinations) > 15
    assert combinations[frozenset()] == Built()
    for on, built in combinations.items():
        wanted = {path for room in ROOMS if SWITCH_OF[room] in on for path in sources_of(room)}
        got = [path for path in built.sources if path.parent != GLUE]
        assert len(got) == len(set(got))
        assert set(got) == wanted, sorted(on)
        for path in built.sources:
            assert path.is_file(), path


@needs_cmake
def test_every_source_of_the_glue_is_built_by_some_switch(
    combinations: dict[frozenset[str], Built],
) -> None:
    every = max(combinations, key=len)
    glue = {path for path in combinations[every].sources if path.parent == GLUE}
    assert glue == set(GLUE.glob("*.c"))
    for on, built in combinations.items():
        if "FIELDLOOP_SERVER_THREAD" not in on:
            names = {path.name for path in built.sources if path.parent == GLUE}
            assert names <= {"flash_area.c"}, sorted(on)


@needs_cmake
def test_floats_and_hot_code_are_compiled_as_everywhere(
    combinations: dict[frozenset[str], Built],
) -> None:
    every = combinations[max(combinations, key=len)]
    assert {"-ffp-contract=off", "-fno-math-errno"} <= set(every.options)
    for path in sources_of("kernels") | sources_of("learn"):
        assert every.own_options.get(path, [])[-1:] == ["-O2"], path.name
    assert CORE / "include" in every.includes
    assert CORE in every.includes


@needs_cmake
def test_helium_floats_stay_off_but_where_they_round_alike(tmp_path: Path) -> None:
    """As boards/mps2/an547.mk; the CPU's name is the one that Zephyr found."""
    settings = {"CONFIG_ARMV8_1_M_MVEF": "y", "CONFIG_FPU": "y", "GCC_M_CPU": "cortex-m55"}
    for name in ("FIELDLOOP", "FIELDLOOP_LEARNING"):
        settings[f"CONFIG_{name}"] = "y"
    built = evaluate(tmp_path, settings)
    for path in built.sources:
        options = built.own_options[path]
        assert "-mcpu=cortex-m55+nomve.fp" in options, path.name
        assert "-DFL_MVE_F32=1" in options, path.name


@pytest.fixture(scope="module")
def symbols(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, tuple[set[str], set[str]]]:
    """Source of the core -> the names that its object defines, and those that it wants."""
    folder = tmp_path_factory.mktemp("objects")
    flags = ["-std=c99", "-O1", "-w", f"-I{CORE / 'include'}", f"-I{CORE}"]

    def names(path: Path) -> tuple[set[str], set[str]]:
        made = folder / f"{path.parent.name}_{path.stem}.o"
        subprocess.run(["cc", *flags, "-c", str(path), "-o", str(made)], check=True)
        done = subprocess.run(
            ["nm", "-P", "-g", str(made)], check=True, capture_output=True, text=True
        )
        pairs = [line.split()[:2] for line in done.stdout.splitlines()]
        wanted = {name for name, kind in pairs if kind == "U"}
        return {name for name, kind in pairs if kind != "U"}, wanted

    paths = [path for room in ROOMS for path in sorted(sources_of(room))]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(paths, pool.map(names, paths), strict=True))


@needs_cmake
def test_every_combination_links(
    combinations: dict[frozenset[str], Built],
    symbols: dict[Path, tuple[set[str], set[str]]],
) -> None:
    """By the names that the host's objects define and want: no switch wants a room that is off."""
    for on, built in combinations.items():
        parts = [symbols[path] for path in built.sources if path.parent != GLUE]
        defined = set().union(*(part[0] for part in parts)) if parts else set()
        wanted = set().union(*(part[1] for part in parts)) if parts else set()
        lacking = {name for name in wanted - defined if not LIBC.fullmatch(name)}
        assert not lacking, f"{sorted(on)} lacks {sorted(lacking)}"
