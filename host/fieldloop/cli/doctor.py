"""fieldloop doctor."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

from fieldloop import paths
from fieldloop.cli.console import Console, Output, table
from fieldloop.cli.device import serial_ports
from fieldloop.errors import FieldloopError
from fieldloop.targets import qemu, zephyr_workspace

HELP = "Checks what this machine has and lacks for each part, and says what to do next."
EXAMPLE = "fieldloop doctor --json"

_OK, _WARN, _BAD = "ok", "warn", "missing"


@dataclass(frozen=True, slots=True)
class _Finding:
    what: str
    state: str  # ok, warn (works, or not needed by all), missing
    found: str
    next: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(args: argparse.Namespace, console: Console) -> Output:
    checks: tuple[Callable[[], _Finding], ...] = (
        _python,
        _torch,
        _packages,
        _core,
        _cross_compiler,
        _qemu,
        _micropython,
        _zephyr,
        _device_package,
        _ports,
    )
    findings = [check() for check in checks]
    ok = all(finding.state != _BAD for finding in findings)
    rows = [(f.state, f.what, f.found) for f in findings]
    steps = [f"  {f.what}: {f.next}" for f in findings if f.next]
    text = table(rows) + ("\nnext\n" + "\n".join(steps) if steps else "")
    return Output(
        {"ok": ok, "checks": [asdict(finding) for finding in findings]}, text, 0 if ok else 1
    )


def _python() -> _Finding:
    return _Finding("python", _OK, ".".join(map(str, sys.version_info[:3])))


def _torch() -> _Finding:
    try:
        found = version("torch")
    except PackageNotFoundError:
        return _Finding(
            "torch", _BAD, "not installed", "pip install torch (a CPU build is enough)"
        )
    if _cuda_packages() or "+cu" in found:
        return _Finding(
            "torch",
            _WARN,
            f"{found}, with CUDA",
            "it works, but gigabytes of it are not used: a CPU build is enough",
        )
    return _Finding("torch", _OK, f"{found}, CPU")


def _cuda_packages() -> bool:
    for name in ("nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime", "nvidia-cublas-cu12"):
        try:
            version(name)
        except PackageNotFoundError:
            continue
        return True
    return False


def _packages() -> _Finding:
    wanted = ("numpy", "cffi", "pyserial", "mpremote", "scikit-learn", "matplotlib")
    missing = []
    for name in wanted:
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return _Finding("packages", _BAD, f"without {', '.join(missing)}", "pip install fieldloop")
    return _Finding("packages", _OK, ", ".join(wanted))


def _core() -> _Finding:
    """The host runtime: a C compiler, and the C core that it builds."""
    from fieldloop.runtime.core import core
    from fieldloop.runtime.model import check_float_mode

    try:
        core()
        check_float_mode()
    except FieldloopError as error:
        return _Finding("C core", _BAD, str(error), "apt-get install gcc libffi-dev")
    return _Finding("C core", _OK, "built and loaded")


def _cross_compiler() -> _Finding:
    name = "arm-none-eabi-gcc"
    if shutil.which(name) is None:
        return _Finding(
            name, _BAD, "not found", "apt-get install gcc-arm-none-eabi (for simulated boards)"
        )
    return _Finding(name, _OK, _first_line([name, "-dumpversion"]))


def _qemu() -> _Finding:
    missing = [name for name in (qemu.QEMU, "setpriv") if shutil.which(name) is None]
    if missing:
        return _Finding(
            "QEMU",
            _BAD,
            f"{', '.join(missing)} not found",
            "apt-get install qemu-system-arm util-linux (for simulated boards)",
        )
    return _Finding("QEMU", _OK, _first_line([qemu.QEMU, "--version"]))


def _micropython() -> _Finding:
    """Looks only: the source is fetched when a firmware is first built."""
    override = os.environ.get("MICROPY_DIR")
    if override:
        if os.path.isfile(os.path.join(override, "py", "mpconfig.h")):
            return _Finding("MicroPython source", _OK, f"MICROPY_DIR={override}")
        return _Finding(
            "MicroPython source", _BAD, f"MICROPY_DIR={override} has none", "unset or correct it"
        )
    fetched = sorted(paths.build_dir().glob("micropython-*/py/mpconfig.h"))
    if fetched:
        return _Finding("MicroPython source", _OK, str(fetched[-1].parent.parent))
    return _Finding(
        "MicroPython source",
        _WARN,
        "not fetched yet",
        "nothing: the first build fetches it through apt; or set MICROPY_DIR to a checkout",
    )


def _zephyr() -> _Finding:
    """Needed by few: a machine without a workspace does all the rest."""
    if not zephyr_workspace.is_named():
        return _Finding("Zephyr", _OK, "no workspace; only Zephyr's own boards need one")
    lacking = dict.fromkeys(
        line
        for board in ("native_sim/native/64", "mps2/an386")
        for line in zephyr_workspace.missing(board)
    )
    if lacking:
        return _Finding("Zephyr", _WARN, "not all is there", "; ".join(lacking))
    found = zephyr_workspace.find()
    return _Finding("Zephyr", _OK, f"{found.version} in {found.base}")


def _device_package() -> _Finding:
    package = paths.device_dir() / "package.json"
    if not package.is_file():
        return _Finding("device package", _BAD, f"no {package}", "install fieldloop again")
    return _Finding("device package", _OK, f"mpremote mip install {package}")


def _ports() -> _Finding:
    ports = [name for name, _ in serial_ports()]
    if not ports:
        return _Finding("serial ports", _OK, "none in use; simulated boards need none")
    closed = [name for name in ports if not os.access(name, os.R_OK | os.W_OK)]
    if closed:
        return _Finding(
            "serial ports",
            _WARN,
            f"no permission for {', '.join(closed)}",
            "usermod -aG dialout $USER, then log in again",
        )
    return _Finding("serial ports", _OK, ", ".join(ports))


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    return (done.stdout or done.stderr).partition("\n")[0].strip()
