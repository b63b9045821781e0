"""Version 1.1 in the image: what the writer says of each operator is what the reader tells."""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np
import pytest
from random_mixed import mixed_graph

from fieldloop.compiler import Compiled, compile_graph
from fieldloop.errors import FieldloopError, UsageError, VersionError
from fieldloop.image import format as f
from fieldloop.image.params import record
from fieldloop.image.reader import ImageError, read_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Concat, MeanFixed, Op, OpKind, Pad, Slice, Transpose, Unary
from fieldloop.ir.tensor import DType, Tensor
from fieldloop.runtime import Model


@pytest.fixture(scope="module")
def many() -> list[Compiled]:
    return [compile_graph(mixed_graph(seed, depth=14)) for seed in range(40)]


def params(image: bytes, op: int, layout: np.dtype) -> np.ndarray:  # type: ignore[type-arg]
    at = next(s.offset for s in read_image(image).sections if s.name == "OPER")
    start = at + op * f.OP.itemsize + f.OP.fields["p"][1]  # type: ignore[index]
    return np.frombuffer(image, layout, 1, start)[0]


def test_every_operator_is_read_as_it_was_written(many: list[Compiled]) -> None:
    seen = set()
    for compiled in many:
        image, graph = read_image(compiled.image), compiled.graph
        assert image.version == (f.VERSION_MAJOR, f.VERSION_MINOR)
        for op, written in zip(graph.ops, image.ops, strict=True):
            seen.add(op.kind)
            assert written.opcode.name == op.kind.name
            assert len(written.inputs) == len(op.inputs)
            places = (*written.inputs, *written.outputs)
            for name, index in zip((*op.inputs, op.output), places, strict=True):
                tensor, found = graph.tensors[name], image.tensors[index]
                assert found.shape == tensor.shape
                assert f.ELEMENT_BYTES[found.dtype] == tensor.dtype.bytes
                if tensor.dtype is DType.INT8 and tensor.quant is not None:
                    assert found.scales == tensor.quant.scales
                    assert found.zero_point == tensor.quant.zero_point
                if tensor.data is not None:
                    raw = compiled.image[found.offset : found.offset + found.bytes]
                    assert raw == tensor.data.tobytes()
            if graph.tensors[op.output].dtype is DType.FLOAT32:
                lo, hi = np.float32(op.clamp.lo), np.float32(op.clamp.hi)
                assert (written.act_min, written.act_max) == (lo, hi)
    assert seen == set(OpKind)


def test_parameters(many: list[Compiled]) -> None:
    seen = set()
    for compiled in many:
        for i, op in enumerate(compiled.graph.ops):
            at = op.attrs
            if at is not None:
                seen.add(type(at))
            if isinstance(at, Concat):
                p = params(compiled.image, i, f.CONCAT_PARAMS)
                assert (p["axis"], p["count"]) == (at.axis, len(op.inputs))
            elif isinstance(at, Pad):
                p = params(compiled.image, i, f.PAD_PARAMS)
                assert tuple(p["before"][: len(at.before)]) == at.before
                assert tuple(p["after"][: len(at.after)]) == at.after
                quant = compiled.graph.tensors[op.output].quant
                assert p["value"] == (quant.zero_point if quant is not None else 0)
            elif isinstance(at, Transpose):
                axes = params(compiled.image, i, f.TRANSPOSE_PARAMS)["axis"]
                assert tuple(axes) == (*at.axes, *range(len(at.axes), 4))
            elif isinstance(at, Slice):
                p = params(compiled.image, i, f.SLICE_PARAMS)
                assert tuple(p["begin"][: len(at.begin)]) == at.begin
                assert tuple(p["stride"]) == (*at.stride, *(1,) * (4 - len(at.stride)))
            elif isinstance(at, Unary):
                p = params(compiled.image, i, f.UNARY_PARAMS)
                assert f.UnaryCode(int(p["kind"])).name == at.kind.name
                assert (p["a"], p["b"]) == (np.float32(at.a), np.float32(at.b))
            elif at is not None:
                p = params(compiled.image, i, f.MEAN_PARAMS)
                assert p["axes"] == sum(1 << axis for axis in at.axes)
                if isinstance(op.fixed, MeanFixed):
                    assert tuple(p["out"]) == (op.fixed.out.multiplier, op.fixed.out.shift)
    assert len(seen) == 6


def test_the_same_bytes_lie_in_the_image_once() -> None:
    entries = np.arange(-128, 128).astype(np.int8)
    tensors = [Tensor("x", (1, 4), DType.INT8, None)]
    quant = mixed_graph(0, dtypes=(DType.INT8,)).tensors["x0"].quant
    tensors = [Tensor(n, (1, 4), DType.INT8, quant) for n in "xyz"]
    tensors += [Tensor(n, (256,), DType.INT8, None, entries.copy()) for n in ("t", "u")]
    ops = (
        Op("a", OpKind.TABLE, ("x", "t"), "y"),
        Op("b", OpKind.TABLE, ("y", "u"), "z"),
    )
    graph = Graph("tables", {t.name: t for t in tensors}, ops, ("x",), ("z",))
    compiled = compile_graph(graph)
    image = read_image(compiled.image)
    assert len({image.tensors[op.inputs[1]].offset for op in image.ops}) == 1
    assert len(compiled.image) < 2 * 256 + 400
    x = np.array([[-128, -1, 0, 127]], np.int8)
    np.testing.assert_array_equal(Model(compiled.image).predict_int8(x), x)


