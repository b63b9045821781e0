"""Build the firmwares: boards/mps2 for a QEMU board, MicroPython's unix port for this machine.

Each configuration has its own folder under the build folder; make decides what is stale, a
change of flags starts afresh. A lock makes processes side by side build once.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fieldloop import paths
from fieldloop.errors import DoesNotFitError, FieldloopError, UsageError
from fieldloop.targets import micropython_source as source
from fieldloop.targets import roster

Progress = Callable[[str], None]

CROSS_COMPILER = "arm-none-eabi-gcc"


@dataclass(frozen=True, slots=True)
class Firmware:
    """A built firmware; sizes in bytes, as `size` counts them."""

    elf: Path
    target: str
    memory: str
    text_bytes: int
    data_bytes: int
    bss_bytes: int

    @property
    def rom_bytes(self) -> int:
        """What it takes of the ROM: code, constants and initial values."""
        return self.text_bytes + self.data_bytes

    @property
    def ram_bytes(self) -> int:
        """What it takes of the RAM before heap and stack."""
        return self.data_bytes + self.bss_bytes


def missing_tools(kind: roster.Kind) -> list[str]:
    """The programs that building such a firmware here needs and this machine lacks.

    Zephyr's targets are built elsewhere: see zephyr_workspace.missing().
    """
    needed = {"unix": ["make", "gcc"], "qemu": ["make", "gcc", CROSS_COMPILER]}
    return [tool for tool in needed.get(kind, []) if shutil.which(tool) is None]


def build_firmware(
    name: str,
    memory: str | None = None,
    *,
    user_modules: bool = True,
    sanitize: bool = False,
    progress: Progress | None = None,
) -> Firmware:
    """Build the firmware of a target of the roster; quick when nothing changed.

    `memory` is full or realistic, by default the board's own default. Without `user_modules` the
    C module `_fieldloop` is left out. `sanitize` (unix only) builds with AddressSanitizer and
    UBSan. Raises UsageError for a target that is not built, DoesNotFitError for a firmware larger
    than the ROM of the memory map, FieldloopError with the compiler's last words for all else.
    """
    spec = roster.lookup(name)
    missing = missing_tools(spec.kind)
    if missing:
        raise FieldloopError(
            f"cannot build for {name}: {', '.join(missing)} missing; "
            "apt-get install gcc make gcc-arm-none-eabi qemu-system-arm libffi-dev pkg-config"
        )
    if spec.kind == "serial":
        raise UsageError(f"{name} is a real board: its firmware is not built here")
    if spec.kind not in ("unix", "qemu"):
        raise UsageError(f"{name} is Zephyr's: its firmware is built by zephyr_workspace.build")
    if sanitize and spec.kind != "unix":
        raise UsageError(f"sanitize: expected the target unix, got {name}")
    if spec.kind == "unix":
        return _build_unix(name, user_modules, sanitize, progress)
    return _build_qemu(spec, spec.memory(memory), user_modules, progress)


def has_user_module() -> bool:
    """True when the C module's makefile is there."""
    return (paths.core_dir() / "micropython.mk").is_file()


def _build_qemu(
    spec: roster.TargetSpec,
    memory: roster.MemoryMap,
    user_modules: bool,
    progress: Progress | None,
) -> Firmware:
    micropython = source.micropython_dir(progress)
    mpy_cross = source.mpy_cross(progress)
    port = paths.boards_dir() / "mps2"
    with_module = user_modules and has_user_module()
    folder = f"firmware-{spec.board}-{memory.name}" + ("" if with_module else "-bare")
    build = paths.build_dir() / (folder + source.build_tag())
    arguments = [
        f"-C{port}",
        f"MPY_DIR={micropython}",
        f"BOARD={spec.board}",
        f"BUILD={build}",
        f"MICROPY_MPYCROSS={mpy_cross}",
        f"MICROPY_MPYCROSS_DEPENDENCY={mpy_cross}",
        f"MPY_LIB_DIR={source.library_stub()}",
    ]
    if with_module:
        arguments.append(f"USER_C_MODULES={paths.cmodules_dir()}")
    makefiles = [port / "Makefile", port / f"{spec.board}.mk", paths.core_dir() / "micropython.mk"]
    header, fragment = _layout(spec, memory)
    with source.locked(paths.build_dir() / f".{build.name}.lock"):
        _start_afresh_when(build, arguments, makefiles)
        _write_if_changed(build / "fl_layout.h", header)
        _write_if_changed(build / "layout.mk", fragment)
        if progress and not (build / "firmware.elf").exists():
            progress(f"building the firmware for {spec.name} ({memory.name})")
        try:
            source.run_make(arguments, f"the firmware for {spec.name} ({memory.name})")
        except FieldloopError as error:
            raise _overflow(str(error), spec, memory) or error from None
        return _measure(build / "firmware.elf", "arm-none-eabi-size", spec.name, memory.name)


