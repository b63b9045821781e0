"""How to quantise: where ranges end, and what is done against the error that is left."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from fieldloop.errors import UsageError

Progress = Callable[[str, int, int], None]  # stage, samples done, samples in all


class Method(str, enum.Enum):
    """How a range is found from values that were seen."""

    MINMAX = "minmax"  # from the smallest to the largest
    PERCENTILE = "percentile"  # the share `percentile` of all values, half cut at each end
    MSE = "mse"  # where clipping and rounding together cost the least squared error


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """`method`: of activations; `weights`: of each output channel's weights, MINMAX or MSE.

    `bias_correction` adds what each output channel is off by on average, over the calibration
    samples. `equalise` evens out channels across pairs of layers, and keeps that only where the
    network's outputs come closer to the float ones. `float_io`: inputs and outputs stay float32.
    `keep_float`: names of operators that stay float32. `weight_headroom` widens the range of every
    output channel's weights by a factor >= 1 (weights that will grow while they are trained).
    """

    method: Method = Method.MINMAX
    percentile: float = 99.99
    weights: Method = Method.MINMAX
    bias_correction: bool = False
    equalise: bool = False
    float_io: bool = False
    keep_float: frozenset[str] = frozenset()
    weight_headroom: float = 1.0

    def __post_init__(self) -> None:
        for name in ("method", "weights"):
            given = getattr(self, name)
            try:
                object.__setattr__(self, name, Method(given))
            except ValueError:
                known = ", ".join(m.value for m in Method)
                raise UsageError(f"{name}: expected one of {known}, got {given!r}") from None
        if self.weights is Method.PERCENTILE:
            raise UsageError("weights: expected minmax or mse, got percentile")
        if not 50.0 < self.percentile <= 100.0:
            raise UsageError(
                f"calibration: expected a percentile in (50, 100], got {self.percentile}"
            )
        if not 1.0 <= self.weight_headroom <= 127.0:
            raise UsageError(
                f"weight_headroom: expected a factor of 1 to 127, got {self.weight_headroom}"
            )
        object.__setattr__(self, "keep_float", frozenset(self.keep_float))
