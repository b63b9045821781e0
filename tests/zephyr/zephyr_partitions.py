"""Devicetree sources as far as they matter to us: the partitions of a flash, by name and place.

A small reader of its own, so that a machine without Zephyr (and without dtc) looks too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Where the repository has overlays.
ROOT_FOLDERS = ("zephyr_app", "tests/zephyr")

_INCLUDE = re.compile(r'^\s*#include\s+"([^"]+)"', re.M)
_NODE = re.compile(
    r"(?:(?P<name>\w+)\s*:\s*)?partition@(?P<unit>[0-9a-fA-F]+)\s*\{(?P<body>[^{}]*)\}"
)
_SIZE_MACRO = re.compile(r"DT_SIZE_([KM])\((\w+)\)")


@dataclass(frozen=True, slots=True)
class Partition:
    """One of a flash's, its name without the ending `_partition`."""

    name: str
    unit: int  # what stands behind the @
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


def text_of(path: Path) -> str:
    """The source with our own files included and without comments."""
    text = _INCLUDE.sub(lambda found: text_of(path.parent / found[1]), path.read_text())
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)


def number(text: str) -> int:
    """A cell: a number, or one of Zephyr's two macros for sizes."""
    found = _SIZE_MACRO.fullmatch(text)
    if found:
        return int(found[2], 0) * {"K": 1 << 10, "M": 1 << 20}[found[1]]
    return int(text, 0)


def cells(text: str, key: str) -> list[int] | None:
    """The first `key = <...>` of a text."""
    found = re.search(rf"(?<![\w-]){key}\s*=\s*<([^>]*)>", text)
    return [number(word) for word in found[1].split()] if found else None


def blocks(text: str) -> Iterator[str]:
    """What lies between the braces of each node `partitions`."""
    for found in re.finditer(r"\bpartitions\s*\{", text):
        depth, at = 1, found.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        yield text[found.end() : at - 1]


def partitions(block: str) -> list[Partition]:
    """Those of one node `partitions`, in the order of the file."""
    found = []
    for node in _NODE.finditer(block):
        reg = cells(node["body"], "reg")
        assert reg and len(reg) == 2, f"partition@{node['unit']}: reg = <start size>"
        name = (node["name"] or "").removesuffix("_partition")
        found.append(Partition(name, int(node["unit"], 16), *reg))
    return found
