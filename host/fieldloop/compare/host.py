"""The C core on this machine, operator by operator, with each set of kernels.

A tiled plan runs its operators by turns and never holds most of what they make: there, only the
operators that make the model's outputs can be looked at, once all have run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from fieldloop.compare.inputs import Sample
from fieldloop.image.format import ImagePlanKind
from fieldloop.image.reader import Image
from fieldloop.runtime import Model
from fieldloop.runtime.core import VARIANTS

Array = npt.NDArray[np.generic]


class HostRun:
    """One image in plain C and in the optimised kernels' emulation."""

    def __init__(self, image: bytes, parsed: Image, variants: Iterable[str] = VARIANTS) -> None:
        self.parsed = parsed
        self.models = {variant: Model(image, variant=variant) for variant in variants}
        self.tiled = any(p.is_tiled and p.kind is ImagePlanKind.INFER for p in parsed.plans)
        self.ops = [
            op for op in parsed.ops if not self.tiled or op.outputs[0] in parsed.outputs
        ]  # that can be looked at
        self.made = [op.outputs[0] for op in self.ops]

    @property
    def plain(self) -> Model:
        return self.models["plain"]

    def layers(self, sample: Sample, variant: str = "plain") -> list[Array]:
        """What each operator makes that can be looked at; copies."""
        model = self.models[variant]
        self._fill(model, sample)
        values = []
        if self.tiled:
            model.run_ops(0, len(self.parsed.ops))
            return [model.tensor(made).copy() for made in self.made]
        for op, made in enumerate(self.made):
            model.run_ops(op, op + 1)
            values.append(model.tensor(made).copy())
        return values

    def outputs(self, sample: Sample, variant: str = "plain") -> list[Array]:
        """The model's outputs; copies."""
        model = self.models[variant]
        self._fill(model, sample)
        model.run_ops(0, len(self.parsed.ops))
        return [model.tensor(t).copy() for t in self.parsed.outputs]

    def forced_layers(
        self, sample: Sample, known: Mapping[int, Array], visit: Callable[[int, Array], None]
    ) -> None:
        """Each operator on the inputs that somebody else's operators made.

        `known`: values by tensor; what it lacks is what our own operators made.
        """
        model = self.plain
        self._fill(model, sample)
        for op in self.parsed.ops:
            for t in op.inputs:
                if t in known:
                    model.tensor(t)[...] = known[t]
            model.run_ops(op.index, op.index + 1)
            visit(op.index, model.tensor(op.outputs[0]))

    def _fill(self, model: Model, sample: Sample) -> None:
        for t, value in zip(self.parsed.inputs, sample, strict=True):
            model.tensor(t)[...] = value
