"""A network cut in two: a trunk that stays as it is, and a tail that learns.

The trunk runs once over all samples, int8 to int8, through the C core; a run of the study then
learns on an image of the tail alone, whose input is what the trunk made. That is the whole model's
arithmetic, byte for byte; only the work of the trunk has to be added to every forward pass. (The
bits that round steps are drawn by operator numbers, so weights learned by tail and whole model
are two draws of the same.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fieldloop.compiler import Compiled, compile_graph
from fieldloop.errors import UsageError
from fieldloop.ir.graph import Graph
from fieldloop.runtime import Model


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """`trunk` is None where the tail is the whole model."""

    tail: Compiled
    trunk: Compiled | None
    trunk_macs: int
    layers: tuple[str, ...]  # trained, from the head backwards

    def features(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
        """What the tail is given for samples [n, ...] of the whole model: int8 [n, elements]."""
        if self.trunk is None:
            return Model(self.tail.image).as_inputs(x).astype(np.int8)
        return Model(self.trunk.image).predict_int8(x)


def cut(
    whole: Compiled, samples: npt.NDArray[np.float32], at: str | None = None, *, rate: float = 1.0
) -> Cut:
    """Cuts an int8 model below its lowest trainable layer, or behind the tensor `at`.

    `samples`: real-valued ones, which the learning rates are found from. `rate`: of layers below
    the head, as a part of the head's.
    """
    graph = whole.graph
    names = [layer.op for layer in whole.trainables]
    if not names:
        raise UsageError(f"{graph.name}: it has no trainable layers")
    lowest = next(op for op in graph.ops if op.name in names)
    start = at or lowest.inputs[0]
    if start in graph.inputs:
        tail = compile_graph(graph, samples, learn=names, inner_rate=rate)
        return Cut(tail, None, 0, tuple(names))
    trunk_graph = _part(graph, graph.inputs, (start,))
    trunk = compile_graph(trunk_graph, learn=None)
    features = Model(trunk.image).predict_int8(samples)
    tail_graph = _part(graph, (start,), graph.outputs)
    shape = tail_graph.tensors[start].shape
    tail = compile_graph(
        tail_graph, features.reshape(-1, *shape[1:]), learn=names, inner_rate=rate
    )
    return Cut(tail, trunk, trunk_graph.macs(), tuple(names))


def _part(graph: Graph, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Graph:
    """The operators between some tensors and others."""
    wanted, kept = set(outputs), []
    for op in reversed(graph.ops):
        if op.output in wanted and op.output not in inputs:
            kept.append(op)
            wanted.update(op.inputs)
    ops = tuple(reversed(kept))
    used = {name for op in ops for name in (*op.inputs, op.output)}
    reads = {n for op in ops for n in op.inputs if not graph.tensors[n].is_constant}
    loose = sorted(reads - {op.output for op in ops} - set(inputs))
    if loose:
        raise UsageError(f"{graph.name}: {loose[0]} leads past the cut at {inputs[0]}")
    tensors = {name: graph.tensors[name] for name in used}
    return Graph(graph.name, tensors, ops, inputs, outputs)
