"""The roster of targets: what boards/roster.toml says, checked, as data.

A target is named once there; `--board` and `--fieldloop-board` take exactly these names.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from fieldloop import paths
from fieldloop.errors import FieldloopError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SECTOR_SIZE = 4096
SERIAL_PREFIX = "serial:"

Kind = Literal["unix", "qemu", "zephyr", "zephyr-mpy", "serial"]
SIMULATED: tuple[Kind, ...] = ("qemu", "unix", "zephyr")  # those that serve the link by themselves


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of the simulated flash; `offset` in bytes from the start of the flash file."""

    name: str
    offset: int
    size: int
    prog_size: int
    sector_size: int = SECTOR_SIZE


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """What a firmware may use; all in bytes. `name` is full or realistic."""

    name: str
    rom: int
    ram: int
    stack: int
    partitions: tuple[Partition, ...]
    ram_address: int = 0x2000_0000

    @property
    def flash(self) -> int:
        """Bytes of all partitions; the firmware's ROM is not among them."""
        return sum(partition.size for partition in self.partitions)

    def partition(self, name: str) -> Partition:
        """The partition of that name, or UsageError with the names there are."""
        for partition in self.partitions:
            if partition.name == name:
                return partition
        names = ", ".join(partition.name for partition in self.partitions)
        raise UsageError(f"no partition {name!r}: expected one of {names}")


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """One entry of the roster. Only `name`, `kind` and `title` are set for unix and serial.

    A Zephyr target has no map here: its devicetree has. Without a `machine` it is a program of
    this machine, without PSRAM it remembers nothing.
    """

    name: str
    kind: Kind
    title: str
    machine: str = ""
    cpu: str = ""
    float_abi: str = ""
    board: str = ""
    psram_address: int = 0
    psram_size: int = 0
    # Of the host's file: psram_size, and a hole behind it where needed; native_sim's whole flash.
    flash_file_size: int = 0
    maps: tuple[MemoryMap, ...] = ()
    default_map: str = ""
    port: str = ""  # of a serial target

    @property
    def remembers(self) -> bool:
        """True when it is simulated and what it stores outlives its process."""
        return self.kind in SIMULATED and bool(self.psram_size or not self.machine)

    def memory(self, name: str | None = None) -> MemoryMap:
        """The memory map of that name; the default one without a name."""
        for memory in self.maps:
            if memory.name == (name or self.default_map):
                return memory
        names = ", ".join(memory.name for memory in self.maps) or "none"
        raise UsageError(f"{self.name} has no memory map {name!r}: expected one of {names}")


@functools.cache
def load(path: Path | None = None) -> dict[str, TargetSpec]:
    """All targets by name, in the roster's order."""
    path = path or paths.boards_dir() / "roster.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return {
            name: _target(name, entry, content["maps"])
            for name, entry in content["targets"].items()
        }
    except OSError as error:
        raise FieldloopError(f"cannot read the roster {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise FieldloopError(f"the roster {path} is malformed: {error!r}") from error


def names(kind: Kind | None = None) -> tuple[str, ...]:
    """The names of all targets, or of those of one kind."""
    return tuple(name for name, spec in load().items() if kind in (None, spec.kind))


def lookup(name: str) -> TargetSpec:
    """The target of that name; `serial:/dev/ttyACM0` gives a serial target with its port.

    Raises UsageError with the names there are.
    """
    targets = load()
    if name.startswith(SERIAL_PREFIX) and name not in targets:
        port = name.removeprefix(SERIAL_PREFIX)
        if port:
            return TargetSpec(name=name, kind="serial", title=f"a board at {port}", port=port)
    elif name in targets and targets[name].kind != "serial":
        return targets[name]
    raise UsageError(f"no target {name!r}: expected one of {', '.join(targets)}")


def _target(name: str, entry: dict[str, Any], maps: dict[str, Any]) -> TargetSpec:
    fields = {key: value for key, value in entry.items() if key != "maps"}
    if entry["kind"] not in get_args(Kind):
        raise ValueError(f"{name}: unknown kind {entry['kind']!r}")
    spec = TargetSpec(
        name=name,
        maps=tuple(_memory(key, maps[value]) for key, value in entry.get("maps", {}).items()),
        **{"flash_file_size": entry.get("psram_size", 0)} | fields,
    )
    for memory in spec.maps:
        # Header and bitmap lie behind the partitions, see boards/mps2/simflash.h.
        if memory.flash + 64 + memory.flash // 8 > spec.psram_size:
            raise ValueError(f"{name}: map {memory.name} is larger than the PSRAM")
    return spec


def _memory(name: str, entry: dict[str, Any]) -> MemoryMap:
    partitions: list[Partition] = []
    offset = 0
    for item in entry["partitions"]:
        unit = item["prog_size"]
        if item["size"] <= 0 or item["size"] % SECTOR_SIZE or unit not in (1, 2, 4, 8, 16, 32):
            raise ValueError(f"partition {item['name']}: bad size or prog_size")
        partitions.append(Partition(item["name"], offset, item["size"], unit))
        offset += item["size"]
    sizes = {key: entry[key] for key in ("rom", "ram", "stack")}
    place = {key: entry[key] for key in ("ram_address",) if key in entry}
    return MemoryMap(name, partitions=tuple(partitions), **sizes, **place)
