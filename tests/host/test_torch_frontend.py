"""PyTorch modules and the graphs they become compute the same; what cannot be is named."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch_values import check, kinds  # noqa: E402

from fieldloop.frontends.builder import UnsupportedModelError  # noqa: E402
from fieldloop.frontends.torch_frontend import from_torch, import_torch, to_nhwc  # noqa: E402
from fieldloop.ir.op import OpKind  # noqa: E402


class Lambda(nn.Module):
    def __init__(self, function: object, **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *x: torch.Tensor) -> object:
        return self.function(self, *x)  # type: ignore[operator]


PICTURE_LAYERS = [
    nn.Conv2d(4, 5, 3),
    nn.Conv2d(4, 5, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    nn.Conv2d(4, 5, 3, padding="same", bias=False),
    nn.Conv2d(4, 5, (4, 2), padding="same"),
    nn.Conv2d(4, 5, 3, padding="valid"),
    nn.Conv2d(4, 4, 3, groups=4, padding=1),
    nn.Conv2d(4, 8, 3, groups=4, stride=2),
    nn.Conv2d(4, 6, 3, groups=2, padding=1),
    nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
    nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8, affine=False), nn.ReLU6()),
    nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1)),
    nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
    nn.Sequential(nn.ZeroPad2d((1, 2, 0, 3)), nn.Conv2d(4, 3, 3)),
    nn.Sequential(nn.ConstantPad2d(1, 0.5), nn.Conv2d(4, 3, 3)),
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, stride=2, padding=1),
    nn.MaxPool2d(3, stride=2, ceil_mode=True),
    nn.MaxPool2d((2, 3), stride=(1, 2)),
    nn.AvgPool2d(2),
    nn.AvgPool2d(3, stride=2, padding=1),
    nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True),
    nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    nn.AvgPool2d(3, stride=2, ceil_mode=True),
    nn.AdaptiveAvgPool2d(1),
    nn.AdaptiveAvgPool2d((3, 2)),
    nn.AdaptiveAvgPool2d((8, 5)),
    nn.AdaptiveMaxPool2d(1),
    nn.Softmax(dim=1),
    nn.Softmax(dim=3),
    nn.ChannelShuffle(2),
    nn.Linear(10, 3),
    nn.Dropout2d(),
]
SIGNAL_LAYERS = [
    nn.Conv1d(6, 5, 3),
    nn.Conv1d(6, 5, 5, stride=2, padding=2, dilation=2),
    nn.Conv1d(6, 4, 4, padding="same"),
    nn.Conv1d(6, 12, 3, groups=6),
    nn.Conv1d(6, 4, 3, groups=2),
    nn.Sequential(nn.Conv1d(6, 4, 3, bias=False), nn.BatchNorm1d(4), nn.ReLU()),
    nn.Sequential(nn.BatchNorm1d(6), nn.Conv1d(6, 4, 3, padding=1)),
    nn.MaxPool1d(2),
    nn.MaxPool1d(3, stride=2, padding=1, ceil_mode=True),
    nn.AvgPool1d(2),
    nn.AvgPool1d(3, stride=2, padding=1),
    nn.AdaptiveAvgPool1d(1),
    nn.AdaptiveAvgPool1d(4),
    nn.AdaptiveMaxPool1d(1),
    nn.Linear(16, 5),
    nn.ConstantPad1d((2, 1), -1.0),
    nn.Sequential(nn.Conv1d(6, 4, 3), nn.Flatten(), nn.Linear(4 * 14, 3)),
    nn.Sequential(nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 4), nn.Softmax(-1)),
    nn.Sequential(nn.Conv1d(6, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3)),
]
ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU6(),
    nn.Hardtanh(-0.5, 2.0),
    nn.LeakyReLU(0.1),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.ELU(0.7),
    nn.PReLU(),
    nn.SiLU(),
]


@pytest.mark.parametrize("layer", PICTURE_LAYERS, ids=str)
def test_layers_of_pictures(layer: nn.Module) -> None:
    check(layer, (4, 9, 10))


@pytest.mark.parametrize("layer", SIGNAL_LAYERS, ids=str)
def test_layers_of_signals(layer: nn.Module) -> None:
    check(layer, (6, 16))


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=str)
def test_activations_behind_a_layer_and_alone(layer: nn.Module) -> None:
    check(nn.Sequential(nn.Conv2d(2, 3, 3), layer), (2, 6, 5))
    check(layer, (7,))


def test_a_flattened_image_reorders_the_columns_of_the_dense_layer() -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(4 * 4 * 5, 7)
    )
    graph = check(net, (2, 6, 7)).graph
    assert kinds(graph) == ["conv2d", "fully_connected"]
    assert [op.name for op in graph.ops] == ["0", "4"]
    assert graph.ops[0].clamp.lo == 0.0


class Residual(nn.Module):
    """A block whose middle value has two readers: its ReLU must not be folded twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU6(inplace=True),
            nn.Conv2d(6, 6, 1),
            nn.BatchNorm2d(6),
        )
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        raw = x
        x = F.relu(x)  # `raw` is read below, so this clamp stands alone
        x = F.hardtanh(x + self.body(x)) + raw
        x = x.mean([2, 3])
        return F.softmax(self.head(x), dim=1)


