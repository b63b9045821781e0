"""The bytes of the .flm image, as fl_image.h has them.

A test compares every size, offset and value here with the C header.
"""

from __future__ import annotations

import enum

import numpy as np

MAGIC = 0x314D4C46  # "FLM1"
VERSION_MAJOR = 1
VERSION_MINOR = 2
ALIGN = 16
UID_BYTES = 16
CRC_FROM = 16
UID_FROM = 32
NO_TENSOR = 0xFFFF
NO_OFFSET = 0xFFFFFFFF


class Section(enum.IntEnum):
    """Section types: four ASCII characters, little-endian."""

    TENSORS = 0x534E4554
    OPERATORS = 0x5245504F
    IO = 0x554F4E49
    PLAN = 0x4E414C50
    DATA = 0x41544144
    LABELS = 0x4C42414C
    LEARN = 0x4E52454C
    REHEARSAL = 0x53484552
    META = 0x4154454D
    TILES = 0x454C4954


SECTION_REQUIRED = 1
REQUIRED_SECTIONS = frozenset(
    {Section.TENSORS, Section.OPERATORS, Section.IO, Section.PLAN, Section.DATA}
)


class Dtype(enum.IntEnum):
    """Element types."""

    I8 = 0
    I32 = 1
    F32 = 2
    U8 = 3


ELEMENT_BYTES = {Dtype.I8: 1, Dtype.I32: 4, Dtype.F32: 4, Dtype.U8: 1}


class TensorKind(enum.IntEnum):
    """Where a tensor lies: in the arena or in the image."""

    ACTIVATION = 0
    CONSTANT = 1


class ImagePlanKind(enum.IntEnum):
    """What a plan is for."""

    INFER = 0
    LEARN = 1


class StepFlag(enum.IntFlag):
    """Flags of a plan's step; its kinds are the plan's StepKind."""

    PARTIAL = 1
    FIRST = 2
    LAST = 4
    TURNED = 8


STEPS_MAX = 0xFFFF


class Opcode(enum.IntEnum):
    """Operators; the names are those of the graph's OpKind."""

    CONV2D = 1
    DEPTHWISE_CONV2D = 2
    FULLY_CONNECTED = 3
    MAX_POOL = 4
    AVG_POOL = 5
    ADD = 6
    SOFTMAX = 7
    RESHAPE = 8
    SUB = 9
    MUL = 10
    MINIMUM = 11
    MAXIMUM = 12
    CONCAT = 13
    PAD = 14
    TRANSPOSE = 15
    SLICE = 16
    MEAN = 17
    TABLE = 18
    EMBEDDING = 19
    QUANTIZE = 20
    DEQUANTIZE = 21
    UNARY = 22


class UnaryCode(enum.IntEnum):
    """Functions of UNARY; the names are those of the graph's UnaryKind."""

    RELU = 0
    CLIP = 1
    LEAKY_RELU = 2
    SIGMOID = 3
    TANH = 4
    HARDSWISH = 5
    HARDSIGMOID = 6
    ELU = 7
    ABS = 8
    EXP = 9


OP_SINGLE_ROUNDING = 1  # of an operator's flags
CONCAT_MAX = 24
CONCAT_FIRST = 4  # inputs of a concat that stand in the operator itself


