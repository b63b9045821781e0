"""Loops: what is compressed expands to the same steps, is as short as it can be, and is fast."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from fieldloop.errors import UsageError
from fieldloop.plan.loops import compress, expand
from fieldloop.plan.types import NO_MORE, More, Step, StepKind

TILE, COPY, LOOP, OP = StepKind.TILE, StepKind.COPY, StepKind.LOOP, StepKind.OP


def advanced(step: Step, turn: int) -> Step:
    """The step of an iteration, by this test's own arithmetic."""
    more = step.more
    return replace(
        step,
        row=step.row + turn * more.row,
        channel=step.channel + turn * more.channel,
        x_row=step.x_row + turn * more.x_row,
        x_channel=step.x_channel + turn * more.x_channel,
        x=step.x + turn * more.x,
        y=step.y + turn * more.y,
        z=step.z + turn * more.z,
        more=NO_MORE,
    )


def body(rng: np.random.Generator, size: int) -> list[Step]:
    """A block of steps that advance by constants."""
    made = []
    for i in range(size):
        stride = int(rng.integers(1, 3))
        more = More(row=1, x_row=stride, x=int(rng.integers(-9, 9)), z=int(rng.integers(3)))
        start = Step(
            TILE, i % 7, row=3, rows=1, x_row=9, x_rows=3, x=500, y=int(rng.integers(99)), z=7
        )
        made.append(replace(start, more=more, x_step=int(rng.integers(1, 5))))
    return made


def turns(steps: list[Step], times: int) -> list[Step]:
    return [advanced(step, turn) for turn in range(times) for step in steps]


def odd(rng: np.random.Generator, count: int) -> list[Step]:
    """Steps that repeat nothing."""
    return [Step(TILE, 100 + i, x=int(rng.integers(1000))) for i in range(count)]


def whole(steps: tuple[Step, ...]) -> list[Step]:
    """Own expansion."""
    out: list[Step] = []
    i = 0
    while i < len(steps):
        if steps[i].kind is LOOP:
            size, times = steps[i].op, steps[i].rows
            out += turns(list(steps[i + 1 : i + 1 + size]), times)
            i += 1 + size
        else:
            out.append(steps[i])
            i += 1
    return out


@pytest.mark.parametrize("seed", range(40))
def test_a_stream_of_rows_is_its_prologue_one_loop_and_its_epilogue(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, times = int(rng.integers(2, 61)), int(rng.integers(3, 100))
    before, after = int(rng.integers(0, 20)), int(rng.integers(0, 20))
    flat = [*odd(rng, before), *turns(body(rng, size), times), *odd(rng, after)]
    made = compress(flat)
    assert whole(made) == list(expand(made)) == flat
    assert len(made) <= before + 1 + size + after
    assert sum(step.kind is LOOP for step in made) >= 1


def test_slices_with_another_first_and_last() -> None:
    """FDT: fan-out, channel-wise, fan-in; the first and last differ in their flags."""
    flat = [
        step
        for i in range(16)
        for step in (
            Step(TILE, 0, channel=4 * i, channels=4, x=0, y=800),
            Step(TILE, 1, channel=4 * i, channels=4, x_channel=4 * i, x=800, y=900),
            Step(
                TILE,
                2,
                channels=9,
                x_channel=4 * i,
                x=900,
                y=64,
                partial=True,
                first=i == 0,
                last=i == 15,
            ),
        )
    ]
    made = compress(flat)
    assert list(expand(made)) == flat
    assert len(made) == 9 or len(made) == 10  # a slice, a loop of 14, a slice
    loop = next(step for step in made if step.kind is LOOP)
    assert loop.op == 3 and loop.rows >= 14


def test_random_steps_survive() -> None:
    """Small alphabets, so that blocks of all kinds appear by chance; every field advances."""
    for seed in range(300):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(0, 60))
        flat = [
            Step(
                (TILE, COPY, OP)[int(rng.integers(3))],
                int(rng.integers(2)),
                row=int(rng.integers(2)),
                x_row=int(rng.integers(3)),
                x=int(rng.integers(2)) * i,
                z=int(rng.integers(2)),
                more=NO_MORE,
            )
            for i in range(n)
        ]
        made = compress(flat)
        assert list(expand(made)) == whole(made) == flat
        assert len(made) <= n


