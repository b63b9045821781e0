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
    ADD = "add"  # a, b of one shape
    SOFTMAX = "softmax"  # over the last axis
    RESHAPE = "reshape"  # the same elements in the same order


WEIGHTED = frozenset({OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D, OpKind.FULLY_CONNECTED})
WINDOWED = frozenset({OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D, OpKind.MAX_POOL, OpKind.AVG_POOL})
POOLS = frozenset({OpKind.MAX_POOL, OpKind.AVG_POOL})


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


@dataclass(frozen=True, slots=True)
class AddFixed:
    """int8 arithmetic of an addition."""

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


Fixed = Requant | AddFixed | SoftmaxFixed


@dataclass(frozen=True, slots=True)
class Op:
    """One operator. `inputs` are tensor names: x, then weights and bias, or the second summand.

    `fixed` is filled in by quantisation and absent in a float graph.
    """

    name: str
    kind: OpKind
    inputs: tuple[str, ...]
    output: str
    window: Window | None = None
    clamp: Clamp = NO_CLAMP
    fixed: Fixed | None = None

    def __post_init__(self) -> None:
        if (self.window is not None) != (self.kind in WINDOWED):
            raise UsageError(f"operator {self.name}: {self.kind.value} and window do not match")
        counts = {
            OpKind.ADD: {2},
            OpKind.CONV2D: {2, 3},
            OpKind.DEPTHWISE_CONV2D: {2, 3},
            OpKind.FULLY_CONNECTED: {2, 3},
        }.get(self.kind, {1})
        if len(self.inputs) not in counts:
            raise UsageError(
                f"operator {self.name}: {self.kind.value} takes {sorted(counts)} inputs, "
                f"got {len(self.inputs)}"
            )
        if self.kind in (OpKind.SOFTMAX, OpKind.RESHAPE) and not self.clamp.is_linear:
            raise UsageError(f"operator {self.name}: {self.kind.value} takes no activation")
