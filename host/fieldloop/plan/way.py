"""The way back: which operators a learner walks from the logits to its lowest trained layer.

The C core finds the same way in an image (cmodules/fieldloop/learn); here it is found in a graph,
so that a plan can be made before there is an image.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import POOLS, WEIGHTED, Op, OpKind, Requant

MAX_OPS = 48  # of one walk
MAX_LAYERS = 16  # that are trained

_MAPS = frozenset({OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D})


class NoWayError(UsageError):
    """Layers that the output's error does not come back to; the message says why."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One operator of the walk, which begins with the one that makes the logits."""

    op: Op
    trained: bool
    down: tuple[str, ...]  # inputs that get a delta, the one that is made last first
    pool: Op | None  # of a convolution: the pool after it whose windows are its outputs' spots
    fused: bool  # this pool is such a one: its delta is handed on as it is


def logits_op(graph: Graph) -> Op | None:
    """The operator that makes the logits: the output, before a softmax and reshapes."""
    op = graph.producer(graph.outputs[0])
    while op is not None and op.kind in (OpKind.SOFTMAX, OpKind.RESHAPE):
        op = graph.producer(op.inputs[0])
    return op


def can_walk(graph: Graph, op: Op) -> bool:
    """Does a delta of the operator's output tell one of its input?"""
    if op.kind in WEIGHTED:
        return _has_gradient(graph, op)
    if op.kind is OpKind.ADD:
        sizes = {graph.tensors[name].size for name in (*op.inputs, op.output)}
        return len(sizes) == 1 and op.inputs[0] != op.inputs[1]
    return op.kind is OpKind.RESHAPE or op.kind in POOLS


def walk_back(graph: Graph, layers: Collection[str]) -> tuple[Hop, ...]:
    """The walk that trains `layers` (names of operators); NoWayError where there is none."""
    makers = {op.output: i for i, op in enumerate(graph.ops)}
    parts = _taking_part(graph, frozenset(layers), makers)
    hops = []
    pooled: dict[str, Op] = {}  # outputs of convolutions -> the pool that is fused into them
    for index in sorted(parts, reverse=True):
        op = graph.ops[index]
        if not can_walk(graph, op):
            raise NoWayError(
                f"learn: {op.kind.value} {op.name} lies between a trained layer and the output, "
                "and has no backward pass; train layers above it"
            )
        down = sorted(
            {name for name in op.inputs if makers.get(name) in parts},
            key=lambda name: -makers[name],
        )
        fused = _is_fused(graph, op, makers, parts)
        if fused:
            pooled[op.inputs[0]] = op
        hops.append(
            Hop(op, op.name in layers, tuple(down), pooled.get(op.output), fused),
        )
    if len(hops) > MAX_OPS:
        raise NoWayError(
            f"learn: {len(hops)} operators lie between {hops[-1].op.name} and the output; a "
            f"learner walks back through at most {MAX_OPS}, so train layers above it"
        )
    return tuple(hops)


def saved_tensors(graph: Graph, layers: Collection[str]) -> frozenset[str]:
    """What a backward pass that trains `layers` reads of the forward pass."""
    hops = walk_back(graph, layers)
    saved = {hops[0].op.output}
    for hop in hops:
        is_max = hop.op.kind is OpKind.MAX_POOL
        if _is_masked(hop.op) or (is_max and hop.fused):
            saved.add(hop.op.output)
        if hop.trained or is_max or hop.fused:
            saved.add(hop.op.inputs[0])
    return frozenset(saved)


def trainable_layers(graph: Graph) -> tuple[Op, ...]:
    """Layers with weights that can be trained, the head first, then in descending order.

    Empty where the logits are not made by such a layer.
    """
    head = logits_op(graph)
    if len(graph.outputs) != 1 or head is None or head.kind not in WEIGHTED:
        return ()
    above: set[str] = {head.output}  # tensors on the way to the logits
    barred: set[str] = set()  # of them: those whose delta nobody can tell
    layers = []
    for op in reversed(graph.ops):
        if op.output not in above:
            continue
        above.update(op.inputs)
        if op.output in barred or not can_walk(graph, op):
            barred.update(op.inputs)
        elif op.kind in WEIGHTED:
            layers.append(op)
    return tuple(layers)


def _is_masked(op: Op) -> bool:
    """Is a delta of the output held back where the output is clamped? A pool may have no clamp."""
    if op.kind in POOLS and isinstance(op.fixed, Requant):
        return (op.fixed.act_min, op.fixed.act_max) != (-128, 127)
    return op.kind is not OpKind.RESHAPE


def _has_gradient(graph: Graph, op: Op) -> bool:
    """False for what the learner does not know: groups, and the older uint8 arithmetic."""
    quant = graph.tensors[op.inputs[1]].quant
    older = (quant is not None and quant.zero_point != 0) or (
        isinstance(op.fixed, Requant) and op.fixed.single_rounding
    )
    return op.groups == 1 and not older


def _taking_part(graph: Graph, layers: frozenset[str], makers: dict[str, int]) -> frozenset[int]:
    """Operators that lead to the logits and are trained, or come after one that is."""
    head = logits_op(graph)
    above = {head.output} if head is not None else set()
    for op in reversed(graph.ops):
        if op.output in above:
            above.update(op.inputs)
    parts: set[int] = set()
    for index, op in enumerate(graph.ops):
        is_after = any(makers.get(name) in parts for name in op.inputs)
        if op.output in above and (op.name in layers or is_after):
            parts.add(index)
    trained = {graph.ops[index].name for index in parts if graph.ops[index].kind in WEIGHTED}
    missing = layers - trained
    if missing or not layers:
        raise NoWayError(
            f"learn: expected layers with weights that lead to the logits of {graph.name}, got "
            f"{sorted(missing) or 'none'}"
        )
    return frozenset(parts)


def _is_fused(graph: Graph, op: Op, makers: dict[str, int], parts: frozenset[int]) -> bool:
    """A pool whose windows do not overlap, straight after a convolution that only it pools."""
    if op.kind not in POOLS or makers.get(op.inputs[0]) not in parts:
        return False
    assert op.window is not None
    overlaps = any(s < k for s, k in zip(op.window.stride, op.window.kernel, strict=True))
    readers = sum(
        op.inputs[0] in other.inputs and makers[other.output] in parts for other in graph.ops
    )
    return graph.ops[makers[op.inputs[0]]].kind in _MAPS and not overlaps and readers == 1
