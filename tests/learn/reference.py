"""The learner in numpy: what fl_learn.h promises, to be read in one sitting.

Equal to the C core on every byte of the state. float32 everywhere (`F`), one operation after the
other, sums in ascending order of the kept entries; integers where the rule says integers. Beside
it: reference_select.py (how many, which), reference_way.py (operators), reference_backward.py
(deltas), reference_step.py (weights), reference_random.py.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import numpy as np
import reference_select as select
from reference_backward import BackwardPass
from reference_random import random_bits as random_bits
from reference_random import random_key as random_key

from fieldloop.image.writer import RehearsalSet, Trainable
from fieldloop.ir.graph import Graph
from fieldloop.ir.reference_int8 import run_int8
from fieldloop.runtime import LearnerConfig

Array = np.ndarray[Any, Any]
F = np.float32
STREAM_REHEARSAL = 0x72656873


class ReferenceLearner(BackwardPass):
    """Learns on a quantised graph whose logits are the last operator before reshapes, softmax."""

    def __init__(
        self,
        graph: Graph,
        trainables: list[Trainable],
        config: LearnerConfig,
        uid: bytes,
        rehearsal: RehearsalSet | None = None,
    ) -> None:
        super().__init__(graph, trainables, config)
        self.uid, self.rehearsal = uid, rehearsal
        self.classes = graph.tensors[self.head.output].size
        self.reset()

    def reset(self) -> None:
        self.restart()
        self.draws = self.forward_macs = self.dense_macs = 0
        self.samples = self.replayed = self.trained = self.skipped = self.refused = 0
        self.clamped = 0
        self.memory: list[tuple[int, Array]] = []
        self.seen = [0] * self.classes

    # ---- one sample

    def forward(self, x: Array) -> dict[str, Array]:
        tensors = dict(self.graph.tensors)
        for stop in self.trained_stops:
            learned = self.layers[stop.op.name]
            for name, data in zip(stop.op.inputs[1:], (learned.w, learned.b), strict=False):
                data = data.reshape(tensors[name].shape).copy()  # type: ignore[union-attr]
                tensors[name] = dataclasses.replace(tensors[name], data=data)
        graph = dataclasses.replace(self.graph, tensors=tensors)
        saved: dict[str, Array] = {}
        name = graph.inputs[0]
        run_int8(graph, {name: x.reshape(graph.tensors[name].shape)}, saved.__setitem__)
        return saved

    def learn(self, x: Array, label: int) -> tuple[Any, int]:
        """Error, and entries kept (0: skipped or refused)."""
        c, saved = self.config, self.forward(x)
        self.steps += 1
        before_logits = self.graph.ops[: self.graph.ops.index(self.head) + 1]
        self.forward_macs += sum(self.macs(op) for op in before_logits)
        self.dense_macs += sum(self.dense_cost(stop) for stop in self.way)
        q, quant = saved[self.head.output].ravel(), self.quant(self.head.output)
        delta, error = select.output_error(q, quant.scale, quant.zero_point, label)
        if not np.isfinite(error):
            self.refused += 1
            return error, 0
        alpha = self.raise_maximum(self.head.name, error)
        metric = F(c.d_min) + alpha * (F(c.d_max) - F(c.d_min))
        if select.skips(c) and not metric > F(c.d_thr):
            self.skipped += 1
            return error, 0
        if c.selector == "loss":
            alpha = self.raise_maximum("loss", select.loss(error / F(2)))
        kept = self.backward(saved, delta, alpha)
        self.trained += 1
        if c.batch == 1:
            self.updates += 1
            return error, kept
        self.gathered += 1
        if self.gathered == c.batch:
            self.flush()
        return error, kept

    # ---- rehearsal

    def below(self, n: int) -> int:
        bits = int(random_bits(random_key(self.seed, 0, STREAM_REHEARSAL), self.draws))
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

    def held_out(self, i: int) -> bool:
        n = self.config.holdout
        return n > 0 and i % n == n - 1

    def draw(self) -> tuple[int, Array] | None:
        stored: list[tuple[int, Array]] = []
        if self.rehearsal:
            pairs = zip(self.rehearsal.labels, self.rehearsal.samples, strict=True)
            for i, (y, x) in enumerate(pairs):
                if not self.held_out(i):
                    stored.append((int(y), x.ravel()))
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

    def quantize(self, real: Array) -> Array | None:
        """int8 samples; None: refused."""
        if not np.isfinite(real).all():
            self.refused += 1
            return None
        quant = self.quant(self.graph.inputs[0])
        steps = np.rint(real.astype(np.float64) / quant.scale) + quant.zero_point
        self.clamped += bool(((steps < -128) | (steps > 127)).any())
        return np.asarray(np.clip(steps, -128, 127), np.int8)

    def evaluate(self) -> tuple[int, int]:
        """Right, of how many."""
        if self.rehearsal is None:
            return 0, 0
        right = total = 0
        pairs = zip(self.rehearsal.labels, self.rehearsal.samples, strict=True)
        for i, (y, x) in enumerate(pairs):
            if self.config.holdout == 0 or self.held_out(i):
                right += int(self.forward(x)[self.head.output].argmax() == y)
                total += 1
        return right, total

    # ---- the state, byte by byte

    def state(self) -> bytes:
        c, sample_bytes = self.config, self.graph.tensors[self.graph.inputs[0]].bytes
        floats = [*self.y_max.values(), *[F(0)] * (len(self.y_max) % 2)]
        body = struct.pack(f"<{len(floats)}f", *floats)
        for layer in self.layers.values():
            counters = layer.entries, layer.kept, layer.clipped
            body += struct.pack("<3Q2f", *counters, layer.decay1, layer.decay2)
        for layer in self.layers.values():
            body += layer.state()
        if c.memory:
            free = c.memory - len(self.memory)
            body += struct.pack(f"<{self.classes}I", *self.seen)
            body += b"".join(struct.pack("<H", y) for y, _ in self.memory) + bytes(2 * free)
            body += b"".join(x.tobytes() for _, x in self.memory) + bytes(free * sample_bytes)
        stats = struct.pack(
            "<4Q8I",
            self.forward_macs,
            self.backward_macs,
            self.dense_macs,
            sum(layer.clipped for layer in self.layers.values()),
            self.samples,
            self.replayed,
            self.trained,
            self.skipped,
            self.refused,
            len(self.memory),
            self.clamped,
            self.updates,
        )
        kinds = ("int8", "int16", "f32").index(c.weights), _OPTIMIZERS.index(c.optimizer)
        total = 128 + len(body)
        head = struct.pack("<4sHHII", b"FLS1", 2, len(self.layers), total, c.memory) + self.uid
        numbers = sample_bytes, len(self.y_max), self.seed, self.steps, self.draws
        return head + struct.pack("<5I2B10x", *numbers, *kinds) + stats + body


_OPTIMIZERS = ("sgd", "momentum", "adam")
