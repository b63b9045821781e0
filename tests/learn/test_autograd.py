"""Gradients of the f32 kernels against torch's autograd, in double and in single precision, and
worked examples 2 and 3 of the research file to the printed digits.

Errors of 1e-5 of the largest gradient are allowed: sums of up to a few hundred products in f32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels import (
    Array,
    Conv,
    Rule,
    Trained,
    all_spots,
    c,
    core,
    rows_input,
    spots_input,
    spots_row,
    step_bias,
    step_fully_connected_row,
    step_row,
)
from reference_way import pool_to_input
from test_spots import random_conv, random_weights

from fieldloop.ir.op import Op, OpKind, Window

torch = pytest.importorskip("torch")
_, lib = core()
f32 = np.float32
PRECISIONS = {"f64": torch.float64, "f32": torch.float32}


def close(got: Array, expected: Any) -> None:
    expected = expected.detach().numpy().astype(np.float64)
    largest = max(float(np.abs(expected).max()), 1e-30)
    np.testing.assert_allclose(got.reshape(expected.shape), expected, rtol=0, atol=1e-5 * largest)


def tensor(array: Array, precision: str) -> Any:
    made = torch.tensor(np.ascontiguousarray(array)).to(PRECISIONS[precision])
    return made.requires_grad_(True)


def map_to_torch(array: Array) -> Array:
    # contiguous: batch_norm's backward reads a strided gradient wrongly (torch 2, CPU)
    return np.ascontiguousarray(array.transpose(2, 0, 1)[None])


def weights_to_torch(kind: str, w: Array) -> Array:
    """To O, I / groups, H, W."""
    return w.transpose(2, 0, 1)[:, None] if kind == "depthwise_conv2d" else w.transpose(0, 3, 1, 2)


def conv_gradients(
    kind: str, conv: Conv, delta: Array, w: Array, w_scale: Array, x: Array, x_zero: int
) -> tuple[Array, Array]:
    """(input [h, w, c], rows [c, kh, kw, c_in]) by the kernels; what is 0 makes no spot."""
    channels = conv.in_shape[2] if kind == "conv2d" else 1
    delta_in = np.zeros(conv.in_shape, f32)
    rows = np.zeros((conv.out_shape[2], *conv.kernel, channels), f32)
    for channel in range(conv.out_shape[2]):
        places, deltas = all_spots(conv, delta, channel)
        spots_input(kind, conv, places, deltas, channel, w, float(w_scale[channel]), delta_in)
        spots_row(kind, conv, places, deltas, channel, x, x_zero, rows[channel])
    return delta_in, rows


def conv_1d(rng: np.random.Generator, *, depthwise: bool) -> Conv:
    while True:
        conv = random_conv(rng, depthwise=depthwise, largest=12)
        kernel, stride, dilation = conv.kernel[1], conv.stride[1], conv.dilation[1]
        length, pad = int(rng.integers(3, 30)), conv.pads[1]
        out = (length + 2 * pad - (kernel - 1) * dilation - 1) // stride + 1
        if out >= 1:
            shapes = ((1, length, conv.in_shape[2]), (1, out, conv.out_shape[2]))
            return Conv(
                (1, kernel), (1, stride), (1, dilation), (0, pad), *shapes, conv.multiplier
            )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("kind", ["conv2d", "depthwise_conv2d"])
def test_convolutions_clamps_and_padding(
    kind: str, dimensions: int, precision: str, seed: int
) -> None:
    """conv -> clamp (ReLU6 and the like): the mask, gradients of input, weights and biases."""
    rng = np.random.default_rng([seed, dimensions])
    depthwise = kind == "depthwise_conv2d"
    if dimensions == 1:
        conv = conv_1d(rng, depthwise=depthwise)
    else:
        conv = random_conv(rng, depthwise=depthwise, largest=17)
    c_out = conv.out_shape[2]
    x = rng.integers(-128, 128, conv.in_shape).astype(np.int8)
    x_zero = int(rng.integers(-128, 128))
    w = random_weights(rng, kind, conv)
    w_scale = rng.uniform(0.001, 0.02, c_out).astype(f32)
    upstream = rng.normal(size=conv.out_shape).astype(f32)

    t_x = tensor(map_to_torch(x.astype(np.float64) - x_zero), precision)
    scaled = w * (w_scale[None, None] if depthwise else w_scale[:, None, None, None])
    t_w = tensor(weights_to_torch(kind, scaled.astype(np.float64)), precision)
    t_b = tensor(np.zeros(c_out), precision)
    args = (conv.stride, conv.pads, conv.dilation, conv.in_shape[2] if depthwise else 1)
    z = torch.nn.functional.conv2d(t_x, t_w, t_b, *args)
    real = z.detach().numpy()[0].transpose(1, 2, 0)
    # the saved output: int8 with a clamp at the quarters of what came out
    step = max(float(np.abs(real).max()) / 100, 1e-6)
    q = np.ascontiguousarray(np.rint(real / step).astype(np.int8))
    low, high = int(np.quantile(q, 0.25)), int(np.quantile(q, 0.75))
    inside = (q > low) & (q < high)
    z.backward(torch.tensor(map_to_torch(upstream * inside)).to(z.dtype))

    delta = upstream.copy()
    lib.fl_backward_activation(c(q, "int8_t *"), q.size, low, high, c(delta, "float *"))
    delta_in, rows = conv_gradients(kind, conv, delta, w, w_scale, x, x_zero)
    close(delta_in.transpose(2, 0, 1)[None], t_x.grad)
    close(rows.transpose(0, 3, 1, 2), t_w.grad)
    close(delta.reshape(-1, c_out).sum(0), t_b.grad)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("precision", PRECISIONS)
def test_fully_connected(precision: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, cols = (int(v) for v in rng.integers(1, 60, 2))
    w = rng.integers(-127, 128, (rows, cols)).astype(np.int8)
    w_scale = rng.uniform(0.001, 0.02, rows).astype(f32)
    delta = rng.normal(size=rows).astype(f32)
    x = tensor(np.zeros(cols), precision)
    t_w = torch.tensor(w * w_scale[:, None].astype(np.float64)).to(PRECISIONS[precision])
    (t_w @ x).backward(torch.tensor(delta).to(PRECISIONS[precision]))
    got = np.zeros(cols, f32)
    rows_input(delta, None, w, w_scale, got)
    close(got, x.grad)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("precision", PRECISIONS)
def test_fully_connected_weights_take_the_gradient_step(precision: str, seed: int) -> None:
    # an f32 master copy, so that nothing is left to chance: w - lr * dL/dw
    rng = np.random.default_rng(100 + seed)
    rows, cols = (int(v) for v in rng.integers(1, 60, 2))
    x = rng.integers(-128, 128, cols).astype(np.int8)
    w_scale = rng.uniform(0.01, 0.02, rows).astype(f32)
    rule = Rule(w_scale, lr=0.01, x_scale=0.02, x_zero=int(rng.integers(-128, 128)))
    w = rng.integers(-60, 61, (rows, cols)).astype(np.int8)
    t = Trained(w.copy(), master=w.astype(f32))
    delta = rng.normal(size=rows).astype(f32)
    t_w = tensor(w * w_scale[:, None].astype(np.float64), precision)
    t_x = torch.tensor((x.astype(np.float64) - rule.x_zero) * 0.02).to(PRECISIONS[precision])
    (t_w @ t_x).backward(torch.tensor(delta).to(PRECISIONS[precision]))
    for row in range(rows):
        step_fully_connected_row(rule, t, row, float(delta[row]), x)
    assert t.master is not None
    moved = (w - t.master.astype(np.float64)) * w_scale[:, None] / 0.01
    expected = t_w.grad.numpy()
    # what is left of a step of a weight of up to 64: 24 bits of 64 steps
    coarse = 64 * 2.0**-24 * w_scale.max() / 0.01
    atol = 1e-5 * np.abs(expected).max() + coarse
    np.testing.assert_allclose(moved, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", [OpKind.MAX_POOL, OpKind.AVG_POOL])
def test_pools(kind: OpKind, precision: str, seed: int) -> None:
    """The reference's: the core has no kernel for pools, and test_learner.py finds equal bytes."""
    rng = np.random.default_rng(100 + seed)
    kernel = tuple(int(v) for v in rng.integers(1, 4, 2))
    stride = tuple(int(v) for v in rng.integers(1, 4, 2))
    pads = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    h, w = (int(v) for v in rng.integers(3, 9, 2))
    channels = int(rng.integers(1, 4))
    out = tuple(
        (size + 2 * p - k) // s + 1
        for size, p, k, s in zip((h, w), pads, kernel, stride, strict=True)
    )
    window = Window(kernel, stride, pads=(pads[0], pads[0], pads[1], pads[1]))
    # few distinct values, so that windows have several largest inputs
    x = rng.integers(-3, 4, (h, w, channels)).astype(np.int8)
    delta = rng.normal(size=(*out, channels)).astype(f32)
    t_x = tensor(map_to_torch(x.astype(np.float64)), precision)
    if kind is OpKind.MAX_POOL:
        y = torch.nn.functional.max_pool2d(t_x, kernel, stride, pads)
    else:
        y = torch.nn.functional.avg_pool2d(t_x, kernel, stride, pads, count_include_pad=False)
    y.backward(torch.tensor(map_to_torch(delta)).to(y.dtype))
    into = np.zeros(x.shape, f32)
    pool_to_input(Op("pool", kind, ("x",), "y", window=window), x, delta.ravel(), into)
    close(into.transpose(2, 0, 1)[None], t_x.grad)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_residual_block(precision: str) -> None:
    """y = conv(x) + x: the sum hands its delta to both, and they meet again at the input."""
    rng = np.random.default_rng(8)
    conv = Conv((3, 3), (1, 1), (1, 1), (1, 1), (6, 5, 8), (6, 5, 8))
    x = rng.integers(-128, 128, conv.in_shape).astype(np.int8)
    w = random_weights(rng, "conv2d", conv)
    w_scale = rng.uniform(0.001, 0.02, 8).astype(f32)
    delta = rng.normal(size=conv.out_shape).astype(f32)
    t_x = tensor(map_to_torch(x.astype(np.float64) + 5), precision)
    t_w = tensor(
        weights_to_torch("conv2d", w * w_scale[:, None, None, None].astype(np.float64)), precision
    )
    y = torch.nn.functional.conv2d(t_x, t_w, None, 1, 1) + t_x
    y.backward(torch.tensor(map_to_torch(delta)).to(y.dtype))
    through, rows = conv_gradients("conv2d", conv, delta, w, w_scale, x, -5)
    close((through + delta).transpose(2, 0, 1)[None], t_x.grad)
    close(rows.transpose(0, 3, 1, 2), t_w.grad)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_folded_batch_norm(precision: str, seed: int) -> None:
    """What is trained is the folded weight, gamma / sigma * w. Its gradient and the unfolded
    network's agree: dL/dw = gamma / sigma * dL/dw_folded, dL/dbeta is the bias's, and dL/dgamma
    follows from both."""
    rng = np.random.default_rng(seed)
    conv = random_conv(rng, depthwise=False, largest=6)
    c_out = conv.out_shape[2]
    gamma, sigma = rng.uniform(0.5, 2, c_out), rng.uniform(0.5, 2, c_out)
    mean = rng.normal(size=c_out)
    x = rng.integers(-128, 128, conv.in_shape).astype(np.int8)
    w = random_weights(rng, "conv2d", conv)  # the folded weight is what is on the grid
    w_scale = rng.uniform(0.001, 0.02, c_out).astype(f32)
    folded = w * w_scale[:, None, None, None].astype(np.float64)
    delta = rng.normal(size=conv.out_shape).astype(f32)

    unfolded = tensor(
        weights_to_torch("conv2d", folded) * (sigma / gamma)[:, None, None, None], precision
    )
    t_gamma, t_beta = tensor(gamma, precision), tensor(np.zeros(c_out), precision)
    t_x = tensor(map_to_torch(x.astype(np.float64) - 7), precision)
    z = torch.nn.functional.conv2d(t_x, unfolded, None, conv.stride, conv.pads, conv.dilation)
    statistics = (torch.tensor(v).to(z.dtype) for v in (mean, sigma**2))
    y = torch.nn.functional.batch_norm(z, *statistics, t_gamma, t_beta, eps=0.0)
    y.backward(torch.tensor(map_to_torch(delta)).to(y.dtype))

    delta_in, rows = conv_gradients("conv2d", conv, delta, w, w_scale, x, 7)
    close(delta_in.transpose(2, 0, 1)[None], t_x.grad)
    grads = rows.transpose(0, 3, 1, 2).astype(np.float64)
    close(grads * (gamma / sigma)[:, None, None, None], unfolded.grad)
    bias = delta.reshape(-1, c_out).astype(np.float64).sum(0)
    close(bias, t_beta.grad)
    per_channel = (grads * weights_to_torch("conv2d", folded)).sum((1, 2, 3)) / gamma
    got = per_channel - bias * mean / sigma
    expected = t_gamma.grad.numpy()
    # both parts of the sum are large where they cancel
    atol = 1e-5 * (np.abs(per_channel).max() + np.abs(bias * mean / sigma).max())
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


