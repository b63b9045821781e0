"""Writing what was learned, in numpy: one step of a row of weights, or of a bias."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import q_reference as q16
from reference_random import random_bits, round_stochastic

from fieldloop.runtime import LearnerConfig

Array = np.ndarray[Any, Any]
F = np.float32
ONE = F(1)
BIAS_LIMIT = 2**30


@dataclass
class Layer:
    """What is learned of one layer. Flat arrays, in the order of w; None: not kept."""

    w: Array  # int8
    b: Array | None  # int32 [rows]
    scales: Array  # f32 [rows]
    places: Array  # int [rows, weights of a row]: index in w
    lr: Any
    x_scale: Any
    optimizer: str
    low: Array | None = None
    master: Array | None = None
    moment1: Array | None = None
    moment2: Array | None = None
    bias_moment1: Array | None = None
    bias_moment2: Array | None = None
    entries: int = 0
    kept: int = 0
    clipped: int = 0
    decay1: Any = ONE
    decay2: Any = ONE
    slots: dict[int, tuple[Array | None, Any]] = field(default_factory=dict)  # of a batch, by row

    @property
    def rows(self) -> int:
        return len(self.scales)

    def prepare(self, weights: str) -> None:
        """The arrays that the settings ask for, as they are in a fresh state."""
        n = self.w.size
        if weights == "int16":
            self.low = np.zeros(n, np.int8)
        if weights == "f32":
            self.master = self.w.astype(F)
        bias = 0 if self.b is None else self.rows
        if self.optimizer != "sgd":
            self.moment1, self.bias_moment1 = np.zeros(n, F), np.zeros(bias, F)
        if self.optimizer == "adam":
            self.moment2, self.bias_moment2 = np.zeros(n, F), np.zeros(bias, F)

    def state(self) -> bytes:
        made = b"" if self.b is None else self.b.astype("<i4").tobytes()
        for part in (self.w, self.low):
            if part is not None:
                made += part.tobytes() + bytes(-part.size % 4)
        moments = (self.moment1, self.moment2, self.bias_moment1, self.bias_moment2)
        for floats in (self.master, *moments):
            if floats is not None:
                made += floats.astype("<f4").tobytes()
        return made


def begin_update(layer: Layer, c: LearnerConfig) -> None:
    """Once for every update of a layer, before its rows."""
    if layer.optimizer == "adam":
        layer.decay1 = layer.decay1 * F(c.beta1)
        layer.decay2 = layer.decay2 * F(c.beta2)


def step_fully_connected_row(
    layer: Layer, c: LearnerConfig, key: int, row: int, delta: Any, centred: Array
) -> None:
    """SGD without the detour over a gradient."""
    factor = (layer.lr * layer.x_scale) / layer.scales[row]
    write(layer, c, key, layer.places[row], (factor * delta) * centred, centred != 0)


def step_row(layer: Layer, c: LearnerConfig, key: int, row: int, gradient: Array) -> None:
    g, places = gradient.ravel(), layer.places[row]
    scale = layer.scales[row]
    with np.errstate(over="ignore"):
        if layer.optimizer == "sgd":
            write(layer, c, key, places, ((layer.lr * layer.x_scale) / scale) * g, g != 0)
            return
        assert layer.moment1 is not None
        everything = np.ones(g.size, bool)
        if layer.optimizer == "momentum":
            m = F(c.beta1) * layer.moment1[places] + g
            layer.moment1[places] = m
            steps = ((layer.lr * layer.x_scale) / scale) * m
        else:
            assert layer.moment2 is not None
            real = np.clip(layer.x_scale * g, F(-1e15), F(1e15))
            m, v, ratio = adam(layer, c, layer.moment1[places], layer.moment2[places], real)
            layer.moment1[places], layer.moment2[places] = m, v
            steps = (layer.lr / scale) * ratio
        write(layer, c, key, places, steps, everything)


def adam(layer: Layer, c: LearnerConfig, m: Any, v: Any, g: Any) -> tuple[Any, Any, Any]:
    """The moments after `g`, and what a rate of 1 would subtract."""
    m = F(c.beta1) * m + (F(1) - F(c.beta1)) * g
    v = F(c.beta2) * v + (F(1) - F(c.beta2)) * g * g
    root = np.sqrt(v / (F(1) - layer.decay2))
    return m, v, (m / (F(1) - layer.decay1)) / (root + F(1e-7))


def write(
    layer: Layer, c: LearnerConfig, key: int, places: Array, steps: Array, moves: Array
) -> None:
    """Weights at `places` where `moves`: less `steps`, in steps of the int8 part."""
    limit = F(c.max_step)
    places, steps = places[moves], steps[moves]
    cut = np.abs(steps) > limit
    steps = np.clip(steps, -limit, limit)
    bits = random_bits(key, places)
    if layer.master is not None:
        wanted: Array = layer.master[places] - steps
        held = np.clip(wanted, F(-127), F(127))
        layer.master[places] = held
        layer.w[places] = nearest(held)
    else:
        fine = 1 if layer.low is None else 256  # of a step of the int8 part
        value = layer.w[places].astype(np.int64) * fine
        if layer.low is not None:
            value += layer.low[places]
        moves = round_stochastic(steps * F(fine), bits)
        wanted = value - moves
        # a step that rounds to 0 moves nothing, whatever the weight
        held = np.where(moves == 0, value, np.clip(wanted, -127 * fine, 127 * fine))
        store(layer, places, held)
    layer.clipped += int((cut | (wanted != held)).sum())


def store(layer: Layer, places: Array, value: Array) -> None:
    """In steps of 1/256 where there is a low byte."""
    if layer.low is None:
        layer.w[places] = value
    else:
        layer.w[places] = (value + 128) >> 8
        layer.low[places] = value - ((value + 128) >> 8) * 256


def nearest(v: Array) -> Array:
    """The nearest integers, halves away from zero."""
    whole = np.trunc(v)
    return whole + np.where(np.abs(v - whole) >= F(0.5), np.sign(v), F(0))


def step_bias(layer: Layer, c: LearnerConfig, key: int, row: int, total: Any) -> None:
    if total == 0:
        return
    assert layer.b is not None
    factor = layer.lr / (layer.x_scale * layer.scales[row])
    with np.errstate(over="ignore"):
        if layer.optimizer == "sgd":
            step = factor * total
        else:
            assert layer.bias_moment1 is not None
            if layer.optimizer == "momentum":
                m = F(c.beta1) * layer.bias_moment1[row] + total
                step = factor * m
            else:
                assert layer.bias_moment2 is not None
                moments = layer.bias_moment1[row], layer.bias_moment2[row]
                real = np.clip(total, F(-1e15), F(1e15))
                m, layer.bias_moment2[row], ratio = adam(layer, c, *moments, real)
                step = factor * ratio
            layer.bias_moment1[row] = m
    move = int(round_stochastic(np.array(step), random_bits(key, layer.w.size + row)))
    layer.b[row] = min(max(int(layer.b[row]) - move, -BIAS_LIMIT), BIAS_LIMIT)


def step_row_int16(
    layer: Layer, c: LearnerConfig, key: int, row: int, sums: Array, exponent: int
) -> None:
    places = layer.places[row]
    step = int(places[1] - places[0]) if places.size > 1 else 1
    rule = q16.Rule(float(layer.lr), float(layer.x_scale), 0, layer.scales, key, c.max_step)
    # places[0] is row * row_stride: q_step_row takes it apart again
    trained = q16.Trained(layer.w, layer.low, int(places[0]) // row if row else 0, step)
    layer.clipped += q16.q_step_row(rule, trained, row, sums, exponent)


def step_bias_int16(layer: Layer, key: int, row: int, total: int, exponent: int) -> None:
    assert layer.b is not None
    rule = q16.Rule(float(layer.lr), float(layer.x_scale), 0, layer.scales, key, 0)
    index = layer.w.size + row
    layer.b[row] = q16.q_step_bias(rule, row, total, exponent, index, int(layer.b[row]))
