"""The verifier: runs a plan on paper. It shares no code with the planner and trusts nothing.

It walks the operators in order over a map of the arena that remembers, byte range by byte range,
which value was written there last. Whatever an operator reads, and whatever must be there at the
end, must still be the value that was meant.
"""

from __future__ import annotations

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import OpKind
from fieldloop.plan.types import Plan
from fieldloop.plan.verify_needs import PlanError
from fieldloop.plan.verify_tiles import verify_tiles

__all__ = ["PlanError", "verify"]


def verify(graph: Graph, plan: Plan, *, keep: frozenset[str] = frozenset()) -> None:
    """Raises PlanError unless the plan is sound; `keep`: tensors that must survive the run.

    A tiled plan goes to the verifier of its own (verify_tiles.py).
    """
    if plan.steps:
        verify_tiles(graph, plan, keep=keep)
        return

    def refuse(what: str) -> PlanError:
        return PlanError(f"plan for {plan.kind.value} of {graph.name}: {what}")

    places: dict[str, tuple[int, int]] = {}
    highest = 0
    for tensor in graph.tensors.values():
        if tensor.data is not None:
            if tensor.name in plan.offsets:
                raise refuse(f"constant {tensor.name} has a place in the arena")
            continue
        if tensor.name not in plan.offsets:
            raise refuse(f"tensor {tensor.name} has no place")
        start = plan.offsets[tensor.name]
        length = 1
        for n in tensor.shape:
            length *= n
        width = {"int8": 1, "int32": 4, "float32": 4}[tensor.dtype.value]
        if start < 0 or start % width:
            raise refuse(f"tensor {tensor.name} at {start} is not aligned to {width} bytes")
        places[tensor.name] = (start, start + length * width)
        highest = max(highest, start + length * width)
    if set(plan.offsets) - set(places):
        raise refuse(f"unknown tensors {sorted(set(plan.offsets) - set(places))}")
    scratch, scratch_bytes = plan.learner_scratch
    if scratch < 0 or scratch % 16 or scratch_bytes < 0:
        raise refuse(f"{scratch_bytes} bytes for the learner at {scratch}, not aligned to 16")
    highest = max(highest, scratch + scratch_bytes)
    if highest != plan.arena_bytes:
        raise refuse(f"highest end is {highest}, arena_bytes says {plan.arena_bytes}")

    arena: list[tuple[int, int, str]] = []  # disjoint ranges and the value each holds
    value_of = {name: name for name in places}  # a reshape's output is its input's value

    def write(name: str) -> None:
        start, end = places[name]
        kept: list[tuple[int, int, str]] = []
        for a, b, value in arena:
            if a < min(b, start):
                kept.append((a, min(b, start), value))
            if max(a, end) < b:
                kept.append((max(a, end), b, value))
        kept.append((start, end, value_of[name]))
        arena[:] = kept

    def check(name: str, reader: str) -> None:
        start, end = places[name]
        good = sum(
            min(b, end) - max(a, start)
            for a, b, value in arena
            if value == value_of[name] and max(a, start) < min(b, end)
        )
        if good != end - start:
            raise refuse(
                f"{reader} reads {name} at {start}..{end}, but {end - start - good} of its bytes "
                "were overwritten or never written"
            )

    for name in graph.inputs:
        write(name)
    for name in graph.inputs:
        check(name, "the first operator")
    for op in graph.ops:
        read = [name for name in op.inputs if name in places]
        for name in read:
            check(name, f"operator {op.name}")
        out = places[op.output]
        for name in read:
            start, end = places[name]
            same = op.kind is OpKind.RESHAPE and (start, end) == out
            if start < out[1] and out[0] < end and not same:
                raise refuse(f"operator {op.name} writes over its own input {name}")
        if op.kind is OpKind.RESHAPE and out == places[op.inputs[0]]:
            value_of[op.output] = value_of[op.inputs[0]]
        write(op.output)
    for name in sorted({*graph.outputs, *keep}):
        check(name, "the caller")
        start, end = places[name]
        if start < scratch + scratch_bytes and scratch < end:
            raise refuse(f"{name} lies where the learner works")