# ---- worked examples ----

EXAMPLE_W = np.array([[0.5, -0.2], [0.1, 0.4], [-0.3, 0.6], [0.2, 0.1]])
EXAMPLE_DELTA = np.array([0.594627, 0.132679, -0.946057, 0.218751], f32)
KEPT = np.array([0, 2, 3], np.uint16)


def example_2() -> tuple[Trained, Rule]:
    """Weights on a grid of 1/10 are exact in the master copy; x = (1, -2) is 10 and -20 tenths."""
    w = np.rint(EXAMPLE_W / 0.1).astype(np.int8)
    rule = Rule(np.full(4, 0.1, f32), lr=0.1, x_scale=0.1, x_zero=0)
    return Trained(w, master=w.astype(f32)), rule


def test_worked_example_2_gradients() -> None:
    assert lib.fl_l1_norm(c(EXAMPLE_DELTA, "float *"), 4) == pytest.approx(1.892113, abs=2e-6)
    t, rule = example_2()
    sparse, dense = np.zeros(2, f32), np.zeros(2, f32)
    rows_input(EXAMPLE_DELTA, KEPT, t.w, rule.w_scale, sparse)
    rows_input(EXAMPLE_DELTA, None, t.w, rule.w_scale, dense)
    np.testing.assert_allclose(sparse, [0.624881, -0.664684], atol=1e-6)
    np.testing.assert_allclose(dense, [0.638148, -0.611613], atol=1e-6)
    # dW, through the kernel of maps: a fully connected layer is a 1x1 convolution of one pixel
    pixel = Conv((1, 1), (1, 1), (1, 1), (0, 0), (1, 1, 2), (1, 1, 4))
    x = np.array([[[10, -20]]], np.int8)
    printed = [(0.594627, -1.189253), (0, 0), (-0.946057, 1.892113), (0.218751, -0.437502)]
    for row, values in enumerate(printed):
        got = np.zeros((1, 1, 2), f32)
        if row in KEPT:
            places = np.zeros((1, 2), int)
            spots_row("conv2d", pixel, places, EXAMPLE_DELTA[row : row + 1], row, x, 0, got)
        np.testing.assert_allclose(got[0, 0] * 0.1, values, atol=1e-6)


