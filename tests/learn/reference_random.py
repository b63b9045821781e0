"""Random numbers of the learner: a function of (seed, step, stream, index), without a state."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
F = np.float32

MASK = 0xFFFFFFFF
GOLDEN = 0x9E3779B9


def mix(x: Array | int) -> Any:
    x = np.asarray(x, np.uint64)
    x = (x ^ (x >> 16)) * 0x7FEB352D & MASK
    x = (x ^ (x >> 15)) * 0x846CA68B & MASK
    return x ^ (x >> 16)


def random_key(seed: int, step: int, stream: int) -> int:
    key = int(mix((seed + GOLDEN) & MASK))
    key = int(mix(key ^ (step * GOLDEN & MASK)))
    return int(mix(key ^ ((stream + GOLDEN) & MASK)))


def random_bits(key: int, index: Array | int) -> Any:
    return mix((key + np.asarray(index, np.uint64) * GOLDEN) & MASK)


def round_stochastic(v: Array, bits: Array) -> Array:
    """A neighbouring integer of v whose mean is v; |v| saturates below 2^31."""
    m = np.minimum(np.abs(v), F(2147483520))
    whole = m.astype(np.int64)
    chance = ((m - whole.astype(F)) * F(4294967296)).astype(np.uint64)
    whole = whole + (bits < chance)
    return np.asarray(np.where(v < 0, -whole, whole))
