"""Tensors: a name, a shape, a dtype, how integers stand for reals, and a constant's data."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.errors import UsageError

Array = npt.NDArray[Any]


class DType(enum.Enum):
    """Element types of the graph."""

    INT8 = "int8"
    INT32 = "int32"
    FLOAT32 = "float32"

    @property
    def bytes(self) -> int:
        return np.dtype(self.value).itemsize


def as_float32(value: float) -> float:
    """The nearest float32, as a Python float: what the image will hold."""
    return float(np.float32(value))


@dataclass(frozen=True, slots=True)
class Quant:
    """Real value of an integer element: `scale * (q - zero_point)`.

    `scales` has one entry, or one per channel along `axis` (then the zero point is 0). Every scale
    is a float32 value, because that is what the image and the device compute with.
    """

    scales: tuple[float, ...]
    zero_point: int = 0
    axis: int | None = None

    def __post_init__(self) -> None:
        if not self.scales or (self.axis is None and len(self.scales) != 1):
            raise UsageError(
                f"quantisation: expected one scale, or an axis for {len(self.scales)} scales"
            )
        for scale in self.scales:
            if not (math.isfinite(scale) and scale > 0 and scale == as_float32(scale)):
                raise UsageError(f"quantisation: expected a positive float32 scale, got {scale!r}")
        if self.axis is not None and self.zero_point != 0:
            raise UsageError("quantisation: a tensor with a scale per channel has zero point 0")

    @property
    def scale(self) -> float:
        """The scale of a per-tensor quantisation."""
        if self.axis is not None:
            raise UsageError("quantisation: this tensor has one scale per channel, not one")
        return self.scales[0]

    def quantize(self, real: Array) -> npt.NDArray[np.int8]:
        """Nearest int8 of real values (ties to even, in float64), clipped; per tensor only."""
        q = np.rint(np.asarray(real, np.float64) / self.scale) + self.zero_point
        return np.asarray(np.clip(q, -128, 127), np.int8)

    def dequantize(self, q: Array) -> npt.NDArray[np.float32]:
        """Real values of integers; per tensor only."""
        real = (np.asarray(q, np.float64) - self.zero_point) * self.scale
        return real.astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A value of the graph. `data` is None for an activation; a constant's data is read-only."""

    name: str
    shape: tuple[int, ...]
    dtype: DType = DType.FLOAT32
    quant: Quant | None = None
    data: Array | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.shape) <= 4 or any(n < 1 for n in self.shape):
            raise UsageError(
                f"tensor {self.name}: expected 1 to 4 dimensions, each at least 1, "
                f"got {self.shape}"
            )
        if self.quant is not None and self.quant.axis is not None:
            axis = self.quant.axis
            if not 0 <= axis < len(self.shape) or self.shape[axis] != len(self.quant.scales):
                raise UsageError(
                    f"tensor {self.name}: {len(self.quant.scales)} scales do not match "
                    f"axis {axis} of shape {self.shape}"
                )
        if self.data is not None:
            if self.data.shape != self.shape or self.data.dtype != np.dtype(self.dtype.value):
                raise UsageError(
                    f"tensor {self.name}: expected data {self.shape} {self.dtype.value}, "
                    f"got {self.data.shape} {self.data.dtype}"
                )
            frozen = np.ascontiguousarray(self.data).view()
            frozen.flags.writeable = False
            object.__setattr__(self, "data", frozen)

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.size * self.dtype.bytes
