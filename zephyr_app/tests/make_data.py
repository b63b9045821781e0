"""What the ztest suites compare with: a small model, and what the host makes of it.

    python zephyr_app/tests/make_data.py            write zephyr_app/tests/data/*.h again
    python zephyr_app/tests/make_data.py --check    exit 1 if they are not what would be written

The headers are committed: a suite builds in a Zephyr workspace without fieldloop's Python.
Inputs are drawn by fl_random_fill() from a seed, on the host and on the board alike.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fieldloop.image.writer import RehearsalSet, Trainable
from fieldloop.ir.op import OpKind, Window
from fieldloop.link.frames import Framing, frame
from fieldloop.link.header import Op, encode_message
from fieldloop.runtime import Learner, LearnerConfig, Model
from fieldloop.runtime.core import core

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
sys.path.insert(0, str(HERE.parents[1] / "tests" / "learn"))
from nets import LINEAR, NetBuilder, finish  # noqa: E402

SEED = 20
CLASSES = 5
SAMPLES = 16  # predicted, and learned
SAMPLE_BYTES = 64
REPLAYS = 2
RATE = 0.5

Int8 = npt.NDArray[np.int8]


def small_model() -> bytes:
    """conv 4, depthwise 4, pointwise 8, pool, conv 8, fully connected 5, on 8 x 8 samples."""
    rng = np.random.default_rng(SEED)
    same = Window((3, 3), pads=(1, 1, 1, 1))
    net = NetBuilder(rng, (1, 8, 8, 1))
    net.weighted(OpKind.CONV2D, 4, same)
    net.weighted(OpKind.DEPTHWISE_CONV2D, 4, same)
    net.weighted(OpKind.CONV2D, 8, Window((1, 1)))
    net.pool(OpKind.MAX_POOL, Window((2, 2), (2, 2)))
    net.weighted(OpKind.CONV2D, 8, same)
    net.flatten()
    net.weighted(OpKind.FULLY_CONNECTED, CLASSES, clamp=LINEAR, out_scale=0.08)
    graph = net.graph()
    weighted = [op.name for op in graph.ops if len(op.inputs) > 1]
    trainables = [Trainable(weighted[-2], 1e-3), Trainable(weighted[-1], 1e-3)]
    kept = rng.integers(-128, 128, (10, 8, 8, 1)).astype(np.int8)
    rehearsal = RehearsalSet(kept, np.arange(10, dtype=np.int64) % CLASSES)
    return finish(graph, trainables, rehearsal, tuple("abcde")).image


def inputs() -> Int8:
    """[SAMPLES, 8, 8, 1] as fl_random_fill() draws them from SEED."""
    ffi, lib = core()
    drawn = ffi.new("uint8_t[]", SAMPLES * SAMPLE_BYTES)
    lib.fl_random_fill(drawn, len(drawn), SEED)
    return np.frombuffer(ffi.buffer(drawn), np.int8).reshape(SAMPLES, 8, 8, 1).copy()


def labels() -> list[int]:
    return [3 * i % CLASSES for i in range(SAMPLES)]


def learned(image: bytes) -> bytes:
    """State after a step on each of the inputs."""
    learner = Learner(Model(image), LearnerConfig(lr=RATE, replays=REPLAYS, memory=3))
    learner.run(inputs(), labels())
    stats = learner.stats
    if not 0 < stats.trained < stats.samples + stats.replayed:
        raise SystemExit(f"make_data.py: a model that learns and skips is wanted, got {stats}")
    return learner.state


def array(name: str, data: bytes, *, align: int = 1) -> str:
    rows = (data[i : i + 24] for i in range(0, len(data), 24))
    lines = ["    " + ",".join(str(byte) for byte in row) + "," for row in rows]
    place = f" __attribute__((aligned({align})))" if align > 1 else ""
    return f"static const uint8_t {name}[{len(data)}]{place} = {{\n" + "\n".join(lines) + "\n};\n"


def header(*parts: str) -> str:
    top = "// Made by zephyr_app/tests/make_data.py; do not edit.\n#include <stdint.h>\n"
    return "\n".join((top, *parts))


def model_header() -> str:
    image = small_model()
    model = Model(image)
    outputs = model.predict_int8(inputs())
    constants = {
        "SEED": SEED,
        "SAMPLES": SAMPLES,
        "SAMPLE_BYTES": SAMPLE_BYTES,
        "CLASSES": CLASSES,
        "REPLAYS": REPLAYS,
        "MEMORY": 3,
    }
    lines = "".join(f"#define DATA_{name} {value}\n" for name, value in constants.items())
    lines += f"#define DATA_RATE {RATE}f\n"
    return header(
        lines,
        array("data_image", image, align=16),
        array("data_labels", bytes(labels())),
        "// [SAMPLES, CLASSES] int8, of the factory's weights\n"
        + array("data_outputs", outputs.tobytes()),
        "// after a step on each input: what a commit writes\n"
        + array("data_state", learned(image)),
    )


def link_header() -> str:
    """A request, which is its own raw frame, and its console frame."""
    message = encode_message(
        {"x": bytes(range(200)), "y": bytes((1, 2, 3))}, op=Op.WRITE, cmd=6, seq=77, group=70
    )
    return header(
        array("data_message", message),
        array("data_console", frame(message, Framing.CONSOLE)),
    )


def files() -> dict[Path, str]:
    """Every generated file with what belongs into it."""
    return {DATA / "model.h": model_header(), DATA / "link.h": link_header()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 on differences"
    )
    check = parser.parse_args().check
    stale = [p for p, text in files().items() if not p.exists() or p.read_text() != text]
    for path in stale:
        print(f"{'differs' if check else 'writing'}: {path.relative_to(HERE.parents[1])}")
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(files()[path])
    return int(check and bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())
