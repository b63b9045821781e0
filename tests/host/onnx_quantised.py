"""Float .onnx models quantised by onnxruntime, in each of the forms that it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization as ort
from onnxruntime.quantization.shape_inference import quant_pre_process


class Samples(ort.CalibrationDataReader):
    """Random inputs for onnxruntime's calibration."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(5)
        self._left = [{name: rng.normal(size=shape).astype(np.float32)} for _ in range(8)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._left.pop() if self._left else None


INT8, UINT8 = ort.QuantType.QInt8, ort.QuantType.QUInt8
FORMS = {
    "int8": (INT8, INT8, False, ort.QuantFormat.QDQ),
    "int8, a scale for each channel": (INT8, INT8, True, ort.QuantFormat.QDQ),
    "uint8, a scale for each channel": (UINT8, INT8, True, ort.QuantFormat.QDQ),
    "uint8 weights, too": (UINT8, UINT8, False, ort.QuantFormat.QDQ),
    "qoperator": (UINT8, INT8, False, ort.QuantFormat.QOperator),
}


def quantised(data: bytes, shape: tuple[int, ...], form: str, folder: Path) -> bytes:
    """The model with random calibration; `shape` is that of its one input."""
    activations, weights, channels, layout = FORMS[form]
    plain, ready, made = (str(folder / f"{step}.onnx") for step in ("plain", "ready", "made"))
    Path(plain).write_bytes(data)
    quant_pre_process(plain, ready, skip_symbolic_shape=True)
    ort.quantize_static(
        ready,
        made,
        Samples(onnx.load(ready).graph.input[0].name, shape),
        quant_format=layout,
        per_channel=channels,
        activation_type=activations,
        weight_type=weights,
    )
    return Path(made).read_bytes()
