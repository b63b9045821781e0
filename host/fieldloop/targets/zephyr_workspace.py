"""A Zephyr workspace, and how it builds: CMake and ninja with the environment that they need.

    elf = build(source, "mps2/an386", folder)

The workspace is the user's: `west init -m ... && west update`, or any folder with Zephyr and its
modules in it. FIELDLOOP_ZEPHYR_WS or ZEPHYR_BASE names it; nothing here is fetched.
"""

from __future__ import annotations

import configparser
import functools
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fieldloop import paths
from fieldloop.errors import FieldloopError
from fieldloop.targets.micropython_source import locked

Progress = Callable[[str], None]

HOW = (
    "set FIELDLOOP_ZEPHYR_WS to a west workspace's top folder (the one with zephyr/ in it), "
    "or ZEPHYR_BASE to Zephyr itself; docs/getting-started/zephyr.md tells how to make one"
)
HOW_MICROPYTHON = "have micropython/ in the workspace, or set MICROPY_DIR; 1.28 or newer"
CROSS_COMPILER = "arm-none-eabi-gcc"
PYTHON_NEEDED = (3, 12)  # by Zephyr 4.2


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where Zephyr, its modules and MicroPython lie, and the Python that runs Zephyr's scripts."""

    base: Path
    top: Path
    python: Path
    micropython: Path | None  # None: there is none in the workspace

    @property
    def version(self) -> str:
        """Zephyr's version, for example 4.2.0."""
        fields = dict(re.findall(r"^(\w+)\s*=\s*(\S*)$", _text(self.base / "VERSION"), re.M))
        number = ".".join(fields.get(key, "?") for key in _VERSION_FIELDS)
        extra = fields.get("EXTRAVERSION", "")
        return f"{number}-{extra}" if extra else number


_VERSION_FIELDS = ("VERSION_MAJOR", "VERSION_MINOR", "PATCHLEVEL")


def find() -> Workspace:
    """The workspace that the environment names. Raises FieldloopError with what to set."""
    top, base = _places()
    if not (base / "cmake" / "modules").is_dir() or not (base / "VERSION").is_file():
        raise FieldloopError(f"no Zephyr in {base}: expected cmake/modules and VERSION; {HOW}")
    return Workspace(base, top, _python(top), _micropython(top))


def is_named() -> bool:
    """True when the environment names a workspace, be it a good one or not."""
    return any(os.environ.get(name) for name in ("FIELDLOOP_ZEPHYR_WS", "ZEPHYR_BASE"))


def missing(board: str) -> list[str]:
    """What building for one of Zephyr's boards needs and this machine lacks; a line each."""
    lacking = [
        f"{tool} ({package})"
        for tool, package in (
            ("cmake", "apt-get install cmake"),
            ("ninja", "apt-get install ninja-build"),
            ("gcc", "apt-get install gcc"),
        )
        if shutil.which(tool) is None
    ]
    if not is_named():
        lacking.append("a Zephyr workspace (FIELDLOOP_ZEPHYR_WS or ZEPHYR_BASE)")
    try:
        if not is_native(board):
            _cross_toolchain()
        if is_named():
            find()
    except FieldloopError as error:
        lacking.append(str(error))
    return lacking


def is_native(board: str) -> bool:
    """True for a board that is a program of this machine."""
    return board.startswith("native_sim")


