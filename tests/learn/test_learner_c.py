"""The learner under AddressSanitizer and UBSan: damaged states and damaged images."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from nets import Net, random_net
from test_learner import residual_net, small_net

from fieldloop import paths
from fieldloop.runtime import core

FLAGS = [
    "-std=c99",
    "-D_ISOC11_SOURCE",  # aligned_alloc
    "-O1",
    "-g",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wdouble-promotion",
    "-Wfloat-conversion",
    "-fsanitize=address,undefined,alignment,float-cast-overflow",
    "-fno-sanitize-recover=all",
]
NETS = ["small", "residual", 0, 1, 4, 7, 11]
MODES = [1, 4, 6, 8, 11, 15]  # weights, optimizer, batch and selector: see fuzz_state.c


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two fuzzers, the whole core compiled into each."""
    folder = tmp_path_factory.mktemp("drivers")
    root = paths.core_dir()
    flags = [*FLAGS, f"-I{root}/include", f"-I{root}"]
    objects = []
    for source in core.sources():
        objects.append(folder / f"{source.parent.name}-{source.stem}.o")
        _compile([*flags, "-c", source, "-o", objects[-1]])
    for name in ("fuzz_state", "fuzz_image"):
        source = Path(__file__).with_name(f"{name}.c")
        _compile([*flags, source, *objects, "-o", folder / name])
    return folder


def _compile(arguments: list[str | Path]) -> None:
    command = [core.compiler(), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def net_of(name: int | str) -> Net:
    if isinstance(name, int):
        return random_net(name)
    return residual_net() if name == "residual" else small_net(layers=4)


def fuzz(driver: Path, folder: Path, net: int | str, count: int, seed: int = 1) -> tuple[int, int]:
    image = folder / "net.flm"
    image.write_bytes(net_of(net).image)
    command = [driver, image, str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    first, second = map(int, done.stdout.split())
    return first, second


@pytest.mark.parametrize("net", NETS, ids=str)
def test_damaged_states(drivers: Path, tmp_path: Path, net: int | str) -> None:
    accepted, refused = fuzz(drivers / "fuzz_state", tmp_path, net, 3000)
    assert accepted > 100 and refused > 100


@pytest.mark.parametrize("mode", MODES)
def test_damaged_states_of_every_mode(drivers: Path, tmp_path: Path, mode: int) -> None:
    accepted, refused = fuzz(drivers / "fuzz_state", tmp_path, "small", 1500, mode)
    assert accepted > 50 and refused > 50


@pytest.mark.parametrize("net", NETS, ids=str)
def test_damaged_images(drivers: Path, tmp_path: Path, net: int | str) -> None:
    opened, learned = fuzz(drivers / "fuzz_image", tmp_path, net, 4000)
    assert opened > 100
    assert 50 < learned < opened
