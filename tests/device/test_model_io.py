"""Models of several inputs, outputs and dtypes on a device, by operators: as on the host."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from package import install

from fieldloop.image.writer import write_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, Concat, Op, OpKind, Pad, Unary, UnaryKind
from fieldloop.ir.tensor import Array, DType, Quant, Tensor
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.types import PlanKind
from fieldloop.quantize.fixedpoint import add_params
from fieldloop.runtime import Model
from fieldloop.runtime.core import core
from fieldloop.targets.pytest_plugin import firmware
from fieldloop.targets.raw_repl import RemoteError
from fieldloop.targets.unix import UnixBoard

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core"))
from core_runner import CoreModel, random_inputs
from more_ops import Maker
from single_ops import image_of

I8, I32, F32 = DType.INT8, DType.INT32, DType.FLOAT32


@pytest.fixture
def unix() -> Iterator[UnixBoard]:
    with UnixBoard(firmware=firmware("unix")) as target:
        yield target


def mixed_image() -> bytes:
    """Inputs f32 [1, 6], int8 [1, 6], int32 [2]; outputs f32 [1, 6], int8 [1, 12], int32 [4]."""
    rng = np.random.default_rng(1)
    quant = Quant((0.25,), 3)
    tensors = [
        Tensor("real", (1, 6), F32),
        Tensor("small", (1, 6), I8, quant),
        Tensor("index", (2,), I32),
        Tensor("q", (1, 6), I8, quant),
        Tensor("sum", (1, 6), I8, quant),
        Tensor("rows", (9, 3), I8, quant, rng.integers(-128, 128, (9, 3)).astype(np.int8)),
        Tensor("row", (2, 3), I8, quant),
        Tensor("flat", (1, 6), I8, quant),
        Tensor("both", (1, 12), I8, quant),
        Tensor("d", (1, 6), F32),
        Tensor("tanh", (1, 6), F32),
        Tensor("padded", (4,), I32),
    ]
    fixed = add_params(quant, quant, quant, Clamp())
    ops = (
        Op("quantize", OpKind.QUANTIZE, ("real",), "q"),
        Op("add", OpKind.ADD, ("q", "small"), "sum", fixed=fixed),
        Op("embedding", OpKind.EMBEDDING, ("index", "rows"), "row"),
        Op("reshape", OpKind.RESHAPE, ("row",), "flat"),
        Op("concat", OpKind.CONCAT, ("sum", "flat"), "both", attrs=Concat(1)),
        Op("dequantize", OpKind.DEQUANTIZE, ("sum",), "d"),
        Op("tanh", OpKind.UNARY, ("d",), "tanh", attrs=Unary(UnaryKind.TANH)),
        Op("pad", OpKind.PAD, ("index",), "padded", attrs=Pad((1,), (1,))),
    )
    inputs, outputs = ("real", "small", "index"), ("tanh", "both", "padded")
    graph = Graph("mixed", {t.name: t for t in tensors}, ops, inputs, outputs)
    return write_image(graph, [plan_graph(graph, PlanKind.INFER)])


def sample() -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(2)
    real = rng.normal(0, 4, (1, 6)).astype(np.float32)
    small = rng.integers(-128, 128, (1, 6)).astype(np.int8)
    return real, small, np.array([7, -1], np.int32)


def prepare(target: Any) -> tuple[Array, ...]:
    """Puts image and sample there; what the host makes of it."""
    install(target)
    inputs = sample()
    target.put("/mixed.flm", mixed_image())
    target.put("/x.bin", b"".join(x.tobytes() for x in inputs))
    target.exec(
        "import fieldloop, _fieldloop, array, gc\n"
        "m = fieldloop.Model('/mixed.flm')\n"
        "b = open('/x.bin', 'rb').read()\n"
        "x = array.array('f', b[:24]), array.array('b', b[24:30]), array.array('i', b[30:])\n"
        "y = [array.array('f', bytes(24)), bytearray(12), array.array('i', bytes(16))]\n"
    )
    return Model(mixed_image()).run(*(x[None] for x in inputs))


def check_whole(target: Any) -> None:
    expected = prepare(target)
    best = target.eval("m.predict(x, y)")
    assert best == int(np.argmax(expected[0]))
    assert target.eval("[bytes(v) for v in y]") == [e.tobytes() for e in expected]
    raw = "m.predict([b[:24], memoryview(b)[24:30], b[30:]], y)"
    target.exec("y = [bytearray(24), array.array('f', bytes(48)), bytearray(16)]\n" + raw)
    real = (expected[1].reshape(-1).astype(np.float32) - 3) * np.float32(0.25)
    assert target.eval("[bytes(v) for v in y]") == [
        expected[0].tobytes(),
        real.tobytes(),
        expected[2].tobytes(),
    ]
    said = target.eval("repr(m)")
    assert "1x6 float32, 1x6 int8, 2 int32 -> 1x6 float32, 1x12 int8, 4 int32" in said


def check_operators(target: Any) -> None:
    expected = prepare(target)
    assert target.eval("(m.op_count, m.tensor_count, len(m.inputs), len(m.outputs))") == (
        8,
        12,
        3,
        3,
    )
    target.exec("for i in range(3): m.set_input(i, x[i])\nh = []")
    target.exec(
        "for i in range(m.op_count):\n"
        "    m.run_ops(i, i + 1)\n    h.append(_fieldloop.crc32(m.tensor(m.op(i)[2])))"
    )
    host = Model(mixed_image())
    for i, x in enumerate(sample()):
        host.tensor(target.eval("m.inputs")[i])  # the same numbers on both sides
        core_input = core()[1].fl_model_input(host.handle, i)
        core()[0].memmove(core_input, x.tobytes(), x.nbytes)
    hashes = []
    for i in range(8):
        host.run_ops(i, i + 1)
        made = target.eval(f"m.op({i})[2]")
        hashes.append(zlib.crc32(np.ascontiguousarray(host.tensor(made)).tobytes()))
    assert target.eval("h") == hashes
    assert target.eval("bytes(m.output(2))") == expected[2].tobytes()
    assert target.eval("m.tensor_info(m.inputs[1])") == ("b", (1, 6), 0.25, 3)
    assert target.eval("m.tensor_info(m.inputs[0])") == ("f", (1, 6), 0.0, 0)
    assert target.eval("[m.op(i)[0] for i in range(8)]") == [20, 6, 19, 8, 13, 21, 22, 14]
    assert target.eval("m.op(2)[1] == (m.inputs[2], m.op(2)[1][1])") is True


def check_views(target: Any) -> None:
    expected = prepare(target)
    target.exec(
        "v = [m.input(i) for i in range(3)]\nv[0][:] = b[:24]\nv[1][:] = b[24:30]\n"
        "v[2][:] = b[30:]\nm.run_ops(0, m.op_count)\no = m.output(1)"
    )
    assert target.eval("bytes(o)") == expected[1].tobytes()
    # a view outlives the model, whatever the collector does
    target.exec("m.deinit()\ndel m\ngc.collect()\nz = [bytearray(64) for i in range(50)]")
    assert target.eval("bytes(o)") == expected[1].tobytes()


def check_random(target: Any) -> None:
    install(target)
    target.exec("import _fieldloop\na = bytearray(1000)\n_fieldloop.random_fill(a, 0xdeadbeef)")
    ffi, lib = core()
    made = np.empty(1000, np.uint8)
    lib.fl_random_fill(ffi.cast("void *", made.ctypes.data), 1000, 0xDEADBEEF)
    assert target.eval("bytes(a)") == made.tobytes()
    assert len(np.unique(made)) > 200


def every_operator() -> list[Graph]:
    """All operators: the float32 ones, whose every bit must be the host's, and those on int8."""
    maker = Maker(np.random.default_rng(8))
    graphs = [maker.unary(kind) for kind in UnaryKind]
    for name in ("conv2d", "grouped_conv2d", "depthwise_conv2d", "fully_connected"):
        graphs += [getattr(maker, name)(), maker.in_float(getattr(maker, name)())]
    for name in ("max_pool", "avg_pool", "softmax_of_any_rank"):
        graphs += [getattr(maker, name)(), maker.in_float(getattr(maker, name)())]
    for name in ("add_broadcast", "sub", "mul", "minimum", "maximum", "mean"):
        graphs += [getattr(maker, name)(), getattr(maker, name)(real=True)]
    for name in ("concat", "pad", "transpose", "slice", "embedding"):
        graphs += [getattr(maker, name)(), getattr(maker, name)(real=True)]
    return [*graphs, maker.table(), maker.quantize(), maker.dequantize()]


