"""What to learn from a sample, in numpy: its error, how many gradients are kept, and which."""

from __future__ import annotations

from typing import Any

import numpy as np
from reference_random import random_bits

from fieldloop.runtime import LearnerConfig

Array = np.ndarray[Any, Any]
F = np.float32
Q15 = 32768
_LOGARITHM = (
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)

# ---- output error ----


def exp_negative(x: Any) -> Any:
    """e^x, x <= 0: 2^n times a polynomial of the rest."""
    if np.isnan(x):
        return x
    if x < F(-87):
        return F(0)
    if x >= 0:
        return F(1)
    n = int(x * F(1.44269504) - F(0.5))  # truncates
    r = x - F(n) * F(0.693359375)
    r = r - F(n) * F(-2.12194440e-4)
    p = F(1.9875691500e-4)
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * r + F(c)
    return (p * (r * r) + r + F(1)) * F(2.0**n)


def output_error(q: Array, scale: float, zero: int, label: int) -> tuple[Array, Any]:
    """delta at the logits, and 2 (1 - p_label)."""
    z = (q.astype(np.int32) - zero).astype(F) * F(scale)
    delta = np.array([exp_negative(v - z.max()) for v in z], F)
    delta = delta / ordered_sum(delta)
    missing = F(1) - delta[label]
    delta[label] = delta[label] - F(1)
    return delta, F(2) * missing


def ordered_sum(values: Array) -> Any:
    """One float32 addition after the other, in the order given."""
    return np.cumsum(values, dtype=F)[-1] if values.size else F(0)


def l1_norm(delta: Array) -> Any:
    return ordered_sum(np.abs(delta.ravel()))


# ---- whether, and how many ----


def skips(c: LearnerConfig) -> bool:
    if c.skip == "auto":
        return c.selector in ("tinypropv2", "budget")
    return c.skip == "on"


def multiply_q15(a: int, b: int) -> int:
    return (a * b + Q15 // 2) >> 15


def to_q15(v: Any) -> int:
    return int(F(v) * F(Q15) + F(0.5))


def ratio_q15(c: LearnerConfig, alpha: Any) -> int:
    s_min = to_q15(c.s_min)
    return s_min + multiply_q15(to_q15(alpha), to_q15(c.s_max) - s_min)


def keep_count(c: LearnerConfig, alpha: Any, distance: int, n: int) -> int:
    if c.k_rule == "integer":
        s = ratio_q15(c, alpha)
        for _ in range(distance):
            s = multiply_q15(s, to_q15(c.zeta))
        k = (n * s + Q15 // 2) >> 15
    else:
        ratio = F(c.s_min) + F(alpha) * (F(c.s_max) - F(c.s_min))
        for _ in range(distance):
            ratio = ratio * F(c.zeta)
        k = int(F(n) * ratio)
    return min(max(k, 1), n)


def trained_channels(channels: int, share: int) -> int:
    """Of selector mask; `share` in 1/255."""
    return max(1, (channels * share + 127) // 255) if share else 0


def allot(c: LearnerConfig, alpha: Any, costs: list[int], counts: list[int]) -> list[int]:
    """Of selector budget: entries of each layer, from the cheapest layer on."""
    budget = (sum(costs) * ratio_q15(c, alpha) + Q15 // 2) >> 15
    kept = [0] * len(costs)
    order = sorted(range(len(costs)), key=lambda i: costs[i])
    for served, i in enumerate(order):
        share = budget // (len(costs) - served)
        entry = costs[i] // counts[i]
        kept[i] = counts[i] if share >= costs[i] else max(share // entry, 1)
        budget -= min(share, costs[i])
    return kept


def loss(missing: Any) -> Any:
    """-ln(1 - missing): Cephes' logarithm."""
    p = np.array(max(F(1) - F(missing), F(2.0**-24)), F)
    bits = int(p.view(np.uint32)) + 0x3F800000 - 0x3F3504F3
    octaves = F((bits >> 23) - 127)
    x = np.array((bits & 0x7FFFFF) + 0x3F3504F3, np.uint32).view(F)[()] - F(1)
    y: Any = F(7.0376836292e-2)
    for c in _LOGARITHM:
        y = y * x + F(c)
    y = y * x * (x * x)
    y = y + octaves * F(-2.12194440e-4) - F(0.5) * (x * x)
    return F(0) - ((x + y) + octaves * F(0.693359375))


# ---- which ----


def largest(keys: Array, k: int) -> Array:
    """bool [n]: the k largest keys; of equals the lower index."""
    kept = np.zeros(keys.size, bool)
    kept[np.argsort(-keys.astype(np.int64), kind="stable")[:k]] = True
    return kept


def magnitude_keys(words: Array) -> Array:
    """Larger key, larger magnitude: the bits of |f32|, or the integer itself."""
    if words.dtype == F:
        return np.asarray(np.abs(words).view(np.uint32))
    return np.asarray(np.abs(words))


def random_keys(seed: int, n: int) -> Array:
    return np.asarray(random_bits(seed, np.arange(n)) >> np.uint64(1))


def channel_errors(words: Array) -> Array:
    """Of [positions, channels]."""
    if words.dtype == F:
        return np.asarray(np.cumsum(np.abs(words), axis=0, dtype=F)[-1].view(np.uint32))
    return np.asarray(np.abs(words).sum(axis=0))


def channel_activations(q: Array, zero: int) -> Array:
    """Of the int8 output [positions, channels]."""
    return np.asarray(np.abs(q.astype(np.int64) - zero).sum(axis=0))
