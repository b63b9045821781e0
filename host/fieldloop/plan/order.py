"""Operator order: the topological order with the smallest peak of live bytes.

Dynamic programming over sets of executed operators. What is live after a set has run depends on
the set alone, so the best peak of a set is the best over its last operators. Sets are bit masks,
grown operator by operator; only those below the peak of the graph's own order are kept, so chains
and graphs of residual blocks are done at once. Where more than MAX_WIDTH sets of one size remain,
the best of them go on: then the order is good, and not proven best.
"""

from __future__ import annotations

from dataclasses import dataclass

from fieldloop.ir.graph import Graph
from fieldloop.plan.lifetimes import buffers, lower_bound

MAX_WIDTH = 1_000


@dataclass(frozen=True, slots=True)
class _Problem:
    """Operators and buffers by number; sets of operators are bit masks."""

    needs: tuple[int, ...]  # of each operator: those that must have run
    reads: tuple[tuple[int, ...], ...]  # of each operator: buffers it reads or writes
    writes: tuple[int, ...]  # of each operator: the buffer it writes
    size: tuple[int, ...]  # of each buffer, bytes
    writers: tuple[int, ...]  # of each buffer: operators that write it
    users: tuple[int, ...]  # of each buffer: operators that read or write it
    forever: tuple[bool, ...]  # of each buffer: outputs stay
    given: frozenset[int]  # buffers of the graph's inputs

    def run(self, done: int, live: int, op: int) -> tuple[int, int]:
        """Bytes live while `op` runs after the set `done`, and after it."""
        b = self.writes[op]
        begun = b in self.given or self.writers[b] & done
        during = live if begun else live + self.size[b]
        after = during
        now = done | 1 << op
        for b in self.reads[op]:
            if not self.forever[b] and self.users[b] & ~now == 0:
                after -= self.size[b]
        return during, after


def best_order(graph: Graph) -> Graph:
    """The graph with its operators in the order of smallest peak, its own order if as good."""
    own = lower_bound(buffers(graph))
    problem = _problem(graph)
    least = max(sum(problem.size[b] for b in reads) for reads in problem.reads)
    if own == least:
        return graph  # some operator needs as much by itself
    order = _search(problem, own)
    if order is None:
        return graph
    ordered = graph.with_ops([graph.ops[i] for i in order])
    return ordered if lower_bound(buffers(ordered)) < own else graph


def _problem(graph: Graph) -> _Problem:
    position = {op.output: i for i, op in enumerate(graph.ops)}
    owner: dict[str, int] = {}  # the buffer of each activation, as lifetimes.py has it
    size: list[int] = []
    forever: list[bool] = []
    for item in buffers(graph):
        owner.update(dict.fromkeys(item.tensors, len(size)))
        size.append(item.bytes)
        forever.append(any(name in graph.outputs for name in item.tensors))
    needs, reads = [], []
    writers, users = [0] * len(size), [0] * len(size)
    for i, op in enumerate(graph.ops):
        needs.append(sum({1 << position[name] for name in op.inputs if name in position}))
        used = {owner[name] for name in (*op.inputs, op.output) if name in owner}
        reads.append(tuple(sorted(used)))
        writers[owner[op.output]] |= 1 << i
        for b in used:
            users[b] |= 1 << i
    return _Problem(
        needs=tuple(needs),
        reads=tuple(reads),
        writes=tuple(owner[op.output] for op in graph.ops),
        size=tuple(size),
        writers=tuple(writers),
        users=tuple(users),
        forever=tuple(forever),
        given=frozenset(owner[name] for name in graph.inputs),
    )


def _search(problem: _Problem, limit: int) -> tuple[int, ...] | None:
    """An order with a peak below `limit`, the smallest found; None where there is none."""
    count = len(problem.needs)
    start = sum(problem.size[b] for b in problem.given)
    # sets of k operators -> (peak, live bytes behind it, the order that has them)
    layer: dict[int, tuple[int, int, tuple[int, ...]]] = {0: (start, start, ())}
    for _ in range(count):
        following: dict[int, tuple[int, int, tuple[int, ...]]] = {}
        for done, (peak, live, order) in layer.items():
            for i in range(count):
                if done >> i & 1 or problem.needs[i] & ~done:
                    continue
                during, after = problem.run(done, live, i)
                if max(peak, during) >= limit:
                    continue
                key = done | 1 << i
                candidate = (max(peak, during), after, (*order, i))
                if key not in following or candidate < following[key]:
                    following[key] = candidate
        if len(following) > MAX_WIDTH:
            best = sorted(following.items(), key=lambda entry: entry[1])
            following = dict(best[:MAX_WIDTH])
        layer = following
    return min(layer.values())[2] if layer else None
