"""One float operator between DEQUANTIZE and QUANTIZE, as int8 operators.

Factors are TensorFlow Lite's (`quantize.fixedpoint`), so the device computes such a model with the
kernels it has; a result may be a step away from the source's float arithmetic. Functions of one
value are tables of exactly what the source computes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fieldloop.errors import UsageError
from fieldloop.frontends.builder import Constant, GraphBuilder
from fieldloop.ir.float_ops import unary
from fieldloop.ir.op import (
    WEIGHTED,
    Concat,
    Fixed,
    Mean,
    Op,
    OpKind,
    Pad,
    Requant,
    Unary,
    Window,
)
from fieldloop.ir.tensor import Array, DType, Quant, Tensor, as_float32
from fieldloop.quantize.fixedpoint import (
    activation_range,
    add_params,
    mean_params,
    mul_params,
    softmax_params,
    weighted_factors,
)

SOFTMAX_OUTPUT = Quant((1.0 / 256.0,), -128)
_INT32 = np.iinfo(np.int32)
_TABLE = np.arange(-128, 128)  # every int8


def source_of(build: GraphBuilder, name: str) -> Tensor | None:
    """The int8 tensor that a value is the DEQUANTIZE of."""
    op = build.ops.get(name)
    return build.tensors[op.inputs[0]] if op and op.kind is OpKind.DEQUANTIZE else None


class Lowering:
    """Tries one operator; the builder gets what came of it only if all of it worked."""

    def __init__(self, build: GraphBuilder, op: Op, output: str) -> None:
        """`output`: the int8 tensor that the QUANTIZE behind the operator makes."""
        self.build, self.op, self.output = build, op, output
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[Op] = []

    def run(self) -> bool:
        """Puts int8 operators in the operator's place, if there are any that do the same."""
        rule = _RULES.get(self.op.kind)
        try:
            if rule is None or self.out.quant is None or not rule(self):
                return False
        except UsageError:
            return False  # a factor that 32 bits do not hold
        return self._commit()

    def rescale(self) -> bool:
        """The operator is a QUANTIZE; of an integer that has another scale it is a TABLE."""
        x = source_of(self.build, self.op.inputs[0])
        if x is None:
            return False
        self._table(x, self.output, lambda real: real)
        return self._commit()

    def _commit(self) -> bool:
        self.build.tensors.update(self.tensors)
        self.build.ops.update((op.output, op) for op in self.ops)
        return True

    # ---- parts

    @property
    def out(self) -> Tensor:
        return self.build.tensors[self.output]

    @property
    def quant(self) -> Quant:
        assert self.out.quant is not None
        return self.out.quant

    def x(self, place: int = 0) -> Tensor | None:
        """An input as int8: an activation, or a constant that the source quantised."""
        name = self.op.inputs[place]
        held = self.build.constants.get(name)
        if held is None:
            return source_of(self.build, name)
        return self._constant(name, held)

    def _constant(self, name: str, held: Constant) -> Tensor | None:
        quant = held.quant
        if quant is None:
            return None
        integers = held.integers()
        if integers.min() < -128 or integers.max() > 127:
            return None
        made = Tensor(name, held.data.shape, DType.INT8, quant, integers.astype(np.int8))
        self.tensors[name] = made
        return made

    def _put(self, op: Op) -> None:
        self.ops.append(op)

    def _between(self, what: str, shape: tuple[int, ...], quant: Quant) -> str:
        """A new int8 activation."""
        name = self.build.fresh(f"{self.op.name}_{what}")
        self.tensors[name] = Tensor(name, shape, DType.INT8, quant)
        return name

    def _table(self, x: Tensor, output: str, function: Callable[[Array], Array]) -> None:
        """output = function(x), each entry computed in real numbers and rounded half to even."""
        out = self.tensors.get(output) or self.build.tensors[output]
        assert x.quant is not None and out.quant is not None
        reals = (_TABLE - x.quant.zero_point).astype(np.float32) * np.float32(x.quant.scale)
        with np.errstate(over="ignore"):  # what is too large is clipped
            steps = np.rint(function(reals).astype(np.float32) / np.float32(out.quant.scale))
        entries = np.clip(steps + out.quant.zero_point, -128, 127).astype(np.int8)
        table = self.build.fresh(f"{output}.table")
        self.tensors[table] = Tensor(table, (256,), DType.INT8, None, entries)
        self._put(Op(output, OpKind.TABLE, (x.name, table), output))

    def _scaled(self, x: Tensor, quant: Quant) -> str:
        """x under another quantisation."""
        if x.quant == quant:
            return x.name
        if x.is_constant:
            assert x.data is not None and x.quant is not None
            data = quant.quantize(x.quant.dequantize(x.data))
            self.tensors[x.name] = replace(x, quant=quant, data=data)
            return x.name
        name = self._between("rescaled", x.shape, quant)
        self._table(x, name, lambda real: real)
        return name

    def _one(
        self, kind: OpKind, inputs: tuple[str, ...], fixed: Fixed | None, quant: Quant
    ) -> str:
        """The operator itself, and a table behind it where it cannot end at the right scale."""
        name = self.output
        if quant != self.quant:
            name = self._between("before", self.out.shape, quant)
        self._put(replace(self.op, kind=kind, inputs=inputs, output=name, fixed=fixed))
        if name != self.output:
            self._table(self.tensors[name], self.output, lambda real: real)
        return name

    # ---- operators

    def weighted(self) -> bool:
        x, w = self.x(), self.x(1)
        axis = 3 if self.op.kind is OpKind.DEPTHWISE_CONV2D else 0
        if x is None or w is None or x.quant is None or w.quant is None:
            return False
        if w.quant.axis not in (None, axis):
            return False
        factors = weighted_factors(x.quant, w.quant, self.quant)
        self._bias(x.quant, w, axis)
        act = activation_range(self.op.clamp, self.quant)
        inputs = (x.name, *self.op.inputs[1:])
        self._put(
            replace(self.op, inputs=inputs, output=self.output, fixed=Requant(*act, factors))
        )
        return True

    def _bias(self, x: Quant, w: Tensor, axis: int) -> None:
        """int32 at the product of the scales, which is what a source's int32 is, too."""
        assert w.quant is not None
        name = self.op.inputs[2]
        scales = np.array(w.quant.scales, np.float64) * x.scale
        steps = np.rint(self.build.constants[name].data / scales)
        data = np.clip(steps, _INT32.min, _INT32.max).astype(np.int32)
        channels = w.shape[axis]
        each = tuple(as_float32(float(s)) for s in np.broadcast_to(scales, (channels,)))
        self.tensors[name] = Tensor(name, data.shape, DType.INT32, Quant(each, 0, 0), data)

    def max_pool(self) -> bool:
        x = self.x()
        if x is None or x.quant is None:
            return False
        fixed = Requant(*activation_range(self.op.clamp, x.quant))
        self._one(OpKind.MAX_POOL, (x.name,), fixed, x.quant)
        return True

    def avg_pool(self) -> bool:
        """The mean with one rounding, where the scales differ."""
        x, window = self.x(), self.op.window
        if x is None or x.quant is None or window is None:
            return False
        if x.quant == self.quant or any(window.pads):
            fixed = Requant(*activation_range(self.op.clamp, x.quant))
            self._one(OpKind.AVG_POOL, (x.name,), fixed, x.quant)
        elif window.kernel == x.shape[1:3]:
            self._mean(x, (1, 2))
        else:
            self._ones(x, window)
        return True

    def _ones(self, x: Tensor, window: Window) -> None:
        """An average pool as a depthwise convolution with ones."""
        assert x.quant is not None
        taps = window.kernel[0] * window.kernel[1]
        w = Quant((as_float32(1.0 / taps),))
        names = (
            self.build.fresh(f"{self.op.name}.weights"),
            self.build.fresh(f"{self.op.name}.bias"),
        )
        channels = x.shape[3]
        ones = np.ones((1, *window.kernel, channels), np.int8)
        self.tensors[names[0]] = Tensor(names[0], ones.shape, DType.INT8, w, ones)
        each = (as_float32(x.quant.scale * w.scale),) * channels
        self.tensors[names[1]] = Tensor(
            names[1], (channels,), DType.INT32, Quant(each, 0, 0), np.zeros(channels, np.int32)
        )
        fixed = Requant(
            *activation_range(self.op.clamp, self.quant),
            weighted_factors(x.quant, w, self.quant),
        )
        self._one(OpKind.DEPTHWISE_CONV2D, (x.name, *names), fixed, self.quant)

    def mean(self) -> bool:
        x = self.x()
        if x is None or not isinstance(self.op.attrs, Mean):
            return False
        self._mean(x, self.op.attrs.axes)
        return True

    def _mean(self, x: Tensor, axes: tuple[int, ...]) -> None:
        assert x.quant is not None
        count = int(np.prod([x.shape[a] for a in axes]))
        fixed = mean_params(x.quant, self.quant, count, self.op.clamp)
        op = replace(self.op, window=None, kind=OpKind.MEAN, attrs=Mean(axes, keep=True))
        self._put(replace(op, inputs=(x.name,), output=self.output, fixed=fixed))

    def sum_or_product(self) -> bool:
        a, b = self.x(0), self.x(1)
        if a is None or b is None or a.quant is None or b.quant is None:
            return False
        make = mul_params if self.op.kind is OpKind.MUL else add_params
        fixed = make(a.quant, b.quant, self.quant, self.op.clamp)
        self._one(self.op.kind, (a.name, b.name), fixed, self.quant)
        return True

    def extremum(self) -> bool:
        a, b = self.x(0), self.x(1)
        if a is None or b is None:
            return False
        inputs = self._scaled(a, self.quant), self._scaled(b, self.quant)
        fixed = Requant(*activation_range(self.op.clamp, self.quant))
        self._one(self.op.kind, inputs, fixed, self.quant)
        return True

    def softmax(self) -> bool:
        """To 1/256 first; an output that is finer than that is better computed in float."""
        x = self.x()
        if x is None or x.quant is None or self.quant.scale < 0.99 * SOFTMAX_OUTPUT.scale:
            return False
        self._one(OpKind.SOFTMAX, (x.name,), softmax_params(x.quant), SOFTMAX_OUTPUT)
        return True

    def unary(self) -> bool:
        x, function = self.x(), self.op.attrs
        if x is None or not isinstance(function, Unary):
            return False
        self._table(x, self.output, lambda real: unary(function, real.astype(np.float64)))
        return True

    def concat(self) -> bool:
        parts = [self.x(i) for i in range(len(self.op.inputs))]
        if not isinstance(self.op.attrs, Concat):
            return False
        inputs = [self._scaled(part, self.quant) for part in parts if part is not None]
        if len(inputs) != len(parts):
            return False
        self._one(OpKind.CONCAT, tuple(inputs), None, self.quant)
        return True

    def pad(self) -> bool:
        x = self.x()
        if x is None or x.quant is None or not isinstance(self.op.attrs, Pad):
            return False
        self._one(OpKind.PAD, (self._scaled(x, self.quant),), None, self.quant)
        return True


_RULES: dict[OpKind, Callable[[Lowering], bool]] = {
    **dict.fromkeys(WEIGHTED, Lowering.weighted),
    OpKind.MAX_POOL: Lowering.max_pool,
    OpKind.AVG_POOL: Lowering.avg_pool,
    OpKind.MEAN: Lowering.mean,
    OpKind.ADD: Lowering.sum_or_product,
    OpKind.SUB: Lowering.sum_or_product,
    OpKind.MUL: Lowering.sum_or_product,
    OpKind.MINIMUM: Lowering.extremum,
    OpKind.MAXIMUM: Lowering.extremum,
    OpKind.SOFTMAX: Lowering.softmax,
    OpKind.UNARY: Lowering.unary,
    OpKind.CONCAT: Lowering.concat,
    OpKind.PAD: Lowering.pad,
}
