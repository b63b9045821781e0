"""The image reader: it takes what the writer writes and refuses everything else by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from core_runner import check_image
from fuzz_image import classifier, fuzz, seed_images
from more_ops import Maker as AnyMaker
from patch import Patch
from single_ops import Maker, image_of

from fieldloop.image import format as f
from fieldloop.image.format import Opcode as O
from fieldloop.image.format import Section as S
from fieldloop.ir.op import OpKind
from fieldloop.runtime.core import core

BAD, NEW = "FL_EBADMSG", "FL_ENOTSUP"
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
Spoil = Callable[[Patch], None]


@pytest.fixture(scope="module")
def good() -> bytes:
    """An image with every section: conv, pool, depthwise, reshape, head, softmax."""
    return classifier(1)


@pytest.fixture(scope="module")
def add_image() -> bytes:
    return image_of(Maker(np.random.default_rng(0)).add())


def put(field: str, value: object, of: Callable[[Patch], np.ndarray]) -> Spoil:
    """Sets one field of what `of` picks."""

    def spoil(p: Patch) -> None:
        of(p)[field] = value

    return spoil


def header(field: str, value: object) -> Spoil:
    return put(field, value, lambda p: p.header)


def tensor(opcode: O, place: int, field: str, value: object) -> Spoil:
    return put(field, value, lambda p: p.tensor(opcode, place))


def op(opcode: O, field: str, value: object) -> Spoil:
    return put(field, value, lambda p: p.op(opcode))


def conv(opcode: O, field: str, value: object) -> Spoil:
    return put(field, value, lambda p: p.params(opcode, f.CONV_PARAMS))


def softmax(field: str, value: object) -> Spoil:
    return put(field, value, lambda p: p.params(O.SOFTMAX, f.SOFTMAX_PARAMS))


def section(kind: S, field: str, change: Callable[[int], int]) -> Spoil:
    def spoil(p: Patch) -> None:
        i = p.where(kind)
        p.table[field][i] = change(int(p.table[field][i]))

    return spoil


def shape(opcode: O, place: int, axis: int, value: int) -> Spoil:
    def spoil(p: Patch) -> None:
        p.tensor(opcode, place)["shape"][0, axis] = value

    return spoil


def op_input(opcode: O, place: int, value: int) -> Spoil:
    def spoil(p: Patch) -> None:
        p.op(opcode)["in"][0, place] = value

    return spoil


def swap_inputs(p: Patch) -> None:
    ins = p.op(O.CONV2D)["in"]
    ins[0, 0], ins[0, 1] = ins[0, 1], ins[0, 0]


def requant(field: str, value: int) -> Spoil:
    def spoil(p: Patch) -> None:
        offset = int(p.op(O.CONV2D)["requant"][0])
        p.at(offset + (4 if field == "shift" else 0), "<i4")[:] = value

    return spoil


def channel_scale(value: float) -> Spoil:
    def spoil(p: Patch) -> None:
        p.at(int(p.tensor(O.CONV2D, 1)["channel_scales"][0]) + 4, "<f4")[:] = value

    return spoil


def plan(field: str, value: object) -> Spoil:
    return put(field, value, lambda p: p.plan()[0])


def place(pick: Callable[[Patch], int], value: Callable[[int, Patch], int]) -> Spoil:
    """Moves one tensor in the first plan."""

    def spoil(p: Patch) -> None:
        offsets = p.plan()[1]
        i = pick(p)
        offsets[i] = value(int(offsets[i]), p)

    return spoil


def conv_out(p: Patch) -> int:
    return int(p.op(O.CONV2D)["out"][0, 0])


def conv_in(p: Patch) -> int:
    return int(p.op(O.CONV2D)["in"][0, 0])


def conv_weights(p: Patch) -> int:
    return int(p.op(O.CONV2D)["in"][0, 1])


def label_byte(where: int, value: int) -> Spoil:
    def spoil(p: Patch) -> None:
        p.section(S.LABELS, np.dtype("u1"), skip=4)[where] = value

    return spoil


def trainable(index: int, field: str, value: object) -> Spoil:
    return put(field, value, lambda p: p.section(S.LEARN, f.TRAINABLE)[index : index + 1])


def rehearsal(field: str, value: object) -> Spoil:
    return put(field, value, lambda p: p.section(S.REHEARSAL, f.REHEARSAL_SET)[:1])


def rehearsal_label(p: Patch) -> None:
    p.section(S.REHEARSAL, np.dtype("u1"), skip=16)[2] = 3


def double(kind: S, over: S) -> Spoil:
    """Turns section `over` into a second one of `kind` with the same content."""

    def spoil(p: Patch) -> None:
        i, j = p.where(kind), p.where(over)
        for field in ("type", "offset", "bytes"):
            p.table[field][j] = p.table[field][i]

    return spoil


def no_plan(p: Patch) -> None:
    p.table["type"][p.table["type"] == S.PLAN] = S.META


def read_before_written(p: Patch) -> None:
    first, second = p.ops[0].copy(), p.ops[1].copy()
    p.ops[0], p.ops[1] = second, first


def written_twice(p: Patch) -> None:
    # the reshape's output made by the depthwise convolution's operator again
    p.op(O.RESHAPE)["out"][0, 0] = p.op(O.RESHAPE)["in"][0, 0]


def unmade_output(p: Patch) -> None:
    """The model's output is a tensor no operator makes: the last operator writes another."""
    p.io[2 + 1] = conv_weights(p)
    p.tensors["kind"][conv_weights(p)] = 0


