"""The four networks of MLPerf Tiny as images, with what the host's plain C makes of an input."""

from __future__ import annotations

import math
import os
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "host"))

from fieldloop.errors import FieldloopError  # noqa: E402
from fieldloop.ir.graph import Graph  # noqa: E402
from fieldloop.ir.op import WINDOWED, Op, OpKind  # noqa: E402
from fieldloop.ir.shapes import macs  # noqa: E402
from fieldloop.runtime.core import core, error_name  # noqa: E402
from fieldloop.runtime.model import aligned_bytes, pointer  # noqa: E402
from fieldloop.sources import compile_source, read_source  # noqa: E402

FILES = {
    "kws": "kws_ref_model",
    "vww": "vww_96_int8",
    "resnet8": "resnet8_int8",
    "ad01": "ad01_int8",
}
MODELS = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared")) / "models" / "tflite"


@dataclass(frozen=True, slots=True)
class Network:
    """`crcs`: CRC-32 of each operator's output for the input `x`, by plain C on the host."""

    name: str
    image: bytes
    x: bytes
    layers: tuple[str, ...]  # such as "conv 49x10x1->25x5x64 k10x4 s2"
    macs: tuple[int, ...]
    crcs: tuple[int, ...]


def network(name: str) -> Network:
    """One of FILES, on one input of uniform random int8. FieldloopError where it is absent."""
    path = MODELS / f"{FILES[name]}.tflite"
    if not path.is_file():
        raise FieldloopError(f"{path.name} is not there: set FIELDLOOP_SHARED to its folder")
    compiled = compile_source(read_source(path))
    graph, image = compiled.graph, compiled.image
    size = graph.tensors[graph.inputs[0]].size
    x = np.random.default_rng(2026).integers(-128, 128, size).astype(np.int8).tobytes()
    layers = tuple(describe(graph, op) for op in graph.ops)
    counts = tuple(macs(op, graph.tensors) for op in graph.ops)
    return Network(name, image, x, layers, counts, host_crcs(image, x))


def describe(graph: Graph, op: Op) -> str:
    """A layer's kind and sizes, as research calls them."""
    shapes = [graph.tensors[n].shape for n in (op.inputs[0], op.output)]
    if op.kind not in WINDOWED:
        short = {OpKind.FULLY_CONNECTED: "fc", OpKind.RESHAPE: "reshape"}
        inner, outer = (math.prod(shape[1:]) for shape in shapes)
        kind = short.get(op.kind, op.kind.value)
        return f"{kind} {inner}->{outer}" if op.kind in short else f"{kind} {outer}"
    assert op.window is not None
    sizes = "->".join("x".join(map(str, shape[1:])) for shape in shapes)
    kernel, stride = "x".join(map(str, op.window.kernel)), max(op.window.stride)
    if op.kind is OpKind.CONV2D:
        kind = "pw" if op.window.kernel == (1, 1) else "conv"
    else:
        kind = {OpKind.DEPTHWISE_CONV2D: "dw", OpKind.AVG_POOL: "avgpool"}.get(op.kind, "maxpool")
    if graph.tensors[op.output].shape[1:3] == (1, 1) and "pool" in kind:
        return f"{kind} {sizes}"
    return f"{kind} {sizes} k{kernel} s{stride}"


def host_crcs(image: bytes, x: bytes) -> tuple[int, ...]:
    """CRC-32 of every operator's output, as the host's core has it after that operator."""
    ffi, lib = core()
    flash = aligned_bytes(len(image))
    flash[:] = np.frombuffer(image, np.uint8)
    model = ffi.new("fl_model_t *")
    code = lib.fl_model_open(model, pointer(flash), len(image))
    if code:
        raise FieldloopError(f"the image does not open: {error_name(code)}")
    arena = aligned_bytes(lib.fl_model_arena_bytes(model, lib.FL_PLAN_INFER))
    lib.fl_model_bind(model, lib.FL_PLAN_INFER, pointer(arena), len(arena))
    ffi.memmove(lib.fl_model_input(model, 0), x, len(x))
    crcs = []
    for i in range(model.op_count):
        lib.fl_model_run_ops(model, i, i + 1)
        t = model.ops[i].out[0]
        place = ffi.buffer(lib.fl_model_tensor(model, t), model.tensors[t].bytes)
        crcs.append(zlib.crc32(place))
    return tuple(crcs)
