"""`fieldloop plan`: what lies where when, as text, as numbers, and drawn."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Cli
from small_network import write_network
from test_tiling import MODELS, Words

from fieldloop.compiler import compile_graph
from fieldloop.ir.graph import Graph
from fieldloop.plan.chart import BandKind, Chart, chart_of_plan, chart_of_program
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.search import Goal
from fieldloop.plan.svg import memory_map_svg
from fieldloop.plan.svg_parts import escaped
from fieldloop.plan.text_map import text_map
from fieldloop.plan.tiled import Planned, plan_tiled
from fieldloop.plan.types import PlanKind
from fieldloop.sources import read_source, with_samples

SVG = "{http://www.w3.org/2000/svg}"
BAD = "</title><script>alert('1 & 2')</script>\x01\ud800\x9f;\"evil\""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Words:
    return write_network(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def graph(network: Words) -> Graph:
    path, _, samples = network
    with np.load(str(samples)) as given:
        source = with_samples(read_source(Path(str(path))), dict(given), "samples")
    return compile_graph(source.imported.graph, source.calibration, learn=None).graph


@pytest.fixture(scope="module")
def planned(graph: Graph) -> Planned:
    made = plan_tiled(graph, PlanKind.INFER, Goal("auto"))
    assert made.tilings
    return made


def charts(graph: Graph, planned: Planned, most: int) -> list[Chart]:
    assert planned.draft is not None
    program, offsets = planned.draft.program, planned.draft.stacking.offsets
    return [
        chart_of_plan(graph, planned.untiled, "untiled", most=most),
        chart_of_program(graph, program, offsets, "tiled", most=most),
    ]


def texts(root: ET.Element) -> list[str]:
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def test_as_text_and_as_numbers(cli: Cli, network: Words) -> None:
    report = cli("compile", *network, "--learn", 0, "--tiling", "auto", "--json").json
    done = cli("plan", *network, "--json")
    assert done.code == 0, done.err
    for key in ("ram_bytes", "untiled_ram_bytes", "macs", "tiles", "steps", "bound_bytes"):
        assert done.json[key] == report[key], key
    for title, ram in (("untiled", "untiled_ram_bytes"), ("tiled", "ram_bytes")):
        bands = done.json["buffers"][title]
        assert max(band["to"] for band in bands) == report[ram]
        assert {"input", "output"} <= {band["kind"] for band in bands}
        assert all(band["to"] - band["from"] >= band["bytes"] > 0 for band in bands)
    text = cli("plan", *network)
    assert f"RAM without tiling  {report['untiled_ram_bytes']} bytes" in text.out
    assert "\n\nuntiled\n" in text.out and "\n\ntiled\n" in text.out
    assert "  plan\n" in text.err and cli("plan", *network, "-q").err == ""
    none = cli("plan", *network, "--tiling", "none")
    assert none.code == 0 and "\n\nuntiled\n" in none.out
    assert " bytes, the least there can be without tiling\n" in none.out
    assert "\n\ntiled\n" not in none.out and "RAM without tiling" not in none.out


def test_bands_never_meet_and_reach_the_peak(graph: Graph, planned: Planned) -> None:
    """All steps shown: at each of them what is live lies side by side, up to the plan's bytes."""
    whole = charts(graph, planned, 100_000)
    for chart, ram in zip(whole, (planned.untiled, planned.plan), strict=True):
        assert chart.columns == chart.steps
        for column in range(chart.columns):
            live = sorted((int(b.lo[column]), int(b.hi[column])) for b in chart.bands)
            live = [(lo, hi) for lo, hi in live if lo < hi]
            assert live
            assert all(a[1] <= b[0] for a, b in itertools.pairwise(live))
        assert chart.peak == ram.arena_bytes == max(int(b.hi.max()) for b in chart.bands)
        assert chart.peak == max(int(band.hi[chart.fullest]) for band in chart.bands)
        assert chart.edges == sorted(chart.edges) and len(chart.edges) == chart.columns + 1
        assert chart.edges[-1] == len(graph.ops) + 2  # charts of one graph are equally wide


def test_many_steps_become_few_columns(graph: Graph, planned: Planned) -> None:
    full, few = (charts(graph, planned, most)[1] for most in (100_000, 16))
    assert few.columns <= 16 + len(few.stretches) < full.columns
    assert few.steps == full.steps
    assert few.peak == full.peak == max(int(band.hi.max()) for band in few.bands)
    assert [s.names for s in few.stretches] == [s.names for s in full.stretches]


def test_drawn(cli: Cli, network: Words, tmp_path: Path) -> None:
    out = tmp_path / "map.svg"
    done = cli("plan", *network, "--svg", out, "--json")
    assert done.code == 0 and done.json["svg"] == str(out)
    root = ET.fromstring(out.read_text())
    shown = texts(root)
    for key in ("ram_bytes", "untiled_ram_bytes"):
        assert any(text.startswith(f"{done.json[key]:,} bytes in ") for text in shown), key
    assert {"untiled", "tiled", "input", "whole tensor", "output"} <= set(shown)
    assert any("operators in the order of execution" in text for text in shown)
    tooltips = [t.text or "" for path in root.iter(f"{SVG}path") for t in path.iter(f"{SVG}title")]
    bands = [band for chart in done.json["buffers"].values() for band in chart]
    assert len(tooltips) == len(bands)
    for band in bands:
        assert any(
            tip.startswith(band["name"]) and f"from {band['from']:,} to {band['to']:,}" in tip
            for tip in tooltips
        )
    width = float(root.attrib["width"])
    for path in root.iter(f"{SVG}path"):
        ends = [float(x) for x in re.findall(r"H(-?[\d.]+)", path.attrib["d"])]
        assert all(0 <= x <= width for x in ends)
    assert f"drawn: {out}" in cli("plan", *network, "--svg", out).out


