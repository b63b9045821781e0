"""Bad input and faults: one clear line, the documented exit code, no traceback."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
import tty
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Cli, Model
from link_server import CodecServer

from fieldloop.link.transport import FdPort


def broken(model: Model, kind: str) -> bytes:
    image = bytearray(model.image)
    if kind == "truncated":
        return bytes(image[: len(image) // 2])
    if kind == "bit-flipped":
        image[len(image) // 2] ^= 0x10
        return bytes(image)
    return {"empty": b"", "foreign": b"\x89PNG\r\n\x1a\n" * 40}[kind]


@pytest.mark.parametrize("kind", ["truncated", "bit-flipped", "empty", "foreign"])
@pytest.mark.parametrize("verb", ["info", "push", "run"])
def test_a_broken_model_is_refused(
    cli: Cli, model: Model, tmp_path: Path, verb: str, kind: str
) -> None:
    path = tmp_path / "broken.flm"
    path.write_bytes(broken(model, kind))
    words: tuple[object, ...] = {
        "info": ("info", path),
        "push": ("push", path, "--port", "/nonexistent"),  # refused before a port is opened
        "run": ("run", model.test, "--model", path),
    }[verb]
    cli(*words).refused(1)


def test_a_newer_model_format_is_a_version_mismatch(
    cli: Cli, model: Model, tmp_path: Path
) -> None:
    from fieldloop.image import format as layout

    image = bytearray(model.image)
    header = np.frombuffer(image, layout.HEADER, 1).copy()
    header["version_major"] += 1
    image[: layout.HEADER.itemsize] = header.tobytes()
    path = tmp_path / "newer.flm"
    path.write_bytes(image)
    cli("info", path).refused(4, "expected 1.x, got 2.")


def test_errors_come_as_json_too(cli: Cli, tmp_path: Path) -> None:
    done = cli("info", tmp_path / "absent.flm", "--json")
    assert done.code == 1
    assert done.json == {
        "ok": False,
        "error": f"cannot read {tmp_path / 'absent.flm'}: No such file or directory",
        "exit_code": 1,
    }


def test_wrong_shape_dtype_and_labels(cli: Cli, model: Model, tmp_path: Path) -> None:
    good = np.load(model.stream)

    def refused(code: int, *words: str, verb: str = "learn", **arrays: np.ndarray) -> None:
        np.savez(tmp_path / "s.npz", **arrays)
        cli(verb, tmp_path / "s.npz", "--model", model.path).refused(code, *words)

    x, y = good["x"], good["y"]
    refused(2, "[n, 8, 8, 1]", "[40, 7, 8, 1]", x=x[:, :7], y=y)
    refused(2, "int8 or float", "uint8", x=(x * 16).astype(np.uint8), y=y)
    refused(2, "not finite", x=np.where(x > 0.5, np.nan, x), y=y)
    refused(2, "label 10", "0 to 9", x=x, y=np.full_like(y, 10))
    refused(2, "label -1", x=x, y=np.full_like(y, -1))
    refused(2, "40 integer labels", x=x, y=y[:5])
    refused(2, "no labels", x=x)
    refused(2, "no array x", y=y)
    refused(2, "[n, 8, 8, 1]", verb="run", x=x[:, :, :5])


def test_sample_files_are_never_unpickled(cli: Cli, model: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=np.array([print, None], object))
    cli("run", tmp_path / "s.npz", "--model", model.path).refused(1, "damaged")
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04junk")
    cli("run", tmp_path / "junk.npz", "--model", model.path).refused(1, "damaged")
    cli("run", tmp_path / "absent.npz", "--model", model.path).refused(1, "No such file")
    cli("run", tmp_path / "s.txt", "--model", model.path).refused(2, ".npz")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "required: VERB"),
        (("fly",), "invalid choice: 'fly'"),
        (("info", "--fly"), "unrecognized arguments: --fly"),
        (("run", "s.npz", "--board", "nowhere"), "no target 'nowhere'"),
        (("run", "s.npz", "--board", "unix", "--port", "p"), "two devices"),
        (("info", "--flash", "f"), "name one with --board"),
        (("demo", "--missing", "8,8"), "different digits"),
        (("demo", "--missing", "0,1,2,3,4,5,6,7,8"), "1 to 8 digits"),
        (("demo", "--seed", "-1"), "expected 0 to"),
        (("demo", "--seeds", "0"), "1 or more"),
        (("demo", "--board", "serial:/dev/ttyX"), "simulated board"),
        (("compile", "absent.py"), "no such file"),
        (("learn", "s.npz", "-o", "f"), "belongs to --model"),
    ],
)
def test_usage(
    cli: Cli,
    words: tuple[str, ...],
    says: str,
    model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.npz").write_bytes(model.stream.read_bytes())
    cli(*words).refused(2, says)


def test_settings_of_the_learner_are_checked(cli: Cli, model: Model) -> None:
    learn = ("learn", model.stream, "--model", model.path)
    cli(*learn, "--selector", "magic").refused(2, "selector", "magic")
    cli(*learn, "--lr", "-1").refused(2, "lr: expected above 0")
    cli(*learn, "--memory", "-1").refused(2)


def test_a_network_file_that_fails(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "network.py"
    for text, code, says in (
        ("1 / 0", 1, "ZeroDivisionError"),
        ("x = 1", 2, "sets no `model`"),
        ("model = 1\ncalibration = [[1.0]]", 2, "expected a torch.nn.Module"),
        (
            "import torch\nmodel = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU())\n"
            "calibration = torch.rand(4, 4)",
            1,
            "gelu",
        ),
    ):
        source.write_text(text)
        cli("compile", source).refused(code, says)


def test_no_port_and_a_port_that_is_gone(cli: Cli, model: Model) -> None:
    cli("info", "--port", "/dev/nonexistent").refused(3, "/dev/nonexistent")
    near, far = os.openpty()
    name = os.ttyname(far)
    os.close(near)
    os.close(far)
    cli("info", "--port", name).refused(3, name)


def test_a_board_that_answers_nothing(
    cli: Cli, silent_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fieldloop.cli.device.HELLO_SECONDS", 1.0)
    cli("info", "--port", silent_port).refused(3, "nothing answers", "fieldloop.serve()")
    cli("info", "--board", f"serial:{silent_port}").refused(3, "nothing answers")


def test_a_port_that_goes_in_the_middle(cli: Cli, model: Model) -> None:
    near, far = os.openpty()
    tty.setraw(far)
    name = os.ttyname(far)
    server = CodecServer(FdPort(near, name))
    server.start()
    # The device takes two chunks of the push and is gone then.
    write = server._write

    def pulled_out(header: object, args: dict[str, object]) -> bytes | None:
        if int(args.get("off", 0)) > 0:  # type: ignore[call-overload]
            os.close(far)
            server.port.close()
        return write(header, args)  # type: ignore[arg-type]

    server._write = pulled_out  # type: ignore[method-assign]
    try:
        cli("push", model.path, "--port", name, "--dedicated", "-q").refused(3)
    finally:
        server.stop()


def test_a_newer_protocol_is_a_version_mismatch(cli: Cli) -> None:
    near, far = os.openpty()
    tty.setraw(far)
    server = CodecServer(FdPort(near, os.ttyname(far)), proto=2)
    server.start()
    try:
        cli("info", "--port", os.ttyname(far), "--dedicated").refused(
            4, "protocol 2", "expected 1"
        )
    finally:
        server.stop()
        os.close(far)


def test_a_fault_that_the_device_tells_is_shown(cli: Cli) -> None:
    near, far = os.openpty()
    tty.setraw(far)
    server = CodecServer(FdPort(near, os.ttyname(far)))
    server.fault = "what was learned is stored but not in use: no memory"
    server.start()
    device = ("info", "--port", os.ttyname(far), "--dedicated")
    try:
        assert server.fault in cli(*device).out
        assert cli(*device, "--json").json["fault"] == server.fault
        server.fault = None
        assert cli(*device, "--json").json["fault"] is None
    finally:
        server.stop()
        os.close(far)


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))  # as a full disk would


def test_a_full_disk_leaves_the_old_file(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "learned.state"
    out.write_bytes(b"old")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fieldloop.cli", "learn", str(model.stream)),
            *("--model", str(model.path), "-o", str(out), "-q"),
        ],
        capture_output=True,
        text=True,
        preexec_fn=_limited,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith(f"fieldloop: cannot write {out}: ")
    assert done.stderr.count("\n") == 1
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]


def test_ctrl_c_ends_with_130(model: Model, tmp_path: Path) -> None:
    many = tmp_path / "many.npz"
    stream = np.load(model.stream)
    np.savez(many, x=np.tile(stream["x"], (500, 1, 1, 1)), y=np.tile(stream["y"], 500))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "fieldloop.cli", "learn", str(many)),
            *("--model", str(model.path), "-o", str(tmp_path / "out")),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = ""
    while "learn" not in said:  # it is at work now
        said += process.stderr.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1].startswith("fieldloop: interrupted")
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_progress_and_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar on a terminal only; NO_COLOR is respected; one line per 10 % elsewhere."""
    from fieldloop.cli.console import Console

    def shown(*, color: bool) -> str:
        monkeypatch.setenv("TERM", "xterm")
        if color:
            monkeypatch.delenv("NO_COLOR", raising=False)
        else:
            monkeypatch.setenv("NO_COLOR", "1")
        near, far = os.openpty()
        tty.setraw(far)
        with os.fdopen(far, "w") as stream:
            console = Console(stream)
            console.stage("work")
            for done in range(101):
                console.progress(done, 100)
            stream.flush()
            text = os.read(near, 65536).decode()
        os.close(near)
        return text

    assert "\x1b[1mwork" in shown(color=True)
    plain = shown(color=False)
    assert "\x1b[1m" not in plain and "[####" in plain and "\r" in plain


