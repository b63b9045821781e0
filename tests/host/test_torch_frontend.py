"""PyTorch modules and the graphs they become compute the same; what cannot be is named."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from fieldloop.frontends.builder import UnsupportedModelError  # noqa: E402
from fieldloop.frontends.torch_frontend import from_torch, to_nhwc  # noqa: E402
from fieldloop.ir.graph import Graph  # noqa: E402
from fieldloop.ir.op import OpKind  # noqa: E402
from fieldloop.ir.reference import run  # noqa: E402


def shake(module: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms as after a training, not as new."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_(0.0, 0.5)
            part.running_var.uniform_(0.5, 2.0)
            if part.affine:
                part.weight.data.normal_(1.0, 0.3)
                part.bias.data.normal_(0.0, 0.3)
    return module


def check(module: nn.Module, shape: tuple[int, ...], tolerance: float = 1e-5) -> Graph:
    """The graph of `module`, equal to it on random samples, one at a time as the graph has it."""
    shake(module)
    graph = from_torch(module, torch.randn(1, *shape))
    module.eval()
    x = torch.randn(6, *shape) * 2.0
    with torch.no_grad():
        expected = torch.cat([module(x[i : i + 1]) for i in range(len(x))])
    (got,) = run(graph, {graph.inputs[0]: to_nhwc(x)}).values()
    wanted = to_nhwc(expected)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, atol=tolerance * max(1.0, np.abs(wanted).max()))
    return graph


def kinds(graph: Graph) -> list[str]:
    return [op.kind.value for op in graph.ops]


CONVOLUTIONS = [
    nn.Conv2d(3, 5, 3),
    nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    nn.Conv2d(3, 5, 3, padding="same", bias=False),
    nn.Conv2d(3, 5, (4, 2), padding="same"),
    nn.Conv2d(3, 5, 3, padding="valid"),
    nn.Conv2d(3, 3, 3, groups=3, padding=1),
    nn.Conv2d(3, 6, 3, groups=3, stride=2),
    nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
    nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6, affine=False), nn.ReLU6()),
    nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1)),
]
POOLS = [
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, stride=2, padding=1),
    nn.MaxPool2d(3, stride=2, ceil_mode=True),
    nn.MaxPool2d((2, 3), stride=(1, 2)),
    nn.AvgPool2d(2),
    nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    nn.AvgPool2d(3, stride=2, ceil_mode=True),
    nn.AdaptiveAvgPool2d(1),
    nn.AdaptiveAvgPool2d((3, 2)),
]


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
def test_convolutions(layer: nn.Module) -> None:
    check(layer, (3, 9, 10))


@pytest.mark.parametrize("layer", POOLS, ids=str)
def test_pools(layer: nn.Module) -> None:
    check(layer, (3, 9, 10))


def test_a_flattened_image_reorders_the_columns_of_the_dense_layer() -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(4 * 4 * 5, 7)
    )
    graph = check(net, (2, 6, 7))
    assert kinds(graph) == ["conv2d", "reshape", "fully_connected"]
    assert [op.name for op in graph.ops] == ["0", "flatten", "4"] or graph.ops[2].name == "4"
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
    graph = check(Residual(), (1, 6, 6))
    clamps = [op for op in graph.ops if op.kind is OpKind.MAX_POOL]
    assert len(clamps) == 1
    assert clamps[0].clamp.lo == 0.0
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
    with pytest.raises(UnsupportedModelError, match="follows no layer of its own"):
        from_torch(FlatReader(), torch.randn(1, 1, 4, 4))
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.ReLU(), nn.Linear(8, 3))
    graph = check(net, (1, 4, 4))
    assert graph.ops[0].clamp.lo == 0.0


class Shapes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(1, 1, 4, 6)  # a vector becomes an image with one channel
        x = F.max_pool2d(x, 2)
        x = x.reshape(1, -1)
        return x.unsqueeze(-1).squeeze(-1).reshape(x.shape) + x


def test_reshapes() -> None:
    check(Shapes(), (24,))


def test_linear_with_batch_norm_and_softmax() -> None:
    net = nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(dim=1)
    )
    graph = check(net, (5,))
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
    graph = check(nn.Sequential(shared, nn.ReLU(), shared), (2, 4, 4))
    assert len({op.name for op in graph.ops}) == 2


class Branchy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def linear_over_pixels(x: torch.Tensor) -> torch.Tensor:
    return F.softmax(F.max_pool2d(x, 1), dim=-1)


class Lambda(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("module", "shape", "words"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), (4, 6, 6), ["conv2d", "2 groups", "depthwise"]),
        (nn.Sigmoid(), (4,), ["sigmoid", "no counterpart", "use conv2d"]),
        (nn.Sequential(nn.Conv2d(1, 1, 3), nn.Sigmoid()), (1, 6, 6), ["'sigmoid'"]),
        (nn.AvgPool2d(2, padding=1), (1, 6, 6), ["count_include_pad=False"]),
        (nn.AvgPool2d(2, divisor_override=3), (1, 6, 6), ["divisor_override"]),
        (nn.AdaptiveAvgPool2d(4), (1, 6, 6), ["unequal size"]),
        (nn.MaxPool2d(2, dilation=2), (1, 6, 6), ["dilation"]),
        (nn.Linear(6, 2), (1, 6, 6), ["flatten it first"]),
        (nn.BatchNorm1d(4), (4,), ["batch norm", "right behind"]),
        (nn.ReLU(), (4,), ["follows no layer"]),
        (nn.Conv1d(2, 2, 3), (2, 8), ["conv1d"]),
        (Branchy(), (4,), ["Branchy", "torch.export cannot trace it"]),
        (Lambda(linear_over_pixels), (1, 4, 4), ["dim=1"]),
        (Lambda(lambda x: F.max_pool2d(x, 2).flatten(1)), (2, 4, 4), ["flattened image"]),
        (Lambda(lambda x: x.view(1, 2, 8, 2)), (2, 4, 4), ["reorders pixels"]),
        (Lambda(lambda x: F.max_pool2d(x, 2) + 1.0), (1, 4, 4), ["a number or a parameter"]),
        (Lambda(lambda x: x + x.mean([2, 3], keepdim=True)), (1, 4, 4), ["equal shapes"]),
        (Lambda(lambda x: x.double()), (4,), ["_to_copy"]),
        (Lambda(lambda x: x), (4,), ["returned as it came"]),
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
