"""`fieldloop export --offline-plan`: the stock interpreter of TensorFlow Lite Micro goes by it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_helpers import Cli

pytest.importorskip("tflite_micro", reason="the interpreter: pip install tflite-micro")

import flatbuffers
from tflite_build import Build
from tflite_micro import runtime

from fieldloop.errors import FieldloopError
from fieldloop.frontends.tflite.file import ModelFile, read_file
from fieldloop.frontends.tflite.offline_plan import live_tensors, offline_plan, with_offline_plan

fb = runtime.schema_fb
ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared")) / "models"
# Model -> stored inputs, bytes of head without a plan, bytes with it.
NETWORKS: dict[str, tuple[str, int, int]] = {
    "vww_96_int8": ("vww", 73_728, 55_296),
    "kws_ref_model": ("aww", 16_000, 16_000),
    "aww": ("aww", 16_000, 16_000),
    "resnet8_int8": ("resnet", 49_152, 49_152),
    "ad01_int8": ("toycar", 768, 768),
    "str_ww_ref_model": ("", 6_656, 6_656),
    "micro_speech": ("micro_speech", 5_968, 5_968),
    "mnist_cnn_int8": ("", 2_144, 2_144),
    "text_class": ("text_class", 17_408, 17_408),
    "magic_wand": ("magic_wand", 13_824, 13_824),
    "cifar10": ("cifar10", 144_000, 144_000),
}
needs_models = pytest.mark.skipif(
    not MODELS.is_dir(), reason="no models beside the clone; set FIELDLOOP_SHARED"
)


def network() -> bytes:
    """A chain whose layers the interpreter's own planner lays out badly, and a reshape."""
    b = Build()
    rng = np.random.default_rng(0)
    x, c_in = b.input([1, 8, 8, 5], "int8", 0.1, 3), 5
    for c_out in (3, 2, 4, 1):
        w = b.tensor(
            [c_out, 1, 1, c_in], "int8", 0.05, data=rng.integers(-90, 90, (c_out, 1, 1, c_in))
        )
        bias = b.tensor([c_out], "int32", 0.005, data=rng.integers(-90, 90, c_out))
        y = b.tensor([1, 8, 8, c_out], "int8", 0.1, -4)
        x, c_in = b.op("CONV_2D", [x, w, bias], y, strideH=1, strideW=1), c_out
    flat = b.tensor([1, 64 * c_in], "int8", 0.1, -4)
    return b.bytes(b.op("RESHAPE", [x, b.ints(1, 64 * c_in)], flat))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.tflite"
    path.write_bytes(network())
    return path


def loaded(content: bytes) -> Any:
    return runtime.Interpreter.from_bytes(content, arena_size=4 << 20)


def head(interpreter: Any, capfd: pytest.CaptureFixture[str]) -> int:
    """What the interpreter says that its tensors take."""
    capfd.readouterr()
    interpreter.print_allocations()
    found = re.search(r"Arena allocation head (\d+) bytes", capfd.readouterr().err)
    assert found is not None
    return int(found[1])


def outputs(interpreter: Any, file: ModelFile, inputs: list[np.ndarray[Any, Any]]) -> list[bytes]:
    for place, value in enumerate(inputs):
        interpreter.set_input(value, place)
    interpreter.invoke()
    return [interpreter.get_output(place).tobytes() for place in range(len(file.outputs))]


def samples(file: ModelFile, source: str) -> list[list[np.ndarray[Any, Any]]]:
    """Stored inputs, as bytes of the tensor or as reals to quantise, and random ones."""
    tensors = [file.tensors[i] for i in file.inputs]
    (tensor,) = tensors
    made = []
    for path in sorted((MODELS / "io" / source / "input").glob("*.bin")) if source else []:
        raw = path.read_bytes()
        if len(raw) == tensor.size * np.dtype(tensor.dtype).itemsize:
            value = np.frombuffer(raw, tensor.dtype)
        else:
            real = np.frombuffer(raw, np.float32)
            steps = np.round(real / tensor.scales[0]) + tensor.zero_points[0]
            value = np.clip(steps, -128, 127).astype(np.int8)
        made.append([value.reshape(tensor.shape)])
    assert made or not source
    rng = np.random.default_rng(5)
    for _ in range(3):
        if tensor.dtype == "int8":
            value = rng.integers(-128, 128, tensor.shape).astype(np.int8)
        elif source == "text_class":  # numbers of words
            value = rng.integers(0, 1000, tensor.shape).astype(tensor.dtype)
        else:
            value = rng.normal(size=tensor.shape).astype(tensor.dtype)
        made.append([value])
    return made


