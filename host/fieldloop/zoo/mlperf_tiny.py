"""The four networks of MLPerf Tiny, shape for shape, as torch modules.

Layers, widths and strides are those of the reference models. Padding is torch's (the same on both
sides) where the reference pads as TensorFlow does; shapes and multiply-accumulates are the same.
Every convolution has a batch norm, which the frontend folds. `width` makes a teacher: the same
network with wider layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def convolution(
    c_in: int,
    c_out: int,
    kernel: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    groups: int = 1,
    relu: bool = True,
) -> list[nn.Module]:
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=padding, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
    ]
    return [*layers, nn.ReLU()] if relu else layers


def separable(c_in: int, c_out: int, *, stride: int = 1) -> list[nn.Module]:
    """A 3x3 convolution of each channel, then a 1x1 convolution across channels."""
    return [
        *convolution(c_in, c_in, 3, stride=stride, padding=1, groups=c_in),
        *convolution(c_in, c_out, 1),
    ]


class DsCnn(nn.Module):
    """Keyword spotting: [n, 1, 49 frames, 10 MFCC] -> [n, 12]. 2,656,768 multiply-accumulates."""

    def __init__(self, width: int = 64, blocks: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        layers = convolution(1, width, (10, 4), stride=2, padding=(5, 1))
        for _ in range(blocks):
            layers += separable(width, width)
        self.features = nn.Sequential(*layers, nn.AvgPool2d((25, 5)), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, 12))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


class MobileNetV1(nn.Module):
    """Visual wake words: [n, 3, 96, 96] -> [n, 2]. 7,489,664 multiply-accumulates at 0.25."""

    # Output channels (before `width`) and stride of each separable block.
    BLOCKS = (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *((512, 1),) * 5,
        (1024, 2),
        (1024, 1),
    )

    def __init__(self, width: float = 0.25) -> None:
        super().__init__()
        channels = int(32 * width)
        layers = convolution(3, channels, 3, stride=2, padding=1)
        for wide, stride in self.BLOCKS:
            layers += separable(channels, int(wide * width), stride=stride)
            channels = int(wide * width)
        self.features = nn.Sequential(*layers, nn.AvgPool2d(3), nn.Flatten())
        self.head = nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a way past them, which is a 1x1 one where the shape changes."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(c_in, c_out, 3, stride=stride, padding=1),
            *convolution(c_out, c_out, 3, padding=1, relu=False),
        )
        self.past = (
            nn.Identity()
            if stride == 1 and c_in == c_out
            else nn.Sequential(*convolution(c_in, c_out, 1, stride=stride, relu=False))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.past(x) + self.body(x))


class ResNet8(nn.Module):
    """Image classification: [n, 3, 32, 32] -> [n, 10]. 12,501,632 multiply-accumulates."""

    def __init__(self, width: int = 16, blocks: int = 1) -> None:
        super().__init__()
        channels = width
        stacks: list[nn.Module] = convolution(3, width, 3, padding=1)
        for stack in range(3):
            for block in range(blocks):
                wide = width << stack
                stacks.append(_Residual(channels, wide, 2 if stack and not block else 1))
                channels = wide
        self.features = nn.Sequential(*stacks, nn.AvgPool2d(8), nn.Flatten())
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


class Autoencoder(nn.Module):
    """Anomaly detection: [n, 640] -> [n, 640]. 264,192 multiply-accumulates.

    How far the output is from the input tells how strange the input is.
    """

    WIDTHS = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide, narrow in zip(self.WIDTHS[:-1], self.WIDTHS[1:], strict=True):
            layers += [nn.Linear(wide, narrow), nn.BatchNorm1d(narrow), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(self.WIDTHS[-1], self.WIDTHS[0]))

    def forward(self, x: Tensor) -> Tensor:
        again: Tensor = self.layers(x)
        return again
