"""Post-training quantisation of a float graph to int8, as TensorFlow Lite does it.

Activations: one asymmetric scale a tensor, from calibrated ranges that always hold zero. Weights:
symmetric in -127..127, one scale per output channel. Biases: int32 at s_x * s_w. Functions of one
number: a table. What cannot be int8 stays float32, between a DEQUANTIZE and a QUANTIZE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
from fieldloop.ir.tensor import Array, DType
from fieldloop.quantize.assign import SOFTMAX_OUTPUT, activation_quant, activation_quants
from fieldloop.quantize.bias import correct_biases
from fieldloop.quantize.calibrate import Range, calibrate, check_samples, first_samples
from fieldloop.quantize.emit import emit
from fieldloop.quantize.equalise import equalised
from fieldloop.quantize.options import Method, Progress, QuantizeOptions
from fieldloop.quantize.report import output_error
from fieldloop.quantize.weights import weight_quant

__all__ = ["SOFTMAX_OUTPUT", "Quantized", "activation_quant", "quantize_graph", "weight_quant"]

_JUDGED = 128  # samples that decide whether an equalised network is better


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """An int8 graph, what calibration saw of the float one (by tensor name), and that one.

    `reference` is the float graph that `graph` stands for, tensor by tensor: the one given, or,
    where `is_equalised`, one that computes the same with other weights.
    """

    graph: Graph
    ranges: Mapping[str, Range]
    reference: Graph
    is_equalised: bool = False


def quantize_graph(
    graph: Graph,
    samples: Mapping[str, Array],
    *,
    percentile: float = 100.0,
    headroom: Mapping[str, float] | None = None,
    options: QuantizeOptions | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """The int8 graph of a float one, calibrated over `samples` (n of each input's shape).

    `headroom` widens the calibrated range of single tensors by a factor >= 1 (logits that will
    grow while new classes are learned). `options`: how; without, `percentile` alone.
    """
    if options is None:
        options = QuantizeOptions(method=Method.PERCENTILE, percentile=percentile)
    if any(t.dtype is DType.INT8 for t in graph.tensors.values()):
        raise UsageError(f"graph {graph.name} is int8 already; expected float32 tensors")
    unknown = sorted(options.keep_float - {op.name for op in graph.ops})
    if unknown:
        raise UsageError(f"keep_float: {unknown[0]} is no operator of {graph.name}")
    check_samples(graph, samples)
    made = _quantize(graph, samples, headroom or {}, options, progress)
    if not options.equalise:
        return made
    other = equalised(graph, samples)
    if other is None:
        return made
    candidate = _quantize(other, samples, headroom or {}, options, progress)
    judged, _ = first_samples(graph, samples, _JUDGED)
    if output_error(graph, candidate.graph, judged) < output_error(graph, made.graph, judged):
        return Quantized(candidate.graph, candidate.ranges, other, True)
    return made


def _quantize(
    graph: Graph,
    samples: Mapping[str, Array],
    headroom: Mapping[str, float],
    options: QuantizeOptions,
    progress: Progress | None,
) -> Quantized:
    ranges = calibrate(graph, samples, options, progress=progress)
    quants = activation_quants(graph, ranges, headroom)
    made = emit(graph, quants, options)
    if options.bias_correction:
        made = correct_biases(graph, made, samples, progress)
    return Quantized(made, ranges, graph)
