"""Checks a network as its user has it: compiled, and against the runtime it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fieldloop.compare.inputs import given_samples, random_samples
from fieldloop.compare.oracles import oracle_of
from fieldloop.compare.report import CheckReport
from fieldloop.compare.run import check_image
from fieldloop.image.reader import read_image
from fieldloop.ir.tensor import DType
from fieldloop.quantize.report import layer_errors
from fieldloop.sources import Source, compile_source, named_samples

if TYPE_CHECKING:
    from fieldloop.compiler import Compiled
    from fieldloop.quantize.options import QuantizeOptions

Array = npt.NDArray[Any]


def check_source(
    source: Source,
    *,
    options: QuantizeOptions | None = None,
    inputs: Array | Mapping[str, Array] | None = None,
    count: int = 3,
    seed: int = 0,
    board: str | None = None,
    memory: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> CheckReport:
    """`inputs`: samples as with_samples takes them, instead of `count` random ones of `seed`."""
    compiled = compile_source(source, options=options)
    image = read_image(compiled.image)
    real = source.calibration or {}
    if inputs is None:
        samples = random_samples(image, seed, count)
    else:
        moved = named_samples(source, inputs, "inputs")
        samples = given_samples(image, moved, source.imported.graph.inputs)
        real = moved
    oracle, note = oracle_of(source, compiled)
    return check_image(
        compiled.image,
        samples,
        model=source.name,
        names=[op.name for op in compiled.graph.ops],
        oracle=oracle,
        oracle_note=note,
        board=board,
        memory=memory,
        sqnr_db=_sqnr(compiled, real),
        progress=progress,
        say=say,
    )


def _sqnr(compiled: Compiled, samples: Mapping[str, Array]) -> dict[str, float] | None:
    """Signal to quantisation noise by operator, over the samples; None of what came as it is."""
    reference = compiled.reference
    if reference is None or set(samples) != set(reference.inputs):
        return None
    for name, value in samples.items():  # int8 samples are of another scale than the float model
        if reference.tensors[name].dtype is DType.FLOAT32 and value.dtype == np.int8:
            return None
    errors = layer_errors(reference, compiled.graph, samples)
    return {error.name: error.sqnr_db for error in errors if error.sqnr_db is not None}
