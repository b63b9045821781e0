"""Samples that users give, by name, dtype and layout; models that are not one int8 tensor each."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Cli

import fieldloop
from fieldloop.errors import UsageError
from fieldloop.targets.pytest_plugin import need

TWO = """
import numpy as np, torch
from torch import nn
torch.manual_seed(0)
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Linear(6, 4)
        self.f, self.g = nn.Linear(8, 4), nn.Linear(8, 2)
    def forward(self, x, u):
        h = torch.cat([torch.relu(self.a(x)).mean((2, 3)), torch.tanh(self.b(u))], 1)
        return self.f(h), torch.softmax(self.g(h), 1)
model = Two().eval()
example = (torch.zeros(1, 3, 8, 8), torch.zeros(1, 6))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """two.onnx (float, two inputs and outputs), emb.onnx (int64 indices), and samples."""
    pytest.importorskip("onnx")
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("given")
    names: dict[str, object] = {}
    exec(TWO, names)
    torch.onnx.export(
        names["model"],
        names["example"],
        folder / "two.onnx",
        dynamo=False,
        input_names=["x", "u"],
        output_names=["f", "g"],
    )

    class Words(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = torch.nn.Embedding(50, 8), torch.nn.Linear(8, 3)

        def forward(self, words: object) -> object:
            return self.head(self.table(words).mean(1))

    words = torch.zeros((1, 7), dtype=torch.int64)
    torch.onnx.export(Words().eval(), words, folder / "emb.onnx", dynamo=False)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 3, 8, 8)).astype(np.float32)
    u = rng.normal(size=(5, 6)).astype(np.float32)
    np.savez(folder / "named.npz", x=x, u=u)
    np.savez(folder / "nhwc.npz", x=x.transpose(0, 2, 3, 1), u=u)
    np.savez(folder / "ragged.npz", x=x[:4], u=u)
    np.savez(folder / "placed.npz", input_0=x.transpose(0, 2, 3, 1), input_1=u, y=np.arange(5) % 2)
    np.savez(folder / "words.npz", x=rng.integers(0, 50, (4, 7)))
    np.savez(folder / "real_words.npz", x=rng.normal(size=(4, 7)).astype(np.float32))
    return folder


def test_another_layout_is_refused_and_not_reshaped(cli: Cli, files: Path) -> None:
    """As many numbers as expected, in another order of axes, would be noise."""
    two = files / "two.onnx"
    assert cli("compile", two, "--calibrate", files / "named.npz").code == 0
    cli("compile", two, "--calibrate", files / "nhwc.npz").refused(2, "[n, 3, 8, 8]", "8, 8, 3")
    cli("check", two, "--inputs", files / "nhwc.npz").refused(2, "[n, 3, 8, 8]")
    cli("compile", two, "--calibrate", files / "ragged.npz").refused(2, "batch")


def test_inputs_go_by_name(cli: Cli, files: Path) -> None:
    done = cli("check", files / "two.onnx", "--inputs", files / "named.npz", "--json")
    assert done.code == 0, done
    assert done.json["samples"] == 5 and done.json["oracle"]["layers"] >= 6
    cli("check", files / "two.onnx", "--inputs", files / "placed.npz").refused(2, "array x")


def test_indices_are_whole_and_of_the_sources_type(cli: Cli, files: Path) -> None:
    """torch exports indices as int64; the device has int32."""
    done = cli("check", files / "emb.onnx", "--json")
    assert done.code == 0, done
    assert done.json["oracle"]["name"] == "onnxruntime" and done.json["oracle"]["layers"] == 3
    assert cli("check", files / "emb.onnx", "--inputs", files / "words.npz").code == 0
    words = ("compile", files / "emb.onnx", "--calibrate", files / "real_words.npz")
    cli(*words).refused(2, "whole numbers")


