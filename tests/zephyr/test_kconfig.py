"""The module's and the application's Kconfig, through kconfiglib: no Zephyr is needed."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

import kconfiglib
import pytest
from zephyr_cmake import ROOMS
from zephyr_kconfig import (
    MADE,
    MODULE,
    PREFIX,
    ROOT,
    ZEPHYR_SYMBOLS,
    assignments,
    conf_files,
    has_prompt,
    load,
    named,
    nodes,
    own,
    switches,
)

from fieldloop.targets import zephyr_workspace

# What each switch stands on; all stand on FIELDLOOP. Written down a second time on purpose.
NEEDS: dict[str, set[str]] = {
    "FIELDLOOP": set(),
    "FIELDLOOP_LEARNING": set(),
    "FIELDLOOP_STORE": set(),
    "FIELDLOOP_FLASH_AREA": {"FIELDLOOP_STORE"},
    "FIELDLOOP_LINK": set(),
    "FIELDLOOP_SERVER": {"FIELDLOOP_LEARNING", "FIELDLOOP_STORE", "FIELDLOOP_LINK"},
    "FIELDLOOP_SERVER_THREAD": {"FIELDLOOP_SERVER", "FIELDLOOP_FLASH_AREA"},
    "FIELDLOOP_MCUMGR": {"FIELDLOOP_SERVER_THREAD"},
    "FIELDLOOP_SMP_UART": {"FIELDLOOP_MCUMGR"},
    "FIELDLOOP_SHELL": {"FIELDLOOP_SERVER_THREAD"},
}
# And what it wants of Zephyr.
ZEPHYR_NEEDS: dict[str, set[str]] = {
    "FIELDLOOP_FLASH_AREA": {"FLASH", "FLASH_MAP", "FLASH_PAGE_LAYOUT"},
    "FIELDLOOP_MCUMGR": {"MCUMGR"},
    "FIELDLOOP_SMP_UART": {"SERIAL"},
    "FIELDLOOP_SHELL": {"SHELL"},
}
# What of Zephyr is turned on by which of ours.
SELECTED = {
    "MCUMGR_MGMT_CUSTOM_PAYLOAD": "FIELDLOOP_MCUMGR",
    "RING_BUFFER": "FIELDLOOP_SMP_UART",
}


@pytest.fixture
def kconf(tmp_path: Path) -> kconfiglib.Kconfig:
    return load(tmp_path)


def module_switches(kconf: kconfiglib.Kconfig) -> list[kconfiglib.Symbol]:
    return [sym for sym in switches(kconf) if str(MODULE) in {n.filename for n in sym.nodes}]


def test_every_switch_of_the_module_is_known_here(kconf: kconfiglib.Kconfig) -> None:
    assert {sym.name for sym in module_switches(kconf)} == set(NEEDS)


def test_nothing_is_on_by_default(kconf: kconfiglib.Kconfig) -> None:
    """With all that Zephyr has. A log level is no switch."""
    for sym in own(kconf):
        if sym.type == kconfiglib.BOOL:
            assert sym.str_value == "n", f"{sym.name} is on by itself"


def test_every_symbol_has_our_prefix_and_a_help_text(kconf: kconfiglib.Kconfig) -> None:
    for name in re.findall(r"^(?:menu)?config\s+(\w+)", MODULE.read_text(), re.M):
        # The application may change the defaults of Zephyr's, a module may not.
        assert re.match(PREFIX + "(_|$)", name), name
    for sym in module_switches(kconf):
        assert any(node.help for node in sym.nodes), f"{sym.name} has no help text"


def test_the_symbols_of_zephyr_are_those_we_know(kconf: kconfiglib.Kconfig) -> None:
    assert not kconf.warnings, kconf.warnings
    ours = {sym.name for sym in own(kconf)}
    names: set[str] = set()
    for node in nodes(kconf):
        names.add(node.item.name)
        conditions = [node.dep, *(c for pair in node.defaults for c in pair)]
        conditions += [c for pair in node.selects + node.implies for c in pair]
        conditions += [c for triple in node.ranges for c in triple]
        for expression in conditions:
            names |= {item.name for item in named(expression)}
    names = {name for name in names if not re.fullmatch(r"-?\d+|0x[0-9a-fA-F]+|[ynm]", name)}
    assert names - ours <= set(ZEPHYR_SYMBOLS), "a symbol of Zephyr that ZEPHYR_SYMBOLS lacks"
    assert set(ZEPHYR_SYMBOLS) - MADE <= names, "ZEPHYR_SYMBOLS has one that is not used"


def closed(wish: frozenset[str]) -> set[str]:
    """What of a wish can be had: each switch with all that it stands on."""
    able = {name for name in wish if name == "FIELDLOOP" or "FIELDLOOP" in wish}
    while True:
        left = {name for name in able if NEEDS[name] <= able}
        if left == able:
            return able
        able = left


def test_dependencies_hold_in_every_combination(kconf: kconfiglib.Kconfig) -> None:
    names = list(NEEDS)
    for wishes in itertools.product((0, 2), repeat=len(names)):
        for name, value in zip(names, wishes, strict=True):
            kconf.syms[name].set_value(value)
        wish = frozenset(name for name, value in zip(names, wishes, strict=True) if value)
        got = {name for name in names if kconf.syms[name].tri_value}
        assert got == closed(wish)
        for name, user in SELECTED.items():
            assert bool(kconf.syms[name].tri_value) == (user in got), f"{name} with {sorted(got)}"


@pytest.mark.parametrize("name", sorted(set().union(*ZEPHYR_NEEDS.values())))
def test_what_zephyr_lacks_is_not_asked_for(tmp_path: Path, name: str) -> None:
    kconf = load(tmp_path, off=frozenset({name}))
    for sym in NEEDS:
        kconf.syms[sym].set_value(2)
    able = set(NEEDS) - {sym for sym, wants in ZEPHYR_NEEDS.items() if name in wants}
    able = closed(frozenset(able))
    assert {sym for sym in NEEDS if kconf.syms[sym].tri_value} == able


def test_the_flash_map_comes_with_the_store(kconf: kconfiglib.Kconfig) -> None:
    for name in ("FIELDLOOP", "FIELDLOOP_STORE"):
        kconf.syms[name].set_value(2)
    assert kconf.syms["FIELDLOOP_FLASH_AREA"].str_value == "y"
    assert kconf.syms["FIELDLOOP_PROG_BYTES"].str_value == "8"  # as the host's and MicroPython's


def test_the_thread_starves_nobody(kconf: kconfiglib.Kconfig) -> None:
    for name in NEEDS:
        kconf.syms[name].set_value(2)
    lowest = int(kconf.syms["NUM_PREEMPT_PRIORITIES"].str_value) - 1
    assert int(kconf.syms["FIELDLOOP_THREAD_PRIORITY"].str_value) == lowest
    assert int(kconf.syms["FIELDLOOP_SMP_UART_PRIORITY"].str_value) < lowest


# ---- who names our symbols


@pytest.mark.parametrize("path", conf_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_fragment_names_symbols_that_exist(path: Path, kconf: kconfiglib.Kconfig) -> None:
    known = {sym.name for sym in own(kconf)}
    for name, value in assignments(path.read_text()).items():
        if not name.startswith(PREFIX):
            continue
        assert name in known, f"{path.relative_to(ROOT)} sets CONFIG_{name}, which no Kconfig has"
        sym = kconf.syms[name]
        text = value.strip('"') if sym.type == kconfiglib.STRING else value
        assert sym.set_value(text), f"{path.relative_to(ROOT)}: CONFIG_{name}={value}"
        assert has_prompt(sym), f"{path.relative_to(ROOT)}: CONFIG_{name} cannot be set"


def test_the_application_gets_what_it_asks_for(kconf: kconfiglib.Kconfig) -> None:
    asked = {
        name: value
        for name, value in assignments((ROOT / "zephyr_app" / "prj.conf").read_text()).items()
        if name.startswith(PREFIX)
    }
    for name, value in asked.items():
        kconf.syms[name].set_value(value.strip('"'))
    for name, value in asked.items():
        assert kconf.syms[name].str_value == value.strip('"'), f"{name} depends on what is off"
    assert {"FIELDLOOP", "FIELDLOOP_LEARNING", "FIELDLOOP_MCUMGR"} <= set(asked)


def text_files() -> list[Path]:
    folders = (MODULE.parent, ROOT / "zephyr_app", ROOT / "zephyr")
    ends = {".c", ".h", ".txt", ".cmake", ".overlay", ".conf", ".yaml", ".yml", ".md"}
    files = [p for folder in folders for p in folder.rglob("*") if p.suffix in ends]
    return sorted([*files, ROOT / "docs" / "getting-started" / "zephyr.md"])


def test_every_symbol_named_exists_and_every_symbol_is_used(kconf: kconfiglib.Kconfig) -> None:
    known = {sym.name for sym in own(kconf)}
    used: dict[str, Path] = {}
    for path in text_files():
        for name in re.findall(r"\bCONFIG_(FIELDLOOP\w*)", path.read_text()):
            used.setdefault(name, path)
    for name, path in used.items():
        stem = re.sub(r"_$", "", name)
        assert stem in known, (
            f"{path.relative_to(ROOT)} names CONFIG_{name}, which is in no Kconfig"
        )
    code = {
        name
        for path in text_files()
        if path.suffix in {".c", ".h", ".txt", ".cmake"}
        for name in re.findall(r"\bCONFIG_(FIELDLOOP\w*)", path.read_text())
    }
    # CMake names the rooms' switches by way of a variable; test_zephyr_sources.py evaluates it.
    rooms = {f"FIELDLOOP_{room.upper()}" for room in ROOMS}
    for sym in own(kconf):
        if "_LOG_LEVEL" not in sym.name and sym.name not in rooms:
            assert sym.name in code, f"{sym.name} changes nothing: no code and no CMake names it"


@pytest.mark.zephyr
def test_zephyr_has_the_symbols_that_we_name(workspace: zephyr_workspace.Workspace) -> None:
    names = set(ZEPHYR_SYMBOLS) - MADE
    pattern = r"^\s*(menu)?config (" + "|".join(sorted(names)) + r")$"
    done = subprocess.run(
        ["grep", "-rhoE", "--include=Kconfig*", pattern, str(workspace.base)],
        capture_output=True,
        text=True,
    )
    assert {line.split()[-1] for line in done.stdout.splitlines()} == names
