"""The graph refuses what is not one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_graphs import random_graph

from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, Op, OpKind, Window
from fieldloop.ir.reference import run
from fieldloop.ir.shapes import macs
from fieldloop.ir.tensor import DType, Quant, Tensor


@pytest.fixture
def graph() -> Graph:
    return random_graph(3)


def test_constants_cannot_be_changed(graph: Graph) -> None:
    data = graph.tensors["head.weights"].data
    assert data is not None
    with pytest.raises(ValueError, match="read-only"):
        data[0, 0] = 1.0


def test_order_is_checked(graph: Graph) -> None:
    with pytest.raises(UsageError, match="before it is written"):
        graph.with_ops(graph.ops[::-1])


def test_shapes_are_checked(graph: Graph) -> None:
    tensors = dict(graph.tensors)
    tensors["head"] = replace(tensors["head"], shape=(1, 99))
    with pytest.raises(UsageError, match="operator 'head' makes"):
        replace(graph, tensors=tensors)


def test_unused_tensors_and_doubled_operators_are_refused(graph: Graph) -> None:
    with pytest.raises(UsageError, match="nobody reads"):
        replace(graph, tensors={**graph.tensors, "z": Tensor("z", (1, 2))})
    with pytest.raises(UsageError, match="two operators"):
        graph.with_ops([*graph.ops, graph.ops[-1]])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Tensor("t", (1, 0)), "each at least 1"),
        (lambda: Tensor("t", (2,), data=np.zeros(3, np.float32)), "expected data"),
        (lambda: Tensor("t", (2,), DType.INT8, Quant((1.0, 1.0, 1.0), 0, 0)), "do not match"),
        (lambda: Quant((0.1,)), "float32"),
        (lambda: Quant((float("nan"),)), "float32"),
        (lambda: Quant((1.0, 2.0)), "an axis"),
        (lambda: Clamp(1.0, 0.0), "lo <= hi"),
        (lambda: Op("o", OpKind.CONV2D, ("a", "b"), "c"), "window"),
        (lambda: Op("o", OpKind.ADD, ("a",), "c"), "takes"),
        (lambda: Window((0, 1)), "window"),
    ],
)
def test_bad_parts_are_refused(make: object, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        make()  # type: ignore[operator]


def test_clamps_in_a_row_are_one() -> None:
    assert Clamp(0.0).then(Clamp(-1.0, 6.0)) == Clamp(0.0, 6.0)
    assert Clamp(0.0, 1.0).then(Clamp(2.0, 3.0)) == Clamp(2.0, 2.0)


def test_the_batch_is_checked(graph: Graph) -> None:
    with pytest.raises(UsageError, match="NHWC"):
        run(graph, {"x": np.zeros((2, 3))})
    with pytest.raises(UsageError, match="expected inputs"):
        run(graph, {"y": np.zeros((2, 3))})


def test_macs_of_a_convolution() -> None:
    tensors = {
        "x": Tensor("x", (1, 8, 8, 3)),
        "w": Tensor("w", (16, 3, 3, 3), data=np.zeros((16, 3, 3, 3), np.float32)),
        "y": Tensor("y", (1, 4, 4, 16)),
    }
    op = Op("c", OpKind.CONV2D, ("x", "w"), "y", Window((3, 3), (2, 2), pads=(1, 1, 1, 1)))
    assert macs(op, tensors) == 4 * 4 * 16 * 27
    assert Graph("g", tensors, (op,), ("x",), ("y",)).macs() == 4 * 4 * 16 * 27