def upside_down(p: Patch) -> None:
    p.op(O.CONV2D)["act_min"], p.op(O.CONV2D)["act_max"] = 11, 10


def uint8_input(p: Patch) -> None:
    x = p.tensor(O.CONV2D, 0)
    x["dtype"], x["zero_point"] = f.Dtype.U8, 0


def constant_outside_data(p: Patch) -> None:
    weights = p.tensor(O.CONV2D, 1)
    weights["offset"] = p.row(S.TENSORS)["offset"]


def constant_beyond_data(p: Patch) -> None:
    row = p.row(S.DATA)
    p.tensor(O.FULLY_CONNECTED, 1)["offset"] = row["offset"] + row["bytes"] - 1


SPOILED: dict[str, tuple[Spoil, str]] = {
    # header
    "magic": (header("magic", 0x32464C46), BAD),
    "older major version": (header("version_major", 0), NEW),
    "newer major version": (header("version_major", 2), NEW),
    "header flags": (header("flags", 1), NEW),
    "total 0": (header("total_bytes", 0), BAD),
    "total not a multiple of 16": (lambda p: p.header["total_bytes"].__isub__(4), BAD),
    "total beyond the bytes": (lambda p: p.header["total_bytes"].__iadd__(16), BAD),
    "huge total": (header("total_bytes", 0xFFFFFFF0), BAD),
    "no tensors": (header("tensor_count", 0), BAD),
    "too many tensors": (header("tensor_count", 0x10000), BAD),
    "tensor count": (lambda p: p.header["tensor_count"].__isub__(1), BAD),
    "no operators": (header("op_count", 0), BAD),
    "operator count": (lambda p: p.header["op_count"].__iadd__(1), BAD),
    "operator count that overflows": (header("op_count", 0x33333334), BAD),
    # section table
    "no sections": (header("section_count", 0), BAD),
    "sections beyond the image": (header("section_count", 0x10000000), BAD),
    "section count that overflows": (header("section_count", 0xFFFFFFFF), BAD),
    "section over the table": (section(S.IO, "offset", lambda v: 64), BAD),
    "section misaligned": (section(S.META, "offset", lambda v: v + 4), BAD),
    "section beyond the end": (section(S.META, "offset", lambda v: 0x7FFFFFF0), BAD),
    "section longer than the image": (section(S.META, "bytes", lambda v: 0xFFFFFFF0), BAD),
    "unknown required section": (
        lambda p: (section(S.META, "type", lambda v: 0x21212121)(p), p.table["flags"].fill(1)),
        NEW,
    ),
    "no tensor section": (section(S.TENSORS, "type", lambda v: S.META), BAD),
    "no operator section": (section(S.OPERATORS, "type", lambda v: S.META), BAD),
    "no io section": (section(S.IO, "type", lambda v: S.META), BAD),
    "no data section": (section(S.DATA, "type", lambda v: S.META), BAD),
    "two data sections": (double(S.DATA, S.META), BAD),
    "two label sections": (double(S.LABELS, S.META), BAD),
    "two learn sections": (double(S.LEARN, S.META), BAD),
    "two rehearsal sections": (double(S.REHEARSAL, S.META), BAD),
    "tensor section too short": (section(S.TENSORS, "bytes", lambda v: v - 1), BAD),
    "operator section too long": (section(S.OPERATORS, "bytes", lambda v: v + 1), BAD),
    # tensors
    "dtype": (tensor(O.CONV2D, 1, "dtype", 4), NEW),
    "kind": (tensor(O.CONV2D, 1, "kind", 2), BAD),
    "no dimensions": (tensor(O.CONV2D, 0, "ndim", 0), BAD),
    "five dimensions": (tensor(O.CONV2D, 0, "ndim", 5), BAD),
    "dimension 0": (shape(O.CONV2D, 0, 1, 0), BAD),
    "dimension below 0": (shape(O.CONV2D, 0, 1, -6), BAD),
    "dimension too many": (shape(O.FULLY_CONNECTED, 0, 3, 2), BAD),
    "sizes that overflow": (tensor(O.CONV2D, 0, "shape", (1 << 16,) * 4), BAD),
    "bytes": (tensor(O.CONV2D, 0, "bytes", 61), BAD),
    "zero point": (tensor(O.CONV2D, 0, "zero_point", 128), BAD),
    "zero point below": (tensor(O.CONV2D, -1, "zero_point", -129), BAD),
    "zero point of int32": (tensor(O.FULLY_CONNECTED, 2, "zero_point", 1), BAD),
    "scale 0": (tensor(O.CONV2D, 0, "scale", 0.0), BAD),
    "scale below 0": (tensor(O.CONV2D, 0, "scale", -1.0), BAD),
    "scale NaN": (tensor(O.CONV2D, 0, "scale", np.nan), BAD),
    "scale infinite": (tensor(O.CONV2D, 0, "scale", np.inf), BAD),
    "bias scale NaN": (tensor(O.FULLY_CONNECTED, 2, "scale", np.nan), BAD),
    "channel scale 0": (channel_scale(0.0), BAD),
    "channel scale NaN": (channel_scale(np.nan), BAD),
    "channel scale infinite": (channel_scale(np.inf), BAD),
    "channel scales outside": (tensor(O.CONV2D, 1, "channel_scales", 64), BAD),
    "channel scales misaligned": (
        lambda p: p.tensor(O.CONV2D, 1)["channel_scales"].__iadd__(2),
        BAD,
    ),
    "channel count 0": (tensor(O.CONV2D, 1, "channel_count", 0), BAD),
    "channel count": (tensor(O.CONV2D, 1, "channel_count", 3), BAD),
    "channel count that overflows": (tensor(O.CONV2D, 1, "channel_count", 0x40000001), BAD),
    "channel scales of an activation": (
        lambda p: p.tensor(O.CONV2D, 0).__setitem__(
            "channel_scales", p.tensor(O.CONV2D, 1)["channel_scales"]
        ),
        BAD,
    ),
    "constant outside DATA": (constant_outside_data, BAD),
    "constant beyond DATA": (constant_beyond_data, BAD),
    "constant far away": (tensor(O.CONV2D, 1, "offset", 0xFFFFFFF0), BAD),
    "bias misaligned": (lambda p: p.tensor(O.FULLY_CONNECTED, 2)["offset"].__iadd__(2), BAD),
    "activation with an offset": (tensor(O.CONV2D, 0, "offset", 16), BAD),
    # inputs and outputs
    "no inputs": (lambda p: p.io.__setitem__(slice(0, 2), (0, 2)), BAD),
    "no outputs": (lambda p: p.io.__setitem__(slice(0, 2), (2, 0)), BAD),
    "io counts": (lambda p: p.io.__setitem__(0, 200), BAD),
    "input unknown": (lambda p: p.io.__setitem__(2, 0xFFFF), BAD),
    "output unknown": (lambda p: p.io.__setitem__(3, 999), BAD),
    "input constant": (lambda p: p.io.__setitem__(2, conv_weights(p)), BAD),
    "output made by no operator": (unmade_output, BAD),
    "input not int8": (uint8_input, NEW),
    # operators
    "opcode 0": (op(O.CONV2D, "opcode", 0), NEW),
    "opcode unknown": (op(O.CONV2D, "opcode", 23), NEW),
    "operator flags": (op(O.CONV2D, "flags", 2), NEW),
    "flags of a pool": (op(O.MAX_POOL, "flags", 1), NEW),
    "input tensor unknown": (op_input(O.CONV2D, 0, 999), BAD),
    "input tensor absent": (op_input(O.CONV2D, 0, 0xFFFF), BAD),
    "weights absent": (op_input(O.CONV2D, 1, 0xFFFF), BAD),
    "an input too many": (op_input(O.MAX_POOL, 1, 0), BAD),
    "a fourth input": (op_input(O.CONV2D, 3, 0), BAD),
    "output unknown to the table": (op(O.CONV2D, "out", (999, 0xFFFF)), BAD),
    "two outputs": (op(O.CONV2D, "out", (1, 2)), BAD),
    "weights for input": (swap_inputs, BAD),
    "weights not int8": (tensor(O.CONV2D, 1, "dtype", 3), NEW),
    "a zero point beside a scale a channel": (tensor(O.CONV2D, 1, "zero_point", 1), BAD),
    "bias not int32": (
        lambda p: (
            p.tensor(O.FULLY_CONNECTED, 2).__setitem__("dtype", 2),
            p.tensor(O.FULLY_CONNECTED, 2).__setitem__("zero_point", 0),
        ),
        NEW,
    ),
    "clamp upside down": (upside_down, BAD),
    "clamp below int8": (op(O.CONV2D, "act_min", -129), BAD),
    "clamp above int8": (op(O.CONV2D, "act_max", 128), BAD),
    "requant count 0": (op(O.CONV2D, "requant_count", 0), BAD),
    "requant count": (op(O.CONV2D, "requant_count", 3), BAD),
    "requant outside": (op(O.CONV2D, "requant", 64), BAD),
    "requant misaligned": (lambda p: p.op(O.CONV2D)["requant"].__iadd__(2), BAD),
    "requant of a pool": (op(O.MAX_POOL, "requant_count", 1), BAD),
    "multiplier below 0": (requant("multiplier", INT32_MIN), BAD),
    "multiplier below 2**30": (requant("multiplier", (1 << 30) - 1), BAD),
    "shift above 30": (requant("shift", 31), BAD),
    "shift below -31": (requant("shift", -32), BAD),
    "shift INT32_MIN": (requant("shift", INT32_MIN), BAD),
    # shapes of operators
    "kernel": (conv(O.CONV2D, "kernel_h", 2), BAD),
    "kernel 0": (conv(O.MAX_POOL, "kernel_h", 0), BAD),
    "stride 0": (conv(O.CONV2D, "stride_w", 0), BAD),
    "stride that leaves pixels": (conv(O.CONV2D, "stride_w", 1), BAD),
    "huge stride": (conv(O.CONV2D, "stride_h", 0xFFFF), BAD),
    "dilation 0": (conv(O.CONV2D, "dilation_h", 0), BAD),
    "dilation of a pool": (conv(O.MAX_POOL, "dilation_h", 2), BAD),
    "padding below 0": (conv(O.CONV2D, "pad_top", -1), BAD),
    "padding too large": (conv(O.CONV2D, "pad_top", 5), BAD),
    "pool window in the padding": (conv(O.MAX_POOL, "pad_top", 2), BAD),
    "depth multiplier of a convolution": (conv(O.CONV2D, "depth_multiplier", 2), BAD),
    "depth multiplier": (conv(O.DEPTHWISE_CONV2D, "depth_multiplier", 2), BAD),
    "depth multiplier 0": (conv(O.DEPTHWISE_CONV2D, "depth_multiplier", 0), BAD),
    "pool that changes the scale": (tensor(O.MAX_POOL, -1, "scale", 1.0), BAD),
    "pool that changes the zero point": (
        lambda p: p.tensor(O.MAX_POOL, -1)["zero_point"].__iadd__(1),
        BAD,
    ),
    "reshape that changes the scale": (tensor(O.RESHAPE, -1, "scale", 1.0), BAD),
    "softmax with another scale": (tensor(O.SOFTMAX, -1, "scale", 1 / 128), BAD),
    "softmax with another zero point": (tensor(O.SOFTMAX, -1, "zero_point", 0), BAD),
    "softmax multiplier": (softmax("input_multiplier", 0), BAD),
    "softmax shift below 0": (softmax("input_left_shift", -1), BAD),
    "softmax shift above 31": (softmax("input_left_shift", 32), BAD),
    "softmax shift too large": (softmax("input_left_shift", 31), BAD),
    "softmax reach above 0": (softmax("diff_min", 1), BAD),
    "softmax reach too far": (softmax("diff_min", INT32_MIN), BAD),
    # flow
    "read before written": (read_before_written, BAD),
    "written twice": (written_twice, BAD),
    # plans
    "no plan": (no_plan, BAD),
    "no plan for inference": (plan("kind", 7), BAD),
    "two plans of one kind": (plan("kind", 1), BAD),
    "plan too short": (section(S.PLAN, "bytes", lambda v: v - 4), BAD),
    "plan without a head": (section(S.PLAN, "bytes", lambda v: 8), BAD),
    "arena too small": (plan("arena_bytes", 16), BAD),
    "arena larger than its tensors": (
        lambda p: p.plan()[0]["arena_bytes"].__iadd__(1),
        BAD,
    ),
    "arena above 1 GiB": (plan("arena_bytes", (1 << 30) + 1), NEW),
    "activation beyond the arena": (place(conv_out, lambda v, p: 1 << 20), BAD),
    "activation at the end of memory": (place(conv_out, lambda v, p: 0xFFFFFFFF), BAD),
    "constant in the arena": (place(conv_weights, lambda v, p: 0), BAD),
    "output over its input": (
        place(conv_out, lambda v, p: int(p.plan()[1][conv_in(p)])),
        BAD,
    ),
    # labels
    "label count": (lambda p: p.section(S.LABELS, np.dtype("<u4")).__setitem__(0, 4), BAD),
    "label count that overflows": (
        lambda p: p.section(S.LABELS, np.dtype("<u4")).__setitem__(0, 0xFFFFFFFF),
        BAD,
    ),
    "fewer labels than strings": (
        lambda p: p.section(S.LABELS, np.dtype("<u4")).__setitem__(0, 2),
        BAD,
    ),
    "label not ended": (label_byte(-1, 0x41), BAD),
    "label not UTF-8": (label_byte(0, 0x80), BAD),
    "label cut off inside a character": (label_byte(3, 0xF0), BAD),
    "labels without a count": (section(S.LABELS, "bytes", lambda v: 3), BAD),
    # trainable layers
    "trainable layer unknown": (trainable(2, "op", 999), BAD),
    "trainable layers not ascending": (trainable(0, "op", 4), BAD),
    "trainable softmax": (trainable(2, "op", 5), BAD),
    "trainable pool": (trainable(0, "op", 1), BAD),
    "learning rate 0": (trainable(0, "lr_scale", 0.0), BAD),
    "learning rate NaN": (trainable(0, "lr_scale", np.nan), BAD),
    "learning rate infinite": (trainable(0, "lr_scale", np.inf), BAD),
    "trainable flags": (trainable(0, "flags", 1), NEW),
    "no trainable layers": (section(S.LEARN, "bytes", lambda v: 0), BAD),
    "half a trainable layer": (section(S.LEARN, "bytes", lambda v: v - 8), BAD),
    # rehearsal
    "rehearsal count": (rehearsal("count", 6), BAD),
    "rehearsal count that overflows": (rehearsal("count", 0xFFFFFFFF), BAD),
    "rehearsal sample size": (rehearsal("sample_bytes", 59), BAD),
    "rehearsal label": (rehearsal_label, BAD),
    "rehearsal without a head": (section(S.REHEARSAL, "bytes", lambda v: 8), BAD),
}


