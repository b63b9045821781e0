"""Trains the sensor example's model on what the emulated accelerometer plays.

    python zephyr_app/train_motion.py motion.flm
    fieldloop push motion.flm --port /dev/pts/N

It knows rest, sway and knock. The fourth motion, hum, is left for the field: `fieldloop label 3`.
Nothing is recorded: src/motion.c is compiled for this machine and asked, as the sensor does.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import fieldloop
from fieldloop import paths
from fieldloop.runtime.core import compiler

LABELS = ("rest", "sway", "knock", "hum")
KNOWN = 3  # of them
READINGS = 32
FILTERS = 24
PERIOD_MS = 20
Float = npt.NDArray[np.float32]


def motion_library(folder: Path) -> Any:
    """src/motion.c for this machine."""
    source = Path(__file__).resolve().parent / "src" / "motion.c"
    library = folder / "motion.so"
    include = paths.core_dir() / "include"
    flags = ["-std=c99", "-O2", "-ffp-contract=off", "-shared", "-fPIC", f"-I{include}"]
    subprocess.run([compiler(), *flags, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def windows(motion: int, count: int, seed: int) -> Float:
    """[count, 1, READINGS, 3]: windows of one motion, each from another moment on."""
    with tempfile.TemporaryDirectory() as folder:
        motion_at = motion_library(Path(folder)).motion_at
    motion_at.argtypes = [ctypes.c_uint32] * 3 + [ctypes.POINTER(ctypes.c_float)]
    motion_at.restype = None
    rng = np.random.default_rng(seed)
    xyz = (ctypes.c_float * 3)()
    out = np.empty((count, READINGS, 3), np.float32)
    for n, begin in enumerate(rng.integers(0, 1 << 20, count)):
        for i in range(READINGS):
            motion_at(motion, int(begin) + PERIOD_MS * i, int(begin) + i, xyz)
            out[n, i] = xyz[:]
    return out[:, None]


def samples(motions: int, each: int, seed: int) -> tuple[Float, npt.NDArray[np.int64]]:
    """`each` windows of each of the first motions, with their numbers."""
    x = np.concatenate([windows(m, each, seed + m) for m in range(motions)])
    return x, np.repeat(np.arange(motions), each)


def train(seed: int = 0) -> Any:
    """The model with what it costs: fieldloop.compile's answer."""
    import torch

    torch.manual_seed(seed)
    x, y = samples(KNOWN, 300, seed + 100)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    # What filters of 5 readings by 3 axes find anywhere in the window: a motion has no begin.
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, FILTERS, (5, 3)),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d((READINGS - 4, 1)),
        torch.nn.Flatten(),
        torch.nn.Linear(FILTERS, len(LABELS)),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=1e-4)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    few = np.concatenate([np.flatnonzero(y == c)[:16] for c in range(KNOWN)])
    # Calibrated with what it will meet, the motion that it does not know included.
    everything, _ = samples(len(LABELS), 100, seed + 200)
    return fieldloop.compile(net, everything, labels=LABELS, learn=2, rehearsal=(x[few], y[few]))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="where the model goes, motion.flm for example")
    path = parser.parse_args().output
    compiled = train()
    path.write_bytes(compiled.image)
    print(f"{path}: {len(compiled.image)} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
