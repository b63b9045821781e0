"""Learning that means something: a net that knows eight digits is taught the other two."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fieldloop.compiler import compile_graph
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, Op, OpKind
from fieldloop.ir.tensor import DType, Tensor
from fieldloop.runtime import Learner, LearnerConfig, Model

Array = np.ndarray[Any, Any]
MISSING = (8, 9)


@dataclass(frozen=True)
class Task:
    """Real handwritten digits; the image's net has seen none of the MISSING ones."""

    image: bytes
    stream: tuple[Array, Array]  # labelled samples of the missing digits
    test: tuple[Array, Array]  # of all ten


@pytest.fixture(scope="module")
def task() -> Task:
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    x, y = datasets.load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.3, stratify=y, random_state=0)
    known = ~np.isin(y, MISSING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it need not converge
        mlp = MLPClassifier((64,), max_iter=120, random_state=0).fit(x[known], y[known])

    # ten output rows, of which the two untrained are zero with the mean bias
    w1, w2 = (w.T.astype(np.float32) for w in mlp.coefs_)
    b1, b2 = (b.astype(np.float32) for b in mlp.intercepts_)
    w2 = np.vstack([w2, np.zeros((2, w2.shape[1]), np.float32)])
    b2 = np.append(b2, [b2.mean()] * 2).astype(np.float32)
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
    old = np.concatenate([np.flatnonzero(y == c)[:20] for c in range(8)])
    compiled = compile_graph(
        graph,
        x[known],
        labels=tuple("0123456789"),
        learn=2,
        rehearsal=(x[old], y[old]),
        inner_rate=0.02,
    )
    new = np.flatnonzero(~known)
    order = np.tile(np.random.default_rng(0).permutation(new), 2)
    return Task(compiled.image, (x[order], y[order]), (x_test, y_test))


def accuracy(model: Model, task: Task) -> tuple[float, float]:
    """On the missing digits, on the others."""
    x, y = task.test
    right = model.classify(x) == y
    new = np.isin(y, MISSING)
    return float(right[new].mean()), float(right[~new].mean())


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("selector", ["tinypropv2", "dense"])
def test_two_new_digits_are_learned_and_eight_kept(task: Task, selector: str, layers: int) -> None:
    model = Model(task.image)
    new_before, old_before = accuracy(model, task)
    assert new_before <= 0.15 and old_before >= 0.95
    config = LearnerConfig(
        selector=selector,  # type: ignore[arg-type]
        layers=layers,
        memory=100,
        seed=1,
    )
    learner = Learner(model, config)
    learner.run(*task.stream)
    new_after, old_after = accuracy(model, task)
    stats = learner.stats
    share = stats.backward_macs / stats.dense_backward_macs
    print(
        f"{selector} {layers}: new {new_after:.3f} old {old_before:.3f} -> {old_after:.3f}, "
        f"backward {share:.3f}, {stats}"
    )
    assert new_after >= 0.85
    assert old_before - old_after <= 0.06
    assert stats.refused == 0
    assert share == 1.0 if selector == "dense" else share <= 0.3


def test_without_rehearsal_the_old_digits_are_forgotten(task: Task) -> None:
    model = Model(task.image)
    _, old_before = accuracy(model, task)
    half = len(task.stream[1]) // 2
    config = LearnerConfig(selector="dense", layers=1, replays=0, seed=1)
    Learner(model, config).run(task.stream[0][:half], task.stream[1][:half])
    new_after, old_after = accuracy(model, task)
    assert new_after >= 0.85
    assert old_before - old_after >= 0.1


def test_sparse_with_a_ratio_of_one_is_dense_on_real_data(task: Task) -> None:
    states = []
    one = LearnerConfig(selector="tinyprop", s_min=1, s_max=1, zeta=1, memory=50, seed=3)
    for config in (one, dataclasses.replace(one, selector="dense")):
        learner = Learner(Model(task.image), config)
        learner.run(task.stream[0][:60], task.stream[1][:60])
        states.append(learner.weights())
    for op, (w, b) in states[0].items():
        assert (w == states[1][op][0]).all()
        assert b is not None and (b == states[1][op][1]).all()
