"""`fieldloop compile --tiling`: less RAM, the same bytes, and what it costs told to the byte."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_helpers import Cli, Done
from small_network import write_network

from fieldloop.image.reader import read_image
from fieldloop.runtime import Model as Runtime
from fieldloop.runtime import learner_sizes
from fieldloop.train.field import CONFIG

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("FIELDLOOP_SHARED", ROOT.parent / "shared")) / "models" / "tflite"
MODES = ("none", "fdt", "ffmt", "auto")


Words = tuple[object, ...]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Words:
    return write_network(tmp_path_factory.mktemp("tiling"))


def compiled(cli: Cli, network: Words, *more: object) -> Done:
    done = cli("compile", *network, "--learn", 0, "--json", *more)
    assert done.code == 0, done.err
    return done


@pytest.mark.parametrize("mode", MODES)
def test_same_bytes_with_less_ram(cli: Cli, network: Words, tmp_path: Path, mode: str) -> None:
    plain, tiled = tmp_path / "plain.flm", tmp_path / "tiled.flm"
    before = compiled(cli, network, "-o", plain).json
    report = compiled(cli, network, "--tiling", mode, "-o", tiled).json
    assert report["ram_bytes"] == report["ram_infer_bytes"] == Runtime(tiled).arena_bytes
    assert report["untiled_ram_bytes"] == before["ram_bytes"]
    assert report["bound_bytes"] <= report["ram_bytes"]
    assert report["optimal"] == (report["bound_bytes"] == report["ram_bytes"])
    assert report["planner_seconds"] >= 0.0
    assert report["mac_overhead"] == pytest.approx(report["macs"] / before["macs"] - 1)
    if mode == "none":
        assert report["tiles"] == [] and report["ram_bytes"] == before["ram_bytes"]
    else:
        assert report["ram_bytes"] < before["ram_bytes"]
        layers = [layer["name"] for layer in report["layers"]]
        kinds = set()
        for tile in report["tiles"]:
            assert layers.index(tile["first"]) <= layers.index(tile["last"])
            assert tile["amount"] >= 1
            kinds.add(tile["kind"])
        allowed = {"fdt": {"fdt"}, "ffmt": {"ffmt"}, "auto": {"fdt", "stream", "in_place"}}
        assert kinds and kinds <= allowed[mode]
    if mode in ("fdt", "auto"):
        assert report["macs"] <= before["macs"]
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 128, (6, 16, 16, 2)).astype(np.int8)
    reference = Runtime(plain).predict_int8(x)
    for variant in ("plain", "dsp", "mve"):
        assert np.array_equal(Runtime(tiled, variant=variant).predict_int8(x), reference)


def test_auto_is_the_least(cli: Cli, network: Words) -> None:
    ram = {m: compiled(cli, network, "--tiling", m).json["ram_bytes"] for m in MODES}
    assert ram["auto"] == min(ram.values())


def test_more_work_only_where_it_is_allowed(cli: Cli, network: Words) -> None:
    def with_limit(*limit: object) -> dict[str, Any]:
        return compiled(cli, network, "--tiling", "ffmt", *limit).json

    reports = {limit: with_limit("--mac-limit", limit) for limit in (1.0, 1.1, 1.5, 3)}
    for limit, report in reports.items():
        assert report["mac_overhead"] <= limit - 1.0
    assert reports[3]["mac_overhead"] > 0.0  # there is something to be had
    ram = [report["ram_bytes"] for report in reports.values()]
    assert ram == sorted(ram, reverse=True)
    assert with_limit()["ram_bytes"] <= ram[-1]
    text = cli("compile", *network, "--learn", 0, "--tiling", "ffmt", "--mac-limit", 3).out
    assert f"{reports[3]['macs']} multiply-accumulates, +" in text
    assert "% to untiled" in text


def test_told_in_words(cli: Cli, network: Words) -> None:
    report = compiled(cli, network, "--tiling", "fdt").json
    done = cli("compile", *network, "--learn", 0, "--tiling", "fdt")
    lines = done.out.splitlines()
    assert f"RAM without tiling  {report['untiled_ram_bytes']} bytes" in lines
    assert any(line.startswith("tiled ") and "slices of channels" in line for line in lines)
    assert any(line.startswith("plan ") and "steps" in line for line in lines)
    assert "  plan\n" in done.err and "  100 %\n" in done.err
    assert cli("compile", *network, "--learn", 0, "--tiling", "fdt", "-q").err == ""
    plain = cli("compile", *network, "--learn", 0).out
    assert "tiling" not in plain and "tiled" not in plain


def test_what_fits_only_tiled(cli: Cli, network: Words, tmp_path: Path) -> None:
    report = compiled(cli, network, "--tiling", "auto").json
    least, limit = report["ram_bytes"], report["untiled_ram_bytes"] - 1
    out = tmp_path / "out.flm"
    words = ("compile", *network, "--learn", 0, "-o", out)
    untiled = cli(*words, "--ram-limit", limit)
    untiled.refused(5, "1 missing")
    assert "--tiling auto may need less RAM" in untiled.err
    assert not out.exists()
    cli(*words, "--ram-limit", least - 1, "--tiling", "auto").refused(5, "1 missing")
    assert cli(*words, "--ram-limit", limit, "--tiling", "auto").code == 0
    assert cli(*words, "--ram-limit", least, "--tiling", "auto").code == 0
    assert Runtime(out).arena_bytes == least
    flash = cli(*words, "--flash-limit", 10)
    flash.refused(5, "flash")
    assert "--tiling" not in flash.err


def test_learning_is_tiled_too(cli: Cli, network: Words, tmp_path: Path) -> None:
    reports = {}
    for mode in ("none", "auto"):
        out = tmp_path / f"{mode}.flm"
        done = cli("compile", *network, "--learn", 1, "--tiling", mode, "-o", out, "--json")
        assert done.code == 0, done.err
        report = reports[mode] = done.json
        sizes = learner_sizes(Runtime(out), CONFIG)
        assert report["ram_learner_bytes"] == sizes.total_bytes
        total = report["ram_learn_bytes"] + report["ram_learner_bytes"]
        text = cli("compile", *network, "--learn", 1, "--tiling", mode).out
        assert "RAM to learn " in text and f"{total} bytes" in text
    assert reports["auto"]["ram_learn_bytes"] < reports["none"]["ram_learn_bytes"]
    assert reports["auto"]["ram_infer_bytes"] < reports["none"]["ram_infer_bytes"]


def test_info_tells_a_tiled_model(cli: Cli, network: Words, tmp_path: Path) -> None:
    report = compiled(cli, network, "--tiling", "auto", "-o", tmp_path / "tiled.flm").json
    told = cli("info", tmp_path / "tiled.flm", "--json").json
    assert told["arena_bytes"]["infer"] == report["ram_bytes"]
    assert told["steps"] == {"infer": report["steps"]}
    assert f"{report['steps']} steps" in cli("info", tmp_path / "tiled.flm").out
    assert read_image((tmp_path / "tiled.flm").read_bytes()).version >= (1, 2)


def test_usage_errors(cli: Cli, network: Words) -> None:
    for limit in ("0.5", "0", "-1", "nan", "inf"):
        cli("compile", *network, f"--mac-limit={limit}").refused(2, "factor of 1 or more")
    cli("compile", *network, "--mac-limit", "much").refused(2, "--mac-limit", "much")
    cli("compile", *network, "--tiling", "most").refused(2, "--tiling", "most", "auto")
    cli("compile", *network, "--mac-limit", "1.5").refused(2, "mac_limit", "for tiled plans")
    cli("compile", "digits", "--tiling", "auto").refused(2, "digits")


def test_the_network_is_never_overwritten(cli: Cli, network: Words) -> None:
    source = Path(str(network[0]))
    before = source.read_bytes()
    cli("compile", *network, "--learn", 0, "-o", source).refused(2, "is the model itself")
    assert source.read_bytes() == before


@pytest.mark.skipif(not MODELS.is_dir(), reason="no models beside the clone; set FIELDLOOP_SHARED")
@pytest.mark.parametrize(
    ("name", "mode", "most"),
    [  # what docs/getting-started/host.md says
        ("text_class", "fdt", 2_108),  # the paper's figure is 4,144
        ("text_class", "auto", 1_148),
        ("micro_speech", "fdt", 2_476),
        ("micro_speech", "auto", 2_136),
        ("magic_wand", "fdt", 4_388),
        ("magic_wand", "auto", 1_832),
        ("cifar10", "fdt", 44_684),
        ("cifar10", "auto", 26_752),
        ("vww_96_int8", "fdt", 46_080),
        ("str_ww_ref_model", "fdt", 5_038),
        pytest.param("str_ww_ref_model", "auto", 3_712, marks=pytest.mark.slow),
        pytest.param("vww_96_int8", "auto", 28_032, marks=pytest.mark.slow),
        pytest.param("kws_ref_model", "auto", 4_826, marks=pytest.mark.slow),
        pytest.param("resnet8_int8", "auto", 11_840, marks=pytest.mark.slow),
    ],
)
def test_real_networks(cli: Cli, name: str, mode: str, most: int) -> None:
    done = cli("compile", MODELS / f"{name}.tflite", "--tiling", mode, "--json")
    assert done.code == 0, done.err
    assert done.json["ram_bytes"] <= most
    assert done.json["mac_overhead"] <= 0.0
