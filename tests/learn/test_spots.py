"""The kernels that work spot by spot, against numpy in the same order of additions: every bit."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import Array, Conv, all_spots, c, core, rows_input, spots_input, spots_row

_, lib = core()
KINDS = ["conv2d", "depthwise_conv2d"]


def random_conv(rng: np.random.Generator, *, depthwise: bool, largest: int = 5) -> Conv:
    while True:
        kernel = tuple(int(v) for v in rng.integers(1, 4, 2))
        stride = tuple(int(v) for v in rng.integers(1, 4, 2))
        dilation = tuple(int(v) for v in rng.integers(1, 3, 2))
        pads = tuple(int(v) for v in rng.integers(0, 3, 2))
        h, w = (int(v) for v in rng.integers(1, 9, 2))
        c_in = int(rng.integers(1, largest + 1))
        multiplier = int(rng.integers(1, 3)) if depthwise else 1
        c_out = c_in * multiplier if depthwise else int(rng.integers(1, 6))
        out = tuple(
            (size + 2 * pad - (k - 1) * d - 1) // s + 1
            for size, pad, k, d, s in zip((h, w), pads, kernel, dilation, stride, strict=True)
        )
        if min(out) >= 1:
            return Conv(kernel, stride, dilation, pads, (h, w, c_in), (*out, c_out), multiplier)


def taps(conv: Conv, place: Array) -> list[tuple[int, int, int, int]]:
    """(ky, kx, iy, ix) of every tap on the map."""
    (kh, kw), (sh, sw), (dh, dw) = conv.kernel, conv.stride, conv.dilation
    oy, ox = int(place[0]), int(place[1])
    found = []
    for ky in range(kh):
        for kx in range(kw):
            iy, ix = oy * sh - conv.pads[0] + ky * dh, ox * sw - conv.pads[1] + kx * dw
            if 0 <= iy < conv.in_shape[0] and 0 <= ix < conv.in_shape[1]:
                found.append((ky, kx, iy, ix))
    return found


def reference_input(
    kind: str,
    conv: Conv,
    places: Array,
    deltas: Array,
    channel: int,
    w: Array,
    scale: np.float32,
    delta_in: Array,
) -> None:
    for place, delta in zip(places, deltas, strict=True):
        scaled = np.float32(delta * scale)
        for ky, kx, iy, ix in taps(conv, place):
            if kind == "conv2d":
                delta_in[iy, ix] += scaled * w[channel, ky, kx].astype(np.float32)
            else:
                term = scaled * np.float32(w[ky, kx, channel])
                delta_in[iy, ix, channel // conv.multiplier] += term


def reference_row(
    kind: str,
    conv: Conv,
    places: Array,
    deltas: Array,
    channel: int,
    x: Array,
    x_zero: int,
    row: Array,
) -> None:
    for place, delta in zip(places, deltas, strict=True):
        for ky, kx, iy, ix in taps(conv, place):
            centred = (x[iy, ix].astype(np.int32) - x_zero).astype(np.float32)
            if kind == "conv2d":
                row[ky, kx] += delta * centred
            else:
                row[ky, kx, 0] += delta * centred[channel // conv.multiplier]


def random_weights(rng: np.random.Generator, kind: str, conv: Conv) -> Array:
    c_in, c_out = conv.in_shape[2], conv.out_shape[2]
    shape = (*conv.kernel, c_out) if kind == "depthwise_conv2d" else (c_out, *conv.kernel, c_in)
    return rng.integers(-128, 128, shape).astype(np.int8)


def random_spots(rng: np.random.Generator, conv: Conv, n: int) -> tuple[Array, Array]:
    """Positions ascending; deltas of very different size, subnormal ones included."""
    kept = np.sort(rng.choice(conv.positions, min(n, conv.positions), replace=False))
    places = np.stack([kept // conv.out_shape[1], kept % conv.out_shape[1]], 1)
    deltas = rng.normal(size=kept.size) * 10.0 ** rng.integers(-42, 3, kept.size)
    return places, deltas.astype(np.float32)


def before(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """What is added to: zeros half of the time, so that the smallest terms show."""
    values = rng.normal(size=shape).astype(np.float32)
    return values if rng.random() < 0.5 else np.zeros_like(values)


def conv_of(rng: np.random.Generator, kind: str, seed: int) -> Conv:
    """Random ones, and the shapes that kernels are made for."""
    depthwise = kind == "depthwise_conv2d"
    c_in = int(rng.integers(1, 20))
    c_out = c_in if depthwise else 2
    shapes = {
        0: Conv((3, 3), (1, 1), (1, 1), (1, 1), (6, 7, c_in), (6, 7, c_out)),
        1: Conv((1, 1), (1, 1), (1, 1), (0, 0), (5, 4, c_in), (5, 4, c_out)),
        2: Conv((1, 1), (2, 2), (1, 1), (0, 0), (6, 8, c_in), (3, 4, c_out)),
        3: Conv((3, 3), (2, 2), (1, 1), (0, 0), (7, 9, c_in), (3, 4, c_out)),
        4: Conv((5, 5), (1, 1), (1, 1), (2, 2), (7, 7, c_in), (7, 7, c_out)),
        5: Conv((1, 9), (1, 1), (1, 1), (0, 4), (1, 12, c_in), (1, 12, c_out)),
    }
    return shapes.get(seed) or random_conv(rng, depthwise=depthwise, largest=19)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", KINDS)
def test_spots_add_to_the_input_in_their_order(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    conv = conv_of(rng, kind, seed)
    w = random_weights(rng, kind, conv)
    places, deltas = random_spots(rng, conv, int(rng.integers(0, 50)))
    channel = int(rng.integers(0, conv.out_shape[2]))
    scale = np.float32(rng.uniform(0.001, 0.02))
    got = before(rng, conv.in_shape)
    expected = got.copy()
    spots_input(kind, conv, places, deltas, channel, w, float(scale), got)
    reference_input(kind, conv, places, deltas, channel, w, scale, expected)
    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", KINDS)
def test_spots_add_to_the_row_in_their_order(kind: str, seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    conv = conv_of(rng, kind, seed)
    x = rng.integers(-128, 128, conv.in_shape).astype(np.int8)
    x_zero = int(rng.choice([-128, 127, int(rng.integers(-128, 128))]))
    places, deltas = random_spots(rng, conv, int(rng.integers(0, 50)))
    channel = int(rng.integers(0, conv.out_shape[2]))
    channels = conv.in_shape[2] if kind == "conv2d" else 1
    got = before(rng, (*conv.kernel, channels))
    expected = got.copy()
    spots_row(kind, conv, places, deltas, channel, x, x_zero, got)
    reference_row(kind, conv, places, deltas, channel, x, x_zero, expected)
    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_beside_the_map_touches_nothing(kind: str) -> None:
    # stride 3 with a pad of 2 and one pixel: the second output sees padding only
    conv = Conv((1, 1), (1, 1), (1, 1), (2, 2), (1, 1, 3), (5, 5, 3))
    rng = np.random.default_rng(5)
    w = random_weights(rng, kind, conv)
    delta = rng.normal(size=conv.out_shape).astype(np.float32)
    delta[2, 2] = 0
    out = np.zeros(conv.in_shape, np.float32)
    row = np.zeros((1, 1, 3 if kind == "conv2d" else 1), np.float32)
    x = np.full(conv.in_shape, 100, np.int8)
    for channel in range(3):
        places, deltas = all_spots(conv, delta, channel)
        assert deltas.size == 24
        spots_input(kind, conv, places, deltas, channel, w, 0.5, out)
        spots_row(kind, conv, places, deltas, channel, x, 0, row)
    assert not out.any() and not row.any()


@pytest.mark.parametrize("seed", range(40))
def test_rows_add_to_the_input_in_their_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, cols = int(rng.integers(1, 30)), int(rng.integers(1, 70))
    w = rng.integers(-128, 128, (rows, cols)).astype(np.int8)
    w_scale = rng.uniform(0.001, 0.02, rows if seed % 2 else 1).astype(np.float32)
    delta = (rng.normal(size=rows) * 10.0 ** rng.integers(-42, 3, rows)).astype(np.float32)
    delta[rng.random(rows) < 0.3] = 0.0
    kept = None
    if seed % 3:
        k = int(rng.integers(1, rows + 1))
        kept = np.sort(rng.choice(rows, k, replace=False)).astype(np.uint16)
    got = before(rng, (cols,))
    expected = got.copy()
    rows_input(delta, kept, w, w_scale, got)
    for i in range(rows) if kept is None else kept:
        scaled = np.float32(delta[i] * w_scale[i if w_scale.size > 1 else 0])
        expected += scaled * w[i].astype(np.float32)
    assert got.tobytes() == expected.tobytes()


def test_a_row_of_zero_is_not_read() -> None:
    # its scale times its delta is NaN: it would show
    w = np.ones((3, 4), np.int8)
    w_scale = np.array([1.0, np.inf, 1.0], np.float32)
    out = np.zeros(4, np.float32)
    rows_input(np.array([1.0, 0.0, 2.0], np.float32), None, w, w_scale, out)
    assert out.tolist() == [3.0] * 4


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", KINDS)
def test_few_spots_are_all_spots_with_the_others_zero(kind: str, seed: int) -> None:
    # the added zeros change no bit: x + 0 = x
    rng = np.random.default_rng(500 + seed)
    conv = conv_of(rng, kind, seed)
    w = random_weights(rng, kind, conv)
    x = rng.integers(-128, 128, conv.in_shape).astype(np.int8)
    places, deltas = random_spots(rng, conv, conv.positions)
    kept = rng.random(deltas.size) < 0.4
    zeroed = np.where(kept, deltas, np.float32(0))
    channels = conv.in_shape[2] if kind == "conv2d" else 1
    results = []
    for at, values in ((places[kept], deltas[kept]), (places, zeroed)):
        delta_in = np.zeros(conv.in_shape, np.float32)
        row = np.zeros((*conv.kernel, channels), np.float32)
        spots_input(kind, conv, at, values, 0, w, 0.01, delta_in)
        spots_row(kind, conv, at, values, 0, x, 3, row)
        results.append((delta_in.tobytes(), row.tobytes()))
    assert results[0] == results[1]


def test_scales_may_be_one_for_all_rows() -> None:
    w = np.array([[1, 2], [3, 4]], np.int8)
    for w_scale in ([0.5], [0.5, 0.5]):
        out = np.zeros(2, np.float32)
        rows_input(np.array([1.0, 2.0], np.float32), None, w, np.array(w_scale, np.float32), out)
        assert out.tolist() == [3.5, 5.0]


def test_the_activation_passes_strictly_inside_its_range() -> None:
    q = np.array([-128, -20, -19, 0, 99, 100, 127], np.int8)
    delta = np.ones(7, np.float32)
    lib.fl_backward_activation(c(q, "int8_t *"), 7, -20, 100, c(delta, "float *"))
    assert delta.tolist() == [0, 0, 1, 1, 1, 0, 0]
