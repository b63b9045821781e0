"""Mutated .onnx files: each ends in a graph or in one of fieldloop's errors, soon and small.

    python tests/fuzz_onnx.py --count 200000 --seed 0

Files are cut, bytes are flipped, and what the file says is changed where it hurts: dimensions,
attributes, names, operators, constants.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parent / "host"))

from onnx_models import networks

from fieldloop.errors import FieldloopError
from fieldloop.frontends.onnx_frontend import read_onnx

NUMBERS = (0, 1, 2, 3, -1, -2, 7, 16, 127, 128, 255, 4096, 65536, 2**31 - 1, 2**31, -(2**63))
NUMBERS += (2**40, 2**63 - 1)
OPERATORS = (
    *("Conv", "Relu", "Add", "Mul", "Sub", "Div", "Concat", "Reshape", "Transpose", "Flatten"),
    *("Slice", "Split", "Pad", "Gather", "Squeeze", "Unsqueeze", "MaxPool", "AveragePool"),
    *("GlobalAveragePool", "ReduceMean", "Softmax", "MatMul", "Gemm", "Sigmoid", "Clip", "Shape"),
    *("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "QLinearAdd", "Tile"),
    *("ConstantOfShape", "Expand", "Range", "Cast", "Identity", "Where", "BatchNormalization"),
    *("PRelu", "Min", "Max", "Sum", "Resize", "DepthToSpace", "Pow", "ReduceProd", "Size"),
)
PART = 5000
SLOW_SECONDS = 5.0
MEMORY_LIMIT = 8 << 30  # of address space, far above what an import needs


def bytes_changed(rng: np.random.Generator, data: bytes) -> bytes:
    """Bytes flipped, cut, doubled or overwritten."""
    made = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        kind, at = rng.integers(0, 4), int(rng.integers(0, len(made) or 1))
        if not made:
            break
        if kind == 0:
            made[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            made[at] = int(rng.integers(0, 256))
        elif kind == 2:
            end = at + int(rng.integers(1, 40))
            made[at:end] = made[at:end] * int(rng.integers(0, 3))
        elif rng.random() < 0.2:
            del made[at:]
    return bytes(made)


def fields_changed(rng: np.random.Generator, data: bytes) -> bytes:
    """What the file says, changed in a few places; it still parses."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(int(rng.integers(1, 4))):
        _CHANGES[rng.integers(0, len(_CHANGES))](rng, model.graph)
    if rng.random() < 0.05:
        model.opset_import[0].version = int(rng.integers(0, 30))
    return model.SerializeToString()


def _pick(rng: np.random.Generator, items: object) -> object:
    held = list(items)  # type: ignore[call-overload]
    return held[rng.integers(0, len(held))] if held else None


def _number(rng: np.random.Generator) -> int:
    return int(NUMBERS[rng.integers(0, len(NUMBERS))])


def _constant(rng: np.random.Generator, graph: onnx.GraphProto) -> None:
    tensor = _pick(rng, graph.initializer)
    if tensor is None:
        return
    kind = rng.integers(0, 5)
    if kind == 0 and tensor.dims:
        tensor.dims[rng.integers(0, len(tensor.dims))] = _number(rng)
    elif kind == 1:
        tensor.dims.append(_number(rng))
    elif kind == 2:
        tensor.data_type = int(rng.integers(0, 24))
    elif kind == 3 and tensor.raw_data:
        tensor.raw_data = bytes_changed(rng, tensor.raw_data)
    elif kind == 4 and tensor.data_type == 7:
        count = len(tensor.raw_data) // 8
        tensor.raw_data = np.array([_number(rng) for _ in range(count)], np.int64).tobytes()


