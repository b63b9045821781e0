"""What the bare-metal tests build and run with."""

from __future__ import annotations

import shutil
import subprocess

GCC, QEMU = "arm-none-eabi-gcc", "qemu-system-arm"


def missing(*, qemu: bool) -> str | None:
    """The first thing that is not installed, or None. picolibc is looked for by its spec file."""
    for tool in (GCC, QEMU) if qemu else (GCC,):
        if shutil.which(tool) is None:
            return tool
    found = subprocess.run(
        [GCC, "-print-file-name=picolibc.specs"], capture_output=True, text=True, check=True
    )
    # gcc repeats the name of a file it does not know
    return "picolibc" if found.stdout.strip() == "picolibc.specs" else None
