"""Contract 2 for training, bare metal: soft float and two FPUs learn the host's bytes."""

from __future__ import annotations

import dataclasses
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toolchain
from nets import Net, random_net
from test_learner import residual_net, small_net
from toolchain import GCC, QEMU

from fieldloop import paths
from fieldloop.runtime import Learner, LearnerConfig, Model, core

CPUS = {
    "mps2-an385": ["-mcpu=cortex-m3", "-mfloat-abi=soft"],
    "mps2-an386": ["-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"],
    "mps2-an500": ["-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-d16"],
}
# 4 MB of code memory at 0 and 4 MB of data memory on every one of these boards
MEMORY = {"__flash": 0, "__flash_size": 1 << 22, "__ram": 0x20000000, "__ram_size": 1 << 22}

pytestmark = pytest.mark.skipif(
    toolchain.missing(qemu=True) is not None, reason=f"needs {toolchain.missing(qemu=True)}"
)


@dataclass(frozen=True)
class Target:
    """A machine of QEMU, and the core compiled for it."""

    machine: str
    objects: list[Path]


def c_array(data: bytes) -> str:
    return "{" + ",".join(str(byte) for byte in data) + "}"


def c_value(value: Any) -> str:
    if isinstance(value, float):
        return value.hex() + "f"
    return f"{value}u" if isinstance(value, int) else c_array(bytes(value))


def header(net: Net, config: LearnerConfig, xs: Any, ys: Any) -> str:
    ffi, _ = core.core()
    filled = ffi.new("fl_learner_config_t *")
    config.fill(filled)
    settings = [
        f".{field.name} = {c_value(getattr(filled, field.name))}"
        for field in dataclasses.fields(config)
    ]
    rows = ",".join("{" + ",".join(map(str, x.ravel().tolist())) + "}" for x in xs)
    return (
        "#include <stdint.h>\n"
        f"#define CASE_CONFIG {', '.join(settings)}\n"
        f"static const _Alignas(16) uint8_t case_image[] = {c_array(net.image)};\n"
        f"static const uint8_t case_labels[] = {c_array(bytes(ys))};\n"
        f"static const int8_t case_samples[][{xs[0].size}] = {{{rows}}};\n"
    )


def compile_for(machine: str, folder: Path, *arguments: str | Path) -> None:
    root = paths.core_dir()
    flags = ["--specs=picolibc.specs", "-mthumb", *CPUS[machine]]
    flags += ["-std=c99", "-O2", "-ffp-contract=off", "-fno-math-errno"]
    flags += [f"-I{root}/include", f"-I{root}"]
    command = [GCC, *flags, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", params=CPUS)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Target:
    machine: str = request.param
    folder = tmp_path_factory.mktemp(machine)
    rooms = ("base", "core", "kernels", "learn")
    compile_for(machine, folder, "-c", *(s for s in core.sources() if s.parent.name in rooms))
    return Target(machine, sorted(folder.glob("*.o")))


CASES: dict[str, tuple[int | str, dict[str, Any]]] = {
    "tinypropv2": ("small", {}),
    "net 0": (0, {}),
    "net 5": (5, {}),
    "residual": ("residual", {"selector": "budget", "weights": "int16"}),
    "16-bit deltas": ("residual", {"deltas": "int16", "bias_mode": "dense"}),
    "16-bit deltas and weights": ("small", {"deltas": "int16", "weights": "int16"}),
    "Adam": ("small", {"optimizer": "adam", "selector": "loss", "weights": "f32"}),
    "momentum in batches": ("residual", {"optimizer": "momentum", "batch": 3, "unit": "channel"}),
    "mask": ("small", {"selector": "mask", "mask": (1.0, 0.5, 0.3, 0.6)}),
    "by chance": ("residual", {"selector": "random", "search": "heap"}),
}


def net_of(name: int | str) -> Net:
    if isinstance(name, int):
        return random_net(name)
    return residual_net() if name == "residual" else small_net(layers=4)


@pytest.mark.parametrize("case", CASES)
def test_the_board_learns_the_same_bytes(tmp_path: Path, target: Target, case: str) -> None:
    name, settings = CASES[case]
    net = net_of(name)
    config = LearnerConfig(memory=6, replays=2, lr=20.0, seed=5, d_thr=0.01, **settings)
    rng = np.random.default_rng(9)
    xs = rng.integers(-128, 128, (12, *net.sample_shape[1:])).astype(np.int8)
    learner = Learner(Model(net.image), config)
    ys = rng.integers(0, learner.classes, 12)
    expected = []
    for x, y in zip(xs, ys, strict=True):
        learner.step(x, int(y))
        expected.append(f"{zlib.crc32(learner.state):08x}")
    assert learner.stats.trained > 12

    (tmp_path / "case.h").write_text(header(net, config, xs, ys.tolist()))
    binary = tmp_path / "case.elf"
    memory = [f"-Wl,--defsym={name}={value}" for name, value in MEMORY.items()]
    driver = Path(__file__).with_name("cortex_m.c")
    linking = ["--oslib=semihost", "--crt0=hosted", *memory, f"-I{tmp_path}", driver]
    compile_for(target.machine, tmp_path, *linking, *target.objects, "-o", binary)
    command = [
        *(QEMU, "-M", target.machine, "-display", "none", "-monitor", "none", "-serial", "none"),
        *("-chardev", "stdio,id=console"),
        *("-semihosting-config", "enable=on,target=native,chardev=console"),
        *("-kernel", str(binary)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[:-1] == [*expected, "end 0"]
