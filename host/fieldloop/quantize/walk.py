"""One operator at a time: what needs the values between the operators of a graph."""

from __future__ import annotations

from collections.abc import Mapping

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Op
from fieldloop.ir.reference import run
from fieldloop.ir.tensor import Array, Tensor


def run_op(op: Op, tensors: Mapping[str, Tensor], values: Mapping[str, Array]) -> Array:
    """The output of one operator for its inputs [n, ...] among `values`."""
    names = list(dict.fromkeys(n for n in op.inputs if not tensors[n].is_constant))
    needed = {name: tensors[name] for name in (*op.inputs, op.output)}
    single = Graph(op.name, needed, (op,), tuple(names), (op.output,))
    return run(single, {name: values[name] for name in names})[op.output]


def drop_read(graph: Graph, place: int, values: dict[str, Array]) -> None:
    """Forgets values that no operator after number `place` reads."""
    later = {name for op in graph.ops[place + 1 :] for name in op.inputs}
    for name in graph.ops[place].inputs:
        if name not in later:
            values.pop(name, None)
