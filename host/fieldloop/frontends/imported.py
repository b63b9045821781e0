"""What a frontend hands over: the graph, and how the source's values map to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fieldloop.ir.graph import Graph
from fieldloop.ir.tensor import Array


@dataclass(frozen=True, slots=True)
class ValueMap:
    """How a value of the source model becomes a tensor of the graph, and back.

    `axes`: axis i of the graph's tensor is the source's axis `axes[i]`; None where they agree
    (or where the tensor is only another shape of the same elements). `offset` is added to the
    source's integers: -128 for uint8. `shape` is the source's.
    """

    source: str
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[int, ...] | None = None
    offset: int = 0

    def to_graph(self, value: Array, shape: tuple[int, ...]) -> Array:
        """A source value as the graph's tensor of `shape` (its first axis may be a batch)."""
        moved = value if self.axes is None else np.transpose(value, self.axes)
        moved = moved.reshape(-1, *shape[1:]) if moved.ndim else moved.reshape(shape)
        if self.offset:
            moved = (moved.astype(np.int32) + self.offset).astype(np.int8)
        return np.ascontiguousarray(moved)

    def to_source(self, value: Array) -> Array:
        """A graph tensor (batch of one) as the source's value."""
        back = value
        if self.offset:
            back = (back.astype(np.int32) - self.offset).astype(self.dtype)
        if self.axes is not None:
            back = back.reshape([self.shape[axis] for axis in self.axes])
            back = np.transpose(back, np.argsort(self.axes))
        return np.ascontiguousarray(back.reshape(self.shape))


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """A model as a graph. `kind`: "torch", "tflite" or "onnx".

    `values` maps a tensor of the graph to the source's value it equals; tensors that only the
    graph has (a folded step, a padding of its own) are absent. A graph whose tensors are int8
    came quantised; a float32 one can be quantised or compiled as it is.
    """

    graph: Graph
    kind: str
    values: Mapping[str, ValueMap] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
