"""What a compiled model costs, as data: layer by layer, how it is tiled, and in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fieldloop.image.writer import Trainable
from fieldloop.ir.graph import Graph
from fieldloop.ir.shapes import macs
from fieldloop.plan.show import memory_map
from fieldloop.plan.tiled import Planned
from fieldloop.plan.tilings import Tiling
from fieldloop.plan.types import Plan, PlanKind


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One operator of the compiled model."""

    name: str
    kind: str
    dtype: str  # of the output
    output_shape: tuple[int, ...]
    macs: int
    weight_bytes: int  # weights, bias and tables, in flash
    output_bytes: int
    lr_scale: float | None  # of a trainable layer


@dataclass(frozen=True, slots=True)
class TileReport:
    """A stretch of operators that is not computed one after the other, each whole."""

    first: str  # names of operators
    last: str
    kind: str  # "fdt", "ffmt", "stream" or "in_place"
    amount: int  # fdt, ffmt: parts; stream: rows at a time


@dataclass(frozen=True, slots=True)
class CompileReport:
    """What the model will cost, to the byte. RAM is the whole arena, with plain C kernels.

    `optimal`: no plan can need less: untiled, no order of the operators and no layout; tiled, no
    tiling either. `bound_bytes`: what no plan of that kind can do without.
    """

    flash_bytes: int
    ram_infer_bytes: int
    ram_learn_bytes: int | None  # the forward arena while learning; the learner's own comes on top
    untiled_ram_bytes: int
    macs: int  # of one run, with what is computed twice
    mac_overhead: float  # to the untiled model: 0.05 is 5 % more
    tiles: tuple[TileReport, ...]
    steps: int  # of the plan for inference; 0: one an operator
    optimal: bool
    bound_bytes: int
    planner_seconds: float
    layers: tuple[LayerReport, ...]
    memory_map: str


def tile_reports(graph: Graph, tilings: Sequence[Tiling]) -> tuple[TileReport, ...]:
    """Tilings by the names of their operators."""
    names = [op.name for op in graph.ops]
    return tuple(
        TileReport(names[t.first], names[t.last], t.kind.value, t.amount) for t in tilings
    )


def compile_report(
    graph: Graph,
    image: bytes,
    plans: tuple[Plan, ...],
    trainables: tuple[Trainable, ...],
    planned: Planned,
    seconds: float,
) -> CompileReport:
    """The report of an image. `planned`: the search for the first of `plans`, that for inference;
    `seconds`: what all plans took.
    """
    rates = {layer.op: layer.lr_scale for layer in trainables}
    arena = {plan.kind: plan.arena_bytes for plan in plans}
    layers = tuple(
        LayerReport(
            name=op.name,
            kind=op.kind.value,
            dtype=graph.tensors[op.output].dtype.value,
            output_shape=graph.tensors[op.output].shape,
            macs=macs(op, graph.tensors),
            weight_bytes=sum(
                graph.tensors[n].bytes for n in op.inputs if graph.tensors[n].is_constant
            ),
            output_bytes=graph.tensors[op.output].bytes,
            lr_scale=rates.get(op.name),
        )
        for op in graph.ops
    )
    work = graph.macs()
    return CompileReport(
        flash_bytes=len(image),
        ram_infer_bytes=arena[PlanKind.INFER],
        ram_learn_bytes=arena.get(PlanKind.LEARN),
        untiled_ram_bytes=planned.untiled.arena_bytes,
        macs=planned.macs,
        mac_overhead=planned.macs / work - 1.0 if work else 0.0,
        tiles=tile_reports(graph, planned.tilings),
        steps=len(planned.plan.steps),
        optimal=planned.optimal,
        bound_bytes=planned.bound,
        planner_seconds=seconds,
        layers=layers,
        memory_map=memory_map(graph, planned.untiled),
    )