def test_residual_blocks() -> None:
    graph = check(Residual(), (1, 6, 6)).graph
    assert [op.kind for op in graph.ops].count(OpKind.UNARY) == 1
    assert next(op for op in graph.ops if op.name == "stem").clamp.is_linear


class InPlace(nn.Module):
    """In-place operators change what earlier names see."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        F.relu_(y)
        y += y
        z = y.view(1, -1)
        z.clamp_(max=1.5)
        return F.max_pool2d(y, 2)


def test_in_place_operators() -> None:
    check(InPlace(), (2, 4, 4))


class FlatReader(nn.Module):
    """A flatten under a ReLU whose image is read elsewhere, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.a = nn.Linear(8, 3)
        self.b = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.a(F.relu(y.flatten(1))) + self.b(y.mean([2, 3]))


def test_a_relu_behind_a_flatten_is_not_folded_into_a_shared_image() -> None:
    graph = check(FlatReader(), (1, 4, 4)).graph
    assert graph.ops[0].clamp.is_linear
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.ReLU(), nn.Linear(8, 3))
    graph = check(net, (1, 4, 4)).graph
    assert graph.ops[0].clamp.lo == 0.0


class Shapes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(1, 1, 4, 6)  # a vector becomes an image with one channel
        x = F.max_pool2d(x, 2)
        x = x.reshape(1, -1)
        return x.unsqueeze(-1).squeeze(-1).reshape(x.shape) + x


def test_reshapes() -> None:
    graph = check(Shapes(), (24,)).graph
    assert "transpose" not in kinds(graph)


MOVEMENTS = {
    "a flattened image": lambda m, x: F.max_pool2d(x, 2).flatten(1),
    "pixels reordered": lambda m, x: F.relu(x).view(1, 2, 8, 4),
    "heights and widths": lambda m, x: F.max_pool2d(x, 2).transpose(2, 3),
    "channels last": lambda m, x: F.max_pool2d(x, 2).permute(0, 2, 3, 1),
    "a slice": lambda m, x: x[:, 1:3, ::2, 1:],
    "one row": lambda m, x: F.relu(x)[:, :, 1],
    "halves": lambda m, x: torch.cat([*x.chunk(2, 1), *x.split([1, 2, 1], 2)[1].chunk(2, 1)], 2),
    "joined channels": lambda m, x: torch.cat([x, F.relu(x), x * 2.0], 1),
    "joined flat": lambda m, x: torch.cat([x.flatten(1), F.relu(x).flatten(1)], 1),
    "stacked": lambda m, x: torch.stack([x[:, 0], x[:, 1]], 1),
    "repeated": lambda m, x: F.relu(x).repeat(1, 2, 1, 1),
    "shuffled by hand": lambda m, x: (
        F.relu(x).view(1, 2, 2, 4, 4).transpose(1, 2).reshape(1, 4, 4, 4)
    ),
    "padded and cut": lambda m, x: F.pad(x, (-1, 2, 1, 0, 1, 1)),
    "mean of channels": lambda m, x: x.mean(1),
    "mean of rows": lambda m, x: x.mean(2, keepdim=True),
    "mean of all": lambda m, x: x.mean([1, 2, 3]),
    "largest": lambda m, x: x.amax((2, 3)),
    "two outputs": lambda m, x: (F.relu(x), x.mean([2, 3])),
    "an output as it came": lambda m, x: (x, F.relu(x)),
}


@pytest.mark.parametrize("name", MOVEMENTS)
def test_movements(name: str) -> None:
    check(Lambda(MOVEMENTS[name]), (4, 4, 4))


