"""fieldloop learn: settings, looks and patience, Ctrl-C, and rehearsal by the device itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Cli, Model

from fieldloop.runtime import Learner, LearnerConfig
from fieldloop.runtime import Model as Runtime
from fieldloop.targets import build
from fieldloop.train.field import CONFIG

Words = tuple[str, ...]


@pytest.fixture
def unix(cli: Cli, model: Model, tmp_path: Path) -> Words:
    """The options of a device with the model on it."""
    if missing := build.missing_tools("unix"):
        pytest.skip(f"needs {', '.join(missing)}")
    device = ("--board", "unix", "--flash", str(tmp_path / "flash"))
    assert cli("push", model.path, *device).code == 0
    return device


def stream(model: Model, times: int, path: Path) -> Path:
    held = np.load(model.stream)
    np.savez(path, x=np.tile(held["x"], (times, 1, 1, 1)), y=np.tile(held["y"], times))
    return path


def test_any_setting_can_be_given(cli: Cli, model: Model, tmp_path: Path) -> None:
    out = tmp_path / "state"
    learn = ("learn", model.stream, "--model", model.path, "-o", out, "-q")
    wanted = {
        "selector": "mask",
        "mask": (1.0, 0.5),
        "weights": "int16",
        "max_step": 9,
        "beta1": 0.5,
        "seed": 3,
    }
    words = ["--selector", "mask", "--seed", "3", "--set", "mask=1,0.5", "--set", "weights=int16"]
    done = cli(*learn, *words, "--set", "max_step=9", "--set", "beta1=0.5", "--json")
    assert done.code == 0, done.err
    settings = {name: getattr(CONFIG, name) for name in LearnerConfig.__slots__} | wanted
    held = np.load(model.stream)
    host = Learner(Runtime(model.image), LearnerConfig(**settings))
    host.run(host.model.as_inputs(held["x"]), held["y"].tolist())
    assert out.read_bytes() == bytes(host.state)
    told = done.json
    assert told["ram_learn_bytes"] == host.plan.total
    assert [layer["kept"] for layer in told["layers"]] == [s.kept for s in host.layer_stats()]
    assert all(layer["ratio"] <= 1.0 for layer in told["layers"])

    cli(*learn, "--set", "speed=3").refused(2, "speed", "NAME one of", "optimizer")
    cli(*learn, "--set", "batch=two").refused(2, "batch=two", "whole number")
    cli(*learn, "--set", "mask=a").refused(2, "mask=a")
    cli(*learn, "--set", "optimizer=best").refused(2, "optimizer", "best")


def test_looks_and_patience(cli: Cli, model: Model, tmp_path: Path) -> None:
    """It ends after looks that are no better, with the state of the best one."""
    out = tmp_path / "state"
    many = stream(model, 5, tmp_path / "many.npz")
    words = ("--set", "holdout=4", "--every", 20, "--patience", 2, "--seed", 1)
    done = cli("learn", many, "--model", model.path, "-o", out, *words, "--json")
    assert done.code == 0, done.err
    settings = {name: getattr(CONFIG, name) for name in LearnerConfig.__slots__}
    host = Learner(Runtime(model.image), LearnerConfig(**(settings | {"holdout": 4, "seed": 1})))
    held = np.load(many)
    x, y = host.model.as_inputs(held["x"]), held["y"].tolist()
    rights, states = [host.evaluate()[0]], [bytes(host.state)]
    while len(rights) - 1 - rights.index(max(rights)) < 2 and 20 * (len(rights) - 1) < len(x):
        at = 20 * (len(rights) - 1)
        host.run(x[at : at + 20], y[at : at + 20])
        rights.append(host.evaluate()[0])
        states.append(bytes(host.state))
    told = done.json
    assert told["samples"] == 20 * (len(rights) - 1)
    assert told["early"] is (told["samples"] < len(x))
    total = host.evaluate()[1]
    assert told["evaluation"] == {
        "right": rights[-1],
        "total": total,
        "best": max(rights),
        "evaluations": len(rights),
    }
    assert done.err.count("held-out samples right") == len(rights)
    assert out.read_bytes() == states[rights.index(max(rights))]
    cli("learn", many, "--model", model.path, "--patience", 2).refused(2, "--every")
    cli("learn", many, "--board", "unix", "--every", 2, "--patience", 2, "--no-commit").refused(
        2, "--no-commit"
    )


def test_a_device_looks_too(cli: Cli, model: Model, unix: Words, tmp_path: Path) -> None:
    words = ("--set", "holdout=4", "--every", 15, "--patience", 1, "--seed", 1)
    host = cli(
        "learn", model.stream, "--model", model.path, *words, "-o", tmp_path / "h", "--json"
    )
    done = cli("learn", model.stream, *unix, *words, "--json")
    assert done.code == 0, done.err
    for key in ("samples", "right_before_learned", "evaluation", "early"):
        assert done.json[key] == host.json[key], key
    for told, own in zip(done.json["layers"], host.json["layers"], strict=True):
        assert told.pop("ratio") == pytest.approx(own.pop("ratio"))
        assert told == own
    cli("pull", "-o", tmp_path / "d", *unix)
    assert (tmp_path / "d").read_bytes() == (tmp_path / "h").read_bytes()


def interrupted(words: list[str], until: str) -> tuple[int, str, str]:
    """Runs the program, presses Ctrl-C once it has said so; exit code, stdout, stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fieldloop.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = ""
    while until not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return process.returncode, out, said + err


