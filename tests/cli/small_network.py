"""A float network as an .onnx and samples to calibrate it with, quick to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_network(folder: Path) -> tuple[object, ...]:
    """Two wide layers between a narrow input [2, 16, 16] and a narrow output: every tiling saves
    something. Returns the words that name it on the command line, its path first.
    """
    rng = np.random.default_rng(3)
    nodes, weights = [], []

    def layer(x: str, name: str, shape: tuple[int, ...], **attributes: object) -> str:
        for suffix, size in (("w", shape), ("b", shape[:1])):
            value = rng.normal(0, 0.4, size).astype(np.float32)
            weights.append(numpy_helper.from_array(value, f"{name}.{suffix}"))
        kind = "Conv" if len(shape) == 4 else "Gemm"
        inputs = [x, f"{name}.w", f"{name}.b"]
        nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def plain(kind: str, x: str) -> str:
        nodes.append(helper.make_node(kind, [x], [f"{x}.{kind}"]))
        return f"{x}.{kind}"

    pads = [1, 1, 1, 1]
    y = plain("Relu", layer("x", "wide", (16, 2, 3, 3), pads=pads))
    y = plain("Relu", layer(y, "depthwise", (16, 1, 3, 3), pads=pads, group=16))
    y = plain("Relu", layer(y, "narrow", (8, 16, 3, 3), pads=pads, strides=[2, 2]))
    y = plain("Flatten", plain("GlobalAveragePool", y))
    y = layer(y, "head", (3, 8), transB=1)
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 16, 16])],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, [1, 3])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, folder / "network.onnx")
    np.savez(folder / "samples.npz", x=rng.random((20, 2, 16, 16), np.float32))
    return (folder / "network.onnx", "--calibrate", folder / "samples.npz")
