"""The boards' devicetree overlays: our partitions are there, whole sectors, and do not overlap."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from zephyr_partitions import ROOT_FOLDERS, blocks, cells, partitions, text_of

from fieldloop.targets import roster

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "zephyr_app"
OVERLAYS = sorted(path for folder in ROOT_FOLDERS for path in (ROOT / folder).rglob("*.overlay"))
APP_BOARDS = sorted((APP / "boards").glob("*.overlay"))
SIMULATED = {
    "native_sim_native_64",
    "qemu_cortex_m3",
    "mps2_an385",
    "mps2_an386",
    "mps2_an500",
    "mps3_corstone300_an547",
}
SECTOR = 4096  # of the simulated boards, so that their records are each other's
SMALL = {"qemu_cortex_m3"}  # whose flash is a piece of 64 KiB of RAM and forgets with it


def test_every_simulated_board_has_one() -> None:
    assert {path.stem for path in APP_BOARDS} >= SIMULATED
    assert len(APP_BOARDS) >= len(SIMULATED) + 3, "and three boards that people own"


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda p: str(p.relative_to(ROOT)))
def test_partitions_do_not_overlap(path: Path) -> None:
    for block in blocks(text_of(path)):
        found = partitions(block)
        assert found, f"{path}: an empty node `partitions`, or one that this reader misses"
        assert block.count("partition@") == len(found)
        for part in found:
            assert part.unit == part.start, f"{part.name}: the unit address is not reg's"
            assert part.size > 0
        inner = sorted(found, key=lambda part: part.start)
        for low, high in itertools.pairwise(inner):
            assert low.end <= high.start, f"{low.name} runs into {high.name}"


@pytest.mark.parametrize("path", APP_BOARDS, ids=lambda p: p.stem)
def test_a_board_of_the_application_has_slot_store_and_port(path: Path) -> None:
    text = text_of(path)
    parts = {part.name: part for block in blocks(text) for part in partitions(block)}
    assert {"model0", "store"} <= set(parts), f"{path.name} lacks a partition"
    (sector,) = cells(text, "erase-block-size") or [SECTOR]
    assert parts["model0"].size >= 16 << 10
    assert parts["store"].size >= 2 * sector, "a store needs two sectors at least"
    for name in ("model0", "model1", "store"):
        if name in parts:
            assert parts[name].start % sector == 0, "an image is executed where it lies"
            assert parts[name].size % sector == 0
    assert re.search(r"fieldloop,uart\s*=\s*&\w+\s*;", text), f"{path.name} chooses no port"
    if "model1" in parts:
        assert parts["model0"].size == parts["model1"].size, "a push finds either slot free"


@pytest.mark.parametrize(
    "path", [p for p in APP_BOARDS if p.stem in SIMULATED], ids=lambda p: p.stem
)
def test_simulated_flashes_have_the_same_units(path: Path) -> None:
    text = text_of(path)
    if path.stem not in SMALL:
        assert cells(text, "erase-block-size") == [SECTOR]
    assert cells(text, "write-block-size") == [8]
    ends = [part.end for block in blocks(text) for part in partitions(block)]
    flashes = [reg[1] for reg in re.findall(r"reg\s*=\s*<(\S+)\s+(\S+)>", text)]
    assert any(int(size, 0) >= max(ends) for size in flashes), "the flash ends before they do"


@pytest.mark.parametrize("name", ["native_sim", "mpy-native_sim"])
def test_the_roster_knows_the_flash_of_native_sim(name: str) -> None:
    """Its flash file has that size, and no other is touched."""
    spec = roster.lookup(name)
    folder = APP / "micropython" if spec.kind == "zephyr-mpy" else APP
    (overlay,) = (folder / "boards").glob("native_sim*.overlay")
    text = text_of(overlay)
    ends = [part.end for block in blocks(text) for part in partitions(block)]
    assert spec.flash_file_size == max(ends)
    own = re.search(r"&flash0 \{\s*reg = <(\S+) (\S+)>", text)
    assert int(own[2], 0) == max(ends) if own else max(ends) == 2 << 20, "native_sim's own is 2 MB"


@pytest.mark.parametrize(
    "path", [p for p in APP_BOARDS if p.stem not in SIMULATED], ids=lambda p: p.stem
)
def test_boards_that_nobody_has_tried_say_so(path: Path) -> None:
    assert "untested on hardware" in "\n".join(path.read_text().splitlines()[:5]).lower()


@pytest.mark.skipif(shutil.which("dtc") is None, reason="dtc is not installed")
@pytest.mark.parametrize("path", OVERLAYS, ids=lambda p: str(p.relative_to(ROOT)))
def test_dtc_reads_it(path: Path, tmp_path: Path) -> None:
    """As a plugin, whose labels need not be there. Removals only make sense with the board's own
    files; what is included from Zephyr is left out."""
    text = re.sub(r"/delete-(node|property)/[^;]*;", "", text_of(path))
    text = re.sub(r"^\s*#include.*$", "", text, flags=re.M)
    text = re.sub(r"=\s*(&\w+)\s*;", r"= <\1>;", text)  # a path in `chosen`
    text = re.sub(r"<[A-Z][A-Z0-9_]*>", "<0>", text)  # a macro of Zephyr's headers
    text = re.sub(r"DT_SIZE_K\((\w+)\)", r"(\1 * 1024)", text)
    text = re.sub(r"DT_SIZE_M\((\w+)\)", r"(\1 * 1048576)", text)
    source = tmp_path / "overlay.dts"
    source.write_text(f"/dts-v1/;\n/plugin/;\n{text}")
    done = subprocess.run(
        ["dtc", "-@", "-q", "-I", "dts", "-O", "dtb", "-o", "/dev/null", str(source)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda p: str(p.relative_to(ROOT)))
def test_ram_is_whole_kilobytes_in_front_of_the_flash_in_it(path: Path) -> None:
    """Zephyr's linker counts RAM in KiB: a rest of one is not RAM, and a stale one too much."""
    text = path.read_text()
    ram = re.search(r"&sram0 \{\s*reg = <(0x\w+) (0x\w+)>", text)
    region = re.search(r"memory@(\w+) \{[^}]*?reg = <0x\1 ", text)
    if ram is not None:
        start, size = (int(word, 16) for word in ram.groups())
        assert size % 1024 == 0
        assert region is not None and start + size <= int(region[1], 16)
    assert ram is not None or path.stem != "qemu_cortex_m3" or path.parent != APP / "boards"
