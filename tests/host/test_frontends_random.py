"""Random modules: through torch.export and through ONNX, both graphs compute what torch does."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import onnx_values  # noqa: E402
import torch_values  # noqa: E402
from onnx_quantised import FORMS, quantised  # noqa: E402
from random_modules import Growth  # noqa: E402
from torch import nn  # noqa: E402


@pytest.mark.parametrize("seed", range(16))
def test_a_random_module_through_torch(seed: int) -> None:
    growth = Growth(seed)
    torch_values.check(growth.module(), growth.start, seed=seed)


def exported(module: nn.Module, shape: tuple[int, ...]) -> bytes:
    """An .onnx by the exporter that traces, which needs no compiler and is quick."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.randn(1, *shape),), file, dynamo=False, opset_version=17)
    return file.getvalue()


@pytest.mark.parametrize("seed", range(100, 116))
def test_a_random_module_through_onnx(seed: int) -> None:
    growth = Growth(seed)
    module = torch_values.shake(growth.module(), seed)
    onnx_values.check(exported(module, growth.start), seed=seed)


@pytest.mark.parametrize("seed", range(3, 9))
def test_a_random_module_quantised_by_onnxruntime(seed: int, tmp_path: Path) -> None:
    growth = Growth(seed)
    data = exported(torch_values.shake(growth.module(), seed), growth.start)
    form = sorted(FORMS)[seed % len(FORMS)]
    onnx_values.check(quantised(data, (1, *growth.start), form, tmp_path), samples=1, seed=seed)
