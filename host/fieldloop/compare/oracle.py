"""The runtime that a model comes from, behind one interface."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from fieldloop.compare.inputs import Sample

Array = npt.NDArray[np.generic]


class Oracle(Protocol):
    """Says what every tensor of the image should be.

    `exact`: int8 results are compared byte by byte. `forced`: its layers and ours are compared on
    the same inputs, its own, because both round in their own way.
    """

    name: str
    exact: bool
    forced: bool

    def run(self, sample: Sample) -> dict[int, Array]:
        """Values by tensor of the image, in the image's layout and dtype; not all are known."""
        ...
