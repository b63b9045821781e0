"""Writes an ir.Graph, int8 or float32, as a .tflite file and runs it in TensorFlow Lite Micro.

The oracle of inference. What the file format cannot say directly is said with operators that move
bytes and compute nothing: paddings other than VALID and SAME become a PAD before a convolution,
and one slice a window before a pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from tflite_micro import runtime
from tflite_ops import ACTIVATIONS as _ACTIVATIONS
from tflite_ops import emit as emit_other

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import WINDOWED, Op, OpKind, Window
from fieldloop.ir.tensor import Array, DType, Quant, Tensor

fb = runtime.schema_fb

_TYPES = {
    DType.INT8: fb.TensorType.INT8,
    DType.INT32: fb.TensorType.INT32,
    DType.FLOAT32: fb.TensorType.FLOAT32,
}


def write_graph(graph: Graph) -> bytes:
    """The bytes of a .tflite model that computes what the graph computes."""
    return _Writer(graph).bytes()


def run_tflite(model: bytes, *inputs: Array) -> Array:
    """Outputs [n, output elements] for inputs [n, ...], one array per model input."""
    interpreter = runtime.Interpreter.from_bytes(model, arena_size=4 << 20)
    outputs = []
    for sample in zip(*inputs, strict=True):
        for i, value in enumerate(sample):
            shape = interpreter.get_input_details(i)["shape"]
            interpreter.set_input(np.ascontiguousarray(value).reshape(shape), i)
        interpreter.invoke()
        outputs.append(interpreter.get_output(0).reshape(-1))
    return np.array(outputs)


def _same_pads(size: int, out: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Padding before and after one axis that TensorFlow Lite derives for SAME."""
    total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.buffers = [fb.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[int] = []
        self.index: dict[str, int] = {}
        for tensor in graph.activations:
            self.index[tensor.name] = self.tensor(tensor)
        for op in graph.ops:
            self.op(op)

    def bytes(self) -> bytes:
        subgraph = fb.SubGraphT()
        subgraph.tensors = self.tensors
        subgraph.operators = self.operators
        subgraph.inputs = [self.index[name] for name in self.graph.inputs]
        subgraph.outputs = [self.index[name] for name in self.graph.outputs]
        model = fb.ModelT()
        model.version = 3
        model.subgraphs = [subgraph]
        model.buffers = self.buffers
        model.operatorCodes = []
        for builtin in self.codes:
            code = fb.OperatorCodeT()
            code.builtinCode = builtin
            code.deprecatedBuiltinCode = min(builtin, 127)
            model.operatorCodes.append(code)
        builder = flatbuffers.Builder(1 << 12)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    # ---- tensors

    def buffer(self, data: Array) -> int:
        entry = fb.BufferT()
        entry.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self.buffers.append(entry)
        return len(self.buffers) - 1

    def tensor(self, tensor: Tensor) -> int:
        entry = fb.TensorT()
        entry.name = tensor.name
        entry.shape = list(tensor.shape)
        entry.type = _TYPES[tensor.dtype]
        entry.buffer = 0 if tensor.data is None else self.buffer(tensor.data)
        if tensor.quant is not None:
            quant = fb.QuantizationParametersT()
            quant.scale = [float(s) for s in tensor.quant.scales]
            quant.zeroPoint = [tensor.quant.zero_point] * len(tensor.quant.scales)
            quant.quantizedDimension = tensor.quant.axis or 0
            entry.quantization = quant
        self.tensors.append(entry)
        return len(self.tensors) - 1

    def constant(self, name: str, data: Array) -> int:
        return self.tensor(Tensor(name, data.shape, DType.INT32, None, data))

    def like(self, name: str, shape: Sequence[int], quant: Quant | None) -> int:
        dtype = DType.FLOAT32 if quant is None else DType.INT8
        return self.tensor(Tensor(name, tuple(shape), dtype, quant))

    # ---- operators

    def emit(
        self, builtin: int, inputs: Sequence[int], output: int, kind: int = 0, options: Any = None
    ) -> None:
        if builtin not in self.codes:
            self.codes.append(builtin)
        entry = fb.OperatorT()
        entry.opcodeIndex = self.codes.index(builtin)
        entry.inputs, entry.outputs = list(inputs), [output]
        entry.builtinOptionsType, entry.builtinOptions = kind, options
        self.operators.append(entry)

    def op(self, op: Op) -> None:
        for name in op.inputs:
            if name not in self.index:
                self.index[name] = self.tensor(self.graph.tensors[name])
        inputs = [self.index[name] for name in op.inputs]
        output = self.index[op.output]
        if op.kind in WINDOWED:
            self.windowed(op, inputs, output)
        elif op.kind is OpKind.FULLY_CONNECTED:
            options = fb.FullyConnectedOptionsT()
            options.fusedActivationFunction = _ACTIVATIONS[op.clamp]
            # no bias is said by -1: the kernel asks for three places
            inputs = inputs if len(inputs) == 3 else [*inputs, -1]
            self.emit(
                fb.BuiltinOperator.FULLY_CONNECTED,
                inputs,
                output,
                fb.BuiltinOptions.FullyConnectedOptions,
                options,
            )
        elif op.kind is OpKind.ADD:
            options = fb.AddOptionsT()
            options.fusedActivationFunction = _ACTIVATIONS[op.clamp]
            self.emit(
                fb.BuiltinOperator.ADD, inputs, output, fb.BuiltinOptions.AddOptions, options
            )
        elif op.kind is OpKind.SOFTMAX:
            options = fb.SoftmaxOptionsT()
            options.beta = 1.0
            self.emit(
                fb.BuiltinOperator.SOFTMAX,
                inputs,
                output,
                fb.BuiltinOptions.SoftmaxOptions,
                options,
            )
        elif op.kind is not OpKind.RESHAPE:
            emit_other(self, op, inputs, output)
        else:
            shape = self.graph.tensors[op.output].shape
            options = fb.ReshapeOptionsT()
            options.newShape = list(shape)
            inputs.append(self.constant(f"{op.name}.shape", np.array(shape, np.int32)))
            self.emit(
                fb.BuiltinOperator.RESHAPE,
                inputs,
                output,
                fb.BuiltinOptions.ReshapeOptions,
                options,
            )

    def windowed(self, op: Op, inputs: list[int], output: int) -> None:
        assert op.window is not None
        x, out = self.graph.tensors[op.inputs[0]], self.graph.tensors[op.output]
        window = op.window
        top, _, left, _ = window.pads
        same = [
            _same_pads(
                x.shape[1 + i],
                out.shape[1 + i],
                window.kernel[i],
                window.stride[i],
                window.dilation[i],
            )
            for i in range(2)
        ]
        is_same = (
            (same[0][0], same[1][0]) == (top, left)
            and max(map(sum, same)) > 0
            and all(out.shape[1 + i] == -(-x.shape[1 + i] // window.stride[i]) for i in range(2))
        )
        padding = fb.Padding.SAME if is_same else fb.Padding.VALID
        if not is_same and max(window.pads) > 0:
            if op.kind in (OpKind.MAX_POOL, OpKind.AVG_POOL):
                self.pool_window_by_window(op, x, out, inputs[0], output)
                return
            inputs = [self.pad(op, x, inputs[0]), *inputs[1:]]
        if op.kind in (OpKind.MAX_POOL, OpKind.AVG_POOL):
            self.pool(op, inputs[0], output, window, padding)
            return
        depthwise = op.kind is OpKind.DEPTHWISE_CONV2D
        options = fb.DepthwiseConv2DOptionsT() if depthwise else fb.Conv2DOptionsT()
        options.padding = padding
        options.strideH, options.strideW = window.stride
        options.dilationHFactor, options.dilationWFactor = window.dilation
        options.fusedActivationFunction = _ACTIVATIONS[op.clamp]
        if depthwise:
            options.depthMultiplier = out.shape[3] // x.shape[3]
        self.emit(
            fb.BuiltinOperator.DEPTHWISE_CONV_2D if depthwise else fb.BuiltinOperator.CONV_2D,
            inputs,
            output,
            fb.BuiltinOptions.DepthwiseConv2DOptions
            if depthwise
            else fb.BuiltinOptions.Conv2DOptions,
            options,
        )

    def pad(self, op: Op, x: Tensor, index: int) -> int:
        """The padded input, filled with its zero point; bottom and right only as far as read."""
        assert op.window is not None
        top, bottom, left, right = op.window.pads
        pads = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        shape = [n + int(p.sum()) for n, p in zip(x.shape, pads, strict=True)]
        padded = self.like(f"{op.name}.padded", shape, x.quant)
        inputs = [index, self.constant(f"{op.name}.pads", pads)]
        self.emit(
            fb.BuiltinOperator.PAD, inputs, padded, fb.BuiltinOptions.PadOptions, fb.PadOptionsT()
        )
        return padded

    def pool(self, op: Op, index: int, output: int, window: Window, padding: int) -> None:
        options = fb.Pool2DOptionsT()
        options.padding = padding
        options.filterHeight, options.filterWidth = window.kernel
        options.strideH, options.strideW = window.stride
        options.fusedActivationFunction = _ACTIVATIONS[op.clamp]
        builtin = {
            OpKind.MAX_POOL: fb.BuiltinOperator.MAX_POOL_2D,
            OpKind.AVG_POOL: fb.BuiltinOperator.AVERAGE_POOL_2D,
        }[op.kind]
        self.emit(builtin, [index], output, fb.BuiltinOptions.Pool2DOptions, options)

    def pool_window_by_window(
        self, op: Op, x: Tensor, out: Tensor, index: int, output: int
    ) -> None:
        """Slices out the part of every window that lies on the map, pools it whole, joins all."""
        assert op.window is not None
        (kh, kw), (sh, sw) = op.window.kernel, op.window.stride
        top, _, left, _ = op.window.pads
        channels = x.shape[3]
        rows = []
        for oy in range(out.shape[1]):
            y0, y1 = max(oy * sh - top, 0), min(oy * sh - top + kh, x.shape[1])
            pixels = []
            for ox in range(out.shape[2]):
                x0, x1 = max(ox * sw - left, 0), min(ox * sw - left + kw, x.shape[2])
                name = f"{op.name}.{oy}.{ox}"
                begin = self.constant(f"{name}.begin", np.array([0, y0, x0, 0], np.int32))
                size = np.array([1, y1 - y0, x1 - x0, channels], np.int32)
                part = self.like(f"{name}.part", size.tolist(), x.quant)
                self.emit(
                    fb.BuiltinOperator.SLICE,
                    [index, begin, self.constant(f"{name}.size", size)],
                    part,
                    fb.BuiltinOptions.SliceOptions,
                    fb.SliceOptionsT(),
                )
                pixel = self.like(name, (1, 1, 1, channels), out.quant)
                whole = Window((y1 - y0, x1 - x0))
                self.pool(op, part, pixel, whole, fb.Padding.VALID)
                pixels.append(pixel)
            row = self.like(f"{op.name}.{oy}", (1, 1, out.shape[2], channels), out.quant)
            self.join(pixels, row, axis=2)
            rows.append(row)
        self.join(rows, output, axis=1)

    def join(self, parts: Sequence[int], output: int, *, axis: int) -> None:
        """Concatenates; ten at a time, the most the kernel takes."""
        parts = list(parts)
        while len(parts) > 10:
            shape = list(self.tensors[parts[0]].shape)
            shape[axis] = sum(self.tensors[p].shape[axis] for p in parts[:10])
            entry = fb.TensorT()
            entry.name = f"{self.tensors[parts[0]].name}.joined"
            entry.shape = shape
            entry.type = self.tensors[output].type
            entry.buffer = 0
            entry.quantization = self.tensors[output].quantization
            self.tensors.append(entry)
            joined = len(self.tensors) - 1
            self.join(parts[:10], joined, axis=axis)
            parts = [joined, *parts[10:]]
        options = fb.ConcatenationOptionsT()
        options.axis = axis
        self.emit(
            fb.BuiltinOperator.CONCATENATION,
            parts,
            output,
            fb.BuiltinOptions.ConcatenationOptions,
            options,
        )
