"""The plan as a picture: arena from left to right, time from top to bottom."""

from __future__ import annotations

from fieldloop.ir.graph import Graph
from fieldloop.plan.lifetimes import buffers
from fieldloop.plan.types import Plan


def memory_map(
    graph: Graph, plan: Plan, *, width: int = 64, keep: frozenset[str] = frozenset()
) -> str:
    """ASCII memory map, one line an operator; `keep` as it was given to the planner.

    A letter marks a live buffer, capital while it is written; `.` is free.
    """
    items = buffers(graph, keep=keep)
    letters = [chr(ord("a") + i % 26) for i in range(len(items))]
    scale = max(plan.arena_bytes, 1)
    label = max(len("(inputs)"), *(len(op.name) for op in graph.ops))
    lines = [f"{'':{label}} 0{'':{width - 2}}{plan.arena_bytes} bytes"]
    for step, name in enumerate(["(inputs)", *(op.name for op in graph.ops)]):
        row = ["."] * width
        for item, letter in zip(items, letters, strict=True):
            if item.first <= step <= item.last:
                start = plan.offsets[item.tensors[0]]
                first = start * width // scale
                last = max(first + 1, -(-(start + item.bytes) * width // scale))
                mark = letter.upper() if step == item.first else letter
                row[first:last] = mark * (min(last, width) - first)
        lines.append(f"{name:{label}} {''.join(row)}")
    legend = [
        f"{letter} {' = '.join(item.tensors)}: {plan.offsets[item.tensors[0]]}.."
        f"{plan.offsets[item.tensors[0]] + item.bytes}"
        for item, letter in zip(items, letters, strict=True)
    ]
    return "\n".join([*lines, *legend])