def test_the_front_of_ram_against_work(cli: Cli, network: Words, tmp_path: Path) -> None:
    out = tmp_path / "front.svg"
    done = cli("plan", *network, "--pareto", "--svg", out, "--json")
    assert done.code == 0, done.err
    points = done.json["points"]
    ram = [point["ram_bytes"] for point in points]
    assert ram == sorted(ram) and len(points) > 2
    costs = [(p["ram_bytes"], p["macs"], p["added_instructions"]) for p in points]
    for a, b in itertools.permutations(costs, 2):
        assert not all(x <= y for x, y in zip(a, b, strict=True)), "one beats the other"
    for point in points:
        more = point["macs"] / done.json["untiled_macs"] - 1
        assert point["mac_overhead"] == pytest.approx(more)
        assert point["tiles"] or point["added_instructions"] == 0
    report = cli("plan", *network, "--json").json
    assert ram[0] <= report["ram_bytes"] and ram[-1] <= report["untiled_ram_bytes"]

    root = ET.fromstring(out.read_text())
    circles = list(root.iter(f"{SVG}circle"))
    assert len(circles) == 2 * len(points)  # work, and what the steps add
    assert any(text == "network.onnx: RAM against work" for text in texts(root))
    for point, circle in zip(points, circles, strict=False):
        title = circle.find(f"{SVG}title")
        assert title is not None and f"{point['ram_bytes']:,} bytes" in (title.text or "")

    text = cli("plan", *network, "--pareto").out
    assert len([line for line in text.splitlines() if " % " in line]) == len(points)
    fdt = cli("plan", *network, "--pareto", "--tiling", "fdt", "--json").json["points"]
    assert {tile["kind"] for point in fdt for tile in point["tiles"]} == {"fdt"}
    assert all(point["mac_overhead"] <= 0 for point in fdt)


def test_names_of_strangers_stay_text(graph: Graph, planned: Planned) -> None:
    """A tensor may be called anything; the map stays well-formed and without scripts."""
    for chart in charts(graph, planned, 100):
        bands = tuple(
            type(band)(BAD, band.kind, *(getattr(band, n) for n in band.__slots__[2:]))
            for band in chart.bands
        )
        stretches = tuple(type(s)((BAD, BAD), s.first, s.end, s.units) for s in chart.stretches)
        bad = Chart(BAD, bands, stretches, chart.columns, chart.steps, chart.peak, chart.fullest)
        drawn = memory_map_svg([bad])
        root = ET.fromstring(drawn.encode())
        tags = {element.tag.removeprefix(SVG) for element in root.iter()}
        assert tags <= {"svg", "style", "rect", "g", "title", "text", "line", "path"}
        assert "<script" not in drawn and "http" not in drawn.replace(SVG[1:-1], "")
        assert "alert('1 & 2')" in "".join(root.itertext())
        assert text_map(bad).replace("\n", "").isprintable()
    assert escaped("a\x00\x1f\ufffe\U0001f600<&>'\"") == "a???\U0001f600&lt;&amp;&gt;&#39;&quot;"


def test_a_map_of_one_operator() -> None:
    """The least there can be: one column an operator, nothing wide enough for a name."""
    from fieldloop.ir.op import Op, OpKind
    from fieldloop.ir.tensor import DType, Tensor

    tensors = {name: Tensor(name, (1, 4), DType.FLOAT32) for name in ("x", "y")}
    graph = Graph("one", tensors, (Op("op", OpKind.SOFTMAX, ("x",), "y"),), ("x",), ("y",))
    chart = chart_of_plan(graph, plan_graph(graph, PlanKind.INFER), "one")
    assert chart.peak == 32 and [band.kind for band in chart.bands] == [
        BandKind.INPUT,
        BandKind.OUTPUT,
    ]
    ET.fromstring(memory_map_svg([chart]))
    assert text_map(chart, width=8).splitlines()[1:4] == [
        "(inputs)  aaaa....",
        "op        aaaabbbb",
        "(outputs) ....bbbb",
    ]


def test_refusals(cli: Cli, network: Words, tmp_path: Path) -> None:
    content = Path(str(network[0])).read_bytes()
    cli("plan", tmp_path / "model.flm").refused(2, ".tflite")
    cli("plan", tmp_path / "none.tflite").refused(1, "cannot read")
    cli("plan", *network, "--svg", network[0]).refused(2, "the model itself")
    cli("plan", *network, "--svg", tmp_path).refused(1, "cannot write")
    cli("plan", *network, "--mac-limit", "0.9").refused(2, "factor of 1 or more")
    cli("plan", *network, "--pareto", "--tiling", "none").refused(2, "--pareto")
    assert Path(str(network[0])).read_bytes() == content


@pytest.mark.skipif(not MODELS.is_dir(), reason="no models beside the clone; set FIELDLOOP_SHARED")
@pytest.mark.parametrize("name", ["micro_speech", "cifar10", "ad01_int8", "text_class"])
def test_real_networks(cli: Cli, tmp_path: Path, name: str) -> None:
    out = tmp_path / "map.svg"
    done = cli("plan", MODELS / f"{name}.tflite", "--svg", out, "--json")
    assert done.code == 0, done.err
    root = ET.fromstring(out.read_text())
    assert len(out.read_bytes()) < 500_000
    assert any(text.startswith(f"{done.json['ram_bytes']:,} bytes") for text in texts(root))
    assert (
        max(band["to"] for band in done.json["buffers"]["untiled"])
        == (done.json["untiled_ram_bytes"])
    )