def test_a_pipe_gets_a_line_for_every_tenth(capfd: pytest.CaptureFixture[str]) -> None:
    from fieldloop.cli.console import Console

    console = Console(sys.__stderr__)
    for done in range(1001):
        console.progress(done, 1000)
    lines = capfd.readouterr().err.split("\n")
    assert [line.strip() for line in lines if line] == [f"{10 * n} %" for n in range(11)]


def test_a_closed_pipe_is_no_fault(model: Model) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fieldloop.cli", "info", str(model.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait()


@pytest.mark.parametrize("flag", ["--json", "-q"])
def test_a_full_stdout_is_one_line(model: Model, flag: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fieldloop.cli", "info", str(model.path), flag],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "fieldloop: No space left on device\n")


def test_an_output_that_cannot_be_is_told_before_the_work(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep me")
    for out, says in ((tmp_path, "Is a directory"), (tmp_path / "file" / "x", "cannot write")):
        for words in (("train", "digits"), ("compile", "digits")):
            done = cli(*words, "-o", out)
            done.refused(1, says)
            assert "%" not in done.err  # no progress was made
        cli("pull", "--port", "/nonexistent", "-o", out).refused(1, says)


def test_a_build_folder_that_cannot_be(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FIELDLOOP_BUILD", str(tmp_path / "file"))
    cli("demo").refused(1, "build folder", "FIELDLOOP_BUILD")