def test_ctrl_c_commits_what_a_device_learned(
    cli: Cli, model: Model, unix: Words, tmp_path: Path
) -> None:
    """It stops between two samples, and what was not learned yet can be learned after."""
    many = stream(model, 200, tmp_path / "many.npz")
    code, out, err = interrupted(["learn", str(many), *unix, "--json"], "10 %")
    assert code == 130, err
    told = json.loads(out)
    assert told["interrupted"] and told["committed"] > 0
    assert 0 < told["samples"] < 8000
    assert f"interrupted after {told['samples']} of 8000 samples; committed as record" in err
    assert f"--skip {told['samples']}" in err
    assert told["stats"]["samples"] == told["samples"]
    held = np.load(many)
    host = Learner(Runtime(model.image), CONFIG)
    n = told["samples"]
    host.run(host.model.as_inputs(held["x"][:n]), held["y"][:n].tolist())
    cli("pull", "-o", tmp_path / "d", *unix)
    assert (tmp_path / "d").read_bytes() == bytes(host.state)
    np.savez(tmp_path / "more.npz", x=held["x"][: n + 40], y=held["y"][: n + 40])
    more = cli("learn", tmp_path / "more.npz", "--skip", n, *unix, "--json")
    assert more.json["samples"] == 40 and more.json["stats"]["samples"] == n + 40
    host.run(host.model.as_inputs(held["x"][n : n + 40]), held["y"][n : n + 40].tolist())
    cli("pull", "-o", tmp_path / "d", *unix)
    assert (tmp_path / "d").read_bytes() == bytes(host.state)


def test_a_device_rehearses_by_itself(cli: Cli, model: Model, unix: Words, tmp_path: Path) -> None:
    words = ("--rehearse", 60, "--every", 20, "--set", "holdout=4", "--memory", 5)
    done = cli("learn", *words, *unix, "--json")
    assert done.code == 0, done.err
    told = done.json
    assert told["samples"] == told["stats"]["samples"] == 60
    assert told["evaluation"]["evaluations"] == 4
    assert (
        told["evaluation"]["total"]
        == Learner(Runtime(model.image), LearnerConfig(holdout=4)).evaluate()[1]
    )
    assert "held-out samples right" in done.err
    assert told["committed"] > 0

    code, out, err = interrupted(["learn", "--rehearse", "1000000", *unix, "--json"], "rehearse")
    assert code == 130, err
    stopped = json.loads(out)
    assert stopped["interrupted"] and stopped["committed"] > told["committed"]
    # It goes on with the learner that is there; 60 were learned before.
    assert stopped["stats"]["samples"] == 60 + stopped["samples"]

    cli("learn", "--rehearse", 5, "--model", model.path).refused(2, "--rehearse")
    cli("learn", *unix).refused(2, "SAMPLES.npz or --rehearse")
    cli("learn", model.stream, "--rehearse", 5, *unix).refused(2, "one of them")
    cli("learn", model.stream, "--skip", -1, *unix).refused(2, "0 or more")


def test_poison_is_refused_before_it_is_sent(
    cli: Cli, model: Model, unix: Words, tmp_path: Path
) -> None:
    held = np.load(model.stream)
    bad = tmp_path / "bad.npz"
    for value in (np.nan, np.inf):
        np.savez(bad, x=np.where(held["x"] > 0.5, value, held["x"]), y=held["y"])
        cli("learn", bad, *unix).refused(2, "not finite")
    np.savez(bad, x=held["x"], y=held["y"] + 5)
    cli("learn", bad, *unix).refused(2, "0 to 9")
