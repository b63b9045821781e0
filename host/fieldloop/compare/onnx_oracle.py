"""What onnxruntime says: every value of an .onnx model that the graph has a tensor for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.errors import FieldloopError

Array = npt.NDArray[np.generic]


class OnnxOracle:
    """A session without graph optimisations: operators run as they stand, not fused."""

    name = "onnxruntime"

    def __init__(self, content: bytes, wanted: Iterable[str]) -> None:
        """`wanted`: names of values; those that the model does not have are left out."""
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise FieldloopError(
                f"onnxruntime is needed to compare: {error}; pip install onnx onnxruntime"
            ) from error
        model = onnx.load_from_string(content)
        made = {name for node in model.graph.node for name in node.output if name}
        self.inputs = [
            value.name
            for value in model.graph.input
            if value.name not in {item.name for item in model.graph.initializer}
        ]
        shown = [value.name for value in model.graph.output]
        more = [name for name in dict.fromkeys(wanted) if name in made and name not in shown]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in more)
        self.values = [*shown, *more]
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session: Any = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the package has a class of its own for every cause
            raise FieldloopError(f"onnxruntime does not load the model: {error}") from error

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Values by name, inputs included."""
        try:
            made = self._session.run(self.values, dict(inputs))
        except Exception as error:
            raise FieldloopError(f"onnxruntime does not run the model: {error}") from error
        return {**inputs, **dict(zip(self.values, made, strict=True))}
