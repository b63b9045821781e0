"""The order of a stream, and how its learning rate falls.

The rate falls twice, as a device does it: a learner with the lower rate takes over the state. So
the last few samples do not decide what a run is worth.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PHASES = ((0.5, 1.0), (0.3, 0.3), (0.2, 0.1))  # part of the stream, factor of the rate


def stream_of(count: int, samples: int, seed: int) -> npt.NDArray[np.int64]:
    """Places in a pool: passes over all of it, each shuffled anew, until there are enough."""
    rng = np.random.default_rng(seed)
    passes = [rng.permutation(count) for _ in range(-(-samples // count))]
    return np.concatenate(passes)[:samples].astype(np.int64)


def phases_of(
    order: npt.NDArray[np.int64],
) -> list[tuple[npt.NDArray[np.int64], float]]:
    """The stream in parts, each with its factor of the rate; none is empty."""
    ends = np.rint(np.cumsum([share for share, _ in PHASES]) * len(order)).astype(int)
    parts = np.split(order, ends[:-1])
    return [(p, f) for p, (_, f) in zip(parts, PHASES, strict=True) if len(p)]
