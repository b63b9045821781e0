"""docs/SPEC-model.md: the writer makes its example, which computes what arithmetic says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from core_runner import CoreModel

from fieldloop.image.writer import write_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Op, OpKind, Requant
from fieldloop.ir.tensor import DType, Quant, Tensor
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.types import PlanKind
from fieldloop.quantize.fixedpoint import weighted_factors

SPEC = Path(__file__).resolve().parents[2] / "docs" / "SPEC-model.md"


def example_in_the_text() -> bytes:
    lines = re.findall(r"^[0-9a-f]{3}  ((?:[0-9a-f]{2}[ |]?){16})", SPEC.read_text(), re.M)
    return bytes.fromhex("".join(lines).replace("|", " "))


def example() -> bytes:
    x, y = Quant((0.5,), -1), Quant((1.0,), 3)
    w = Quant((0.25, 0.125), 0, 0)
    b = Quant((0.125, 0.0625), 0, 0)
    tensors = [
        Tensor("x", (1, 4), DType.INT8, x),
        Tensor("w", (2, 4), DType.INT8, w, np.array([[1, 2, 3, 4], [-1, -2, -3, -4]], np.int8)),
        Tensor("b", (2,), DType.INT32, b, np.array([8, -8], np.int32)),
        Tensor("y", (1, 2), DType.INT8, y),
    ]
    factors = weighted_factors(x, w, y)
    op = Op("fc", OpKind.FULLY_CONNECTED, ("x", "w", "b"), "y", fixed=Requant(-128, 127, factors))
    graph = Graph("example", {t.name: t for t in tensors}, (op,), ("x",), ("y",))
    return write_image(graph, [plan_graph(graph, PlanKind.INFER)], labels=["no", "yes"])


def test_the_example_is_what_the_writer_makes() -> None:
    assert example_in_the_text() == example()


def test_the_example_computes_what_it_says() -> None:
    # (2, 3, 4, 5) . (1, 2, 3, 4) = 40; (40 + 8) / 8 + 3 = 9; (-40 - 8) / 16 + 3 = 0
    x = np.array([[1, 2, 3, 4]], np.int8)
    np.testing.assert_array_equal(CoreModel(example_in_the_text()).run(x), [[9, 0]])
