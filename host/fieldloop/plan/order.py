"""Operator order: the topological order with the smallest peak of live bytes.

Dynamic programming over sets of executed operators. What is live after a set has run depends on
the set alone, so the best peak of a set is the best over its last operators. Chains have one order
and graphs of residual blocks few sets; where there are too many the graph's own order stays.
"""

from __future__ import annotations

from fieldloop.ir.graph import Graph
from fieldloop.plan.lifetimes import buffers, lower_bound

MAX_SETS = 5_000


def best_order(graph: Graph) -> Graph:
    """The graph with its operators in the order of smallest peak, its own order if as good."""
    n = len(graph.ops)
    position = {op.output: i for i, op in enumerate(graph.ops)}
    needs = [
        frozenset(position[name] for name in op.inputs if name in position) for op in graph.ops
    ]
    # owner buffer of each activation, as lifetimes.py has it
    owner: dict[str, int] = {}
    size: list[int] = []
    readers: list[set[int]] = []
    forever: list[bool] = []
    for item in buffers(graph):
        for name in item.tensors:
            owner[name] = len(size)
        size.append(item.bytes)
        readers.append({i for i, op in enumerate(graph.ops) if set(op.inputs) & set(item.tensors)})
        forever.append(any(name in graph.outputs for name in item.tensors))
    writes = [owner[op.output] for op in graph.ops]
    given = {owner[name] for name in graph.inputs}

    def live(done: frozenset[int], running: int) -> int:
        """Bytes live while operator `running` runs, with `done` behind it."""
        total = 0
        for b, buffer_bytes in enumerate(size):
            begun = b in given or any(writes[i] == b for i in done) or writes[running] == b
            ended = readers[b] <= done and not forever[b] and writes[running] != b
            total += buffer_bytes if begun and not ended else 0
        return total

    # layer by layer: every reachable set of k operators -> (its best peak, the order that has it)
    layer: dict[frozenset[int], tuple[int, tuple[int, ...]]] = {frozenset(): (0, ())}
    seen = 1
    for _ in range(n):
        following: dict[frozenset[int], tuple[int, tuple[int, ...]]] = {}
        for done, (peak, order) in layer.items():
            for i in range(n):
                if i in done or not needs[i] <= done:
                    continue
                candidate = (max(peak, live(done, i)), (*order, i))
                key = done | {i}
                if key not in following or candidate < following[key]:
                    following[key] = candidate
            if seen + len(following) > MAX_SETS:
                return graph
        layer = following
        seen += len(layer)
    ((_, order),) = layer.values()
    ordered = graph.with_ops([graph.ops[i] for i in order])
    if lower_bound(buffers(ordered)) < lower_bound(buffers(graph)):
        return ordered
    return graph
