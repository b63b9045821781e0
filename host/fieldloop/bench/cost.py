"""Executed instructions of each operator of a model on a simulated board, RAM and flash.

QEMU counts with -icount: the numbers repeat exactly and are no cycles. A count is from the call to
the return of the executor for one operator, less an empty call; `total` is one call for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fieldloop.compare.inputs import random_sample
from fieldloop.compare.probe import Cost, probing, sample_files
from fieldloop.image.reader import Image, read_image

Say = Callable[[str], None]

SEED = 0


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One operator. Bytes; multiply-accumulates; executed instructions."""

    name: str
    kind: str
    shape: tuple[int, ...]
    macs: int
    instructions: int
    output_bytes: int

    @property
    def per_mac(self) -> float | None:
        return self.instructions / self.macs if self.macs else None


@dataclass(frozen=True, slots=True)
class ModelCost:
    """A model on a board. `ram_bytes`: its arena there, the kernels' scratch included."""

    model: str
    board: str
    macs: int
    instructions: int
    ram_bytes: int
    activation_bytes: int
    flash_bytes: int
    layers: tuple[LayerCost, ...]

    @property
    def per_mac(self) -> float | None:
        return self.instructions / self.macs if self.macs else None


@dataclass(frozen=True, slots=True)
class Subject:
    """An image to measure; `names` of its operators, where the source has some."""

    name: str
    image: bytes
    names: Sequence[str] | None = None


def measure(
    subjects: Sequence[Subject],
    board: str,
    *,
    memory: str | None = None,
    say: Say | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[ModelCost]:
    """Costs of each model with one seeded input, the same everywhere."""
    parsed = [read_image(subject.image) for subject in subjects]
    files: dict[str, bytes] = {}
    for i, (subject, image) in enumerate(zip(subjects, parsed, strict=True)):
        files[f"m{i}.flm"] = subject.image
        files.update(sample_files([random_sample(image, SEED)], f"m{i}s"))
    costs = []
    with probing(board, files, memory=memory, icount=True, progress=say) as probe:
        for i, (subject, image) in enumerate(zip(subjects, parsed, strict=True)):
            probe.open(f"m{i}.flm")
            probe.fill(f"m{i}s0", len(image.inputs))
            told = probe.cost()
            costs.append(_model_cost(subject, image, board, told, probe.arena_bytes))
            if progress is not None:
                progress(i + 1, len(subjects))
    return costs


def _model_cost(
    subject: Subject, image: Image, board: str, told: Cost, arena_bytes: int
) -> ModelCost:
    names = subject.names or [f"{op.opcode.name.lower()}_{op.index}" for op in image.ops]
    layers = tuple(
        LayerCost(
            name=name,
            kind=op.opcode.name.lower(),
            shape=image.tensors[op.outputs[0]].shape,
            macs=op.macs,
            instructions=instructions,
            output_bytes=image.tensors[op.outputs[0]].bytes,
        )
        for op, name, instructions in zip(image.ops, names, told.layers, strict=True)
    )
    return ModelCost(
        model=subject.name,
        board=board,
        macs=image.macs,
        instructions=told.total,
        ram_bytes=arena_bytes,
        activation_bytes=next(p.arena_bytes for p in image.plans if p.kind.name == "INFER"),
        flash_bytes=image.total_bytes,
        layers=layers,
    )


def csv_rows(costs: Sequence[ModelCost]) -> list[Mapping[str, object]]:
    """One record a layer and one a model, whose layer is `total`."""
    records: list[Mapping[str, object]] = []
    for cost in costs:
        common = {"model": cost.model, "board": cost.board}
        for layer in cost.layers:
            records.append(
                {
                    **common,
                    "layer": layer.name,
                    "kind": layer.kind,
                    "output": "x".join(map(str, layer.shape)),
                    "macs": layer.macs,
                    "instructions": layer.instructions,
                    "instructions_per_mac": layer.per_mac,
                    "ram_bytes": layer.output_bytes,
                    "flash_bytes": None,
                }
            )
        records.append(
            {
                **common,
                "layer": "total",
                "kind": "",
                "output": "",
                "macs": cost.macs,
                "instructions": cost.instructions,
                "instructions_per_mac": cost.per_mac,
                "ram_bytes": cost.ram_bytes,
                "flash_bytes": cost.flash_bytes,
            }
        )
    return records
