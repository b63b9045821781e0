"""The verifier of tiled plans: runs the steps on an arena of labels instead of values.

Each byte of the arena knows what lies there: byte b of element e of a tensor (a label above 0), a
byte of an accumulator and what was added to it so far (below 0), or garbage (0). Whatever a step
reads must be exactly what its operator's definition says, and what must be there at the end must
be there. It shares no code with the planner and trusts nothing but the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Op, OpKind
from fieldloop.ir.tensor import DType
from fieldloop.plan.types import NO_MORE, Plan, PlanKind, Step, StepKind
from fieldloop.plan.verify_needs import (
    IN_PLACE,
    SUM_BYTES,
    WIDTHS,
    Needs,
    Part,
    PlanError,
    Share,
    needs,
)

Labels = npt.NDArray[np.int64]
Cells = tuple[int, int, int, int]  # rows [0, 1) by channels [2, 3) of a sum's parts
_SCRATCH_ALIGNMENT = 16


def verify_tiles(
    graph: Graph,
    plan: Plan,
    *,
    keep: frozenset[str] = frozenset(),
    reordered: frozenset[str] = frozenset(),
) -> None:
    """Raises PlanError unless the tiled plan is sound. `keep`: tensors that must survive the run.

    `reordered`: operators that may add float32 in another order than the whole operator does.
    """
    where = "places"
    try:
        run = _Run(graph, plan, keep, reordered)
        for name, step in _unrolled(plan.steps):
            where = name
            if step.kind is not StepKind.LOOP and not 0 <= step.op < len(graph.ops):
                raise PlanError(f"operator {step.op} of {len(graph.ops)}")
            run.step(step)
        where = "the end"
        run.finish()
    except PlanError as error:
        what = f"plan for {plan.kind.value} of {graph.name}: {where}: {error}"
        raise PlanError(what) from None


def _unrolled(steps: tuple[Step, ...]) -> Iterator[tuple[str, Step]]:
    """Every step that runs, and its name for people."""
    i = 0
    while i < len(steps):
        head = steps[i]
        body: tuple[Step, ...] = (head,)
        times = 1
        if head.kind is StepKind.LOOP:
            body, times = steps[i + 1 : i + 1 + head.op], head.rows
            if head != Step(StepKind.LOOP, head.op, rows=head.rows) or times < 1:
                raise PlanError(f"step {i}: a loop of {times} iterations, or with other fields")
            if head.op < 1 or len(body) != head.op or StepKind.LOOP in {s.kind for s in body}:
                raise PlanError(f"step {i}: a loop of {head.op} steps, or with a loop inside")
        elif head.more != NO_MORE:
            raise PlanError(f"step {i}: increments outside of a loop")
        at = i if times == 1 and body == (head,) else i + 1
        for turn in range(times):
            for j, step in enumerate(body):
                name = f"step {at + j}" + (f", iteration {turn}" if turn else "")
                yield name, _in_turn(step, turn)
        i = at + len(body)


def _in_turn(step: Step, turn: int) -> Step:
    more = step.more
    if more == NO_MORE:
        return step
    return replace(
        step,
        row=step.row + turn * more.row,
        channel=step.channel + turn * more.channel,
        x_row=step.x_row + turn * more.x_row,
        x_channel=step.x_channel + turn * more.x_channel,
        x=step.x + turn * more.x,
        y=step.y + turn * more.y,
        z=step.z + turn * more.z,
        more=NO_MORE,
    )


@dataclass(frozen=True, slots=True)
class _Sum:
    """What was added to an accumulator of an operator: cells that do not overlap, `map_hw` being
    the map they are of, and where the last one ended in the whole kernel's order.
    """

    op: int
    map_hw: tuple[int, int]
    cells: tuple[Cells, ...]
    end: int

    def count(self) -> int:
        return sum((b - a) * (d - c) for a, b, c, d in self.cells)


class _Run:
    """The arena of labels, and each kind of step."""

    def __init__(
        self, graph: Graph, plan: Plan, keep: frozenset[str], reordered: frozenset[str]
    ) -> None:
        self.graph, self.plan = graph, plan
        self.stays = sorted({*graph.outputs, *keep})
        self.reordered = reordered
        self.sizes: dict[str, int] = {}
        for tensor in graph.tensors.values():
            if tensor.data is None:
                self.sizes[tensor.name] = math.prod(tensor.shape) * WIDTHS[tensor.dtype]
        # A reshape's output has its input's bytes: one range of labels for both.
        self.value: dict[str, str] = {name: name for name in graph.inputs}
        for op in graph.ops:
            same = op.kind is OpKind.RESHAPE
            self.value[op.output] = self.value[op.inputs[0]] if same else op.output
        self.base: dict[str, int] = {}  # of values: the label of their first byte
        free = 1
        for name in self.sizes:
            if self.value[name] == name:
                self.base[name] = free
                free += self.sizes[name]
        self.sums: list[_Sum] = []
        self.arena = np.zeros(max(0, plan.arena_bytes), np.int64)
        self.highest = 0
        self.last_step = self._last_steps()
        self.place_all()

    def _last_steps(self) -> dict[str, int]:
        """Of each value: the number of steps that are left until it is there whole."""
        left: dict[str, int] = {}
        for _, step in _unrolled(self.plan.steps):
            if step.kind in (StepKind.OP, StepKind.TILE) and 0 <= step.op < len(self.graph.ops):
                name = self.graph.ops[step.op].output
                left[name] = left.get(name, 0) + 1
        return left

    # ---- places

    def place_all(self) -> None:
        """Bounds and alignment of whole tensors and scratch; the caller writes the inputs."""
        plan, graph = self.plan, self.graph
        unknown = sorted(set(plan.offsets) - set(self.sizes))
        if unknown:
            raise PlanError(f"{unknown[0]} is no activation")
        for name, start in plan.offsets.items():
            width = WIDTHS[graph.tensors[name].dtype]
            self.span(start, self.sizes[name], width, name)
        scratch, size = plan.learner_scratch
        if (size < 0 or scratch % _SCRATCH_ALIGNMENT) or (
            plan.kind is not PlanKind.LEARN and (scratch, size) != (0, 0)
        ):
            raise PlanError(f"scratch of the learner, {size} bytes at {scratch}")
        self.span(scratch, size, 1, "the learner's scratch")
        for name in graph.inputs:
            self.write_whole(name)
        for name in graph.inputs:
            self.read_whole(name)

    def span(self, start: int, size: int, alignment: int, what: str) -> None:
        """Checks that bytes [start, start + size) are aligned and in the arena."""
        if start < 0 or start % alignment:
            raise PlanError(f"{what} at {start} is not aligned to {alignment} bytes")
        if start + size > self.plan.arena_bytes:
            raise PlanError(f"{what} ends at {start + size}, the arena at {self.plan.arena_bytes}")
        self.highest = max(self.highest, start + size)

    def whole(self, name: str) -> Labels:
        """The bytes of a tensor at its place."""
        if name not in self.plan.offsets:
            raise PlanError(f"{name} has no place")
        start = self.plan.offsets[name]
        return self.arena[start : start + self.sizes[name]]

    def labels(self, name: str) -> Labels:
        base = self.base[self.value[name]]
        return np.arange(base, base + self.sizes[name], dtype=np.int64)

    def write_whole(self, name: str) -> None:
        self.whole(name)[:] = self.labels(name)

    def read_whole(self, name: str) -> None:
        bad = np.count_nonzero(self.whole(name) != self.labels(name))
        if bad:
            at = self.plan.offsets[name]
            raise PlanError(
                f"{name} at {at}..{at + self.sizes[name]}: {bad} of its bytes were overwritten or "
                "never written"
            )

    # ---- steps

    def step(self, step: Step) -> None:
        runs: dict[StepKind, Callable[[Step], None]] = {
            StepKind.OP: self.op,
            StepKind.TILE: self.tile,
            StepKind.COPY: self.copy,
        }
        runs[step.kind](step)
        if step.kind is StepKind.COPY:
            return
        name = self.graph.ops[step.op].output
        self.last_step[name] -= 1
        if self.last_step[name] == 0:  # whoever asks for it by its place must find it there
            for alias, value in self.value.items():
                made_later = alias != name and self.last_step.get(alias, 0) > 0
                if value == name and alias in self.plan.offsets and not made_later:
                    self.read_whole(alias)

    def op(self, step: Step) -> None:
        op = self.graph.ops[step.op]
        if step != Step(StepKind.OP, step.op):
            raise PlanError(f"{op.name} runs whole, but its step says more")
        read = [name for name in op.inputs if name in self.sizes]
        if op.output not in self.plan.offsets:
            raise PlanError(f"{op.output} has no place")
        start, size = self.plan.offsets[op.output], self.sizes[op.output]
        for i, name in enumerate(read):
            self.read_whole(name)
            at = self.plan.offsets[name]
            meets = at < start + size and start < at + self.sizes[name]
            lies_there = (at, self.sizes[name]) == (start, size)
            first = i == 0 and name == op.inputs[0] and read.count(name) == 1
            in_place = op.kind is OpKind.RESHAPE or (
                op.kind in IN_PLACE
                and first
                and self.graph.tensors[name].shape == self.graph.tensors[op.output].shape
            )
            if meets and not (lies_there and in_place):
                raise PlanError(f"{op.name} writes over its own input {name}")
        self.write_whole(op.output)

    def copy(self, step: Step) -> None:
        op = self.graph.ops[step.op]
        if step != Step(StepKind.COPY, step.op, x=step.x, y=step.y, z=step.z) or step.z < 1:
            raise PlanError(f"a copy of {step.z} bytes for {op.name}, or with other fields")
        self.span(step.x, step.z, 1, "what is copied")
        self.span(step.y, step.z, 1, "a copy")
        moved = self.arena[step.x : step.x + step.z].copy()
        known = moved[moved > 0]
        mine = np.zeros(len(known), np.bool_)
        for name in {self.value[name] for name in op.inputs if name in self.sizes}:
            base = self.base[name]
            mine |= (known >= base) & (known < base + self.sizes[name])
        if not mine.all() or (moved < 0).any():
            raise PlanError(f"a copy for {op.name} of what it does not read")
        self.arena[step.y : step.y + step.z] = moved

    def piece(self, start: int, step: int, part: Part, what: str) -> Labels:
        """The bytes [pixels, channels * size] of a piece, and the check of its bounds."""
        if step < part.channels:
            raise PlanError(f"{what}: {step} elements from a pixel to the next")
        size = ((part.pixels - 1) * step + part.channels) * part.size
        self.span(start, size, part.size, what)
        each = self.arena.itemsize
        return np.lib.stride_tricks.as_strided(
            self.arena[start:],
            (part.pixels, part.channels * part.size),
            (step * part.size * each, each),
        )

    def expected(self, part: Part) -> Labels:
        """The labels [pixels, channels * size] of a part."""
        base = self.base[self.value[part.tensor]]
        first = base + (part.pixel * part.of + part.channel) * part.size
        pixels = np.arange(part.pixels, dtype=np.int64) * (part.of * part.size)
        inner = np.arange(part.channels * part.size, dtype=np.int64)
        return np.asarray(pixels[:, None] + (first + inner))

    def read(self, start: int, step: int, part: Part, what: str) -> None:
        bad = np.count_nonzero(self.piece(start, step, part, what) != self.expected(part))
        if bad:
            raise PlanError(
                f"{what} at {start}: {bad} bytes are not pixels {part.pixel}.."
                f"{part.pixel + part.pixels}, channels {part.channel}.."
                f"{part.channel + part.channels} of {part.tensor}"
            )

    def tile(self, step: Step) -> None:
        op = self.graph.ops[step.op]
        try:
            need = needs(self.graph, op, step)
        except PlanError as error:
            raise PlanError(f"{op.name}: {error}") from None
        self.read(step.x, step.x_step, need.x, f"the input of {op.name}")
        if need.z is not None:
            self.read(step.z, step.z_step, need.z, f"the second input of {op.name}")
        elif not step.last and (step.z, step.z_step) != (0, 0):
            raise PlanError(f"{op.name}: a third place that nothing uses")
        if need.share is not None:
            self.partial(step, op, need, need.share)
            return
        y = self.piece(step.y, step.y_step, need.out, f"the output of {op.name}")
        made = step.y, step.y_step, need.out
        over_x = _meet(made, (step.x, step.x_step, need.x))
        if over_x and not (op.kind in IN_PLACE and (step.x, step.x_step) == made[:2]):
            raise PlanError(f"{op.name} writes over its input")
        if need.z is not None and _meet(made, (step.z, step.z_step, need.z)):
            raise PlanError(f"{op.name} writes over its second input")
        y[:] = self.expected(need.out)

    def partial(self, step: Step, op: Op, need: Needs, share: Share) -> None:
        """Adds to accumulators; the last part makes elements of them."""
        out = need.out
        sums = Part(
            out.tensor, out.pixel, out.pixels, out.of, out.channel, out.channels, SUM_BYTES
        )
        if step.y_step != out.channels:
            raise PlanError(f"{op.name}: accumulators {step.y_step} apart, not {out.channels}")
        y = self.piece(step.y, step.y_step, sums, f"the accumulators of {op.name}")
        x_place, y_place = (step.x, step.x_step, need.x), (step.y, step.y_step, sums)
        if _meet(x_place, y_place):
            raise PlanError(f"{op.name} adds into its input")
        # Which byte of which accumulator: as labels of an output of 4 bytes an element.
        which = self.expected(sums) - self.base[self.value[out.tensor]]
        if step.first:
            before = [_Sum(step.op, step.map_hw, (), 0)]
            places = np.zeros(y.shape, np.int64)
        else:
            got = -1 - y
            if (y >= 0).any() or ((got & 0xFFFFFFFF) != which).any():
                raise PlanError(f"{op.name}: its accumulators are not at {step.y}")
            numbers, inverse = np.unique(got >> 32, return_inverse=True)
            before = [self.sums[int(number)] for number in numbers]
            places = inverse.reshape(y.shape)
        after = [self.added(total, step, op, share) for total in before]
        if not step.last:
            first_new = len(self.sums)
            self.sums += after
            y[:] = -1 - ((first_new + places) << 32 | which)
            return
        for total in after:
            if total.count() != share.total:
                raise PlanError(
                    f"{op.name} finishes {total.count()} of {share.total} parts of its sums"
                )
        z = self.piece(step.z, step.z_step, out, f"the output of {op.name}")
        z_place = step.z, step.z_step, out
        if _meet(z_place, x_place):
            raise PlanError(f"{op.name} writes over its input")
        stays = (step.z, step.z_step) == (step.y, out.channels)
        if _meet(z_place, y_place) and not stays:
            raise PlanError(f"{op.name} finishes elements over other accumulators")
        y[:] = 0
        z[:] = self.expected(out)

    def added(self, total: _Sum, step: Step, op: Op, share: Share) -> _Sum:
        """A sum and one more part."""
        (a, b), (c, d) = share.rows, share.channels
        if (total.op, total.map_hw) != (step.op, step.map_hw):
            raise PlanError(f"{op.name}: its accumulators hold another sum")
        for e, f, g, h in total.cells:
            if a < f and e < b and c < h and g < d:
                raise PlanError(f"{op.name} adds rows {a}..{b}, channels {c}..{d} twice")
        is_float = self.graph.tensors[op.output].dtype is DType.FLOAT32
        if is_float and share.order[0] < total.end and op.name not in self.reordered:
            raise PlanError(f"{op.name} adds real numbers in another order than it does whole")
        cells = [*total.cells, (a, b, c, d)]
        if len(cells) > 1:  # parts in order are one part
            e, f, g, h = cells[-2]
            if (e, f, h) == (a, b, c):
                cells[-2:] = [(a, b, g, d)]
            elif (g, h, f) == (c, d, a):
                cells[-2:] = [(e, b, c, d)]
        return _Sum(total.op, total.map_hw, tuple(cells), max(total.end, share.order[1]))

    def finish(self) -> None:
        """What must be there is there, and not under the scratch; the arena is no larger."""
        scratch, size = self.plan.learner_scratch
        for name in self.stays:
            self.read_whole(name)
            at = self.plan.offsets[name]
            if at < scratch + size and scratch < at + self.sizes[name]:
                raise PlanError(f"the learner's scratch lies on {name}")
        if self.highest != self.plan.arena_bytes:
            raise PlanError(
                f"highest end is {self.highest}, arena_bytes says {self.plan.arena_bytes}"
            )


def _meet(a: tuple[int, int, Part], b: tuple[int, int, Part]) -> bool:
    """True where the spans of two pieces overlap, gaps included."""
    (start_a, end_a), (start_b, end_b) = (
        (start, start + ((part.pixels - 1) * step + part.channels) * part.size)
        for start, step, part in (a, b)
    )
    return start_a < end_b and start_b < end_a