def test_the_writer_and_the_reader_agree(good: bytes, add_image: bytes) -> None:
    assert check_image(good) == check_image(add_image) == "FL_OK"
    assert Patch(good).bytes() == good


@pytest.mark.parametrize("name", SPOILED)
def test_refusal(good: bytes, name: str) -> None:
    spoil, expected = SPOILED[name]
    patch = Patch(good)
    spoil(patch)
    spoiled = patch.bytes()
    assert spoiled != good, "this test spoils nothing"
    assert check_image(spoiled) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("left_shift", 21),
        ("left_shift", -1),
        ("a", (1 << 30, 1)),
        ("b", (1 << 30, -32)),
        ("b", (5, 0)),
        ("out", (1 << 30, 1)),
    ],
)
def test_refusal_of_additions(add_image: bytes, field: str, value: object) -> None:
    patch = Patch(add_image)
    patch.params(O.ADD, f.ADD_PARAMS)[field] = value
    assert check_image(patch.bytes()) == BAD


def test_add_wants_equal_shapes() -> None:
    patch = Patch(image_of(Maker(np.random.default_rng(0)).add((1, 4, 4, 2))))
    patch.tensors["shape"][1] = (1, 4, 2, 4)
    assert check_image(patch.bytes()) == BAD


def test_a_softmax_too_wide_for_its_sum_is_not_supported() -> None:
    maker = Maker(np.random.default_rng(0))
    assert check_image(image_of(maker.softmax(4095))) == "FL_OK"
    assert check_image(image_of(maker.softmax(4096))) == NEW