@pytest.mark.parametrize("bias_mode", ["topk", "dense"])
@pytest.mark.parametrize("by", ["delta", "gradient"])
def test_worked_example_2_new_weights(by: str, bias_mode: str) -> None:
    t, rule = example_2()
    x = np.array([10, -20], np.int8)
    for row in KEPT:
        delta = EXAMPLE_DELTA[row]
        if by == "delta":
            step_fully_connected_row(rule, t, int(row), float(delta), x)
        else:
            step_row(rule, t, int(row), (delta * x.astype(f32)).astype(f32))
    printed = [(0.440537, -0.081075), (0.1, 0.4), (-0.205394, 0.410789), (0.178125, 0.143750)]
    assert t.master is not None
    np.testing.assert_allclose(t.master * 0.1, printed, atol=1e-6)
    assert (t.w == np.rint(np.array(printed) / 0.1)).all()

    # biases are int32: on a grid of 1e-7 the example's digits are there, to one random unit
    fine = Rule(np.full(4, 1e-6, f32), lr=0.1, x_scale=0.1)
    b = np.rint(np.array([0, 0.1, 0, -0.1]) * 1e7).astype(np.int32)
    for row in KEPT if bias_mode == "topk" else range(4):
        step_bias(fine, int(row), float(EXAMPLE_DELTA[row]), 8 + int(row), b, None)
    expected = {
        "dense": [-0.059463, 0.086732, 0.094606, -0.121875],
        "topk": [-0.059463, 0.1, 0.094606, -0.121875],
    }[bias_mode]
    np.testing.assert_allclose(b * 1e-7, expected, atol=1e-6)


