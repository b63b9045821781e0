"""Writes .tflite files operator by operator, straight from the schema that tflite-micro ships.

Nothing of the frontend is used: what it reads back was written by somebody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from tflite_micro import runtime

from fieldloop.ir.tensor import Array

fb = runtime.schema_fb
B = fb.BuiltinOperator
TYPES = {
    name: getattr(fb.TensorType, name.upper())
    for name in ["float32", "float16", "int32", "uint8", "int64", "bool", "int16", "int8"]
}
# Operators whose option table is called otherwise.
_TABLES = {
    "AVERAGE_POOL_2D": "Pool2D",
    "MAX_POOL_2D": "Pool2D",
    "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "MINIMUM": "MaximumMinimum",
    "MAXIMUM": "MaximumMinimum",
    "MEAN": "Reducer",
    "REDUCE_MAX": "Reducer",
    "REDUCE_PROD": "Reducer",
    "PADV2": "PadV2",
    "SPLIT_V": "SplitV",
    "CONCATENATION": "Concatenation",
}
_NO_OPTIONS = {"RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LOGISTIC", "TANH", "PRELU", "ELU"}


def options_name(operator: str) -> str | None:
    """The option table of an operator, None where it has none."""
    if operator in _NO_OPTIONS:
        return None
    words = "".join(word.capitalize() for word in operator.split("_"))
    return _TABLES.get(operator, words) + "Options"


class Build:
    """A model of one subgraph; tensors are indices."""

    def __init__(self) -> None:
        self.buffers = [fb.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[Any] = []
        self.custom: dict[str, int] = {}
        self.inputs: list[int] = []

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str = "int8",
        scale: float | Sequence[float] | None = None,
        zero_point: int = 0,
        data: Array | None = None,
        *,
        name: str = "",
        axis: int = 0,
    ) -> int:
        entry = fb.TensorT()
        entry.name = name or f"t{len(self.tensors)}"
        entry.shape, entry.type = list(shape), TYPES[dtype]
        entry.buffer = 0
        if data is not None:
            buffer = fb.BufferT()
            raw = np.ascontiguousarray(data, np.dtype(dtype).newbyteorder("<"))
            buffer.data = np.frombuffer(raw.tobytes(), np.uint8)
            self.buffers.append(buffer)
            entry.buffer = len(self.buffers) - 1
        if scale is not None:
            quant = fb.QuantizationParametersT()
            scales = [scale] if isinstance(scale, float) else list(scale)
            quant.scale = scales
            quant.zeroPoint = [zero_point] * len(scales)
            quant.quantizedDimension = axis
            entry.quantization = quant
        self.tensors.append(entry)
        return len(self.tensors) - 1

    def input(self, shape: Sequence[int], dtype: str = "int8", *args: Any, **more: Any) -> int:
        self.inputs.append(self.tensor(shape, dtype, *args, **more))
        return self.inputs[-1]

    def ints(self, *values: int, dtype: str = "int32") -> int:
        """A constant vector of integers."""
        return self.tensor([len(values)], dtype, data=np.array(values, dtype))

    def op(
        self, operator: str, inputs: Sequence[int], outputs: int | Sequence[int], **options: Any
    ) -> int:
        """Options go by the names of the schema's object classes."""
        entry = fb.OperatorT()
        code = fb.OperatorCodeT()
        if hasattr(B, operator):
            code.builtinCode = getattr(B, operator)
            table = options_name(operator)
            if table is not None and hasattr(fb, table + "T"):
                entry.builtinOptionsType = getattr(fb.BuiltinOptions, table)
                entry.builtinOptions = getattr(fb, table + "T")()
                for key, value in options.items():
                    assert hasattr(entry.builtinOptions, key), (table, key)
                    setattr(entry.builtinOptions, key, value)
        else:
            code.builtinCode, code.customCode = B.CUSTOM, operator
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        self.codes.append(code)
        entry.opcodeIndex = len(self.codes) - 1
        entry.inputs = list(inputs)
        entry.outputs = [outputs] if isinstance(outputs, int) else list(outputs)
        self.operators.append(entry)
        return int(entry.outputs[0])

    def bytes(self, *outputs: int) -> bytes:
        """The file; its outputs are `outputs`."""
        subgraph = fb.SubGraphT()
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs, subgraph.outputs = self.inputs, list(outputs)
        model = fb.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [subgraph], self.buffers
        model.operatorCodes = self.codes
        builder = flatbuffers.Builder(1 << 12)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
