"""`fieldloop train`: the zoo's networks by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_zoo import stroke_file

from fieldloop import zoo
from fieldloop.cli.main import main
from fieldloop.image.reader import read_image
from fieldloop.runtime import Model


@pytest.fixture(autouse=True)
def build_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Teachers are kept in the build folder; the C core stays where it is built."""
    from fieldloop.runtime.core import core

    core()
    monkeypatch.setenv("FIELDLOOP_BUILD", str(tmp_path / "build"))


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1
    return captured.err


def test_train_writes_weights_and_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stroke_file(tmp_path)
    out = tmp_path / "made" / "strokes.flm"
    words = ["train", "strokes", "--data-dir", tmp_path, "--seed", 3, "--epochs", 4, "-o", out]
    assert main([*map(str, words), "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert "train the student" in captured.err and "100 %" in captured.err
    assert result["test_samples"] == 40 and result["seed"] == 3
    image = out.read_bytes()
    assert len(image) == result["flash_bytes"]
    assert read_image(image).meta["network"] == "strokes"

    # The two files hold the same network.
    network = zoo.load("strokes", weights=result["weights"])
    assert sum(p.numel() for p in network.parameters()) == result["parameters"]
    file = np.load(tmp_path / "gesture_digits_strokes.npz")
    model = Model(image)
    x = file["x_test"].astype(np.float32) / 64.0
    assert float((model.classify(x[:, None]) == file["y_test"]).mean()) == result["int8_accuracy"]
    assert (tmp_path / "build" / "zoo").is_dir()


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--list", "--json"]) == 0
    networks = {row["name"]: row for row in json.loads(capsys.readouterr().out)["networks"]}
    assert set(networks) == {"digits", *zoo.networks}
    assert networks["kws"]["input_shape"] == [1, 1, 49, 10]
    assert networks["vww"]["recipe"] is None
    assert main(["train", "--list"]) == 0
    assert "cifar10_jpeg.npz" in capsys.readouterr().out


def test_what_cannot_be_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--list" in refused(capsys, "train")
    assert "expected one of digits, kws" in refused(capsys, "train", "lenet")
    assert "gesture_digits_strokes.npz" in refused(capsys, "train", "strokes")
    assert "no data to train" in refused(capsys, "train", "vww", "--data-dir", tmp_path)
    assert "at least 1" in refused(capsys, "train", "kws", "--data-dir", tmp_path, "--epochs", 0)
    assert "not for digits" in refused(capsys, "train", "digits", "--epochs", 3)
    assert "--samples" in refused(
        capsys, "train", "kws", "--data-dir", tmp_path, "--samples", tmp_path
    )
    out = tmp_path / "x.flm"
    assert main(["train", "kws", "--data-dir", str(tmp_path), "-o", str(out)]) == 2
    assert "kws_mfcc.npz is not there" in capsys.readouterr().err
    assert not out.exists()
