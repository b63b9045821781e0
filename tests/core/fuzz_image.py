"""Fuzzes image reader, executor and learner, led by coverage, under the sanitizers.

python tests/core/fuzz_image.py --count 10000000   # goes on where it stopped; Ctrl-C any time
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parents[1] / "host"), str(HERE)]

from more_ops import Maker  # noqa: E402
from single_ops import image_of  # noqa: E402
from tile_maker import NoTilesError, tiled  # noqa: E402

from fieldloop import paths  # noqa: E402
from fieldloop.compiler import compile_graph  # noqa: E402
from fieldloop.frontends.builder import GraphBuilder  # noqa: E402
from fieldloop.image.writer import write_image  # noqa: E402
from fieldloop.ir.op import WEIGHTED, Clamp, OpKind, UnaryKind, Window  # noqa: E402
from fieldloop.ir.tensor import DType  # noqa: E402
from fieldloop.plan.planner import plan_graph  # noqa: E402
from fieldloop.plan.types import PlanKind  # noqa: E402
from fieldloop.runtime.core import compiler, sources  # noqa: E402

FLAGS = (
    "-std=c99",
    "-D_POSIX_C_SOURCE=200809L",
    "-g",
    "-O1",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined,float-cast-overflow,alignment",
    "-fno-sanitize-recover=all",
)
COVERAGE = "-fsanitize-coverage=trace-pc"
CHUNK = 100_000  # mutants a process
MAX_BYTES = 1 << 14  # of a seed image, as in fuzz_image.c
VARIANTS = ("plain", "dsp", "mve")
# Operators that a few shapes do not exhaust, in int8 and in float32.
BOTH = ("add_broadcast", "sub", "mul", "maximum", "mean")
BOTH += ("concat", "pad", "transpose", "slice", "embedding")


def build_sanitised(name: str, own: list[Path], variant: str, coverage: str = "") -> Path:
    """A program of C files of the tests and the core; built anew when a source changed.

    All of it under ASan and UBSan, the core with the flag `coverage`.
    """
    folder = paths.build_dir() / "tests-core"
    folder.mkdir(parents=True, exist_ok=True)
    inputs = [*sources(), *own, *HERE.glob("fuzz_*.h"), *paths.core_dir().rglob("*.h")]
    digest = hashlib.sha256(" ".join((*FLAGS, coverage, variant)).encode())
    for path in inputs:
        digest.update(path.read_bytes())
    driver = folder / f"{name}-{variant}-{digest.hexdigest()[:16]}"
    if driver.exists():
        return driver
    objects = folder / f"{name}-{variant}-{os.getpid()}"
    objects.mkdir(exist_ok=True)
    include = [f"-I{paths.core_dir() / 'include'}", f"-I{paths.core_dir()}", f"-I{HERE}"]
    flags = [*FLAGS, f"-DFL_KERNELS={VARIANTS.index(variant)}", *include]

    def run(*arguments: str) -> None:
        done = subprocess.run([compiler(), *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)

    def compile_one(path: Path) -> str:
        out = objects / f"{path.parent.name}-{path.stem}.o"
        extra = [] if path in own or not coverage else [coverage]
        run(*flags, *extra, "-c", str(path), "-o", str(out))
        return str(out)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(compile_one, [*sources(), *own]))
    partial = driver.with_suffix(f".{os.getpid()}.tmp")
    run(*FLAGS, *made, "-o", str(partial))
    partial.replace(driver)
    for path in objects.iterdir():
        path.unlink()
    objects.rmdir()
    return driver


def build_driver(variant: str = "plain") -> Path:
    """The fuzzer with the core, whose coverage leads it."""
    own = [HERE / "fuzz_image.c", HERE / "fuzz_mutate.c"]
    return build_sanitised("fuzz_image", own, variant, COVERAGE)


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


def small(image: bytes) -> bool:
    return len(image) <= MAX_BYTES // 4


def in_tiles() -> list[bytes]:
    """Every operator that tiles take in random ones; networks in rows, in channels, in loops.

    Room behind all that has a place, to whose end a first step reaches: so what a mutant moves
    does not make the arena another one.
    """
    from test_tiles_core import KINDS, PLANS, network, random_graph, with_room

    rng = np.random.default_rng(12)
    images = []
    for name in KINDS:
        while True:
            try:
                images.append(tiled(random_graph(Maker(rng), name), rng, room=256))
            except NoTilesError:
                continue
            break
    for seed, make in enumerate(PLANS.values()):
        for real in (False, True):
            images.append(with_room(make(network(seed, real=real)), 512, learn=not real))
    return images


def seed_images() -> list[bytes]:
    """Good images to start from: whole classifiers, every operator alone, int8 and float32."""
    images = [*(classifier(seed) for seed in range(4)), labelled()]
    maker = Maker(np.random.default_rng(3))
    graphs = [getattr(maker, kind.value)() for kind in OpKind]
    graphs += [maker.unary(kind) for kind in UnaryKind]
    graphs += [maker.concat(count=9), maker.embedding(index=DType.INT8)]
    for _ in range(3):
        graphs += [maker.grouped_conv2d(), maker.softmax_of_any_rank()]
        for name in BOTH:
            graphs += [getattr(maker, name)(), getattr(maker, name)(real=True)]
        graphs.append(maker.in_float(maker.fully_connected()))
    for kind in (*WEIGHTED, OpKind.MAX_POOL, OpKind.AVG_POOL, OpKind.SOFTMAX):
        graphs.append(maker.in_float(getattr(maker, kind.value)()))
    graphs.append(maker.in_float(maker.grouped_conv2d()))
    return [*images, *filter(small, map(image_of, graphs)), *in_tiles()]


def fuzz(
    folder: Path, count: int, seed: int, variant: str = "plain", corpus: tuple[Path, ...] = ()
) -> dict[str, int]:
    """Runs the driver; its tally. New corpus entries land in `folder`.

    Raises with the sanitizers' report if it found something.
    """
    images = []
    for i, image in enumerate(seed_images()):
        path = folder / f"seed-{i}.flm"
        path.write_bytes(image)
        images.append(str(path))
    images += [str(path) for path in corpus]
    command = [str(build_driver(variant)), str(count), str(seed), str(folder), *images]
    options = {"ASAN_OPTIONS": "abort_on_error=1", "UBSAN_OPTIONS": "abort_on_error=1"}
    environment = {**os.environ, **options}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise AssertionError(
            f"seed {seed}, {variant}: exit {done.returncode}\n{done.stderr[-4000:]}"
        )
    words = done.stdout.split()
    return {key: int(value) for key, value in zip(words[::2], words[1::2], strict=True)}


def fuzz_on(count: int, variant: str, seed: int) -> dict[str, int]:
    """Adds chunks to what earlier calls did until `count` mutants were tried; the sums."""
    folder = paths.build_dir() / "tests-core" / f"corpus-{variant}"
    folder.mkdir(parents=True, exist_ok=True)
    book = folder / "progress.json"
    sums: dict[str, int] = json.loads(book.read_text()) if book.exists() else {}
    start, before = time.monotonic(), sums.get("mutants", 0)
    while sums.get("mutants", 0) < count:
        done = sums.get("mutants", 0)
        corpus = tuple(sorted(folder.glob("[0-9]*.flm")))
        chunk = min(CHUNK, count - done)
        tally = fuzz(folder, chunk, seed + done // CHUNK, variant, corpus)
        for key, value in tally.items():
            sums[key] = value if key in ("corpus", "edges") else sums.get(key, 0) + value
        partial = book.with_suffix(".tmp")
        partial.write_text(json.dumps(sums))
        partial.replace(book)
        rate = (sums["mutants"] - before) / (time.monotonic() - start)
        print(f"{sums['mutants']:,} of {count:,}, {rate:,.0f}/s, {sums}", file=sys.stderr)
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--variant", choices=VARIANTS, default="plain")
    arguments = parser.parse_args()
    print(json.dumps(fuzz_on(arguments.count, arguments.variant, arguments.seed)))


if __name__ == "__main__":
    main()
