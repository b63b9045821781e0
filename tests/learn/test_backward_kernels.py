"""Gradients of every kernel: worked examples 2 and 3, PyTorch's autograd, and sparse = zeroed."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import (
    Conv,
    c,
    conv_input,
    conv_row,
    core,
    fully_connected_input,
    group_by_channel,
    pool_input,
    scales,
    top_k,
    update,
)

_, lib = core()


def test_worked_example_2_one_step() -> None:
    # The example's weights are real numbers; as 1/1024ths they are int8 times a scale to 5e-4,
    # so the propagated delta is compared with the example at that distance and exactly with numpy.
    w_real = np.array([[0.5, -0.2], [0.1, 0.4], [-0.3, 0.6], [0.2, 0.1]], np.float32)
    scale = np.full(4, 0.005, np.float32)
    w = np.rint(w_real / scale[:, None]).astype(np.int8)
    delta = np.array([0.594627, 0.132679, -0.946057, 0.218751], np.float32)
    assert lib.fl_l1_norm(c(delta, "float *"), 4) == pytest.approx(1.892113, abs=2e-6)

    kept = top_k(delta, 3)
    assert kept.tolist() == [0, 2, 3]
    sparse = fully_connected_input(delta, kept, w, scale)
    np.testing.assert_allclose(sparse, [0.624881, -0.664684], atol=2e-6)
    dense = fully_connected_input(delta, None, w, scale)
    np.testing.assert_allclose(dense, [0.638148, -0.611613], atol=2e-6)


@pytest.mark.parametrize("bias_mode", ["topk", "dense"])
def test_worked_example_2_new_weights(bias_mode: str) -> None:
    # lr 0.1, x = (1, -2); int8 steps of 0.02 with stochastic rounding: the mean of many seeds is
    # the example's new weight and bias, to five standard errors
    start = np.array([[0.5, -0.2], [0.1, 0.4], [-0.3, 0.6], [0.2, 0.1]])
    target = np.array(
        [[0.440537, -0.081075], [0.1, 0.4], [-0.205394, 0.410789], [0.178125, 0.143750]]
    )
    bias_target = {
        "dense": [-0.059463, 0.086732, 0.094606, -0.121875],
        "topk": [-0.059463, 0.1, 0.094606, -0.121875],
    }[bias_mode]
    delta = np.array([0.594627, 0.132679, -0.946057, 0.218751], np.float32)
    kept = np.array([0, 2, 3], np.uint16)
    scale = np.full(4, 0.02, np.float32)
    x = np.array([10, -20], np.int8)  # x_scale 0.1, zero point 0
    runs = 4000
    w_sum, b_sum = np.zeros((4, 2)), np.zeros(4)
    for key in range(runs):
        u, keep = update(0.1, 0.1, 0, scale, key=lib.fl_random_key(7, key, 0))
        w = np.rint(start / 0.02).astype(np.int8)
        b = np.rint(np.array([0, 0.1, 0, -0.1]) / 0.002).astype(np.int32)
        lib.fl_update_fully_connected(
            u, c(delta, "float *"), c(kept, "uint16_t *"), 3, c(x, "int8_t *"), 2, c(w, "int8_t *")
        )
        grouped = kept if bias_mode == "topk" else None
        lib.fl_update_bias(
            u, c(delta, "float *"), c(grouped, "uint16_t *"), 3, 1, 4, 8, c(b, "int32_t *")
        )
        w_sum += w
        b_sum += b
        assert (w[1] == np.rint(start[1] / 0.02)).all()  # the row that was not kept
        del keep
    np.testing.assert_allclose(w_sum / runs * 0.02, target, atol=5 * 0.01 / runs**0.5)
    np.testing.assert_allclose(b_sum / runs * 0.002, bias_target, atol=5 * 0.001 / runs**0.5)


def test_worked_example_3_conv_scatter() -> None:
    conv = Conv((2, 2), (1, 1), (1, 1), (0, 0), (3, 3, 1), (2, 2, 1))
    x = np.array([[1, 2, 0], [0, 1, 3], [2, 1, 1]], np.int8)
    w = np.array([[1, 0], [-1, 2]], np.int8)
    delta = np.array([0.5, -0.1, 0.2, -0.4], np.float32)
    one = np.ones(1, np.float32)
    kept = top_k(delta, 2)
    assert kept.tolist() == [0, 3]

    row = conv_row("conv2d", conv, delta, kept, 0, x, 0).reshape(2, 2)
    np.testing.assert_allclose(row, [[0.1, -0.2], [-0.4, 0.1]], atol=1e-7)
    row = conv_row("conv2d", conv, delta, None, 0, x, 0).reshape(2, 2)
    np.testing.assert_allclose(row, [[-0.1, 0], [-0.1, 0]], atol=1e-7)

    dx = conv_input("conv2d", conv, delta, kept, w, one).reshape(3, 3)
    np.testing.assert_allclose(dx, [[0.5, 0, 0], [-0.5, 0.6, 0], [0, 0.4, -0.8]], atol=1e-7)
    dx = conv_input("conv2d", conv, delta, None, w, one).reshape(3, 3)
    dense = [[0.5, -0.1, 0], [-0.3, 0.7, -0.2], [-0.2, 0.8, -0.8]]
    np.testing.assert_allclose(dx, dense, atol=1e-7)

    ffi, _ = core()
    y_max = ffi.new("float *", 2.0)
    alpha = lib.fl_propagation_rate(lib.fl_l1_norm(c(delta, "float *"), 4), y_max, 1.0)
    ratio = ffi.new("fl_ratio_t *", [0.1, 0.9, 0.5, lib.FL_K_INTEGER])
    assert lib.fl_ratio_q15(ratio, alpha, 1) / 32768 == pytest.approx(0.29, abs=1e-4)
    assert lib.fl_keep_count(ratio, alpha, 1, 4) == 1


def random_conv(rng: np.random.Generator, *, depthwise: bool) -> Conv:
    while True:
        kernel = tuple(int(v) for v in rng.integers(1, 4, 2))
        stride = tuple(int(v) for v in rng.integers(1, 4, 2))
        dilation = tuple(int(v) for v in rng.integers(1, 3, 2))
        pads = tuple(int(v) for v in rng.integers(0, 3, 2))
        h, w = (int(v) for v in rng.integers(2, 9, 2))
        c_in = int(rng.integers(1, 5))
        multiplier = int(rng.integers(1, 3)) if depthwise else 1
        c_out = c_in * multiplier if depthwise else int(rng.integers(1, 6))
        out = tuple(
            (size + 2 * pad - (k - 1) * d - 1) // s + 1
            for size, pad, k, d, s in zip((h, w), pads, kernel, dilation, stride, strict=True)
        )
        if min(out) >= 1:
            return Conv(kernel, stride, dilation, pads, (h, w, c_in), (*out, c_out), multiplier)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["conv2d", "depthwise_conv2d"])
def test_convolution_gradients_equal_autograd(kind: str, seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    depthwise = kind == "depthwise_conv2d"
    conv = random_conv(rng, depthwise=depthwise)
    (h, w_in, c_in), (oh, ow, c_out) = conv.in_shape, conv.out_shape
    x = rng.integers(-128, 128, (h, w_in, c_in)).astype(np.int8)
    x_zero = int(rng.integers(-128, 128))
    shape = (*conv.kernel, c_out) if depthwise else (c_out, *conv.kernel, c_in)
    w = rng.integers(-127, 128, shape).astype(np.int8)
    w_scale = rng.uniform(0.001, 0.02, c_out).astype(np.float32)
    delta = rng.normal(size=(oh, ow, c_out)).astype(np.float32)

    real = w.astype(np.float64) * (
        w_scale[None, None, :] if depthwise else w_scale[:, None, None, None]
    )
    # to O, I/groups, H, W
    weight = real.transpose(2, 0, 1)[:, None] if depthwise else real.transpose(0, 3, 1, 2)
    t_x = torch.tensor(x.astype(np.float64).transpose(2, 0, 1)[None] - x_zero, requires_grad=True)
    t_w = torch.tensor(np.ascontiguousarray(weight), requires_grad=True)
    y = torch.nn.functional.conv2d(
        t_x, t_w, None, conv.stride, conv.pads, conv.dilation, c_in if depthwise else 1
    )
    assert y.shape == (1, c_out, oh, ow)
    y.backward(torch.tensor(delta.astype(np.float64).transpose(2, 0, 1)[None]))

    dx = conv_input(kind, conv, delta, None, w, w_scale)
    expected = t_x.grad[0].numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(dx, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    for channel in range(c_out):
        row = conv_row(kind, conv, delta, None, channel, x, x_zero)
        expected = t_w.grad[channel].numpy().transpose(1, 2, 0)
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
def test_pool_gradients_equal_autograd(kind: str, seed: int) -> None:
    torch = pytest.importorskip("torch")
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
    conv = Conv(kernel, stride, (1, 1), pads, (h, w, channels), (*out, channels))
    # few distinct values, so that windows have several largest inputs
    x = rng.integers(-3, 4, (h, w, channels)).astype(np.int8)
    delta = rng.normal(size=(*out, channels)).astype(np.float32)

    t_x = torch.tensor(x.astype(np.float64).transpose(2, 0, 1)[None], requires_grad=True)
    if kind == "max_pool":
        y = torch.nn.functional.max_pool2d(t_x, kernel, stride, pads)
    else:
        y = torch.nn.functional.avg_pool2d(t_x, kernel, stride, pads, count_include_pad=False)
    y.backward(torch.tensor(delta.astype(np.float64).transpose(2, 0, 1)[None]))
    expected = t_x.grad[0].numpy().transpose(1, 2, 0)
    got = pool_input(kind, conv, x, delta)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_fully_connected_gradient_equals_autograd(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    rows, cols = (int(v) for v in rng.integers(1, 40, 2))
    w = rng.integers(-127, 128, (rows, cols)).astype(np.int8)
    w_scale = rng.uniform(0.001, 0.02, rows).astype(np.float32)
    delta = rng.normal(size=rows).astype(np.float32)
    x = torch.zeros(cols, dtype=torch.float64, requires_grad=True)
    (torch.tensor(w * w_scale[:, None].astype(np.float64)) @ x).backward(
        torch.tensor(delta.astype(np.float64))
    )
    got = fully_connected_input(delta, None, w, w_scale)
    expected = x.grad.numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("seed", range(12))
def test_fully_connected_update_is_the_outer_product(seed: int) -> None:
    # powers of two make every step a whole number, so that nothing is left to chance
    rng = np.random.default_rng(seed)
    rows, cols = (int(v) for v in rng.integers(1, 20, 2))
    x = rng.integers(-4, 5, cols).astype(np.int8)
    x_zero = int(rng.integers(-3, 4))
    w = rng.integers(-60, 61, (rows, cols)).astype(np.int8)
    b = rng.integers(-1000, 1000, rows).astype(np.int32)
    delta = rng.integers(-3, 4, rows).astype(np.float32)
    u, keep = update(0.5, 0.25, x_zero, np.full(rows, 0.125, np.float32))
    expected = w - delta[:, None] * (x.astype(int) - x_zero)  # lr x_scale / w_scale = 1
    expected_b = b - 16 * delta
    everything = np.arange(rows, dtype=np.uint16)
    lib.fl_update_fully_connected(
        u,
        c(delta, "float *"),
        c(everything, "uint16_t *"),
        rows,
        c(x, "int8_t *"),
        cols,
        c(w, "int8_t *"),
    )
    lib.fl_update_bias(
        u, c(delta, "float *"), c(everything, "uint16_t *"), rows, 1, rows, 0, c(b, "int32_t *")
    )
    assert (w == expected).all()
    assert (b == expected_b).all()
    del keep


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("kind", ["conv2d", "depthwise_conv2d"])
def test_sparse_convolution_is_dense_with_zeroed_delta(kind: str, seed: int) -> None:
    # the added zeros change no bit: x + 0 = x
    rng = np.random.default_rng(seed)
    depthwise = kind == "depthwise_conv2d"
    conv = random_conv(rng, depthwise=depthwise)
    c_in, c_out = conv.in_shape[2], conv.out_shape[2]
    x = rng.integers(-128, 128, conv.in_shape).astype(np.int8)
    shape = (*conv.kernel, c_out) if depthwise else (c_out, *conv.kernel, c_in)
    w = rng.integers(-127, 128, shape).astype(np.int8)
    w_scale = rng.uniform(0.001, 0.02, c_out).astype(np.float32)
    delta = rng.normal(size=conv.out_shape).astype(np.float32)
    k = int(rng.integers(1, delta.size + 1))
    kept = top_k(delta.ravel(), k)
    zeroed = np.zeros_like(delta)
    zeroed.ravel()[kept] = delta.ravel()[kept]

    sparse = conv_input(kind, conv, delta, kept, w, w_scale)
    assert (sparse == conv_input(kind, conv, zeroed, None, w, w_scale)).all()

    grouped = group_by_channel(kept, conv.positions, c_out)
    n = w.size // c_out
    row = np.empty(n, np.float32)
    after = []
    for values, entries in ((delta, grouped), (zeroed, None)):
        u, keep = update(0.1, 0.5, 3, w_scale, key=99)
        trained = w.copy()
        getattr(lib, f"fl_update_{kind}")(
            u,
            conv.c_params(),
            conv.c_dims(),
            c(values, "float *"),
            c(entries, "uint16_t *"),
            delta.size if entries is None else k,
            c(x, "int8_t *"),
            c(row, "float *"),
            c(trained, "int8_t *"),
        )
        bias = np.zeros(c_out, np.int32)
        lib.fl_update_bias(
            u,
            c(values, "float *"),
            c(entries, "uint16_t *"),
            k,
            conv.positions,
            c_out,
            w.size,
            c(bias, "int32_t *"),
        )
        after.append((trained.tobytes(), bias.tobytes()))
        del keep
    assert after[0] == after[1]
    assert after[0][0] != w.tobytes()


def test_scales_may_be_one_for_all_rows() -> None:
    w = np.array([[1, 2], [3, 4]], np.int8)
    delta = np.array([1.0, 2.0], np.float32)
    one = fully_connected_input(delta, None, w, np.array([0.5], np.float32))
    many = fully_connected_input(delta, None, w, np.array([0.5, 0.5], np.float32))
    assert one.tolist() == many.tolist() == [3.5, 5.0]
    assert scales(np.array([0.5], np.float32)).stride == 0


def test_the_activation_passes_strictly_inside_its_range() -> None:
    q = np.array([-128, -20, -19, 0, 99, 100, 127], np.int8)
    delta = np.ones(7, np.float32)
    lib.fl_backward_activation(c(q, "int8_t *"), 7, -20, 100, c(delta, "float *"))
    assert delta.tolist() == [0, 0, 1, 1, 1, 0, 0]
