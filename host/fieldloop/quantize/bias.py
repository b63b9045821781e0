"""Bias correction: what each output channel is off by on average is added to its bias.

Layer by layer, from the first: the float graph and the int8 one run side by side over a part of
the calibration samples, and each layer is corrected on what the corrected layers before it make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import NO_CLAMP, WEIGHTED, Op
from fieldloop.ir.tensor import Array, DType, Tensor
from fieldloop.quantize.calibrate import first_samples
from fieldloop.quantize.options import Progress
from fieldloop.quantize.report import given_to
from fieldloop.quantize.walk import drop_read, run_op

_SAMPLES = 256
_ELEMENTS = 1 << 23  # of the largest activation, all samples together
_INT32 = np.iinfo(np.int32)


def correct_biases(
    reference: Graph, graph: Graph, samples: Mapping[str, Array], progress: Progress | None = None
) -> Graph:
    """`graph`, made from the float graph `reference`, with corrected biases."""
    largest = max(t.size for t in reference.activations)
    limit = max(1, min(_SAMPLES, _ELEMENTS // largest))
    chosen, count = first_samples(reference, samples, limit)
    reals: dict[str, Array] = dict(chosen)
    values: dict[str, Array] = given_to(graph, chosen)
    tensors = dict(graph.tensors)
    places = {op.name: i for i, op in enumerate(reference.ops)}
    for place, op in enumerate(graph.ops):
        number = places.get(op.name)
        if number is not None:
            real_op = reference.ops[number]
            if op.kind in WEIGHTED and tensors[op.output].dtype is DType.INT8:
                shift = _shift(real_op, reference, reals, op, tensors, values[op.inputs[0]])
                _add(tensors, op.inputs[2], shift)
            reals[real_op.output] = run_op(real_op, reference.tensors, reals)
            drop_read(reference, number, reals)
        values[op.output] = run_op(op, tensors, values)
        drop_read(graph, place, values)
        if progress is not None:
            progress(f"correct biases over {count} samples", place + 1, len(graph.ops))
    return replace(graph, tensors=tensors)


def _shift(
    real_op: Op,
    reference: Graph,
    reals: Mapping[str, Array],
    op: Op,
    tensors: Mapping[str, Tensor],
    x: Array,
) -> Array:
    """Float less int8 of each output channel [c_out] before its activation, on average."""
    linear = replace(real_op, clamp=NO_CLAMP)
    wanted = run_op(linear, reference.tensors, reals)
    as_real = {
        real_op.inputs[0]: reference.tensors[real_op.inputs[0]],
        real_op.output: reference.tensors[real_op.output],
        "weights": _dequantized(tensors[op.inputs[1]], "weights"),
        "bias": _dequantized(tensors[op.inputs[2]], "bias"),
    }
    quant = tensors[op.inputs[0]].quant
    assert quant is not None
    made = run_op(
        replace(linear, inputs=(real_op.inputs[0], "weights", "bias")),
        as_real,
        {real_op.inputs[0]: quant.dequantize(x)},
    )
    return np.asarray(
        (wanted.astype(np.float64) - made).reshape(-1, wanted.shape[-1]).mean(axis=0)
    )


def _dequantized(tensor: Tensor, name: str) -> Tensor:
    """A constant with a scale per channel as real numbers."""
    assert tensor.data is not None and tensor.quant is not None
    along = [1] * tensor.data.ndim
    along[tensor.quant.axis or 0] = -1
    real = tensor.data.astype(np.float64) * np.array(tensor.quant.scales).reshape(along)
    return Tensor(name, tensor.shape, data=real.astype(np.float32))


def _add(tensors: dict[str, Tensor], name: str, shift: Array) -> None:
    bias = tensors[name]
    assert bias.data is not None and bias.quant is not None
    moved = bias.data + np.rint(shift / np.array(bias.quant.scales))
    clipped = np.clip(moved, _INT32.min, _INT32.max).astype(np.int32)
    tensors[name] = replace(bias, data=clipped)
