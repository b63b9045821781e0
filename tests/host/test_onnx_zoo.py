"""The zoo through torch, torch.onnx and onnxruntime's quantisation, to the C core.

Float models equal their source to 1e-5; a quantised one is at most a step from onnxruntime in each
layer, and the C core has the reference's bytes.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")

import onnx_values  # noqa: E402
import torch_values  # noqa: E402
from onnx_quantised import FORMS, quantised  # noqa: E402

from fieldloop import zoo  # noqa: E402
from fieldloop.compiler import compile_graph  # noqa: E402
from fieldloop.frontends.onnx_frontend import read_onnx  # noqa: E402
from fieldloop.ir.graph import Graph  # noqa: E402
from fieldloop.ir.op import OpKind  # noqa: E402
from fieldloop.ir.reference import run  # noqa: E402
from fieldloop.ir.tensor import DType  # noqa: E402
from fieldloop.runtime import Model  # noqa: E402

NAMES = sorted(zoo.networks)


@pytest.mark.parametrize("name", NAMES)
def test_through_torch(name: str) -> None:
    torch_values.check(zoo.networks[name](), zoo.input_shape(name)[1:])


@pytest.mark.parametrize("name", NAMES)
def test_through_onnx(name: str) -> None:
    data = exported(name)
    onnx_values.check(data, samples=1)
    in_c(read_onnx(data).graph)


def exported(name: str) -> bytes:
    module = torch_values.shake(zoo.networks[name]())
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = torch.randn(zoo.input_shape(name))
        torch.onnx.export(module, (x,), file, dynamo=False, opset_version=17)
    return file.getvalue()


def in_c(graph: Graph) -> None:
    """One run in the C core: int8 outputs to the byte, float ones to 1e-5 of the largest."""
    rng = np.random.default_rng(0)
    x = [rng.normal(size=graph.tensors[n].shape).astype(np.float32) for n in graph.inputs]
    made = Model(compile_graph(graph, None, learn=None).image).predict(*x)
    wanted = run(graph, dict(zip(graph.inputs, x, strict=True)))
    exact = any(t.dtype is DType.INT8 for t in graph.activations)
    for got, name in zip(made if isinstance(made, tuple | list) else [made], wanted, strict=True):
        limit = 0.0 if exact else 1e-5 * np.abs(wanted[name]).max()
        np.testing.assert_allclose(got, wanted[name], rtol=0.0, atol=limit)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["har", "kws", "resnet8"])
def test_quantised_by_onnxruntime(name: str, form: str, tmp_path: Path) -> None:
    data = quantised(exported(name), zoo.input_shape(name), form, tmp_path)
    imported = onnx_values.check(data, samples=1)
    assert imported.notes == ()  # nothing but the ends is float
    kept = (OpKind.QUANTIZE, OpKind.DEQUANTIZE)
    for op in imported.graph.ops:
        assert op.kind in kept or imported.graph.tensors[op.output].dtype is DType.INT8
    in_c(imported.graph)
