"""fieldloop smp: any SMP server by its own groups, here a fieldloop device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_helpers import Cli, Model

from fieldloop.link.board import connect
from fieldloop.targets.pytest_plugin import firmware
from fieldloop.targets.unix import UnixBoard


@pytest.fixture
def port() -> Iterator[str]:
    with UnixBoard(firmware=firmware("unix")) as target:
        target.begin(f"import fieldloop\nfieldloop.serve(open({target.link_fd}, 'r+b', 0))")
        yield target.link_port


def test_what_a_server_tells_and_takes(cli: Cli, model: Model, port: str, tmp_path: Path) -> None:
    at = ("--port", port, "-q")
    assert cli("smp", "echo", "hello", *at).out == "hello\n"
    assert cli("smp", "params", *at, "--json").json == {"buf_bytes": 4092, "buf_count": 1}
    sent = cli("smp", "upload", model.path, "/model0", *at)
    assert (sent.code, sent.out) == (0, f"/model0: {len(model.image)} bytes\n"), sent.err
    digest = hashlib.sha256(model.image).hexdigest()
    told = cli("smp", "hash", "/model0", *at)
    assert told.out == f"sha256 {digest}  /model0 ({len(model.image)} bytes)\n"
    back = tmp_path / "back.flm"
    assert cli("smp", "download", "/model0", back, *at, "--json").json["bytes"] == len(model.image)
    assert back.read_bytes() == model.image
    # What came that way is a slot's model as any other.
    with connect(port, dedicated=True) as device:
        assert device.activate(model.image, slot="model0").bytes == len(model.image)
    cli("smp", "download", "/image", back, *at)
    assert back.read_bytes() == model.image


def test_refusals(cli: Cli, model: Model, port: str, tmp_path: Path) -> None:
    at = ("--port", port, "-q")
    cli("smp", "images", *at).refused(1, "no such group")
    cli("smp", "download", "/state", tmp_path / "state", *at).refused(1, "no such file")
    assert not (tmp_path / "state").exists()
    cli("smp", "upload", model.path, "/model7", *at).refused(1, "no such file name")
    cli("smp", "upload", model.stream, "/model0", *at).refused(1, "no whole .flm image")
    cli("smp", "upload", model.path, "model0", *at).refused(2, "absolute path", "'model0'")
    cli("smp", "upload", model.path, *at).refused(2, "expected LOCAL FILE")
    cli("smp", "upload", tmp_path / "none", "/model0", *at).refused(1, "cannot read")
    cli("smp", "dance", *at).refused(2, "dance")
    cli("smp", "echo", "x", "--port", "/dev/none", "-q").refused(3, "/dev/none")
