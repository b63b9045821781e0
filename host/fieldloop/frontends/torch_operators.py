"""What each aten operator is in the graph: handlers by the operator's name.

A handler reads its node's arguments and calls the walk's `source`, which takes torch's own shapes
and axes. Positions of arguments are those of torch's operator schemas.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldloop.frontends.builder import Constant
from fieldloop.frontends.channels import Value
from fieldloop.ir.op import OpKind, UnaryKind

if TYPE_CHECKING:
    from fieldloop.frontends.torch_frontend import TorchWalk

Handler = Callable[["TorchWalk", Any], "Value | list[Value]"]
HANDLERS: dict[str, Handler] = {}

SUPPORTED = (
    "conv1d, conv2d, linear, batch norm, max, average and adaptive pools, ReLU, ReLU6, hardtanh, "
    "leaky ReLU, sigmoid, tanh, hardswish, hardsigmoid, ELU, SiLU, add, sub, mul, minimum, "
    "maximum, concat, pad, slices, mean, softmax, embedding, flatten, reshape or permute"
)
# Elements stay in torch's order: another shape.
VIEWS = frozenset(
    {"view", "_unsafe_view", "reshape", "flatten", "squeeze", "unsqueeze", "unflatten"}
)
# They want channels last.
PICTURES = frozenset(
    {
        "conv1d",
        "conv2d",
        "max_pool1d",
        "max_pool2d",
        "avg_pool1d",
        "avg_pool2d",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "_native_batch_norm_legit_no_training",
    }
)


def handles(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def argument(node: Any, position: int, default: Any) -> Any:
    """A positional argument; keyword-only ones are read by name."""
    return node.args[position] if len(node.args) > position else default


def numbers(value: Any, count: int) -> tuple[int, ...]:
    """One integer for each axis; a single one stands for all."""
    given = [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
    return tuple(given * count if len(given) == 1 else given)


# ---- layers


@handles("conv1d", "conv2d")
def conv(walk: TorchWalk, node: Any) -> Value:
    x, w = walk.value(node.args[0]), walk.weights(node.args[1])
    axes = w.data.ndim - 2
    dilation = numbers(argument(node, 5, 1), axes)
    padding = argument(node, 4, 0)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, w.data.shape[2:], strict=True)]
        before = tuple(total // 2 for total in totals)
        pads = (before, tuple(t - b for t, b in zip(totals, before, strict=True)))
    else:
        each = numbers(0 if padding == "valid" else padding, axes)
        pads = (each, each)
    return walk.source.conv(
        x,
        w,
        walk.constant(argument(node, 2, None)),
        stride=numbers(argument(node, 3, 1), axes),
        dilation=dilation,
        pads=pads,
        groups=int(argument(node, 6, 1)),
    )


@handles("conv_transpose1d", "conv_transpose2d")
def conv_transpose(walk: TorchWalk, node: Any) -> Value:
    raise walk.source.refuse(
        "transposed convolutions are not supported",
        "use an upsampling by repetition on the host, or a network that ends at a smaller map",
    )


@handles("log_softmax", "_log_softmax")
def log_softmax(walk: TorchWalk, node: Any) -> Value:
    raise walk.source.refuse(
        "a logarithm has no place on the device",
        "return the logits or a softmax; the largest class is the same",
    )


@handles("linear")
def linear(walk: TorchWalk, node: Any) -> Value:
    x, w = walk.value(node.args[0]), walk.weights(node.args[1])
    return walk.source.linear(x, w, walk.constant(argument(node, 2, None)))


@handles("matmul", "mm")
def matmul(walk: TorchWalk, node: Any) -> Value:
    x = walk.value(node.args[0])
    w = walk.weights(node.args[1])
    if w.data.ndim != 2:
        raise walk.source.refuse(f"a matrix {w.data.shape}", "expected two dimensions")
    return walk.source.linear(x, w.transpose((1, 0)), None)


@handles("addmm")
def addmm(walk: TorchWalk, node: Any) -> Value:
    x, w = walk.value(node.args[1]), walk.weights(node.args[2])
    b = walk.constant(node.args[0])
    if node.kwargs.get("alpha", 1) != 1 or node.kwargs.get("beta", 1) != 1 or b is None:
        raise walk.source.refuse("alpha or beta is set", "expected 1")
    rows = Constant(np.broadcast_to(b.data, (w.data.shape[1],)).copy())
    return walk.source.linear(x, w.transpose((1, 0)), rows)


@handles("_native_batch_norm_legit_no_training")
def batch_norm(walk: TorchWalk, node: Any) -> Value:
    x = walk.value(node.args[0])
    gamma, beta = walk.constant(node.args[1]), walk.constant(node.args[2])
    mean, var = walk.weights(node.args[3]), walk.weights(node.args[4])
    scale = 1.0 / np.sqrt(var.data + float(node.args[6]))
    scale = scale if gamma is None else scale * gamma.data
    shift = -mean.data * scale
    shift = shift if beta is None else shift + beta.data
    return walk.source.scale_shift(x, scale, shift, 1)


@handles("embedding")
def embedding(walk: TorchWalk, node: Any) -> Value:
    table = walk.weights(node.args[0])
    return walk.source.embedding(walk.value(node.args[1]), table)


# ---- pools


def _pool(walk: TorchWalk, node: Any, kind: OpKind, *, ceil: int, counts: bool) -> Value:
    x = walk.value(node.args[0])
    axes = len(x.shape) - 2
    kernel = numbers(node.args[1], axes)
    stride = argument(node, 2, None)
    padding = numbers(argument(node, 3, 0), axes)
    return walk.source.pool(
        kind,
        x,
        kernel=kernel,
        stride=numbers(stride, axes) if stride else kernel,
        pads=(padding, padding),
        ceil_mode=bool(argument(node, ceil, False)),
        count_include_pad=counts,
    )


@handles("max_pool1d", "max_pool2d")
def max_pool(walk: TorchWalk, node: Any) -> Value:
    dilation = argument(node, 4, 1)
    if set(numbers(dilation, 1)) != {1}:
        raise walk.source.refuse(f"dilation {dilation} of a pool", "expected 1")
    return _pool(walk, node, OpKind.MAX_POOL, ceil=5, counts=False)


@handles("avg_pool1d", "avg_pool2d")
def avg_pool(walk: TorchWalk, node: Any) -> Value:
    if argument(node, 6, None) is not None:
        raise walk.source.refuse("divisor_override is set", "leave it at None")
    return _pool(walk, node, OpKind.AVG_POOL, ceil=4, counts=bool(argument(node, 5, True)))


@handles("adaptive_avg_pool1d", "adaptive_avg_pool2d")
def adaptive_avg_pool(walk: TorchWalk, node: Any) -> Value:
    return _adaptive(walk, node, OpKind.AVG_POOL)


@handles("adaptive_max_pool1d", "adaptive_max_pool2d")
def adaptive_max_pool(walk: TorchWalk, node: Any) -> Value:
    return _adaptive(walk, node, OpKind.MAX_POOL)


def _adaptive(walk: TorchWalk, node: Any, kind: OpKind) -> Value:
    x = walk.value(node.args[0])
    sizes = x.shape[2:]
    wanted = node.args[1] if isinstance(node.args[1], list | tuple) else [node.args[1]]
    wanted = [n if w is None else int(w) for w, n in zip(wanted, sizes, strict=True)]
    kernel, stride = [], []
    for n, out in zip(sizes, wanted, strict=True):
        begins = [i * n // out for i in range(out)]
        spans = {-(-(i + 1) * n // out) - b for i, b in enumerate(begins)}
        steps = {b - a for a, b in itertools.pairwise(begins)}
        if len(spans) != 1 or len(steps) > 1:
            raise walk.source.refuse(
                f"windows of unequal size ({sizes} to {tuple(wanted)})",
                "choose an output size that divides the input's",
            )
        kernel.append(spans.pop())
        stride.append(steps.pop() if steps else n)
    none = (0,) * len(sizes)
    return walk.source.pool(kind, x, kernel=kernel, stride=stride, pads=(none, none))


@handles("mean")
def mean(walk: TorchWalk, node: Any) -> Value:
    x = walk.value(node.args[0])
    axes = _axes(x, argument(node, 1, None))
    return walk.source.mean(x, axes, keep=bool(argument(node, 2, False)))


@handles("amax")
def amax(walk: TorchWalk, node: Any) -> Value:
    x = walk.value(node.args[0])
    axes, rank = _axes(x, argument(node, 1, None)), len(x.shape)
    if rank not in (3, 4) or axes != tuple(range(2, rank)):
        raise walk.source.refuse(f"a maximum over axes {axes} of {x.shape}", "expected H and W")
    made = walk.source.peak(x)
    return made if argument(node, 2, False) else walk.source.reshape(made, x.shape[:2])


def _axes(x: Value, given: Any) -> tuple[int, ...]:
    """Axes counted from 0, sorted; all of them where none are named."""
    rank = len(x.shape)
    given = [given] if isinstance(given, int) else given
    return tuple(sorted(a % rank for a in given)) if given else tuple(range(rank))


# ---- activations


@handles("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max")
def clamp(walk: TorchWalk, node: Any) -> Value:
    name = str(node.target).removeprefix("aten.").split(".")[0]
    lo, hi = {"relu": (0.0, None), "relu6": (0.0, 6.0), "hardtanh": (-1.0, 1.0)}.get(
        name, (None, None)
    )
    if name in ("hardtanh", "clamp"):
        lo, hi = argument(node, 1, lo), argument(node, 2, hi)
    elif name == "clamp_min":
        lo = node.args[1]
    elif name == "clamp_max":
        hi = node.args[1]
    if not all(edge is None or isinstance(edge, int | float) for edge in (lo, hi)):
        raise walk.source.refuse("its edges are tensors", "expected numbers")
    return walk.source.clamp(
        walk.value(node.args[0]),
        -math.inf if lo is None else float(lo),
        math.inf if hi is None else float(hi),
    )


@handles("sigmoid", "tanh", "hardswish", "abs", "exp")
def unary(walk: TorchWalk, node: Any) -> Value:
    name = str(node.target).removeprefix("aten.").split(".")[0]
    return walk.source.unary(walk.value(node.args[0]), UnaryKind(name))


@handles("hardsigmoid")
def hardsigmoid(walk: TorchWalk, node: Any) -> Value:
    return walk.source.unary(walk.value(node.args[0]), UnaryKind.HARDSIGMOID, 1.0 / 6.0, 0.5)


@handles("leaky_relu")
def leaky_relu(walk: TorchWalk, node: Any) -> Value:
    slope = float(argument(node, 1, 0.01))
    return walk.source.unary(walk.value(node.args[0]), UnaryKind.LEAKY_RELU, slope)


@handles("elu")
def elu(walk: TorchWalk, node: Any) -> Value:
    if argument(node, 2, 1) != 1 or argument(node, 3, 1) != 1:
        raise walk.source.refuse("scale or input_scale is set", "expected 1 (SELU is not there)")
    alpha = float(argument(node, 1, 1.0))
    return walk.source.unary(walk.value(node.args[0]), UnaryKind.ELU, alpha)


@handles("prelu")
def prelu(walk: TorchWalk, node: Any) -> Value:
    slope = walk.constant(node.args[1])
    if slope is None or slope.data.size != 1:
        raise walk.source.refuse("a slope for each channel", "use nn.PReLU(1) or a leaky ReLU")
    x = walk.value(node.args[0])
    return walk.source.unary(x, UnaryKind.LEAKY_RELU, float(slope.data.reshape(-1)[0]))


@handles("silu")
def silu(walk: TorchWalk, node: Any) -> Value:
    x = walk.value(node.args[0])
    return walk.source.binary(OpKind.MUL, x, walk.source.unary(x, UnaryKind.SIGMOID))


@handles("softmax", "_softmax")
def softmax(walk: TorchWalk, node: Any) -> Value:
    x = walk.value(node.args[0])
    return walk.source.softmax(x, int(node.args[1]) % len(x.shape))


# ---- two operands

_BINARY = {
    "add": OpKind.ADD,
    "sub": OpKind.SUB,
    "mul": OpKind.MUL,
    "minimum": OpKind.MINIMUM,
    "maximum": OpKind.MAXIMUM,
}


@handles(*_BINARY)
def binary(walk: TorchWalk, node: Any) -> Value:
    if node.kwargs.get("alpha", 1) != 1:
        raise walk.source.refuse(f"alpha = {node.kwargs['alpha']}", "expected 1")
    kind = _BINARY[str(node.target).removeprefix("aten.").split(".")[0]]
    return walk.source.binary(kind, walk.operand(node.args[0]), walk.operand(node.args[1]))


@handles("rsub")
def rsub(walk: TorchWalk, node: Any) -> Value:
    if argument(node, 2, 1) != 1 or node.kwargs.get("alpha", 1) != 1:
        raise walk.source.refuse("alpha is set", "expected 1")
    return walk.source.binary(OpKind.SUB, walk.operand(node.args[1]), walk.value(node.args[0]))


@handles("neg")
def neg(walk: TorchWalk, node: Any) -> Value:
    minus = Constant(np.array(-1.0))
    return walk.source.binary(OpKind.MUL, walk.value(node.args[0]), minus)


@handles("div")
def div(walk: TorchWalk, node: Any) -> Value:
    by = walk.operand(node.args[1])
    if not isinstance(by, Constant) or node.kwargs.get("rounding_mode") or not by.data.all():
        raise walk.source.refuse("it divides by a value or by zero", "divide by constants")
    return walk.source.binary(OpKind.MUL, walk.value(node.args[0]), Constant(1.0 / by.data))


@handles("pow")
def power(walk: TorchWalk, node: Any) -> Value:
    x = walk.value(node.args[0])
    if not isinstance(node.args[1], int | float) or node.args[1] != 2:
        raise walk.source.refuse(f"exponent {node.args[1]}", "expected 2")
    return walk.source.binary(OpKind.MUL, x, x)


# ---- movements


@handles(*VIEWS)
def view(walk: TorchWalk, node: Any) -> Value:
    from fieldloop.frontends.torch_frontend import shape_of

    return walk.source.reshape(walk.value(node.args[0]), shape_of(node))


@handles("permute")
def permute(walk: TorchWalk, node: Any) -> Value:
    x = walk.value(node.args[0])
    return walk.source.transpose(x, [int(a) % len(x.shape) for a in node.args[1]])


@handles("transpose", "t")
def transpose(walk: TorchWalk, node: Any) -> Value:
    x = walk.value(node.args[0])
    axes = list(range(len(x.shape)))
    if len(axes) > 1:
        a, b = (int(argument(node, i, i - 1)) % len(axes) for i in (1, 2))
        axes[a], axes[b] = axes[b], axes[a]
    return walk.source.transpose(x, axes)


@handles("channel_shuffle")
def channel_shuffle(walk: TorchWalk, node: Any) -> Value:
    x, groups = walk.value(node.args[0]), int(node.args[1])
    n, c, *sizes = x.shape
    split = walk.source.reshape(x, (n, groups, c // groups, *sizes))
    axes = [0, 2, 1, *range(3, len(sizes) + 3)]
    return walk.source.reshape(walk.source.transpose(split, axes), x.shape)


@handles("cat", "concat", "concatenate")
def cat(walk: TorchWalk, node: Any) -> Value:
    parts = [walk.operand(part) for part in node.args[0]]
    shapes = [p.shape if isinstance(p, Value) else p.data.shape for p in parts]
    return walk.source.concat(parts, int(argument(node, 1, 0)) % len(shapes[0]))


@handles("stack")
def stack(walk: TorchWalk, node: Any) -> Value:
    parts = [walk.value(part) for part in node.args[0]]
    axis = int(argument(node, 1, 0)) % (len(parts[0].shape) + 1)
    grown = [walk.source.reshape(p, (*p.shape[:axis], 1, *p.shape[axis:])) for p in parts]
    return walk.source.concat(grown, axis)


@handles("repeat")
def repeat(walk: TorchWalk, node: Any) -> Value:
    x, times = walk.value(node.args[0]), [int(n) for n in node.args[1]]
    x = walk.source.reshape(x, (1,) * (len(times) - len(x.shape)) + x.shape)
    for axis, count in enumerate(times):
        if count > 1:
            x = walk.source.concat([x] * count, axis)
    return x


@handles("pad", "constant_pad_nd")
def pad(walk: TorchWalk, node: Any) -> Value:
    x = walk.value(node.args[0])
    mode, value = "constant", argument(node, 2, 0)
    if not str(node.target).startswith("aten.constant_pad_nd"):
        mode, value = argument(node, 2, "constant"), argument(node, 3, 0)
    if mode != "constant":
        raise walk.source.refuse(f"padding mode {mode}", "pad with a constant")
    given = [int(n) for n in node.args[1]]  # last axis first: before, after
    before, after = [0] * len(x.shape), [0] * len(x.shape)
    for i in range(0, len(given), 2):
        before[-1 - i // 2], after[-1 - i // 2] = given[i], given[i + 1]
    return walk.source.pad(x, before, after, float(value or 0.0))


def _cut(walk: TorchWalk, x: Value, axis: int, begin: int, end: int, step: int = 1) -> Value:
    begins, ends, steps = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
    begins[axis], ends[axis], steps[axis] = begin, end, step
    return walk.source.slice(x, begins, ends, steps)


@handles("slice")
def cut(walk: TorchWalk, node: Any) -> Value:
    x = walk.value(node.args[0])
    axis = int(argument(node, 1, 0)) % len(x.shape)
    step = int(argument(node, 4, 1))
    begin, end, _ = slice(argument(node, 2, None), argument(node, 3, None)).indices(x.shape[axis])
    return _cut(walk, x, axis, begin, end, step)


@handles("narrow")
def narrow(walk: TorchWalk, node: Any) -> Value:
    x = walk.value(node.args[0])
    axis, begin, length = (int(n) for n in node.args[1:4])
    begin %= x.shape[axis]
    return _cut(walk, x, axis % len(x.shape), begin, begin + length)


@handles("select")
def select(walk: TorchWalk, node: Any) -> Value:
    x = walk.value(node.args[0])
    axis, at = int(node.args[1]) % len(x.shape), int(node.args[2])
    return _drop(walk, _cut(walk, x, axis, at % x.shape[axis], at % x.shape[axis] + 1), axis)


def _drop(walk: TorchWalk, x: Value, axis: int) -> Value:
    return walk.source.reshape(x, (*x.shape[:axis], *x.shape[axis + 1 :]))


def _parts(walk: TorchWalk, x: Value, axis: int, lengths: Sequence[int]) -> list[Value]:
    ends = np.cumsum(lengths).tolist()
    return [
        _cut(walk, x, axis, end - length, end) for end, length in zip(ends, lengths, strict=True)
    ]


@handles("split", "split_with_sizes", "chunk")
def split(walk: TorchWalk, node: Any) -> list[Value]:
    x = walk.value(node.args[0])
    axis = int(argument(node, 2, 0)) % len(x.shape)
    lengths = [int(value.shape[axis]) for value in node.meta["val"]]
    return _parts(walk, x, axis, lengths)


@handles("unbind")
def unbind(walk: TorchWalk, node: Any) -> list[Value]:
    x = walk.value(node.args[0])
    axis = int(argument(node, 1, 0)) % len(x.shape)
    return [_drop(walk, part, axis) for part in _parts(walk, x, axis, [1] * x.shape[axis])]
