"""How far an int8 graph is from the float one, layer by layer, over samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fieldloop.ir.graph import Graph
from fieldloop.ir.reference import run
from fieldloop.ir.tensor import Array, DType
from fieldloop.quantize.calibrate import check_samples, chunks, first_samples

_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class LayerError:
    """One operator's output, int8 against float.

    `sqnr_db`: power of the signal over that of the error, in decibel; None where nothing differs.
    `max_error` is in real numbers, `max_steps` in steps of the output's scale (None: float32).
    """

    name: str
    kind: str
    sqnr_db: float | None
    max_error: float
    max_steps: float | None


def layer_errors(
    reference: Graph, graph: Graph, samples: Mapping[str, Array], *, limit: int = _SAMPLES
) -> tuple[LayerError, ...]:
    """Errors of the operators that both graphs have, over up to `limit` of the samples.

    `reference` is the float graph that `graph` stands for (`Quantized.reference`). Errors include
    those of the layers before.
    """
    check_samples(reference, samples)
    chosen, _ = first_samples(reference, samples, limit)
    made = {op.name: op for op in graph.ops}
    shared = [op for op in reference.ops if op.name in made]
    errors = _errors(reference, graph, chosen, {op.output: made[op.name].output for op in shared})
    layers = []
    for op in shared:
        if op.output not in errors:
            continue
        signal, noise, worst = errors[op.output]
        quant = graph.tensors[made[op.name].output].quant
        layers.append(
            LayerError(
                op.name,
                made[op.name].kind.value,
                _decibel(signal, noise),
                worst,
                None if quant is None else worst / quant.scale,
            )
        )
    return tuple(layers)


def output_error(reference: Graph, graph: Graph, samples: Mapping[str, Array]) -> float:
    """Squared error of all outputs over the samples, each as a part of its signal."""
    pairs = {name: name for name in reference.outputs}
    errors = _errors(reference, graph, samples, pairs)
    return sum(noise / signal if signal > 0.0 else noise for signal, noise, _ in errors.values())


def given_to(graph: Graph, samples: Mapping[str, Array]) -> dict[str, Array]:
    """Real samples as the inputs of `graph` take them: int8 where they are int8."""
    given = {}
    for name, value in samples.items():
        tensor = graph.tensors[name]
        is_int8 = tensor.dtype is DType.INT8 and tensor.quant is not None
        given[name] = tensor.quant.quantize(value) if is_int8 and tensor.quant else value
    return given


def _errors(
    reference: Graph, graph: Graph, samples: Mapping[str, Array], pairs: Mapping[str, str]
) -> dict[str, tuple[float, float, float]]:
    """Sum of squares, of squared errors and largest error of tensors of both graphs."""
    found: dict[str, tuple[float, float, float]] = {}
    count = check_samples(reference, samples)
    for _, chunk in chunks(reference, samples, count):
        wanted = _values(reference, chunk, set(pairs))
        made = _values(graph, given_to(graph, chunk), set(pairs.values()))
        for name, other in pairs.items():
            tensor = graph.tensors[other]
            if reference.tensors[name].dtype is not DType.FLOAT32:
                continue
            x, y = wanted[name], made[other]
            if tensor.dtype is DType.INT8:
                assert tensor.quant is not None
                y = (y.astype(np.float64) - tensor.quant.zero_point) * tensor.quant.scale
            off = np.abs(x - y)
            signal, noise, worst = found.get(name, (0.0, 0.0, 0.0))
            found[name] = (
                signal + float(np.square(x).sum()),
                noise + float(np.square(off).sum()),
                max(worst, float(off.max())),
            )
    return found


def _values(graph: Graph, inputs: Mapping[str, Array], names: set[str]) -> dict[str, Array]:
    """The elements of some activations, all samples in a row."""
    parts: dict[str, list[Array]] = {name: [] for name in names}

    def see(name: str, value: Array) -> None:
        if name in names:
            parts[name].append(value.reshape(-1))

    run(graph, inputs, see)
    return {name: np.concatenate(kept) for name, kept in parts.items()}


def _decibel(signal: float, noise: float) -> float | None:
    if noise == 0.0:
        return None
    return 10.0 * math.log10(max(signal, 1e-300) / noise)
