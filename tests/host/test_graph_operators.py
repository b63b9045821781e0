"""Each operator of the graph: the shapes it makes, and what it refuses."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fieldloop.errors import UsageError
from fieldloop.ir.arithmetic import check_fixed, pad_value
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import (
    CONCAT_MAX,
    AddFixed,
    Clamp,
    Concat,
    Factor,
    Mean,
    Op,
    OpKind,
    Pad,
    Requant,
    Slice,
    Transpose,
    Unary,
    UnaryKind,
    Window,
)
from fieldloop.ir.shapes import broadcast, macs, output_shape
from fieldloop.ir.tensor import DType, Quant, Tensor

I8, I32, F32 = DType.INT8, DType.INT32, DType.FLOAT32
K = OpKind
HALF = Quant((0.5,), 3)


def shape_of(
    kind: OpKind, *shapes: tuple[int, ...], out: tuple[int, ...] = (1,), **fields: Any
) -> tuple[int, ...]:
    tensors = {f"t{i}": Tensor(f"t{i}", shape) for i, shape in enumerate(shapes)}
    tensors["y"] = Tensor("y", out)
    return output_shape(Op("o", kind, tuple(list(tensors)[:-1]), "y", **fields), tensors)


@pytest.mark.parametrize(
    ("kind", "shapes", "fields", "made"),
    [
        (K.CONV2D, [(1, 5, 5, 6), (4, 3, 3, 2)], {"window": Window((3, 3)), "groups": 3}, None),
        (K.CONV2D, [(1, 5, 5, 6), (6, 3, 3, 2)], {"window": Window((3, 3)), "groups": 3}, 0),
        (K.SUB, [(1, 4, 1, 3), (2, 1)], {}, (1, 4, 2, 3)),
        (K.MUL, [(3,), (1, 4, 2, 1)], {}, (1, 4, 2, 3)),
        (K.MINIMUM, [(1, 4), (1, 3)], {}, None),
        (K.CONCAT, [(1, 2, 3), (1, 5, 3), (1, 1, 3)], {"attrs": Concat(1)}, (1, 8, 3)),
        (K.CONCAT, [(1, 2, 3), (1, 2, 4)], {"attrs": Concat(1)}, None),
        (K.CONCAT, [(1, 2, 3)], {"attrs": Concat(3)}, None),
        (K.CONCAT, [(1, 2, 3), (1, 2)], {"attrs": Concat(1)}, None),
        (K.PAD, [(1, 2, 3)], {"attrs": Pad((0, 1, 2), (1, 0, 0))}, (2, 3, 5)),
        (K.PAD, [(1, 2, 3)], {"attrs": Pad((0, 1), (1, 0))}, None),
        (K.PAD, [(1, 2)], {"attrs": Pad((0, -1), (1, 0))}, None),
        (K.TRANSPOSE, [(1, 2, 3)], {"attrs": Transpose((2, 0, 1))}, (3, 1, 2)),
        (K.TRANSPOSE, [(1, 2, 3)], {"attrs": Transpose((2, 0, 2))}, None),
        (K.SLICE, [(1, 7)], {"attrs": Slice((0, 1), (1, 6), (1, 2))}, (1, 3)),
        (K.SLICE, [(1, 7)], {"attrs": Slice((0, 1), (1, 8), (1, 2))}, None),
        (K.SLICE, [(1, 7)], {"attrs": Slice((0, 3), (1, 3), (1, 1))}, None),
        (K.SLICE, [(1, 7)], {"attrs": Slice((0, 1), (1, 6), (1, 0))}, None),
        (K.SLICE, [(1, 7)], {"attrs": Slice((0,), (1,), (1,))}, None),
        (K.MEAN, [(1, 4, 5, 6)], {"attrs": Mean((1, 2))}, (1, 6)),
        (K.MEAN, [(1, 4, 5, 6)], {"attrs": Mean((1, 2), True)}, (1, 1, 1, 6)),
        (K.MEAN, [(4, 5)], {"attrs": Mean((0, 1))}, (1,)),
        (K.MEAN, [(4, 5)], {"attrs": Mean((1, 0))}, None),
        (K.MEAN, [(4, 5)], {"attrs": Mean(())}, None),
        (K.MEAN, [(4, 5)], {"attrs": Mean((2,))}, None),
        (K.TABLE, [(1, 9), (256,)], {}, (1, 9)),
        (K.TABLE, [(1, 9), (255,)], {}, None),
        (K.EMBEDDING, [(1, 9), (50, 7)], {}, (1, 9, 7)),
        (K.EMBEDDING, [(1, 9), (50,)], {}, None),
        (K.EMBEDDING, [(1, 2, 3, 4), (50, 7)], {}, None),
        (K.UNARY, [(1, 9)], {"attrs": Unary(UnaryKind.TANH)}, (1, 9)),
        (K.RESHAPE, [(1, 6)], {"out": (2, 3)}, (2, 3)),
        (K.RESHAPE, [(1, 6)], {"out": (2, 4)}, None),
        (K.SOFTMAX, [(1, 3, 5)], {}, (1, 3, 5)),
    ],
)
def test_shapes(
    kind: OpKind, shapes: list[tuple[int, ...]], fields: dict[str, Any], made: Any
) -> None:
    """`made` None: refused in one line; 0: that of a convolution of 5 x 5 by 3 x 3."""
    if made is None:
        with pytest.raises(UsageError, match=rf"operator o \({kind.value}\): expected"):
            shape_of(kind, *shapes, **fields)
    else:
        assert shape_of(kind, *shapes, **fields) == (made or (1, 3, 3, 6))


def test_broadcasting_is_numpys() -> None:
    sizes = [(), (1,), (3,), (2, 1), (2, 3), (1, 3), (4, 1, 3), (4, 2, 1)]
    for a, b in itertools.product(sizes, sizes):
        try:
            expected: tuple[int, ...] | None = np.broadcast_shapes(a, b)
        except ValueError:
            expected = None
        assert broadcast(a, b) == expected


def test_macs_of_groups() -> None:
    tensors = {
        "x": Tensor("x", (1, 5, 5, 6)),
        "w": Tensor("w", (6, 3, 3, 2), data=np.zeros((6, 3, 3, 2), np.float32)),
        "y": Tensor("y", (1, 3, 3, 6)),
    }
    op = Op("o", K.CONV2D, ("x", "w"), "y", Window((3, 3)), groups=3)
    assert macs(op, tensors) == 9 * 6 * 18


# ---- dtypes and quantisation


def one(kind: OpKind, ins: list[Tensor], out: Tensor, **fields: Any) -> Graph:
    op = Op("o", kind, tuple(t.name for t in ins), out.name, **fields)
    given = tuple(t.name for t in ins if not t.is_constant)
    return Graph("g", {t.name: t for t in (*ins, out)}, (op,), given, (out.name,))


def act(name: str, dtype: DType, quant: Quant | None = HALF) -> Tensor:
    return Tensor(name, (1, 4), dtype, quant if dtype is I8 else None)


def const(name: str, shape: tuple[int, ...], dtype: DType, quant: Quant | None = None) -> Tensor:
    return Tensor(name, shape, dtype, quant, np.zeros(shape, dtype.value))


@pytest.mark.parametrize(
    ("kind", "ins", "out", "fields", "match"),
    [
        (K.ADD, [act("a", I8), act("b", F32)], act("y", I8), {}, "int8, int8 -> int8"),
        (K.MUL, [act("a", I32), act("b", I32)], act("y", I32), {}, "int8 or float32"),
        (K.SOFTMAX, [act("a", F32)], act("y", I8), {}, "float32 -> float32"),
        (K.QUANTIZE, [act("a", I8)], act("y", I8), {}, "float32 -> int8"),
        (K.DEQUANTIZE, [act("a", I8)], act("y", I8), {}, "int8 -> float32"),
        (K.UNARY, [act("a", I8)], act("y", I8), {"attrs": Unary(UnaryKind.ABS)}, "float32"),
        (K.RESHAPE, [act("a", I8)], act("y", F32), {}, "float32 -> float32"),
        (K.RESHAPE, [act("a", I8)], act("y", I8, Quant((0.5,), 4)), {}, "one quantisation"),
        (
            K.CONCAT,
            [act("a", I8), act("b", I8, Quant((0.25,), 3))],
            Tensor("y", (1, 8), I8, HALF),
            {"attrs": Concat(1)},
            "one quantisation",
        ),
        (
            K.MAXIMUM,
            [act("a", I8), act("b", I8)],
            act("y", I8, Quant((0.5,))),
            {},
            "one quantisation",
        ),
        (K.TABLE, [act("a", I8), const("t", (256,), F32)], act("y", I8), {}, "int8, int8"),
        (
            K.EMBEDDING,
            [act("a", F32), const("t", (9, 2), F32)],
            Tensor("y", (1, 4, 2)),
            {},
            "int32 or int8 index",
        ),
        (
            K.EMBEDDING,
            [act("a", I32), const("t", (9, 2), I8, Quant((0.5,)))],
            Tensor("y", (1, 4, 2), I8, HALF),
            {},
            "one quantisation",
        ),
        (
            K.FULLY_CONNECTED,
            [act("a", I8), const("w", (2, 4), I8, HALF), const("b", (2,), F32)],
            Tensor("y", (1, 2), I8, HALF),
            {},
            "int8, int8, int32 -> int8",
        ),
        (
            K.FULLY_CONNECTED,
            [act("a", F32), const("w", (2, 4), I8, HALF)],
            Tensor("y", (1, 2)),
            {},
            "float32, float32 -> float32",
        ),
    ],
)
def test_dtypes_are_checked(
    kind: OpKind, ins: list[Tensor], out: Tensor, fields: dict[str, Any], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        one(kind, ins, out, **fields)


def test_constants_are_checked() -> None:
    with pytest.raises(UsageError, match="tables must be constants"):
        one(K.EMBEDDING, [act("a", I32), act("t", F32)], Tensor("y", (1, 4, 4)))
    with pytest.raises(UsageError, match="nothing but constants"):
        op = Op("o", K.SUB, ("c", "d"), "y")
        constants = [const("c", (1, 4), F32), const("d", (1, 4), F32)]
        tensors = [*constants, act("x", F32), act("y", F32), act("z", F32)]
        other = Op("p", K.ADD, ("x", "y"), "z")
        Graph("g", {t.name: t for t in tensors}, (op, other), ("x",), ("z",))
    # a constant may come first where the operator takes two alike
    assert one(K.SUB, [const("c", (1, 4), F32), act("x", F32)], act("y", F32)).inputs == ("x",)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Op("o", K.CONCAT, ("a",), "y"), "takes Concat"),
        (lambda: Op("o", K.CONCAT, ("a",) * (CONCAT_MAX + 1), "y", attrs=Concat(0)), "1 to 24"),
        (lambda: Op("o", K.ADD, ("a", "b"), "y", attrs=Concat(0)), "no attributes"),
        (lambda: Op("o", K.PAD, ("a",), "y", attrs=Mean((0,))), "takes Pad"),
        (lambda: Op("o", K.TABLE, ("a",), "y"), "2 to 2"),
        (lambda: Op("o", K.TABLE, ("a", "t"), "y", clamp=Clamp(0.0)), "no activation"),
        (lambda: Op("o", K.FULLY_CONNECTED, ("a", "w"), "y", groups=2), "2 groups"),
        (lambda: Op("o", K.CONV2D, ("a", "w"), "y", Window((1, 1)), groups=0), "0 groups"),
    ],
)
def test_operators_are_checked(make: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        make()


def test_fixed_point_arithmetic_is_that_of_the_operator() -> None:
    tensors = {"a": act("a", I8), "b": act("b", I8), "y": act("y", I8)}
    wrong = Op("o", K.MUL, ("a", "b"), "y", fixed=Requant(-128, 127))
    with pytest.raises(UsageError, match=r"\(mul, int8\): expected MulFixed"):
        check_fixed(wrong, tensors)
    unit = Factor(1 << 30, 0)
    real = {name: act(name, F32) for name in tensors}
    summed = Op("o", K.ADD, ("a", "b"), "y", fixed=AddFixed(-128, 127, unit, unit, unit, 20))
    check_fixed(summed, tensors)
    with pytest.raises(UsageError, match=r"\(add, float\): expected nothing"):
        check_fixed(summed, real)
    check_fixed(Op("o", K.MINIMUM, ("a", "b"), "y"), tensors)


def test_a_padding_is_the_nearest_element() -> None:
    out = Tensor("y", (1, 4), I8, Quant((0.5,), 3))
    for value, q in ((0.0, 3), (1.0, 5), (0.25, 4), (-0.25, 2), (1e9, 127), (-1e9, -128)):
        assert pad_value(Pad((0, 0), (0, 0), value), out) == q
    assert pad_value(Pad((0,), (0,), 0.1), act("y", F32)) == float(np.float32(0.1))
    assert pad_value(Pad((0,), (0,), 7.0), act("y", I32)) == 7