ARITHMETIC = {
    "numbers": lambda m, x, y: (x + 1.0) * 2.0 - y / 3.0,
    "number less value": lambda m, x, y: 1.0 - m.conv(x) + (-y),
    "squares": lambda m, x, y: x**2 + x.abs() - torch.exp(y * 0.1),
    "extremes": lambda m, x, y: torch.minimum(x, y) + torch.maximum(m.conv(x), y),
    "gates": lambda m, x, y: x * torch.sigmoid(y.mean([2, 3], keepdim=True)),
    "gates of channels": lambda m, x, y: torch.sigmoid(m.conv(x)) * y.mean(1, keepdim=True),
    "broadcast both ways": lambda m, x, y: x.mean([2, 3], keepdim=True) * y.mean(1, keepdim=True),
    "a parameter of channels": lambda m, x, y: m.conv(x) * m.scale.weight.view(1, 3, 1, 1) + y,
    "a parameter of pixels": lambda m, x, y: x + m.grid.weight.view(1, 1, 4, 5),
    "a parameter first": lambda m, x, y: m.scale.weight.view(1, 3, 1, 1) - y,
    "another layout": lambda m, x, y: x.permute(0, 1, 3, 2).flatten(1) + y.flatten(1),
    "flat and image": lambda m, x, y: m.head(m.conv(x).flatten(1) + y.flatten(1)),
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_on_two_inputs(name: str) -> None:
    module = Lambda(
        ARITHMETIC[name],
        conv=nn.Conv2d(3, 3, 1),
        scale=nn.Linear(3, 1, bias=False),
        grid=nn.Linear(20, 1, bias=False),
        head=nn.Linear(60, 4),
    )
    check(module, (3, 4, 5), (3, 4, 5))


def test_embedding_of_indices() -> None:
    words = nn.Embedding(11, 6)
    check(Lambda(lambda m, i: m.head(m.words(i).mean(1)), words=words, head=nn.Linear(6, 2)), 7)
    net = Lambda(
        lambda m, i: m.conv(m.words(i).transpose(1, 2)), words=words, conv=nn.Conv1d(6, 4, 3)
    )
    graph = check(net, 7).graph
    assert kinds(graph) == ["embedding", "reshape", "conv2d"]  # channels are last already


def test_a_signal_whose_module_turns_it_is_not_turned_twice() -> None:
    net = Lambda(lambda m, x: m.conv(x.permute(0, 2, 1)), conv=nn.Conv1d(3, 4, 3))
    graph = check(net, (16, 3)).graph
    assert "transpose" not in kinds(graph)


def test_linear_with_batch_norm_and_softmax() -> None:
    net = nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(dim=1)
    )
    graph = check(net, (5,)).graph
    assert kinds(graph) == ["fully_connected", "fully_connected", "softmax"]


def test_names_are_the_modules_own_and_the_module_is_left_alone() -> None:
    net = nn.Sequential()
    net.add_module("stem", nn.Conv2d(1, 2, 3))
    net.add_module("norm", nn.BatchNorm2d(2))
    net.train()
    graph = from_torch(net, torch.randn(1, 1, 5, 5))
    assert [op.name for op in graph.ops] == ["stem"]
    assert net.training and net[1].training


def test_a_shared_layer_has_two_names() -> None:
    shared = nn.Conv2d(2, 2, 3, padding=1)
    graph = check(nn.Sequential(shared, nn.ReLU(), shared), (2, 4, 4)).graph
    assert len({op.name for op in graph.ops}) == 2


def test_samples_are_turned_as_the_graph_wants_them() -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    assert to_nhwc(x).shape == (2, 1, 4, 3)
    graph = import_torch(nn.Conv1d(3, 2, 2), x)
    value = graph.values[graph.graph.inputs[0]]
    np.testing.assert_array_equal(value.to_graph(x.numpy(), (1, 1, 4, 3)), to_nhwc(x))
    one = x[:1].numpy()
    np.testing.assert_array_equal(value.to_source(value.to_graph(one, (1, 1, 4, 3))), one)


class Branchy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("module", "shape", "words"),
    [
        (nn.ConvTranspose2d(1, 1, 3), (1, 6, 6), ["conv_transpose2d", "transposed", "use"]),
        (nn.LogSoftmax(1), (4,), ["log_softmax", "return the logits"]),
        (nn.GELU(), (4,), ["gelu", "no counterpart", "use conv1d"]),
        (nn.Sequential(nn.Conv2d(1, 1, 3), nn.Mish()), (1, 6, 6), ["'mish'"]),
        (nn.LSTM(4, 4), (3, 4), ["lstm"]),
        (nn.PReLU(4), (4, 3, 3), ["slope for each channel"]),
        (nn.SELU(), (4,), ["selu"]),
        (nn.AvgPool2d(2, divisor_override=3), (1, 6, 6), ["divisor_override"]),
        (nn.AdaptiveAvgPool2d(4), (1, 6, 6), ["unequal size"]),
        (nn.MaxPool2d(2, dilation=2), (1, 6, 6), ["dilation"]),
        (nn.ReflectionPad2d(1), (1, 6, 6), ["reflect", "constant"]),
        (Branchy(), (4,), ["Branchy", "torch.export cannot trace it"]),
        (Lambda(lambda m, x: x.double()), (4,), ["float64", "float32"]),
        (Lambda(lambda m, x: x / x), (4,), ["divide by constants"]),
        (Lambda(lambda m, x: x @ x.transpose(1, 2)), (4, 4), ["computed in the network"]),
        (Lambda(lambda m, x: x.view(1, 1, 1, 2, 2)), (4,), ["4 dimensions at most"]),
    ],
    ids=lambda value: value.__class__.__name__ if isinstance(value, nn.Module) else "",
)
def test_what_is_not_supported_is_named_in_one_line(
    module: nn.Module, shape: tuple[int, ...], words: list[str]
) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        from_torch(module, torch.randn(1, *shape))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
