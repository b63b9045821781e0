"""Layouts of stores against brute force, and what is claimed about them."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence

import numpy as np
import pytest
from random_programs import accesses, bytes_of, random_program

from fieldloop.plan.apart import problem_of
from fieldloop.plan.branching import branch_and_bound, origins
from fieldloop.plan.cliques import clique_bound
from fieldloop.plan.layout import layout_of
from fieldloop.plan.milp import solve_layout
from fieldloop.plan.occupancy import Occupancy, occupancy
from fieldloop.plan.program import Store
from fieldloop.plan.stacking import Stacking, heuristic, stack
from fieldloop.plan.types import Buffer

Set = tuple[list[Store], Occupancy]


def random_stores(seed: int, *, most: int = 6, size: int = 6, times: int = 6) -> Set:
    """Stores whose hulls begin, end, grow, shrink and wander at random."""
    rng = random.Random(seed)
    count = rng.randrange(1, most + 1)
    lo = np.zeros((count, rng.randrange(1, times + 1)), np.int32)
    hi = np.zeros_like(lo)
    for i in range(count):
        begin = rng.randrange(lo.shape[1])
        at = (0, rng.randrange(1, size + 1))
        for t in range(begin, rng.randrange(begin, lo.shape[1]) + 1):
            if rng.random() < 0.3:
                low = rng.randrange(size)
                at = (low, rng.randrange(low + 1, size + 1))
            lo[i, t], hi[i, t] = at
    stores = [Store(f"s{i}", size, rng.choice([1, 1, 1, 2])) for i in range(count)]
    return stores, Occupancy(lo, hi)


def apart_at_all_times(occ: Occupancy, i: int, j: int, offsets: Sequence[int]) -> bool:
    """One of the two lies above the other whenever both are live."""
    above = below = True
    for t in range(occ.lo.shape[1]):
        if occ.hi[i, t] > occ.lo[i, t] and occ.hi[j, t] > occ.lo[j, t]:
            above &= bool(offsets[i] + occ.lo[i, t] >= offsets[j] + occ.hi[j, t])
            below &= bool(offsets[j] + occ.lo[j, t] >= offsets[i] + occ.hi[i, t])
    return above or below


def fits(stores: Sequence[Store], occ: Occupancy, limit: int) -> bool:
    """Brute force: every multiple of the alignment for every store."""
    tops = occ.hi.max(axis=1)
    count = len(stores)
    apart = {
        (i, j, far)
        for i, j in itertools.combinations(range(count), 2)
        for far in range(-limit, limit + 1)
        if apart_at_all_times(occ, i, j, [far if k == i else 0 for k in range(count)])
    }

    def place(offsets: list[int]) -> bool:
        i = len(offsets)
        if i == count:
            return True
        return any(
            all((j, i, offsets[j] - offset) in apart for j in range(i))
            and place([*offsets, offset])
            for offset in range(0, limit - int(tops[i]) + 1, stores[i].alignment)
        )

    return place([])


def assert_sound(stores: Sequence[Store], occ: Occupancy, found: Stacking) -> None:
    for i, j in itertools.combinations(range(len(stores)), 2):
        assert apart_at_all_times(occ, i, j, found.offsets)
    for store, offset in zip(stores, found.offsets, strict=True):
        assert offset >= 0 and offset % store.alignment == 0
    tops = occ.hi.max(axis=1)
    assert found.peak == max(o + int(top) for o, top in zip(found.offsets, tops, strict=True))
    assert found.bound <= found.peak
    assert found.optimal == (found.bound == found.peak)


@pytest.mark.parametrize("block", range(10))
def test_stackings_of_small_sets_are_optimal(block: int) -> None:
    for seed in range(40 * block, 40 * block + 40):
        stores, occ = random_stores(seed)
        quick, exact = stack(stores, occ, exact=False), stack(stores, occ)
        assert_sound(stores, occ, quick)
        assert_sound(stores, occ, exact)
        assert exact.optimal and exact.peak <= quick.peak
        assert fits(stores, occ, exact.peak)
        assert not fits(stores, occ, exact.peak - 1)
        assert not fits(stores, occ, quick.bound - 1)


def test_branch_and_bound_and_the_solver_agree() -> None:
    better = 0
    for seed in range(60):
        stores, occ = random_stores(seed, most=9, size=9, times=8)
        problem = problem_of([store.alignment for store in stores], occ)
        # one above the other, ten bytes each: aligned, sound, and far from the best
        worst = tuple(10 * i for i in range(len(stores)))
        assert problem.sound(worst)
        by_solver, bound = solve_layout(problem, worst)
        assert problem.sound(by_solver)
        assert problem.peak(by_solver) == bound
        shift = origins(problem)
        if shift is not None:
            assert problem.bound <= clique_bound(problem, 1_000) <= bound
            by_branches, proven = branch_and_bound(problem, occ, shift, worst)
            assert proven and problem.sound(by_branches)
            assert problem.peak(by_branches) == bound
        better += problem.peak(heuristic(problem, occ, exact=False)) > bound
    assert better > 0  # first fit alone would not do


def test_a_solver_that_is_cut_off_claims_no_more_than_it_knows() -> None:
    unproven = 0
    for seed in range(60):
        stores, occ = random_stores(seed, most=9, size=9, times=8)
        problem = problem_of([store.alignment for store in stores], occ)
        worst = tuple(10 * i for i in range(len(stores)))
        best = stack(stores, occ)
        assert best.optimal
        found, bound = solve_layout(problem, worst, max_nodes=0)
        assert problem.sound(found)
        assert problem.bound <= bound <= best.peak <= problem.peak(found)
        unproven += bound < problem.peak(found)
    assert unproven > 0


def buffers_of(sizes: Sequence[int], lives: Sequence[tuple[int, int]]) -> list[Buffer]:
    return [
        Buffer((str(i),), size, 1, first, last)
        for i, (size, (first, last)) in enumerate(zip(sizes, lives, strict=True))
    ]


def chain(*sizes: int) -> list[Buffer]:
    return buffers_of(sizes, [(i, i + 1) for i in range(len(sizes))])


@pytest.mark.parametrize(
    ("items", "peak"),
    [
        (chain(1, 20, 6, 4, 8, 1), 26),
        (chain(5, 3, 2, 4), 8),
        # a: read by both branches; b, c: the branches; d: their join
        (buffers_of([5, 10, 5, 12], [(0, 2), (1, 3), (2, 3), (3, 4)]), 27),
    ],
)
def test_known_optima(items: list[Buffer], peak: int) -> None:
    found = layout_of(items)
    assert (found.peak, found.optimal) == (peak, True)


@pytest.mark.parametrize("block", range(10))
def test_no_byte_is_lost_in_a_laid_out_program(block: int) -> None:
    """Runs programs on one arena of tokens: every read finds what was written to it."""
    for seed in range(100 * block, 100 * block + 100):
        program = random_program(seed)
        found = stack(program.stores, occupancy(program), exact=seed % 2 == 0)
        arena = [-1] * (found.peak + max(store.bytes for store in program.stores))
        own = [[-1] * store.bytes for store in program.stores]
        highest = 0
        for t, (reads, writes) in enumerate(accesses(program)):
            for piece in reads:
                base = found.offsets[piece.store]
                for b in bytes_of(piece):
                    if own[piece.store][b] >= 0:  # a hole that was never written says nothing
                        assert arena[base + b] == own[piece.store][b], (seed, t)
            for piece in writes:
                base = found.offsets[piece.store]
                highest = max(highest, base + piece.end)
                for b in bytes_of(piece):
                    arena[base + b] = own[piece.store][b] = t * 1_000 + piece.store * 100 + b
        assert highest <= found.peak


def test_the_same_input_gives_the_same_layout() -> None:
    for seed in range(20):
        stores, occ = random_stores(seed, most=12, size=30, times=12)
        assert stack(stores, occ) == stack(stores, occ)


def test_quick_layouts_are_quick() -> None:
    sets = []
    for seed in range(20):
        stores, occ = random_stores(seed, most=20, size=5_000, times=200)
        sets.append((stores, occ))
    begin = time.process_time()
    for stores, occ in sets:
        stack(stores, occ, exact=False)
    assert (time.process_time() - begin) / len(sets) < 0.05  # 0.003 s on an idle machine
