"""Real handwritten digits (scikit-learn's own 1,797), and a net trained on some of them."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from fieldloop.compiler import compile_graph
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, Op, OpKind
from fieldloop.ir.tensor import DType, Tensor
from fieldloop.runtime import Model

Array = np.ndarray[Any, Any]
MISSING = (8, 9)


@dataclass(frozen=True)
class Task:
    """Real handwritten digits; the image's net has seen none of the missing ones."""

    image: bytes
    stream: tuple[Array, Array]  # labelled samples of the missing digits; of all if none is
    test: tuple[Array, Array]  # of all ten


@functools.cache
def digits_task(missing: tuple[int, ...] = MISSING) -> Task:
    """Made once a process: about a second."""
    x, y = datasets.load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.3, stratify=y, random_state=0)
    known = ~np.isin(y, missing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it need not converge
        mlp = MLPClassifier((64,), max_iter=120, random_state=0).fit(x[known], y[known])

    # ten output rows, of which the untrained are zero with the mean bias
    w1, w2 = (w.T.astype(np.float32) for w in mlp.coefs_)
    b1, b2 = (b.astype(np.float32) for b in mlp.intercepts_)
    w2 = np.vstack([w2, np.zeros((len(missing), w2.shape[1]), np.float32)])
    b2 = np.append(b2, [b2.mean()] * len(missing)).astype(np.float32)
    tensors = [
        Tensor("x", (1, 64)),
        Tensor("w1", w1.shape, DType.FLOAT32, None, w1),
        Tensor("b1", b1.shape, DType.FLOAT32, None, b1),
        Tensor("hidden", (1, 64)),
        Tensor("w2", w2.shape, DType.FLOAT32, None, w2),
        Tensor("b2", b2.shape, DType.FLOAT32, None, b2),
        Tensor("logits", (1, 10)),
    ]
    ops = (
        Op("fc1", OpKind.FULLY_CONNECTED, ("x", "w1", "b1"), "hidden", clamp=Clamp(lo=0.0)),
        Op("fc2", OpKind.FULLY_CONNECTED, ("hidden", "w2", "b2"), "logits"),
    )
    graph = Graph("mlp", {t.name: t for t in tensors}, ops, ("x",), ("logits",))
    old = np.concatenate([np.flatnonzero(y == c)[:20] for c in sorted({*y[known]})])
    compiled = compile_graph(
        graph,
        x[known],
        labels=tuple("0123456789"),
        learn=2,
        rehearsal=(x[old], y[old]),
        inner_rate=0.02,
    )
    new = np.flatnonzero(~known if missing else known)
    order = np.tile(np.random.default_rng(0).permutation(new), 2)
    return Task(compiled.image, (x[order], y[order]), (x_test, y_test))


def accuracy(model: Model, task: Task) -> tuple[float, float]:
    """On the missing digits, on the others."""
    x, y = task.test
    right = model.classify(x) == y
    new = np.isin(y, MISSING)
    return float(right[new].mean()), float(right[~new].mean())
