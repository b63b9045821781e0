"""Operator order: the topological order with the smallest peak of live bytes, and what is proven.

What is live after a set of operators has run depends on the set alone. So orders are paths from
the empty set to the full one, and the best of them is the path whose highest step is lowest:
Dijkstra's algorithm with the maximum in place of the sum. The sets that are left when its time is
up (a count, never a clock) bound every order from below.

Four things make it quick on real graphs:
- Series cuts: where every operator comes before or after one of them, in every order, the parts
  on both sides are solved alone. Every series of parts falls apart this way.
- Valley moves: a run of operators that may go now, stays under the peak that is reached anyway,
  and ends with no more bytes live than at its start and at any step of it, goes now. Moving it to
  the front of any order raises no other step: whatever has run before it, a run allocates no more
  and frees no less than it does now, so at every step in between its end is the better place.
- What is hard from the front may be easy from the back, where all this holds as well.
- The peak starts at what the largest operator needs by itself, and of equal peaks the largest set
  goes on: where that much is enough, the search walks straight to the end.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace

from fieldloop.ir.graph import Graph
from fieldloop.plan.lifetimes import buffers, lower_bound
from fieldloop.plan.order_problem import Problem, members, problem_of

SETS = (500, 2_000, 20_000)  # of one part, that are gone on from: attempts
NEVER = 1 << 62  # the peak of no order
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


def order_bound(graph: Graph, *, keep: frozenset[str] = frozenset()) -> OrderResult:
    """The best order found and a bound of all orders. `keep`: live until the end."""
    own = lower_bound(buffers(graph, keep=keep))
    problem = problem_of(graph, keep)
    bound = problem.least()
    if own == bound:
        return OrderResult(graph, own, True, own)
    order: list[int] = []
    floor = bound
    done = 0
    for part in problem.parts():
        found = _best(problem, done, part, floor)
        order += found.order
        if found.bound > floor:  # a floor that an earlier part set proves nothing
            bound = max(bound, found.bound)
        floor = max(floor, found.peak)
        done = part
    ordered = graph.with_ops([graph.ops[i] for i in order])
    peak = lower_bound(buffers(ordered, keep=keep))
    if peak >= own:
        ordered, peak = graph, own
    return OrderResult(ordered, peak, bound == peak, bound)


@dataclass(frozen=True, slots=True)
class _Found:
    """An order of one part."""

    order: tuple[int, ...]
    peak: int
    bound: int

    def reversed(self) -> _Found:
        """What was found from the other side."""
        return replace(self, order=self.order[::-1])

    def and_also(self, other: _Found) -> _Found:
        """The better order and the better bound."""
        best = other if other.peak < self.peak else self
        return replace(best, bound=max(self.bound, other.bound))


def _best(problem: Problem, start: int, goal: int, floor: int) -> _Found:
    """An order of the operators of `goal` that are not in `start`; peaks below `floor` do not
    matter. The search goes from both sides, with more and more time; then the good orders.
    """
    turned = problem.reversed()
    back = problem.everything & ~goal, problem.everything & ~start
    best = _Found((), NEVER, floor)
    for sets in SETS:
        best = best.and_also(_solve(problem, start, goal, floor, sets))
        if best.peak > best.bound:
            best = best.and_also(_solve(turned, *back, floor, sets).reversed())
        if best.peak == best.bound:
            return best
    best = best.and_also(_beam(problem, start, goal, floor))
    return best.and_also(_beam(turned, *back, floor).reversed())


def _solve(problem: Problem, start: int, goal: int, floor: int, sets: int) -> _Found:
    """The search from `start`; cut off after so many sets."""
    begin = _descend(problem, start, problem.live(start), problem.ready(start, goal), goal, floor)
    # set -> (peak, the set it was reached from, the operators in between)
    known: dict[int, tuple[int, int, tuple[int, ...]]] = {begin.done: (floor, start, begin.order)}
    seen: dict[int, int] = {}  # sets before their valley moves -> least peak so far
    queue = [(floor, -begin.done.bit_count(), begin.live, begin.done, begin.ready)]
    for _ in range(sets):
        peak, _, live, done, ready = heapq.heappop(queue)
        if done == goal:
            return _Found(_path(known, start, goal), peak, peak)
        if peak > known[done][0]:
            continue  # reached better since
        for op in members(ready):
            during, after = problem.run(done, live, op)
            reached = max(peak, during)
            now = done | 1 << op
            if seen.get(now, reached + 1) <= reached:
                continue
            seen[now] = reached
            waiting = ready & ~(1 << op) | problem.freed(now, op, goal)
            to = _descend(problem, now, after, waiting, goal, reached)
            if to.done not in known or reached < known[to.done][0]:
                known[to.done] = (reached, done, (op, *to.order))
                heapq.heappush(queue, (reached, -to.done.bit_count(), to.live, to.done, to.ready))
    bound = queue[0][0]
    if goal in known:
        return _Found(_path(known, start, goal), known[goal][0], bound)
    return _Found((), NEVER, bound)


@dataclass(frozen=True, slots=True)
class _Walk:
    """Where valley moves lead: the set, its live bytes, what may run next, and the moves."""

    done: int
    live: int
    ready: int
    order: tuple[int, ...]


def _descend(problem: Problem, done: int, live: int, ready: int, goal: int, peak: int) -> _Walk:
    """Takes valley moves under `peak` until there are none."""
    order: list[int] = []
    again = True
    while again:
        again = False
        for op in members(ready):
            run = _valley(problem, _Walk(done, live, ready, ()), op, goal, peak)
            if run is not None:
                done, live, ready = run.done, run.live, run.ready
                order += run.order
                again = True
                break
    return _Walk(done, live, ready, tuple(order))


def _valley(problem: Problem, at: _Walk, op: int, goal: int, peak: int) -> _Walk | None:
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


def _beam(problem: Problem, start: int, goal: int, floor: int) -> _Found:
    """A good order where the best is out of reach: of the sets of one size the best go on."""
    # set -> (peak, live bytes behind it, the order that has them, what may run next)
    first = (floor, problem.live(start), (), problem.ready(start, goal))
    layer: dict[int, tuple[int, int, tuple[int, ...], int]] = {start: first}
    for _ in range((goal & ~start).bit_count()):
        following: dict[int, tuple[int, int, tuple[int, ...], int]] = {}
        for done, (peak, live, order, ready) in layer.items():
            for op in members(ready):
                during, after = problem.run(done, live, op)
                now = done | 1 << op
                waiting = ready & ~(1 << op) | problem.freed(now, op, goal)
                candidate = (max(peak, during), after, (*order, op), waiting)
                if now not in following or candidate < following[now]:
                    following[now] = candidate
        best = sorted(following.items(), key=lambda entry: entry[1])
        layer = dict(best[:MAX_WIDTH])
    peak, _, order, _ = layer[goal]
    return _Found(order, peak, floor)
