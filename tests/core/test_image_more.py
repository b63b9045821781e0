"""Refusals of the operators of image version 1.1: every shape, factor, list and axis is proven."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from core_runner import CoreModel, check_image
from more_ops import Maker
from patch import Patch
from single_ops import image_of

from fieldloop.image import format as f
from fieldloop.image.format import Opcode as O
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import (
    Concat,
    Mean,
    MeanFixed,
    MulFixed,
    Op,
    OpKind,
    Pad,
    Requant,
    Slice,
    Transpose,
    Unary,
    UnaryKind,
)
from fieldloop.ir.tensor import DType, Quant, Tensor
from fieldloop.quantize.fixedpoint import factor

BAD, NEW = "FL_EBADMSG", "FL_ENOTSUP"
QUANT = Quant((0.5,), 3)
I8, I32, F32 = DType.INT8, DType.INT32, DType.FLOAT32
LAYOUT = {
    O.CONCAT: f.CONCAT_PARAMS,
    O.PAD: f.PAD_PARAMS,
    O.TRANSPOSE: f.TRANSPOSE_PARAMS,
    O.SLICE: f.SLICE_PARAMS,
    O.MEAN: f.MEAN_PARAMS,
    O.MUL: f.MUL_PARAMS,
    O.SUB: f.ADD_PARAMS,
    O.UNARY: f.UNARY_PARAMS,
    O.CONV2D: f.CONV_PARAMS,
}
Spoil = Callable[[Patch], None]


def one(
    kind: OpKind, shapes: dict[str, tuple[int, ...]], dtype: DType = I8, **rest: object
) -> bytes:
    """One operator over tensors of one dtype and quantisation; the last one is the output."""
    names = list(shapes)
    tensors = {n: Tensor(n, shapes[n], dtype, QUANT if dtype is I8 else None) for n in names}
    op = Op("op", kind, tuple(names[:-1]), names[-1], **rest)  # type: ignore[arg-type]
    return image_of(Graph(kind.value, tensors, (op,), tuple(names[:-1]), (names[-1],)))


def concat(dtype: DType = I8) -> bytes:
    shapes = {f"x{i}": (1, i + 1, 2) for i in range(6)}
    return one(OpKind.CONCAT, {**shapes, "y": (1, 21, 2)}, dtype, attrs=Concat(1))


def pad(dtype: DType = I8) -> bytes:
    shapes = {"x": (2, 3), "y": (4, 6)}
    return one(OpKind.PAD, shapes, dtype, attrs=Pad((1, 0), (1, 3)))


def transpose() -> bytes:
    shapes = {"x": (2, 2, 3), "y": (2, 3, 2)}
    return one(OpKind.TRANSPOSE, shapes, attrs=Transpose((1, 2, 0)))


def slices() -> bytes:
    shapes = {"x": (5, 7), "y": (3, 2)}
    return one(OpKind.SLICE, shapes, attrs=Slice((0, 1), (5, 5), (2, 3)))


def mean() -> bytes:
    fixed = MeanFixed(-128, 127, factor(0.25))
    return one(OpKind.MEAN, {"x": (1, 3, 4), "y": (3,)}, fixed=fixed, attrs=Mean((0, 2)))


def mul() -> bytes:
    fixed = MulFixed(-128, 127, factor(0.5))
    return one(OpKind.MUL, {"a": (2, 1, 3), "b": (4, 1), "y": (2, 4, 3)}, fixed=fixed)


def sub() -> bytes:
    return image_of(Maker(np.random.default_rng(6)).sub())


def maximum() -> bytes:
    return one(OpKind.MAXIMUM, {"a": (2, 3), "b": (3,), "y": (2, 3)}, fixed=Requant(-128, 127))


def unary() -> bytes:
    return one(OpKind.UNARY, {"x": (4,), "y": (4,)}, F32, attrs=Unary(UnaryKind.TANH))


def table() -> bytes:
    return image_of(Maker(np.random.default_rng(1)).table())


def embedding() -> bytes:
    return image_of(Maker(np.random.default_rng(1)).embedding())


def grouped() -> bytes:
    return image_of(Maker(np.random.default_rng(2)).grouped_conv2d())


def float_conv() -> bytes:
    maker = Maker(np.random.default_rng(9))
    while True:
        graph = maker.conv2d()
        if len(graph.ops[0].inputs) == 3:
            return image_of(maker.in_float(graph))


def quantize() -> bytes:
    return image_of(Maker(np.random.default_rng(3)).quantize())


def dequantize() -> bytes:
    return image_of(Maker(np.random.default_rng(3)).dequantize())


def params(opcode: O, field: str, value: object) -> Spoil:
    def spoil(p: Patch) -> None:
        p.params(opcode, LAYOUT[opcode])[field] = value

    return spoil


def element(opcode: O, field: str, index: int, value: int) -> Spoil:
    def spoil(p: Patch) -> None:
        p.params(opcode, LAYOUT[opcode])[field][0, index] = value

    return spoil


def of(place: int, field: str, value: object) -> Spoil:
    """A field of tensor in[place] of the only operator; -1: its output."""

    def spoil(p: Patch) -> None:
        t = int(p.ops["out"][0, 0] if place < 0 else p.ops["in"][0, place])
        p.tensors[field][t] = value

    return spoil


def op(field: str, value: object) -> Spoil:
    def spoil(p: Patch) -> None:
        p.ops[field] = value

    return spoil


def bits(value: float) -> int:
    return int(np.array(value, "<f4").view("<i4"))


CASES: list[tuple[str, Callable[[], bytes], Spoil, str]] = [
    ("axis", concat, params(O.CONCAT, "axis", 3), BAD),
    ("another axis", concat, params(O.CONCAT, "axis", 2), BAD),
    ("no inputs", concat, params(O.CONCAT, "count", 0), BAD),
    ("an input less", concat, params(O.CONCAT, "count", 5), BAD),
    ("an input more", concat, params(O.CONCAT, "count", 7), BAD),
    ("25 inputs", concat, params(O.CONCAT, "count", 25), BAD),
    ("65535 inputs", concat, params(O.CONCAT, "count", 65535), BAD),
    ("fifth input unknown", concat, element(O.CONCAT, "more", 0, 999), BAD),
    ("fifth input absent", concat, element(O.CONCAT, "more", 0, 0xFFFF), BAD),
    ("fifth input is the output", concat, element(O.CONCAT, "more", 0, 6), BAD),
    ("an input behind the last", concat, element(O.CONCAT, "more", 19, 0), BAD),
    ("fourth input absent", concat, lambda p: p.ops["in"].__setitem__((0, 3), 0xFFFF), BAD),
    ("another scale", concat, of(2, "scale", 1.0), BAD),
    ("another zero point", concat, of(2, "zero_point", 4), BAD),
    ("another width", concat, of(1, "shape", (1, 1, 4, 1)), BAD),
    ("another rank", concat, of(1, "ndim", 4), BAD),
    ("before", pad, element(O.PAD, "before", 0, 2), BAD),
    ("after", pad, element(O.PAD, "after", 1, 65535), BAD),
    ("value above int8", pad, params(O.PAD, "value", 128), BAD),
    ("value below int8", pad, params(O.PAD, "value", -129), BAD),
    ("pad changes the scale", pad, of(-1, "scale", 1.0), BAD),
    ("padding of f32", lambda: pad(F32), params(O.PAD, "before", 9), BAD),
    ("axis twice", transpose, element(O.TRANSPOSE, "axis", 0, 0), BAD),
    ("axis beyond", transpose, element(O.TRANSPOSE, "axis", 2, 3), BAD),
    ("axes that fit by size only", transpose, element(O.TRANSPOSE, "axis", 2, 1), BAD),
    ("axis 255", transpose, element(O.TRANSPOSE, "axis", 1, 255), BAD),
    ("begin below 0", slices, element(O.SLICE, "begin", 0, -1), BAD),
    ("begin too late", slices, element(O.SLICE, "begin", 0, 1), BAD),
    ("stride 0", slices, element(O.SLICE, "stride", 0, 0), BAD),
    ("stride below 0", slices, element(O.SLICE, "stride", 1, -3), BAD),
    ("stride too long", slices, element(O.SLICE, "stride", 1, 6), BAD),
    ("stride that wraps", slices, element(O.SLICE, "stride", 1, 2**31 - 1), BAD),
    ("no axes", mean, params(O.MEAN, "axes", 0), BAD),
    ("axes beyond", mean, params(O.MEAN, "axes", 0b1101), BAD),
    ("axes all", mean, params(O.MEAN, "axes", 0b111), BAD),
    ("other axes", mean, params(O.MEAN, "axes", 0b011), BAD),
    ("axis bit 31", mean, params(O.MEAN, "axes", 0x80000005), BAD),
    ("mean factor below 0", mean, params(O.MEAN, "out", (-1, 0)), BAD),
    ("mean shift", mean, params(O.MEAN, "out", (1 << 30, 31)), BAD),
    ("mean shift below", mean, params(O.MEAN, "out", (1 << 30, -32)), BAD),
    ("product factor", mul, params(O.MUL, "out", (5, 0)), BAD),
    ("product shift", mul, params(O.MUL, "out", (1 << 30, 31)), BAD),
    ("no broadcast", mul, of(0, "shape", (2, 3, 1, 1)), BAD),
    ("broadcast to another", mul, of(-1, "shape", (4, 2, 3, 1)), BAD),
    ("broadcast of both", mul, of(1, "shape", (1, 4, 1, 1)), BAD),
    ("difference shift", sub, params(O.SUB, "left_shift", 21), BAD),
    ("difference factor", sub, params(O.SUB, "b", (1 << 30, 1)), BAD),
    ("maximum of two scales", maximum, of(1, "scale", 1.0), BAD),
    ("maximum of another zero point", maximum, of(-1, "zero_point", 4), BAD),
    ("a clamp above int8", maximum, op("act_max", 128), BAD),
    ("function unknown", unary, params(O.UNARY, "kind", 10), NEW),
    ("function of another shape", unary, of(-1, "shape", (2, 2, 1, 1)), BAD),
    ("function of int8", table, op("opcode", O.UNARY), BAD),
    ("table too short", table, of(1, "shape", (16, 8, 1, 1)), BAD),
    ("flags", table, op("flags", 1), NEW),
    ("factors of a table", table, op("requant_count", 1), BAD),
    ("embedding of f32 index", embedding, of(0, "dtype", 2), NEW),
    ("embedding of another dtype", embedding, of(1, "dtype", 3), BAD),
    ("embedding of another scale", embedding, of(-1, "scale", 77.0), BAD),
    ("groups", grouped, params(O.CONV2D, "groups", 7), BAD),
    ("groups 0", grouped, params(O.CONV2D, "groups", 0), BAD),
    ("groups 65535", grouped, params(O.CONV2D, "groups", 65535), BAD),
    ("f32 clamp upside down", float_conv, op("act_min", bits(1e30)), "f32 clamp"),
    ("f32 clamp NaN", float_conv, op("act_max", bits(np.nan)), BAD),
    ("f32 clamp NaN below", float_conv, op("act_min", bits(np.nan)), BAD),
    ("f32 with factors", float_conv, op("requant_count", 1), BAD),
    ("f32 with flags", float_conv, op("flags", 1), NEW),
    ("f32 to int8 bias", float_conv, of(2, "dtype", 1), NEW),
    ("f32 bias as a folded one", float_conv, lambda p: p.ops["in"].__setitem__((0, 3), 3), BAD),
    ("f32 input, int8 output", float_conv, of(-1, "dtype", 1), NEW),
    ("f32 of two scales", float_conv, of(1, "scale", -1.0), BAD),
    ("quantize to another shape", quantize, of(-1, "shape", (3, 3, 1, 1)), BAD),
    ("quantize an int8", dequantize, op("opcode", O.QUANTIZE), NEW),
    ("dequantize an f32", quantize, op("opcode", O.DEQUANTIZE), NEW),
    ("an opcode reserved", quantize, op("opcode", 23), NEW),
]


@pytest.mark.parametrize(("name", "make", "spoil", "expected"), CASES, ids=[c[0] for c in CASES])
def test_refusal(name: str, make: Callable[[], bytes], spoil: Spoil, expected: str) -> None:
    good = make()
    assert check_image(good) == "FL_OK"
    patch = Patch(good)
    if expected == "f32 clamp":
        patch.ops["act_max"], expected = bits(1.0), BAD
    spoil(patch)
    assert patch.bytes() != good, "this test spoils nothing"
    assert check_image(patch.bytes()) == expected


def test_a_value_that_flows_into_the_fifth_place_must_have_been_made() -> None:
    """x4 becomes a tensor that nobody made: the list beyond in[] is part of the flow."""
    patch = Patch(concat())
    assert int(patch.io[0]) == 6
    rows = patch.io
    rows[0] = 5  # the last input is none any more; the output's number moves up
    rows[2 + 5] = rows[2 + 6]
    start = int(patch.table["offset"][patch.where(f.Section.IO)])
    patch.table["bytes"][patch.where(f.Section.IO)] -= 2
    assert start > 0
    assert check_image(patch.bytes()) == BAD


def test_an_output_may_not_lie_over_the_fifth_input() -> None:
    patch = Patch(concat())
    offsets = patch.plan()[1]
    fifth = int(patch.params(O.CONCAT, f.CONCAT_PARAMS)["more"][0, 0])
    out = int(patch.ops["out"][0, 0])
    inputs = [i for i in range(len(patch.tensors)) if i not in (fifth, out)]
    patch.plan()[0]["arena_bytes"] = 84
    offsets[out] = 0  # 42 bytes
    offsets[inputs] = 60
    offsets[fifth] = 74  # 10 bytes to the arena's end
    assert check_image(patch.bytes()) == "FL_OK"
    offsets[fifth], patch.plan()[0]["arena_bytes"] = 41, 72
    assert check_image(patch.bytes()) == BAD


@pytest.mark.parametrize("dtype", [I8, I32, F32])
def test_inputs_and_outputs_of_three_types(dtype: DType) -> None:
    x = np.arange(6).reshape(1, 2, 3).astype(dtype.value)
    got = CoreModel(pad(dtype)).run(x)[0].reshape(4, 6)
    fill = 3 if dtype is I8 else 0
    np.testing.assert_array_equal(got[1:3, :3], x[0])
    assert (np.delete(got.reshape(-1), [6, 7, 8, 12, 13, 14]) == fill).all()


def test_more_than_the_checks_can_walk_is_not_supported() -> None:
    """Operators and inputs are looked at in pairs, so their number is bounded."""
    good = unary()
    for count, expected in ((4096, BAD), (4097, NEW)):
        patch = Patch(good + bytes(-(-count * f.OP.itemsize // 16) * 16))
        row = patch.where(f.Section.OPERATORS)
        patch.table["offset"][row], patch.table["bytes"][row] = len(good), count * f.OP.itemsize
        patch.header["op_count"], patch.header["total_bytes"] = count, len(patch.raw)
        patch.tensors["bytes"][0] = 0  # looked at when the count has passed
        assert check_image(patch.bytes()) == expected
    for count, expected in ((255, "FL_OK"), (256, NEW)):
        ops = [
            Op(f"op{i}", OpKind.UNARY, (f"x{i}",), f"y{i}", attrs=Unary(UnaryKind.ABS))
            for i in range(count)
        ]
        inputs, outputs = [op.inputs[0] for op in ops], [op.output for op in ops]
        tensors = {n: Tensor(n, (1,), F32) for n in (*inputs, *outputs)}
        graph = Graph("wide", tensors, tuple(ops), tuple(inputs), tuple(outputs))
        assert check_image(image_of(graph)) == expected
