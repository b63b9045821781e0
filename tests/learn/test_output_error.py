"""Softmax, its exponential, and the mode of the processor's float unit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fieldloop import paths
from fieldloop.runtime.core import compiler, core

ffi, lib = core()

EXHAUSTIVE = r"""
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "fieldloop/fl_backward.h"

// Every f32 from -2^-33 (above it e^x rounds to 1) to -88: monotone, within 1 ulp of double libm.
int main(void) {
    float previous = 1.0f;
    double worst = 0.0;
    for (uint32_t bits = 0xaf000000u;; bits++) {
        float x;
        memcpy(&x, &bits, sizeof x);
        if (x < -88.0f) {
            break;
        }
        float y = fl_exp_negative(x);
        if (y > previous) {
            printf("rises at %a\n", (double)x);
            return 1;
        }
        previous = y;
        if ((bits & 63) == 0 && x >= -87.0f) {
            double exact = exp((double)x);
            int exponent;
            frexp(exact, &exponent);
            double ulps = fabs((double)y - exact) / ldexp(1.0, exponent - 24);
            worst = ulps > worst ? ulps : worst;
        }
    }
    printf("%.6f\n", worst);
    return worst < 1.0 ? 0 : 1;
}
"""


def test_exponential_of_every_float(tmp_path: object) -> None:
    source = f"{tmp_path}/exhaustive.c"
    with open(source, "w") as file:
        file.write(EXHAUSTIVE)
    root = paths.core_dir()
    binary = f"{tmp_path}/exhaustive"
    flags = ["-std=c99", "-O2", "-ffp-contract=off", f"-I{root / 'include'}", f"-I{root}"]
    command = [compiler(), *flags, source, str(root / "learn/softmax_f32.c"), "-lm", "-o", binary]
    subprocess.run(command, check=True)
    done = subprocess.run([binary], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_exponential_at_its_ends() -> None:
    assert lib.fl_exp_negative(0.0) == 1.0
    assert lib.fl_exp_negative(-0.0) == 1.0
    assert lib.fl_exp_negative(3.0) == 1.0
    assert lib.fl_exp_negative(float("-inf")) == 0.0
    assert lib.fl_exp_negative(-87.5) == 0.0
    assert lib.fl_exp_negative(-87.0) > 1.1754944e-38
    assert np.isnan(lib.fl_exp_negative(float("nan")))


def output_error(
    q: np.ndarray, scale: float, zero: int, label: int
) -> tuple[float, np.ndarray, int]:
    delta = np.full(q.size, np.nan, np.float32)
    predicted = ffi.new("uint32_t *")
    error = lib.fl_output_error(
        ffi.cast("int8_t *", q.ctypes.data),
        q.size,
        scale,
        zero,
        label,
        ffi.cast("float *", delta.ctypes.data),
        predicted,
    )
    return error, delta, predicted[0]


@pytest.mark.parametrize("seed", range(8))
def test_error_is_softmax_minus_one_hot(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 30))
    q = rng.integers(-128, 128, n).astype(np.int8)
    scale, zero, label = float(np.float32(rng.uniform(0.01, 0.4))), int(rng.integers(-20, 20)), 1
    error, delta, predicted = output_error(q, scale, zero, label)
    z = torch.tensor((q.astype(np.float64) - zero) * scale, requires_grad=True)
    torch.nn.functional.cross_entropy(z[None], torch.tensor([label])).backward()
    np.testing.assert_allclose(delta, z.grad.numpy(), rtol=1e-5, atol=1e-7)
    assert error == pytest.approx(np.abs(delta).sum(), rel=1e-4, abs=1e-6)
    assert predicted == int(np.argmax(q))


def test_equal_logits_predict_the_lower_class() -> None:
    assert output_error(np.array([3, 7, 7, 1], np.int8), 0.1, 0, 0)[2] == 1


def test_logits_beyond_float_give_no_number() -> None:
    error, _, _ = output_error(np.array([127, -128, 5], np.int8), 3e38, -10, 0)
    assert not np.isfinite(error)


def test_this_process_computes_as_the_boards_do() -> None:
    assert lib.fl_float_mode_check() == 0


def test_flush_to_zero_is_refused() -> None:
    pytest.importorskip("torch")
    script = (
        "import torch; assert torch.set_flush_denormal(True)\n"
        "from fieldloop.errors import FieldloopError\n"
        "from fieldloop.runtime.model import check_float_mode\n"
        "try:\n    check_float_mode()\n"
        "except FieldloopError as error:\n    print(error)\n"
        "torch.set_flush_denormal(False); check_float_mode()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if "AssertionError" in done.stderr:
        pytest.skip("this processor cannot flush to zero")
    assert done.returncode == 0, done.stderr
    assert "flush-to-zero" in done.stdout and "Traceback" not in done.stdout


def test_the_runtime_imports_no_torch() -> None:
    script = "import sys, fieldloop.runtime; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
