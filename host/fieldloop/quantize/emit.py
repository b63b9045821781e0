"""A float graph and a quantisation for each activation: the int8 graph, operator by operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import (
    POOLS,
    WEIGHTED,
    Fixed,
    Mean,
    Op,
    OpKind,
    Requant,
    Unary,
)
from fieldloop.ir.tensor import Array, DType, Quant, Tensor
from fieldloop.quantize.assign import UNIFIES, activation_quant
from fieldloop.quantize.fixedpoint import (
    activation_range,
    add_params,
    mean_params,
    mul_params,
    softmax_params,
)
from fieldloop.quantize.options import QuantizeOptions
from fieldloop.quantize.tables import rescale_table, unary_table
from fieldloop.quantize.weights import int8_layer

SOFTMAX_COLUMNS = 4095  # what the kernel's sum of exponentials holds


def emit(graph: Graph, quants: Mapping[str, Quant], options: QuantizeOptions) -> Graph:
    """The int8 graph; tensors keep their names, operators too."""
    return _Emitter(graph, quants, options).run()


def keeps_float(op: Op, graph: Graph, options: QuantizeOptions) -> bool:
    """Whether an operator on real numbers stays one."""
    if op.name in options.keep_float:
        return True
    return op.kind is OpKind.SOFTMAX and graph.tensors[op.output].shape[-1] > SOFTMAX_COLUMNS


def fixed_of(op: Op, graph: Graph, ins: list[Quant], out: Quant) -> Fixed | None:
    """The fixed-point arithmetic of an operator without weights."""
    if op.kind in POOLS:
        return Requant(*activation_range(op.clamp, out))
    if op.kind in (OpKind.ADD, OpKind.SUB):
        return add_params(ins[0], ins[1], out, op.clamp)
    if op.kind is OpKind.MUL:
        return mul_params(ins[0], ins[1], out, op.clamp)
    if op.kind in (OpKind.MINIMUM, OpKind.MAXIMUM):
        return None if op.clamp.is_linear else Requant(*activation_range(op.clamp, out))
    if op.kind is OpKind.SOFTMAX:
        return softmax_params(ins[0])
    if isinstance(op.attrs, Mean):
        shape = graph.tensors[op.inputs[0]].shape
        count = 1
        for axis in op.attrs.axes:
            count *= shape[axis]
        return mean_params(ins[0], out, count, op.clamp)
    return None


class _Emitter:
    def __init__(
        self, graph: Graph, quants: Mapping[str, Quant], options: QuantizeOptions
    ) -> None:
        self.graph = graph
        self.quants = quants
        self.options = options
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[Op] = []
        self.int8: dict[str, str] = {}  # activation of the float graph -> its int8 tensor
        self.real: dict[str, str] = {}  # -> its float32 tensor
        self.taken = set(graph.tensors) | {op.name for op in graph.ops}

    def run(self) -> Graph:
        graph = self.graph
        for name in graph.inputs:
            tensor = graph.tensors[name]
            if tensor.dtype is not DType.FLOAT32:
                self.tensors[name] = tensor
            elif self.options.float_io:
                self.tensors[name] = tensor
                self.real[name] = name
            else:
                self._int8_tensor(name, name)
        for op in graph.ops:
            if graph.tensors[op.output].dtype is not DType.FLOAT32:
                self._as_it_is(op)  # indices are moved
            elif keeps_float(op, graph, self.options):
                self._float_op(op)
            else:
                self._int8_op(op)
        outputs = [self._graph_output(name) for name in graph.outputs]
        return Graph(graph.name, self.tensors, tuple(self.ops), graph.inputs, tuple(outputs))

    def _graph_output(self, name: str) -> str:
        if self.options.float_io and name in self.int8 and name not in self.real:
            self._convert(OpKind.DEQUANTIZE, self.int8[name], name)
            self.real[name] = name
            self.tensors[name] = replace(self.graph.tensors[name], quant=None)
        return name

    # ---- tensors

    def _fresh(self, wanted: str) -> str:
        name, n = wanted, 1
        while name in self.taken:
            n += 1
            name = f"{wanted}_{n}"
        self.taken.add(name)
        return name

    def _int8_tensor(self, source: str, name: str) -> None:
        tensor = self.graph.tensors[source]
        self.tensors[name] = replace(
            tensor, name=name, dtype=DType.INT8, quant=self.quants[source]
        )
        self.int8[source] = name

    def _constant(self, name: str, data: Array, dtype: DType, quant: Quant | None) -> str:
        self.tensors[name] = Tensor(name, data.shape, dtype, quant, data)
        return name

    def _convert(self, kind: OpKind, given: str, made: str) -> None:
        self.ops.append(Op(self._fresh(f"{made}.{kind.value}"), kind, (given,), made))

    def _as_int8(self, name: str) -> str:
        if name not in self.int8:
            made = self._fresh(f"{name}.int8")
            self._int8_tensor(name, made)
            self._convert(OpKind.QUANTIZE, self.real[name], made)
        return self.int8[name]

    def _as_real(self, name: str) -> str:
        if name not in self.real:
            made = self._fresh(f"{name}.float32")
            self.tensors[made] = replace(self.graph.tensors[name], name=made)
            self._convert(OpKind.DEQUANTIZE, self.int8[name], made)
            self.real[name] = made
        return self.real[name]

    # ---- operators

    def _as_it_is(self, op: Op) -> None:
        for name in (*op.inputs, op.output):
            self.tensors.setdefault(name, self.graph.tensors[name])
        self.ops.append(op)

    def _float_op(self, op: Op) -> None:
        names = []
        for name in op.inputs:
            if self.graph.tensors[name].is_constant or name not in self.quants:
                self.tensors.setdefault(name, self.graph.tensors[name])
                names.append(name)
            else:
                names.append(self._as_real(name))
        self.tensors[op.output] = self.graph.tensors[op.output]
        self.real[op.output] = op.output
        self.ops.append(replace(op, inputs=tuple(names)))

    def _int8_op(self, op: Op) -> None:
        out = self.quants[op.output]
        hidden = self.options.float_io and op.output in self.graph.outputs
        made = self._fresh(f"{op.output}.int8") if hidden else op.output
        if op.kind in WEIGHTED:
            ready = self._weighted(op, out)
        elif isinstance(op.attrs, Unary):
            x = self.quants[op.inputs[0]]
            table = self._constant(
                self._fresh(f"{op.name}.table"), unary_table(op.attrs, x, out), DType.INT8, out
            )
            inputs = (self._as_int8(op.inputs[0]), table)
            ready = replace(op, kind=OpKind.TABLE, inputs=inputs, attrs=None)
        elif op.kind is OpKind.EMBEDDING:
            table = self._fresh(f"{op.name}.table")
            data = self.graph.tensors[op.inputs[1]].data
            assert data is not None
            self._constant(table, out.quantize(data), DType.INT8, out)
            self.tensors.setdefault(op.inputs[0], self.graph.tensors[op.inputs[0]])
            ready = replace(op, inputs=(op.inputs[0], table))
        else:
            ready = self._plain(op, out)
        self._int8_tensor(op.output, made)
        self.ops.append(replace(ready, output=made))

    def _plain(self, op: Op, out: Quant) -> Op:
        names, quants = [], []
        for place, name in enumerate(op.inputs):
            data = self.graph.tensors[name].data
            if data is not None:
                quant = out
                if op.kind not in UNIFIES:
                    quant = activation_quant(float(data.min()), float(data.max()))
                given = self._fresh(f"{op.name}.constant{place}")
                self._constant(given, quant.quantize(data), DType.INT8, quant)
            else:
                given, quant = self._as_int8(name), self.quants[name]
                if op.kind in UNIFIES and quant != out:
                    given, quant = self._rescaled(op, place, given, quant, out), out
            names.append(given)
            quants.append(quant)
        return replace(op, inputs=tuple(names), fixed=fixed_of(op, self.graph, quants, out))

    def _rescaled(self, op: Op, place: int, given: str, x: Quant, out: Quant) -> str:
        """A table between two quantisations of the same value."""
        name = self._fresh(f"{op.name}.input{place}")
        table = self._constant(
            self._fresh(f"{name}.table"), rescale_table(x, out), DType.INT8, out
        )
        self.tensors[name] = replace(self.tensors[given], name=name, quant=out)
        self.ops.append(Op(name, OpKind.TABLE, (given, table), name))
        return name

    def _weighted(self, op: Op, out: Quant) -> Op:
        weights = self.graph.tensors[op.inputs[1]]
        bias = self.graph.tensors[op.inputs[2]].data if len(op.inputs) > 2 else None
        assert weights.data is not None
        method, room = self.options.weights, self.options.weight_headroom
        x = self.quants[op.inputs[0]]
        layer = int8_layer(op, weights.data, bias, x, out, method, room)
        w_name, b_name = f"{op.name}.weights", f"{op.name}.bias"
        self._constant(w_name, layer.weights, DType.INT8, layer.weight_quant)
        self._constant(b_name, layer.bias, DType.INT32, layer.bias_quant)
        return replace(op, inputs=(self._as_int8(op.inputs[0]), w_name, b_name), fixed=layer.fixed)
