"""The application's other transports, both of them Zephyr's own: UDP, and the shell's port."""

from __future__ import annotations

import asyncio
import functools
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from smpclient import SMPClient
from smpclient.exceptions import SMPBadSequence
from smpclient.generics import success
from smpclient.requests.os_management import EchoWrite
from smpclient.transport.udp import SMPUDPTransport

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "interop"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "device"))

from images import digits_image, samples

from fieldloop.link import connect
from fieldloop.runtime import Learner, LearnerConfig, Model
from fieldloop.targets.zephyr_board import ZephyrBoard, build_app
from fieldloop.targets.zephyr_workspace import Workspace
from interop import SETTINGS, Info

pytestmark = pytest.mark.zephyr

START_SECONDS = 10.0  # what comes before the network is up is lost


class NetworkedBoard(ZephyrBoard):
    """With QEMU's network: datagrams to `udp_port` of this machine reach the board's 1337."""

    udp_port = 0

    def _command(self) -> list[str]:
        forward = f"user,hostfwd=udp:127.0.0.1:{self.udp_port}-:1337"
        return [*super()._command(), "-nic", forward]


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def ask_over_udp(port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while True:  # a client of its own for each try: an answer that comes late is another's
        try:
            transport = SMPUDPTransport()
            transport.connect = functools.partial(transport.connect, port=port)  # type: ignore[method-assign]
            async with SMPClient(transport, "127.0.0.1", timeout_s=1.0) as client:
                echo = await client.request(EchoWrite(d="hallo"), timeout_s=1.0)
                assert success(echo) and echo.r == "hallo"
                info = await client.request(Info(), timeout_s=2.0)
                assert success(info) and info.proto == 1 and "model0" in info.slots
                return
        except (TimeoutError, asyncio.TimeoutError, SMPBadSequence):
            assert time.monotonic() < until, "no answer over UDP"


def test_smpclient_reaches_it_over_udp(workspace: Workspace, tmp_path: Path) -> None:
    files = "-DEXTRA_CONF_FILE=udp.conf;udp_qemu.conf"
    firmware = build_app("zephyr-an386", variant="udp", extra=[files])
    board = NetworkedBoard("zephyr-an386", flash_file=tmp_path / "flash.bin", firmware=firmware)
    board.udp_port = free_udp_port()
    with board:
        asyncio.run(ask_over_udp(board.udp_port))
        with connect(board.link_port, dedicated=True) as device:  # the UART beside it
            assert device.info().model is None


def test_a_board_with_one_uart_learns_through_the_shell(
    workspace: Workspace, tmp_path: Path
) -> None:
    files = "-DEXTRA_CONF_FILE=shell_transport.conf"
    firmware = build_app("zephyr-an386", variant="shell", extra=[files])
    image, x = digits_image(), samples(8, 7)
    host = Learner(Model(image), LearnerConfig(**SETTINGS))
    host.run(x, list(range(8)))
    flash = tmp_path / "flash.bin"
    with (
        ZephyrBoard("zephyr-an386", flash_file=flash, firmware=firmware) as board,
        connect(board.take_console(), dedicated=False) as device,
    ):
        device.push(image, to="model0")
        device.activate(image, slot="model0")
        device.learner_open(SETTINGS)
        device.step(x, np.arange(8))
        device.commit()
        assert device.pull("state") == bytes(host.state)
