"""When is each buffer live? A reshape shares its input's buffer: the same bytes, another shape."""

from __future__ import annotations

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import OpKind
from fieldloop.plan.types import Buffer


def buffers(graph: Graph, *, keep: frozenset[str] = frozenset()) -> tuple[Buffer, ...]:
    """Buffers of a graph in its order; those of tensors in `keep` live until the end."""
    end = len(graph.ops) + 1
    root: dict[str, str] = {}  # tensor -> the tensor whose buffer it lives in
    for name in graph.inputs:
        root[name] = name
    for op in graph.ops:
        shares = op.kind is OpKind.RESHAPE
        root[op.output] = root[op.inputs[0]] if shares else op.output

    members: dict[str, list[str]] = {}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for name, owner in root.items():
        members.setdefault(owner, []).append(name)
    for name in graph.inputs:
        first[name] = last[name] = 0
    for step, op in enumerate(graph.ops, start=1):
        for name in op.inputs:
            if name in root:
                last[root[name]] = step
        owner = root[op.output]
        first.setdefault(owner, step)
        last[owner] = max(last.get(owner, step), step)
    for name in (*graph.outputs, *keep):
        last[root[name]] = end
    return tuple(
        Buffer(
            tensors=tuple(names),
            bytes=graph.tensors[owner].bytes,
            alignment=graph.tensors[owner].dtype.bytes,
            first=first[owner],
            last=last[owner],
        )
        for owner, names in members.items()
    )


def lower_bound(items: tuple[Buffer, ...]) -> int:
    """Most bytes live at one step: no layout can need less."""
    steps = {item.first for item in items}
    return max(
        (sum(b.bytes for b in items if b.first <= step <= b.last) for step in steps), default=0
    )
