"""Operator order: the topological order with the smallest peak of live bytes, and what is proven.

What is live after a set of operators has run depends on the set alone. So orders are paths from
the empty set to the full one, and the best of them is the path whose highest step is lowest:
Dijkstra's algorithm with the maximum in place of the sum. The sets that are left when its time is
up (a count, never a clock) bound every order from below.

Three things make it quick on real graphs:
- Series cuts: where every operator comes before or after one of them, in every order, the parts
  on both sides are solved alone. Every series of parts falls apart this way.
- Valley moves: a run of operators that may go now, stays under the peak that is reached anyway,
  and ends with no more bytes live than at its start and at any step of it, goes now. Whatever an
  order does in between would have fewer bytes free with the run undone: the bytes that a run frees
  only grow with what else has run.
- The peak starts at what the largest operator needs by itself, and of equal peaks the largest set
  goes on: where that much is enough, the search walks straight to the end.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from fieldloop.ir.graph import Graph
from fieldloop.plan.lifetimes import buffers, lower_bound

MAX_SETS = 20_000  # of one part, that are gone on from
MAX_WIDTH = 1_000  # sets of one size, where that was not enough


@dataclass(frozen=True, slots=True)
class OrderResult:
    """`graph` in the order found, `peak`: most bytes live at one step of it, `bound`: no order
    has less; `proven`: they are equal.
    """

    graph: Graph
    peak: int
    proven: bool
    bound: int


def best_order(graph: Graph) -> Graph:
    """The graph with its operators in the order of smallest peak, its own order if as good."""
    return order_bound(graph).graph


def order_bound(graph: Graph) -> OrderResult:
    """The best order found and a bound of all orders."""
    own = lower_bound(buffers(graph))
    problem = _problem(graph)
    bound = problem.least()
    if own == bound:
        return OrderResult(graph, own, True, own)
    order: list[int] = []
    peak = bound
    done = 0
    for part in _parts(problem):
        found = _solve(problem, done, part, peak)
        order += found.order
        peak = max(peak, found.peak)
        bound = max(bound, found.bound)
        done = part
    if peak >= own:
        return OrderResult(graph, own, bound >= own, min(bound, own))
    return OrderResult(graph.with_ops([graph.ops[i] for i in order]), peak, bound == peak, bound)


@dataclass(frozen=True, slots=True)
class _Problem:
    """Operators and buffers by number; sets of operators are bit masks."""

    needs: tuple[int, ...]  # of each operator: those that must have run
    followers: tuple[tuple[int, ...], ...]  # of each operator: those that need it
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

    def least(self) -> int:
        """What the largest operator needs by itself, and the caller before and after the run."""
        at_end = sum(size for size, stays in zip(self.size, self.forever, strict=True) if stays)
        return max(
            sum(self.size[b] for b in self.given),
            at_end,
            *(sum(self.size[b] for b in reads) for reads in self.reads),
        )

    def live(self, done: int) -> int:
        """Bytes live after the set `done`."""
        return sum(
            size
            for b, size in enumerate(self.size)
            if (b in self.given or self.writers[b] & done)
            and (self.forever[b] or self.users[b] & ~done)
        )

    def ready(self, done: int, goal: int) -> int:
        """Operators of `goal` that may run next."""
        return sum(
            1 << i
            for i, needs in enumerate(self.needs)
            if goal >> i & 1 and not done >> i & 1 and not needs & ~done
        )

    def freed(self, done: int, op: int, goal: int) -> int:
        """Operators of `goal` that may run now that `op` has; `done` has `op`."""
        return sum(
            1 << i for i in self.followers[op] if goal >> i & 1 and not self.needs[i] & ~done
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """An order of one part."""

    order: tuple[int, ...]
    peak: int
    bound: int


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
    followers: list[list[int]] = [[] for _ in graph.ops]
    writers, users = [0] * len(size), [0] * len(size)
    for i, op in enumerate(graph.ops):
        before = sorted({position[name] for name in op.inputs if name in position})
        needs.append(sum(1 << j for j in before))
        for j in before:
            followers[j].append(i)
        used = {owner[name] for name in (*op.inputs, op.output) if name in owner}
        reads.append(tuple(sorted(used)))
        writers[owner[op.output]] |= 1 << i
        for b in used:
            users[b] |= 1 << i
    return _Problem(
        needs=tuple(needs),
        followers=tuple(map(tuple, followers)),
        reads=tuple(reads),
        writes=tuple(owner[op.output] for op in graph.ops),
        size=tuple(size),
        writers=tuple(writers),
        users=tuple(users),
        forever=tuple(forever),
        given=frozenset(owner[name] for name in graph.inputs),
    )


def _parts(problem: _Problem) -> list[int]:
    """Sets that every order passes through, growing; the last one is all operators."""
    count = len(problem.needs)
    everything = (1 << count) - 1
    before = [0] * count  # all that must have run, however far back
    for i in range(count):  # the graph's own order is topological
        for j in range(i):
            if problem.needs[i] >> j & 1:
                before[i] |= before[j] | 1 << j
    after = [0] * count
    for i in range(count):
        for j in range(i):
            if before[i] >> j & 1:
                after[j] |= 1 << i
    cuts = {
        before[i] | 1 << i for i in range(count) if before[i] | after[i] | 1 << i == everything
    }
    return sorted({*cuts, everything}, key=int.bit_count)


def _solve(problem: _Problem, start: int, goal: int, floor: int) -> _Found:
    """An order of the operators of `goal` that are not in `start`; peaks below `floor` do not
    matter.
    """
    begin = _descend(problem, start, problem.live(start), problem.ready(start, goal), goal, floor)
    # set -> (peak, the set it was reached from, the operators in between)
    known: dict[int, tuple[int, int, tuple[int, ...]]] = {begin.done: (floor, start, begin.order)}
    queue = [(floor, -begin.done.bit_count(), begin.live, begin.done, begin.ready)]
    for _ in range(MAX_SETS):
        peak, _, live, done, ready = heapq.heappop(queue)
        if done == goal:
            return _Found(_path(known, start, goal), peak, peak)
        if peak > known[done][0]:
            continue  # reached better since
        for op in _bits(ready):
            during, after = problem.run(done, live, op)
            reached = max(peak, during)
            now = done | 1 << op
            waiting = ready & ~(1 << op) | problem.freed(now, op, goal)
            to = _descend(problem, now, after, waiting, goal, reached)
            if to.done not in known or reached < known[to.done][0]:
                known[to.done] = (reached, done, (op, *to.order))
                heapq.heappush(queue, (reached, -to.done.bit_count(), to.live, to.done, to.ready))
    bound = queue[0][0]
    found = _beam(problem, start, goal, floor, bound)
    if goal in known and known[goal][0] < found.peak:
        return _Found(_path(known, start, goal), known[goal][0], bound)
    return found


@dataclass(frozen=True, slots=True)
class _Walk:
    """Where valley moves lead: the set, its live bytes, what may run next, and the moves."""

    done: int
    live: int
    ready: int
    order: tuple[int, ...]


def _descend(problem: _Problem, done: int, live: int, ready: int, goal: int, peak: int) -> _Walk:
    """Takes valley moves under `peak` until there are none."""
    order: list[int] = []
    again = True
    while again:
        again = False
        for op in _bits(ready):
            run = _valley(problem, _Walk(done, live, ready, ()), op, goal, peak)
            if run is not None:
                done, live, ready = run.done, run.live, run.ready
                order += run.order
                again = True
                break
    return _Walk(done, live, ready, tuple(order))


def _valley(problem: _Problem, at: _Walk, op: int, goal: int, peak: int) -> _Walk | None:
    """The run of operators that begins with `op`, each made possible by the one before."""
    done, ready, live, order = at.done, at.ready, at.live, [op]
    while True:
        op = order[-1]
        during, live = problem.run(done, live, op)
        if during > peak:
            return None
        done |= 1 << op
        freed = problem.freed(done, op, goal)
        ready = ready & ~(1 << op) | freed
        if live <= at.live:
            return _Walk(done, live, ready, tuple(order))
        if freed.bit_count() != 1:
            return None
        order.append(freed.bit_length() - 1)


def _bits(mask: int) -> list[int]:
    """Members of a set."""
    members = []
    while mask:
        low = mask & -mask
        members.append(low.bit_length() - 1)
        mask ^= low
    return members


def _path(
    known: dict[int, tuple[int, int, tuple[int, ...]]], start: int, goal: int
) -> tuple[int, ...]:
    """The operators from `start` to `goal`."""
    order: list[int] = []
    done = goal
    while done != start:
        _, done, ops = known[done]
        order[:0] = ops
    return tuple(order)


def _beam(problem: _Problem, start: int, goal: int, floor: int, bound: int) -> _Found:
    """A good order where the best is out of reach: of the sets of one size the best go on."""
    # set -> (peak, live bytes behind it, the order that has them, what may run next)
    first = (floor, problem.live(start), (), problem.ready(start, goal))
    layer: dict[int, tuple[int, int, tuple[int, ...], int]] = {start: first}
    for _ in range((goal & ~start).bit_count()):
        following: dict[int, tuple[int, int, tuple[int, ...], int]] = {}
        for done, (peak, live, order, ready) in layer.items():
            for op in _bits(ready):
                during, after = problem.run(done, live, op)
                now = done | 1 << op
                waiting = ready & ~(1 << op) | problem.freed(now, op, goal)
                candidate = (max(peak, during), after, (*order, op), waiting)
                if now not in following or candidate < following[now]:
                    following[now] = candidate
        best = sorted(following.items(), key=lambda entry: entry[1])
        layer = dict(best[:MAX_WIDTH])
    peak, _, order, _ = layer[goal]
    return _Found(order, peak, min(bound, peak))