def fewest(flat: list[Step]) -> int:
    """The least number of steps of all ways to write them, by trying all."""
    n = len(flat)
    best = [0] * (n + 1)
    for at in range(n - 1, -1, -1):
        best[at] = best[at + 1] + 1
        for size in range(1, (n - at) // 2 + 1):
            blocks = [flat[i : i + size] for i in range(at, n - size + 1, size)]
            more = [
                More(
                    *(
                        getattr(b, name) - getattr(a, name)
                        for name in ("row", "channel", "x_row", "x_channel", "x", "y", "z")
                    )
                )
                for a, b in zip(blocks[0], blocks[1], strict=True)
            ]
            start = [replace(s, more=m) for s, m in zip(blocks[0], more, strict=True)]
            times = 1
            while times < len(blocks) and turns(start, times + 1)[times * size :] == blocks[times]:
                times += 1
                best[at] = min(best[at], 1 + size + best[at + size * times])
    return best[0]


def test_it_is_the_fewest() -> None:
    """Against all ways to write a plan, on plans of many blocks."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        flat: list[Step] = []
        for _ in range(int(rng.integers(1, 4))):
            flat += odd(rng, int(rng.integers(0, 3)))
            flat += turns(body(rng, int(rng.integers(1, 5))), int(rng.integers(1, 6)))
        assert len(compress(flat)) == fewest(flat), seed


def test_what_is_compressed_already_is_compressed_again_alike() -> None:
    rng = np.random.default_rng(3)
    flat = [*odd(rng, 3), *turns(body(rng, 5), 30), *odd(rng, 2)]
    once = compress(flat)
    assert compress(once) == once


def test_a_window_at_the_edge_is_not_looped_past_two_iterations() -> None:
    """All of these windows are wider than the map, so their input rows stay the same."""
    flat = [Step(TILE, 0, row=i, rows=1, x_rows=3, x=0, y=100 + i) for i in range(6)]
    for step in compress(flat):
        assert step.kind is not LOOP or step.rows <= 2
    moving = [replace(step, x_row=2 * i) for i, step in enumerate(flat)]
    assert compress(moving)[0].rows == 6


def test_increments_stay_within_their_fields() -> None:
    flat = [Step(TILE, 0, x_channel=i * 0x8000, x=i) for i in range(2)] * 20
    wide = compress([replace(s, x_channel=i % 2 * 0x7FFF) for i, s in enumerate(flat)])
    for made in (compress(flat), wide):
        assert all(abs(step.more.x_channel) <= 0x7FFF for step in made)
    assert list(expand(compress(flat))) == flat
    far = [Step(TILE, 0, x=i * 0x80000000) for i in range(2)] * 4
    assert list(expand(compress(far))) == far
    assert all(abs(step.more.x) <= 0x7FFFFFFF for step in compress(far))


def test_the_size_of_a_copy_does_not_advance() -> None:
    flat = [Step(COPY, 0, x=100, y=50, z=8 + i) for i in range(10)]
    assert compress(flat) == tuple(flat)


def test_more_iterations_than_a_field_holds() -> None:
    flat = [Step(TILE, 0, row=0, rows=1, x=0, y=0)] * 70_000
    made = compress(flat)
    assert len(made) == 3 and max(step.rows for step in made) <= 0xFFFF
    assert list(expand(made)) == flat


def test_bad_loops_are_refused() -> None:
    tile = Step(TILE, 0)
    for steps in (
        [Step(LOOP, 2, rows=3), tile],
        [Step(LOOP, 0, rows=3), tile],
        [Step(LOOP, 1, rows=0), tile],
        [Step(LOOP, 2, rows=2), Step(LOOP, 1, rows=2), tile],
    ):
        with pytest.raises(UsageError, match="loop"):
            list(expand(steps))


def test_fifty_thousand_steps_take_seconds() -> None:
    rng = np.random.default_rng(1)
    flat: list[Step] = []
    while len(flat) < 50_000:
        flat += odd(rng, 30) + turns(body(rng, int(rng.integers(2, 61))), 150)
    started = time.process_time()
    made = compress(flat)
    took = time.process_time() - started
    assert list(expand(made)) == flat
    assert len(made) < len(flat) / 30
    assert took < 20, took
