"""Real .tflite networks and layers: numpy = C = the runtime they were written for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tflite_micro", reason="the oracle: pip install tflite-micro")

from tflite_compare import Inputs, compare
from tflite_micro import runtime

from fieldloop.frontends.builder import UnsupportedModelError
from fieldloop.frontends.load import load_model
from fieldloop.frontends.tflite import read_tflite
from fieldloop.frontends.tflite.file import read_file
from fieldloop.frontends.tflite.names import OPERATORS, OPTIONS, TYPES

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared"))
MODELS = SHARED / "models"
NETWORKS = (
    "kws_ref_model",
    "vww_96_int8",
    "resnet8_int8",
    "ad01_int8",
    "str_ww_ref_model",
    "aww",
    "micro_speech",
    "mnist_cnn_int8",
    "text_class",
    "magic_wand",
    "cifar10",
)
TRUNK = ("Squeeze", "convert_scores")  # what the detector's post-processing reads

pytestmark = pytest.mark.skipif(
    not MODELS.is_dir(), reason="no models beside the clone; set FIELDLOOP_SHARED"
)


def content(name: str) -> bytes:
    return (MODELS / "tflite" / f"{name}.tflite").read_bytes()


@pytest.mark.parametrize("name", NETWORKS)
def test_network_layer_by_layer(name: str) -> None:
    compare(content(name), 2)


@pytest.mark.parametrize("name", ["ssd", "posenet_075_353_481_quant"])
def test_legacy_uint8_layer_by_layer(name: str) -> None:
    pytest.importorskip("ai_edge_litert", reason="the oracle: pip install ai-edge-litert")
    compare(content(name), 1, outputs=TRUNK if name == "ssd" else ())


def test_all_single_layers() -> None:
    files = sorted((MODELS / "layers").glob("*.tflite"))
    assert len(files) == 70
    for path in files:
        compare(path.read_bytes(), 2)


def stored(name: str, source: str) -> list[Inputs]:
    """The inputs that ship with a model, as the graph takes them."""
    graph = read_tflite(content(name)).graph
    (tensor,) = (graph.tensors[i] for i in graph.inputs)
    made = []
    for path in sorted((MODELS / "io" / source / "input").glob("*.bin")):
        if tensor.dtype.value == "float32":
            value = np.frombuffer(path.read_bytes(), np.float32)
        elif tensor.dtype.value == "int32":
            value = np.frombuffer(path.read_bytes(), np.float32).astype(np.int32)
        elif path.stat().st_size == tensor.size:
            value = np.frombuffer(path.read_bytes(), np.int8)
            if source == "resnet":
                value = value ^ np.int8(-128)  # uint8 less 128
        else:
            assert tensor.quant is not None
            value = tensor.quant.quantize(np.frombuffer(path.read_bytes(), np.float32))
        made.append({tensor.name: value.reshape(tensor.shape)})
    return made


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("aww", "aww"),
        ("kws_ref_model", "aww"),
        ("vww_96_int8", "vww"),
        ("resnet8_int8", "resnet"),
        ("ad01_int8", "toycar"),
        ("micro_speech", "micro_speech"),
        ("text_class", "text_class"),
        ("magic_wand", "magic_wand"),
        ("cifar10", "cifar10"),
    ],
)
def test_stored_inputs(name: str, source: str) -> None:
    samples = stored(name, source)
    assert samples
    compare(content(name), samples, layers=False)


def test_the_detector_says_how_to_cut_it() -> None:
    path = MODELS / "tflite" / "ssd.tflite"
    with pytest.raises(UnsupportedModelError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "TFLite_Detection_PostProcess" in message
    assert f"--outputs {','.join(TRUNK)}" in message
    graph = load_model(path, TRUNK).graph
    assert graph.outputs == TRUNK


def test_the_file_reader_reads_what_the_schema_reads() -> None:
    """Every field that fieldloop reads, against the classes generated from the schema."""
    fb = runtime.schema_fb
    for path in sorted((MODELS / "tflite").glob("*.tflite")):
        data = path.read_bytes()
        ours = read_file(data)
        model = fb.ModelT.InitFromObj(fb.Model.GetRootAs(data, 0))
        subgraph = model.subgraphs[0]
        assert ours.inputs == tuple(subgraph.inputs)
        assert ours.outputs == tuple(subgraph.outputs)
        for got, tensor in zip(ours.tensors, subgraph.tensors, strict=True):
            assert got.label.split("#")[0] == tensor.name.decode()
            assert got.shape == tuple([] if tensor.shape is None else tensor.shape)
            assert TYPES.index(got.dtype) == tensor.type
            raw = model.buffers[tensor.buffer].data
            if raw is not None and len(raw):
                assert got.data is not None
                assert got.data.tobytes() == bytes(raw)
            quant = tensor.quantization
            if quant is not None and quant.scale is not None:
                assert got.scales.tolist() == quant.scale.tolist()
                assert got.zero_points.tolist() == quant.zeroPoint.tolist()
                assert got.axis == quant.quantizedDimension
        for node, operator in zip(ours.nodes, subgraph.operators, strict=True):
            assert node.inputs == tuple(operator.inputs)
            assert node.outputs == tuple(operator.outputs)
            code = model.operatorCodes[operator.opcodeIndex]
            number = max(code.builtinCode, code.deprecatedBuiltinCode)
            if OPERATORS[number] != "CUSTOM":
                assert node.operator == OPERATORS[number]
            for name in ("fusedActivationFunction", "padding", "strideH", "strideW"):
                short = {"fusedActivationFunction": "activation"}.get(
                    name, name.replace("H", "_h").replace("W", "_w")
                )
                if short in OPTIONS.get(node.operator, {}):
                    assert node.option(short) == getattr(operator.builtinOptions, name)
