"""fieldloop check cannot be talked into a verdict that nothing was compared for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Cli
from test_check import TORCH, small_graph

from fieldloop.compare.host import HostRun
from fieldloop.compare.inputs import Sample, random_sample
from fieldloop.compare.report import CheckReport
from fieldloop.compare.run import check_image
from fieldloop.compare.source import check_source
from fieldloop.compiler import compile_graph
from fieldloop.frontends.builder import GraphBuilder
from fieldloop.image.format import Dtype
from fieldloop.image.reader import read_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import OpKind
from fieldloop.quantize.options import QuantizeOptions
from fieldloop.sources import read_source


class _Shifted:
    """An oracle that says what the core says, but for some tensors: those are `by` further."""

    name, exact, forced = "shifted", True, False

    def __init__(self, image: bytes, tensors: set[int], by: float) -> None:
        self._host = HostRun(image, read_image(image), ("plain",))
        self._tensors, self._by = tensors, by

    def run(self, sample: Sample) -> dict[int, np.ndarray]:
        values = dict(zip(self._host.made, self._host.layers(sample), strict=True))
        return {t: v + v.dtype.type(self._by * (t in self._tensors)) for t, v in values.items()}


class _Silent(_Shifted):
    """An oracle that knows no value of the image."""

    def run(self, sample: Sample) -> dict[int, np.ndarray]:
        return {}


def _float_graph() -> Graph:
    rng = np.random.default_rng(3)
    builder = GraphBuilder("dense")
    x = builder.input("x", (1, 6))
    x = builder.add("a", OpKind.FULLY_CONNECTED, [x], weights=rng.normal(size=(5, 6)))
    x = builder.add("b", OpKind.FULLY_CONNECTED, [x], weights=rng.normal(size=(4, 5)))
    return builder.graph([x])


def _mixed_image() -> bytes:
    samples = np.random.default_rng(4).normal(size=(16, 6)).astype(np.float32)
    options = QuantizeOptions(float_io=True)
    return compile_graph(_float_graph(), samples, options=options, learn=None).image


def _against(image: bytes, oracle: _Shifted) -> CheckReport:
    samples = [random_sample(read_image(image), seed) for seed in range(2)]
    return check_image(image, samples, model="m", oracle=oracle, variants=("plain",))


def _made(image: bytes, dtype: Dtype) -> list[int]:
    parsed = read_image(image)
    made = [op.outputs[0] for op in parsed.ops]
    return [t for t in made if parsed.tensors[t].dtype is dtype]


@pytest.mark.parametrize("exact", [True, False])
def test_an_oracle_that_says_nothing_proves_nothing(exact: bool) -> None:
    image = compile_graph(small_graph()).image
    oracle = _Silent(image, set(), 0)
    oracle.exact = exact
    report = _against(image, oracle)
    assert report.oracle is not None and report.oracle.layers == 0
    assert not report.oracle.bit_exact and not report.ok


class _Forgetful(_Shifted):
    """An oracle that knows all but the outputs."""

    def run(self, sample: Sample) -> dict[int, np.ndarray]:
        outputs = self._host.parsed.outputs
        return {t: v for t, v in super().run(sample).items() if t not in outputs}


def test_an_output_that_is_not_compared_is_not_ok() -> None:
    image = compile_graph(small_graph()).image
    report = _against(image, _Forgetful(image, set(), 0))
    assert report.oracle is not None and report.oracle.layers == 3
    assert report.oracle.unknown_outputs == 1 and not report.ok


def test_one_step_in_a_mixed_model_is_found_where_bytes_are_the_measure() -> None:
    image = _mixed_image()
    assert _against(image, _Shifted(image, set(), 0)).bit_exact
    first, *_ = _made(image, Dtype.I8)
    report = _against(image, _Shifted(image, {first}, 1))
    assert report.dtype == "mixed" and report.max_abs_diff == 1
    assert not report.bit_exact and not report.ok


def test_reals_of_a_mixed_model_have_a_tolerance() -> None:
    image = _mixed_image()
    (real,) = _made(image, Dtype.F32)
    near = _against(image, _Shifted(image, {real}, 1e-6))
    assert near.bit_exact and near.ok
    far = _against(image, _Shifted(image, {real}, 0.5))
    assert not far.ok


def test_a_nan_differs_from_a_number() -> None:
    image = compile_graph(_float_graph()).image
    (last,) = read_image(image).outputs
    oracle = _Shifted(image, {last}, float("nan"))
    oracle.exact = False
    report = _against(image, oracle)
    assert not report.ok
    assert report.max_abs_diff is not None and report.max_abs_diff > 1e30


def test_a_changed_weight_is_found(cli: Cli, tmp_path: Path) -> None:
    """The same file but for one bit of one float weight."""
    path = tmp_path / "net.py"
    path.write_text(TORCH.format(what="example"))
    source = read_source(path)
    assert check_source(source).ok
    source.module[8].weight.data[1, 2] *= 2  # the head's; the graph has the old value
    report = check_source(replace(source, module=source.module))
    assert not report.ok and report.variants_equal


def test_the_float_model_is_compared_layer_by_layer(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(TORCH.format(what="calibration"))
    for more in ((), ("--equalise",)):
        done = cli("check", path, "--json", *more)
        assert done.code == 0, done
        layers = {layer["kind"]: layer["sqnr_db"] for layer in done.json["layers"]}
        assert layers["fully_connected"] > 20 and layers["conv2d"] > 20
    assert " dB" in cli("check", path).out
    np.save(tmp_path / "x.npy", 1e-3 * np.ones((2, 3, 32), np.float32))
    small = cli("check", path, "--inputs", tmp_path / "x.npy", "--json").json
    conv = next(layer for layer in small["layers"] if layer["kind"] == "conv2d")
    assert conv["sqnr_db"] is None or conv["sqnr_db"] < layers["conv2d"]  # of these samples
