"""fieldloop check, compile and bench with networks from files: verdicts, keys, and errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Cli
from small_network import write_network
from tflite_writer import write_graph

from fieldloop.compare.source import check_source
from fieldloop.frontends.builder import GraphBuilder
from fieldloop.image.reader import read_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import OpKind, Window
from fieldloop.quantize.ptq import quantize_graph
from fieldloop.sources import read_source
from fieldloop.targets.pytest_plugin import need

TORCH = """
import numpy as np, torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv1d(3, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
    nn.Conv1d(8, 8, 3, groups=2), nn.Tanh(),
    nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4),
).eval()
{what} = np.random.default_rng(0).random((8, 3, 32), dtype=np.float32)
"""


def small_graph(seed: int = 0) -> Graph:
    """A separable convolution, a pool and a dense layer, int8."""
    rng = np.random.default_rng(seed)
    builder = GraphBuilder("small")
    x = builder.input("x", (1, 8, 8, 2))
    same = Window((3, 3), pads=(1, 1, 1, 1))
    x = builder.add(
        "dw", OpKind.DEPTHWISE_CONV2D, [x], window=same, weights=rng.normal(size=(1, 3, 3, 2))
    )
    x = builder.add(
        "pw", OpKind.CONV2D, [x], window=Window((1, 1)), weights=rng.normal(size=(6, 1, 1, 2))
    )
    x = builder.add("pool", OpKind.AVG_POOL, [x], window=Window((8, 8), (8, 8)))
    x = builder.add("fc", OpKind.FULLY_CONNECTED, [x], weights=rng.normal(size=(4, 6)))
    graph = builder.graph([x])
    samples = np.random.default_rng(1).normal(size=(16, 8, 8, 2)).astype(np.float32)
    return quantize_graph(graph, {"x": samples}).graph


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "small.tflite"
    path.write_bytes(write_graph(small_graph()))
    return path


def test_an_int8_tflite_is_bit_exact(cli: Cli, network: Path) -> None:
    done = cli("check", network, "--count", 5, "--json")
    assert done.code == 0, done
    told = done.json
    assert told["ok"] and told["bit_exact"] and told["max_abs_diff"] == 0
    assert told["oracle"]["name"] == "tflite-micro" and told["oracle"]["layers"] == 4
    assert told["variants"] == ["plain", "dsp", "mve"] and told["samples"] == 5
    assert [layer["kind"] for layer in told["layers"]] == [
        "depthwise_conv2d",
        "conv2d",
        "avg_pool",
        "fully_connected",
    ]
    assert told["macs"] == 64 * 2 * 9 + 64 * 6 * 2 + 24
    assert told["ram_bytes"] == told["ram_by_kernels"]["plain"]


def test_the_same_network_is_compiled_to_the_byte(cli: Cli, network: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.flm"
    told = cli("compile", network, "-o", out, "--json").json
    image = read_image(out.read_bytes())
    assert told["flash_bytes"] == out.stat().st_size == image.total_bytes
    assert told["ram_bytes"] == told["ram_infer_bytes"] == image.plans[0].arena_bytes
    assert told["ram_bytes_by_kernels"]["dsp"] >= told["ram_bytes"]
    assert told["macs"] == image.macs
    assert not image.trainables
    checked = cli("check", out, "--json").json
    assert checked["bit_exact"] and checked["oracle"] is None
    assert checked["flash_bytes"] == told["flash_bytes"]


@pytest.mark.parametrize("mode", ["fdt", "auto"])
def test_a_tiled_model_is_compared_by_its_outputs(cli: Cli, tmp_path: Path, mode: str) -> None:
    need("unix")
    out = tmp_path / "tiled.flm"
    words = (*write_network(tmp_path), "--learn", 0, "--tiling", mode, "-o", out)
    assert cli("compile", *words, "--json").json["steps"] > 0
    told = cli("check", out, "--board", "unix", "--json").json
    assert told["bit_exact"] and told["board_equal"] and told["outputs_only"]
    assert [layer["name"] for layer in told["layers"]] == ["fully_connected_4"]
    assert "sure to be whole" in cli("check", out).out


def test_another_network_than_the_source_is_found_out(network: Path, tmp_path: Path) -> None:
    """The verdict must fail when what is compiled is not what the file says."""
    other = tmp_path / "other.tflite"
    other.write_bytes(write_graph(small_graph(seed=7)))
    mixed = replace(read_source(network), content=other.read_bytes())
    report = check_source(mixed)
    assert not report.ok and not report.bit_exact
    assert report.variants_equal
    assert report.oracle is not None and report.oracle.max_abs_diff > 0
    assert any(layer.difference for layer in report.layers)


def test_a_torch_network_stays_float_without_calibration(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(TORCH.format(what="example"))
    told = cli("check", path, "--json").json
    assert told["dtype"] == "float32" and told["ok"]
    assert told["oracle"]["name"] == "torch" and told["oracle"]["max_rel_diff"] <= 1e-5


def test_a_torch_network_becomes_int8_with_calibration(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(TORCH.format(what="calibration"))
    told = cli("check", path, "--json").json
    assert told["dtype"] == "int8" and told["ok"] and told["oracle"] is None
    # The same samples from a file, with the way to find ranges chosen, for the float network.
    path.write_text(TORCH.format(what="example"))
    samples = np.random.default_rng(0).random((8, 3, 32), dtype=np.float32)
    np.savez(tmp_path / "samples.npz", x=samples)
    words = ("compile", path, "--calibrate", tmp_path / "samples.npz", "--json")
    plain = cli(*words).json
    assert plain["ram_bytes"] == told["ram_bytes"]
    assert cli(*words, "--method", "mse", "--bias-correction").code == 0


def test_what_cannot_learn_is_compiled_to_infer(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "import torch\nmodel = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())\n"
        "calibration = torch.rand(4, 4)"
    )
    done = cli("compile", path, "--json")
    assert done.json["ram_learn_bytes"] is None and "will not learn" in done.err
    cli("compile", path, "--learn", 1).refused(2, "does not end in a layer with weights")


def test_given_inputs_take_the_place_of_random_ones(
    cli: Cli, network: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8, 2), np.float32))
    told = cli("check", network, "--inputs", tmp_path / "x.npy", "--json").json
    assert told["samples"] == 2 and told["bit_exact"]
    np.save(tmp_path / "y.npy", np.zeros((2, 9), np.float32))
    cli("check", network, "--inputs", tmp_path / "y.npy").refused(2, "expected samples of")


def test_bad_input_is_one_line(cli: Cli, network: Path, tmp_path: Path) -> None:
    cli("check", tmp_path / "no.tflite").refused(1, "cannot read")
    cli("check", tmp_path / "net.h5").refused(2, ".tflite", ".onnx", ".py")
    cli("check", network, "--count", 0).refused(2, "--count")
    cli("check", network, "--board", "qemu-z80").refused(2, "qemu-z80")
    cli("compile", network, "--outputs", "nowhere").refused(1, "nowhere")
    cli("compile", network, "--calibrate", network).refused(2, "quantised already")
    cli("compile", network, "--method", "mse").refused(2, "--calibrate")
    (tmp_path / "bad.tflite").write_bytes(network.read_bytes()[:200])
    cli("compile", tmp_path / "bad.tflite").refused(1)
    path = tmp_path / "net.py"
    path.write_text(TORCH.format(what="example"))
    (tmp_path / "s.npz").write_bytes(b"PK no")
    cli("compile", path, "--calibrate", tmp_path / "s.npz").refused(1, "s.npz")
    np.savez(tmp_path / "t.npz", other=np.zeros((2, 3, 32), np.float32))
    cli("compile", path, "--calibrate", tmp_path / "t.npz").refused(2, "got other")
    cli("bench", "model").refused(2, "SOURCE")
    cli("bench", "kernels", network).refused(2, "SOURCE")
    cli("bench", "model", network, "--board", "unix").refused(2, "unix", "instructions")


def test_outputs_cut_the_network(cli: Cli, network: Path) -> None:
    told = cli("compile", network, "--outputs", "pool", "--json").json
    assert [layer["kind"] for layer in told["layers"]] == [
        "depthwise_conv2d",
        "conv2d",
        "avg_pool",
    ]


def test_on_a_board_layer_by_layer(cli: Cli, network: Path) -> None:
    need("qemu-an386")
    told = cli("check", network, "--board", "qemu-an386", "--count", 2, "--json").json
    assert told["ok"] and told["board_equal"]
    assert all(layer["board_equal"] for layer in told["layers"])


def test_bench_counts_every_layer(cli: Cli, network: Path, tmp_path: Path) -> None:
    need("qemu-an386")
    words = ("bench", "model", network, "--board", "qemu-an386")
    out = tmp_path / "layers.csv"
    told = cli(*words, "--json", "--csv", out).json["models"][0]
    counts = [layer["instructions"] for layer in told["layers"]]
    assert len(counts) == 4 and min(counts) > 100
    # One call for all costs less than a call for each, by the executor's own entry.
    assert 0 <= sum(counts) - told["instructions"] < 4 * 200
    assert (
        told["ram_bytes"] == cli("compile", network, "--json").json["ram_bytes_by_kernels"]["dsp"]
    )
    lines = out.read_text().splitlines()
    assert len(lines) == 1 + 4 + 1 and lines[0].startswith("model,board,layer,kind")
    assert cli(*words, "--json").json["models"][0]["layers"] == told["layers"]


def test_info_tells_what_a_network_will_cost(cli: Cli, network: Path) -> None:
    told = cli("info", network, "--json").json
    compiled = cli("compile", network, "--json").json
    for key in ("macs", "flash_bytes", "ram_bytes", "ram_bytes_by_kernels", "layers"):
        assert told[key] == compiled[key]
    assert told["unsupported"] == {} and told["inputs"][0]["shape"] == [1, 8, 8, 2]
    assert "unsupported   none" in cli("info", network).out


def test_info_names_what_is_not_supported(cli: Cli, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    nodes = [
        helper.make_node(kind, [a], [b])
        for kind, a, b in (
            ("Relu", "x", "a"),
            ("Erf", "a", "b"),
            ("Sin", "b", "c"),
            ("Erf", "c", "y"),
        )
    ]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    path = tmp_path / "odd.onnx"
    path.write_bytes(model.SerializeToString())
    done = cli("info", path, "--json")
    assert done.code == 1 and done.json["unsupported"] == {"Erf": 2, "Sin": 1}
    assert "Erf" in done.json["error"] and "--outputs" in done.json["error"]
    assert cli("info", path, "--outputs", "a", "--json").json["ok"]
