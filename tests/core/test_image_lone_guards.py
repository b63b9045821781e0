"""Spoiled images that only one rule of the reader stands against: everything else about them fits.

Found by taking the rules out of the reader one by one and looking for tests that still passed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pytest
from core_runner import check_image
from fuzz_image import classifier
from patch import Patch
from single_ops import Maker, image_of
from test_spec_model import example

from fieldloop.image import format as f
from fieldloop.image.format import Opcode as O
from fieldloop.image.format import Section as S
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, Factor, Op, OpKind, Requant, Window
from fieldloop.ir.tensor import DType, Quant, Tensor
from fieldloop.quantize.fixedpoint import add_params

BAD, NEW = "FL_EBADMSG", "FL_ENOTSUP"
NOWHERE = 0xFFFFFFFF
X, Y, W, B = range(4)  # tensors of the SPEC's example: y = w x + b

QUANT = Quant((0.5,), 0)


def on_one_pixel(kind: OpKind, window: Window, w_shape: tuple[int, ...] = ()) -> bytes:
    """One windowed operator from a map of one int8 to a map of one int8."""
    tensors = [
        Tensor("x", (1, 1, 1, 1), DType.INT8, QUANT),
        Tensor("y", (1, 1, 1, 1), DType.INT8, QUANT),
    ]
    inputs, factors = ("x",), ()
    if w_shape:
        tensors.append(Tensor("w", w_shape, DType.INT8, QUANT, np.ones(w_shape, np.int8)))
        inputs, factors = ("x", "w"), (Factor(1 << 30, 0),)
    op = Op("op", kind, inputs, "y", window, Clamp(), Requant(-128, 127, factors))
    return image_of(Graph("pixel", {t.name: t for t in tensors}, (op,), ("x",), ("y",)))


def convolution() -> bytes:
    window = Window((3, 3), pads=(0, 2, 0, 2))
    return on_one_pixel(OpKind.CONV2D, window, (1, 3, 3, 1))


def depthwise() -> bytes:
    window = Window((3, 3), pads=(0, 2, 0, 2))
    return on_one_pixel(OpKind.DEPTHWISE_CONV2D, window, (1, 3, 3, 1))


def pool() -> bytes:
    return on_one_pixel(OpKind.MAX_POOL, Window((1, 1), (2, 2)))


def reshape() -> bytes:
    tensors = [
        Tensor("x", (1, 1, 1, 1), DType.INT8, QUANT),
        Tensor("y", (1, 1), DType.INT8, QUANT),
    ]
    op = Op("op", OpKind.RESHAPE, ("x",), "y")
    return image_of(Graph("reshape", {t.name: t for t in tensors}, (op,), ("x",), ("y",)))


def diamond() -> bytes:
    """a and b are reshapes of x; y = a + b."""
    shapes = {"x": (1, 4), "a": (1, 2, 2), "b": (1, 2, 2), "y": (1, 2, 2)}
    tensors = {n: Tensor(n, s, DType.INT8, QUANT) for n, s in shapes.items()}
    ops = (
        Op("ra", OpKind.RESHAPE, ("x",), "a"),
        Op("rb", OpKind.RESHAPE, ("x",), "b"),
        Op("add", OpKind.ADD, ("a", "b"), "y", fixed=add_params(QUANT, QUANT, QUANT, Clamp())),
    )
    return image_of(Graph("diamond", tensors, ops, ("x",), ("y",)))


def softmax() -> bytes:
    return image_of(Maker(np.random.default_rng(1)).softmax(3))


def add() -> bytes:
    return image_of(Maker(np.random.default_rng(0)).add((1, 4, 2, 3)))


def whole() -> bytes:
    return classifier(1)


def arena(p: Patch, size: int, **places: int) -> None:
    head, offsets = p.plan()
    head["arena_bytes"] = size
    for name, place in places.items():
        offsets["xywb".index(name)] = place


def io(p: Patch, *tensors: int, outputs: int = 1) -> None:
    """Other inputs and outputs; the padding behind the section has room for two more."""
    row = p.where(S.IO)
    p.table["bytes"][row] = 4 + 2 * len(tensors)
    start = int(p.table["offset"][row])
    p.at(start, "<u2")[:] = len(tensors) - outputs
    p.at(start + 2, "<u2")[:] = outputs
    for i, t in enumerate(tensors):
        p.at(start + 4 + 2 * i, "<u2")[:] = t


def b_becomes_an_activation(p: Patch, dtype: int = 0) -> None:
    """The example's bias becomes a free tensor of two elements at the arena's end."""
    p.ops["in"][0, 2] = f.NO_TENSOR
    b = p.tensors[B : B + 1]
    b["kind"], b["offset"], b["dtype"] = 0, 0, dtype
    b["channel_scales"], b["channel_count"], b["scale"] = 0, 0, 1.0
    b["bytes"] = 8 if dtype == f.Dtype.I32 else 2
    arena(p, 8 + int(b["bytes"][0]), b=8)


def set_shape(p: Patch, t: int, shape: tuple[int, ...], size: int, ndim: int = 0) -> None:
    p.tensors["shape"][t] = (*shape, *(1,) * (4 - len(shape)))
    p.tensors["ndim"][t] = ndim or len(shape)
    p.tensors["bytes"][t] = size


# ---- spoils


def no_operators(p: Patch) -> None:
    p.header["op_count"] = 0
    p.table["bytes"][p.where(S.OPERATORS)] = 0
    io(p, X, X)


def io_too_long(p: Patch) -> None:
    p.table["bytes"][p.where(S.IO)] += 2


def no_outputs(p: Patch) -> None:
    io(p, X, outputs=0)


def same_input_twice(p: Patch) -> None:
    io(p, X, X, Y)


def constant_as_second_input(p: Patch) -> None:
    io(p, X, W, Y)


def input_of_another_type(p: Patch) -> None:
    b_becomes_an_activation(p, f.Dtype.U8)
    io(p, X, B, Y)


def output_of_nobody(p: Patch) -> None:
    b_becomes_an_activation(p)
    io(p, X, B)


def a_free_tensor_nowhere(p: Patch) -> None:
    b_becomes_an_activation(p)
    arena(p, 8, b=NOWHERE)


def reads_a_constant_as_activation(p: Patch) -> None:
    b_becomes_an_activation(p)
    p.tensors["kind"][X] = 1
    p.tensors["offset"][X] = p.tensors["offset"][W]
    arena(p, 10, x=NOWHERE)
    io(p, B, Y)


def weights_in_the_arena(p: Patch) -> None:
    w = p.tensors[W : W + 1]
    w["kind"], w["offset"], w["channel_scales"], w["channel_count"], w["scale"] = 0, 0, 0, 0, 1.0
    arena(p, 16, w=8)
    io(p, X, W, Y)


def weights_of_three_dimensions(p: Patch) -> None:
    p.tensors["ndim"][W] = 3


def weights_with_a_zero_point(p: Patch) -> None:
    w = p.tensors[W : W + 1]
    w["channel_scales"], w["channel_count"], w["scale"], w["zero_point"] = 0, 0, 0.5, 1


def weights_with_both_kinds_of_scale(p: Patch) -> None:
    p.tensors["scale"][W] = 0.5


def bias_too_short(p: Patch) -> None:
    set_shape(p, B, (1,), 4)


def bias_without_channels(p: Patch) -> None:
    p.tensors["channel_scales"][B] = p.tensors["channel_scales"][W]


def bias_with_a_zero_point(p: Patch) -> None:
    p.tensors["zero_point"][B] = 1


def output_too_short(p: Patch) -> None:
    set_shape(p, Y, (1, 1), 1)
    arena(p, 5)


def input_not_whole_rows(p: Patch) -> None:
    set_shape(p, W, (2, 3), 6)


def five_dimensions(p: Patch) -> None:
    p.tensors["ndim"][X] = 5


def hidden_dimension(p: Patch) -> None:
    set_shape(p, X, (1, 2, 1, 2), 4, ndim=2)


def scalar(p: Patch) -> None:
    p.tensors["ndim"][1] = 0


def empty(p: Patch) -> None:
    for t in (X, Y):
        p.tensors["shape"][t, 0] = 0
        p.tensors["bytes"][t] = 0
    arena(p, 0)


def sizes_that_wrap_to_nothing(p: Patch) -> None:
    for t in (X, Y):
        set_shape(p, t, (1 << 16,) * 4, 0)
    arena(p, 0)


def two_plans_for_inference(p: Patch) -> None:
    p.plan(1)[0]["kind"] = 0


def output_over_its_input(p: Patch) -> None:
    arena(p, 4, y=0)


def place_that_wraps(p: Patch) -> None:
    arena(p, 4, y=(1 << 32) - 2)


def operators_out_of_order(p: Patch) -> None:
    # the reshape before what it reads; the layers to train keep their numbers
    conv, pooled = p.ops[0].copy(), p.ops[1].copy()
    p.ops[0], p.ops[1] = pooled, conv
    p.table["type"][p.where(S.LEARN)] = S.META


def made_twice(p: Patch) -> None:
    a = int(p.ops["out"][0, 0])
    p.ops["out"][1, 0] = a
    p.ops["in"][2, :2] = a


def params(opcode: O, **fields: int) -> Callable[[Patch], None]:
    layout = f.SOFTMAX_PARAMS if opcode is O.SOFTMAX else f.CONV_PARAMS

    def spoil(p: Patch) -> None:
        for field, value in fields.items():
            p.params(opcode, layout)[field] = value

    return spoil


def output_of_three_dimensions(p: Patch) -> None:
    p.tensors["ndim"][Y] = 3


def output_of_two_samples(p: Patch) -> None:
    set_shape(p, Y, (2, 1, 1, 1), 2)
    arena(p, 4, x=0, y=2)


def window_beyond_the_map(p: Patch) -> None:
    set_shape(p, Y, (1, 2, 1, 1), 2)
    arena(p, 4, x=0, y=2)


def add_of_another_shape(p: Patch) -> None:
    p.tensors["shape"][2] = (1, 2, 4, 3)


def add_factor(name: str, multiplier: int, shift: int) -> Callable[[Patch], None]:
    def spoil(p: Patch) -> None:
        p.params(O.ADD, f.ADD_PARAMS)[name] = (multiplier, shift)

    return spoil


CASES: list[tuple[Callable[[], bytes], Callable[[Patch], None], str]] = [
    (example, no_operators, BAD),
    (example, io_too_long, BAD),
    (example, no_outputs, BAD),
    (example, same_input_twice, BAD),
    (example, constant_as_second_input, BAD),
    (example, input_of_another_type, NEW),
    (example, output_of_nobody, BAD),
    (example, a_free_tensor_nowhere, BAD),
    (example, reads_a_constant_as_activation, BAD),
    (example, weights_in_the_arena, BAD),
    (example, weights_of_three_dimensions, BAD),
    (example, weights_with_both_kinds_of_scale, BAD),
    (example, bias_too_short, BAD),
    (example, bias_without_channels, BAD),
    (example, bias_with_a_zero_point, BAD),
    (example, output_too_short, BAD),
    (example, input_not_whole_rows, BAD),
    (example, output_over_its_input, BAD),
    (example, place_that_wraps, BAD),
    (example, five_dimensions, BAD),
    (example, hidden_dimension, BAD),
    (reshape, scalar, BAD),
    (reshape, empty, BAD),
    (reshape, sizes_that_wrap_to_nothing, BAD),
    (whole, two_plans_for_inference, BAD),
    (whole, operators_out_of_order, BAD),
    (diamond, made_twice, BAD),
    (convolution, params(O.CONV2D, stride_w=0), BAD),
    (convolution, params(O.CONV2D, dilation_h=0), BAD),
    (convolution, params(O.CONV2D, dilation_w=0), BAD),
    (convolution, params(O.CONV2D, kernel_h=2), BAD),
    (convolution, params(O.CONV2D, kernel_w=2), BAD),
    (convolution, output_of_three_dimensions, BAD),
    (convolution, output_of_two_samples, NEW),
    (depthwise, params(O.DEPTHWISE_CONV2D, kernel_h=2), BAD),
    (depthwise, params(O.DEPTHWISE_CONV2D, kernel_w=2), BAD),
    (pool, params(O.MAX_POOL, dilation_h=2), BAD),
    (pool, params(O.MAX_POOL, dilation_w=2), BAD),
    (pool, params(O.MAX_POOL, depth_multiplier=2), BAD),
    (pool, params(O.MAX_POOL, pad_top=1), BAD),
    (pool, params(O.MAX_POOL, pad_left=1), BAD),
    (pool, window_beyond_the_map, BAD),
    (softmax, params(O.SOFTMAX, input_left_shift=32, diff_min=0), BAD),
    (softmax, params(O.SOFTMAX, input_left_shift=-1, diff_min=0), BAD),
    (add, add_of_another_shape, BAD),
    (add, add_factor("a", 5, 0), BAD),
    (add, add_factor("b", 1 << 30, 1), BAD),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_one_rule_stands_against_it(case: int) -> None:
    make, spoil, expected = CASES[case]
    patch = Patch(make())
    spoil(patch)
    assert check_image(patch.bytes()) == expected, getattr(spoil, "__name__", "")


def test_the_images_behind_the_cases_are_good() -> None:
    for make in {case[0] for case in CASES}:
        assert check_image(make()) == "FL_OK"


def test_total_bytes_is_a_multiple_of_16() -> None:
    raw = bytearray(example() + bytes(16))
    total = len(raw) - 12
    raw[8:12] = total.to_bytes(4, "little")
    raw[12:16] = zlib.crc32(raw[16:total]).to_bytes(4, "little")
    assert check_image(bytes(raw)) == BAD


def test_variants_that_differ_in_what_is_free_are_good() -> None:
    """The cases above spoil what they mean to: near misses of them are taken."""

    def without_a_bias(p: Patch) -> None:
        b_becomes_an_activation(p)
        io(p, X, B, Y)

    def one_scale(p: Patch) -> None:
        w = p.tensors[W : W + 1]
        w["channel_scales"], w["channel_count"], w["scale"] = 0, 0, 0.5

    for spoil in (without_a_bias, one_scale, weights_with_a_zero_point):
        patch = Patch(example())
        spoil(patch)
        assert check_image(patch.bytes()) == "FL_OK"
