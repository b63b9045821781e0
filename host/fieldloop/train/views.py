"""Bent views of a whole training set, each made from its number alone.

A student sees view 0, 1, ... and then the first one again. A view is the same for every seed, so
what the teacher thinks of it is computed once and kept, and no student waits for its teacher.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Bend = Callable[[Tensor, torch.Generator], Tensor]  # samples [n, ...] -> as many, bent


def view(x: Tensor, bend: Bend, number: int) -> Tensor:
    """View `number` of the samples x."""
    return bend(x, torch.Generator().manual_seed(7919 * number + 1))


def _either_way(shape: tuple[int, ...], reach: float, rng: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=rng) * 2.0 - 1.0) * reach


def _cut(x: Tensor, room: tuple[int, int], mode: str, rng: torch.Generator) -> Tensor:
    """Moves each picture [n, c, h, w] by up to `room` rows and columns; `mode` fills the edge."""
    n, _, h, w = x.shape
    rows = torch.randint(0, 2 * room[0] + 1, (n,), generator=rng)
    columns = torch.randint(0, 2 * room[1] + 1, (n,), generator=rng)
    wide = torch.nn.functional.pad(x, (room[1], room[1], room[0], room[0]), mode=mode)
    moved = torch.empty_like(x)
    for row in range(2 * room[0] + 1):
        for column in range(2 * room[1] + 1):
            chosen = torch.nonzero((rows == row) & (columns == column))[:, 0]
            moved[chosen] = wide[chosen, :, row : row + h, column : column + w]
    return moved


def pictures(x: Tensor, rng: torch.Generator) -> Tensor:
    """Moved by up to 4 pixels, and half of them mirrored."""
    moved = _cut(x, (4, 4), "reflect", rng)
    mirrored = torch.rand(len(x), generator=rng) < 0.5
    moved[mirrored] = moved[mirrored].flip(-1)
    return moved


def words(x: Tensor, rng: torch.Generator) -> Tensor:
    """Spoken up to 5 frames earlier or later, a little louder or softer, with a little noise."""
    moved = _cut(x, (5, 0), "replicate", rng)
    moved[:, :, :, :1] += _either_way((len(x), 1, 1, 1), 0.4, rng)  # the log energy
    return moved + 0.1 * torch.randn(x.shape, generator=rng)


def motions(x: Tensor, rng: torch.Generator) -> Tensor:
    """The sensor [n, acc xyz + gyro xyz, t] turned by some 10 degrees, a little stronger."""
    angles = _either_way((len(x), 3), math.radians(10.0), rng)
    turn = torch.linalg.matrix_exp(_cross(angles))  # [n, 3, 3]
    turned = torch.cat([turn @ x[:, :3], turn @ x[:, 3:]], dim=1)
    turned = turned * (1.0 + _either_way((len(x), 1, 1), 0.05, rng))
    return turned + 0.02 * torch.randn(x.shape, generator=rng)


def _cross(axis: Tensor) -> Tensor:
    """The matrices [n, 3, 3] of the cross products with [n, 3]."""
    a, b, c = axis.unbind(1)
    zero = torch.zeros_like(a)
    return torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], dim=1).reshape(-1, 3, 3)


def vibrations(x: Tensor, rng: torch.Generator) -> Tensor:
    """The window begun elsewhere, the sensor turned over, with noise."""
    shifts = torch.randint(0, x.shape[-1], (len(x), 1), generator=rng)
    places = (torch.arange(x.shape[-1])[None] + shifts) % x.shape[-1]
    sign = torch.randint(0, 2, (len(x), 1, 1), generator=rng) * 2.0 - 1.0
    rolled = torch.gather(x, 2, places[:, None].expand_as(x))
    return rolled * sign + 0.05 * torch.randn(x.shape, generator=rng)


def drawings(x: Tensor, rng: torch.Generator) -> Tensor:
    """Strokes [n, 2, t] turned, sheared and stretched; the padding's zeros stay zeros."""
    n = len(x)
    angle = _either_way((n,), math.radians(12.0), rng)
    bent = torch.stack(
        [
            torch.stack([torch.cos(angle), -torch.sin(angle)], dim=1),
            torch.stack([torch.sin(angle), torch.cos(angle)], dim=1),
        ],
        dim=1,
    )
    return (bent + _either_way((n, 2, 2), 0.15, rng)) @ x
