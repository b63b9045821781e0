"""A task made ready to run: compiled, cut, its samples passed through the trunk; kept in a file.

Workers read the file; nothing but arrays and images travels between processes.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fieldloop.compiler import compile_graph
from fieldloop.errors import UsageError
from fieldloop.frontends.torch_frontend import from_torch, to_nhwc
from fieldloop.runtime import Model
from fieldloop.study.tail import cut
from fieldloop.study.tasks import TASKS

SHIFT, SCRATCH = "shift", "scratch"
THREADS = 1  # of torch, in every process: the cores are taken by runs


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """`x_*`: int8 inputs of the tail [n, elements]. `whole`: all layers, for its RAM."""

    name: str
    mode: str
    image: bytes
    whole: bytes
    layers: tuple[str, ...]
    trunk_macs: int
    forward_macs: int  # of the whole model, one sample
    x_pool: npt.NDArray[np.int8]
    y_pool: npt.NDArray[np.int64]
    x_test: npt.NDArray[np.int8]
    y_test: npt.NDArray[np.int64]
    before: float  # accuracy of the untouched model on the test samples
    same: bool  # trunk and tail say the same as the whole model, on every test sample
    rates: tuple[float, ...] = ()  # lr_scale of each trained layer, from the head backwards
    # From scratch only: samples as real numbers in torch's order, and the network's parameters.
    floats: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """All of them are tested."""
        return int(self.y_test.max()) + 1

    @property
    def fingerprint(self) -> str:
        """Another image or other samples are another task."""
        digest = hashlib.sha256(self.image)
        for array in (self.x_pool, self.y_pool, self.x_test, self.y_test):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def prepare_shift(name: str, folder: Path) -> Prepared:
    """A task of fine-tuning the last layers."""
    torch.set_num_threads(THREADS)
    task = TASKS[name]
    data = task.shifted(folder)
    graph = from_torch(data.network, torch.from_numpy(data.x_test[:1]))
    calibration = to_nhwc(data.calibration)
    whole = compile_graph(graph, calibration, learn=task.layers)
    parts = cut(whole, calibration, task.cut, rate=task.rate)
    x_test = parts.features(to_nhwc(data.x_test))
    model, tail = Model(whole.image), Model(parts.tail.image)
    answers = tail.classify(x_test)
    return Prepared(
        name=name,
        mode=SHIFT,
        image=parts.tail.image,
        whole=whole.image,
        layers=parts.layers,
        trunk_macs=parts.trunk_macs,
        forward_macs=model.macs,
        x_pool=parts.features(to_nhwc(data.x_pool)),
        y_pool=data.y_pool,
        x_test=x_test,
        y_test=data.y_test,
        before=float((answers == data.y_test).mean()),
        same=bool((answers == model.classify(to_nhwc(data.x_test))).all()),
        rates=tuple(layer.lr_scale for layer in parts.tail.trainables),
    )


def store(path: Path, made: Prepared) -> None:
    np.savez(
        path,
        text=np.array([made.name, made.mode, *made.layers]),
        image=np.frombuffer(made.image, np.uint8),
        whole=np.frombuffer(made.whole, np.uint8),
        numbers=np.array([made.trunk_macs, made.forward_macs, made.same], np.int64),
        before=np.array(made.before),
        x_pool=made.x_pool,
        y_pool=made.y_pool,
        x_test=made.x_test,
        y_test=made.y_test,
        rates=np.array(made.rates),
        **{f"float.{key}": value for key, value in made.floats.items()},
    )


def load(path: Path) -> Prepared:
    """What `prepare` kept; UsageError where the file is damaged."""
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{path} cannot be read ({error}); delete it, it is prepared again"
        ) from error


def _read(path: Path) -> Prepared:
    with np.load(path, allow_pickle=False) as file:
        text = [str(word) for word in file["text"]]
        trunk_macs, forward_macs, same = (int(n) for n in file["numbers"])
        return Prepared(
            text[0],
            text[1],
            file["image"].tobytes(),
            file["whole"].tobytes(),
            tuple(text[2:]),
            trunk_macs,
            forward_macs,
            file["x_pool"],
            file["y_pool"],
            file["x_test"],
            file["y_test"],
            float(file["before"]),
            bool(same),
            tuple(float(r) for r in file["rates"]),
            {
                key.removeprefix("float."): file[key]
                for key in file.files
                if key.startswith("float.")
            },
        )
