"""A plan may hold a tensor only in pieces: what the walk back does not read needs no place."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from nets import LINEAR, NetBuilder, finish

from fieldloop.errors import FieldloopError
from fieldloop.image.writer import Trainable
from fieldloop.ir.op import OpKind, Window
from fieldloop.runtime import Learner, LearnerConfig, Model

LEARN, NO_PLACE = 1, 0xFFFFFFFF


class Patch:
    """An image with labels, whose section becomes the learning plan's steps."""

    def __init__(self, image: bytes) -> None:
        self.image = bytearray(image)
        count = struct.unpack_from("<I", image, 32)[0]
        self.tables: dict[bytes, int] = {}  # where the section's entry lies; of plans, the last
        for at in range(64, 64 + 16 * count, 16):
            self.tables[bytes(image[at : at + 4])] = at

    def section(self, name: bytes) -> int:
        return int(struct.unpack_from("<I", self.image, self.tables[name] + 8)[0])

    def output_of(self, op: int) -> int:
        return int(struct.unpack_from("<H", self.image, self.section(b"OPER") + 80 * op + 12)[0])

    def take_place(self, tensor: int) -> None:
        plan = self.section(b"PLAN")
        kind, _, scratch, lent = struct.unpack_from("<4I", self.image, plan)
        assert kind == LEARN
        struct.pack_into("<I", self.image, plan + 16 + 4 * tensor, NO_PLACE)
        end = scratch + lent
        for i in range(struct.unpack_from("<I", self.image, 36)[0]):
            place = struct.unpack_from("<I", self.image, plan + 16 + 4 * i)[0]
            size = struct.unpack_from("<I", self.image, self.section(b"TENS") + 44 * i + 20)[0]
            end = end if place == NO_PLACE else max(end, place + size)
        struct.pack_into("<I", self.image, plan + 4, end)

    def with_steps(self, ops: list[int]) -> bytes:
        """Only these operators run, each whole."""
        steps = struct.pack("<4I", LEARN, len(ops), 0, 0)
        steps += b"".join(struct.pack("<BBH60x", 0, 0, op) for op in ops)
        entry = struct.pack("<4sIII", b"TILE", 0, len(self.image), len(steps))
        at = self.tables[b"LABL"]
        self.image[at : at + 16] = entry
        self.image += steps
        struct.pack_into("<I", self.image, 8, len(self.image))
        struct.pack_into("<I", self.image, 12, zlib.crc32(self.image[16:]))
        return bytes(self.image)


def image_without(gone: int, ran: list[int], second: OpKind, deltas: str) -> Learner:
    """conv, a maximum, then another pool, both with windows that overlap, and a head."""
    net = NetBuilder(np.random.default_rng(1), (1, 6, 6, 2))
    net.weighted(OpKind.CONV2D, 3, Window((3, 3)))
    net.pool(OpKind.MAX_POOL, Window((2, 2)))
    net.pool(second, Window((2, 2)))
    net.flatten().weighted(OpKind.FULLY_CONNECTED, 4, clamp=LINEAR)
    graph = net.graph()
    trainables = [Trainable(graph.ops[i].name, 1e-3) for i in (0, 4)]
    patch = Patch(finish(graph, trainables, labels=("a", "b", "c", "d")).image)
    patch.take_place(patch.output_of(gone))
    image = patch.with_steps(ran)
    return Learner(Model(image), LearnerConfig(d_thr=0.0, replays=0, deltas=deltas))  # type: ignore[arg-type]


@pytest.mark.parametrize("deltas", ["f32", "int16"])
def test_an_average_asks_for_nothing_of_its_input(deltas: str) -> None:
    learner = image_without(1, [0, 3, 4], OpKind.AVG_POOL, deltas)
    for i in range(4):
        learner.train(np.full((1, 6, 6, 2), i, np.int8), i)
    assert learner.stats.trained > 0


@pytest.mark.parametrize("gone", [0, 1])
def test_what_a_maximum_asks_must_have_a_place(gone: int) -> None:
    with pytest.raises(FieldloopError):
        image_without(gone, [3, 4], OpKind.MAX_POOL, "f32")
