"""The backward pass of one sample in numpy: selection, propagation and update, stop by stop."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import q_reference as q16
import reference_select as select
import reference_step as step_rules
from reference_random import random_key
from reference_step import Layer
from reference_way import (
    Facts,
    Spot,
    Stop,
    expand,
    find_head,
    masked,
    pool_to_input,
    spots_to_input,
    spots_to_row,
    way_back,
)

from fieldloop.image.writer import Trainable
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import POOLS, WEIGHTED, Op, OpKind
from fieldloop.runtime import LearnerConfig

Array = np.ndarray[Any, Any]
F = np.float32
STREAM_SELECTION = 0x72616E64


@dataclass
class Delta:
    """dLoss/dz of a tensor: float32 words, or int64 ones times 2^exponent."""

    words: Array  # flat
    exponent: int | None = None

    def norm(self) -> Any:
        if self.exponent is None:
            return select.l1_norm(self.words)
        return q16.q_real(q16.q_l1(self.words), self.exponent)


@dataclass(frozen=True)
class Trained:
    """A stop that is trained, and what is known of it beforehand."""

    number: int  # distance: trained layers between it and the output
    channels: int
    entries: int  # of its delta
    mask: Array | None  # channels that are trained, of selector mask

    @property
    def positions(self) -> int:
        return self.entries // self.channels


class BackwardPass(Facts):
    """Trained layers, their running maxima and weights, and how one sample changes them."""

    def __init__(self, graph: Graph, trainables: list[Trainable], config: LearnerConfig) -> None:
        self.graph, self.config = graph, config
        self.int16 = config.deltas == "int16"
        self.head = find_head(graph)
        names = [op.name for op in graph.ops]
        by_distance = sorted(trainables, key=lambda t: -names.index(t.op))
        chosen = by_distance[: config.layers or len(by_distance)]
        self.lr_scales = {t.op: t.lr_scale for t in chosen}
        self.way = way_back(graph, self.head, {t.op for t in chosen})
        self.trained_stops = [stop for stop in self.way if stop.op.name in self.lr_scales]
        assert [stop.op.name for stop in self.trained_stops] == [t.op for t in chosen]
        self.trained_layers = {
            stop.op.name: self.describe(number, stop)
            for number, stop in enumerate(self.trained_stops)
        }
        known = self.trained_layers.items()
        moving = {name for name, layer in known if layer.mask is None or layer.mask.any()}
        # a mask leaves layers out: the walk ends above those at its end
        self.walk = way_back(graph, self.head, moving)

    def restart(self) -> None:
        """Factory weights, nothing learned."""
        self.layers = {stop.op.name: self.fresh_layer(stop) for stop in self.trained_stops}
        slots = [self.head.name, *(n for n in self.layers if n != self.head.name)]
        self.y_max = {name: F(0) for name in slots}
        if self.config.selector == "loss":
            self.y_max["loss"] = F(0)
        self.seed, self.steps = self.config.seed, 0
        self.backward_macs = self.gathered = self.updates = 0

    def describe(self, number: int, stop: Stop) -> Trained:
        channels = self.rows(stop.op)
        mask = None
        if self.config.selector == "mask":
            shares = [int(share * 255 + 0.5) for share in self.config.mask]
            share = shares[number] if number < len(shares) else 0
            w = self.graph.tensors[stop.op.inputs[1]].data
            assert w is not None
            importance = np.abs(self.by_row(stop.op, w).astype(int)).sum(axis=1)
            mask = select.largest(importance, select.trained_channels(channels, share))
        return Trained(number, channels, self.graph.tensors[stop.delta].size, mask)

    def fresh_layer(self, stop: Stop) -> Layer:
        op = stop.op
        w = self.graph.tensors[op.inputs[1]].data
        b = self.graph.tensors[op.inputs[2]].data if len(op.inputs) > 2 else None
        assert w is not None
        optimizer = self.config.optimizer
        if optimizer == "adam" and stop is not self.trained_stops[0]:
            optimizer = "sgd"
        layer = Layer(
            w.ravel().copy(),
            None if b is None else b.copy(),
            self.scales(op),
            self.by_row(op, np.arange(w.size).reshape(w.shape)),
            F(self.config.lr) * F(self.lr_scales[op.name]),
            F(self.quant(op.inputs[0]).scale),
            optimizer,
        )
        layer.prepare(self.config.weights)
        return layer

    # ---- what the graph says of an operator

    def weights(self, op: Op) -> Array:
        tensor = self.graph.tensors[op.inputs[1]]
        assert tensor.data is not None
        if op.name in self.layers:
            return self.layers[op.name].w.reshape(tensor.shape)
        return tensor.data

    def entry_macs(self, stop: Stop) -> int:
        """Of one entry of its delta, for an update or for propagation."""
        window = 1
        if stop.pool is not None and stop.pool.kind is OpKind.AVG_POOL:
            assert stop.pool.window is not None
            size = self.graph.tensors[stop.op.output].shape[1:3]
            window = int(np.prod(np.minimum(stop.pool.window.kernel, size)))
        return self.row_size(stop.op) * window

    def count_macs(self, stop: Stop, updated: int, propagated: int) -> int:
        return (updated + (propagated if stop.inputs else 0)) * self.entry_macs(stop)

    def dense_cost(self, stop: Stop) -> int:
        if stop.op.kind not in WEIGHTED:
            return 0
        n = self.graph.tensors[stop.delta].size
        return self.count_macs(stop, n if stop.op.name in self.layers else 0, n)

    def raise_maximum(self, name: str, y: Any) -> Any:
        self.y_max[name] = max(y, F(self.config.rho) * self.y_max[name])
        return y / self.y_max[name] if self.y_max[name] > 0 else F(0)

    def backward(self, saved: dict[str, Array], output: Array, alpha: Any) -> int:
        """`alpha`: of the output, or of the loss where that decides. Entries kept."""
        first = Delta(q16.q_from_f32(output), -15) if self.int16 else Delta(output)
        deltas, total = {self.head.output: first}, 0
        granted = self.grants(alpha)
        for name, layer in self.trained_layers.items():
            self.layers[name].entries += layer.entries
        for stop in self.walk:
            delta = deltas.pop(stop.delta)
            delta.words = masked(stop, delta.words, saved)
            chosen = delta.words
            if stop.op.name in self.layers:
                layer = self.trained_layers[stop.op.name]
                keep = self.choose(stop, layer, delta, saved, alpha, granted)
                kept = int(keep.sum())
                total += kept
                self.layers[stop.op.name].kept += kept
                chosen = np.where(keep, delta.words, delta.words.dtype.type(0))
                propagated = layer.entries if layer.mask is not None else kept
                self.backward_macs += self.count_macs(stop, kept, propagated)
            elif stop.op.kind in WEIGHTED:
                self.backward_macs += self.count_macs(stop, 0, delta.words.size)
            passed = delta.words if self.config.selector == "mask" else chosen
            self.propagate(stop, saved, delta, passed, deltas)
            if stop.op.name in self.layers:
                self.update(stop, saved, delta, chosen)
        return total

    # ---- selection

    def grants(self, alpha: Any) -> list[int]:
        """Of selector budget: what each trained layer may keep."""
        if self.config.selector != "budget":
            return []
        known = [self.trained_layers[stop.op.name] for stop in self.trained_stops]
        channel = self.config.unit == "channel"
        costs = [self.dense_cost(stop) for stop in self.trained_stops]
        counts = [layer.channels if channel else layer.entries for layer in known]
        return select.allot(self.config, alpha, costs, counts)

    def choose(
        self,
        stop: Stop,
        layer: Trained,
        delta: Delta,
        saved: dict[str, Array],
        alpha: Any,
        granted: list[int],
    ) -> Array:
        """bool [entries]: which are kept."""
        c, words, p = self.config, delta.words, layer.number
        by_channel = words.reshape(-1, layer.channels)
        if layer.mask is not None:
            return np.tile(layer.mask, layer.positions)
        n = layer.channels if c.unit == "channel" else layer.entries
        if c.selector == "dense":
            k = n
        elif c.selector == "budget":
            k = granted[p]
        elif c.selector in ("tinyprop", "tinypropv2"):
            if stop.op is not self.head:
                alpha = self.raise_maximum(stop.op.name, delta.norm())
            k = select.keep_count(c, alpha, p, n)
        else:
            undamped = dataclasses.replace(c, zeta=1.0)
            if c.selector != "loss":
                undamped, alpha = dataclasses.replace(undamped, s_min=c.s_max), F(1)
            k = select.keep_count(undamped, alpha, p, n)
        least = c.floor
        if p == 0 and c.k_rule == "integer":
            least = max(least, 16)
        elif p == 0 and c.selector not in ("tinyprop", "tinypropv2"):
            least = max(least, 2)
        k = max(k, min(least, n))
        if c.selector == "random":
            key = random_key(self.seed, self.steps, STREAM_SELECTION ^ stop.number)
            keys = select.random_keys(key, n)
        elif c.unit == "element":
            keys = select.magnitude_keys(words)
        elif c.rank == "activation":
            q = saved[stop.op.output].reshape(-1, layer.channels)
            keys = select.channel_activations(q, self.quant(stop.op.output).zero_point)
        else:
            keys = select.channel_errors(by_channel)
        kept = select.largest(keys, k)
        return np.tile(kept, layer.positions) if c.unit == "channel" else kept

    # ---- down

    def propagate(
        self,
        stop: Stop,
        saved: dict[str, Array],
        delta: Delta,
        words: Array,
        deltas: dict[str, Delta],
    ) -> None:
        """`words`: the delta's own, or those of them that are kept."""
        op = stop.op
        for name in stop.inputs:
            old = deltas.get(name)
            if op.kind in (OpKind.ADD, OpKind.RESHAPE):
                deltas[name] = self.sum_of(old, Delta(words.copy(), delta.exponent))
                continue
            shape = self.graph.tensors[name].shape
            shape = shape[1:] if len(shape) == 4 else (1, 1, self.graph.tensors[name].size)
            if not self.int16:
                into = old.words.reshape(shape) if old else np.zeros(shape, F)
                self.into_input(stop, saved, words, into, None)
                deltas[name] = Delta(into.ravel())
                continue
            fresh = np.zeros(shape, np.int64)
            grown = self.into_input(stop, saved, words, fresh, q16.q_l1(delta.words))
            sums = fresh.ravel()
            q16.fits_32_bits(sums)
            assert delta.exponent is not None
            exponent = delta.exponent + grown + q16.q_normalise(sums)
            deltas[name] = self.sum_of(old, Delta(sums, exponent))

    def sum_of(self, old: Delta | None, new: Delta) -> Delta:
        if old is None:
            return new
        if old.exponent is None or new.exponent is None:
            return Delta(old.words + new.words)
        return Delta(old.words, q16.q_add(old.words, old.exponent, new.words, new.exponent))

    def into_input(
        self, stop: Stop, saved: dict[str, Array], words: Array, into: Array, l1: int | None
    ) -> int:
        """Adds to `into` [h, w, c]; what the exponent grows by (int16)."""
        op = stop.op
        if op.kind in POOLS:
            pool_to_input(op, saved[op.inputs[0]][0], words, into)
            return 0
        scales = self.scales(op)
        spots = expand(stop, words, self.rows(op), saved)
        if l1 is None:
            spots_to_input(stop, spots, self.weights(op), lambda v, c: v * scales[c], into)
            return 0
        e = q16.q_scale_exponent(scales)
        r = q16.q_headroom(l1, self.graph.tensors[op.output].size, 128)
        mantissas = [q16.q_mantissa(scale, e) for scale in scales]

        def scaled(word: Any, c: int) -> int:
            return int(q16.q_scaled(int(word), mantissas[c], r))

        spots_to_input(stop, spots, self.weights(op), scaled, into)
        return e + 15 + r

    # ---- update

    def update(self, stop: Stop, saved: dict[str, Array], delta: Delta, chosen: Array) -> None:
        op, c = stop.op, self.config
        layer, known = self.layers[op.name], self.trained_layers[op.name]
        if known.mask is not None and not known.mask.any():
            return
        key = random_key(self.seed, self.steps, stop.number)
        x = saved[op.inputs[0]]
        x = x[0] if x.ndim == 4 else x.reshape(1, 1, -1)
        centred = x.astype(np.int64) - self.quant(op.inputs[0]).zero_point
        spots = expand(stop, chosen, known.channels, saved)
        every = spots
        if c.bias_mode == "dense":
            every = expand(stop, delta.words, known.channels, saved)
        if self.int16:
            self.update_int16(stop, layer, key, delta, spots, every, centred)
            return
        w, centred = self.weights(op), centred.astype(F)
        if c.batch == 1:
            step_rules.begin_update(layer, c)
        for row, mine in enumerate(spots):
            if not mine and not (c.batch > 1 and c.bias_mode == "dense" and layer.b is not None):
                continue
            direct = op.kind is OpKind.FULLY_CONNECTED and layer.optimizer == "sgd"
            if direct and c.batch == 1:
                flat = centred.ravel()
                step_rules.step_fully_connected_row(layer, c, key, row, mine[0].value, flat)
                continue
            gradient = spots_to_row(op, row, mine, centred, w).ravel() if mine else None
            if c.batch == 1:
                assert gradient is not None
                step_rules.step_row(layer, c, key, row, gradient)
                continue
            total = select.ordered_sum(np.array([s.value for s in every[row]], F))
            old, old_total = layer.slots.get(row, (None, F(0)))
            if old is not None and gradient is not None:
                gradient = old + gradient
            layer.slots[row] = (old if gradient is None else gradient, old_total + total)
        if layer.b is None or c.batch > 1:
            return
        for row, mine in enumerate(every):
            total = select.ordered_sum(np.array([s.value for s in mine], F))
            if mine:
                step_rules.step_bias(layer, c, key, row, total)

    def update_int16(
        self,
        stop: Stop,
        layer: Layer,
        key: int,
        delta: Delta,
        spots: list[list[Spot]],
        every: list[list[Spot]],
        centred: Array,
    ) -> None:
        op, c, r = stop.op, self.config, 0
        if op.kind is not OpKind.FULLY_CONNECTED:
            r = q16.q_headroom(q16.q_l1(delta.words), self.graph.tensors[op.output].size, 255)
        assert delta.exponent is not None
        exponent = delta.exponent + r

        def shifted(found: list[Spot]) -> list[Spot]:
            return [Spot(s.y, s.x, q16.shifted(s.value, r)) for s in found]

        for row, mine in enumerate(spots):
            if mine:
                sums = spots_to_row(op, row, shifted(mine), centred, self.weights(op)).ravel()
                step_rules.step_row_int16(layer, c, key, row, sums, exponent)
        if layer.b is None:
            return
        for row, mine in enumerate(every):
            total = sum(int(s.value) for s in shifted(mine))
            step_rules.step_bias_int16(layer, key, row, total, exponent)

    def flush(self) -> None:
        """Writes what a batch has gathered."""
        if self.gathered == 0:
            return
        count, c = F(self.gathered), self.config
        for stop in self.trained_stops:
            layer, known = self.layers[stop.op.name], self.trained_layers[stop.op.name]
            if known.mask is not None and not known.mask.any():
                continue
            key = random_key(self.seed, self.steps, stop.number)
            step_rules.begin_update(layer, c)
            for row in sorted(layer.slots):
                gradient, total = layer.slots[row]
                if gradient is not None:  # None: touched by its bias alone
                    step_rules.step_row(layer, c, key, row, gradient / count)
                if layer.b is not None:
                    step_rules.step_bias(layer, c, key, row, total / count)
            layer.slots.clear()
        self.gathered = 0
        self.updates += 1