def test_a_batch_of_maps_is_not_supported(good: bytes) -> None:
    patch = Patch(good)
    patch.tensor(O.CONV2D, 0)["shape"] = (2, 3, 5, 2)
    assert check_image(patch.bytes()) in (BAD, NEW)


def test_labels_are_utf_8_exactly_where_python_says_so(good: bytes) -> None:
    edges = bytes.fromhex(
        "41 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f3 f4 f5 ff"
    )
    rng = np.random.default_rng(0)
    patch = Patch(good)
    first = patch.section(S.LABELS, np.dtype("u1"), skip=4)[:4]  # "zero"
    seen = set()
    for _ in range(3000):
        lead = rng.integers(len(edges))
        first[:] = [edges[i] for i in (lead, *rng.integers(0, 8, 3))]
        if rng.random() < 0.5:
            first[-1] = 0x41
        try:
            first.tobytes().decode()
            valid = True
        except UnicodeDecodeError:
            valid = False
        seen.add(valid)
        assert (check_image(patch.bytes()) == "FL_OK") == valid, first.tobytes().hex()
    assert seen == {True, False}


@pytest.mark.parametrize("kind", [k.value for k in OpKind])
def test_no_truncated_image_is_taken(kind: str) -> None:
    image = image_of(getattr(AnyMaker(np.random.default_rng(5)), kind)())
    for length in range(0, len(image), 7):
        assert check_image(image[:length]) == BAD