def _build_unix(
    name: str, user_modules: bool, sanitize: bool, progress: Progress | None
) -> Firmware:
    micropython = source.micropython_dir(progress)
    mpy_cross = source.mpy_cross(progress)
    with_module = user_modules and has_user_module()
    folder = "firmware-unix" + ("-sanitize" if sanitize else "") + ("" if with_module else "-bare")
    build = paths.build_dir() / (folder + source.build_tag())
    arguments = [
        f"-C{micropython / 'ports' / 'unix'}",
        "VARIANT=standard",
        f"BUILD={build}",
        f"MICROPY_MPYCROSS={mpy_cross}",
        f"MICROPY_MPYCROSS_DEPENDENCY={mpy_cross}",
        f"MPY_LIB_DIR={source.library_stub()}",
        "MICROPY_PY_SSL=0",
        "MICROPY_SSL_MBEDTLS=0",
        "MICROPY_PY_BTREE=0",
        f"FROZEN_MANIFEST={micropython / 'extmod' / 'asyncio' / 'manifest.py'}",
    ]
    if with_module:
        arguments.append(f"USER_C_MODULES={paths.cmodules_dir()}")
    if sanitize:
        flags = "-fsanitize=address,undefined"
        # MicroPython itself is not clean under -Werror with the sanitizers' extra warnings.
        arguments += [
            f"CFLAGS_EXTRA={flags} -fno-omit-frame-pointer -Wno-error",
            f"LDFLAGS_EXTRA={flags}",
            "STRIP=true",
        ]
    with source.locked(paths.build_dir() / f".{build.name}.lock"):
        _start_afresh_when(build, arguments, [paths.core_dir() / "micropython.mk"])
        if progress and not (build / "micropython").exists():
            progress("building MicroPython's unix port")
        source.run_make(arguments, "MicroPython's unix port")
        return _measure(build / "micropython", "size", name, "")


def _start_afresh_when(build: Path, words: list[str], files: list[Path]) -> None:
    """Empty the folder when what make does not watch has changed: variables, flags, makefiles."""
    digest = hashlib.sha256("\0".join(words).encode())
    for path in files:
        digest.update(path.read_bytes() if path.is_file() else b"-")
    stamp = build / "configuration.sha256"
    if stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    stamp.write_text(digest.hexdigest())


def _write_if_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def layout_id(spec: roster.TargetSpec, memory: roster.MemoryMap) -> int:
    """32 bits that tell a flash's layout from another's; the flash file carries them."""
    parts = [f"{p.name}:{p.offset}:{p.size}:{p.prog_size}" for p in memory.partitions]
    return zlib.crc32(" ".join([f"{spec.psram_address:x}", *parts]).encode())


def _layout(spec: roster.TargetSpec, memory: roster.MemoryMap) -> tuple[str, str]:
    """fl_layout.h and layout.mk: the memory map for the port's C files and linker script."""
    partitions = " ".join(
        f'{{ "{p.name}", {p.offset:#x}u, {p.size:#x}u, {p.prog_size}u }},'
        for p in memory.partitions
    )
    header = (
        f"// Memory map {memory.name} of {spec.name}, made from boards/roster.toml.\n"
        f"#define FL_LAYOUT_FLASH_ADDRESS ({spec.psram_address:#x}u)\n"
        f"#define FL_LAYOUT_PSRAM_SIZE ({spec.psram_size:#x}u)\n"
        f"#define FL_LAYOUT_FLASH_SIZE ({memory.flash:#x}u)\n"
        f"#define FL_LAYOUT_ID ({layout_id(spec, memory):#x}u)\n"
        f"#define FL_LAYOUT_PARTITIONS {partitions}\n"
    )
    symbols = {
        "rom_size": memory.rom,
        "ram_address": memory.ram_address,
        "ram_size": memory.ram,
        "stack_size": memory.stack,
    }
    words = " ".join(f"-Wl,--defsym=fl_{name}={value:#x}" for name, value in symbols.items())
    return header, f"LAYOUT_SYMBOLS = {words}\n"


def _overflow(
    message: str, spec: roster.TargetSpec, memory: roster.MemoryMap
) -> DoesNotFitError | None:
    """The linker's `region `ROM' overflowed by N bytes` as the error that it is."""
    for region, size in (("ROM", memory.rom), ("RAM", memory.ram)):
        _, found, after = message.partition(f"region `{region}' overflowed by ")
        if found:
            return DoesNotFitError(
                f"the firmware for {spec.name} ({memory.name}, {region})",
                needed_bytes=size + int(after.split()[0]),
                available_bytes=size,
            )
    return None


def _measure(elf: Path, tool: str, target: str, memory: str) -> Firmware:
    result = subprocess.run([tool, str(elf)], capture_output=True, text=True, check=False)
    try:
        text, data, bss = (int(word) for word in result.stdout.splitlines()[1].split()[:3])
    except (IndexError, ValueError):
        raise FieldloopError(f"cannot measure {elf}: {tool} said {result.stderr!r}") from None
    return Firmware(elf, target, memory, text, data, bss)
