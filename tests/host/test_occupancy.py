"""Live hulls of stores against the liveness of every single byte."""

from __future__ import annotations

import time

import numpy as np
import pytest
from random_programs import accesses, bytes_of, line, random_program

from fieldloop.plan.occupancy import APART, Occupancy, occupancy
from fieldloop.plan.program import Move, Piece, Program, Store
from fieldloop.plan.types import StepKind

TILE, COPY, OP = StepKind.TILE, StepKind.COPY, StepKind.OP


def live_bytes(program: Program) -> list[list[set[int]]]:
    """[store][time]: bytes that are touched, or were written and will be read as they are."""
    steps = list(accesses(program))
    live = [[set[int]() for _ in steps] for _ in program.stores]
    for store in range(len(program.stores)):
        reads = [{b for p in r if p.store == store for b in bytes_of(p)} for r, _ in steps]
        writes = [{b for p in w if p.store == store for b in bytes_of(p)} for _, w in steps]
        for byte in range(program.stores[store].bytes):
            since: int | None = None  # of the value that the byte holds
            for t in range(len(steps)):
                if byte in reads[t] and since is not None:
                    for between in range(since, t + 1):
                        live[store][between].add(byte)
                if byte in writes[t]:
                    since = t
                    live[store][t].add(byte)
    return live


@pytest.mark.parametrize("block", range(10))
def test_every_live_byte_lies_in_the_hull(block: int) -> None:
    loose = total = 0
    for seed in range(100 * block, 100 * block + 100):
        program = random_program(seed)
        occ = occupancy(program)
        for store, over_time in enumerate(live_bytes(program)):
            for t, alive in enumerate(over_time):
                lo, hi = int(occ.lo[store, t]), int(occ.hi[store, t])
                assert alive <= set(range(lo, hi)), (seed, store, t)
                assert 0 <= lo <= hi <= program.stores[store].bytes
                exact = max(alive) + 1 - min(alive) if alive else 0
                loose += hi - lo - exact
                total += exact
    assert loose <= 0.05 * total  # strides and holes are all that is given away


def hulls(occ: Occupancy, store: int) -> list[tuple[int, int]]:
    return list(zip(occ.lo[store].tolist(), occ.hi[store].tolist(), strict=True))


def program_of(sizes: list[int], moves: list[Move], out: Piece) -> Program:
    stores = tuple(Store(f"s{i}", size, 1) for i, size in enumerate(sizes))
    places = {"x": line(0, 0, sizes[0]), "y": out}
    return Program(stores, tuple(moves), places, ("x",), ("y",))


def test_a_tile_store_is_dead_between_tiles() -> None:
    moves = []
    for k in range(3):
        moves.append(Move(TILE, 0, x=line(0, 0, 6), y=line(1, 0, 4)))
        moves.append(Move(TILE, 1, x=line(1, 0, 4), y=Piece(2, k, 5, 3, 1, 1)))
        moves.append(Move(TILE, 2, x=line(0, 0, 6), y=line(3, 0, 2)))  # somebody else
    occ = occupancy(program_of([6, 4, 15, 2], moves, line(2, 0, 15)))
    assert hulls(occ, 1) == [(0, 0)] + 3 * [(0, 4), (0, 4), (0, 0)] + [(0, 0)]
    # slices of the output lie three bytes apart: live from the first one on, as far as written
    assert hulls(occ, 2)[:3] == [(0, 0), (0, 0), (0, 13)]
    assert hulls(occ, 2)[5] == (0, 14)
    assert hulls(occ, 2)[8:] == [(0, 15)] * 3
    assert hulls(occ, 3)[3] == (0, 2)


def test_a_window_is_refilled_and_shifted() -> None:
    row, rows = 4, 6
    moves = []
    for r in range(rows):
        if r >= 3:
            moves.append(Move(COPY, 1, x=line(1, row, 2 * row), y=line(1, 0, 2 * row)))
        moves.append(Move(TILE, 0, x=line(0, r * row, row), y=line(1, min(r, 2) * row, row)))
        if r >= 2:
            moves.append(Move(TILE, 1, x=line(1, 0, 3 * row), y=line(2, (r - 2) * row, row)))
    occ = occupancy(program_of([row * rows, 3 * row, 4 * row], moves, line(2, 0, 4 * row)))
    window = hulls(occ, 1)
    assert window[1:5] == [(0, 4), (0, 8), (0, 12), (0, 12)]
    # shift (reads rows 1, 2; the moved ones lie in 0, 1), refill row 2, use
    assert window[5:8] == [(0, 12), (0, 12), (0, 12)]
    assert window[-1] == (0, 0)
    # the input dies row by row, the output grows
    assert hulls(occ, 0)[:4] == [(0, 24), (0, 24), (4, 24), (8, 24)]
    assert hulls(occ, 2)[4] == (0, 4)
    assert hulls(occ, 2)[-1] == (0, 16)
    # the output may begin where the input does, though both are live most of the time
    apart = occ.distances()
    assert apart[0, 2] == -2 * row  # the window is two rows ahead
    assert apart[2, 0] == row * rows


def test_sums_shrink_to_the_elements_on_them() -> None:
    sums, out = Piece(1, 0, 1, 5, 5, 4), line(1, 0, 5)
    moves = [
        Move(TILE, 0, x=line(0, 0, 4), y=sums, partial=True, first=True),
        Move(TILE, 0, x=line(0, 4, 4), y=sums, z=out, partial=True, last=True),
        Move(OP, 1, reads=(out,), y=line(2, 0, 3)),
    ]
    occ = occupancy(program_of([8, 20, 3], moves, line(2, 0, 3)))
    assert hulls(occ, 1) == [(0, 0), (0, 20), (0, 20), (0, 5), (0, 0)]
    assert hulls(occ, 0) == [(0, 8), (0, 8), (4, 8), (0, 0), (0, 0)]


def test_distances_are_kept_at_every_time() -> None:
    for seed in range(60):
        occ = occupancy(random_program(seed))
        apart = occ.distances()
        for i in range(len(occ.lo)):
            for j in range(len(occ.lo)):
                both = [
                    int(occ.hi[j, t] - occ.lo[i, t])
                    for t in range(occ.lo.shape[1])
                    if occ.hi[i, t] > occ.lo[i, t] and occ.hi[j, t] > occ.lo[j, t]
                ]
                assert apart[i, j] == (max(both) if both and i != j else APART)


def test_thousands_of_moves_take_milliseconds() -> None:
    row, rows = 50, 1_200
    moves = []
    for r in range(rows - 2):
        moves.append(Move(TILE, 0, x=line(0, r * row, 3 * row), y=line(1, 2 * row, row)))
        moves.append(Move(COPY, 1, x=line(1, row, 2 * row), y=line(1, 0, 2 * row)))
        moves.append(Move(TILE, 1, x=line(1, 0, row), y=line(2, 0, row)))
        moves.append(Move(TILE, 2, x=line(2, 0, row), y=line(3, r * row, row)))
    program = program_of(
        [row * rows, 3 * row, row, row * rows], moves, line(3, 0, row * (rows - 2))
    )
    assert len(moves) > 4_700
    took = []
    for _ in range(3):
        begin = time.process_time()
        occ = occupancy(program)
        took.append(time.process_time() - begin)
    assert min(took) < 0.5  # 0.05 s on an idle machine
    assert int(np.max(occ.live_bytes)) <= row * (rows + 5)
