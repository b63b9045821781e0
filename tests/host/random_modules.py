"""Random torch modules over everything that the frontends take: pictures, signals, vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

Shape = tuple[int, ...]
ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    lambda: nn.Hardtanh(-0.7, 1.2),
    lambda: nn.LeakyReLU(0.2),
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    lambda: nn.ELU(0.8),
    nn.PReLU,
    nn.SiLU,
)


class Branches(nn.Module):
    """Two ways through, then a sum, a product, an extremum or a concatenation."""

    JOINS: tuple[str, ...] = ("add", "sub", "mul", "min", "max", "cat", "gate")

    def __init__(self, left: nn.Module, right: nn.Module, join: str) -> None:
        super().__init__()
        self.left, self.right, self.join = left, right, join

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.left(x), self.right(x)
        if self.join == "cat":
            return torch.cat([a, b, a], 1)
        if self.join == "gate":
            axes = tuple(range(2, x.dim()))
            return a * torch.sigmoid(b.mean(axes, keepdim=True) if axes else b)
        named = {"sub": torch.sub, "mul": torch.mul, "min": torch.minimum, "max": torch.maximum}
        return named.get(self.join, torch.add)(a, b)


class Turned(nn.Module):
    """The last two axes swapped around a layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.layer(x.transpose(-1, -2)).transpose(-1, -2)
        return made


class Cut(nn.Module):
    """Parts along an axis, put together the other way round."""

    def __init__(self, axis: int, at: int) -> None:
        super().__init__()
        self.axis, self.at = axis, at

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[self.axis]
        first, second = x.split([self.at, size - self.at], self.axis)
        return torch.cat([second, first], self.axis)


class Growth:
    """Grows a module layer by layer; every choice comes from `rng`."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        space = self.rng.integers(0, 3)
        sizes = [int(n) for n in self.rng.integers(5, 12, space)]
        self.start: Shape = (int(self.rng.integers(1, 7)), *sizes)

    def pick(self, *choices: str) -> str:
        return choices[int(self.rng.integers(0, len(choices)))]

    def number(self, low: int, high: int) -> int:
        """Both included."""
        return int(self.rng.integers(low, high + 1))

    def module(self, depth: int = 5) -> nn.Module:
        """Layers on `start`, then a head."""
        layers, shape = [], self.start
        for _ in range(depth):
            layer, shape = self.layer(shape)
            layers.append(layer)
        if len(shape) > 1 and self.rng.random() < 0.7:
            layers.append(nn.Flatten())
            shape = (int(np.prod(shape)),)
        if len(shape) == 1:
            layers += [nn.Linear(shape[0], 5)]
            if self.rng.random() < 0.4:
                layers.append(nn.Softmax(1))
        return nn.Sequential(*layers).eval()

    def layer(self, shape: Shape) -> tuple[nn.Module, Shape]:
        made = self.vector(shape[0]) if len(shape) == 1 else self.spatial(shape)
        return made, _shape_after(made, shape)

    def vector(self, width: int) -> nn.Module:
        kind = self.pick("linear", "linear", "norm", "act", "branch", "cut")
        if kind == "linear":
            return nn.Linear(width, self.number(2, 12), bias=self.rng.random() < 0.7)
        if kind == "norm":
            return nn.BatchNorm1d(width)
        if kind == "cut" and width > 1:
            return Cut(1, self.number(1, width - 1))
        if kind == "branch":
            return Branches(nn.Linear(width, 6), nn.Linear(width, 6), self.join())
        return self.activation()

    def spatial(self, shape: Shape) -> nn.Module:
        space = len(shape) - 1
        kind = self.pick(
            "conv", "conv", "conv", "norm", "act", "act", "pool", "branch", "turn", "cut", "pad"
        )
        if kind == "conv":
            return self.conv(shape)
        if kind == "norm":
            return (nn.BatchNorm1d, nn.BatchNorm2d)[space - 1](shape[0])
        if kind == "pool" and min(shape[1:]) >= 3:
            return self.pool(space)
        if kind == "branch":
            return Branches(self.same(shape), self.same(shape), self.join())
        if kind == "turn":
            return Turned(nn.Linear(shape[-2] if space > 1 else shape[0], self.number(2, 6)))
        if kind == "cut":
            axis = self.number(1, space + 1)
            if shape[axis - 1] > 1:
                return Cut(axis, self.number(1, shape[axis - 1] - 1))
        if kind == "pad":
            pads = tuple(self.number(0, 2) for _ in range(2 * space))
            value = float(self.number(-1, 1))
            return nn.ConstantPad1d(pads, value) if space == 1 else nn.ConstantPad2d(pads, value)
        return self.activation()

    def join(self) -> str:
        return self.pick(*Branches.JOINS)

    def activation(self) -> nn.Module:
        return ACTIVATIONS[int(self.rng.integers(0, len(ACTIVATIONS)))]()

    def same(self, shape: Shape) -> nn.Module:
        """A layer that keeps its input's shape."""
        kind = (nn.Conv1d, nn.Conv2d)[len(shape) - 2]
        layer = kind(shape[0], shape[0], 3, padding=1)
        return nn.Sequential(layer, self.activation()) if self.rng.random() < 0.5 else layer

    def conv(self, shape: Shape) -> nn.Module:
        space, channels = len(shape) - 1, shape[0]
        groups = channels if self.rng.random() < 0.3 else 1
        if channels % 2 == 0 and self.rng.random() < 0.2:
            groups = 2
        dilation = self.number(1, 2)
        room = (min(shape[1:]) - 1) // dilation + 1
        return (nn.Conv1d, nn.Conv2d)[space - 1](
            channels,
            groups * self.number(1, 3) if groups > 1 else self.number(2, 8),
            self.number(1, min(3, room)),
            stride=self.number(1, 2),
            padding=self.number(0, 1),
            dilation=dilation,
            groups=groups,
            bias=self.rng.random() < 0.7,
        )

    def pool(self, space: int) -> nn.Module:
        kernel, stride = self.number(2, 3), self.number(1, 3)
        ceil_mode = self.rng.random() < 0.4
        if self.rng.random() < 0.5:
            kind = (nn.MaxPool1d, nn.MaxPool2d)[space - 1]
            return kind(kernel, stride, padding=self.number(0, 1), ceil_mode=ceil_mode)
        kind = (nn.AvgPool1d, nn.AvgPool2d)[space - 1]
        counts = self.rng.random() < 0.5
        padding = self.number(0, 1)
        return kind(kernel, stride, padding=padding, ceil_mode=ceil_mode, count_include_pad=counts)


def _shape_after(module: nn.Module, shape: Shape) -> Shape:
    with torch.no_grad():
        return tuple(module.eval()(torch.zeros(1, *shape)).shape[1:])
