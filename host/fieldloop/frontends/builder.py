"""What every frontend shares: growing a graph operator by operator, and folding into it.

Activations and batch normalisation are folded into the operator that makes their input, where
nobody else reads that value; where that is impossible they become an operator of their own that
computes exactly the same (a 1x1 max pool with a clamp, a 1x1 depthwise convolution).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fieldloop.errors import FieldloopError
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import NO_CLAMP, WEIGHTED, Clamp, Op, OpKind, Window
from fieldloop.ir.shapes import output_shape
from fieldloop.ir.tensor import Array, Tensor


class UnsupportedModelError(FieldloopError):
    """A network that fieldloop cannot take over; the message names the operator and a way out."""


def unsupported(node: str, operator: str, why: str, instead: str) -> UnsupportedModelError:
    """One line: which node, which operator, why not, what to do."""
    return UnsupportedModelError(f"{node} ({operator}): {why}; {instead}")


_PIXEL = Window((1, 1))


class GraphBuilder:
    """Collects tensors and operators; `graph` validates the whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tensors: dict[str, Tensor] = {}
        self.ops: dict[str, Op] = {}  # by output, in order
        self.inputs: list[str] = []

    def fresh(self, wanted: str) -> str:
        """`wanted`, or with a number where an operator of that name exists."""
        name, n = wanted, 1
        while any(key == name or key.startswith(f"{name}.") for key in self.tensors):
            n += 1
            name = f"{wanted}_{n}"
        return name

    def shape(self, value: str) -> tuple[int, ...]:
        return self.tensors[value].shape

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        self.tensors[name] = Tensor(name, shape)
        self.inputs.append(name)
        return name

    def add(
        self,
        name: str,
        kind: OpKind,
        inputs: Sequence[str],
        *,
        window: Window | None = None,
        weights: Array | None = None,
        bias: Array | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> str:
        """Appends an operator and returns the value it makes; `shape` is a reshape's."""
        name = self.fresh(name)
        names = list(inputs)
        if weights is not None:
            bias = np.zeros(_channels(kind, weights)) if bias is None else bias
            names += [f"{name}.weights", f"{name}.bias"]
            self._constant(names[-2], weights)
            self._constant(names[-1], bias)
        op = Op(name, kind, tuple(names), name, window)
        made = shape if shape is not None else output_shape(op, self.tensors)
        self.tensors[name] = Tensor(name, made)
        self.ops[name] = op
        return name

    def _constant(self, name: str, data: Array) -> None:
        self.tensors[name] = Tensor(name, data.shape, data=data.astype(np.float32))

    def clamp(self, name: str, value: str, clamp: Clamp, *, private: bool) -> str | None:
        """Clamps a value; None where there is no way to.

        `private`: nobody else reads the value, nor what it is a reshape of.
        """
        op = self.ops.get(value)
        if op is not None and op.kind is OpKind.RESHAPE and private:
            if self.clamp(name, op.inputs[0], clamp, private=True) == op.inputs[0]:
                return value
        elif op is not None and op.kind is not OpKind.SOFTMAX and private:
            self.ops[value] = replace(op, clamp=op.clamp.then(clamp))
            return value
        if len(self.shape(value)) != 4:
            return None
        pooled = self.add(name, OpKind.MAX_POOL, [value], window=_PIXEL)
        self.ops[pooled] = replace(self.ops[pooled], clamp=clamp)
        return pooled

    def scale_shift(
        self, name: str, value: str, scale: Array, shift: Array, *, private: bool
    ) -> str | None:
        """value * scale + shift, per channel (float64); None where there is no way to."""
        op = self.ops.get(value)
        if op is None or op.kind not in WEIGHTED or not private or op.clamp != NO_CLAMP:
            if len(self.shape(value)) != 4:
                return None
            weights = scale.reshape(1, 1, 1, -1)
            return self.add(
                name, OpKind.DEPTHWISE_CONV2D, [value], window=_PIXEL, weights=weights, bias=shift
            )
        w, b = (self.tensors[n].data for n in op.inputs[1:])
        assert w is not None and b is not None
        along = [1] * w.ndim
        along[3 if op.kind is OpKind.DEPTHWISE_CONV2D else 0] = -1
        self._constant(op.inputs[1], w.astype(np.float64) * scale.reshape(along))
        self._constant(op.inputs[2], b.astype(np.float64) * scale + shift)
        return value

    def graph(self, outputs: Sequence[str]) -> Graph:
        """The graph, without what none of its outputs needs."""
        needed = set(outputs)
        kept: list[Op] = []
        for op in reversed(self.ops.values()):
            if op.output in needed:
                kept.append(op)
                needed.update(op.inputs)
        needed.update(self.inputs)
        tensors = {name: t for name, t in self.tensors.items() if name in needed}
        return Graph(self.name, tensors, tuple(reversed(kept)), tuple(self.inputs), tuple(outputs))


def _channels(kind: OpKind, weights: Array) -> int:
    return int(weights.shape[3 if kind is OpKind.DEPTHWISE_CONV2D else 0])
