"""Which runtime a network comes from, and its values in the image's layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.compare.inputs import Sample
from fieldloop.compare.oracle import Oracle
from fieldloop.compiler import Compiled
from fieldloop.errors import FieldloopError
from fieldloop.ir.graph import Graph
from fieldloop.sources import Source

Array = npt.NDArray[Any]
# The source's inputs by its own names -> its values by its own names.
RunSource = Callable[[dict[str, Array]], dict[str, Array]]


def oracle_of(source: Source, compiled: Compiled) -> tuple[Oracle | None, str]:
    """The runtime to compare with, or None and why there is none."""
    if source.calibration is not None:
        return None, "made int8 here; SQNR tells how far each layer is from the float model"
    try:
        if source.imported.kind == "tflite":
            return _tflite(source, compiled), ""
        if source.imported.kind == "onnx":
            return _onnx(source, compiled), ""
        return _torch(source, compiled), ""
    except FieldloopError as error:
        return None, str(error)


class _Mapped:
    """A runtime behind the frontend's map of values."""

    def __init__(
        self,
        name: str,
        source: Source,
        graph: Graph,
        run: RunSource,
        *,
        exact: bool,
        forced: bool,
    ) -> None:
        self.name, self.exact, self.forced = name, exact, forced
        self._values = source.imported.values
        self._graph = graph
        self._run = run
        # The image numbers inputs first, then what operators make, in their order.
        self._index = {tensor.name: i for i, tensor in enumerate(graph.activations)}

    def run(self, sample: Sample) -> dict[int, Array]:
        given = {}
        for name, value in zip(self._graph.inputs, sample, strict=True):
            mapped = self._values[name]
            # Indices are int32 on the device, whatever integers the source takes.
            given[mapped.source] = mapped.to_source(np.asarray(value)).astype(
                mapped.dtype, copy=False
            )
        made = self._run(given)
        known = {}
        for name, index in self._index.items():
            mapped = self._values.get(name)
            if mapped is None or mapped.source not in made:
                continue
            tensor = self._graph.tensors[name]
            value = mapped.to_graph(np.asarray(made[mapped.source]), tensor.shape)
            known[index] = value.reshape(tensor.shape).astype(tensor.dtype.value, copy=False)
        return known


def _tflite(source: Source, compiled: Compiled) -> Oracle:
    from fieldloop.compare.tflite_oracle import TfliteOracle

    session = TfliteOracle(source.content, source.imported)
    return _Mapped(
        session.name,
        source,
        compiled.graph,
        session.run,
        exact=not source.is_float,
        forced=False,
    )


def _onnx(source: Source, compiled: Compiled) -> Oracle:
    from fieldloop.compare.onnx_oracle import OnnxOracle

    wanted = [mapped.source for mapped in source.imported.values.values()]
    session = OnnxOracle(source.content, wanted)
    return _Mapped(
        session.name, source, compiled.graph, session.run, exact=False, forced=not source.is_float
    )


def _torch(source: Source, compiled: Compiled) -> Oracle:
    import torch

    values = source.imported.values
    graph = compiled.graph
    inputs = [values[name].source for name in graph.inputs]
    outputs = [values[name].source for name in graph.outputs]

    def run(given: dict[str, Array]) -> dict[str, Array]:
        module = source.module.eval()
        with torch.no_grad():
            made = module(*(torch.from_numpy(given[name]) for name in inputs))
        several = made if isinstance(made, tuple | list) else (made,)
        return dict(zip(outputs, (t.numpy() for t in several), strict=True))

    return _Mapped("torch", source, graph, run, exact=False, forced=False)
