"""fieldloop push --romfs: written through the REPL of a simulated board, and what is refused."""

from __future__ import annotations

from pathlib import Path

from cli_helpers import Cli, Model

from fieldloop.targets.pytest_plugin import need
from fieldloop.targets.qemu import QemuBoard


def test_a_pushed_romfs_is_there_at_the_next_start(cli: Cli, model: Model, tmp_path: Path) -> None:
    need("qemu-an386")
    flash = tmp_path / "flash"
    pushed = cli(
        "push", model.path, "--romfs", "--board", "qemu-an386", "--flash", flash, "--json"
    )
    assert pushed.code == 0, pushed.err
    assert pushed.json["path"] == f"/rom/{model.path.name}"
    with QemuBoard("qemu-an386", flash_file=flash) as board:
        assert board.get(pushed.json["path"]) == model.image
        start = board.eval(
            f"__import__('uctypes').addressof(memoryview(open({pushed.json['path']!r}, 'rb')))"
        )
    assert start % 16 == 0


def test_what_cannot_go_into_a_romfs(cli: Cli, model: Model, tmp_path: Path) -> None:
    cli("push", model.path, "--romfs", "--slot", "model0", "--board", "qemu-an386").refused(
        2, "--romfs", "--slot"
    )
    cli("push", model.path, "--romfs", "--board", "unix").refused(2, "no REPL")
    broken = tmp_path / "broken.flm"
    broken.write_bytes(model.image[:-1])
    cli("push", broken, "--romfs", "--board", "qemu-an386").refused(1, "image")
    cli("push", model.path, "--romfs", "--port", tmp_path / "gone").refused(3, "not written")
