"""From a goal to a plan: the search's draft with offsets, as steps in loops."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from fieldloop.ir.graph import Graph
from fieldloop.plan.bind import bind, places
from fieldloop.plan.loops import compress
from fieldloop.plan.order import order_bound
from fieldloop.plan.planner import plan_graph
from fieldloop.plan.program import root_of
from fieldloop.plan.search import Goal, Progress, best_draft
from fieldloop.plan.tilings import SCRATCH, Draft, Tiling
from fieldloop.plan.types import Plan, PlanKind


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A plan and how it was found.

    `draft`: None where no tiling was asked for. `macs`: multiply-accumulates of one run. `bound`:
    bytes that no plan can do without, whatever the order, layout and (where asked for) tiling;
    `optimal`: the plan needs no more than some bound that is proven.
    """

    plan: Plan
    untiled: Plan
    draft: Draft | None
    macs: int
    bound: int
    optimal: bool

    @property
    def tilings(self) -> tuple[Tiling, ...]:
        """Of the plan."""
        return self.draft.tilings if self.draft is not None and self.plan.steps else ()


def plan_tiled(
    graph: Graph, kind: PlanKind, goal: Goal, progress: Progress | None = None
) -> Planned:
    """The plan of least arena that the goal allows; untiled where no tiling needs less."""
    untiled = plan_graph(graph, kind, keep=goal.keep, learner_scratch=goal.scratch)
    if not goal.kinds:
        bound = untiled_bound(graph, goal)
        optimal = bound == untiled.arena_bytes
        return Planned(untiled, untiled, None, graph.macs(), bound, optimal)
    bound = least_bytes(graph, goal)
    draft = best_draft(graph, goal, progress)
    if not draft.tilings or draft.peak >= untiled.arena_bytes:
        optimal = bound == untiled.arena_bytes
        return Planned(untiled, untiled, draft, graph.macs(), bound, optimal)
    plan = plan_of(draft, kind)
    return Planned(plan, untiled, draft, draft.macs, bound, bound == plan.arena_bytes)


def plan_of(draft: Draft, kind: PlanKind) -> Plan:
    """The plan of a draft, its steps in loops."""
    program, stacking = draft.program, draft.stacking
    offsets = places(program, stacking.offsets)
    scratch = (0, 0)
    if SCRATCH in offsets:
        piece = program.places[SCRATCH]
        scratch = (offsets.pop(SCRATCH), piece.end - piece.offset)
    return Plan(
        kind,
        stacking.peak,
        MappingProxyType(offsets),
        steps=compress(bind(program, stacking.offsets)),
        learner_scratch=scratch,
    )


def untiled_bound(graph: Graph, goal: Goal) -> int:
    """What no order of whole operators can do without."""
    return max(order_bound(graph, keep=goal.keep).bound, least_bytes(graph, goal))


def least_bytes(graph: Graph, goal: Goal) -> int:
    """What is there at the start, and what is there at the end: no tiling changes that. Reshapes
    of one value count once.
    """
    tensors = graph.tensors
    given = sum(tensors[name].bytes for name in graph.inputs)
    stays = {root_of(graph, name) for name in (*graph.outputs, *goal.keep)}
    return max(given, sum(tensors[name].bytes for name in stays) + goal.scratch)
