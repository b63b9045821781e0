"""What every frontend shares: growing a graph operator by operator, and folding into it.

Activations and batch normalisation are folded into the operator that makes their input, where
nobody else reads that value; where that is impossible they become an operator of their own that
computes exactly the same (a unary operator, a 1x1 depthwise convolution).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fieldloop.errors import FieldloopError
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import (
    NO_CLAMP,
    NO_CLAMP_KINDS,
    WEIGHTED,
    Attrs,
    Clamp,
    Fixed,
    Op,
    OpKind,
    Unary,
    UnaryKind,
    Window,
)
from fieldloop.ir.shapes import output_shape
from fieldloop.ir.tensor import Array, DType, Quant, Tensor


class UnsupportedModelError(FieldloopError):
    """A network that fieldloop cannot take over; the message names the operator and a way out."""


def unsupported(node: str, operator: str, why: str, instead: str) -> UnsupportedModelError:
    """One line: which node, which operator, why not, what to do."""
    return UnsupportedModelError(f"{node} ({operator}): {why}; {instead}")


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """Real numbers, float64, and how the source quantised them, if it did.

    `scales`: one, or one for each entry along `axis`. Elements are scale * (q - zero_point) for q
    of int8 (a source's uint8 less 128) or, for biases, int32.
    """

    data: Array
    scales: tuple[float, ...] | None = None
    zero_point: int = 0
    axis: int | None = None

    def transpose(self, axes: Sequence[int]) -> Constant:
        axis = None if self.axis is None else list(axes).index(self.axis)
        return replace(self, data=self.data.transpose(axes), axis=axis)

    def with_axis(self, at: int) -> Constant:
        """With an axis of size 1 before axis `at`."""
        axis = self.axis if self.axis is None or self.axis < at else self.axis + 1
        return replace(self, data=np.expand_dims(self.data, at), axis=axis)

    def take(self, places: Array) -> Constant:
        """Its last axis reordered."""
        if self.axis is not None and self.axis == self.data.ndim - 1:
            return Constant(self.data[..., places])
        return replace(self, data=self.data[..., places])

    @property
    def quant(self) -> Quant | None:
        """The quantisation of an int8 constant; None where there is none that a device has."""
        if self.scales is None or (self.axis is not None and self.zero_point):
            return None
        return Quant(self.scales, self.zero_point, self.axis)

    def integers(self) -> Array:
        """The integers that the source stored: int64."""
        assert self.scales is not None
        along = [1] * self.data.ndim
        if self.axis is not None:
            along[self.axis] = -1
        scales = np.array(self.scales, np.float64).reshape(along if self.axis is not None else ())
        return np.asarray(np.rint(self.data / scales) + self.zero_point, np.int64)


class GraphBuilder:
    """Collects tensors and operators; `graph` validates the whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tensors: dict[str, Tensor] = {}
        self.constants: dict[str, Constant] = {}  # as the source has them
        self.ops: dict[str, Op] = {}  # by output, in order
        self.inputs: list[str] = []
        self._taken: set[str] = set()

    def fresh(self, wanted: str) -> str:
        """`wanted`, or with a number where something of that name exists."""
        name, n = wanted, 1
        while name in self._taken:
            n += 1
            name = f"{wanted}_{n}"
        self._taken.add(name)
        while "." in wanted:  # `a.weights` is not an operator beside `a`
            wanted = wanted.rpartition(".")[0]
            self._taken.add(wanted)
        return name

    def shape(self, value: str) -> tuple[int, ...]:
        return self.tensors[value].shape

    def input(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: DType = DType.FLOAT32,
        quant: Quant | None = None,
    ) -> str:
        name = self.fresh(name)
        self.tensors[name] = Tensor(name, shape, dtype, quant)
        self.inputs.append(name)
        return name

    def add(
        self,
        name: str,
        kind: OpKind,
        inputs: Sequence[str],
        *,
        window: Window | None = None,
        weights: Constant | Array | None = None,
        bias: Constant | Array | None = None,
        shape: tuple[int, ...] | None = None,
        attrs: Attrs | None = None,
        groups: int = 1,
        fixed: Fixed | None = None,
        dtype: DType = DType.FLOAT32,
        quant: Quant | None = None,
    ) -> str:
        """Appends an operator and returns the value it makes; `shape` is a reshape's."""
        name = self.fresh(name)
        names = list(inputs)
        if weights is not None:
            w = weights if isinstance(weights, Constant) else Constant(weights)
            if bias is None:
                bias = np.zeros(w.data.shape[3 if kind is OpKind.DEPTHWISE_CONV2D else 0])
            b = bias if isinstance(bias, Constant) else Constant(bias)
            names += [f"{name}.weights", f"{name}.bias"]
            self._set(names[-2], w)
            self._set(names[-1], b)
        op = Op(name, kind, tuple(names), name, window, fixed=fixed, attrs=attrs, groups=groups)
        if shape is not None:
            self.tensors[name] = Tensor(name, shape, dtype, quant)
        made = output_shape(op, self.tensors)
        self.tensors[name] = Tensor(name, made, dtype, quant)
        self.ops[name] = op
        return name

    def constant(self, name: str, value: Constant) -> str:
        """A float32 constant that is an operand."""
        name = self.fresh(name)
        self._set(name, value)
        return name

    def _set(self, name: str, value: Constant) -> None:
        with np.errstate(over="ignore"):
            data = value.data.astype(np.float32)
        if not np.isfinite(data).all():
            raise UnsupportedModelError(
                f"{name}: a constant that is not finite; expected float32 numbers, check the "
                "network's weights"
            )
        self.constants[name] = value
        self.tensors[name] = Tensor(name, data.shape, data=data)

    def weights_of(self, value: str) -> Constant | None:
        """The weights of the operator that makes a value."""
        op = self.ops.get(value)
        return self.constants[op.inputs[1]] if op is not None and op.kind in WEIGHTED else None

    def clamp(self, name: str, value: str, clamp: Clamp, *, private: bool) -> str:
        """Clamps a value.

        `private`: nobody else reads the value, nor what it is a reshape of.
        """
        op = self.ops.get(value)
        if op is not None and private:
            if op.kind is OpKind.RESHAPE:
                made = self.ops.get(op.inputs[0])
                if made is not None and made.kind not in NO_CLAMP_KINDS:
                    self.clamp(name, made.output, clamp, private=True)
                    return value
            elif op.kind not in NO_CLAMP_KINDS:
                self.ops[value] = replace(op, clamp=op.clamp.then(clamp))
                return value
        if clamp == Clamp(0.0, math.inf):
            unary = Unary(UnaryKind.RELU)
        else:
            unary = Unary(UnaryKind.CLIP, clamp.lo, clamp.hi)
        return self.add(name, OpKind.UNARY, [value], attrs=unary)

    def scale_shift(
        self, name: str, value: str, scale: Array, shift: Array, *, private: bool
    ) -> str:
        """value * scale + shift, per channel (float64 [c]), the channels being its last axis."""
        if private and self.fold(value, scale, shift):
            return value
        shape = self.shape(value)
        if len(shape) != 4:
            pixels = math.prod(shape[1:-1])
            value = self.add(
                f"{name}_map", OpKind.RESHAPE, [value], shape=(shape[0], 1, pixels, shape[-1])
            )
        made = self.add(
            name,
            OpKind.DEPTHWISE_CONV2D,
            [value],
            window=Window((1, 1)),
            weights=scale.reshape(1, 1, 1, -1),
            bias=shift,
        )
        if len(shape) != 4:
            made = self.add(f"{name}_flat", OpKind.RESHAPE, [made], shape=shape)
        return made

    def fold(self, value: str, scale: Array, shift: Array) -> bool:
        """Multiplies the weights that make `value`, where there are any that may be changed."""
        op = self.ops.get(value)
        if op is None or op.kind not in WEIGHTED or op.clamp != NO_CLAMP:
            return False
        w, b = self.constants[op.inputs[1]], self.constants[op.inputs[2]]
        if w.scales is not None:  # they are the integers that the device will have
            if (scale != 1.0).any():
                return False
            self._set(op.inputs[2], Constant(b.data + shift))
            return True
        along = [1] * w.data.ndim
        along[3 if op.kind is OpKind.DEPTHWISE_CONV2D else 0] = -1
        self._set(op.inputs[1], Constant(w.data * scale.reshape(along)))
        self._set(op.inputs[2], Constant(b.data * scale + shift))
        return True

    def graph(self, outputs: Sequence[str]) -> Graph:
        """The graph, without what none of its outputs needs."""
        needed = set(outputs)
        kept: list[Op] = []
        for op in reversed(self.ops.values()):
            if op.output in needed:
                kept.append(op)
                needed.update(op.inputs)
        tensors = {name: t for name, t in self.tensors.items() if name in needed}
        inputs = tuple(name for name in self.inputs if name in needed)
        return Graph(self.name, tensors, tuple(reversed(kept)), inputs, tuple(outputs))