def test_a_truncated_image_with_a_crc_to_match(good: bytes) -> None:
    for total in range(64, len(good), 16):
        patch = Patch(good)
        patch.header["total_bytes"] = total
        assert check_image(patch.bytes()[:total]) == BAD


def test_every_flipped_bit_is_seen(good: bytes) -> None:
    raw = np.frombuffer(good, np.uint8)
    # version_minor (bytes 6 and 7) may be anything
    for at in [i for i in range(64) if i not in (6, 7)] + list(range(64, len(good), 37)):
        flipped = raw.copy()
        flipped[at] ^= 1 << (at % 8)
        assert check_image(flipped) in (BAD, NEW), at


@pytest.mark.parametrize("skip", [1, 2, 4, 8, 15])
def test_a_misaligned_image_is_refused(good: bytes, skip: int) -> None:
    assert check_image(good, skip=skip) == "FL_EALIGN"


def test_no_bytes_at_all() -> None:
    ffi, lib = core()
    assert lib.fl_image_check(ffi.NULL, 0) == lib.FL_EBADMSG


def test_what_a_later_minor_version_may_bring_is_accepted(good: bytes) -> None:
    patch = Patch(good)
    patch.header["version_minor"] = 7
    patch.header["reserved"] = 9
    patch.table["type"][patch.where(S.META)] = 0x21212121  # unknown, not required
    patch.plan(1)[0]["kind"] = 5  # a plan nobody asks for
    assert check_image(patch.bytes()) == "FL_OK"