def check_every_operator(target: Any) -> None:
    install(target)
    target.exec("import fieldloop, _fieldloop, gc\ndef load(p):\n    return open(p, 'rb').read()")
    for graph in every_operator():
        inputs = random_inputs(graph, np.random.default_rng(3), 2)
        expected = CoreModel(image_of(graph)).run(*inputs)
        target.put("/one.flm", image_of(graph))
        target.put("/one.bin", b"".join(x[1].tobytes() for x in inputs))
        target.exec(
            "m = None; gc.collect(); m = fieldloop.Model('/one.flm'); b = load('/one.bin')"
        )
        at = 0
        for i, x in enumerate(inputs):
            end = at + x[1].nbytes
            target.exec(f"m.set_input({i}, b[{at}:{end}])")
            at = end
        target.exec("m.run_ops(0, 1)")
        assert target.eval("bytes(m.output(0))") == expected[1].tobytes(), graph.ops[0]


def check_no_allocation(target: Any) -> None:
    prepare(target)
    code = (
        "import micropython\npredict = m.predict\nrun = m.run_ops\nset = m.set_input\n"
        "fill = _fieldloop.random_fill\nv = m.input(1)\nmicropython.heap_lock()\n"
        "try:\n    predict(x, y); predict(x); set(1, x[1]); run(0, 8); fill(v, 5)\n"
        "finally:\n    micropython.heap_unlock()\nprint('ok')"
    )
    assert target.exec(code).strip().endswith("ok")