def test_24_parts_are_joined_in_order() -> None:
    parts = [Tensor(f"x{i}", (1, i + 1), DType.INT32) for i in range(24)]
    out = Tensor("y", (1, 300), DType.INT32)
    op = Op("join", OpKind.CONCAT, tuple(t.name for t in parts), "y", attrs=Concat(1))
    graph = Graph("join", {t.name: t for t in (*parts, out)}, (op,), op.inputs, ("y",))
    image = compile_graph(graph).image
    written = read_image(image).ops[0]
    assert written.inputs == tuple(range(24))
    values = [np.full((1, i + 1), i * 1000, np.int32) for i in range(24)]
    (made,) = Model(image).run(*values)
    np.testing.assert_array_equal(made, np.concatenate(values, axis=1))


def resealed(data: bytearray) -> bytes:
    total = struct.unpack_from("<I", data, 8)[0]
    data[16:32] = hashlib.sha256(data[32:total]).digest()[:16]
    struct.pack_into("<I", data, 12, zlib.crc32(data[16:total]))
    return bytes(data)


def spoiled(image: bytes, op: int, field: str, layout: str, value: int, more: int = 0) -> bytes:
    at = next(s.offset for s in read_image(image).sections if s.name == "OPER")
    start = at + op * f.OP.itemsize + f.OP.fields[field][1] + more  # type: ignore[index]
    data = bytearray(image)
    struct.pack_into(layout, data, start, value)
    return resealed(data)


def first(many: list[Compiled], kind: OpKind, least: int = 1) -> tuple[bytes, int]:
    return next(
        (c.image, i)
        for c in many
        for i, op in enumerate(c.graph.ops)
        if op.kind is kind and len(op.inputs) >= least
    )


def test_faults_are_one_clear_line(many: list[Compiled]) -> None:
    concat, join = first(many, OpKind.CONCAT, 2)
    int8 = compile_graph(mixed_graph(1, depth=30, dtypes=(DType.INT8,), plain=True))
    real = compile_graph(mixed_graph(1, depth=30, dtypes=(DType.FLOAT32,), plain=True))
    dense, i = first([int8], OpKind.FULLY_CONNECTED)
    real_dense, j = first([real], OpKind.FULLY_CONNECTED)
    cases = [
        (spoiled(concat, join, "p", "<H", 0, 2), "joins 0 inputs"),
        (spoiled(concat, join, "p", "<H", 25, 2), "joins 25 inputs"),
        (spoiled(concat, join, "p", "<H", 24, 2), "says it joins 24"),
        (spoiled(concat, join, "p", "<H", 1, 2), "says it joins 1"),
        (spoiled(dense, i, "in", "<H", 9999, 6), "beyond"),
        (spoiled(dense, i, "act_max", "<i", 128), "clamps"),
        (spoiled(real_dense, j, "act_max", "<I", 0x7FC00000), "clamps"),
        (spoiled(real_dense, j, "act_min", "<I", 0xFFC00000), "clamps"),
    ]
    for data, match in cases:
        with pytest.raises(ImageError, match=match) as caught:
            read_image(data)
        assert "\n" not in str(caught.value)
    for data, match in (
        (spoiled(dense, i, "flags", "<H", 2), "unknown flags 0x2"),
        (spoiled(concat, join, "flags", "<H", 1), "unknown flags 0x1"),
        (spoiled(dense, i, "opcode", "<H", 23), "unknown opcode 23"),
    ):
        with pytest.raises(VersionError, match=match):
            read_image(data)


def test_fuzzed_images_of_every_operator_never_raise_anything_else(many: list[Compiled]) -> None:
    rng = np.random.default_rng(1)
    read = 0
    for compiled in many:
        for _ in range(50):
            data = bytearray(compiled.image)
            for _ in range(int(rng.integers(1, 4))):
                at = int(rng.integers(32, len(data) // 2))
                data[at] = int(rng.integers(256)) if rng.random() < 0.5 else data[at] ^ 1
            struct.pack_into("<I", data, 8, len(data))
            try:
                read_image(resealed(data))
                read += 1
            except FieldloopError as error:
                assert "\n" not in str(error)
    assert read > 50


def test_what_does_not_fit_a_field_is_refused() -> None:
    with pytest.raises(UsageError, match=r"stride_h = 70000 does not fit"):
        record(f.CONV_PARAMS, stride_h=70_000)
