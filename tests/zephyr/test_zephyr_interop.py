"""Our client and Zephyr's own SMP server; smpclient and the Zephyr application."""

from __future__ import annotations

import hashlib
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fieldloop.errors import FieldloopError
from fieldloop.link.board import connect
from fieldloop.link.errors import LinkError
from fieldloop.link.lossy import Faults, LossyPort
from fieldloop.link.smp import SmpServer, connect_smp
from fieldloop.targets import zephyr_workspace
from fieldloop.targets.pytest_plugin import need
from fieldloop.targets.zephyr_board import ZephyrBoard

sys.path.insert(0, str(Path(__file__).resolve().parent / "smp_svr"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "interop"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "device"))
import smp_svr
from images import CLASSES, digits_image, samples

from interop import check_interoperability

pytestmark = pytest.mark.zephyr

PLACE = "/lfs1/model.flm"


@pytest.fixture(scope="session")
def program(workspace: zephyr_workspace.Workspace) -> Path:
    return smp_svr.build(workspace)


@pytest.fixture
def sample(program: Path) -> Iterator[smp_svr.SmpSvr]:
    running = smp_svr.SmpSvr(program)
    yield running
    running.close()


@pytest.fixture
def server(sample: smp_svr.SmpSvr) -> Iterator[SmpServer]:
    with connect_smp(sample.port()) as connected:
        yield connected


def needs(workspace: zephyr_workspace.Workspace, module: str) -> None:
    if module not in smp_svr.modules(workspace):
        pytest.skip(f"the workspace has no {module}: allow it in west.yml, and `west update`")


# ---- our client, Zephyr's server


def test_hello(server: SmpServer) -> None:
    for text in ("hello", "x" * 500, "Grüße"):
        assert server.echo(text) == text
    parameters = server.parameters()
    assert (parameters.buf_bytes, parameters.buf_count) == (1024, 4)
    assert server.client.message_limit == 1020
    assert server.os_info() == "Zephyr"
    assert "native_sim" in server.os_info("a")
    tasks = server.tasks()
    assert len(tasks) >= 2 and all("prio" in facts for facts in tasks.values())


def test_a_server_that_is_no_fieldloop_says_so(sample: smp_svr.SmpSvr) -> None:
    with pytest.raises(FieldloopError, match="no such group"):
        connect(sample.port(), dedicated=False)


def test_files(server: SmpServer, workspace: zephyr_workspace.Workspace) -> None:
    needs(workspace, "littlefs")
    image = digits_image()[:3000]  # its flash has room for two of them
    seen: list[int] = []
    server.upload(image, PLACE, lambda done, total: seen.append(done))
    assert seen == sorted(seen) and seen[-1] == len(image)
    assert server.file_bytes(PLACE) == len(image)
    found = server.file_hash(PLACE)
    assert (found.kind, found.covered, found.value) == ("crc32", len(image), zlib.crc32(image))
    assert server.hash_types() == ("crc32",)
    assert server.download(PLACE) == image
    server.upload(image[:700], PLACE)  # a shorter one takes its place
    assert server.download(PLACE) == image[:700]
    with pytest.raises(LinkError, match="no such file"):
        server.download("/lfs1/missing")
    with pytest.raises(LinkError, match="no such mount point"):
        server.upload(image, "/nowhere/model.flm")


def test_files_over_a_bad_line(
    sample: smp_svr.SmpSvr, workspace: zephyr_workspace.Workspace
) -> None:
    """Pieces lost and doubled: the file is whole all the same."""
    needs(workspace, "littlefs")
    image = digits_image()[:3500]
    faults = Faults(drop=0.0002, corrupt=0.0002, duplicate=0.2)
    line = LossyPort(sample.port(), seed=11, faults=faults)
    with connect_smp(line, timeout=30.0) as server:
        server.upload(image, PLACE)
        assert server.download(PLACE) == image
        assert server.client.stats.resent > 0


def mcuboot_image(body: bytes) -> bytes:
    """As imgtool makes one: header, body, and the SHA-256 of both in a TLV."""
    head = struct.pack("<IIHHIIBBHI", 0x96F3B83D, 0, 32, 0, len(body), 0, 1, 2, 3, 4)
    content = head.ljust(32, b"\0") + body
    digest = hashlib.sha256(content).digest()
    return content + struct.pack("<HHHH", 0x6907, 8 + 32, 0x10, 32) + digest


def test_images(server: SmpServer, workspace: zephyr_workspace.Workspace) -> None:
    needs(workspace, "mcuboot")
    assert server.images() == []
    image = mcuboot_image(digits_image())
    server.upload_image(image)
    (found,) = server.images()
    assert (found["slot"], found["version"]) == (1, "1.2.3.4")
    assert found["hash"] == image[-32:]


# ---- smpclient, the Zephyr application


@pytest.mark.parametrize(
    ("name", "raw"),
    [("native_sim", False), ("native_sim", True), ("zephyr-an386", False)],
    ids=["native_sim-console", "native_sim-raw", "an386-console"],
)
def test_smpclient_and_the_application(name: str, raw: bool) -> None:
    need(name)
    labels = np.arange(20) % CLASSES
    images = digits_image(), digits_image(4)
    with ZephyrBoard(name) as board:
        connect(board.link_port, dedicated=True, timeout=20.0).close()  # it has started
        check_interoperability(board.link_port, *images, samples(20, 7), labels, raw=raw)
