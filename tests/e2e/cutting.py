"""Power cuts, several devices side by side: powercut_board.py and powercut_native.py share it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

Say = Callable[[str], None]


class LostError(Exception):
    """What the flash holds is neither the old state nor the new one."""


class Bench(Protocol):
    """One device, and the host's learner that knows what its flash must hold."""

    tally: Any  # counts; `lost` are texts

    def cut(self) -> None: ...

    def close(self) -> None: ...


def side_by_side(
    make: Callable[[int], Bench], total: Any, count: int, *, jobs: int, say: Say | None
) -> None:
    """`count` cuts on `jobs` devices, which `make` makes by their number; all that they counted is
    added to `total`."""
    lock = threading.Lock()
    started = time.monotonic()
    done = 0

    def work(job: int) -> None:
        nonlocal done
        bench = make(job)
        try:
            for n in range(job, count, jobs):
                try:
                    bench.cut()
                except LostError as error:
                    bench.tally.lost.append(f"job {job}, cut {n}: {error}")
                    return  # what it holds is unknown from here on
                with lock:
                    done += 1
                    if say is not None and done % 10 == 0:
                        say(f"{done} of {count}, {time.monotonic() - started:.0f} s")
        finally:
            bench.close()
            with lock:
                total.add(bench.tally)

    with ThreadPoolExecutor(jobs) as pool:
        for future in [pool.submit(work, job) for job in range(jobs)]:
            future.result()