CHECKS = [check_whole, check_operators, check_views, check_random, check_no_allocation]


@pytest.mark.parametrize("check", [*CHECKS, check_every_operator])
def test_on_unix(unix: UnixBoard, check: Any) -> None:
    check(unix)


@pytest.mark.parametrize("check", CHECKS)
def test_on_board(board: Any, check: Any) -> None:
    check(board)


@pytest.mark.fieldloop_board(needs=("files",))
def test_every_operator_on_board(board: Any) -> None:
    check_every_operator(board)


def test_wrong_arguments_say_what_was_expected(unix: UnixBoard) -> None:
    prepare(unix)
    cases = [
        ("m.predict(x[0])", ["TypeError", "x:", "tuple of 3", "array"]),
        ("m.predict(x[:2])", ["ValueError", "x:", "3 buffers", "2"]),
        ("m.predict((x[0], x[1], x[0]))", ["TypeError", "int32", "'i'", "'f'"]),
        ("m.predict((x[2], x[1], x[2]))", ["TypeError", "float32", "'f'", "'i'"]),
        ("m.predict((x[0], x[2], x[2]))", ["TypeError", "int8", "'b'", "'i'"]),
        ("m.predict((b[:20], x[1], x[2]))", ["ValueError", "24 bytes", "20"]),
        ("m.predict((x[0], array.array('f', range(5)), x[2]))", ["ValueError", "6 floats", "5"]),
        ("m.predict(x, y[:1])", ["ValueError", "out:", "3 buffers", "1"]),
        ("m.predict(x, (y[0], bytes(12), y[2]))", ["TypeError", "out:", "writable"]),
        ("m.predict((1, 2, 3))", ["TypeError", "bytes-like", "int"]),
        ("m.set_input(3, x[0])", ["IndexError", "input", "0 to 2", "3"]),
        ("m.input(-1)", ["IndexError", "0 to 2", "-1"]),
        ("m.output(3)", ["IndexError", "output", "0 to 2"]),
        ("m.tensor(12)", ["IndexError", "tensor", "0 to 11", "12"]),
        ("m.tensor_info(99)", ["IndexError", "99"]),
        ("m.op(8)", ["IndexError", "operator", "0 to 7"]),
        ("m.run_ops(0, 9)", ["ValueError", "8", "0, 9"]),
        ("m.run_ops(3, 2)", ["ValueError", "3, 2"]),
        ("m.run_ops(-1, 2)", ["ValueError", "-1, 2"]),
        ("m.quantize(x[0], bytearray(6))", ["ValueError", "int8 input", "float32"]),
        ("m.output(0)[0] = 1", ["TypeError"]),
        ("_fieldloop.random_fill(b'1234', 1)", ["TypeError", "writable"]),
    ]
    for code, words in cases:
        with pytest.raises(RemoteError) as caught:
            unix.exec(code)
        for word in words:
            assert word in str(caught.value), (code, word)
    assert unix.eval("m.predict(x, y)") >= 0  # and nothing broke
