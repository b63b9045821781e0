"""Verbs that need no device: what they print, as text and as JSON, and what they write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Cli, Model

from fieldloop.cli.main import VERBS
from fieldloop.image.reader import read_image
from fieldloop.runtime import Model as Runtime
from fieldloop.runtime import learner_sizes
from fieldloop.targets import roster
from fieldloop.train.field import CONFIG


def test_help_is_quick_and_loads_no_verb() -> None:
    code = (
        "import sys\nfrom fieldloop.cli.main import main\n"
        "code = main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'cffi', 'serial', 'fieldloop.link'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {verb}" in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(cli: Cli, verb: str) -> None:
    done = cli(verb, "--help")
    assert done.code == 0
    assert f"example:\n  fieldloop {verb}" in done.out
    assert "--json" in done.out


def test_version(cli: Cli) -> None:
    done = cli("--version")
    assert done.code == 0 and done.out.startswith("fieldloop ")


def test_devices(cli: Cli) -> None:
    done = cli("devices", "--json")
    assert done.code == 0
    real = set(roster.names("serial"))
    assert {t["name"] for t in done.json["targets"]} == set(roster.names()) - real
    out = cli("devices").out
    assert "qemu-an386" in out and "native_sim" in out


def test_doctor_names_what_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli("doctor", "--json")
    found = {check["what"]: check for check in done.json["checks"]}
    assert found["python"]["state"] == "ok"
    assert {"torch", "C core", "QEMU", "MicroPython source", "serial ports"} <= set(found)
    assert done.json["ok"] == (done.code == 0)

    command, path = found["device package"]["found"].rsplit(" ", 1)
    assert command == "mpremote mip install"
    assert Path(path).name == "package.json" and Path(path).is_file()  # a folder is no package

    monkeypatch.setenv("PATH", "/nonexistent")
    poor = cli("doctor")
    assert poor.code == 1
    assert "apt-get install gcc-arm-none-eabi" in poor.out
    assert "apt-get install qemu-system-arm" in poor.out


def test_info_of_a_file(cli: Cli, model: Model) -> None:
    done = cli("info", model.path, "--json")
    image = read_image(model.image)
    assert done.code == 0
    assert done.json["bytes"] == len(model.image)
    assert done.json["uid"] == image.uid.hex()
    assert done.json["macs"] == 96256
    assert done.json["labels"] == list("0123456789")
    assert done.json["rehearsal_samples"] == 160
    assert sum(op["trainable"] for op in done.json["operators"]) == 2
    text = cli("info", model.path).out
    assert "96256 multiply-accumulates" in text
    total = done.json["arena_bytes"]["learn"] + done.json["learner_bytes"]
    assert done.json["learner_bytes"] == learner_sizes(Runtime(model.image), CONFIG).total_bytes
    assert f"{total} bytes" in text


def test_run_on_this_machine(cli: Cli, model: Model, tmp_path: Path) -> None:
    done = cli("run", model.test, "--model", model.path, "--json")
    assert done.code == 0 and done.json["samples"] == 30
    x = np.load(model.test)["x"]
    np.save(tmp_path / "x.npy", x)
    np.savetxt(tmp_path / "x.csv", x.reshape(30, 64), delimiter=",", fmt="%.8f")
    for name in ("x.npy", "x.csv"):
        same = cli("run", tmp_path / name, "--model", model.path, "--json")
        assert same.json["classes"] == done.json["classes"]
        assert same.json["accuracy"] is None
    text = cli("run", model.test, "--model", model.path)
    assert f"{done.json['accuracy']:.4f} of 30 right" in text.out


def test_run_takes_a_digit_of_the_data_set(cli: Cli, model: Model) -> None:
    done = cli("run", "--digit", 3, "--model", model.path, "--json")
    assert done.code == 0 and done.json["samples"] == 1
    cli("run", "--digit", 99999, "--model", model.path).refused(2, "0 to 1796", "99999")


def test_run_with_what_was_learned(cli: Cli, model: Model, tmp_path: Path) -> None:
    """A state tells the layers and the memory it was made with; any other file is refused."""
    from fieldloop.runtime import Learner, LearnerConfig
    from fieldloop.runtime import Model as HostModel

    stream, test = np.load(model.stream), np.load(model.test)
    factory = cli("run", model.test, "--model", model.path, "--json").json
    run = ("run", model.test, "--model", model.path, "--state")
    for layers, memory in ((1, 0), (2, 30)):
        host = HostModel(model.image)
        learner = Learner(host, LearnerConfig(layers=layers, memory=memory, lr=4.0))
        learner.run(stream["x"], stream["y"].tolist())
        (tmp_path / "state").write_bytes(learner.state)
        done = cli(*run, tmp_path / "state", "--json")
        assert done.code == 0, done.err
        assert done.json["classes"] == host.classify(test["x"]).tolist()
        assert done.json["outputs"] != factory["outputs"]

    state = learner.state
    cases: tuple[tuple[bytes, int, str], ...] = (
        (b"", 1, "got another"),
        (model.image, 1, "got another"),
        (state[:-4], 1, "damaged"),
        (state[:4] + b"\x03" + state[5:], 4, "version"),
        (state[:12] + b"\xff" * 4 + state[16:], 1, "damaged"),  # a memory of 4 G samples
        (state[:6] + b"\x09" + state[7:], 2, "core says"),
        (state[:16] + bytes(16) + state[32:], 2, "name the model"),
    )
    for content, code, says in cases:
        (tmp_path / "state").write_bytes(content)
        cli(*run, tmp_path / "state").refused(code, says)
    cli("run", model.test, "--state", tmp_path / "state").refused(2, "belongs to --model")
    cli(*run, tmp_path).refused(1, "cannot read")


def test_learn_on_this_machine_is_repeatable(cli: Cli, model: Model, tmp_path: Path) -> None:
    states = []
    for name in ("a", "b"):
        done = cli(
            "learn", model.stream, "--model", model.path, "-o", tmp_path / name, "--json", "-q"
        )
        assert done.code == 0 and done.err == ""
        assert done.json["samples"] == 40 and done.json["stats"]["samples"] == 40
        assert done.json["stats"]["replayed"] == 160
        states.append((tmp_path / name).read_bytes())
    assert states[0] == states[1]
    other = cli(
        "learn", model.stream, "--model", model.path, "-o", tmp_path / "c", "--seed", 5, "-q"
    )
    assert other.code == 0 and (tmp_path / "c").read_bytes() != states[0]


NETWORK = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
calibration = torch.rand(20, 1, 8, 8)
labels = ("a", "b", "c")
"""


