"""Which gradients are kept: every search cuts where a sort does, and what the cut leaves."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuts import F32, INT16, RANDOM, SEARCHES, U32, Ranking, cut, drop_others, f32, int16
from cuts import kept as indices
from cuts import list_kept as listed
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import c

from fieldloop import paths
from fieldloop.runtime import core

ffi, lib = core.core()
Array = np.ndarray[Any, Any]


def reals(kind: str, n: int) -> Array:
    rng = np.random.default_rng(n)
    normal = rng.normal(size=n)
    values = {
        "normal": normal,
        "ties": rng.integers(-3, 4, n) / 4,
        "zeros": np.where(rng.random(n) < 0.9, 0.0, normal),
        "only zeros": np.where(rng.random(n) < 0.5, 0.0, -0.0),
        "equal": np.full(n, -0.5),
        "ascending": np.arange(n),
        "descending": -np.arange(n)[::-1],
        "subnormal": normal * 1e-40,
        "wide": normal * 10.0 ** rng.uniform(-44, 37, n),
        "narrow": 1 + rng.integers(0, 4, n) * 2.0**-23,
        # what places the histogram's window is far off: above everything else, below it
        "outlier sampled": np.where(np.arange(n) == (n // 16 + 1) // 2, 1e38, normal * 1e-3),
        "outliers missed": np.where(np.arange(n) % (n // 16 + 1) < 2, normal * 1e-30, normal),
        "not numbers": np.select(
            [np.arange(n) % 7 == 0, np.arange(n) % 5 == 0], [np.nan, -np.inf], normal
        ),
    }[kind].astype(np.float32)
    if kind == "not numbers":
        values.view(np.uint32)[::3] ^= 0x80000000  # the sign of a NaN is no part of its key
        values.view(np.uint32)[::14] += np.arange(values[::14].size, dtype=np.uint32) % 3
    return values


def integers(kind: str, n: int) -> Array:
    rng = np.random.default_rng(n)
    return {
        "uniform": rng.integers(-32767, 32768, n),
        "small": rng.integers(-3, 4, n),
        "zeros": np.where(rng.random(n) < 0.9, 0, rng.integers(-32767, 32768, n)),
        "one bin": 128 + rng.integers(0, 128, n),
        "ends": rng.choice([-32767, 32767, 0, 1, -1], n),
        "equal": np.full(n, -7),
    }[kind].astype(np.int32)


REALS = (
    *("normal", "ties", "zeros", "only zeros", "equal", "ascending", "descending", "subnormal"),
    *("wide", "narrow", "outlier sampled", "outliers missed", "not numbers"),
)
INTEGERS = ("uniform", "small", "zeros", "one bin", "ends", "equal")
# cuts.c, and what of the core it needs
FLAGS = (
    *("-std=c99", "-O1", "-g", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Werror", "-Wdouble-promotion", "-Wfloat-conversion"),
    *("-fsanitize=address,undefined,alignment,float-cast-overflow", "-fno-sanitize-recover=all"),
)
PARTS = {
    *("cut", "cut_heap", "cut_histogram", "cut_threshold", "kept", "importance", "random"),
    *("allot", "loss", "select"),
}
SIZES = [1, 2, 3, 7, 31, 32, 33, 64, 100, 257, 258, 513, 1031, 4096]


def assert_cuts(ranking: Ranking, counts: set[int]) -> None:
    """Every search gives the worst entry that a sort keeps."""
    order, keys = ranking.order(), ranking.keys()
    for k in sorted(counts & set(range(1, order.size + 1))):
        worst = int(order[k - 1])
        for search in SEARCHES:
            assert cut(ranking, k, search) == (keys[worst], worst + 1), (k, search)


def some(n: int) -> set[int]:
    return {1, 2, 3, 6, n // 50, n // 10, n // 7 + 1, n // 2, n // 2 + 1, n * 9 // 10, n - 1, n}


@pytest.mark.parametrize("kind", REALS)
def test_of_reals(kind: str) -> None:
    for n in SIZES:
        assert_cuts(f32(reals(kind, n)), some(n))


@pytest.mark.parametrize("kind", INTEGERS)
def test_of_integers(kind: str) -> None:
    for n in SIZES:
        assert_cuts(int16(integers(kind, n)), some(n))


def test_of_importances_and_of_chance() -> None:
    rng = np.random.default_rng(2)
    for n in SIZES:
        small = rng.integers(0, 5000, n).astype(np.uint32)
        assert_cuts(Ranking(small, U32), some(n))
        assert_cuts(Ranking(small << 18, U32), some(n))
        assert_cuts(Ranking(small, RANDOM, seed=n * 77), some(n))


@pytest.mark.parametrize("n", [*range(1, 40), 65, 300])
def test_every_count(n: int) -> None:
    rng = np.random.default_rng(n)
    assert_cuts(f32(rng.integers(-4, 5, n) / 4), set(range(1, n + 1)))
    assert_cuts(int16(rng.integers(-n, n + 1, n)), set(range(1, n + 1)))


def test_the_largest_size() -> None:
    n = 65535
    assert_cuts(f32(reals("normal", n)), {1, 6553, n - 1, n})
    assert_cuts(f32(reals("equal", n)), {1, 40000, n})
    assert_cuts(int16(integers("uniform", n)), {1, 6553, n})


@given(
    st.lists(st.integers(0, 2**32 - 1) | st.sampled_from([0, 1 << 31, 0x7FFFFFFF]), min_size=1),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_of_any_bits(bits: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(bits)))
    assert_cuts(Ranking(np.array(bits, np.uint32), F32), {k})


def test_a_search_without_room_for_a_heap() -> None:
    ranking = f32(reals("normal", 100))
    for search in ("auto", "histogram", "threshold"):
        got = lib.fl_select_cut(ranking.c(), 3, SEARCHES[search], ffi.NULL)
        assert (got.cut, got.ties_end) == cut(ranking, 3, "heap")


@pytest.mark.parametrize("kind", [F32, INT16, RANDOM, U32])
@pytest.mark.parametrize(
    ("positions", "channels"), [(1, 1), (1, 40), (9, 1), (2, 3), (25, 8), (36, 7), (64, 16)]
)
def test_lists_of_kept_entries(kind: int, positions: int, channels: int) -> None:
    n = positions * channels
    values = integers("small" if n < 20 else "uniform", n)
    words = reals("zeros", n) if kind == F32 else abs(values) if kind == U32 else values
    ranking = Ranking(words, kind, seed=3)
    edge = ffi.new("fl_cut_t *")
    for k in some(n) & set(range(1, n + 1)):
        best = ranking.order()[:k].tolist()
        grouped = sorted((i % channels) * positions + i // channels for i in best)
        assert listed(ranking, k, positions, channels) == grouped
        assert indices(ranking, k) == sorted(best)
        edge.cut, edge.ties_end = cut(ranking, k)
        asked = [i for i in range(n) if lib.fl_is_kept(ranking.c(), edge, i)]
        assert asked == sorted(best)
    assert [lib.fl_rank_key(ranking.c(), i) for i in range(n)] == ranking.keys().tolist()


def test_a_list_with_a_cut_among_zeros() -> None:
    # the other words of magnitude 1 stay apart from the tie, whatever their sign
    ranking = int16([0, -1, 0, 1, 0, 0])
    assert [indices(ranking, k) for k in range(1, 7)] == [
        *([1], [1, 3], [0, 1, 3], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5])
    ]
    assert indices(int16([5, -7, 7, -5, -7]), 2) == [1, 2]
    assert indices(int16([5, -7, 7, -5, -7]), 4) == [0, 1, 2, 4]


@pytest.mark.parametrize("kind", [F32, INT16])
def test_dropping_the_others(kind: int) -> None:
    words = reals("ties", 200) if kind == F32 else integers("small", 200)
    ranking = Ranking(words, kind)
    for k in (1, 20, 199, 200):
        expected = np.zeros_like(words)
        best = ranking.order()[:k]
        expected[best] = words[best]
        dropped = drop_others(ranking, k)
        assert dropped.tobytes() == expected.tobytes()
        # what is dropped stays dropped: the same cut on the new words keeps the same ones
        again = Ranking(dropped, kind)
        assert drop_others(again, k).tobytes() == expected.tobytes()


def test_chance_looks_at_no_word_and_is_fair() -> None:
    n, k, rounds = 60, 15, 2000
    counts = np.zeros(n, int)
    for seed in range(rounds):
        counts[indices(Ranking(np.full(n, seed, np.uint32), RANDOM, seed), k)] += 1
    other = Ranking(np.arange(n, dtype=np.uint32), RANDOM, 5)
    assert indices(other, k) == indices(Ranking(np.zeros(n, np.uint32), RANDOM, 5), k)
    share = k / n
    sigma = (rounds * share * (1 - share)) ** 0.5
    assert np.abs(counts - rounds * share).max() < 4.5 * sigma


def importance(function: str, channels: int, *arguments: Any) -> Array:
    out = np.full(channels, 0xDEADBEEF, np.uint32)
    getattr(lib, function)(*arguments, channels, c(out, "uint32_t *"))
    return out


@pytest.mark.parametrize(("positions", "channels"), [(1, 1), (1, 9), (30, 1), (49, 16)])
def test_the_importance_of_channels(positions: int, channels: int) -> None:
    rng = np.random.default_rng(channels)
    delta = rng.normal(size=(positions, channels)).astype(np.float32)
    got = importance("fl_channel_errors", channels, c(delta, "uint32_t *"), 0, positions)
    # the last of the running sums: numpy's own sum adds in pairs
    assert (got.view(np.float32) == np.cumsum(np.abs(delta), 0, dtype=np.float32)[-1]).all()

    words = rng.integers(-32767, 32768, (positions, channels)).astype(np.int32)
    got = importance("fl_channel_errors", channels, c(words, "uint32_t *"), 1, positions)
    assert (got == np.abs(words).sum(0)).all()

    q = rng.integers(-128, 128, (positions, channels)).astype(np.int8)
    for zero in (-128, 3, 127):
        got = importance("fl_channel_activations", channels, c(q, "int8_t *"), zero, positions)
        assert (got == np.abs(q.astype(int) - zero).sum(0)).all()

    weights = np.abs(q.astype(int)).sum(0)
    # [positions, channels] as a depthwise convolution has it, and transposed, as the others do
    got = importance("fl_channel_weights", channels, c(q, "int8_t *"), 1, channels, positions)
    assert (got == weights).all()
    rows = np.ascontiguousarray(q.T)
    got = importance("fl_channel_weights", channels, c(rows, "int8_t *"), positions, 1, positions)
    assert (got == weights).all()


def test_under_sanitizers(tmp_path: Path) -> None:
    """All searches against each other on exact memory; cuts.c tells how many rankings it made."""
    root = paths.core_dir()
    driver, binary = Path(__file__).with_name("cuts.c"), tmp_path / "cuts"
    sources = [s for s in core.sources() if s.parent.name == "learn" and s.stem in PARTS]
    command = [core.compiler(), *FLAGS, f"-I{root}/include", f"-I{root}", driver, *sources]
    done = subprocess.run([*map(str, command), "-o", str(binary)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([binary, "20000"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout == "20000\n"