HEADER = np.dtype(
    [
        ("magic", "<u4"),
        ("version_major", "<u2"),
        ("version_minor", "<u2"),
        ("total_bytes", "<u4"),
        ("crc32", "<u4"),
        ("uid", "u1", (UID_BYTES,)),
        ("section_count", "<u4"),
        ("tensor_count", "<u4"),
        ("op_count", "<u4"),
        ("flags", "<u4"),
        ("reserved", "<u4", (4,)),
    ]
)
SECTION = np.dtype([("type", "<u4"), ("flags", "<u4"), ("offset", "<u4"), ("bytes", "<u4")])
TENSOR = np.dtype(
    [
        ("dtype", "u1"),
        ("kind", "u1"),
        ("ndim", "u1"),
        ("reserved", "u1"),
        ("shape", "<i4", (4,)),
        ("bytes", "<u4"),
        ("offset", "<u4"),
        ("scale", "<f4"),
        ("zero_point", "<i4"),
        ("channel_scales", "<u4"),
        ("channel_count", "<u4"),
    ]
)
REQUANT = np.dtype([("multiplier", "<i4"), ("shift", "<i4")])
CONV_PARAMS = np.dtype(
    [
        ("kernel_h", "<u2"),
        ("kernel_w", "<u2"),
        ("stride_h", "<u2"),
        ("stride_w", "<u2"),
        ("dilation_h", "<u2"),
        ("dilation_w", "<u2"),
        ("pad_top", "<i2"),
        ("pad_left", "<i2"),
        ("depth_multiplier", "<u2"),
        ("groups", "<u2"),
        ("reserved", "<u2", (14,)),
    ]
)
ADD_PARAMS = np.dtype(
    [
        ("a", REQUANT),
        ("b", REQUANT),
        ("out", REQUANT),
        ("left_shift", "<i4"),
        ("reserved", "<i4", (5,)),
    ]
)
SOFTMAX_PARAMS = np.dtype(
    [
        ("input_multiplier", "<i4"),
        ("input_left_shift", "<i4"),
        ("diff_min", "<i4"),
        ("reserved", "<i4", (9,)),
    ]
)
MUL_PARAMS = np.dtype([("out", REQUANT), ("reserved", "<i4", (10,))])
CONCAT_PARAMS = np.dtype(
    [("axis", "<u2"), ("count", "<u2"), ("more", "<u2", (20,)), ("reserved", "<u2", (2,))]
)
PAD_PARAMS = np.dtype(
    [
        ("before", "<u2", (4,)),
        ("after", "<u2", (4,)),
        ("value", "<i4"),
        ("reserved", "<i4", (7,)),
    ]
)
TRANSPOSE_PARAMS = np.dtype([("axis", "u1", (4,)), ("reserved", "<i4", (11,))])
SLICE_PARAMS = np.dtype(
    [("begin", "<i4", (4,)), ("stride", "<i4", (4,)), ("reserved", "<i4", (4,))]
)
MEAN_PARAMS = np.dtype([("axes", "<u4"), ("out", REQUANT), ("reserved", "<i4", (9,))])
UNARY_PARAMS = np.dtype([("kind", "<u4"), ("a", "<f4"), ("b", "<f4"), ("reserved", "<i4", (9,))])
PARAM_BYTES = 48
OP = np.dtype(
    [
        ("opcode", "<u2"),
        ("flags", "<u2"),
        ("in", "<u2", (4,)),
        ("out", "<u2", (2,)),
        ("requant", "<u4"),
        ("requant_count", "<u4"),
        ("act_min", "<i4"),
        ("act_max", "<i4"),
        ("p", "u1", (PARAM_BYTES,)),
    ]
)
PLAN = np.dtype(
    [
        ("kind", "<u4"),
        ("arena_bytes", "<u4"),
        ("learner_scratch", "<u4"),
        ("learner_scratch_bytes", "<u4"),
    ]
)
TILES = np.dtype([("kind", "<u4"), ("count", "<u4"), ("reserved", "<u4", (2,))])
PLAN_STEP = np.dtype(
    [
        ("kind", "u1"),
        ("flags", "u1"),
        ("op", "<u2"),
        ("row", "<u2"),
        ("rows", "<u2"),
        ("channel", "<u2"),
        ("channels", "<u2"),
        ("x_row", "<u2"),
        ("x_rows", "<u2"),
        ("x_channel", "<u2"),
        ("x_channels", "<u2"),
        ("x_step", "<u2"),
        ("y_step", "<u2"),
        ("z_step", "<u2"),
        ("map_h", "<u2"),
        ("map_w", "<u2"),
        ("row_more", "<i2"),
        ("x", "<u4"),
        ("y", "<u4"),
        ("z", "<u4"),
        ("channel_more", "<i2"),
        ("x_row_more", "<i2"),
        ("x_channel_more", "<i2"),
        ("reserved", "<u2"),
        ("x_more", "<i4"),
        ("y_more", "<i4"),
        ("z_more", "<i4"),
    ]
)
TRAINABLE = np.dtype(
    [("op", "<u2"), ("flags", "<u2"), ("lr_scale", "<f4"), ("reserved", "<u4", (2,))]
)
REHEARSAL_SET = np.dtype([("count", "<u4"), ("sample_bytes", "<u4"), ("reserved", "<u4", (2,))])


def aligned(offset: int, alignment: int = ALIGN) -> int:
    """The next multiple of `alignment` at or after `offset`."""
    return -(-offset // alignment) * alignment
