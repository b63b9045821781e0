"""Small one-dimensional networks for sensors: activities, bearings, strokes and spells.

All of them are convolutions over time with a batch norm each (folded by the frontend), and a
linear layer on the mean over time. `width` multiplies every layer's channels: a teacher is the
same network, wider.
"""

from __future__ import annotations

from torch import Tensor, nn


def _convolution(c_in: int, c_out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    padding = (kernel - stride) // 2  # a layer's windows neither overhang far nor leave a tail
    return [
        nn.Conv1d(c_in, c_out, kernel, stride=stride, padding=padding, bias=False),
        nn.BatchNorm1d(c_out),
        nn.ReLU(),
    ]


class _OverTime(nn.Module):
    """Features [n, c, t], their mean over time, and a linear head."""

    def __init__(
        self, layers: list[nn.Module], channels: int, classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


class Activity(_OverTime):
    """Human activity: [n, 6 channels, 128 samples at 50 Hz] -> [n, 6]."""

    def __init__(self, width: int = 1, dropout: float = 0.2) -> None:
        a, b, c, d = 24 * width, 32 * width, 48 * width, 64 * width
        layers = [
            *_convolution(6, a, 5, stride=2),
            *_convolution(a, b, 5),
            nn.MaxPool1d(2),
            *_convolution(b, c, 3),
            nn.MaxPool1d(2),
            *_convolution(c, d, 3),
        ]
        super().__init__(layers, d, 6, dropout)


class Bearing(_OverTime):
    """Bearing faults: [n, 1 channel, 1024 samples at 12 kHz] -> [n, 10].

    The first kernel is wide, as a filter bank over the raw vibration has to be.
    """

    def __init__(self, width: int = 1, dropout: float = 0.2) -> None:
        a, b, c = 16 * width, 32 * width, 64 * width
        layers = [
            *_convolution(1, a, 64, stride=8),
            nn.MaxPool1d(2),
            *_convolution(a, b, 3),
            nn.MaxPool1d(2),
            *_convolution(b, c, 3),
            nn.MaxPool1d(2),
            *_convolution(c, c, 3),
        ]
        super().__init__(layers, c, 10, dropout)


class Strokes(_OverTime):
    """Digits drawn in the air: [n, 2 coordinates, 145 points] -> [n, 10]."""

    def __init__(self, width: int = 1, dropout: float = 0.2) -> None:
        a, b, c, d = 16 * width, 32 * width, 48 * width, 64 * width
        layers = [
            *_convolution(2, a, 5, stride=2),
            *_convolution(a, b, 5, stride=2),
            *_convolution(b, c, 3, stride=2),
            *_convolution(c, d, 3),
        ]
        super().__init__(layers, d, 10, dropout)


class Spells(_OverTime):
    """Wand gestures: [n, 6 channels, 119 samples] -> [n, 5]."""

    def __init__(self, width: int = 1, dropout: float = 0.2) -> None:
        a, b, c = 16 * width, 24 * width, 32 * width
        layers = [
            *_convolution(6, a, 5, stride=2),
            *_convolution(a, b, 5, stride=2),
            *_convolution(b, c, 3, stride=2),
        ]
        super().__init__(layers, c, 5, dropout)
