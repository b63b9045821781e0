"""The study: what is learned, how runs are kept and added up, and all of it once, in small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fieldloop.cli.main import main
from fieldloop.compiler import compile_graph
from fieldloop.errors import UsageError
from fieldloop.frontends.torch_frontend import from_torch
from fieldloop.paths import data_root
from fieldloop.quantize.options import QuantizeOptions
from fieldloop.quantize.weights import weight_quant
from fieldloop.runtime import Learner, LearnerConfig, Model
from fieldloop.study import (
    networks,
    points,
    prepare,
    raw,
    report,
    scratch,
    settings,
    summary,
    tasks,
)
from fieldloop.study.plots import pareto_svg
from fieldloop.study.runs import Job
from fieldloop.study.streams import PHASES, phases_of, stream_of
from fieldloop.study.study import Options, check, read_results
from fieldloop.study.tail import cut

DATA = data_root().parent / "shared" / "data"
KEYS = (
    "accuracy",
    "accuracy_loss",
    "backward_effort",
    "total_effort",
    "forward_macs",
    "backward_macs",
    "total_macs",
    "skipped",
    "ram_bytes",
    "setting",
)


def needs(*names: str) -> None:
    for name in names:
        if not (DATA / raw.FILES[name]).is_file():
            pytest.skip(f"{raw.FILES[name]} is not beside this clone")


# ---- streams and settings


def test_a_stream_passes_over_its_pool_and_repeats_by_seed() -> None:
    order = stream_of(10, 25, 3)
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10)) and len(order) == 25
    assert (order == stream_of(10, 25, 3)).all() and (order != stream_of(10, 25, 4)).any()


@pytest.mark.parametrize("count", [1, 2, 9, 1000])
def test_phases_are_the_stream(count: int) -> None:
    parts = phases_of(np.arange(count))
    assert np.concatenate([part for part, _ in parts]).tolist() == list(range(count))
    assert {factor for _, factor in parts} <= {factor for _, factor in PHASES}
    if count == 1000:
        assert [len(part) for part, _ in parts] == [500, 300, 200]


def test_every_choice_is_a_rung() -> None:
    for name in tasks.TASKS:
        choice = settings.chosen(name, "shift")
        rung = settings.main_rung("tinypropv2", choice)
        assert rung.name == choice.rungs["tinypropv2"]
    strange = settings.Choice(1.0, {"tinypropv2": "0..2"}, 0.1)
    with pytest.raises(UsageError, match="no setting"):
        settings.main_rung("tinypropv2", strange)


def test_a_damaged_preparation_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mnist-shift.npz"
    path.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(UsageError, match="delete it"):
        prepare.load(path)


def test_every_rung_is_a_setting_that_the_core_takes() -> None:
    model, _ = small_model()
    for name in settings.SELECTORS:
        for rung in settings.rungs_of(name, settings.chosen("mnist", "shift")):
            for weights in ("int8", "int16", "f32"):
                config = settings.config_of(
                    rung, rate=1.0, layers=3, classes=10, seed=7, weights=weights
                )
                assert config.seed == 7 and config.replays == 0
                Learner(model, config).close()


def test_ladders_have_names_of_their_own() -> None:
    for name, selector in settings.SELECTORS.items():
        names = [rung.name for rung in selector.rungs]
        assert len(set(names)) == len(names) and {r.selector for r in selector.rungs} == {name}


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="selector: expected one of dense"):
        settings.selector("sparse")
    with pytest.raises(UsageError, match="sets: expected some of mnist"):
        check(Options(Path(), sets=("cifar",)))


def test_other_settings_are_another_key() -> None:
    config = LearnerConfig(lr=1.0)

    def job(**changes: object) -> Job:
        facts: dict[str, object] = {
            "task": "mnist",
            "mode": "shift",
            "selector": "dense",
            "rung": "all",
            "seed": 0,
            "samples": 10,
            "tested": 10,
            "config": config,
            "rate": 1.0,
            "place": "here",
            "fingerprint": "x",
        }
        return Job(**{**facts, **changes})  # type: ignore[arg-type]

    assert job().key == job(place="elsewhere").key
    others = [job(seed=1), job(config=LearnerConfig(lr=2.0)), job(fingerprint="y"), job(samples=9)]
    assert len({job().key, *(other.key for other in others)}) == 5


def test_a_torn_line_is_no_result(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text('{"key": "a", "accuracy": 1}\n{"key": "b"}\n{"key": "c", "accu')
    assert set(read_results(path)) == {"a", "b"}
    assert read_results(tmp_path / "nothing") == {}
    path.write_bytes(b'\xff\xfe\x00\n[]\n3\n{"key": "a"}\n')
    assert set(read_results(path)) == {"a"}


# ---- cutting and shifting


def small_model() -> tuple[Model, object]:
    network = networks.fresh("mnist", 0)
    x = np.random.default_rng(0).random((16, 28, 28, 1), np.float32)
    whole = compile_graph(from_torch(network, torch.zeros(1, 1, 28, 28)), x, learn=3)
    return Model(whole.image), whole


def test_trunk_and_tail_are_the_whole_model() -> None:
    model, whole = small_model()
    x = np.random.default_rng(1).random((20, 28, 28, 1), np.float32)
    parts = cut(whole, x)  # type: ignore[arg-type]
    assert parts.trunk is not None and parts.layers == ("head.4", "head.2", "head.0")
    tail = Model(parts.tail.image)
    assert parts.trunk_macs + tail.macs == model.macs
    assert (tail.predict_int8(parts.features(x)) == model.predict_int8(x)).all()
    # The layers that learn are the same ones, with the same rates.
    assert len(parts.tail.trainables) == 3


def test_a_cut_that_a_branch_leads_past_is_refused() -> None:
    from fieldloop.zoo import registry

    shape = registry.input_shape("resnet8")
    x = np.random.default_rng(0).standard_normal((4, 32, 32, 3)).astype(np.float32)
    whole = compile_graph(from_torch(registry.build("resnet8"), torch.zeros(shape)), x, learn=2)
    with pytest.raises(UsageError, match="leads past the cut"):
        cut(whole, x)
    assert cut(whole, x, "add_1").layers[0] == "head"


def test_pictures_turn() -> None:
    x = np.zeros((1, 1, 29, 29), np.float32)
    x[0, 0, 4, 14] = 1.0  # above the middle
    made = tasks.turned(x, 90.0)[0, 0]
    assert made[14, 4] + made[14, 24] == pytest.approx(1.0, abs=1e-3)
    same = np.random.default_rng(0).random((2, 1, 9, 9), np.float32)
    assert tasks.turned(same, 0.0) == pytest.approx(same, abs=1e-5)
    turn = tasks.rotation((10.0, 20.0, 30.0))
    assert turn @ turn.T == pytest.approx(np.eye(3)) and np.linalg.det(turn) == pytest.approx(1.0)


def test_mel_bands_tell_high_from_low_and_not_loud_from_quiet() -> None:
    at = np.arange(8000) / 8000.0
    low, high = (np.sin(2 * np.pi * f * at).astype(np.float32)[None] for f in (300.0, 3000.0))
    bands = [raw.mel_bands(wave)[0, 0, 5].argmax() for wave in (low, high)]
    assert bands[0] < bands[1]
    assert np.abs(raw.mel_bands(0.5 * low) - raw.mel_bands(low)).mean() < 0.1
    assert raw.mel_bands(low).shape == (1, 1, 32, 20)


# ---- from scratch


def test_initialised_layers_have_unit_variance_and_no_norms() -> None:
    x = np.random.default_rng(0).standard_normal((32, 6, 128)).astype(np.float32)
    network = scratch.initialised("har", x, 1)
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in network.modules())
    assert scratch.initialised("har", x, 1)(torch.from_numpy(x)).equal(
        network(torch.from_numpy(x))
    )
    made = network.features[0](torch.from_numpy(x))
    assert float(made.detach().std()) == pytest.approx(1.0, rel=1e-3)
    assert float(network(torch.from_numpy(x)).detach().std()) == pytest.approx(1.0, rel=1e-3)


def test_weights_get_room_to_grow() -> None:
    w = np.random.default_rng(0).standard_normal((4, 9)).astype(np.float32)
    plain, wide = weight_quant(w, 0), weight_quant(w, 0, headroom=3.0)
    assert np.array(wide.scales) == pytest.approx(3.0 * np.array(plain.scales), rel=1e-6)
    graph = from_torch(torch.nn.Sequential(torch.nn.Linear(9, 4)), torch.zeros(1, 9))
    options = QuantizeOptions(weight_headroom=3.0)
    x = np.random.default_rng(1).standard_normal((8, 9)).astype(np.float32)
    made = compile_graph(graph, x, learn=None, options=options).graph
    weights = made.tensors[made.ops[0].inputs[1]].data
    assert weights is not None and 40 <= int(np.abs(weights).max()) <= 43  # 127 / 3
    for bad in (0.5, 200.0, float("nan")):
        with pytest.raises(UsageError, match="weight_headroom: expected"):
            QuantizeOptions(weight_headroom=bad)


# ---- adding up


def result(selector: str, rung: str, seed: int, accuracy: float, backward: int) -> dict:
    return {
        "task": "mnist",
        "mode": "shift",
        "selector": selector,
        "rung": rung,
        "numeric": "int8",
        "seed": seed,
        "samples": 10,
        "rate": 1.0,
        "accuracy": accuracy,
        "online_accuracy": 0.5,
        "forward_macs": 100,
        "backward_macs": backward,
        "dense_backward_macs": 100,
        "skipped": 5,
        "clipped": 0,
        "refused": 0,
        "ram_bytes": 10,
    }


def small_summary() -> dict:
    results = [
        result(*row)
        for row in (
            ("dense", "all", 0, 0.90, 100),
            ("dense", "all", 1, 0.92, 100),
            ("dense_skip", "skip 0.1", 0, 0.80, 20),
            ("dense_skip", "skip 0.1", 1, 0.80, 20),
            ("tinypropv2", "0..0.9, skip 0.1", 0, 0.90, 10),
            ("tinypropv2", "0..0.9, skip 0.1", 1, 0.92, 10),
        )
    ]
    facts = {
        "shift/mnist": {
            "before": 0.5,
            "tail_equals_whole": True,
            "forward_macs_per_sample": 10,
            "trunk_macs": 5,
            "trained_layers": ["a"],
            "pool": 10,
            "test_samples": 10,
        }
    }
    return summary.summarise(results, facts, skipped={}, refusals={}, seeds=(0, 1), quick=False)


def test_efforts_and_comparisons() -> None:
    d = small_summary()["datasets"]["mnist"]
    assert d["seeds"] == 2 and d["dense_accuracy"] == pytest.approx(0.91)
    assert d["dense_accuracy_sd"] == pytest.approx(0.02 / 2**0.5)
    assert d["tinypropv2_accuracy_loss"] == pytest.approx(0.0)
    assert d["tinypropv2_backward_effort"] == pytest.approx(0.1)
    assert d["tinypropv2_total_effort"] == pytest.approx(110 / 200)
    assert d["forward_effort"] == pytest.approx(0.5)
    # Dense + skip costs 0.6 in all and has 0.8; half of the way from 0.5 (untouched) is 0.65.
    against = d["versus"]["tinypropv2"]["dense_skip"]
    assert against["beats"] and against["gain"] == pytest.approx(0.91 - 0.65)
    assert against["from_untrained"]  # no setting of dense + skip was run at 0.55
    said = small_summary()["summary"]
    assert said["tinypropv2_beats"]["dense_skip"] == ["mnist"]
    assert said["tinypropv2_beats_clearly"]["dense_skip"] == []
    assert small_summary()["summary"]["tinypropv2_within_a_point"] == ["mnist"]


def test_a_ladders_settings_are_chosen_on_other_seeds() -> None:
    rows = [
        ("topk", "low", 0, 0.6, 20),
        ("topk", "low", 1, 0.8, 20),
        ("topk", "worse", 0, 0.9, 30),  # of seed 0 the best, of seed 1 the worst
        ("topk", "worse", 1, 0.3, 30),
        ("topk", "high", 0, 0.7, 60),
        ("topk", "high", 1, 0.9, 60),
    ]
    ladder = points.points_of([result(*row) for row in rows], "shift", "mnist")

    def reached(effort: float, seed: int) -> float:
        return points.reached(ladder, effort, seed, 0.5, 0.5)

    assert reached(0.6, 0) == pytest.approx(0.6) and reached(0.6, 1) == pytest.approx(0.8)
    # Between 0.6 and 0.8, without the rung of 0.65 that is worse on seed 1.
    assert reached(0.65, 0) == pytest.approx(0.625)
    # On seed 0 it is better, so seed 1 has to take it, bad as it is there, and none above it.
    assert reached(0.65, 1) == reached(0.9, 1) == pytest.approx(0.3)
    assert reached(0.55, 0) == pytest.approx(0.55) and reached(0.5, 0) == 0.5
    assert points.is_below(ladder, 0.59) and not points.is_below(ladder, 0.6)


def test_the_page_says_what_a_reader_must_know() -> None:
    data = small_summary()
    page = report.page_of(data, "make")
    assert "Seeds 0 and 1; settings were chosen on seeds 100 to 104" in page
    assert "†" in page.split("beats dense + skip | ")[1]
    assert "static top-k on 0 of" not in page  # it was never run
    assert "A quick run" not in page and "A quick run" in report.page_of(
        {**data, "quick": True}, "make"
    )
    assert "**TinyPropv2**; it is the learner's default." in page
    data["summary"]["default"] = "topk"
    assert "default is another: static top-k." in report.page_of(data, "make")
    data["refused"] = {"mnist mask": "no room"}
    assert "- mnist mask: no room" in report.page_of(data, "make")


def test_a_plot_is_well_formed() -> None:
    from xml.etree import ElementTree

    titles = {name: s.title for name, s in settings.SELECTORS.items()}
    svg = pareto_svg("a < b", small_summary()["datasets"]["mnist"], titles)
    assert ElementTree.fromstring(svg).tag.endswith("svg") and "a &lt; b" in svg


# ---- all of it, in small


def study(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[dict, str]:
    given = ["bench", "learn", "--study", "tinyprop", *map(str, words), "--json"]
    assert main(given) == code
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def test_a_quick_study_runs_ends_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("digits")
    words = ["--data-dir", DATA, "--sets", "digits", "--selectors", "dense,tinypropv2", "--quick"]
    words += ["--runs", tmp_path / "runs.jsonl", "--out", tmp_path / "out"]
    first, said = study(capsys, *words)
    assert "0 of them done before; about" in said and not first["refused"]
    d = first["datasets"]["digits"]
    for selector in ("dense", "tinypropv2"):
        assert {f"{selector}_{key}" for key in KEYS} <= set(d)
    assert d["tail_equals_whole"] and d["dense_backward_effort"] == 1.0
    assert 0.0 < d["tinypropv2_backward_effort"] < 1.0
    assert set(first["scratch"]["digits"]["methods"]) == {
        "fp32",
        "dense/int8",
        "dense/int16",
        "dense/f32",
        "tinypropv2/int16",
    }
    assert (
        json.loads((tmp_path / "out" / "tinyprop.json").read_text())["datasets"]
        == (first["datasets"])
    )
    page = (tmp_path / "out" / "tinyprop.md").read_text()
    assert "| digits |" in page and (tmp_path / "out" / "tinyprop" / "digits.svg").is_file()

    # Killed while it wrote its third result: that one and those after it are run again.
    lines = (tmp_path / "runs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "runs.jsonl").write_text("".join(lines[:2]) + lines[2][:30])
    again, said = study(capsys, *words)
    assert f"{len(lines)} runs, 2 of them done before" in said
    assert again["datasets"] == first["datasets"] and again["scratch"] == first["scratch"]


def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["--data-dir", tmp_path / "none"], "is no folder"),
        (["--data-dir", tmp_path], "none of the data sets is there"),
        (["--data-dir", tmp_path, "--sets", "mnist,iris"], "got 'iris'"),
        (["--data-dir", tmp_path, "--selectors", "best"], "got 'best'"),
        (["--data-dir", tmp_path, "--seeds", 0], "at least 1"),
    ):
        made, said = study(capsys, *words, code=2)
        assert expected in made["error"] and expected in said
    assert main(["bench", "learn"]) == 2
    assert "expected --study tinyprop" in capsys.readouterr().err
    (tmp_path / raw.FILES["har"]).write_bytes(b"no archive")
    made, _ = study(capsys, "--data-dir", tmp_path, "--runs", tmp_path / "r", code=2)
    assert "cannot be read" in made["error"]
