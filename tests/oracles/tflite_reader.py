"""Reads an int8 .tflite model into an ir.Graph: real networks as test data for the core.

Only what the core runs; anything else raises Unsupported, which names it. Schema and oracle come
with tflite-micro, so this is no frontend: it trusts its input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tflite_micro import runtime

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, Fixed, Op, OpKind, Requant, Window
from fieldloop.ir.tensor import Array, DType, Quant, Tensor
from fieldloop.quantize.fixedpoint import (
    activation_range,
    add_params,
    softmax_params,
    weighted_factors,
)

fb = runtime.schema_fb

_KINDS = {
    fb.BuiltinOperator.CONV_2D: OpKind.CONV2D,
    fb.BuiltinOperator.DEPTHWISE_CONV_2D: OpKind.DEPTHWISE_CONV2D,
    fb.BuiltinOperator.FULLY_CONNECTED: OpKind.FULLY_CONNECTED,
    fb.BuiltinOperator.MAX_POOL_2D: OpKind.MAX_POOL,
    fb.BuiltinOperator.AVERAGE_POOL_2D: OpKind.AVG_POOL,
    fb.BuiltinOperator.ADD: OpKind.ADD,
    fb.BuiltinOperator.SOFTMAX: OpKind.SOFTMAX,
    fb.BuiltinOperator.RESHAPE: OpKind.RESHAPE,
}
_CLAMPS = {
    fb.ActivationFunctionType.NONE: Clamp(),
    fb.ActivationFunctionType.RELU: Clamp(0.0),
    fb.ActivationFunctionType.RELU6: Clamp(0.0, 6.0),
    fb.ActivationFunctionType.RELU_N1_TO_1: Clamp(-1.0, 1.0),
}
_DTYPES = {fb.TensorType.INT8: (DType.INT8, "<i1"), fb.TensorType.INT32: (DType.INT32, "<i4")}


class Unsupported(Exception):
    """A model, or a part of one, that the core does not run."""


def read_graph(model: bytes) -> Graph:
    """The graph of a .tflite model with one subgraph."""
    root = fb.ModelT.InitFromObj(fb.Model.GetRootAs(model, 0))
    return _Reader(root).graph()


class _Reader:
    def __init__(self, model: Any) -> None:
        self.model = model
        self.sub = model.subgraphs[0]
        self.tensors: dict[str, Tensor] = {}

    def graph(self) -> Graph:
        ops = tuple(self.op(i, entry) for i, entry in enumerate(self.sub.operators))
        inputs = tuple(self.tensor(i).name for i in self.sub.inputs)
        outputs = tuple(self.tensor(i).name for i in self.sub.outputs)
        return Graph("tflite", self.tensors, ops, inputs, outputs)

    def tensor(self, index: int) -> Tensor:
        name = f"t{index}"
        if name in self.tensors:
            return self.tensors[name]
        entry = self.sub.tensors[index]
        if entry.type not in _DTYPES:
            raise Unsupported(f"tensor type {entry.type}")
        dtype, layout = _DTYPES[entry.type]
        shape = tuple(int(n) for n in entry.shape)
        raw = self.model.buffers[entry.buffer].data
        data: Array | None = None
        if raw is not None and len(raw):
            data = np.asarray(raw, np.uint8).view(layout).reshape(shape)
        quant = self.quant(entry, data is not None)
        self.tensors[name] = Tensor(name, shape, dtype, quant, data)
        return self.tensors[name]

    def quant(self, entry: Any, constant: bool) -> Quant:
        q = entry.quantization
        if q is None or q.scale is None or not len(q.scale):
            raise Unsupported("a tensor without a scale")
        scales = tuple(float(s) for s in q.scale)
        zeros = {int(z) for z in q.zeroPoint}
        if len(zeros) != 1:
            raise Unsupported("zero points per channel")
        axis = int(q.quantizedDimension) if len(scales) > 1 else None
        return Quant(scales, zeros.pop(), axis)

    def op(self, number: int, entry: Any) -> Op:
        code = self.model.operatorCodes[entry.opcodeIndex]
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        if builtin not in _KINDS:
            raise Unsupported(f"operator {builtin}")
        kind = _KINDS[builtin]
        count = 1 if kind is OpKind.RESHAPE else len(entry.inputs)
        ins = [self.tensor(i) for i in entry.inputs[:count] if i >= 0]
        out = self.tensor(entry.outputs[0])
        options = entry.builtinOptions
        clamp = _CLAMPS[getattr(options, "fusedActivationFunction", 0)]
        window = self.window(kind, options, ins, out)
        names = tuple(t.name for t in ins)
        fixed = self.fixed(kind, options, ins, out, clamp)
        return Op(f"op{number}", kind, names, out.name, window, clamp, fixed)

    def window(self, kind: OpKind, options: Any, ins: list[Tensor], out: Tensor) -> Window | None:
        if kind in (OpKind.MAX_POOL, OpKind.AVG_POOL):
            kernel, dilation = (options.filterHeight, options.filterWidth), (1, 1)
        elif kind in (OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D):
            kernel = ins[1].shape[1:3]
            dilation = (options.dilationHFactor, options.dilationWFactor)
        else:
            return None
        stride = (options.strideH, options.strideW)
        pads = [0, 0, 0, 0]
        if options.padding == fb.Padding.SAME:
            for i in range(2):
                extent = (kernel[i] - 1) * dilation[i] + 1
                reach = (out.shape[1 + i] - 1) * stride[i] + extent - ins[0].shape[1 + i]
                pads[2 * i], pads[2 * i + 1] = max(reach, 0) // 2, -(-max(reach, 0) // 2)
        return Window(kernel, stride, dilation, tuple(pads))  # type: ignore[arg-type]

    def fixed(
        self, kind: OpKind, options: Any, ins: list[Tensor], out: Tensor, clamp: Clamp
    ) -> Fixed | None:
        quants = [t.quant for t in ins]
        x, y = quants[0], out.quant
        assert x is not None and y is not None
        if kind is OpKind.RESHAPE:
            return None
        if kind is OpKind.SOFTMAX:
            if options.beta != 1.0:
                raise Unsupported("softmax with another beta")
            return softmax_params(x)
        if kind is OpKind.ADD:
            other = quants[1]
            assert other is not None
            return add_params(x, other, y, clamp)
        if kind in (OpKind.MAX_POOL, OpKind.AVG_POOL):
            return Requant(*activation_range(clamp, y))
        w = quants[1]
        assert w is not None
        factors = weighted_factors(x, w, y, fully_connected=kind is OpKind.FULLY_CONNECTED)
        return Requant(*activation_range(clamp, y), factors)
