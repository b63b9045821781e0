"""The graph: tensors by name, operators in execution order. What is built here is consistent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from fieldloop.errors import UsageError
from fieldloop.ir.dtypes import check_dtypes
from fieldloop.ir.op import BINARY, WEIGHTED, Op, OpKind
from fieldloop.ir.shapes import macs, output_shape
from fieldloop.ir.tensor import Tensor

_ANY_CONSTANT = BINARY | {OpKind.CONCAT}  # some input is an activation, others may be constants
_CONSTANT_INPUTS = WEIGHTED | {OpKind.TABLE, OpKind.EMBEDDING}


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A validated graph; to change it, build another one (`with_ops`, `dataclasses.replace`)."""

    name: str
    tensors: Mapping[str, Tensor]
    ops: tuple[Op, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        _validate(self)

    def with_ops(self, ops: Sequence[Op]) -> Graph:
        """The same graph with its operators replaced or in another order."""
        return replace(self, ops=tuple(ops))

    @property
    def activations(self) -> tuple[Tensor, ...]:
        """Inputs, then what operators make, in execution order."""
        names = [*self.inputs, *(op.output for op in self.ops)]
        return tuple(self.tensors[name] for name in names)

    def producer(self, name: str) -> Op | None:
        """The operator that makes a tensor; None for inputs and constants."""
        return next((op for op in self.ops if op.output == name), None)

    def consumers(self, name: str) -> tuple[Op, ...]:
        """The operators that read a tensor, in execution order."""
        return tuple(op for op in self.ops if name in op.inputs)

    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return sum(macs(op, self.tensors) for op in self.ops)


def _validate(graph: Graph) -> None:
    def refuse(what: str) -> UsageError:
        return UsageError(f"graph {graph.name}: {what}")

    for key, tensor in graph.tensors.items():
        if key != tensor.name:
            raise refuse(f"tensor {tensor.name!r} is filed under {key!r}")
    for name in (*graph.inputs, *graph.outputs):
        if name not in graph.tensors:
            raise refuse(f"input or output {name!r} is not a tensor of the graph")
    if not graph.inputs or not graph.outputs or not graph.ops:
        raise refuse("expected at least one input, one operator and one output")
    if len(set(graph.inputs)) != len(graph.inputs):
        raise refuse("an input is named twice")

    ready = set(graph.inputs) | {t.name for t in graph.tensors.values() if t.is_constant}
    if any(graph.tensors[name].is_constant for name in graph.inputs):
        raise refuse("an input is a constant")
    used: set[str] = set(graph.outputs)
    seen: set[str] = set()
    for op in graph.ops:
        if op.name in seen:
            raise refuse(f"two operators are called {op.name!r}")
        seen.add(op.name)
        for name in (*op.inputs, op.output):
            if name not in graph.tensors:
                raise refuse(f"operator {op.name!r} names the unknown tensor {name!r}")
        for name in op.inputs:
            if name not in ready:
                raise refuse(f"operator {op.name!r} reads {name!r} before it is written")
        if op.output in ready:
            raise refuse(f"operator {op.name!r} writes {op.output!r}, which exists already")
        either = op.kind in _ANY_CONSTANT
        if all(graph.tensors[n].is_constant for n in (op.inputs if either else op.inputs[:1])):
            raise refuse(f"operator {op.name!r} reads nothing but constants")
        if op.kind in _CONSTANT_INPUTS and not all(
            graph.tensors[n].is_constant for n in op.inputs[1:]
        ):
            raise refuse(f"operator {op.name!r}: weights, biases and tables must be constants")
        expected = output_shape(op, graph.tensors)
        if graph.tensors[op.output].shape != expected:
            raise refuse(
                f"operator {op.name!r} makes {expected}, tensor {op.output!r} says "
                f"{graph.tensors[op.output].shape}"
            )
        check_dtypes(op, graph.tensors)
        used.update(op.inputs)
        ready.add(op.output)
    for name in graph.outputs:
        if name not in ready or graph.tensors[name].is_constant:
            raise refuse(f"output {name!r} is made by no operator")
    unused = sorted(set(graph.tensors) - used)
    if unused:
        raise refuse(f"tensors that nobody reads: {', '.join(unused)}")
