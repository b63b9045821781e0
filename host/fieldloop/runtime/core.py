"""The C core on the host: the device's own sources, compiled once and called through cffi.

The declarations are the public headers themselves, preprocessed against stubs of the three
standard headers they include, so there is no second copy to drift. The shared library is cached in
the build folder under a hash of every source, header, flag and the compiler, and rebuilt when one
of them changes. There is one library for each variant of the kernels; the instructions of _dsp and
_mve are emulated here, so that their results can be compared without a board.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cffi

from fieldloop import paths
from fieldloop.errors import FieldloopError, UsageError

# As fl_variant_t has them; plain C first, with which the others are compared.
VARIANTS = {"plain": 0, "dsp": 1, "mve": 2}

SOURCE_FOLDERS = ("base", "core", "kernels", "learn", "link", "store", "server")

# Contract 2: no contraction to fma, so that float results are the device's to the bit.
CFLAGS = (
    "-std=c99",
    "-O2",
    "-fPIC",
    "-fvisibility=default",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-Wall",
    "-Wextra",
    "-Werror",
)


def sources() -> list[Path]:
    """Every C file of the core, sorted (the MicroPython binding is not among them)."""
    root = paths.core_dir()
    return sorted(path for folder in SOURCE_FOLDERS for path in (root / folder).glob("*.c"))


def headers() -> list[Path]:
    """The public headers, sorted."""
    return sorted((paths.core_dir() / "include" / "fieldloop").glob("fl_*.h"))


def compiler() -> str:
    """The host C compiler: $CC, else cc."""
    name = os.environ.get("CC", "cc")
    found = shutil.which(name)
    if found is None:
        raise FieldloopError(
            f"no C compiler: {name!r} is not on the PATH; "
            "install one (apt install gcc libc6-dev) or set CC"
        )
    return found


def _run(command: list[str], what: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-20:])
        raise FieldloopError(
            f"{what} failed ({' '.join(command[:1])} exit {done.returncode}):\n{tail}"
        )
    return done.stdout


def declarations() -> str:
    """What cffi is told: the public headers, preprocessed with nothing of libc in them."""
    with tempfile.TemporaryDirectory() as folder:
        stubs = Path(folder)
        for name in ("stdint.h", "stddef.h", "stdbool.h"):
            (stubs / name).touch()
        everything = stubs / "all.h"
        everything.write_text("".join(f'#include "fieldloop/{h.name}"\n' for h in headers()))
        include = paths.core_dir() / "include"
        text = _run(
            [compiler(), "-E", "-P", "-nostdinc", f"-I{stubs}", f"-I{include}", str(everything)],
            "preprocessing the core's headers",
        )
    # cffi takes declarations only; an inline helper has no symbol to call anyway.
    return re.sub(r"^static inline [^;{]*\{.*?^\}\n?", "", text, flags=re.M | re.S)


def _digest(*parts: bytes) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.hexdigest()[:24]


def _flags(src: Path, variant: str) -> tuple[str, ...]:
    """Only the kernels know of variants."""
    return (
        (*CFLAGS, f"-DFL_KERNELS={VARIANTS[variant]}") if src.parent.name == "kernels" else CFLAGS
    )


def build(variant: str = "plain") -> Path:
    """Compiles the core if it is not cached; returns the shared library's path."""
    if variant not in VARIANTS:
        raise UsageError(f"kernels: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    cc = compiler()
    root = paths.core_dir()
    version = _run([cc, "--version"], "asking the C compiler for its version")
    every_header = sorted(root.rglob("*.h"))
    common = _digest(
        version.encode(),
        *(str(h.relative_to(root)).encode() + h.read_bytes() for h in every_header),
    )
    folder = paths.build_dir() / "core"
    folder.mkdir(exist_ok=True)

    objects = {
        src: folder / f"{src.stem}-{_digest(common.encode(), _bytes_of(src, variant))}.o"
        for src in sources()
    }
    library = folder / f"libfieldloop-{_digest(*(o.name.encode() for o in objects.values()))}.so"
    if library.exists():
        return library

    with (folder / "lock").open("w") as lock:  # parallel test runs build once
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [(src, obj) for src, obj in objects.items() if not obj.exists()]

        def compile_one(pair: tuple[Path, Path]) -> None:
            src, obj = pair
            partial = obj.with_suffix(f".{os.getpid()}.tmp")
            flags = [*_flags(src, variant), f"-I{root / 'include'}", f"-I{root}"]
            _run([cc, *flags, "-c", str(src), "-o", str(partial)], f"compiling {src.name}")
            partial.replace(obj)

        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            list(pool.map(compile_one, missing))
        partial = library.with_suffix(f".{os.getpid()}.tmp")
        _run([cc, "-shared", *map(str, objects.values()), "-o", str(partial)], "linking the core")
        partial.replace(library)
    return library


def _bytes_of(src: Path, variant: str) -> bytes:
    return " ".join(_flags(src, variant)).encode() + b"\0" + src.read_bytes()


@functools.cache
def _declared() -> cffi.FFI:
    ffi = cffi.FFI()
    ffi.cdef(declarations())
    return ffi


@functools.cache
def load(variant: str = "plain") -> tuple[cffi.FFI, Any]:
    """`(ffi, lib)` of the core with kernels "plain", "dsp" or "mve"; loaded once a process.

    All share one ffi, so that what one of them made can be handed to another.
    """
    ffi = _declared()
    return ffi, ffi.dlopen(str(build(variant)))


def core() -> tuple[cffi.FFI, Any]:
    """`(ffi, lib)` of the C core in plain C; compiled on first use, loaded once a process."""
    return load("plain")


def error_name(code: int) -> str:
    """Name of a negative return value of the core, such as FL_EBADMSG."""
    ffi, _ = core()
    names: dict[int, str] = ffi.typeof("fl_error_t").elements
    return next((n for value, n in names.items() if value == code), f"error {code}")