def test_bytes_behind_the_image_do_not_matter(good: bytes) -> None:
    assert check_image(good + b"\xff" * 33) == "FL_OK"


def test_sections_are_found_in_order(good: bytes) -> None:
    ffi, lib = core()
    flash = np.zeros(len(good) + 16, np.uint8)
    start = -flash.ctypes.data % 16
    flash[start : start + len(good)] = np.frombuffer(good, np.uint8)
    base = ffi.cast("char *", flash.ctypes.data + start)
    cursor, data, size = ffi.new("uint32_t *"), ffi.new("void **"), ffi.new("uint32_t *")
    found = []
    while lib.fl_image_section(base, S.PLAN, cursor, data, size) == 0:
        found.append((ffi.cast("char *", data[0]) - base, size[0]))
    patch = Patch(good)
    rows = patch.table[patch.table["type"] == S.PLAN]
    assert found == [(row["offset"], row["bytes"]) for row in rows]
    assert len(found) == 2
    cursor[0] = 0
    assert lib.fl_image_section(base, 0x21212121, cursor, data, size) == lib.FL_ENOENT


def test_the_images_that_fuzzing_starts_from_are_good() -> None:
    images = seed_images()
    assert {check_image(image) for image in images} == {"FL_OK"}
    opcodes = {int(opcode) for image in images for opcode in Patch(image).ops["opcode"]}
    assert opcodes == {int(opcode) for opcode in O}


def test_fuzzed_images_never_fault(tmp_path: Path) -> None:
    """Longer: python tests/core/fuzz_image.py --count N."""
    tally = fuzz(tmp_path, 200_000, 20)
    assert tally["mutants"] == 200_000
    # Mutants get past the CRC in numbers, and what opens is run and trained.
    assert tally["opened"] > 20_000
    assert tally["run"] > 20_000
    assert tally["tiled"] > 10_000
    assert tally["trained"] > 1_000
    assert tally["unsupported"] > 5_000
