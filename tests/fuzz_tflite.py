"""Hostile .tflite files: bytes changed blindly, and well-formed files that say wrong things.

    python tests/fuzz_frontends.py --format tflite --count 200000 --seed 1

Each file ends in a graph (small ones in an image) or in one of fieldloop's errors: no other
exception, nothing that takes longer than SLOW_SECONDS or more memory than MEMORY.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
for folder in (HERE / "host", HERE / "oracles"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import flatbuffers  # noqa: E402
from tflite_build import TYPES, Build, fb  # noqa: E402
from tflite_single import BOTH, Single, quantize, single  # noqa: E402

from fieldloop.compiler import compile_graph  # noqa: E402
from fieldloop.errors import FieldloopError  # noqa: E402
from fieldloop.frontends.tflite import read_tflite  # noqa: E402

SLOW_SECONDS = 5.0
MEMORY = 1 << 30  # on top of what the process has when it starts
COMPILED_BYTES = 1 << 16  # graphs up to this size are compiled as well
_SMALL_NUMBERS = (0, 1, 2, 3, 4, 5, 8, 127, 255, 256, 32767, 65536, 2**24, 2**31 - 1)
_REALS = (0.0, -1.0, 1.0, 1e-45, 1e-38, 3e38, float("inf"), float("nan"), 0.5, 1e-6)


def _pack(model: object) -> bytes:
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), b"TFL3")  # type: ignore[attr-defined]
    return bytes(builder.Output())


def _network() -> bytes:
    """Shape arithmetic, a branch and a cast beside the usual layers."""
    s = Single(1, "int8")
    b: Build = s.build
    x = b.input([1, 8, 8, 2], "int8", 0.1, 3)
    w = s.constant([4, 3, 3, 2], (0.02, 0))
    bias = b.tensor([4], "int32", data=np.arange(4))
    y = b.op("CONV_2D", [x, w, bias], s.value([1, 8, 8, 4], (0.2, 0)), strideH=1, strideW=1)
    z = b.op("MUL", [y, y], s.value([1, 8, 8, 4], (0.3, 1)))
    shape = b.op("SHAPE", [z], b.tensor([4], "int32"))
    rows = b.op(
        "STRIDED_SLICE",
        [shape, b.ints(0), b.ints(1), b.ints(1)],
        b.tensor([], "int32"),
        shrinkAxisMask=1,
    )
    rest = b.tensor([], "int32", data=np.array(256))
    packed = b.op("PACK", [rows, rest], b.tensor([2], "int32"), valuesCount=2)
    flat = b.op("RESHAPE", [z, packed], s.value([1, 256], (0.3, 1)))
    real = b.op("DEQUANTIZE", [flat], b.tensor([1, 256], "float32"))
    return b.bytes(b.op("SOFTMAX", [real], b.tensor([1, 256], "float32"), beta=1.0), flat)


def seeds() -> list[bytes]:
    """Small valid files of every operator and type."""
    made = [single(name, dtype, 7) for name in BOTH for dtype in ("int8", "uint8", "float32")]
    made += [
        quantize(Single(3, "int8"), source=a, target=b)
        for a, b in (("float32", "int8"), ("uint8", "int8"), ("int8", "float32"))
    ]
    return [*made, *[_network()] * 8]


def mutate(rng: np.random.Generator, content: bytes) -> bytes:
    """Another file; half of them are still flatbuffers."""
    if rng.random() < 0.5:
        return _say_something_else(rng, content)
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(0, max(len(data), 1)))
        way = int(rng.integers(7))
        if way == 0:
            data[place : place + 1] = bytes([int(rng.integers(256))])
        elif way == 1:
            data[place : place + 1] = bytes([data[place] ^ 1 << int(rng.integers(8))])
        elif way == 2:
            number = _number(rng) & 0xFFFFFFFF
            data[place & ~3 : (place & ~3) + 4] = number.to_bytes(4, "little")
        elif way == 3:
            del data[place:]
        elif way == 4:
            length = int(rng.integers(1, 64))
            other = int(rng.integers(0, len(data)))
            data[place : place + length] = data[other : other + length]
        elif way == 5:
            data[place : place + 16] = bytes(16)
        else:
            data += bytes(int(rng.integers(1, 64)))
        if len(data) < 16:
            break
    return bytes(data)


def _number(rng: np.random.Generator) -> int:
    number = _SMALL_NUMBERS[int(rng.integers(len(_SMALL_NUMBERS)))]
    return -number if rng.random() < 0.3 else number


def _say_something_else(rng: np.random.Generator, content: bytes) -> bytes:
    """Other shapes, types, scales, links, operators and options."""
    model = fb.ModelT.InitFromObj(fb.Model.GetRootAs(content, 0))
    subgraph = model.subgraphs[0]
    for _ in range(int(rng.integers(1, 4))):
        tensor = subgraph.tensors[int(rng.integers(len(subgraph.tensors)))]
        operator = subgraph.operators[int(rng.integers(len(subgraph.operators)))]
        way = int(rng.integers(9))
        if way == 0:
            _change_list(rng, tensor, "shape", _number(rng))
        elif way == 1:
            tensor.type = int(rng.choice([*TYPES.values(), 5, 17, 22, 40]))
        elif way == 2 and tensor.quantization is not None:
            _change_quant(rng, tensor.quantization)
        elif way == 3:
            tensor.quantization = None
        elif way == 4:
            links = rng.integers(-1, len(subgraph.tensors))
            _change_list(rng, operator, str(rng.choice(["inputs", "outputs"])), int(links))
        elif way == 5:
            code = model.operatorCodes[operator.opcodeIndex]
            code.builtinCode = int(rng.integers(0, 150))
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        elif way == 6 and operator.builtinOptions is not None:
            names = [n for n in vars(operator.builtinOptions) if not n.startswith("_")]
            if names:
                _change_option(rng, operator.builtinOptions, str(rng.choice(names)))
        elif way == 7:
            buffers = [b for b in model.buffers if b.data is not None and len(b.data)]
            if buffers:
                _change_buffer(rng, buffers[int(rng.integers(len(buffers)))])
        else:
            tensor.buffer = int(rng.integers(0, len(model.buffers)))
    try:
        return _pack(model)
    except (TypeError, ValueError, AttributeError, OverflowError):
        return content[: len(content) // 2]  # the schema's classes refuse to write it


def _change_list(rng: np.random.Generator, owner: object, name: str, value: int) -> None:
    found = getattr(owner, name, None)
    values = [] if found is None else [int(v) for v in found]
    way = int(rng.integers(4))
    if way == 0 or not values:
        values.append(value)
    elif way == 1:
        values.pop(int(rng.integers(len(values))))
    else:
        values[int(rng.integers(len(values)))] = value
    setattr(owner, name, values)


def _change_quant(rng: np.random.Generator, quant: object) -> None:
    count = int(rng.choice([1, 1, 1, 2, 3, 7]))
    quant.scale = [float(rng.choice(_REALS)) for _ in range(count)]  # type: ignore[attr-defined]
    zeros = [_number(rng) for _ in range(count)]
    quant.zeroPoint = zeros  # type: ignore[attr-defined]
    quant.quantizedDimension = int(rng.integers(-1, 5))  # type: ignore[attr-defined]


def _change_option(rng: np.random.Generator, options: object, name: str) -> None:
    value = getattr(options, name)
    if isinstance(value, bool):
        setattr(options, name, not value)
    elif isinstance(value, float):
        setattr(options, name, float(rng.choice(_REALS)))
    elif isinstance(value, int):
        small = name in ("padding", "fusedActivationFunction", "weightsFormat")
        setattr(options, name, int(rng.integers(-2, 7)) if small else _number(rng))


def _change_buffer(rng: np.random.Generator, buffer: object) -> None:
    data = np.array(buffer.data, np.uint8)  # type: ignore[attr-defined]
    place = int(rng.integers(len(data))) & ~3
    raw = np.frombuffer((_number(rng) & 0xFFFFFFFF).to_bytes(4, "little"), np.uint8)
    data[place : place + 4] = raw[: len(data[place : place + 4])]
    buffer.data = data  # type: ignore[attr-defined]


def fuzz(count: int, seed: int, *, keep: Path | None = None) -> Counter[str]:
    """How many of `count` files end in an image, a graph, or which error.

    Raises what a frontend must not; the file then lies in `keep`.
    """
    rng, sound, ends = np.random.default_rng(seed), seeds(), Counter[str]()
    for content in sound:
        read_tflite(content)  # what is mutated is sound
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    try:
        for number in range(count):
            content = mutate(rng, sound[int(rng.integers(len(sound)))])
            start = time.monotonic()
            try:
                ends[_end(content)] += 1
                spent = time.monotonic() - start
                assert spent < SLOW_SECONDS, f"took {spent:.1f} s"
            except BaseException:
                print(f"file {number} of seed {seed} fails", file=sys.stderr)
                if keep is not None:
                    keep.write_bytes(content)
                raise
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    return ends


def _end(content: bytes) -> str:
    try:
        graph = read_tflite(content).graph
    except FieldloopError as error:
        assert str(error) and "\n" not in str(error), f"not one line: {str(error)!r}"
        return type(error).__name__
    if sum(tensor.bytes for tensor in graph.tensors.values()) > COMPILED_BYTES:
        return "graph"
    try:
        compile_graph(graph, learn=None)
    except FieldloopError as error:
        return f"graph, {type(error).__name__}"
    return "image"
