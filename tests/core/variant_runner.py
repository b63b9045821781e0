"""Builds and runs drivers of a variant's kernels against plain C, on the host and bare."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from toolchain import GCC, QEMU

from fieldloop import paths
from fieldloop.runtime.core import compiler

KERNELS = ("conv2d", "depthwise_conv2d", "fully_connected", "scale", "max_pool", "avg_pool", "add")
WINDOWED = ("conv2d", "depthwise_conv2d", "max_pool", "avg_pool")  # what variant_slices.c runs
EDGES = 64  # of what an image may ask for and no random case does
LINE = re.compile(r"^(\w+) (\d+) cases \d+ bytes (\d+) lively$", re.MULTILINE)


def _sources(driver: str) -> list[str]:
    own = Path(__file__).with_name(f"{driver}.c")
    return [str(own), *map(str, sorted((paths.core_dir() / "kernels").glob("*.c")))]


def _includes() -> list[str]:
    return [f"-I{paths.core_dir() / 'include'}", f"-I{paths.core_dir()}"]


def run_on_host(
    folder: Path, variant: int, cases: int, seed: int, *, driver: str = "variant_kernels"
) -> str:
    """What the driver says with the variant's instructions emulated, under both sanitizers."""
    program = folder / driver
    command = [compiler(), "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command += [f"-DFL_KERNELS={variant}", *_includes(), *_sources(driver), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [str(program), str(cases), str(seed)], capture_output=True, text=True, timeout=600
    )
    return done.stdout + done.stderr


def run_on_board(
    folder: Path,
    machine: str,
    flags: list[str],
    cases: int,
    seed: int,
    *,
    code: int = 1 << 22,
    data_at: int = 0x20000000,
    driver: str = "variant_kernels",
) -> str:
    """What the driver says on a machine of QEMU; `code`: bytes at 0; 4 MiB of data."""
    program = folder / f"{machine}.elf"
    where = {"__flash": 0, "__flash_size": code, "__ram": data_at, "__ram_size": 1 << 22}
    command = [GCC, "--specs=picolibc.specs", "--oslib=semihost", "--crt0=hosted", "-std=gnu99"]
    command += [f"-Wl,--defsym={name}={value}" for name, value in where.items()]
    command += [*flags, f"-DCASES={cases}", f"-DSEED={seed}"]
    done = subprocess.run(
        [*command, *_includes(), *_sources(driver), "-o", str(program)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [
            *(QEMU, "-M", machine, "-display", "none", "-monitor", "none", "-serial", "none"),
            *("-chardev", "stdio,id=console"),
            *("-semihosting-config", "enable=on,target=native,chardev=console"),
            *("-kernel", str(program)),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.stdout + done.stderr


def assert_same(told: str, variant: int, cases: int) -> None:
    """Every kernel ran all its cases without a difference, and most outputs were no constants."""
    tallies = _tallies(told, variant, (*KERNELS, "edge"))
    assert tallies.pop("edge")[0] == EDGES
    _assert_lively(tallies, cases)


def assert_same_slices(told: str, variant: int, cases: int) -> None:
    """As `assert_same`, of variant_slices.c."""
    _assert_lively(_tallies(told, variant, WINDOWED), cases)


def _tallies(told: str, variant: int, kernels: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    assert told.startswith(f"variant {variant}\n") and told.endswith("end\n"), told[-2000:]
    tallies = {name: (int(n), int(lively)) for name, n, lively in LINE.findall(told)}
    assert tuple(tallies) == kernels, told
    return tallies


def _assert_lively(tallies: dict[str, tuple[int, int]], cases: int) -> None:
    for name, (n, lively) in tallies.items():
        assert n >= cases and lively > n // 2, f"{name}: {n} cases, {lively} lively"
