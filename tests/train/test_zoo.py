"""The zoo: shapes and costs, weights files, data sets, and training on a sliver."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fieldloop import zoo
from fieldloop.errors import UsageError
from fieldloop.frontends.torch_frontend import from_torch
from fieldloop.runtime import Model
from fieldloop.train import measure, views
from fieldloop.train import zoo as training
from fieldloop.train.recipes import RECIPES
from fieldloop.zoo import data as data_sets
from fieldloop.zoo import registry

# Name -> multiply-accumulates, outputs. The first four are MLPerf Tiny's reference figures; the
# others are counted by hand: positions x channels out x kernel x channels in, layer by layer.
COSTS = {
    "kws": (2_656_768, 12),
    "vww": (7_489_664, 2),
    "resnet8": (12_501_632, 10),
    "ad01": (264_192, 640),
    "har": (63 * 24 * 5 * 6 + 63 * 32 * 5 * 24 + 31 * 48 * 3 * 32 + 15 * 64 * 3 * 48 + 64 * 6, 6),
    "bearing": (
        128 * 16 * 64 + 64 * 32 * 3 * 16 + 32 * 64 * 3 * 32 + 16 * 64 * 3 * 64 + 64 * 10,
        10,
    ),
    "strokes": (
        72 * 16 * 5 * 2 + 35 * 32 * 5 * 16 + 17 * 48 * 3 * 32 + 17 * 64 * 3 * 48 + 64 * 10,
        10,
    ),
    "spells": (59 * 16 * 5 * 6 + 29 * 24 * 5 * 16 + 14 * 32 * 3 * 24 + 32 * 5, 5),
}


def stroke_file(folder: Path, *, per_class: int = 20, seed: int = 3) -> Path:
    """A data set in the format of the strokes': ten rays from the middle, shaken by hand."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(10, dtype=np.uint8), per_class)
    angle = 2.0 * np.pi * y / 10.0
    way = (
        np.stack([np.cos(angle), np.sin(angle)], axis=1)[:, None]
        * np.linspace(0, 100, 145)[None, :, None]
    )
    x = np.clip(way + rng.normal(0.0, 4.0, way.shape), -127, 127).astype(np.int8)
    order = rng.permutation(len(y))
    train, test = order[: 8 * per_class], order[8 * per_class :]
    path = folder / "gesture_digits_strokes.npz"
    np.savez(path, x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test])
    return path


@pytest.mark.parametrize("name", COSTS)
def test_architecture(name: str) -> None:
    network = zoo.networks[name]()
    macs, outputs = COSTS[name]
    assert not network.training
    x = torch.zeros(zoo.input_shape(name))
    assert network(x).shape == (1, outputs)
    assert from_torch(network, x).macs() == macs
    labels = registry.entry(name).labels
    assert len(labels) == (0 if name == "ad01" else outputs)


def test_initial_weights_are_those_of_seed_0_whatever_was_drawn_before() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = zoo.networks["har"]().state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's stays
    torch.rand(3)
    second = zoo.networks["har"]().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["vww", "ad01"])
def test_networks_without_data_are_compiled_and_run(name: str) -> None:
    compiled = measure.compile_untrained(name)
    model = Model(compiled.image)
    assert model.macs == compiled.report.macs == COSTS[name][0]
    size = int(np.prod(registry.entry(name).shape))
    assert model.predict_int8(np.zeros((1, size), np.int8)).shape == (1, COSTS[name][1])
    with pytest.raises(UsageError, match="no training data"):
        data_sets.load(name, ".")
    with pytest.raises(UsageError, match="no data to train"):
        training.recipe_of(name)


def test_weights_come_back_as_they_went(tmp_path: Path) -> None:
    network = zoo.networks["spells"]()
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.25)
    registry.save(tmp_path / "deep" / "w.npz", network)
    again = zoo.load("spells", weights=tmp_path / "deep" / "w.npz")
    assert not again.training
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    network = zoo.networks["spells"]()
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    key = "features.0.weight"

    def refused(says: str, **changes: np.ndarray | None) -> None:
        arrays = {k: v for k, v in {**state, **changes}.items() if v is not None}
        np.savez(path, **arrays)
        with pytest.raises(UsageError, match=says):
            zoo.load("spells", weights=path)

    refused("lacks features.0.weight", **{key: None})
    refused("holds extra", extra=np.zeros(1))
    refused(r"expected features.0.weight \(16, 6, 5\)", **{key: np.zeros((16, 6, 4))})
    refused("not finite", **{key: np.full((16, 6, 5), np.nan)})
    refused("expected features.0.weight", **{key: np.full((16, 6, 5), "x")})
    # An array of Python objects would be unpickled.
    refused("cannot be read", **{key: np.array([{}], dtype=object)})
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(UsageError, match="cannot be read"):
        zoo.load("spells", weights=path)
    with pytest.raises(UsageError, match="cannot be read"):
        zoo.load("spells", weights=tmp_path / "none.npz")
    with pytest.raises(UsageError, match="expected one of kws, vww"):
        zoo.load("nothing")
    with pytest.raises(UsageError, match="vww ships with none"):
        zoo.load("vww")