def test_worked_example_3() -> None:
    conv = Conv((2, 2), (1, 1), (1, 1), (0, 0), (3, 3, 1), (2, 2, 1))
    x = np.array([[1, 2, 0], [0, 1, 3], [2, 1, 1]], np.int8)[:, :, None].copy()
    w = np.array([[1, 0], [-1, 2]], np.int8)[None, :, :, None].copy()
    delta = np.array([[0.5, -0.1], [0.2, -0.4]], f32)[:, :, None]
    kept = np.where(np.abs(delta) >= f32(0.4), delta, f32(0))
    printed = {
        "sparse": ([[0.1, -0.2], [-0.4, 0.1]], [[0.5, 0, 0], [-0.5, 0.6, 0], [0, 0.4, -0.8]]),
        "dense": (
            [[-0.1, 0], [-0.1, 0]],
            [[0.5, -0.1, 0], [-0.3, 0.7, -0.2], [-0.2, 0.8, -0.8]],
        ),
    }
    for name, values in (("sparse", kept), ("dense", delta)):
        delta_in, rows = conv_gradients("conv2d", conv, values, w, np.ones(1, f32), x, 0)
        row, dx = printed[name]
        np.testing.assert_allclose(rows.reshape(2, 2), row, atol=1e-7)
        np.testing.assert_allclose(delta_in.reshape(3, 3), dx, atol=1e-7)
