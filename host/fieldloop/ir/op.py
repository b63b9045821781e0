"""Operators: what they compute, over which windows, how clamped, in which fixed-point factors."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from fieldloop.errors import UsageError


class OpKind(enum.Enum):
    """The operators every backend of fieldloop runs."""

    CONV2D = "conv2d"  # x NHWC, w OHWI, b [O]
    DEPTHWISE_CONV2D = "depthwise_conv2d"  # x NHWC, w 1HWC, b [C]; c_out = c_in * multiplier
    FULLY_CONNECTED = "fully_connected"  # x [n, ...] flattened, w [c_out, c_in], b [c_out]
    MAX_POOL = "max_pool"  # x NHWC
    AVG_POOL = "avg_pool"  # x NHWC; padding does not count towards the divisor
    ADD = "add"  # a, b, broadcast against each other
    SOFTMAX = "softmax"  # over the last axis
    RESHAPE = "reshape"  # the same elements in the same order
    SUB = "sub"  # a, b, broadcast
    MUL = "mul"  # a, b, broadcast
    MINIMUM = "minimum"  # a, b, broadcast
    MAXIMUM = "maximum"  # a, b, broadcast
    CONCAT = "concat"  # 1 to 24 inputs; attrs Concat
    PAD = "pad"  # attrs Pad
    TRANSPOSE = "transpose"  # attrs Transpose
    SLICE = "slice"  # attrs Slice
    MEAN = "mean"  # attrs Mean
    TABLE = "table"  # int8 only: x, constant int8 table [256]; out = table[x + 128]
    EMBEDDING = "embedding"  # index (int32 or int8), constant table [entries, ...]
    QUANTIZE = "quantize"  # x float32 -> int8
    DEQUANTIZE = "dequantize"  # x int8 -> float32
    UNARY = "unary"  # x float32; attrs Unary (int8 has TABLE)


WEIGHTED = frozenset({OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D, OpKind.FULLY_CONNECTED})
WINDOWED = frozenset({OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D, OpKind.MAX_POOL, OpKind.AVG_POOL})
POOLS = frozenset({OpKind.MAX_POOL, OpKind.AVG_POOL})
# Two inputs of shapes that broadcast against each other (numpy's rule).
BINARY = frozenset({OpKind.ADD, OpKind.SUB, OpKind.MUL, OpKind.MINIMUM, OpKind.MAXIMUM})
# Elements are copied, not computed: output and inputs share dtype and quantisation.
MOVES = frozenset({OpKind.RESHAPE, OpKind.CONCAT, OpKind.PAD, OpKind.TRANSPOSE, OpKind.SLICE})
# An activation cannot be folded into these.
NO_CLAMP_KINDS = MOVES | {
    OpKind.SOFTMAX,
    OpKind.TABLE,
    OpKind.EMBEDDING,
    OpKind.QUANTIZE,
    OpKind.DEQUANTIZE,
    OpKind.UNARY,
}
CONCAT_MAX = 24


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window over height and width. `pads`: top, bottom, left, right."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        if min(*self.kernel, *self.stride, *self.dilation) < 1 or min(self.pads) < 0:
            raise UsageError(f"window: sizes start at 1 and pads at 0, got {self}")

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns the window spans, dilation included."""
        return (
            (self.kernel[0] - 1) * self.dilation[0] + 1,
            (self.kernel[1] - 1) * self.dilation[1] + 1,
        )

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Positions of the window over an input; below 1 where it does not fit."""
        top, bottom, left, right = self.pads
        return (
            (height + top + bottom - self.extent[0]) // self.stride[0] + 1,
            (width + left + right - self.extent[1]) // self.stride[1] + 1,
        )


@dataclass(frozen=True, slots=True)
class Clamp:
    """An activation folded into its operator: the output is clamped to real values [lo, hi]."""

    lo: float = -math.inf
    hi: float = math.inf

    def __post_init__(self) -> None:
        if not self.lo <= self.hi:
            raise UsageError(f"clamp: expected lo <= hi, got [{self.lo}, {self.hi}]")

    def then(self, other: Clamp) -> Clamp:
        """Both clamps, this one first."""
        return Clamp(min(max(self.lo, other.lo), other.hi), max(min(self.hi, other.hi), other.lo))

    @property
    def is_linear(self) -> bool:
        return self.lo == -math.inf and self.hi == math.inf


NO_CLAMP = Clamp()


@dataclass(frozen=True, slots=True)
class Factor:
    """A real factor in fixed point: `multiplier / 2**31 * 2**shift`."""

    multiplier: int
    shift: int


@dataclass(frozen=True, slots=True)
class Requant:
    """int8 arithmetic of convolutions and fully connected layers, and (no factors) of pools."""

    act_min: int
    act_max: int
    factors: tuple[Factor, ...] = ()  # one, or one per output channel
    single_rounding: bool = False  # LiteRT's way; TensorFlow Lite Micro rounds twice


@dataclass(frozen=True, slots=True)
class AddFixed:
    """int8 arithmetic of an addition or a subtraction."""

    act_min: int
    act_max: int
    a: Factor
    b: Factor
    out: Factor
    left_shift: int


@dataclass(frozen=True, slots=True)
class SoftmaxFixed:
    """int8 arithmetic of a softmax."""

    input_multiplier: int
    input_left_shift: int
    diff_min: int


@dataclass(frozen=True, slots=True)
class MulFixed:
    """int8 arithmetic of a product: the factor is s_a * s_b / s_out."""

    act_min: int
    act_max: int
    out: Factor


@dataclass(frozen=True, slots=True)
class MeanFixed:
    """int8 arithmetic of a mean: the factor is s_x / (s_out * elements averaged)."""

    act_min: int
    act_max: int
    out: Factor


Fixed = Requant | AddFixed | SoftmaxFixed | MulFixed | MeanFixed


class UnaryKind(enum.Enum):
    """Functions of one real number; `a`, `b` are Unary's."""

    RELU = "relu"
    CLIP = "clip"  # min(max(x, a), b)
    LEAKY_RELU = "leaky_relu"  # x < 0 ? a * x : x
    SIGMOID = "sigmoid"
    TANH = "tanh"
    HARDSWISH = "hardswish"  # x * min(max(x + 3, 0), 6) / 6
    HARDSIGMOID = "hardsigmoid"  # min(max(a * x + b, 0), 1)
    ELU = "elu"  # x < 0 ? a * (exp(x) - 1) : x
    ABS = "abs"
    EXP = "exp"


