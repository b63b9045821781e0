"""Random .tflite files of one operator each, written from the schema; int8, uint8 or float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tflite_build import Build, fb

from fieldloop.ir.tensor import Array


class Single:
    """Shared choices of one random file."""

    def __init__(self, seed: int, dtype: str) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.build = Build()

    @property
    def is_float(self) -> bool:
        return self.dtype == "float32"

    def int(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def one_of(self, *choices: object) -> object:
        return choices[self.int(0, len(choices) - 1)]

    def shape(self, dims: int, low: int = 1, high: int = 7) -> list[int]:
        return [1, *(self.int(low, high) for _ in range(dims - 1))]

    def scale(self, low: float = -8.0, high: float = 0.0) -> float:
        return float(np.float32(2.0 ** self.rng.uniform(low, high)))

    def zero(self) -> int:
        return self.int(-128, 127) + (128 if self.dtype == "uint8" else 0)

    def quant(self) -> tuple[float | None, int]:
        return (None, 0) if self.is_float else (self.scale(), self.zero())

    def input(self, shape: list[int], quant: tuple[float | None, int] | None = None) -> int:
        return self.build.input(shape, self.dtype, *(quant or self.quant()))

    def value(self, shape: list[int], quant: tuple[float | None, int] | None = None) -> int:
        return self.build.tensor(shape, self.dtype, *(quant or self.quant()))

    def numbers(self, shape: list[int]) -> Array:
        if self.is_float:
            return self.rng.normal(0, 1, shape).astype(np.float32)
        info = np.iinfo(self.dtype)
        return self.rng.integers(info.min, info.max + 1, shape).astype(self.dtype)

    def constant(self, shape: list[int], quant: tuple[float | None, int] | None = None) -> int:
        return self.build.tensor(
            shape, self.dtype, *(quant or self.quant()), data=self.numbers(shape)
        )

    def activation(self) -> int:
        return int(self.rng.integers(4))  # none, ReLU, ReLU -1 to 1, ReLU6

    def finish(self, *outputs: int) -> bytes:
        return self.build.bytes(*outputs)


def _weights(s: Single, shape: list[int], x_scale: float | None, axis: int) -> tuple[int, int]:
    """Weights and a bias: int8 per channel, uint8 with any zero point, or float32."""
    channels = shape[axis]
    if s.is_float:
        bias = s.rng.normal(0, 1, [channels]).astype(np.float32)
        return s.constant(shape), s.build.tensor([channels], "float32", data=bias)
    assert x_scale is not None
    if s.dtype == "int8":
        scales = [s.scale(-10, -6) for _ in range(channels if s.int(0, 2) else 1)]
        data = s.rng.integers(-127, 128, shape).astype(np.int8)
        w = s.build.tensor(shape, "int8", scales, 0, data, axis=axis)
    else:
        scales = [s.scale(-10, -6)]
        w = s.build.tensor(shape, "uint8", scales, s.zero(), s.numbers(shape))
    bias = s.rng.integers(-2000, 2000, [channels]).astype(np.int32)
    return w, s.build.tensor(
        [channels], "int32", [float(np.float32(x_scale * n)) for n in scales], 0, bias
    )


def _same(size: int, stride: int) -> int:
    return -(-size // stride)


def _window_out(s: Single, size: int, kernel: int, stride: int, dilation: int, same: bool) -> int:
    return _same(size, stride) if same else (size - (kernel - 1) * dilation - 1) // stride + 1


def conv(s: Single, *, depthwise: bool = False) -> bytes:
    kernel, dilation = [s.int(1, 3), s.int(1, 3)], s.int(1, 2)
    stride = [1, 1] if dilation > 1 else [s.int(1, 2), s.int(1, 2)]
    groups = 1 if depthwise or s.int(0, 2) or s.dtype == "uint8" else s.int(2, 3)
    c_in = groups * s.int(1, 5)
    multiplier = s.int(1, 2)
    c_out = c_in * multiplier if depthwise else groups * s.int(1, 6)
    x_shape = [1, s.int(6, 9), s.int(6, 9), c_in]
    quant = s.quant()
    x = s.input(x_shape, quant)
    shape = [1, *kernel, c_out] if depthwise else [c_out, *kernel, c_in // groups]
    w, b = _weights(s, shape, quant[0], 3 if depthwise else 0)
    same = bool(s.int(0, 1))
    size = [_window_out(s, x_shape[1 + i], kernel[i], stride[i], dilation, same) for i in range(2)]
    out = s.value([1, *size, c_out])
    options = {
        "padding": 0 if same else 1,
        "strideH": stride[0],
        "strideW": stride[1],
        "dilationHFactor": dilation,
        "dilationWFactor": dilation,
        "fusedActivationFunction": s.activation(),
    }
    if depthwise:
        options["depthMultiplier"] = multiplier
    inputs = [x, w, b] if s.int(0, 4) or s.dtype == "uint8" else [x, w]
    s.build.op("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", inputs, out, **options)
    return s.finish(out)


def fully_connected(s: Single) -> bytes:
    c_in, c_out, rows = s.int(1, 40), s.int(1, 20), s.int(1, 3)
    keep = bool(s.int(0, 1))
    quant = s.quant()
    x = s.input([1, rows, c_in] if keep else [rows, c_in], quant)
    w, b = _weights(s, [c_out, c_in], quant[0], 0)
    out = s.value([1, rows, c_out] if keep else [rows, c_out])
    s.build.op(
        "FULLY_CONNECTED",
        [x, w, b if s.int(0, 3) else -1],
        out,
        keepNumDims=keep,
        fusedActivationFunction=s.activation(),
    )
    return s.finish(out)


def pool(s: Single, *, operator: str) -> bytes:
    kernel, stride = [s.int(1, 4), s.int(1, 4)], [s.int(1, 3), s.int(1, 3)]
    x_shape, quant = [1, s.int(4, 8), s.int(4, 8), s.int(1, 6)], s.quant()
    # LiteRT's average of uint8 rounds in another way, which SAME cannot be taken over with.
    same = bool(s.int(0, 1)) and (s.dtype != "uint8" or operator != "AVERAGE_POOL_2D")
    size = [_window_out(s, x_shape[1 + i], kernel[i], stride[i], 1, same) for i in range(2)]
    x, out = s.input(x_shape, quant), s.value([1, *size, x_shape[3]], quant)
    s.build.op(
        operator,
        [x],
        out,
        padding=0 if same else 1,
        filterHeight=kernel[0],
        filterWidth=kernel[1],
        strideH=stride[0],
        strideW=stride[1],
        fusedActivationFunction=s.activation(),
    )
    return s.finish(out)


def binary(s: Single, *, operator: str) -> bytes:
    shape = s.shape(4, 1, 5)
    other = [n if s.int(0, 2) else 1 for n in shape]
    same = operator in ("MINIMUM", "MAXIMUM")
    quant = s.quant()
    a = s.input(shape, quant)
    again = quant if same else None
    if s.int(0, 1):
        while len(other) > 1 and other[0] == 1 and s.int(0, 1):
            other = other[1:]  # of fewer dimensions
        b = s.constant(other, again)
    else:
        b = s.input(other, again)
    pair = [a, b] if s.int(0, 1) else [b, a]
    out = s.value(shape, again)
    options = {} if same else {"fusedActivationFunction": s.activation()}
    s.build.op(operator, pair, out, **options)
    return s.finish(out)


def softmax(s: Single) -> bytes:
    shape = [s.int(1, 3), s.int(1, 12)]
    x = s.input(shape)
    out = s.value(shape, (None, 0) if s.is_float else (1 / 256, -128 if s.dtype == "int8" else 0))
    s.build.op("SOFTMAX", [x], out, beta=1.0 if s.is_float else float(s.one_of(1.0, 0.5, 2.0)))
    return s.finish(out)


def reshapes(s: Single) -> bytes:
    a, b, quant = s.int(1, 5), s.int(1, 5), s.quant()
    x = s.input([1, a, 1, b], quant)
    flat = s.value([1, a * b], quant)
    s.build.op("RESHAPE", [x, s.build.ints(-1, a * b)], flat, newShape=[-1, a * b])
    squeezed = s.value([a, b], quant)
    s.build.op("SQUEEZE", [x], squeezed, squeezeDims=[0, 2])
    wide = s.value([a, 1, b], quant)
    s.build.op("EXPAND_DIMS", [squeezed, s.build.ints(1)], wide)
    return s.finish(flat, wide)


def concatenation(s: Single) -> bytes:
    axis, count = s.int(1, 3), int(str(s.one_of(1, 2, 5, 9)))
    shape, quant = s.shape(4, 1, 4), s.quant()
    parts, total = [], 0
    for i in range(count):
        part = list(shape)
        part[axis] = s.int(1, 4)
        total += part[axis]
        own = s.quant() if s.dtype == "uint8" and s.int(0, 1) else quant
        make = s.constant if i and not s.int(0, 3) else s.input
        parts.append(make(part, own))
    shape[axis] = total
    out = s.value(shape, quant)
    s.build.op("CONCATENATION", parts, out, axis=axis if s.int(0, 1) else axis - 4)
    return s.finish(out)


def pads(s: Single) -> bytes:
    shape, quant = s.shape(4, 1, 5), s.quant()
    x = s.input(shape, quant)
    pairs = [[0, 0], *([s.int(0, 3), s.int(0, 2)] for _ in range(3))]
    made = [n + sum(p) for n, p in zip(shape, pairs, strict=True)]
    table = s.build.tensor([4, 2], "int32", data=np.array(pairs))
    plain, filled = s.value(made, quant), s.value(made, quant)
    s.build.op("PAD", [x, table], plain)
    s.build.op("PADV2", [x, table, s.constant([1], quant)], filled)
    return s.finish(plain, filled)


def transpose(s: Single) -> bytes:
    dims = s.int(2, 4)
    shape, quant = [s.int(1, 5) for _ in range(dims)], s.quant()
    order = [int(i) for i in s.rng.permutation(dims)]
    x, out = s.input(shape, quant), s.value([shape[i] for i in order], quant)
    s.build.op("TRANSPOSE", [x, s.build.ints(*order)], out)
    return s.finish(out)


def slices(s: Single) -> bytes:
    shape, quant = [1, s.int(3, 8), s.int(3, 8), s.int(2, 6)], s.quant()
    x = s.input(shape, quant)
    begin = [0, *(s.int(0, n - 1) for n in shape[1:])]
    size = [1, *(s.int(1, n - b) for n, b in zip(shape[1:], begin[1:], strict=True))]
    plain = s.value(size, quant)
    asked = [-1 if b + z == n else z for b, z, n in zip(begin, size, shape, strict=True)]
    s.build.op("SLICE", [x, s.build.ints(*begin), s.build.ints(*asked)], plain)
    stride = [1, *(s.int(1, 3) for _ in range(3))]
    end = [b + z for b, z in zip(begin, size, strict=True)]
    made = [-(-z // t) for z, t in zip(size, stride, strict=True)]
    if drop := s.int(0, 1):  # one row
        made[1] = 1
    kept = made if not drop else [made[0], *made[2:]]
    strided = s.value(kept, quant)
    asked = [e - n if s.int(0, 1) and e < n else e for e, n in zip(end, shape, strict=True)]
    places = [s.build.ints(*v) for v in (begin, asked, stride)]
    s.build.op("STRIDED_SLICE", [x, *places], strided, shrinkAxisMask=2 * drop, endMask=1)
    return s.finish(plain, strided)


def splits(s: Single) -> bytes:
    parts, size, quant = s.int(2, 3), s.int(1, 3), s.quant()
    shape = [1, s.int(1, 4), parts * size]
    x = s.input(shape, quant)
    equal = [s.value([1, shape[1], size], quant) for _ in range(parts)]
    s.build.op("SPLIT", [s.build.tensor([], "int32", data=np.array(2)), x], equal, numSplits=parts)
    sizes = [1, parts * size - 1]
    uneven = [s.value([1, shape[1], n], quant) for n in sizes]
    axis = s.build.tensor([], "int32", data=np.array(2))
    s.build.op("SPLIT_V", [x, s.build.ints(*sizes), axis], uneven, numSplits=2)
    return s.finish(*equal, *uneven)


def packs(s: Single) -> bytes:
    shape, quant = [s.int(2, 4), s.int(1, 4)], s.quant()
    x = s.input(shape, quant)
    rows = [s.value(shape[1:], quant) for _ in range(shape[0])]
    s.build.op("UNPACK", [x], rows, num=shape[0], axis=0)
    out = s.value([shape[1], shape[0]], quant)
    s.build.op("PACK", rows, out, valuesCount=shape[0], axis=1)
    return s.finish(out)


def reductions(s: Single, *, operator: str) -> bytes:
    shape, quant = s.shape(4, 1, 6), s.quant()
    same = operator == "REDUCE_MAX"
    axes = [1, 2] if same else sorted({s.int(1, 3) for _ in range(s.int(1, 3))})
    keep = bool(s.int(0, 1))
    made = [1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes]
    x, out = s.input(shape, quant), s.value(made, quant if same else None)
    s.build.op(operator, [x, s.build.ints(*axes)], out, keepDims=keep)
    return s.finish(out)


def activation(s: Single, *, operator: str) -> bytes:
    """All 256 values of an int8, or as many reals."""
    quant = s.quant()
    if not s.is_float:
        quant = (s.scale(-9, 1), quant[1])
    x = s.input([1, 256], quant)
    out_quant = s.quant()
    if not s.is_float:
        assert quant[0] is not None
        unit = 128 if s.dtype == "uint8" else 0
        fixed = {"LOGISTIC": (1 / 256, -128 + unit), "TANH": (1 / 128, unit)}
        # an output scale in the input's neighbourhood: what a converter would write
        near = float(np.float32(quant[0] * 2.0 ** s.rng.uniform(-0.9, 1.5)))
        out_quant = fixed.get(operator, (near, out_quant[1]))
        if operator == "RELU6" and s.dtype == "int8":
            out_quant = quant
        if operator == "ABS" and s.int(0, 1):
            out_quant = (quant[0], out_quant[1])
        if operator == "HARD_SWISH":
            out_quant = (float(np.float32(quant[0] * s.rng.uniform(0.5, 2))), out_quant[1])
    out = s.value([1, 256], out_quant)
    inputs, options = [x], {}
    if operator == "PRELU":
        if s.is_float:
            inputs.append(s.build.tensor([1], "float32", data=np.array([0.3])))
        else:
            slope = s.numbers([1])
            inputs.append(s.build.tensor([1], s.dtype, s.scale(-9, -6), s.zero(), slope))
    if operator == "LEAKY_RELU":
        options["alpha"] = float(s.one_of(0.01, 0.1, 0.3, -0.2))
    s.build.op(operator, inputs, out, **options)
    return s.finish(out)


def quantize(s: Single, *, source: str, target: str) -> bytes:
    def zero(dtype: str) -> int:
        return s.int(-128, 127) + (128 if dtype == "uint8" else 0)

    scale = s.scale()
    one = (None, 0) if source == "float32" else (scale, zero(source))
    other = float(np.float32(scale * 2.0 ** s.rng.uniform(-3, 3)))
    two = (None, 0) if target == "float32" else (other, zero(target))
    if source != target and s.int(0, 2) == 0 and "float32" not in (source, target):
        two = (scale, one[1] + (128 if target == "uint8" else -128))  # only the type changes
    x = s.build.input([1, 256], source, *one)
    out = s.build.tensor([1, 256], target, *two)
    s.build.op("DEQUANTIZE" if target == "float32" else "QUANTIZE", [x], out)
    return s.finish(out)


def resize(s: Single) -> bytes:
    shape, quant = s.shape(4, 1, 4), s.quant()
    size = [shape[1] * s.int(1, 4), shape[2] * s.int(1, 4)]
    x, out = s.input(shape, quant), s.value([1, *size, shape[3]], quant)
    half = bool(s.int(0, 1))
    s.build.op("RESIZE_NEAREST_NEIGHBOR", [x, s.build.ints(*size)], out, halfPixelCenters=half)
    return s.finish(out)


def gather(s: Single) -> bytes:
    rows, width, quant = s.int(2, 20), s.int(1, 6), s.quant()
    table = s.constant([rows, width], quant)
    x = s.build.input([1, s.int(1, 9)], str(s.one_of("int32", "float32")))
    index = x
    length = s.build.tensors[x].shape[1]
    if s.build.tensors[x].type == fb.TensorType.FLOAT32:
        index = s.build.tensor([1, length], "int32")
        s.build.op("CAST", [x], index)
    out = s.value([1, length, width], quant)
    s.build.op("GATHER", [table, index], out, axis=0)
    return s.finish(out)


def _named(function: Callable[..., bytes], *names: str) -> dict[str, Callable[[Single], bytes]]:
    return {name: lambda s, name=name: function(s, operator=name) for name in names}


BOTH: dict[str, Callable[[Single], bytes]] = {
    "CONV_2D": conv,
    "DEPTHWISE_CONV_2D": lambda s: conv(s, depthwise=True),
    "FULLY_CONNECTED": fully_connected,
    **_named(pool, "AVERAGE_POOL_2D", "MAX_POOL_2D"),
    **_named(binary, "ADD", "SUB", "MUL", "MINIMUM", "MAXIMUM"),
    "SOFTMAX": softmax,
    "RESHAPE": reshapes,
    "CONCATENATION": concatenation,
    "PAD": pads,
    "TRANSPOSE": transpose,
    "SLICE": slices,
    "SPLIT": splits,
    "PACK": packs,
    **_named(reductions, "MEAN", "REDUCE_MAX"),
    **_named(activation, "RELU", "RELU6", "LOGISTIC", "TANH", "LEAKY_RELU", "PRELU"),
    **_named(activation, "HARD_SWISH", "ELU", "ABS"),
    "RESIZE_NEAREST_NEIGHBOR": resize,
    "GATHER": gather,
}


def single(name: str, dtype: str, seed: int) -> bytes:
    """A file of one operator (or of a few that go together)."""
    return BOTH[name](Single(seed, dtype))