def build(
    source_dir: Path,
    board: str,
    build_dir: Path,
    *,
    extra: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Build an application for a board; quick when nothing changed. Returns what runs: zephyr.exe
    of native_sim, else zephyr.elf.

    `extra` are further words for CMake (-D...), `environment` adds to that of both. A change of
    those, or of the workspace, starts afresh; all else CMake and ninja notice. Raises
    FieldloopError with their last words.
    """
    workspace = find()
    given = dict(environment or {})
    whole = _environment(workspace, board) | given
    words = [
        *("cmake", "-GNinja", "-S", str(source_dir), "-B", str(build_dir), f"-DBOARD={board}"),
        f"-DPython3_EXECUTABLE={workspace.python}",
        *_toolchain_words(board, whole),
        *([] if _is_manifest(workspace.top) else [f"-DEXTRA_ZEPHYR_MODULES={paths.data_root()}"]),
        *extra,
    ]
    stamp = build_dir / "fieldloop.sha256"
    told = [whole.get(name, "") for name in ("ZEPHYR_BASE", "ZEPHYR_TOOLCHAIN_VARIANT")]
    told += [f"{name}={value}" for name, value in sorted(given.items())]
    digest = hashlib.sha256("\0".join([*words, *told]).encode()).hexdigest()
    with locked(build_dir.parent / f".{build_dir.name}.lock"):
        if not stamp.is_file() or stamp.read_text() != digest:
            if progress:
                progress(f"building {source_dir.name} for {board} (Zephyr {workspace.version})")
            shutil.rmtree(build_dir, ignore_errors=True)
            _run(words, whole, f"configuring {source_dir.name} for {board}")
            stamp.write_text(digest)
        _run(
            ["ninja", "-C", str(build_dir), f"-j{min(os.cpu_count() or 1, 8)}"],
            whole,
            f"building {source_dir.name} for {board}",
        )
    result = build_dir / "zephyr" / ("zephyr.exe" if is_native(board) else "zephyr.elf")
    if not result.is_file():
        raise FieldloopError(f"building {source_dir.name} for {board}: it made no {result}")
    return result


def tools(workspace: Workspace, board: str) -> tuple[dict[str, str], list[str]]:
    """The environment that building for a board takes, and what CMake has to be told (-D...):
    for other ways into Zephyr than build(), twister for one."""
    environment = _environment(workspace, board)
    return environment, _toolchain_words(board, environment)


# ---- the places


def _places() -> tuple[Path, Path]:
    """The top folder and Zephyr itself."""
    if workspace := os.environ.get("FIELDLOOP_ZEPHYR_WS"):
        top = Path(workspace).expanduser().resolve()
        return top, top / "zephyr"
    if zephyr := os.environ.get("ZEPHYR_BASE"):
        base = Path(zephyr).expanduser().resolve()
        tops = [folder for folder in base.parents if (folder / ".west").is_dir()]
        return (tops[0] if tops else base.parent), base
    raise FieldloopError(f"no Zephyr workspace: {HOW}")


def _python(top: Path) -> Path:
    given = os.environ.get("FIELDLOOP_ZEPHYR_PYTHON")
    if given:
        path = Path(given).expanduser()
        if not os.access(path, os.X_OK):
            raise FieldloopError(f"FIELDLOOP_ZEPHYR_PYTHON={given} is no program; correct it")
        return path
    for folder in ("venv", ".venv"):
        path = top / folder / "bin" / "python"
        if os.access(path, os.X_OK):
            return path
    for name in ("python3", "python3.12", "python3.13", "python3.14"):
        found = shutil.which(name)
        if found and _is_new_enough(found):
            return Path(found)
    raise FieldloopError(
        f"no Python for Zephyr's scripts: expected {top}/venv or {top}/.venv, or a python3 of "
        f"{'.'.join(map(str, PYTHON_NEEDED))} or newer on the PATH; make one with Zephyr's "
        "scripts/requirements-base.txt installed, or set FIELDLOOP_ZEPHYR_PYTHON"
    )


@functools.cache
def _is_new_enough(python: str) -> bool:
    code = f"import sys; sys.exit(sys.version_info < {PYTHON_NEEDED!r})"
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


def _micropython(top: Path) -> Path | None:
    given = os.environ.get("MICROPY_DIR")
    path = Path(given).expanduser().resolve() if given else top / "micropython"
    return path if (path / "ports" / "zephyr" / "CMakeLists.txt").is_file() else None


def _is_manifest(top: Path) -> bool:
    """True when the workspace was made from our own west.yml: west then finds our module."""
    config = configparser.ConfigParser()
    try:
        config.read(top / ".west" / "config")
        return (top / config["manifest"]["path"]).resolve() == paths.data_root().resolve()
    except (configparser.Error, KeyError, OSError):
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise FieldloopError(f"cannot read {path}: {error.strerror}; {HOW}") from error


# ---- the toolchain


def _environment(workspace: Workspace, board: str) -> dict[str, str]:
    environment = dict(os.environ)
    # Of our own Python, or of an enclosing make: they must not reach Zephyr's.
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
        environment.pop(name, None)
    for name in ("CFLAGS", "LDFLAGS", "BOARD"):
        environment.pop(name, None)
    environment["ZEPHYR_BASE"] = str(workspace.base)
    environment["PATH"] = f"{workspace.python.parent}{os.pathsep}{environment.get('PATH', '')}"
    if is_native(board):
        environment["ZEPHYR_TOOLCHAIN_VARIANT"] = "host"
    else:
        environment.update(_cross_toolchain())
    return environment


def _cross_toolchain() -> dict[str, str]:
    """What the environment needs for Arm: the user's own choice, else an arm-none-eabi-gcc that
    brings all that is needed, else Zephyr's SDK."""
    if os.environ.get("ZEPHYR_TOOLCHAIN_VARIANT", "host") != "host":
        return {}
    if os.environ.get("ZEPHYR_SDK_INSTALL_DIR"):
        return {"ZEPHYR_TOOLCHAIN_VARIANT": "zephyr"}
    compiler = shutil.which(CROSS_COMPILER)
    if (compiler is None or not _has_picolibc(compiler)) and _has_sdk():
        return {"ZEPHYR_TOOLCHAIN_VARIANT": "zephyr"}
    if compiler is None:
        raise FieldloopError(
            f"no toolchain for Arm: neither {CROSS_COMPILER} nor Zephyr's SDK is there; apt-get "
            "install gcc-arm-none-eabi picolibc-arm-none-eabi, or set ZEPHYR_TOOLCHAIN_VARIANT"
        )
    prefix = Path(compiler).parent.parent
    return {"ZEPHYR_TOOLCHAIN_VARIANT": "gnuarmemb", "GNUARMEMB_TOOLCHAIN_PATH": str(prefix)}


def _has_sdk() -> bool:
    """True when Zephyr's CMake finds an SDK that no variable names: it was registered, or lies
    where the SDK's documentation puts it."""
    home = Path.home()
    if (home / ".cmake" / "packages" / "Zephyr-sdk").is_dir():
        return True
    folders = (home, home / ".local", home / ".local" / "opt", home / "bin")
    places = (*folders, *map(Path, ("/opt", "/usr", "/usr/local")))
    return any(found.is_dir() for place in places for found in place.glob("zephyr-sdk-*"))


def _toolchain_words(board: str, environment: dict[str, str]) -> list[str]:
    """Debian's arm-none-eabi-gcc brings picolibc beside newlib, which Zephyr does not look for;
    with it no libc is compiled, and none needs to be in the workspace."""
    if is_native(board) or environment.get("ZEPHYR_TOOLCHAIN_VARIANT") != "gnuarmemb":
        return []
    compiler = Path(environment.get("GNUARMEMB_TOOLCHAIN_PATH", "")) / "bin" / CROSS_COMPILER
    if not _has_picolibc(str(compiler)):
        return []
    return ["-DTOOLCHAIN_HAS_PICOLIBC=ON", "-DCONFIG_PICOLIBC=y"]


@functools.cache
def _has_picolibc(compiler: str) -> bool:
    try:
        done = subprocess.run(
            [compiler, "-print-file-name=picolibc.specs"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return os.path.isabs(done.stdout.strip())  # otherwise gcc repeats the bare name


def _run(command: list[str], environment: dict[str, str], what: str) -> None:
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise FieldloopError(
            f"{what}: cannot run {command[0]}: {error.strerror}; apt-get install cmake ninja-build"
        ) from error
    if done.returncode != 0:
        # The words of a compiler or linker fill pages; what it said stands below them.
        lines = [line for line in done.stdout.strip().splitlines() if len(line) < 600]
        tail = "\n".join(lines[-30:])
        raise FieldloopError(f"{what} failed ({command[0]} exit {done.returncode}):\n{tail}")
