"""What a check found, as data: layer by layer, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass

# Largest difference of a float model, as a part of the largest value of the tensor.
FLOAT_TOLERANCE = 1e-5
# Largest difference of a layer that was quantised elsewhere, in steps of its output.
STEP_TOLERANCE = 1


@dataclass(frozen=True, slots=True)
class LayerCheck:
    """One operator. None: was not compared there.

    `variants`: kernels that gave other bytes than plain C. `difference`: the largest from the
    oracle, int8 in steps, float32 as a part of the largest value. `sqnr_db`: of the int8 layer
    against the float model.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    macs: int
    variants: tuple[str, ...]
    board_equal: bool | None
    difference: float | None
    sqnr_db: float | None = None


@dataclass(frozen=True, slots=True)
class OracleCheck:
    """The source's own runtime. `exact`: its bytes are the measure, not a tolerance.

    `bit_exact`: every layer that was compared has its bytes, and at least one was compared. Of a
    mixed model that is asked of the int8 layers that no rounded real number comes before.
    `max_abs_diff`: over every layer that was compared, in steps where it is int8; in reals when
    nothing is int8. `max_rel_diff`: of float outputs, as a part of each one's largest value.
    """

    name: str
    exact: bool
    bit_exact: bool
    max_abs_diff: float
    max_rel_diff: float | None
    layers: int
    unknown_outputs: int = 0  # outputs of the model that it has no value for


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The verdict, and what it rests on. Bytes; multiply-accumulates.

    `outputs_only`: the model is tiled, and `layers` are those that make its outputs.
    """

    model: str
    outputs_only: bool
    dtype: str  # int8, float32 or mixed
    samples: int
    variants: tuple[str, ...]  # kernels compared on this machine, plain C first
    variants_equal: bool
    board: str | None
    board_equal: bool | None
    board_note: str
    oracle: OracleCheck | None
    oracle_note: str
    flash_bytes: int
    ram_bytes: int
    ram_by_kernels: dict[str, int]
    macs: int
    layers: tuple[LayerCheck, ...]

    @property
    def bit_exact(self) -> bool:
        """All kernels, the board where one was named, and an exact oracle gave the same bytes."""
        oracle = self.oracle is None or not self.oracle.exact or self.oracle.bit_exact
        return self.variants_equal and self.board_equal is not False and oracle

    @property
    def max_abs_diff(self) -> float | None:
        return None if self.oracle is None else self.oracle.max_abs_diff

    @property
    def ok(self) -> bool:
        """Bit-exact where bytes are the measure, and within the tolerance where they are not."""
        if not self.bit_exact:
            return False
        oracle = self.oracle
        if oracle is None:
            return True
        # A runtime that was asked and had nothing to say proves nothing.
        if oracle.layers == 0 or oracle.unknown_outputs:
            return False
        if oracle.max_rel_diff is not None and oracle.max_rel_diff > FLOAT_TOLERANCE:
            return False
        by_steps = not oracle.exact and self.dtype != "float32"
        return not by_steps or oracle.max_abs_diff <= STEP_TOLERANCE