def test_data_that_are_not_there_or_not_those_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"kws_mfcc\.npz is not there.*--data-dir"):
        data_sets.load("kws", tmp_path)
    with pytest.raises(UsageError, match="expected bearing"):
        data_sets.load("kws", tmp_path, harder=True)
    path = stroke_file(tmp_path)
    whole = dict(np.load(path))

    def refused(says: str, **changes: np.ndarray | None) -> None:
        np.savez(path, **{k: v for k, v in {**whole, **changes}.items() if v is not None})
        with pytest.raises(UsageError, match=says):
            data_sets.load("strokes", tmp_path)

    refused("cannot be read.*y_test", y_test=None)
    refused(r"expected train samples \[n, 2, 145\]", x_train=whole["x_train"][:, :140])
    refused("expected test samples.* and n labels", y_test=whole["y_test"][:-1])
    refused("expected classes 0 to 9 in the train split", y_train=whole["y_train"] + 1)
    refused("cannot be read", x_train=np.array([{}], dtype=object))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UsageError, match="cannot be read"):
        data_sets.load("strokes", tmp_path)


@pytest.mark.parametrize("name", RECIPES)
def test_views_repeat_and_differ(name: str) -> None:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.standard_normal((6, *registry.entry(name).shape), np.float32))
    kept = x.clone()
    bend = RECIPES[name].bend
    first, second = views.view(x, bend, 0), views.view(x, bend, 1)
    assert first.shape == x.shape and first.dtype == x.dtype
    assert torch.equal(x, kept)  # the samples themselves stay as they are
    assert torch.equal(first, views.view(x, bend, 0))
    assert not torch.equal(first, second) and not torch.equal(first, x)
    assert bool(torch.isfinite(first).all())


def test_a_sliver_is_learned_and_the_teacher_kept(tmp_path: Path) -> None:
    stroke_file(tmp_path)
    data = data_sets.load("strokes", tmp_path)
    recipe = training.recipe_of("strokes", epochs=6)
    assert (recipe.epochs, recipe.teacher_epochs) == (6, 3)
    seen: list[str] = []

    def student(seed: int) -> torch.nn.Module:
        return training.train_student(
            data,
            recipe,
            seed=seed,
            cache=tmp_path / "cache",
            progress=lambda s, a, b: seen.append(s),
        )

    network = student(4)
    assert seen.count("teacher") == 3 and seen.count("student") == 6
    taught = len(seen)
    again, other = student(4), student(5)
    assert seen[taught:] == ["student"] * 12  # the teacher was in the cache
    same = [
        torch.equal(network.state_dict()[key], value) for key, value in again.state_dict().items()
    ]
    assert all(same)
    key = "head.1.weight"
    assert not torch.equal(network.state_dict()[key], other.state_dict()[key])

    compiled = measure.compile_trained(network, data, meta={"seed": 4})
    found = measure.measure(network, compiled.image, data)
    assert found.samples == len(data.y_test) == 40
    assert found.float_accuracy > 0.5  # by chance it would be 0.1
    assert found.within_limit, found


def test_limits_count_samples_where_a_point_is_less() -> None:
    def within(samples: int, lost: int) -> bool:
        return measure.Measured(samples, 0.9, 0.9 - lost / samples).within_limit

    assert within(140, 2) and not within(140, 3)
    assert within(1000, 10) and not within(1000, 11)
    assert measure.Measured(100, 0.9, 0.875).points_lost == pytest.approx(2.5)


def test_a_broken_teacher_is_told(tmp_path: Path) -> None:
    stroke_file(tmp_path)
    data = data_sets.load("strokes", tmp_path)
    recipe = training.recipe_of("strokes", epochs=1)
    training.teach(data, recipe, cache=tmp_path)
    (kept,) = tmp_path.glob("strokes-teacher-*.npz")
    kept.write_bytes(b"nothing")
    with pytest.raises(UsageError, match="delete it"):
        training.teach(data, recipe, cache=tmp_path)
    with pytest.raises(UsageError, match="at least 1, got 0"):
        training.recipe_of("strokes", epochs=0)
