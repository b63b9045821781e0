"""The image: layout equal to the C header, a round trip, and a reader that trusts no byte."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from c_executor import c_core
from random_graphs import Grower, random_graph, samples_for

from fieldloop.compiler import Compiled, compile_graph
from fieldloop.errors import FieldloopError, UsageError, VersionError
from fieldloop.image import format as f
from fieldloop.image.reader import ImageError, read_image
from fieldloop.image.writer import RehearsalSet, Trainable, write_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import CONCAT_MAX, WEIGHTED, Clamp, OpKind, UnaryKind, Window
from fieldloop.ir.tensor import DType
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.types import PlanKind, StepKind


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    graph = random_graph(5)
    x = samples_for(graph, 5, 30)
    classes = graph.tensors[graph.outputs[0]].shape[-1]
    return compile_graph(
        graph,
        x,
        labels=[f"Klasse {i} ü" for i in range(classes)],
        learn=2,
        rehearsal=(x[:7], np.arange(7) % classes),
        meta={"name": "größe", "seed": 5},
    )


# ---- layout


@pytest.mark.parametrize(
    ("c_name", "layout"),
    [
        ("fl_image_header_t", f.HEADER),
        ("fl_section_t", f.SECTION),
        ("fl_tensor_t", f.TENSOR),
        ("fl_requant_t", f.REQUANT),
        ("fl_conv_params_t", f.CONV_PARAMS),
        ("fl_add_params_t", f.ADD_PARAMS),
        ("fl_softmax_params_t", f.SOFTMAX_PARAMS),
        ("fl_mul_params_t", f.MUL_PARAMS),
        ("fl_concat_params_t", f.CONCAT_PARAMS),
        ("fl_pad_params_t", f.PAD_PARAMS),
        ("fl_transpose_params_t", f.TRANSPOSE_PARAMS),
        ("fl_slice_params_t", f.SLICE_PARAMS),
        ("fl_mean_params_t", f.MEAN_PARAMS),
        ("fl_unary_params_t", f.UNARY_PARAMS),
        ("fl_op_t", f.OP),
        ("fl_plan_t", f.PLAN),
        ("fl_tiles_t", f.TILES),
        ("fl_plan_step_t", f.PLAN_STEP),
        ("fl_trainable_t", f.TRAINABLE),
        ("fl_rehearsal_set_t", f.REHEARSAL_SET),
    ],
)
def test_structs_equal_the_c_header(c_name: str, layout: np.dtype[Any]) -> None:
    ffi, _ = c_core()
    assert ffi.sizeof(c_name) == layout.itemsize
    fields = dict(ffi.typeof(c_name).fields)
    assert list(fields) == list(layout.names or ())
    for name, field in fields.items():
        dtype, offset = layout.fields[name][:2]  # type: ignore[index]
        assert field.offset == offset, name
        assert ffi.sizeof(field.type) == dtype.itemsize, name


def test_constants_equal_the_c_header() -> None:
    _, lib = c_core()
    pairs = {
        "FL_IMAGE_MAGIC": f.MAGIC,
        "FL_IMAGE_VERSION_MAJOR": f.VERSION_MAJOR,
        "FL_IMAGE_VERSION_MINOR": f.VERSION_MINOR,
        "FL_IMAGE_ALIGN": f.ALIGN,
        "FL_IMAGE_UID_BYTES": f.UID_BYTES,
        "FL_IMAGE_CRC_FROM": f.CRC_FROM,
        "FL_IMAGE_UID_FROM": f.UID_FROM,
        "FL_SECTION_REQUIRED": f.SECTION_REQUIRED,
        "FL_NO_TENSOR": f.NO_TENSOR,
        **{f"FL_SECTION_{s.name}": s.value for s in f.Section},
        **{f"FL_{d.name}": d.value for d in f.Dtype},
        **{f"FL_{k.name}": k.value for k in f.TensorKind},
        **{f"FL_PLAN_{k.name}": k.value for k in f.ImagePlanKind},
        **{f"FL_OP_{o.name}": o.value for o in f.Opcode},
        **{f"FL_UNARY_{u.name}": u.value for u in f.UnaryCode},
        **{f"FL_STEP_{k.name}": k.value for k in StepKind},
        **{f"FL_STEP_{k.name}": k.value for k in f.StepFlag},
        "FL_NO_PLACE": f.NO_OFFSET,
        "FL_OP_SINGLE_ROUNDING": f.OP_SINGLE_ROUNDING,
        "FL_CONCAT_MAX": f.CONCAT_MAX,
    }
    for name, value in pairs.items():
        assert getattr(lib, name) == value, name
    assert {o.name for o in f.Opcode} == {k.name for k in OpKind}
    assert {u.name for u in f.UnaryCode} == {k.name for k in UnaryKind}
    assert f.CONCAT_MAX == CONCAT_MAX


# ---- round trip


def test_what_is_written_is_read(compiled: Compiled) -> None:
    image, graph = read_image(compiled.image), compiled.graph
    assert image.total_bytes == len(compiled.image) == compiled.report.flash_bytes
    assert [op.opcode.name for op in image.ops] == [op.kind.name for op in graph.ops]
    assert [op.macs for op in image.ops] == [layer.macs for layer in compiled.report.layers]
    source = graph.tensors[graph.inputs[0]]
    assert image.input_tensor().shape == source.shape
    assert source.quant is not None
    assert image.input_tensor().scales == source.quant.scales
    assert image.input_tensor().zero_point == source.quant.zero_point
    x = samples_for(graph, 9, 20)
    np.testing.assert_array_equal(image.input_tensor().quantize(x), source.quant.quantize(x))
    assert {p.kind.name: p.arena_bytes for p in image.plans} == {
        p.kind.name: p.arena_bytes for p in compiled.plans
    }
    for op, written in zip(graph.ops, image.ops, strict=True):
        for name, index in zip(op.inputs, written.inputs, strict=True):
            data = graph.tensors[name].data
            if data is not None:
                at = image.tensors[index].offset
                assert compiled.image[at : at + data.nbytes] == data.tobytes()
    assert image.labels[0] == "Klasse 0 ü"
    assert image.meta == {"name": "größe", "seed": 5}
    assert [graph.ops[t.op].name for t in image.trainables] == [
        t.op for t in reversed(compiled.trainables)
    ]
    assert image.rehearsal is not None
    assert image.rehearsal.labels.tolist() == [i % len(image.labels) for i in range(7)]
    kept = source.quant.quantize(samples_for(graph, 5, 30)[:7])
    assert image.rehearsal.samples.tobytes() == kept.tobytes()


def test_the_same_model_gives_the_same_bytes(compiled: Compiled) -> None:
    again = write_image(compiled.graph, compiled.plans, trainables=compiled.trainables)
    assert again == write_image(
        compiled.graph, compiled.plans, trainables=compiled.trainables[::-1]
    )
    other = write_image(compiled.graph, compiled.plans, meta={"name": "another"})
    assert read_image(other).uid != read_image(again).uid


def test_constants_and_sections_are_aligned(compiled: Compiled) -> None:
    image = read_image(compiled.image)
    assert all(section.offset % 16 == 0 for section in image.sections)
    for tensor in image.tensors:
        if tensor.kind is f.TensorKind.CONSTANT:
            assert (
                tensor.offset % (16 if tensor.dtype is f.Dtype.I8 and tensor.bytes > 15 else 4)
                == 0
            )


def test_the_c_core_accepts_every_image() -> None:
    ffi, lib = c_core()
    for seed in range(25):
        graph = random_graph(seed, depth=1 + seed % 6, softmax=seed % 2 == 0)
        made = compile_graph(graph, samples_for(graph, seed, 20), learn=1 + seed % 3)
        buffer = ffi.new("uint64_t[]", len(made.image) // 8 + 2)
        start = ffi.cast("char *", buffer)
        start += -int(ffi.cast("uintptr_t", start)) % 16
        ffi.memmove(start, made.image, len(made.image))
        assert lib.fl_image_check(start, len(made.image)) == 0, seed


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"labels": ["a\0b"]}, "NUL"),
        ({"trainables": [Trainable("nobody", 1.0)]}, "no operator"),
        ({"trainables": [Trainable("head", float("nan"))]}, "finite value"),
        (
            {"rehearsal": RehearsalSet(np.zeros((2, 3), np.int8), np.zeros(2, np.int64))},
            "bytes each",
        ),
    ],
)
def test_the_writer_refuses(compiled: Compiled, options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        write_image(compiled.graph, compiled.plans, **options)


def test_int8_without_its_arithmetic_is_refused(compiled: Compiled) -> None:
    graph = compiled.graph
    bare = graph.with_ops([replace(op, fixed=None) for op in graph.ops])
    with pytest.raises(UsageError, match="expected Requant as its fixed-point arithmetic"):
        write_image(bare, compiled.plans)


def test_the_folded_bias_is_what_the_kernels_need(compiled: Compiled) -> None:
    """b - x_zero * (sum of w) of every layer but those that are trained."""
    image, graph = read_image(compiled.image), compiled.graph
    trained = {layer.op for layer in compiled.trainables}
    seen = 0
    for op, written in zip(graph.ops, image.ops, strict=True):
        if op.kind not in WEIGHTED or op.name in trained:
            assert written.folded is None
            continue
        x, w, b = (graph.tensors[name] for name in op.inputs)
        assert x.quant is not None and w.data is not None and b.data is not None
        rows = np.moveaxis(w.data, 3 if op.kind is OpKind.DEPTHWISE_CONV2D else 0, 0)
        expected = [
            int(b.data[i]) - x.quant.zero_point * int(row.astype(int).sum())
            for i, row in enumerate(rows)
        ]
        assert written.folded is not None
        at = image.tensors[written.folded].offset
        assert np.frombuffer(compiled.image, "<i4", len(rows), at).tolist() == expected
        seen += 1
    assert seen > 0


def test_a_float_graph_is_written_with_float_clamps() -> None:
    build = Grower(np.random.default_rng(3)).build
    x = build.input("x", (1, 4, 4, 2))
    y = build.add("pool", OpKind.MAX_POOL, [x], window=Window((2, 2)))
    build.clamp("relu6", y, Clamp(0.0, 6.0), private=True)
    graph: Graph = build.graph([y])
    image = read_image(write_image(graph, [plan_graph(graph, PlanKind.INFER)]))
    assert (image.ops[0].act_min, image.ops[0].act_max) == (0.0, 6.0)
    assert {t.dtype for t in image.tensors} == {f.Dtype.F32}
    assert graph.tensors["x"].dtype is DType.FLOAT32


# ---- hostile bytes


def resealed(data: bytearray) -> bytes:
    """The same bytes with checksums that match, so that a reader looks further."""
    import hashlib

    total = min(struct.unpack_from("<I", data, 8)[0], len(data))
    data[16:32] = hashlib.sha256(data[32:total]).digest()[:16]
    struct.pack_into("<I", data, 12, zlib.crc32(data[16:total]))
    return bytes(data)


def test_damage_is_one_clear_line(compiled: Compiled) -> None:
    good = compiled.image
    cases: list[tuple[bytes, str]] = [
        (b"", "at least 64 bytes"),
        (good[:63], "at least 64 bytes"),
        (good[:-16], "truncated"),
        (b"TFL3" + good[4:], "FLM1"),
        (good[:200] + bytes([good[200] ^ 1]) + good[201:], "CRC-32"),
    ]
    for data, match in cases:
        with pytest.raises(ImageError, match=match) as caught:
            read_image(data)
        assert "\n" not in str(caught.value)
    with pytest.raises(VersionError, match=r"expected 1\.x, got 2\.2"):
        read_image(good[:4] + struct.pack("<H", 2) + good[6:])


def patch(offset: int, layout: str, value: int) -> Callable[[bytearray], None]:
    def apply(data: bytearray) -> None:
        struct.pack_into(layout, data, offset, value)

    return apply


def test_faults_behind_a_good_checksum(compiled: Compiled) -> None:
    image = read_image(compiled.image)
    at = {section.name: section.offset for section in image.sections}
    rows = {section.name: 64 + 16 * i for i, section in enumerate(image.sections)}
    cases: list[tuple[Callable[[bytearray], None], str]] = [
        (patch(32, "<I", 0xFFFFFFFF), "reach past the end"),
        (patch(32, "<I", 3), "missing"),
        (patch(36, "<I", 0), "0 tensors"),
        (patch(36, "<I", 1), "a table of 1 records"),
        (patch(rows["DATA"] + 8, "<I", 8), "lies outside"),
        (patch(rows["DATA"] + 12, "<I", 0xFFFFFFF0), "lies outside"),
        (patch(rows["META"], "<I", f.Section.LABELS), "occurs 2 times"),
        (patch(at["TENS"], "<B", 9), "dtype"),
        (patch(at["TENS"] + 4, "<i", -1), "shape"),
        (patch(at["TENS"] + 4, "<i", 2), "shape says"),
        (patch(at["TENS"] + 28, "<I", 0x7FC00000), "scale"),
        (patch(at["TENS"] + 32, "<i", 128), "zero point"),
        (patch(at["OPER"] + 4, "<H", 500), "beyond"),
        (patch(at["OPER"] + 24, "<i", -129), "clamps"),
        (patch(at["INOU"], "<H", 0), "inputs"),
        (patch(at["INOU"] + 4, "<H", 999), "names no tensor"),
        (patch(at["PLAN"], "<I", 7), "kind"),
        (patch(at["PLAN"] + 16, "<I", 0xFFFFFF00), "the arena at"),
        (patch(at["LABL"], "<I", 1), "labels"),
        (patch(at["LABL"] + 4, "<B", 0xFF), "UTF-8"),
        (patch(at["LERN"], "<H", 400), "out of order"),
        (patch(at["LERN"] + 4, "<I", 0x7F800000), "learning rate"),
        (patch(at["REHS"], "<I", 8), "rehearsal"),
        (patch(at["META"], "<B", 0), "JSON"),
    ]
    for apply, match in cases:
        data = bytearray(compiled.image)
        apply(data)
        with pytest.raises(ImageError, match=match) as caught:
            read_image(resealed(data))
        assert "\n" not in str(caught.value)
    for apply, match in (
        (patch(at["OPER"], "<H", 99), "unknown opcode 99"),
        (patch(rows["DATA"], "<I", 0x5A5A5A5A), "required section 'ZZZZ'"),
    ):
        data = bytearray(compiled.image)
        apply(data)
        with pytest.raises(VersionError, match=match):
            read_image(resealed(data))


def test_an_unknown_optional_section_is_passed_over(compiled: Compiled) -> None:
    row = 64 + 16 * [s.name for s in read_image(compiled.image).sections].index("META")
    data = bytearray(compiled.image)
    struct.pack_into("<I", data, row, 0x5A5A5A5A)
    image = read_image(resealed(data))
    assert image.meta == {}
    assert image.sections[-1].name == "ZZZZ"


def test_deep_json_is_an_error(compiled: Compiled) -> None:
    bomb = "[" * 200_000
    made = write_image(compiled.graph, compiled.plans, meta={"x": "y" * len(bomb)})
    at = next(s.offset for s in read_image(made).sections if s.name == "META")
    data = bytearray(made)
    data[at : at + len(bomb)] = bomb.encode()
    with pytest.raises(ImageError, match="META"):
        read_image(resealed(data))


def test_fuzzed_images_never_raise_anything_else(compiled: Compiled) -> None:
    """Flips, cuts, splices and swaps; most with good checksums, so that they get far."""
    rng = np.random.default_rng(0)
    good = compiled.image
    interesting = [0, 1, 0x7F, 0x80, 0xFF]
    read = 0
    for _ in range(6000):
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 5))):
            at = int(rng.integers(0, len(data)))
            if rng.random() < 0.7:  # the tables are where damage matters
                at %= 64 + 16 * 10 + len(data) // 2
            choice = rng.integers(4)
            if choice == 0:
                data[at] ^= 1 << int(rng.integers(8))
            elif choice == 1:
                data[at] = interesting[int(rng.integers(5))]
            elif choice == 2:
                size = int(rng.integers(1, 40))
                source = int(rng.integers(0, len(data)))
                data[at : at + size] = data[source : source + size]
            else:
                struct.pack_into("<I", data, min(at & ~3, len(data) - 4), int(rng.integers(2**32)))
        if rng.random() < 0.05:
            del data[int(rng.integers(0, len(data))) :]
        sealed = resealed(data) if rng.random() < 0.95 and len(data) >= 64 else bytes(data)
        try:
            read_image(sealed)
            read += 1
        except FieldloopError as error:
            assert "\n" not in str(error)
    assert read > 100  # some damage lies in weights and goes through, as it should
