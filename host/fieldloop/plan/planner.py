"""The planner: a graph in its order, a purpose -> a plan. A pure function."""

from __future__ import annotations

from types import MappingProxyType

from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
from fieldloop.plan.layout import lay_out, peak
from fieldloop.plan.lifetimes import buffers
from fieldloop.plan.types import Plan, PlanKind


def backward_reads(graph: Graph, first_trainable: str, head: str) -> frozenset[str]:
    """What a backward pass reads: the input of operator `first_trainable` and every output from
    there to operator `head`, the logits included.
    """
    names = [op.name for op in graph.ops]
    if first_trainable not in names or head not in names:
        raise UsageError(f"plan: no operator is called {first_trainable!r} or {head!r}")
    begin, end = names.index(first_trainable), names.index(head)
    if begin > end:
        raise UsageError(f"plan: {first_trainable!r} runs after the head {head!r}")
    return frozenset(
        {graph.ops[begin].inputs[0], *(op.output for op in graph.ops[begin : end + 1])}
    )


def plan_graph(graph: Graph, kind: PlanKind, *, keep: frozenset[str] = frozenset()) -> Plan:
    """Lays out the arena; `keep` (learning): tensors that stay in place until the end."""
    items = buffers(graph, keep=keep)
    offsets = lay_out(items)
    by_name = {
        name: offset for item, offset in zip(items, offsets, strict=True) for name in item.tensors
    }
    return Plan(kind, peak(items, offsets), MappingProxyType(by_name))