@dataclass(frozen=True, slots=True)
class Unary:
    """Which function."""

    kind: UnaryKind
    a: float = 0.0
    b: float = 0.0


@dataclass(frozen=True, slots=True)
class Concat:
    """Joined along `axis`, counted from 0."""

    axis: int


@dataclass(frozen=True, slots=True)
class Pad:
    """Elements put before and after each axis. `value` is a real number (0: the zero point)."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Transpose:
    """Output axis i is input axis `axes[i]`."""

    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """Elements begin, begin + stride, ... below `end` along each axis; strides 1 or more."""

    begin: tuple[int, ...]
    end: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mean:
    """Averaged over `axes` (sorted); `keep` leaves them as axes of size 1."""

    axes: tuple[int, ...]
    keep: bool = False


Attrs = Unary | Concat | Pad | Transpose | Slice | Mean

_ATTRS: dict[OpKind, type[Attrs]] = {
    OpKind.UNARY: Unary,
    OpKind.CONCAT: Concat,
    OpKind.PAD: Pad,
    OpKind.TRANSPOSE: Transpose,
    OpKind.SLICE: Slice,
    OpKind.MEAN: Mean,
}


_INPUT_COUNTS: dict[OpKind, tuple[int, int]] = {
    **dict.fromkeys(WEIGHTED, (2, 3)),
    **dict.fromkeys(BINARY, (2, 2)),
    OpKind.CONCAT: (1, CONCAT_MAX),
    OpKind.TABLE: (2, 2),
    OpKind.EMBEDDING: (2, 2),
}


@dataclass(frozen=True, slots=True)
class Op:
    """One operator. `inputs` are tensor names: x, then weights and bias, or the second operand.

    `fixed` is filled in by quantisation and absent in a float graph. `groups` splits the channels
    of a convolution: its weights are [O, h, w, C / groups].
    """

    name: str
    kind: OpKind
    inputs: tuple[str, ...]
    output: str
    window: Window | None = None
    clamp: Clamp = NO_CLAMP
    fixed: Fixed | None = None
    attrs: Attrs | None = None
    groups: int = 1

    def __post_init__(self) -> None:
        if (self.window is not None) != (self.kind in WINDOWED):
            raise UsageError(f"operator {self.name}: {self.kind.value} and window do not match")
        expected = _ATTRS.get(self.kind)
        if (type(self.attrs) if self.attrs is not None else None) is not expected:
            raise UsageError(
                f"operator {self.name}: {self.kind.value} takes "
                f"{expected.__name__ if expected else 'no attributes'}, got {self.attrs}"
            )
        if self.groups < 1 or (self.groups > 1 and self.kind is not OpKind.CONV2D):
            raise UsageError(f"operator {self.name}: {self.groups} groups of {self.kind.value}")
        low, high = _INPUT_COUNTS.get(self.kind, (1, 1))
        if not low <= len(self.inputs) <= high:
            raise UsageError(
                f"operator {self.name}: {self.kind.value} takes {low} to {high} inputs, "
                f"got {len(self.inputs)}"
            )
        if self.kind in NO_CLAMP_KINDS and not self.clamp.is_linear:
            raise UsageError(f"operator {self.name}: {self.kind.value} takes no activation")
