"""Fuzzes image reader, executor and learner: python tests/core/fuzz_image.py --count N."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parents[1] / "host"), str(HERE)]

from single_ops import Maker, image_of  # noqa: E402

from fieldloop import paths  # noqa: E402
from fieldloop.compiler import compile_graph  # noqa: E402
from fieldloop.frontends.builder import GraphBuilder  # noqa: E402
from fieldloop.image.writer import write_image  # noqa: E402
from fieldloop.ir.op import Clamp, OpKind, Window  # noqa: E402
from fieldloop.plan.planner import plan_graph  # noqa: E402
from fieldloop.plan.types import PlanKind  # noqa: E402
from fieldloop.runtime.core import compiler, sources  # noqa: E402

FLAGS = (
    "-std=c99",
    "-g",
    "-O1",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined,float-cast-overflow,alignment",
    "-fno-sanitize-recover=all",
)


def build_driver() -> Path:
    """Compiles the driver with the core under ASan and UBSan, unless it is newer than all."""
    folder = paths.build_dir() / "tests-core"
    folder.mkdir(parents=True, exist_ok=True)
    driver = folder / "fuzz_image"
    inputs = [HERE / "fuzz_image.c", *sources()]
    newest = max(
        p.stat().st_mtime for p in [*inputs, *paths.core_dir().rglob("*.h"), Path(__file__)]
    )
    if not driver.exists() or driver.stat().st_mtime < newest:
        partial = driver.with_suffix(".tmp")
        include = [f"-I{paths.core_dir() / 'include'}", f"-I{paths.core_dir()}"]
        command = [compiler(), *FLAGS, *include, *map(str, inputs), "-o", str(partial)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        partial.replace(driver)
    return driver


def classifier(seed: int) -> bytes:
    """A small image with everything an image can carry: both plans, labels, layers, samples."""
    rng = np.random.default_rng(seed)
    build = GraphBuilder("fuzz")
    x = build.input("x", (1, 6, 5, 2))
    conv = Window((3, 3), (1, 2), (1, 1), (1, 1, 1, 0))
    y = build.add(
        "c", OpKind.CONV2D, [x], window=conv, weights=rng.normal(size=(4, 3, 3, 2)), bias=None
    )
    clamped = build.clamp("relu", y, Clamp(0.0), private=True)
    assert clamped is not None
    pool = OpKind.MAX_POOL if seed % 2 else OpKind.AVG_POOL
    y = build.add("p", pool, [clamped], window=Window((2, 2), (2, 2)))
    depthwise = Window((2, 2), (1, 1), (1, 1), (1, 0, 1, 0))
    y = build.add(
        "d",
        OpKind.DEPTHWISE_CONV2D,
        [y],
        window=depthwise,
        weights=rng.normal(size=(1, 2, 2, 4)),
        bias=rng.normal(size=4),
    )
    shape = build.shape(y)
    features = int(np.prod(shape))
    y = build.add("flat", OpKind.RESHAPE, [y], shape=(1, features))
    y = build.add(
        "head",
        OpKind.FULLY_CONNECTED,
        [y],
        weights=rng.normal(size=(3, features)),
        bias=rng.normal(size=3),
    )
    y = build.add("softmax", OpKind.SOFTMAX, [y])
    samples = rng.normal(size=(12, 6, 5, 2))
    return compile_graph(
        build.graph([y]),
        samples,
        labels=["zero", "eins", "zwölf"],
        learn=3,
        rehearsal=(samples[:5], np.arange(5) % 3),
        meta={"note": "fuzz"},
    ).image


def labelled() -> bytes:
    """An image that ends with the last byte of its last label."""
    graph = Maker(np.random.default_rng(4)).fully_connected()
    image = write_image(graph, [plan_graph(graph, PlanKind.INFER)], labels=["abcd", "efghij"])
    assert image.endswith(b"efghij\0")
    return image


def seed_images() -> list[bytes]:
    """Good images to start from: whole classifiers, and every operator alone."""
    maker = Maker(np.random.default_rng(3))
    single = [image_of(getattr(maker, kind.value)()) for kind in OpKind]
    return [*(classifier(seed) for seed in range(4)), *single, labelled()]


def fuzz(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Runs the driver; its tally. Raises with the sanitizers' report if it found something."""
    images = []
    for i, image in enumerate(seed_images()):
        path = folder / f"{i}.flm"
        path.write_bytes(image)
        images.append(str(path))
    command = [str(build_driver()), str(count), str(seed), *images]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"seed {seed}: exit {done.returncode}\n{done.stderr[-4000:]}")
    words = done.stdout.split()
    return {key: int(value) for key, value in zip(words[::2], words[1::2], strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder = paths.build_dir() / "tests-core"
    folder.mkdir(parents=True, exist_ok=True)
    print(fuzz(folder, arguments.count, arguments.seed))


if __name__ == "__main__":
    main()