def _attribute(rng: np.random.Generator, graph: onnx.GraphProto) -> None:
    node = _pick(rng, [n for n in graph.node if n.attribute])
    if node is None:
        return
    attribute = _pick(rng, node.attribute)
    if attribute.ints and rng.random() < 0.7:
        attribute.ints[rng.integers(0, len(attribute.ints))] = _number(rng)
    elif attribute.ints:
        attribute.ints.append(_number(rng))
    else:
        attribute.i = _number(rng)
        attribute.f = float(_pick(rng, [0.0, -1.0, 1e30, float("nan"), float("inf")]))
    if rng.random() < 0.1:
        attribute.type = int(rng.integers(0, 12))


def _operator(rng: np.random.Generator, graph: onnx.GraphProto) -> None:
    node = _pick(rng, graph.node)
    node.op_type = str(_pick(rng, OPERATORS))
    if rng.random() < 0.3:
        node.domain = str(_pick(rng, ["", "com.microsoft", "ai.onnx", "x"]))


def _names(rng: np.random.Generator, graph: onnx.GraphProto) -> None:
    node = _pick(rng, graph.node)
    every = [n for other in graph.node for n in (*other.input, *other.output)] + [""]
    side = node.input if rng.random() < 0.8 else node.output
    if side:
        side[rng.integers(0, len(side))] = str(_pick(rng, every))
    elif rng.random() < 0.5:
        side.append(str(_pick(rng, every)))


def _nodes(rng: np.random.Generator, graph: onnx.GraphProto) -> None:
    at = int(rng.integers(0, len(graph.node)))
    if rng.random() < 0.5:
        del graph.node[at]
        if not graph.node:
            graph.node.add(op_type="Relu", input=["x"], output=["y"])
    else:
        graph.node.add().CopyFrom(graph.node[at])


def _inputs(rng: np.random.Generator, graph: onnx.GraphProto) -> None:
    value = _pick(rng, graph.input)
    if value is None:
        return
    dims = value.type.tensor_type.shape.dim
    if dims and rng.random() < 0.7:
        dims[rng.integers(0, len(dims))].dim_value = _number(rng)
    elif rng.random() < 0.5:
        dims.add().dim_value = _number(rng)
    else:
        value.type.tensor_type.elem_type = int(rng.integers(0, 18))


_CHANGES = (_constant, _attribute, _operator, _names, _nodes, _inputs)


def mutated(rng: np.random.Generator, seeds: list[bytes]) -> bytes:
    data = seeds[rng.integers(0, len(seeds))]
    if rng.random() < 0.75:
        data = fields_changed(rng, data)
    return bytes_changed(rng, data) if rng.random() < 0.4 else data


def fuzz(count: int, seed: int, *, keep: Path | None = None) -> Counter[str]:
    """Reads `count` mutated files; what each came to. Raises what fieldloop does not own up to."""
    rng = np.random.default_rng(seed)
    seeds = list(networks().values())
    ends: Counter[str] = Counter()
    for _ in range(count):
        data = mutated(rng, seeds)
        begun = time.process_time()  # of this process: a busy machine is not a slow reader
        try:
            read_onnx(data)
            ends["graph"] += 1
        except FieldloopError as error:
            assert "\n" not in str(error), f"an error in several lines: {error}"
            ends[type(error).__name__] += 1
        except BaseException:
            if keep is not None:
                keep.write_bytes(data)
            raise
        if time.process_time() - begun > SLOW_SECONDS:
            if keep is not None:
                keep.write_bytes(data)
            raise AssertionError(f"{SLOW_SECONDS} s and more for {len(data)} bytes")
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where to write a file that did harm")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    begun = time.monotonic()
    ends: Counter[str] = Counter()
    done = 0
    while done < args.count:  # each part has its seed, so that one can be run again alone
        part = min(PART, args.count - done)
        ends += fuzz(part, args.seed + done, keep=args.keep)
        done += part
        shown = ", ".join(f"{n} {name}" for name, n in ends.most_common())
        print(f"{done} files in {time.monotonic() - begun:.0f} s: {shown}", flush=True)


if __name__ == "__main__":
    main()