def test_the_stock_interpreter_needs_less(
    cli: Cli, small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.tflite"
    done = cli("export", small, "--offline-plan", "-o", out, "--json")
    assert done.code == 0, done.err
    report = done.json
    before, after = loaded(small.read_bytes()), loaded(out.read_bytes())
    assert head(before, capfd) == report["greedy_bytes"] > report["head_bytes"]
    assert head(after, capfd) == report["head_bytes"] == report["bound_bytes"]
    assert report["optimal"] and not report["replaced"]
    file = read_file(out.read_bytes())
    rng = np.random.default_rng(1)
    for _ in range(5):
        x = rng.integers(-128, 128, (1, 8, 8, 5)).astype(np.int8)
        assert outputs(before, file, [x]) == outputs(after, file, [x])
    text = cli("export", small, "--offline-plan", "-o", out).out
    assert f"{report['head_bytes']} bytes of arena, the least there can be" in text
    assert f"{report['greedy_bytes']} bytes, by the interpreter's own planner" in text


@needs_models
@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks_on_the_stock_interpreter(
    cli: Cli, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    source, without, planned = NETWORKS[name]
    path, out = MODELS / "tflite" / f"{name}.tflite", tmp_path / "out.tflite"
    done = cli("export", path, "--offline-plan", "-o", out, "--json")
    assert done.code == 0, done.err
    assert (done.json["greedy_bytes"], done.json["head_bytes"]) == (without, planned)
    before, after = loaded(path.read_bytes()), loaded(out.read_bytes())
    assert head(before, capfd) == without
    assert head(after, capfd) == planned
    file = read_file(path.read_bytes())
    for inputs in samples(file, source):
        assert outputs(before, file, inputs) == outputs(after, file, inputs)


@needs_models
@pytest.mark.parametrize("name", ["ssd", "posenet_075_353_481_quant", *NETWORKS])
def test_nothing_but_the_plan_is_added(name: str) -> None:
    """Read and written again by the schema's own classes, the two files differ by the plan."""
    content = (MODELS / "tflite" / f"{name}.tflite").read_bytes()
    offsets = [tensor.index % 7 * 16 for tensor in read_file(content).tensors]
    made = with_offline_plan(content, offsets)
    assert made.endswith(content)
    assert offline_plan(made) == tuple(offsets)
    was, now = (fb.ModelT.InitFromObj(fb.Model.GetRootAs(c, 0)) for c in (content, made))
    entry = now.metadata.pop()
    assert entry.name == b"OfflineMemoryAllocation" and entry.buffer == len(was.buffers)
    plan = np.frombuffer(bytes(now.buffers.pop().data), "<i4").tolist()
    assert plan == [1, 1, len(offsets), *offsets]
    now.metadata = now.metadata if was.metadata is not None else None
    assert packed(now) == packed(was)


def packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_litert_accepts_the_file(small: Path) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="pip install ai-edge-litert")
    content = small.read_bytes()
    made = with_offline_plan(content, [-1] * len(read_file(content).tensors))
    litert.Interpreter(model_content=made).allocate_tensors()  # it verifies every offset first


def test_a_plan_is_replaced_in_its_place(cli: Cli, small: Path, tmp_path: Path) -> None:
    bad = with_offline_plan(small.read_bytes(), [0] * len(read_file(small.read_bytes()).tensors))
    (tmp_path / "bad.tflite").write_bytes(bad)
    for source, target in (("bad", "a"), ("a", "b"), ("small", "c")):
        done = cli(
            "export",
            tmp_path / f"{source}.tflite",
            "--offline-plan",
            "-o",
            tmp_path / f"{target}.tflite",
            "--json",
        )
        assert done.code == 0, done.err
        assert done.json["replaced"] == (source != "small")
    made = [(tmp_path / f"{name}.tflite").read_bytes() for name in "abc"]
    assert made[0] == made[1] == made[2]


def test_a_plan_of_another_length_gives_way(small: Path) -> None:
    """The interpreter refuses such a file; ours takes the entry's place and is the only one."""
    model = fb.ModelT.InitFromObj(fb.Model.GetRootAs(small.read_bytes(), 0))
    buffer, entry = fb.BufferT(), fb.MetadataT()
    buffer.data = np.zeros(20, np.uint8)
    entry.name, entry.buffer = "OfflineMemoryAllocation", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [entry]
    content = packed(model)
    assert offline_plan(content) is None
    offsets = [-1] * len(read_file(content).tensors)
    made = with_offline_plan(content, offsets)
    assert offline_plan(made) == tuple(offsets)
    assert len(fb.ModelT.InitFromObj(fb.Model.GetRootAs(made, 0)).metadata) == 1
    loaded(made)


def test_what_is_planned(small: Path) -> None:
    """Every tensor has the life and the size that the interpreter gives it."""
    live = live_tensors(small.read_bytes())
    assert [(t.bytes, t.first, t.last) for t in live] == [
        (320, 0, 1),
        (192, 1, 2),
        (128, 2, 3),
        (256, 3, 4),
        (64, 4, 5),
        (64, 5, 6),  # a reshape has its own
    ]


def test_refusals(cli: Cli, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tflite"
    content = small.read_bytes()
    cli("export", small, "-o", out).refused(2, "--offline-plan")
    cli("export", small, "--offline-plan").refused(2, "-o")
    cli("export", small, "--offline-plan", "-o", small).refused(2, "the model itself")
    (tmp_path / "link.tflite").symlink_to(small)
    cli("export", small, "--offline-plan", "-o", tmp_path / "link.tflite").refused(2, "itself")
    assert small.read_bytes() == content
    cli("export", tmp_path / "none.tflite", "--offline-plan", "-o", out).refused(1, "cannot read")
    cli("export", small, "--offline-plan", "-o", tmp_path).refused(1, "cannot write")
    cli("export", small, "--offline-plan", "-o", out, "--ram-limit", 500).refused(5, "missing")
    (tmp_path / "text.tflite").write_text("no flatbuffer at all")
    cli("export", tmp_path / "text.tflite", "--offline-plan", "-o", out).refused(1, "TFL3")
    for size in (8, 40, len(content) // 2, len(content) - 16):
        (tmp_path / "cut.tflite").write_bytes(content[:size])
        cli("export", tmp_path / "cut.tflite", "--offline-plan", "-o", out).refused(1, "tflite")
    model = fb.ModelT.InitFromObj(fb.Model.GetRootAs(content, 0))
    model.subgraphs.append(model.subgraphs[0])
    (tmp_path / "two.tflite").write_bytes(packed(model))
    cli("export", tmp_path / "two.tflite", "--offline-plan", "-o", out).refused(1, "one subgraph")
    b = Build()
    handle = b.op("VAR_HANDLE", [], b.tensor([], "int32"))
    value = b.op("READ_VARIABLE", [handle], b.tensor([1, 4], "float32"))
    (tmp_path / "variable.tflite").write_bytes(b.bytes(value))
    cli("export", tmp_path / "variable.tflite", "--offline-plan", "-o", out).refused(1, "variabl")
    assert not out.exists()


def test_damaged_files_end_in_an_error_or_a_plan() -> None:
    rng = np.random.default_rng(3)
    content = with_offline_plan(network(), [-1] * len(read_file(network()).tensors))
    ends = {"error": 0, "plan": 0}
    for round_number in range(1500):
        data = bytearray(content if round_number % 2 else network())
        for _ in range(int(rng.integers(1, 4))):
            place = int(rng.integers(len(data)))
            data[place] = int(rng.choice([0, 1, 4, 127, 255, rng.integers(256)]))
        try:
            tensors = len(read_file(bytes(data)).tensors)
            live = live_tensors(bytes(data))
            made = with_offline_plan(bytes(data), [len(live)] * tensors)
            assert len(read_file(made).tensors) == tensors
            ends["plan"] += 1
        except FieldloopError:
            ends["error"] += 1
    assert min(ends.values()) > 100, ends