def test_float_models_with_several_tensors_run_here(cli: Cli, files: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    out = tmp_path / "two.flm"
    assert cli("compile", files / "two.onnx", "-o", out).code == 0
    told = cli("run", files / "placed.npz", "--model", out, "--json").json
    session = runtime.InferenceSession(files / "two.onnx")
    with np.load(files / "named.npz") as named:
        rows = zip(named["x"], named["u"], strict=True)
        wanted = [session.run(None, {"x": x[None], "u": u[None]}) for x, u in rows]
    made = [told["outputs"], *told["more_outputs"]]
    for i, output in enumerate(made):
        np.testing.assert_allclose(output, [w[i][0] for w in wanted], rtol=0, atol=2e-6)
    assert told["classes"] == [int(w[0][0].argmax()) for w in wanted]
    cli("run", files / "named.npz", "--model", out).refused(2, "input_0 and input_1")
    assert cli("check", out, "--inputs", files / "placed.npz").code == 0

    emb = tmp_path / "emb.flm"
    assert cli("compile", files / "emb.onnx", "-o", emb).code == 0
    assert cli("run", files / "words.npz", "--model", emb, "--json").json["samples"] == 4
    cli("run", files / "real_words.npz", "--model", emb).refused(2, "integers")


def test_what_the_link_does_not_carry_is_told(cli: Cli, files: Path, tmp_path: Path) -> None:
    need("unix")
    board = ("--board", "unix", "--flash", tmp_path / "flash")
    out = tmp_path / "two.flm"
    cases = {"f32": (), "i8, i8, i8, i8": ("--calibrate", files / "named.npz")}
    for kinds, more in cases.items():
        assert cli("compile", files / "two.onnx", "-o", out, *more).code == 0
        pushed = cli("push", out, *board, "--json")
        assert pushed.code == 0 and kinds in pushed.err, pushed
        np.save(tmp_path / "x.npy", np.zeros((1, 8, 8, 3), np.float32))
        cli("run", tmp_path / "x.npy", *board, "-q").refused(2, kinds, "run --model")
    assert cli("compile", files / "two.onnx", "-o", out).code == 0
    with fieldloop.connect("unix", flash_file=tmp_path / "flash2") as there:
        image = out.read_bytes()
        there.push(image, to="model0")
        there.activate(image, slot="model0")
        with pytest.raises(UsageError, match="int8 alone"):
            there.predict(np.zeros((1, 8, 8, 3), np.int8))


def test_a_pipe_is_written_to_and_stays(cli: Cli, files: Path, tmp_path: Path) -> None:
    """-o /dev/null, as root, must not make a plain file of it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert cli("compile", files / "emb.onnx", "-o", pipe).code == 0
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.read(reader, 4) == b"FLM1"
    os.close(reader)


def test_a_module_stays_float_without_calibration(files: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    x = torch.zeros(4, 6)
    made = fieldloop.compile(module.eval(), example=x[:1])
    assert {layer.dtype for layer in made.report.layers} == {"float32"} and not made.trainables
    made = fieldloop.compile(module, torch.rand(4, 6))
    assert {layer.dtype for layer in made.report.layers} == {"int8"} and made.trainables
    with pytest.raises(UsageError, match="calibration samples"):
        fieldloop.compile(module)
    cut = fieldloop.compile(files / "emb.onnx", outputs="/table/Gather_output_0")
    assert [layer.kind for layer in cut.report.layers] == ["embedding"]


def test_more_samples_than_memory_and_a_map_of_nothing(cli: Cli, files: Path) -> None:
    cli("check", files / "emb.onnx", "--count", 10**9).refused(2, "at most", "another seed")
    cli("check", files / "emb.onnx", "--map", "full").refused(2, "--board")


def test_a_file_and_its_bytes_are_one_image(files: Path, tmp_path: Path) -> None:
    made = fieldloop.compile(files / "emb.onnx")
    (tmp_path / "emb.flm").write_bytes(made.image)
    assert fieldloop.check(tmp_path / "emb.flm").uid == fieldloop.check(made.image).uid
