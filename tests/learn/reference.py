"""The learner in numpy float32: what fl_learn.h promises, to be read in one sitting.

Equal to the C core on every byte of the state. float32 everywhere (`F`), one operation after the
other, sums in ascending order of the kept entries; integers where the rule says integers.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from fieldloop.image.writer import RehearsalSet, Trainable
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import POOLS, WEIGHTED, Op, OpKind
from fieldloop.ir.reference_int8 import run_int8
from fieldloop.runtime.learner import LearnerConfig

Array = np.ndarray[Any, Any]
F = np.float32

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
    total = F(0)
    for e in delta:
        total = total + e
    delta = delta / total
    missing = F(1) - delta[label]
    delta[label] = delta[label] - F(1)
    return delta, F(2) * missing


# ---- how many, and which ----


def l1_norm(delta: Array) -> Any:
    total = F(0)
    for d in delta.ravel():
        total = total + abs(d)
    return total


def multiply_q15(a: int, b: int) -> int:
    return (a * b + 16384) >> 15


def to_q15(v: Any) -> int:
    return int(F(v) * F(32768) + F(0.5))


def keep_count(c: LearnerConfig, alpha: Any, distance: int, n: int) -> int:
    if c.k_rule == "integer":
        s_min = to_q15(c.s_min)
        s = s_min + multiply_q15(to_q15(alpha), to_q15(c.s_max) - s_min)
        for _ in range(distance):
            s = multiply_q15(s, to_q15(c.zeta))
        k = (n * s + 16384) >> 15
    else:
        ratio = F(c.s_min) + F(alpha) * (F(c.s_max) - F(c.s_min))
        for _ in range(distance):
            ratio = ratio * F(c.zeta)
        k = int(F(n) * ratio)
    return min(max(k, 1), n)


def top_k(delta: Array, k: int) -> Array:
    """Indices, ascending; larger magnitude first, then lower index."""
    order = np.lexsort((np.arange(delta.size), -np.abs(delta)))
    return np.sort(order[:k])


# ---- randomness ----

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
    m = np.minimum(np.abs(v), F(2147483520))
    whole = m.astype(np.int64)
    chance = ((m - whole.astype(F)) * F(4294967296)).astype(np.uint64)
    whole = whole + (bits < chance)
    return np.where(v < 0, -whole, whole)


# ---- windows: taps of one output that lie on the input ----


def taps(op: Op, y: int, x: int, size: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """(ky, kx, iy, ix), row by row."""
    w = op.window
    assert w is not None
    for ky in range(w.kernel[0]):
        iy = y * w.stride[0] - w.pads[0] + ky * w.dilation[0]
        for kx in range(w.kernel[1]):
            ix = x * w.stride[1] - w.pads[2] + kx * w.dilation[1]
            if 0 <= iy < size[0] and 0 <= ix < size[1]:
                yield ky, kx, iy, ix


class ReferenceLearner:
    """Learns on a quantised graph whose logits are the last operator before reshapes, softmax."""

    def __init__(
        self,
        graph: Graph,
        trainables: list[Trainable],
        config: LearnerConfig,
        uid: bytes,
        rehearsal: RehearsalSet | None = None,
    ) -> None:
        self.graph, self.config, self.uid, self.rehearsal = graph, config, uid, rehearsal
        self.producers = {op.output: op for op in graph.ops}
        head = graph.outputs[0]
        while self.producers[head].kind in (OpKind.SOFTMAX, OpKind.RESHAPE):
            head = self.producers[head].inputs[0]
        self.head = self.producers[head]
        self.classes = graph.tensors[head].size
        names = [op.name for op in graph.ops]
        by_distance = sorted(trainables, key=lambda t: -names.index(t.op))
        self.layers = by_distance[: config.layers or len(by_distance)]
        self.distance = {t.op: i for i, t in enumerate(self.layers)}
        self.numbers = {name: i for i, name in enumerate(names)}
        self.by_name = {op.name: op for op in graph.ops}
        self.reset()

    def reset(self) -> None:
        tensors = self.graph.tensors
        self.learned = {}
        for layer in self.layers:
            for name in self.by_name[layer.op].inputs[1:]:
                data = tensors[name].data
                assert data is not None
                self.learned[name] = data.copy()
        self.y_max = {self.head.name: F(0), **{t.op: F(0) for t in self.layers}}
        self.seed, self.steps, self.draws = self.config.seed, 0, 0
        self.forward_macs = self.backward_macs = self.dense_macs = 0
        self.samples = self.replayed = self.trained = self.skipped = self.refused = 0
        self.memory: list[tuple[int, Array]] = []
        self.seen = [0] * self.classes

    # ---- one sample

    def forward(self, x: Array) -> dict[str, Array]:
        tensors = dict(self.graph.tensors)
        for name, data in self.learned.items():
            tensors[name] = dataclasses.replace(tensors[name], data=data.copy())
        graph = dataclasses.replace(self.graph, tensors=tensors)
        saved: dict[str, Array] = {}
        name = graph.inputs[0]
        run_int8(graph, {name: x.reshape(graph.tensors[name].shape)}, saved.__setitem__)
        return saved

    def learn(self, x: Array, label: int) -> tuple[Any, int]:
        """Error, and entries kept (0: skipped or refused)."""
        saved = self.forward(x)
        self.steps += 1
        self.forward_macs += sum(
            self.macs(op) for op in self.graph.ops[: self.numbers[self.head.name] + 1]
        )
        self.dense_macs += self.dense_cost()
        logits = self.graph.tensors[self.head.output]
        assert logits.quant is not None
        delta, error = output_error(
            saved[logits.name].ravel(), logits.quant.scale, logits.quant.zero_point, label
        )
        if not np.isfinite(error):
            self.refused += 1
            return error, 0
        alpha = self.raise_maximum(self.head.name, error)
        c = self.config
        metric = F(c.d_min) + alpha * (F(c.d_max) - F(c.d_min))
        if c.selector == "tinypropv2" and not metric > F(c.d_thr):
            self.skipped += 1
            return error, 0
        self.trained += 1
        return error, self.backward(saved, delta, alpha)

    def raise_maximum(self, name: str, y: Any) -> Any:
        self.y_max[name] = max(y, F(self.config.rho) * self.y_max[name])
        return y / self.y_max[name] if self.y_max[name] > 0 else F(0)

    def backward(self, saved: dict[str, Array], delta: Array, alpha: Any) -> int:
        op, total = self.head, 0
        while True:
            kept = np.arange(delta.size)
            layer = op.name in self.distance
            if layer:
                kept = self.choose(op, delta, alpha)
                total += kept.size
                self.backward_macs += kept.size * self.row_size(op)
            lowest = layer and self.distance[op.name] == len(self.layers) - 1
            below = None if lowest else self.propagate(op, saved, delta, kept)
            if layer:
                self.update(op, saved, delta, kept)
            if below is None:
                return total
            op = self.producers[op.inputs[0]]
            delta = self.mask(op, saved, below)

    def choose(self, op: Op, delta: Array, alpha: Any) -> Array:
        c, p, n = self.config, self.distance[op.name], delta.size
        if c.selector == "dense":
            return np.arange(n)
        if c.selector == "topk":
            static = dataclasses.replace(c, s_min=c.s_max, zeta=1.0)
            k = keep_count(static, F(1), p, n)
            return top_k(delta, min(max(k, 2), n) if p == 0 else k)
        if op is not self.head:
            alpha = self.raise_maximum(op.name, l1_norm(delta))
        return top_k(delta, keep_count(c, alpha, p, n))

    def mask(self, op: Op, saved: dict[str, Array], delta: Array) -> Array:
        """The clamp folded into `op`; a pool without one passes everything."""
        if op.kind is OpKind.RESHAPE:
            return delta
        low, high = op.fixed.act_min, op.fixed.act_max  # type: ignore[union-attr]
        if op.kind in POOLS and (low, high) == (-128, 127):
            return delta
        q = saved[op.output].ravel().astype(int)
        return np.where((low < q) & (q < high), delta, F(0))

    # ---- operators, each with its way back

    def scales(self, op: Op) -> Array:
        quant = self.graph.tensors[op.inputs[1]].quant
        assert quant is not None
        return np.broadcast_to(np.array(quant.scales, F), (self.rows(op),))

    def rows(self, op: Op) -> int:
        shape = self.graph.tensors[op.inputs[1]].shape
        return shape[3] if op.kind is OpKind.DEPTHWISE_CONV2D else shape[0]

    def row_size(self, op: Op) -> int:
        return self.graph.tensors[op.inputs[1]].size // self.rows(op)

    def macs(self, op: Op) -> int:
        if op.kind not in WEIGHTED:
            return 0
        return self.graph.tensors[op.output].size * self.row_size(op)

    def dense_cost(self) -> int:
        op, cost = self.head, 0
        while True:
            if op.name in self.distance:
                cost += self.macs(op)
                if self.distance[op.name] == len(self.layers) - 1:
                    return cost
            cost += self.macs(op)
            op = self.producers[op.inputs[0]]

    def weights(self, op: Op) -> Array:
        name = op.inputs[1]
        data = self.learned.get(name, self.graph.tensors[name].data)
        assert data is not None
        return data

    def propagate(self, op: Op, saved: dict[str, Array], delta: Array, kept: Array) -> Array:
        if op.kind is OpKind.RESHAPE:
            return delta
        x = saved[op.inputs[0]][0]
        into = np.zeros(x.shape, F)
        if op.kind in POOLS:
            self.pool_back(op, x, delta, into)
            return into.ravel()
        self.backward_macs += kept.size * self.row_size(op)
        w, scales = self.weights(op), self.scales(op)
        for i in kept:
            scaled = delta[i] * scales[i % self.rows(op)]
            if op.kind is OpKind.FULLY_CONNECTED:
                into += (scaled * w[i].astype(F)).reshape(into.shape)
                continue
            y, xx, o = np.unravel_index(i, self.graph.tensors[op.output].shape[1:])
            for ky, kx, iy, ix in taps(op, int(y), int(xx), x.shape):
                if op.kind is OpKind.CONV2D:
                    into[iy, ix] += scaled * w[o, ky, kx].astype(F)
                else:
                    into[iy, ix, o * x.shape[2] // w.shape[3]] += scaled * F(w[0, ky, kx, o])
        return into.ravel()

    def pool_back(self, op: Op, x: Array, delta: Array, into: Array) -> None:
        shape = self.graph.tensors[op.output].shape[1:]
        for i, d in enumerate(delta):
            y, xx, c = (int(v) for v in np.unravel_index(i, shape))
            places = [(iy, ix) for _, _, iy, ix in taps(op, y, xx, x.shape)]
            if op.kind is OpKind.AVG_POOL:
                for iy, ix in places:
                    into[iy, ix, c] += d / F(len(places))
            else:
                into[(*max(places, key=lambda p: x[p[0], p[1], c]), c)] += d  # the first of equals

    def gradient_rows(
        self, op: Op, x: Array, delta: Array, kept: Array
    ) -> Iterator[tuple[int, Array, Array, Array]]:
        """(row, places in w, gradient, sum of kept deltas), rows ascending."""
        quant = self.graph.tensors[op.inputs[0]].quant
        assert quant is not None
        centred = (x.astype(np.int32) - quant.zero_point).astype(F)
        w = self.weights(op)
        places = np.arange(w.size).reshape(w.shape)
        channels = self.rows(op)
        shape = self.graph.tensors[op.output].shape
        for row in sorted({int(i) % channels for i in kept}):
            mine = [int(i) for i in kept if i % channels == row]
            total = F(0)
            for i in mine:
                total = total + delta[i]
            if op.kind is OpKind.FULLY_CONNECTED:
                yield row, places[row], centred.ravel(), total
                continue
            depthwise = op.kind is OpKind.DEPTHWISE_CONV2D
            gradient = np.zeros(w.shape[1:3] if depthwise else w.shape[1:], F)
            for i in mine:
                y, xx, _ = (int(v) for v in np.unravel_index(i, shape[1:]))
                for ky, kx, iy, ix in taps(op, y, xx, x.shape):
                    pixel = centred[iy, ix]
                    source = pixel[row * x.shape[2] // channels] if depthwise else pixel
                    gradient[ky, kx] += delta[i] * source
            yield row, places[0, ..., row] if depthwise else places[row], gradient, total

    def update(self, op: Op, saved: dict[str, Array], delta: Array, kept: Array) -> None:
        layer = self.layers[self.distance[op.name]]
        quant = self.graph.tensors[op.inputs[0]].quant
        assert quant is not None
        lr = F(self.config.lr) * F(layer.lr_scale)
        x_scale, scales = F(quant.scale), self.scales(op)
        key = random_key(self.seed, self.steps, self.numbers[op.name])
        w = self.learned[op.inputs[1]]
        x = saved[op.inputs[0]][0]
        bias = dict[int, Any]()
        for row, places, gradient, total in self.gradient_rows(op, x, delta, kept):
            factor = (lr * x_scale) / scales[row]
            if op.kind is OpKind.FULLY_CONNECTED:
                steps = (factor * delta[row]) * gradient
            else:
                steps = factor * gradient
            with np.errstate(over="ignore"):
                moves = round_stochastic(steps, random_bits(key, places))
            # -128 does not occur among the weights, so the clamp moves only what was moved
            moved = np.clip(w.ravel()[places] - moves, -127, 127)
            w.ravel()[places] = np.where(gradient != 0, moved, w.ravel()[places])
            bias[row] = total
        if len(op.inputs) == 2:
            return
        if self.config.bias_mode == "dense":
            for row, column in enumerate(delta.reshape(-1, self.rows(op)).T):
                bias[row] = F(0)
                for d in column:
                    bias[row] = bias[row] + d
        b = self.learned[op.inputs[2]]
        for row, total in bias.items():
            step = np.array((lr / (x_scale * scales[row])) * total)
            move = int(round_stochastic(step, random_bits(key, w.size + row)))
            b[row] = min(max(int(b[row]) - move, -(2**30)), 2**30)

    # ---- rehearsal

    def below(self, n: int) -> int:
        bits = int(random_bits(random_key(self.seed, 0, 0x72656873), self.draws))
        self.draws += 1
        return bits * n >> 32

    def offer(self, x: Array, label: int) -> None:
        capacity = self.config.memory
        if capacity == 0:
            return
        self.seen[label] += 1
        if len(self.memory) < capacity:
            self.memory.append((label, x.copy()))
            return
        labels = [y for y, _ in self.memory]
        counts = [labels.count(c) for c in range(self.classes)]
        quota = max(1, capacity // len({*labels, label}))
        if counts[label] < quota:
            victim, n = int(np.argmax(counts)), self.below(max(counts))
        else:
            victim, n = label, self.below(self.seen[label])
        if n < counts[victim]:
            place = [i for i, y in enumerate(labels) if y == victim][n]
            self.memory[place] = (label, x.copy())

    def draw(self) -> tuple[int, Array] | None:
        stored = (
            [
                (int(y), x.ravel())
                for y, x in zip(self.rehearsal.labels, self.rehearsal.samples, strict=True)
            ]
            if self.rehearsal
            else []
        )
        stored += self.memory
        classes = sorted({y for y, _ in stored if y < self.classes})
        if not classes:
            return None
        c = classes[self.below(len(classes))]
        mine = [item for item in stored if item[0] == c]
        return mine[self.below(len(mine))]

    def train(self, x: Array, label: int) -> tuple[Any, int]:
        self.samples += 1
        return self.learn(x, label)

    def step(self, x: Array, label: int) -> tuple[Any, int]:
        refused = self.refused
        result = self.train(x, label)
        if self.refused != refused:
            return result
        self.offer(x, label)
        for _ in range(self.config.replays):
            drawn = self.draw()
            if drawn is None:
                break
            self.learn(drawn[1], drawn[0])
            self.replayed += 1
        return result

    # ---- the state, byte by byte

    def state(self) -> bytes:
        c, sample_bytes = self.config, self.graph.tensors[self.graph.inputs[0]].bytes
        y_max = struct.pack(f"<{len(self.y_max)}f", *self.y_max.values())
        layers = b""
        for layer in self.layers:
            op = self.by_name[layer.op]
            if len(op.inputs) > 2:
                layers += self.learned[op.inputs[2]].astype("<i4").tobytes()
            w = self.learned[op.inputs[1]].tobytes()
            layers += w + bytes(-len(w) % 4)
        memory = b""
        if c.memory:
            free = c.memory - len(self.memory)
            memory = struct.pack(f"<{self.classes}I", *self.seen)
            memory += b"".join(struct.pack("<H", y) for y, _ in self.memory) + bytes(2 * free)
            memory += b"".join(x.tobytes() for _, x in self.memory) + bytes(free * sample_bytes)
        stats = struct.pack(
            "<3Q6I",
            self.forward_macs,
            self.backward_macs,
            self.dense_macs,
            self.samples,
            self.replayed,
            self.trained,
            self.skipped,
            self.refused,
            len(self.memory),
        )
        total = 112 + len(y_max) + len(layers) + len(memory)
        head = struct.pack("<4sHHII", b"FLS1", 1, len(self.layers), total, c.memory) + self.uid
        head += struct.pack(
            "<5I12x", sample_bytes, len(self.y_max), self.seed, self.steps, self.draws
        )
        return head + stats + y_max + layers + memory
