"""The learner's scratch in the plan: what the backward pass needs beside the tensors it reads.

Once the forward pass is over, most of the arena is dead: only the tensors that the backward pass
reads are left. There its deltas, the gradient of one row and the list of kept entries find room.
The sizes are those of cmodules/fieldloop/learn, counted here a second time so that a plan
can be made before there is an image; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import WEIGHTED, OpKind
from fieldloop.plan.types import Buffer
from fieldloop.plan.way import Hop, NoWayError, walk_back

ALIGNMENT = 16  # of the scratch in the arena
_WORD = 4  # of a delta or a row
_INDEX = 2  # of a kept entry
_Q15 = 32768
_LISTED = 16  # every so many-th entry of a delta has room in the list ...
_LEAST_LISTED = 64  # ... or so many, whatever is more
_LEAST_AT_OUTPUT = 16  # entries kept of the head


class Settings(Protocol):
    """What decides a learner's scratch: fields of LearnerConfig."""

    @property
    def selector(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def search(self) -> str: ...
    @property
    def bias_mode(self) -> str: ...
    @property
    def k_rule(self) -> str: ...
    @property
    def deltas(self) -> str: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def floor(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def s_min(self) -> float: ...
    @property
    def s_max(self) -> float: ...
    @property
    def zeta(self) -> float: ...
    @property
    def mask(self) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """The learner's own settings; a test holds them against LearnerConfig's."""

    selector: str = "tinypropv2"
    unit: str = "element"
    search: str = "auto"
    bias_mode: str = "topk"
    k_rule: str = "integer"
    deltas: str = "f32"
    optimizer: str = "sgd"
    floor: int = 1
    batch: int = 1
    s_min: float = 0.1
    s_max: float = 0.9
    zeta: float = 0.5
    mask: tuple[float, ...] = ()


USUAL = Usual()


def scratch_bytes(graph: Graph, layers: Collection[str], settings: Settings = USUAL) -> int:
    """Scratch of a learner that trains `layers` (names of operators), to the byte.

    0 where the walk back from the output does not come to all of them: nothing can learn there.
    """
    try:
        hops = walk_back(graph, layers)
    except NoWayError:
        return 0
    trained = _trained(graph, hops)
    row = max(_row_words(layer, settings) for layer in trained)
    kept = max(_listed(layer, settings) for layer in trained)
    return (delta_words(graph, hops, settings) + row) * _WORD + kept * _INDEX


def worst_bytes(graph: Graph, layers: Collection[str]) -> int:
    """No settings of a learner that trains these layers need more scratch."""
    f32 = Usual(selector="budget", bias_mode="dense", batch=2)
    int16 = replace(f32, deltas="int16")
    by_channel = replace(f32, unit="channel")
    try:
        hops = walk_back(graph, layers)
    except NoWayError:
        return 0
    trained = _trained(graph, hops)
    deltas = max(delta_words(graph, hops, each) for each in (f32, int16))
    row = max(_row_words(layer, each) for layer in trained for each in (f32, by_channel))
    kept = max(layer.entries for layer in trained)  # by the papers' rule a small head has a list
    return (deltas + row) * _WORD + kept * _INDEX


def offers(graph: Graph, layers: Collection[str]) -> tuple[int, int, int]:
    """Scratch with the learner's own settings; what to plan for those; and for any settings.

    Planned in whole words: a learner without a list of kept entries then ends where the scratch
    ends.
    """
    needed = scratch_bytes(graph, layers)
    usual, worst = (-(-n // _WORD) * _WORD for n in (needed, worst_bytes(graph, layers)))
    return needed, usual, worst


def pays(alone: int, joint: int, needed: int) -> bool:
    """Does an arena of `joint` bytes, with scratch, cost no more than one of `alone` and a learner
    that brings the `needed` bytes in a block of its own? A block begins at a multiple of 16.

    Kernels that have scratch of their own put it behind the activations, where the learner's may
    lie, so that the joint arena is no larger for them either.
    """
    return joint <= aligned(alone) + needed


def aligned(offset: int) -> int:
    """Where the scratch may begin, from `offset` on."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def backward_buffer(graph: Graph, scratch: int) -> Buffer:
    """What `scratch` bytes of the learner are to a layout: live at the end only, as the caller."""
    end = len(graph.ops) + 1
    return Buffer((), scratch, ALIGNMENT, end, end)


# ---- deltas


def delta_words(graph: Graph, hops: Sequence[Hop], settings: Settings) -> int:
    """Words that the deltas of a walk need, laid out in the order of their birth: in turn as low
    and as high as they go, in the room that the most of them need at one time, or a little more.
    """
    deltas = _deltas(graph, hops, adds_apart=settings.deltas == "int16")
    steps = range(-1, len(hops))
    room = max(
        sum(delta.words for delta in deltas if delta.born <= step <= delta.dies) for step in steps
    )
    while not _fits(deltas, room):
        room += 16
    return room


@dataclass(frozen=True, slots=True)
class _Delta:
    """Live from step `born` to step `dies` of the walk, both included; -1: the output's error."""

    words: int
    born: int
    dies: int


def _deltas(graph: Graph, hops: Sequence[Hop], *, adds_apart: bool) -> list[_Delta]:
    """Every delta of the walk, in the order of birth.

    `adds_apart`: what is added to a delta that exists is made in words of its own first.
    """
    size = {name: tensor.size for name, tensor in graph.tensors.items()}
    deltas: list[_Delta] = []
    holder: dict[str, int] = {}  # tensor -> its delta

    def bear(tensor: str, words: int, step: int) -> None:
        holder[tensor] = len(deltas)
        deltas.append(_Delta(words, step, len(hops)))

    bear(hops[0].op.output, size[hops[0].op.output], -1)
    for step, hop in enumerate(hops):
        mine = holder[hop.op.output]
        goes_on = False
        if hop.fused or hop.op.kind is OpKind.RESHAPE:
            hands_on, copied = hop.down[-1], None
        elif hop.op.kind is OpKind.ADD:
            hands_on, copied = hop.down[-1], hop.down[0] if len(hop.down) == 2 else None
        else:
            hands_on, copied = None, hop.down[0] if hop.down else None
        if copied is not None and copied not in holder:
            bear(copied, size[copied], step)
        elif copied is not None and adds_apart and hop.op.kind is not OpKind.ADD:
            deltas.append(_Delta(size[copied], step, step))
        if hands_on is not None and hands_on not in holder:
            holder[hands_on] = mine
            goes_on = True
        if not goes_on:
            deltas[mine] = replace(deltas[mine], dies=step)
    return deltas


def _fits(deltas: Sequence[_Delta], room: int) -> bool:
    placed: list[tuple[int, _Delta]] = []
    for i, delta in enumerate(deltas):
        meets = sorted(
            (at, at + other.words)
            for at, other in placed
            if other.born <= delta.dies and delta.born <= other.dies
        )
        find = _lowest if i % 2 == 0 else _highest
        at = find(meets, delta.words, room)
        if at is None:
            return False
        placed.append((at, delta))
    return True


def _lowest(meets: Sequence[tuple[int, int]], words: int, room: int) -> int | None:
    """The lowest offset of so many words below `room` that is clear of what it meets."""
    at = 0
    for start, end in meets:
        if at + words <= start:
            break
        at = max(at, end)
    return at if at + words <= room else None


def _highest(meets: Sequence[tuple[int, int]], words: int, room: int) -> int | None:
    mirrored = sorted((room - end, room - start) for start, end in meets)
    at = _lowest(mirrored, words, room)
    return None if at is None else room - words - at


# ---- the row, and the list


@dataclass(frozen=True, slots=True)
class _Layer:
    """A trained layer: `entries` of the delta that it selects from, after a pool that is fused."""

    distance: int
    channels: int
    row: int  # weights of one output channel
    entries: int
    is_map: bool


def _trained(graph: Graph, hops: Sequence[Hop]) -> list[_Layer]:
    layers: list[_Layer] = []
    for hop in hops:
        if not hop.trained or hop.op.kind not in WEIGHTED:
            continue
        w = graph.tensors[hop.op.inputs[1]]
        channels = w.shape[3 if hop.op.kind is OpKind.DEPTHWISE_CONV2D else 0]
        selected = hop.op if hop.pool is None else hop.pool
        layers.append(
            _Layer(
                distance=len(layers),
                channels=channels,
                row=w.size // channels,
                entries=graph.tensors[selected.output].size,
                is_map=hop.op.kind is not OpKind.FULLY_CONNECTED,
            )
        )
    return layers


def _row_words(layer: _Layer, s: Settings) -> int:
    """Of one row's gradient, or of the importance of every channel."""
    steps_apart = s.optimizer == "momentum" or (s.optimizer == "adam" and layer.distance == 0)
    row = layer.row if layer.is_map or s.batch > 1 or steps_apart else 0
    return max(row, layer.channels) if s.unit == "channel" or s.selector == "mask" else row


def _listed(layer: _Layer, s: Settings) -> int:
    """Most kept entries that are listed; where there are more the others are set to zero.

    None where all of them are kept anyway, or always more than there is room for.
    """
    if s.selector == "dense":
        return 0
    if s.selector == "mask":
        share = s.mask[layer.distance] if layer.distance < len(s.mask) else 0.0
        in_255 = int(share * 255 + 0.5)
        return max(1, (layer.channels * in_255 + 127) // 255) if in_255 else 0
    n = layer.channels if s.unit == "channel" else layer.entries
    most = _most_kept(layer, n, s)
    least = most if s.selector in ("topk", "random") else _least_kept(layer, n, s)
    if least == n:
        return 0
    if s.unit == "channel" or s.bias_mode == "dense" or s.search == "heap":
        return most
    room = max(layer.entries // _LISTED, _LEAST_LISTED)
    return min(most, room) if least <= room else 0


def _most_kept(layer: _Layer, n: int, s: Settings) -> int:
    """Of n, for a sample whose error is the largest so far."""
    if s.selector == "budget":
        return n
    if s.selector in ("tinyprop", "tinypropv2"):
        most = keep_count(s, s.s_min, s.zeta, layer.distance, n)
    else:
        most = keep_count(s, s.s_max if s.selector != "loss" else s.s_min, 1.0, 0, n)
    return max(most, _least_kept(layer, n, s))


def _least_kept(layer: _Layer, n: int, s: Settings) -> int:
    least = s.floor
    if layer.distance == 0:
        by_paper = 1 if s.selector in ("tinyprop", "tinypropv2") else 2
        least = max(least, _LEAST_AT_OUTPUT if s.k_rule == "integer" else by_paper)
    return min(least, n)


def keep_count(s: Settings, s_min: float, zeta: float, distance: int, n: int) -> int:
    """fl_keep_count for alpha 1, in the core's own arithmetic."""
    f32 = np.float32
    if s.k_rule == "trunc_f32":
        ratio = f32(s_min) + (f32(s.s_max) - f32(s_min))
        for _ in range(distance):
            ratio = ratio * f32(zeta)
        most = int(f32(n) * ratio)
    else:
        q15 = int(f32(s.s_max) * f32(_Q15) + f32(0.5))
        damping = int(f32(zeta) * f32(_Q15) + f32(0.5))
        for _ in range(distance):
            q15 = (q15 * damping + _Q15 // 2) >> 15
        most = (n * q15 + _Q15 // 2) >> 15
    return min(max(most, 1), n)
