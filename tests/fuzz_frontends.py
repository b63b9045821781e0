"""Mutated model files through a frontend: each ends in a graph or in one of fieldloop's errors.

    python tests/fuzz_frontends.py --format tflite --count 200000 --seed 1

Each format has a module of its own, tests/fuzz_FORMAT.py, with `fuzz(count, seed, keep=path)`. The
same seed gives the same files; a file that fails is kept.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--format", choices=("tflite", "onnx"), required=True)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failure.bin"))
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    start = time.monotonic()
    ends = importlib.import_module(f"fuzz_{args.format}").fuzz(
        args.count, args.seed, keep=args.keep
    )
    print(f"{args.count} files in {time.monotonic() - start:.0f} s: {dict(ends.most_common())}")


if __name__ == "__main__":
    main()
