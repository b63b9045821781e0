"""The runtime's model: several inputs and dtypes, operator by operator, and other kernels."""

from __future__ import annotations

import numpy as np
import pytest
from random_graphs import random_graph, samples_for

from fieldloop.compiler import Compiled, compile_graph
from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Concat, Op, OpKind, Unary, UnaryKind
from fieldloop.ir.reference import run
from fieldloop.ir.reference_int8 import run_int8
from fieldloop.ir.tensor import DType, Quant, Tensor
from fieldloop.runtime import Model
from fieldloop.runtime.core import VARIANTS, load


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    graph = random_graph(11, depth=4)
    return compile_graph(graph, samples_for(graph, 11, 30), learn=None)


def two_in_two_out() -> Graph:
    """An index looks up a row, which is joined to real numbers; int8 leaves beside float32."""
    rng = np.random.default_rng(0)
    row = rng.normal(size=(10, 4)).astype(np.float32)
    tensors = [
        Tensor("index", (1, 2), DType.INT32),
        Tensor("x", (1, 2, 3)),
        Tensor("table", (10, 4), data=row),
        Tensor("rows", (1, 2, 4)),
        Tensor("joined", (1, 2, 7)),
        Tensor("y", (1, 2, 7)),
        Tensor("q", (1, 2, 7), DType.INT8, Quant((0.0625,), 5)),
    ]
    ops = (
        Op("rows", OpKind.EMBEDDING, ("index", "table"), "rows"),
        Op("joined", OpKind.CONCAT, ("rows", "x"), "joined", attrs=Concat(2)),
        Op("y", OpKind.UNARY, ("joined",), "y", attrs=Unary(UnaryKind.LEAKY_RELU, 0.25)),
        Op("q", OpKind.QUANTIZE, ("y",), "q"),
    )
    return Graph("two", {t.name: t for t in tensors}, ops, ("index", "x"), ("y", "q"))


def test_several_inputs_and_outputs_of_several_dtypes() -> None:
    graph = two_in_two_out()
    model = Model(compile_graph(graph).image)
    assert [t.dtype for t in model.inputs] == ["int32", "float32"]
    assert [t.dtype for t in model.outputs] == ["float32", "int8"]
    rng = np.random.default_rng(1)
    index = rng.integers(-3, 14, (6, 2))  # some outside: the nearest row
    x = rng.normal(size=(6, 2, 3)).astype(np.float32)
    expected = run(graph, {"index": index, "x": x})
    y, q = model.run(index, x)
    np.testing.assert_array_equal(y, expected["y"].reshape(6, -1))
    np.testing.assert_array_equal(q, expected["q"].reshape(6, -1))
    real, dequantised = model.predict([index, x])
    np.testing.assert_array_equal(real, y)
    np.testing.assert_array_equal(dequantised, (q.astype(np.float32) - 5) * 0.0625)
    assert "int32" in repr(model) and "float32" in repr(model)


def test_wrong_inputs_are_refused() -> None:
    model = Model(compile_graph(two_in_two_out()).image)
    index, x = np.zeros((2, 2), np.int32), np.zeros((2, 2, 3), np.float32)
    with pytest.raises(UsageError, match="expected 2 inputs, got 1"):
        model.run(index)
    with pytest.raises(UsageError, match="expected integers, got float64"):
        model.run(index.astype(np.float64), x)
    with pytest.raises(UsageError, match="as many samples"):
        model.run(index, x[:1])
    with pytest.raises(UsageError, match="expected int8 outputs, got float32"):
        model.predict_int8(index)


def test_operator_by_operator(compiled: Compiled) -> None:
    """Every value that the reference sees lies in its tensor right after its operator."""
    x = compiled.input_quant.quantize(samples_for(compiled.graph, 3, 1))
    seen: dict[str, np.ndarray] = {}
    run_int8(compiled.graph, {compiled.graph.inputs[0]: x}, lambda n, v: seen.update({n: v}))
    model = Model(compiled.image)
    model.tensor(model.input_tensors[0])[:] = x
    for i, op in enumerate(compiled.graph.ops):
        model.run_ops(i, i + 1)
        made = len(compiled.graph.inputs) + i  # activations come first in the image
        np.testing.assert_array_equal(model.tensor(made), seen[op.output])
    with pytest.raises(UsageError, match="expected operators within"):
        model.run_ops(0, model.op_count + 1)
    with pytest.raises(UsageError, match="expected a tensor of"):
        model.tensor(10_000)
    weights = next(t for t in range(model.op_count, 10_000) if not model.tensor(t).flags.writeable)
    with pytest.raises(ValueError, match="read-only"):
        model.tensor(weights)[...] = 0


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_other_kernels_give_the_same_bytes(compiled: Compiled, variant: str) -> None:
    _, lib = load(variant)
    assert lib.fl_kernels_variant() == VARIANTS[variant]
    x = samples_for(compiled.graph, 4, 10)
    plain, model = Model(compiled.image), Model(compiled.image, variant=variant)
    np.testing.assert_array_equal(model.predict_int8(x), plain.predict_int8(x))
    # what a board needs is known without its kernels
    assert plain.variant_arena_bytes(variant) == model.arena_bytes
    assert plain.scratch_bytes(variant) == model.scratch_bytes()
    assert plain.scratch_bytes() == 0


def test_unknown_kernels_are_refused(compiled: Compiled) -> None:
    with pytest.raises(UsageError, match="expected one of plain, dsp, mve"):
        Model(compiled.image, variant="neon")
