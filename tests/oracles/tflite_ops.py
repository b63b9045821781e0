"""The operators of image version 1.1 as TensorFlow Lite writes them; part of tflite_writer.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from tflite_micro import runtime

from fieldloop.ir.op import (
    Clamp,
    Concat,
    Mean,
    Op,
    OpKind,
    Pad,
    Slice,
    Transpose,
    Unary,
    UnaryKind,
)
from fieldloop.ir.tensor import DType, Tensor

fb = runtime.schema_fb
B, Options = fb.BuiltinOperator, fb.BuiltinOptions

ACTIVATIONS = {
    Clamp(): fb.ActivationFunctionType.NONE,
    Clamp(0.0): fb.ActivationFunctionType.RELU,
    Clamp(0.0, 6.0): fb.ActivationFunctionType.RELU6,
    Clamp(-1.0, 1.0): fb.ActivationFunctionType.RELU_N1_TO_1,
}

UNARY = {
    UnaryKind.RELU: (B.RELU, 0, None),
    UnaryKind.LEAKY_RELU: (B.LEAKY_RELU, Options.LeakyReluOptions, fb.LeakyReluOptionsT),
    UnaryKind.SIGMOID: (B.LOGISTIC, 0, None),
    UnaryKind.TANH: (B.TANH, 0, None),
    UnaryKind.HARDSWISH: (B.HARD_SWISH, Options.HardSwishOptions, fb.HardSwishOptionsT),
    UnaryKind.ELU: (B.ELU, 0, None),
    UnaryKind.ABS: (B.ABS, Options.AbsOptions, fb.AbsOptionsT),
    UnaryKind.EXP: (B.EXP, Options.ExpOptions, fb.ExpOptionsT),
}


def emit(writer: Any, op: Op, inputs: list[int], output: int) -> None:
    """Adds `op` to a writer of tflite_writer.py; KeyError where TensorFlow Lite has none."""
    at, name = op.attrs, op.name

    def numbers(what: str, values: Any) -> int:
        return int(writer.constant(f"{name}.{what}", np.array(values, np.int32)))

    if op.kind in (OpKind.SUB, OpKind.MUL):
        made = fb.SubOptionsT() if op.kind is OpKind.SUB else fb.MulOptionsT()
        made.fusedActivationFunction = ACTIVATIONS[op.clamp]
        builtin = B.SUB if op.kind is OpKind.SUB else B.MUL
        kind = Options.SubOptions if op.kind is OpKind.SUB else Options.MulOptions
        writer.emit(builtin, inputs, output, kind, made)
    elif op.kind in (OpKind.MINIMUM, OpKind.MAXIMUM):
        builtin = B.MINIMUM if op.kind is OpKind.MINIMUM else B.MAXIMUM
        options = fb.MaximumMinimumOptionsT()
        writer.emit(builtin, inputs, output, Options.MaximumMinimumOptions, options)
    elif isinstance(at, Concat):
        writer.join(inputs, output, axis=at.axis)
    elif isinstance(at, Pad):
        pads = numbers("pads", list(zip(at.before, at.after, strict=True)))
        x = writer.graph.tensors[op.output]
        if x.dtype is DType.FLOAT32:
            value = np.array([at.value], np.float32)
        else:
            value = x.quant.quantize(np.array([at.value]))
        fill = writer.tensor(Tensor(f"{name}.value", (1,), x.dtype, x.quant, value))
        writer.emit(
            B.PADV2, [*inputs, pads, fill], output, Options.PadV2Options, fb.PadV2OptionsT()
        )
    elif isinstance(at, Transpose):
        inputs = [*inputs, numbers("axes", at.axes)]
        writer.emit(B.TRANSPOSE, inputs, output, Options.TransposeOptions, fb.TransposeOptionsT())
    elif isinstance(at, Slice):
        places = [numbers(what, getattr(at, what)) for what in ("begin", "end", "stride")]
        options = fb.StridedSliceOptionsT()
        writer.emit(
            B.STRIDED_SLICE, [*inputs, *places], output, Options.StridedSliceOptions, options
        )
    elif isinstance(at, Mean):
        options = fb.ReducerOptionsT()
        options.keepDims = at.keep
        inputs = [*inputs, numbers("axes", at.axes)]
        writer.emit(B.MEAN, inputs, output, Options.ReducerOptions, options)
    elif op.kind is OpKind.EMBEDDING:
        options = fb.GatherOptionsT()
        writer.emit(B.GATHER, [inputs[1], inputs[0]], output, Options.GatherOptions, options)
    elif op.kind is OpKind.QUANTIZE:
        writer.emit(B.QUANTIZE, inputs, output, Options.QuantizeOptions, fb.QuantizeOptionsT())
    elif op.kind is OpKind.DEQUANTIZE:
        writer.emit(
            B.DEQUANTIZE, inputs, output, Options.DequantizeOptions, fb.DequantizeOptionsT()
        )
    elif isinstance(at, Unary):
        builtin, kind, make = UNARY[at.kind]
        options = make() if make else None
        if at.kind is UnaryKind.LEAKY_RELU:
            options.alpha = at.a
        writer.emit(builtin, inputs, output, kind, options)
    else:
        raise KeyError(op.kind)
