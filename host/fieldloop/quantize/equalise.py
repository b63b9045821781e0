"""Cross-layer equalisation: channels of one size before a layer that cannot tell them apart.

Between two layers with nothing but max(x, 0), pools and means, a channel may be divided by any
s > 0 if the next layer multiplies it again: the network stays the same. An activation has one
scale for all of its channels, so a small channel beside a large one has few steps; a layer's
weights have one scale per output channel, so the same holds for what reads its input channels.
With r the largest value of a channel and w the largest weight that reads it (as a part of its
row's largest), s = sqrt(r / w) makes both alike. A depthwise layer has a scale for each channel,
so there s evens out the values alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import POOLS, WEIGHTED, Clamp, Mean, Op, OpKind, Unary, UnaryKind
from fieldloop.ir.reference import run
from fieldloop.ir.tensor import Array, Tensor
from fieldloop.quantize.calibrate import chunks, first_samples
from fieldloop.quantize.weights import CHANNEL_AXIS

_LIMIT = 2.0**6  # largest change of one channel
_SAMPLES = 128
_POSITIVE = Clamp(0.0, math.inf)
_HOMOGENEOUS = {UnaryKind.RELU, UnaryKind.LEAKY_RELU, UnaryKind.ABS}


def equalised(graph: Graph, samples: Mapping[str, Array]) -> Graph | None:
    """The same network with evened out channels; None where no two layers can be."""
    pairs = [(op, second) for op in graph.ops if (second := _reader(graph, op)) is not None]
    if not pairs:
        return None
    sizes = _channel_sizes(graph, samples, {first.output for first, _ in pairs})
    tensors = dict(graph.tensors)
    for first, second in pairs:
        values = sizes[first.output]
        weights = _weights_of(second, graph.tensors)
        channel = _channels_read(second, weights, len(values))
        readers = _largest_read(weights, channel, len(values))
        live = (values > 0.0) & (readers > 0.0)
        if live.sum() < 2:
            continue
        wanted = values if second.kind is OpKind.DEPTHWISE_CONV2D else np.sqrt(values / readers)
        s = np.ones(len(values))
        s[live] = wanted[live] / np.exp(np.log(wanted[live]).mean())
        s = np.clip(s, 1.0 / _LIMIT, _LIMIT)
        _divide(first, tensors, s)
        made = _weights_of(second, tensors) * s[channel]
        tensors[second.inputs[1]] = replace(
            tensors[second.inputs[1]], data=made.astype(np.float32)
        )
    return replace(graph, tensors=tensors)


def _reader(graph: Graph, op: Op) -> Op | None:
    """The only layer that reads the channels of a layer, through what scales with them."""
    if op.kind not in WEIGHTED or not _may_change(graph, op):
        return None
    name, channels, flat = op.output, graph.tensors[op.output].shape[-1], False
    while op.clamp in (Clamp(), _POSITIVE):
        readers = graph.consumers(name)
        if len(readers) != 1 or name in graph.outputs:
            return None
        op = readers[0]
        if op.kind in WEIGHTED:
            if flat and op.kind is not OpKind.FULLY_CONNECTED:
                return None
            return op if _may_change(graph, op) else None
        if op.kind is OpKind.RESHAPE:
            flat = flat or graph.tensors[op.output].shape[-1] != channels
        elif not _keeps_channels(graph, op) or flat:
            return None
        name = op.output
    return None


def _keeps_channels(graph: Graph, op: Op) -> bool:
    """Whether c times each channel makes c times that channel, for c > 0."""
    if isinstance(op.attrs, Mean):
        return len(graph.tensors[op.inputs[0]].shape) - 1 not in op.attrs.axes
    if isinstance(op.attrs, Unary):
        return op.attrs.kind in _HOMOGENEOUS
    return op.kind in POOLS


def _may_change(graph: Graph, op: Op) -> bool:
    """Whether the layer's constants are its own."""
    return all(len(graph.consumers(name)) == 1 for name in op.inputs[1:])


def _channel_sizes(
    graph: Graph, samples: Mapping[str, Array], names: set[str]
) -> dict[str, Array]:
    """Largest magnitude of each channel (last axis) of some activations."""
    chosen, count = first_samples(graph, samples, _SAMPLES)
    sizes: dict[str, Array] = {}

    def see(name: str, value: Array) -> None:
        if name in names:
            top = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
            sizes[name] = np.maximum(sizes.get(name, np.zeros(len(top))), top)

    for _, chunk in chunks(graph, chosen, count):
        run(graph, chunk, see)
    return sizes


def _weights_of(op: Op, tensors: Mapping[str, Tensor]) -> Array:
    data = tensors[op.inputs[1]].data
    assert data is not None
    return data.astype(np.float64)


def _channels_read(op: Op, w: Array, channels: int) -> Array:
    """The input channel that each weight is multiplied with; broadcasts to the weights."""
    if op.kind is OpKind.FULLY_CONNECTED:
        return np.asarray(np.arange(w.shape[1])[None] % channels)
    if op.kind is OpKind.DEPTHWISE_CONV2D:
        return np.asarray(np.arange(w.shape[3])[None, None, None] // (w.shape[3] // channels))
    group = np.arange(w.shape[0]) // (w.shape[0] // op.groups)
    return np.asarray(group[:, None, None, None] * w.shape[3] + np.arange(w.shape[3]))


def _largest_read(w: Array, channel: Array, channels: int) -> Array:
    """Of each input channel, the largest weight that reads it, as a part of its row's largest."""
    rows = np.abs(w).reshape(len(w), -1).max(axis=1)
    part = np.abs(w) / np.where(rows > 0.0, rows, 1.0).reshape(-1, *(1,) * (w.ndim - 1))
    largest = np.zeros(channels)
    np.maximum.at(largest, np.broadcast_to(channel, w.shape).reshape(-1), part.reshape(-1))
    return largest


def _divide(op: Op, tensors: dict[str, Tensor], s: Array) -> None:
    """The layer's output channels divided by s."""
    along = [1] * tensors[op.inputs[1]].data.ndim  # type: ignore[union-attr]
    along[CHANNEL_AXIS[op.kind]] = -1
    for name, by in zip(op.inputs[1:], (s.reshape(along), s), strict=False):
        data = tensors[name].data
        assert data is not None
        made = (data.astype(np.float64) / by).astype(np.float32)
        tensors[name] = replace(tensors[name], data=made)
