"""The learner's scratch in the plan: what the backward pass needs beside the tensors it reads.

Once the forward pass is over, most of the arena is dead: only the tensors that the backward pass
reads are left. There its deltas, the gradient of one row and the list of kept entries find room.
The sizes are those of cmodules/fieldloop/learn, counted here a second time so that a plan
can be made before there is an image; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Collection

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import POOLS, WEIGHTED, Op, OpKind
from fieldloop.plan.types import Buffer

# Of the learner's settings of these names, where nobody gives others.
S_MAX = 0.9
ZETA = 0.5

ALIGNMENT = 16  # of the scratch in the arena
_F32 = 4
_INDEX = 2  # of a kept entry
_Q15 = 32768


def scratch_bytes(
    graph: Graph, layers: Collection[str], *, s_max: float = 1.0, zeta: float = 1.0
) -> int:
    """Scratch of a learner that trains `layers` (names of operators), to the byte.

    `s_max`, `zeta`: the most entries that are kept, and their damping a layer, as the learner's
    settings of these names. With both 1 no configuration of these layers needs more. 0 where the
    walk back from the output does not come to all of them: nothing can learn there.
    """
    open_layers = set(layers)
    deltas = row = kept = below = 0
    trained = 0
    op = _logits(graph)
    while op is not None and open_layers:
        if op.kind not in WEIGHTED and op.kind not in POOLS and op.kind is not OpKind.RESHAPE:
            return 0
        outputs = graph.tensors[op.output].size
        deltas = max(deltas, below + outputs * _F32)
        if op.name in open_layers:
            open_layers.remove(op.name)
            if op.kind is not OpKind.FULLY_CONNECTED:
                row = max(row, _row_size(graph, op) * _F32)
            kept = max(kept, _most_kept(outputs, trained, s_max, zeta))
            trained += 1
        if op.kind is not OpKind.RESHAPE:
            below = outputs * _F32
        if len(graph.consumers(op.inputs[0])) != 1:
            break
        op = graph.producer(op.inputs[0])
    return 0 if open_layers else deltas + row + kept * _INDEX


def offers(graph: Graph, layers: Collection[str]) -> tuple[int, int, int]:
    """Scratch with the learner's own settings; what to plan for those; and for any settings.

    Planned in whole floats: a learner without a list of kept entries then ends where the scratch
    ends.
    """
    needed = scratch_bytes(graph, layers, s_max=S_MAX, zeta=ZETA)
    usual, worst = (-(-n // _F32) * _F32 for n in (needed, scratch_bytes(graph, layers)))
    return needed, usual, worst


def pays(alone: int, joint: int, needed: int) -> bool:
    """Does an arena of `joint` bytes, with scratch, cost no more than one of `alone` and a learner
    that brings the `needed` bytes? The second comparison is that of kernels that have scratch of
    their own behind the arena, at a multiple of 16.
    """
    return joint <= alone + needed and _aligned(joint) <= _aligned(alone) + needed


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def backward_buffer(graph: Graph, scratch: int) -> Buffer:
    """What `scratch` bytes of the learner are to a layout: live at the end only, as the caller."""
    end = len(graph.ops) + 1
    return Buffer((), scratch, ALIGNMENT, end, end)


def _logits(graph: Graph) -> Op | None:
    """The operator that makes the logits: the output, before a softmax and reshapes."""
    op = graph.producer(graph.outputs[0])
    while op is not None and op.kind in (OpKind.SOFTMAX, OpKind.RESHAPE):
        op = graph.producer(op.inputs[0])
    return op


def _row_size(graph: Graph, op: Op) -> int:
    """Weights of one output channel."""
    w = graph.tensors[op.inputs[1]]
    return w.size // w.shape[3 if op.kind is OpKind.DEPTHWISE_CONV2D else 0]


def _most_kept(entries: int, distance: int, s_max: float, zeta: float) -> int:
    """The integer rule, fl_keep_count, of a sample whose error is the largest so far."""

    def q15(value: float) -> int:
        return int(value * _Q15 + 0.5)

    ratio = q15(s_max)
    for _ in range(distance):
        ratio = (ratio * q15(zeta) + _Q15 // 2) >> 15
    return min(max((entries * ratio + _Q15 // 2) >> 15, 1), entries)
