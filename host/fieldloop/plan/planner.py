"""The planner: a graph in its order, a purpose -> a plan. A pure function."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from types import MappingProxyType

from fieldloop.ir.graph import Graph
from fieldloop.plan.layout import lay_out, peak
from fieldloop.plan.learning import aligned, backward_buffer, offers, pays
from fieldloop.plan.lifetimes import buffers
from fieldloop.plan.types import Buffer, Plan, PlanKind
from fieldloop.plan.way import saved_tensors


def plan_graph(
    graph: Graph,
    kind: PlanKind,
    *,
    keep: frozenset[str] = frozenset(),
    learner_scratch: int = 0,
) -> Plan:
    """Lays out the arena; `keep` (learning): tensors that stay in place until the end.

    `learner_scratch`: bytes beside them that are free once the forward pass is over.
    """
    items = buffers(graph, keep=keep)
    offsets = lay_out(items)
    highest, scratch = peak(items, offsets), (0, 0)
    if learner_scratch:
        joint = (*items, backward_buffer(graph, learner_scratch))
        together = lay_out(joint)
        begin, end = _behind(items, offsets, joint[-1])
        # as high as it may lie: kernels have their own scratch there while the model runs
        if max(highest, end) > aligned(peak(joint, together)):
            offsets, begin = together[:-1], together[-1]
            highest, end = peak(joint, together), 0
        highest, scratch = max(highest, end), (begin, learner_scratch)
    by_name = {
        name: offset for item, offset in zip(items, offsets, strict=True) for name in item.tensors
    }
    return Plan(kind, highest, MappingProxyType(by_name), learner_scratch=scratch)


def _behind(items: Sequence[Buffer], offsets: Sequence[int], last: Buffer) -> tuple[int, int]:
    """Begin and end of `last` behind everything that it meets."""
    ends = (o + item.bytes for item, o in zip(items, offsets, strict=True) if item.meets(last))
    begin = aligned(max(ends, default=0))
    return begin, begin + last.bytes


def plan_learning(
    graph: Graph,
    layers: Collection[str],
    make: Callable[[frozenset[str], int], Plan] | None = None,
) -> Plan:
    """The plan to learn with: the forward pass, what it saves, and the backward pass's scratch.

    `layers`: operators that are trained. There is room for any configuration where that costs
    nothing, else for the learner's own defaults; and none where that does not pay. `make`: plans
    with what must be kept and so much scratch; `plan_graph` where it is not given.
    """
    keep = saved_tensors(graph, layers)

    def untiled(kept: frozenset[str], scratch: int) -> Plan:
        return plan_graph(graph, PlanKind.LEARN, keep=kept, learner_scratch=scratch)

    make = make or untiled
    _, usual, worst = offers(graph, layers)
    alone, always = make(keep, 0), make(keep, worst)
    if always.arena_bytes <= alone.arena_bytes:
        return always
    usually = make(keep, usual)
    if always.arena_bytes <= usually.arena_bytes:
        usually = always
    return usually if pays(alone.arena_bytes, usually.arena_bytes, usual) else alone
