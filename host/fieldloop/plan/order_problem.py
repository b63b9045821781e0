"""What an order of operators is about: who must run before whom, and which bytes are live when."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fieldloop.ir.graph import Graph
from fieldloop.plan.lifetimes import buffers


@dataclass(frozen=True, slots=True)
class Problem:
    """Operators and buffers by number; sets of operators are bit masks.

    A buffer is live from the first operator that uses it to the last, whichever way one goes.
    """

    needs: tuple[int, ...]  # of each operator: those that must have run
    followers: tuple[int, ...]  # of each operator: those that need it
    uses: tuple[tuple[int, ...], ...]  # of each operator: buffers it reads or writes
    size: tuple[int, ...]  # of each buffer, bytes
    users: tuple[int, ...]  # of each buffer: operators that use it
    given: frozenset[int]  # buffers of the graph's inputs: live before the first operator
    stays: frozenset[int]  # of its outputs, and of what is kept: live behind the last one

    @property
    def everything(self) -> int:
        """All operators."""
        return (1 << len(self.needs)) - 1

    def reversed(self) -> Problem:
        """The same from the end: an order of it, turned round, has the same peak."""
        return replace(
            self,
            needs=self.followers,
            followers=self.needs,
            given=self.stays,
            stays=self.given,
        )

    def run(self, done: int, live: int, op: int) -> tuple[int, int]:
        """Bytes live while `op` runs after the set `done`, and after it."""
        during = live
        gone = 0
        now = done | 1 << op
        for b in self.uses[op]:
            if not self.users[b] & done and b not in self.given:
                during += self.size[b]
            if not self.users[b] & ~now and b not in self.stays:
                gone += self.size[b]
        return during, during - gone

    def live(self, done: int) -> int:
        """Bytes live after the set `done`."""
        return sum(
            size
            for b, size in enumerate(self.size)
            if (b in self.given or self.users[b] & done)
            and (b in self.stays or self.users[b] & ~done)
        )

    def least(self) -> int:
        """What the largest operator needs by itself, and the caller before and after the run."""
        return max(
            sum(self.size[b] for b in self.given),
            sum(self.size[b] for b in self.stays),
            *(sum(self.size[b] for b in uses) for uses in self.uses),
        )

    def ready(self, done: int, goal: int) -> int:
        """Operators of `goal` that may run next."""
        waiting = members(goal & ~done)
        return sum(1 << op for op in waiting if not self.needs[op] & ~done)

    def freed(self, done: int, op: int, goal: int) -> int:
        """Operators of `goal` that may run now that `op` has; `done` has `op`."""
        following = members(self.followers[op] & goal)
        return sum(1 << i for i in following if not self.needs[i] & ~done)

    def parts(self) -> list[int]:
        """Sets that every order passes through, growing; the last one is all operators.

        They end behind operators that all others come before or after.
        """
        count = len(self.needs)
        before = [0] * count  # all that must have run, however far back
        after = [0] * count
        for i in range(count):  # the graph's own order is topological
            for j in members(self.needs[i]):
                before[i] |= before[j] | 1 << j
            for j in members(before[i]):
                after[j] |= 1 << i
        ends = {
            before[i] | 1 << i
            for i in range(count)
            if before[i] | after[i] | 1 << i == self.everything
        }
        return sorted({*ends, self.everything}, key=lambda part: len(members(part)))


def members(mask: int) -> list[int]:
    """The members of a set, ascending."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found


def problem_of(graph: Graph, keep: frozenset[str]) -> Problem:
    """Buffers as lifetimes.py has them; those of `keep` stay."""
    position = {op.output: i for i, op in enumerate(graph.ops)}
    owner: dict[str, int] = {}  # of each activation: its buffer
    size: list[int] = []
    for item in buffers(graph):
        owner.update(dict.fromkeys(item.tensors, len(size)))
        size.append(item.bytes)
    needs, uses = [], []
    followers, users = [0] * len(graph.ops), [0] * len(size)
    for i, op in enumerate(graph.ops):
        before = {position[name] for name in op.inputs if name in position}
        needs.append(sum(1 << j for j in before))
        for j in before:
            followers[j] |= 1 << i
        used = {owner[name] for name in (*op.inputs, op.output) if name in owner}
        uses.append(tuple(sorted(used)))
        for b in used:
            users[b] |= 1 << i
    return Problem(
        needs=tuple(needs),
        followers=tuple(followers),
        uses=tuple(uses),
        size=tuple(size),
        users=tuple(users),
        given=frozenset(owner[name] for name in graph.inputs),
        stays=frozenset(owner[name] for name in (*graph.outputs, *keep)),
    )
