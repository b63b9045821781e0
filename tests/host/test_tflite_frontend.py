"""What the .tflite frontend folds, cuts and refuses: one line each, with a way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tflite_micro", reason="writes the files: pip install tflite-micro")

from tflite_build import Build
from tflite_compare import compare
from tflite_single import Single

from fieldloop.errors import FieldloopError, UsageError
from fieldloop.frontends.builder import UnsupportedModelError
from fieldloop.frontends.load import load_model
from fieldloop.frontends.tflite import read_tflite
from fieldloop.frontends.tflite.reader import unknown_operators
from fieldloop.ir.op import OpKind
from fieldloop.ir.tensor import DType


def refusal(content: bytes, *outputs: str) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        read_tflite(content, outputs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def kinds(content: bytes) -> list[OpKind]:
    return [op.kind for op in read_tflite(content).graph.ops]


def small(s: Single, *, dtype: str = "int8") -> tuple[Build, int]:
    """An input and a convolution [1, 4, 4, 3], as a start."""
    b = s.build
    x = b.input([1, 4, 4, 2], "int8", 0.1, 3, name="x")
    w = s.constant([3, 1, 1, 2], (0.02, 0))
    y = b.tensor([1, 4, 4, 3], "int8", 0.2, -5, name="y")
    b.op("CONV_2D", [x, w, b.tensor([3], "int32", data=np.arange(3))], y, strideH=1, strideW=1)
    return b, y


# ---- what is folded


def test_shape_arithmetic_is_folded() -> None:
    s = Single(0, "int8")
    b, y = small(s)
    shape = b.op("SHAPE", [y], b.tensor([4], "int32"))
    cut = [b.ints(0), b.ints(1), b.ints(1)]
    rows = b.op("STRIDED_SLICE", [shape, *cut], b.tensor([], "int32"), shrinkAxisMask=1)
    rest = b.tensor([], "int32", data=np.array(48))
    packed = b.op("PACK", [rows, rest], b.tensor([2], "int32"), valuesCount=2)
    flat = b.op("RESHAPE", [y, packed], b.tensor([1, 48], "int8", 0.2, -5))
    content = b.bytes(flat)
    assert kinds(content) == [OpKind.CONV2D, OpKind.RESHAPE]
    compare(content, 2)


def test_float16_weights_become_float32() -> None:
    b = Build()
    x = b.input([1, 5], "float32")
    half = np.random.default_rng(0).normal(0, 1, [3, 5]).astype(np.float16)
    w = b.op("DEQUANTIZE", [b.tensor([3, 5], "float16", data=half)], b.tensor([3, 5], "float32"))
    out = b.op("FULLY_CONNECTED", [x, w, -1], b.tensor([1, 3], "float32"))
    graph = read_tflite(b.bytes(out)).graph
    (weights,) = (t for t in graph.tensors.values() if t.is_constant)
    assert weights.data is not None
    np.testing.assert_array_equal(weights.data, half.astype(np.float32))


def test_dynamic_range_weights_become_float32() -> None:
    s = Single(4, "int8")
    b = s.build
    x = b.input([1, 4], "float32")
    raw = s.numbers([3, 4])
    w = b.tensor([3, 4], "int8", [0.1, 0.2, 0.3], 0, raw)
    out = b.op("FULLY_CONNECTED", [x, w, -1], b.tensor([1, 3], "float32"))
    imported = read_tflite(b.bytes(out))
    (weights,) = (t for t in imported.graph.tensors.values() if t.is_constant)
    assert weights.data is not None
    scales = np.array([[0.1], [0.2], [0.3]], np.float32)
    np.testing.assert_array_equal(weights.data, raw.astype(np.float32) * scales)
    assert "dynamic range" in imported.notes[0]


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_padding_goes_into_the_convolution(dtype: str) -> None:
    s = Single(5, dtype)
    b, quant = s.build, s.quant()
    x = s.input([1, 5, 5, 2], quant)
    pads = b.tensor([4, 2], "int32", data=np.array([[0, 0], [1, 2], [0, 1], [0, 0]]))
    padded = b.op("PAD", [x, pads], s.value([1, 8, 6, 2], quant))
    w = s.constant([4, 3, 3, 2], (None, 0) if s.is_float else (0.02, 0))
    bias = np.arange(4).astype("float32" if s.is_float else "int32")
    inputs = [padded, w, b.tensor([4], bias.dtype.name, data=bias)]
    out = b.op("CONV_2D", inputs, s.value([1, 3, 2, 4]), padding=1, strideH=2, strideW=2)
    content = b.bytes(out)
    assert kinds(content) == [OpKind.CONV2D]
    compare(content, 2)


def test_float_activation_goes_into_the_layer_unless_somebody_else_reads_it() -> None:
    def made(*, read_twice: bool) -> bytes:
        s = Single(1, "float32")
        b = s.build
        x = s.input([1, 5])
        y = b.op("FULLY_CONNECTED", [x, s.constant([3, 5]), -1], s.value([1, 3]))
        z = b.op("RELU6", [y], s.value([1, 3]))
        return b.bytes(*([z, y] if read_twice else [z]))

    assert kinds(made(read_twice=False)) == [OpKind.FULLY_CONNECTED]
    assert kinds(made(read_twice=True)) == [OpKind.FULLY_CONNECTED, OpKind.UNARY]
    compare(made(read_twice=False), 2)
    compare(made(read_twice=True), 2)


@pytest.mark.parametrize("operator", ["RELU", "RELU6"])
def test_an_int8_clamp_goes_into_the_layer_where_nothing_is_rescaled(operator: str) -> None:
    for scale, kept in ((0.2, [OpKind.CONV2D]), (0.1, [OpKind.CONV2D, OpKind.TABLE])):
        b, y = small(Single(0, "int8"))
        z = b.op(operator, [y], b.tensor([1, 4, 4, 3], "int8", scale, -5))
        content = b.bytes(z)
        assert kinds(content) == kept
        compare(content, 2)


def test_a_part_of_a_split_that_nobody_reads() -> None:
    s = Single(3, "int8")
    quant = (0.1, 3)
    x = s.input([1, 4, 6], quant)
    parts = [s.value([1, 4, 2], quant) for _ in range(3)]
    axis = s.build.tensor([], "int32", data=np.array(2))
    s.build.op("SPLIT", [axis, x], parts, numSplits=3)
    content = s.finish(parts[1])
    assert kinds(content) == [OpKind.SLICE]
    compare(content, 2)


def test_constants_are_quantized_on_the_host() -> None:
    s = Single(3, "int8")
    b = s.build
    x = s.input([1, 7], (0.1, 3))
    real = b.tensor([7], "float32", data=np.linspace(-20, 20, 7))
    made = b.op("QUANTIZE", [real], b.tensor([7], "int8", 0.1, -4))
    content = b.bytes(b.op("ADD", [x, made], s.value([1, 7], (0.2, 0))))
    assert kinds(content) == [OpKind.ADD]
    compare(content, 2)


def test_more_inputs_than_a_join_takes() -> None:
    pytest.importorskip("ai_edge_litert", reason="tflite-micro joins ten at most")
    s = Single(2, "uint8")
    parts = [s.input([1, 2, 1 + i % 3], (0.1, 7)) for i in range(60)]
    out = s.value([1, 2, sum(1 + i % 3 for i in range(60))], (0.1, 7))
    s.build.op("CONCATENATION", parts, out, axis=2)
    compare(s.finish(out), 2)


def test_an_index_input_is_cast_away() -> None:
    s = Single(3, "float32")
    b = s.build
    x = b.input([1, 6], "float32", name="words")
    index = b.op("CAST", [x], b.tensor([1, 6], "int32"))
    out = b.op("GATHER", [s.constant([9, 4]), index], b.tensor([1, 6, 4], "float32"))
    imported = read_tflite(b.bytes(out))
    assert imported.graph.tensors["words"].dtype is DType.INT32
    assert "int32" in imported.notes[0]
    compare(b.bytes(out), 2)


# ---- what is refused


def test_a_custom_operator_and_how_to_cut_it() -> None:
    b, y = small(Single(0, "int8"))
    z = b.op("Pretend", [y], b.tensor([1, 2], "float32", name="boxes"))
    message = refusal(b.bytes(z))
    assert "node 1 boxes (custom operator Pretend)" in message
    assert message.endswith("--outputs y")
    assert unknown_operators(b.bytes(z)) == {"custom operator Pretend": 1}
    assert read_tflite(b.bytes(z), ["y"]).graph.outputs == ("y",)
    assert read_tflite(b.bytes(z), [str(y)]).graph.outputs == ("y",)


def test_the_oracle_runs_what_is_left_of_a_model_that_it_does_not_load() -> None:
    b, y = small(Single(0, "int8"))
    z = b.op("RELU", [y], b.tensor([1, 4, 4, 3], "int8", 0.2, -5, name="z"))
    last = b.op("Pretend", [z], b.tensor([1, 2], "float32"))
    compare(b.bytes(last), 2, outputs=["z"])


def test_an_output_beside_the_unsupported_one_is_kept() -> None:
    b, y = small(Single(0, "int8"))
    left = b.op("RELU", [y], b.tensor([1, 4, 4, 3], "int8", 0.2, -5, name="left"))
    right = b.op("Pretend", [y], b.tensor([1, 2], "float32", name="right"))
    message = refusal(b.bytes(right, left))
    assert message.endswith("--outputs left,y")
    assert read_tflite(b.bytes(right, left), ["left", "y"]).graph.outputs == ("left", "y")


def test_names_that_a_command_line_cannot_say_go_by_their_indices() -> None:
    s = Single(0, "int8")
    b = s.build
    x = b.input([1, 3], "int8", 0.1, 0)
    y = b.op("RELU", [x], b.tensor([1, 3], "int8", 0.1, 0, name="a,b;c"))
    z = b.op("Pretend", [y], b.tensor([1, 3], "int8", 0.1, 0))
    assert refusal(b.bytes(z)).endswith(f"--outputs {y}")


def test_an_unknown_output() -> None:
    b, y = small(Single(0, "int8"))
    message = refusal(b.bytes(y), "nothing")
    assert "'nothing'" in message
    assert "y" in message


def _lstm(s: Single) -> bytes:
    b, y = small(s)
    return b.bytes(b.op("LSTM", [y], b.tensor([1, 2], "int8", 0.1, 0)))


def _sixteen(s: Single) -> bytes:
    b = s.build
    x = b.input([1, 4], "int16", 0.1, 0)
    return b.bytes(b.op("RELU", [x], b.tensor([1, 4], "int16", 0.1, 0)))


def _batch(s: Single) -> bytes:
    b = s.build
    x = b.input([2, 4, 4, 1], "int8", 0.1, 0)
    options = {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2}
    return b.bytes(b.op("MAX_POOL_2D", [x], b.tensor([2, 2, 2, 1], "int8", 0.1, 0), **options))


def _moving_weights(s: Single) -> bytes:
    b = s.build
    x, w = b.input([1, 4], "int8", 0.1, 0), b.input([3, 4], "int8", 0.1, 0)
    return b.bytes(b.op("FULLY_CONNECTED", [x, w, -1], b.tensor([1, 3], "int8", 0.1, 0)))


def _many_slopes(s: Single) -> bytes:
    b = s.build
    x = b.input([1, 4], "float32")
    alpha = b.tensor([4], "float32", data=np.arange(4))
    return b.bytes(b.op("PRELU", [x, alpha], b.tensor([1, 4], "float32")))


def _five(s: Single) -> bytes:
    b = s.build
    x = b.input([1, 2, 2, 2, 2], "float32")
    return b.bytes(b.op("RELU", [x], b.tensor([1, 2, 2, 2, 2], "float32")))


def _backwards(s: Single) -> bytes:
    b = s.build
    x = b.input([4], "float32")
    cut = [b.ints(3), b.ints(0), b.ints(-1)]
    return b.bytes(b.op("STRIDED_SLICE", [x, *cut], b.tensor([3], "float32")))


def _no_scale(s: Single) -> bytes:
    b = s.build
    x = b.input([1, 4], "int8")
    return b.bytes(b.op("RELU", [x], b.tensor([1, 4], "int8")))


REFUSED: dict[str, tuple[Callable[[Single], bytes], str]] = {
    "lstm": (_lstm, "LSTM"),
    "int16": (_sixteen, "int16"),
    "batch": (_batch, "a batch of 2"),
    "weights that are worked out": (_moving_weights, "not constant"),
    "a slope a channel": (_many_slopes, "slope"),
    "five dimensions": (_five, "1 to 4 dimensions"),
    "a negative stride": (_backwards, "stride -1"),
    "no scale": (_no_scale, "no scale"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name: str) -> None:
    make, why = REFUSED[name]
    message = refusal(make(Single(0, "int8")))
    assert why in message
    assert ";" in message  # and what to do instead


def test_several_subgraphs_and_no_tflite_at_all() -> None:
    assert "TFL3" in refusal(b"\0" * 64)
    assert "TFL3" in refusal(b"")


def test_a_claim_of_gigabytes_costs_nothing() -> None:
    b = Build()
    shape = b.ints(30000, 30000)
    value = b.tensor([], "float32", data=np.array(0.0))
    filled = b.op("FILL", [shape, value], b.tensor([16000, 16000], "float32"))
    x = b.input([16000, 16000], "float32")
    out = b.op("ADD", [x, filled], b.tensor([16000, 16000], "float32"))
    assert "at most" in refusal(b.bytes(out))


def test_load_model_goes_by_what_is_in_the_file(tmp_path: Path) -> None:
    b, y = small(Single(0, "int8"))
    renamed = tmp_path / "model.bin"
    renamed.write_bytes(b.bytes(y))
    assert load_model(renamed).kind == "tflite"
    renamed.write_bytes(b"something else")
    with pytest.raises(UsageError, match=r"\.tflite or \.onnx"):
        load_model(renamed)
    with pytest.raises(FieldloopError, match="cannot read"):
        load_model(tmp_path / "absent.tflite")


def test_hostile_files() -> None:
    """A short run of tests/fuzz_frontends.py, with another seed than the long one."""
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from fuzz_tflite import fuzz

    ends = fuzz(1500, 99)
    assert ends["image"] > 100
    assert ends["UnsupportedModelError"] > 500