def test_compile_a_file_of_ones_own(cli: Cli, tmp_path: Path) -> None:
    source, out = tmp_path / "network.py", tmp_path / "network.flm"
    source.write_text(NETWORK)
    done = cli("compile", source, "-o", out, "--json")
    assert done.code == 0, done.err
    assert done.json["flash_bytes"] == out.stat().st_size
    assert done.json["macs"] == 4 * 36 * 9 + 3 * 4 * 36
    total = done.json["ram_learn_bytes"] + done.json["ram_learner_bytes"]

    text = cli("compile", source)
    assert f"{total} bytes" in text.out and "multiply-accumulates" in text.out
    assert cli("compile", source, "--ram-limit", total).code == 0
    cli("compile", source, "--ram-limit", total - 1).refused(5, f"needs {total}", "1 missing")
    assert cli("compile", source, "--ram-limit", total - 1, "--learn", 0).code == 0
    size = done.json["flash_bytes"]
    cli("compile", source, "--flash-limit", size - 8).refused(5, "flash", "8 missing")


def test_train_writes_a_model_and_samples(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fieldloop.train import digits as recipe
    from fieldloop.train.distill import Schedule

    monkeypatch.setattr(recipe, "TEACHER", Schedule(epochs=2))
    monkeypatch.setattr(recipe, "STUDENT", Schedule(epochs=2))
    out = tmp_path / "deep" / "digits.flm"
    done = cli(
        "train", "digits", "--missing", "3,7", "-o", out, "--samples", tmp_path / "s", "--json"
    )
    assert done.code == 0, done.err
    assert "train the teacher" in done.err and "100 %" in done.err
    image = read_image(out.read_bytes())
    assert image.meta["missing"] == [3, 7]
    stream, test = np.load(done.json["stream"]), np.load(done.json["test"])
    assert set(stream["y"]) == {3, 7} and set(test["y"]) == set(range(10))
    assert len(stream["x"]) == len(stream["y"]) and len(test["x"]) == 540
