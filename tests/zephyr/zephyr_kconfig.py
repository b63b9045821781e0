"""Our Kconfig files without Zephyr: kconfiglib reads them beside stand-ins of Zephyr's symbols."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import kconfiglib
import pytest

from fieldloop.targets import roster

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "cmodules" / "fieldloop" / "zephyr" / "Kconfig"
APP = ROOT / "zephyr_app" / "Kconfig"
PREFIX = "FIELDLOOP"

# The symbols of Zephyr that ours name, and their types. test_kconfig.py holds this list against
# what is named, and against Zephyr itself where there is a workspace.
ZEPHYR_SYMBOLS = {
    "64BIT": "bool",
    "ARCH_POSIX": "bool",
    "FLASH": "bool",
    "FLASH_MAP": "bool",
    "FLASH_PAGE_LAYOUT": "bool",
    "MCUMGR": "bool",
    "MCUMGR_MGMT_CUSTOM_PAYLOAD": "bool",
    "NUM_PREEMPT_PRIORITIES": "int",
    "PICOLIBC": "bool",
    "RING_BUFFER": "bool",
    "SENSOR": "bool",
    "SERIAL": "bool",
    "SHELL": "bool",
    "SMP_CLIENT": "bool",
    "THREAD_LOCAL_STORAGE": "bool",
}
# Zephyr makes one for each board and each of its qualifiers, and for each devicetree binding.
MADE = {"DT_HAS_FIELDLOOP_EMUL_ACCEL_ENABLED"} | {
    "BOARD_" + re.sub(r"\W", "_", spec.board.upper())
    for spec in roster.load().values()
    if spec.kind == "zephyr"
}
ZEPHYR_SYMBOLS |= dict.fromkeys(MADE, "bool")
# Off unless said otherwise: what ours must not be built with, or select.
OFF = MADE | {
    "64BIT",
    "ARCH_POSIX",
    "PICOLIBC",
    "THREAD_LOCAL_STORAGE",
    "SMP_CLIENT",
    "MCUMGR_MGMT_CUSTOM_PAYLOAD",
    "RING_BUFFER",
}


def load(
    folder: Path, *, app: bool = True, off: frozenset[str] = frozenset()
) -> kconfiglib.Kconfig:
    """The module's symbols, and the application's; Zephyr's are on, but for those in `off`."""
    log_template = folder / "subsys" / "logging" / "Kconfig.template.log_config"
    log_template.parent.mkdir(parents=True, exist_ok=True)
    log_template.write_text('config $(module)_LOG_LEVEL\n\tint "$(module-str)"\n\tdefault 3\n')
    (folder / "Kconfig.zephyr").write_text("")
    lines = ['mainmenu "Zephyr, as far as fieldloop looks"']
    for name, kind in ZEPHYR_SYMBOLS.items():
        default = "15" if kind == "int" else "n" if name in OFF | off else "y"
        lines.append(f'config {name}\n\t{kind} "{name}"\n\tdefault {default}')
    lines.append(f'source "{MODULE}"')
    if app:
        lines.append(f'source "{APP}"')
    (folder / "Kconfig").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("srctree", str(folder))
        return kconfiglib.Kconfig("Kconfig", warn_to_stderr=False)


def own(kconf: kconfiglib.Kconfig) -> list[kconfiglib.Symbol]:
    """Our symbols, in the order of the files."""
    return [sym for sym in kconf.unique_defined_syms if sym.name.startswith(PREFIX)]


def nodes(kconf: kconfiglib.Kconfig) -> Iterator[kconfiglib.MenuNode]:
    """Everything that our files say, about Zephyr's symbols too."""
    for node in kconf.node_iter():
        if node.filename.startswith(str(ROOT)) and isinstance(node.item, kconfiglib.Symbol):
            yield node


def switches(kconf: kconfiglib.Kconfig) -> list[kconfiglib.Symbol]:
    """Those of them that a user turns on and off."""
    return [sym for sym in own(kconf) if sym.type == kconfiglib.BOOL and has_prompt(sym)]


def has_prompt(sym: kconfiglib.Symbol) -> bool:
    return any(node.prompt for node in sym.nodes)


def named(expression: object) -> Iterator[kconfiglib.Symbol]:
    """The symbols that an expression names, constants left out."""
    for item in kconfiglib.expr_items(expression):
        if isinstance(item, kconfiglib.Symbol) and not item.is_constant:
            yield item


def conf_files() -> list[Path]:
    """Every fragment of a configuration that the repository has."""
    return sorted(
        path
        for folder in (ROOT / "zephyr_app", ROOT / "tests" / "zephyr")
        for path in folder.rglob("*.conf")
    )


def assignments(text: str) -> dict[str, str]:
    """CONFIG_X=... of a fragment, without the prefix."""
    return dict(re.findall(r"^CONFIG_(\w+)=(.*?)\s*$", text, re.M))
