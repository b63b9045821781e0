"""The layout as an integer program, solved by HiGHS: a better layout, or the proof of the best.

Variables: x_i, the offset of a store in multiples of its alignment; b_ij, whether i lies above j;
p, the peak, which is minimised. For each pair that is ever live together

    x_i - x_j >= apart[i][j] - M (1 - b_ij)      x_j - x_i >= apart[j][i] - M' b_ij

where M and M' are as small as "below the best layout known" allows; a pair that has one way round
only under that limit needs no b. One thread, a fixed seed, and a limit in nodes: results repeat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fieldloop.plan.apart import Offsets, Problem

if TYPE_CHECKING:
    from highspy import HighsLp

MAX_SOLVER_NODES = 1_000
MAX_PAIRS = 400  # beyond, the relaxation says little and takes long


@dataclass(slots=True)
class IntegerProgram:
    """Minimise one column over rows of lower bounds; every column is an integer."""

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    least: list[float] = field(default_factory=list)  # of each row
    starts: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)

    def column(self, lower: float, upper: float, cost: float = 0.0) -> int:
        """A new integer variable; its number."""
        self.lower.append(lower)
        self.upper.append(upper)
        self.cost.append(cost)
        return len(self.lower) - 1

    def at_least(self, least: float, terms: dict[int, float]) -> None:
        """Sum of value times column >= least."""
        self.least.append(least)
        self.starts.append(len(self.index))
        self.index += terms
        self.value += terms.values()

    def solve(self, max_nodes: int) -> tuple[list[float] | None, float]:
        """Values of the best solution found (None: none), and a lower bound of its cost: infinite
        where it is proven that there is no solution.
        """
        import highspy  # here: it loads slowly, and few layouts need it

        solver = highspy.Highs()  # type: ignore[no-untyped-call]
        for option, value in (
            ("output_flag", False),
            ("threads", 1),
            ("random_seed", 0),
            ("mip_max_nodes", max_nodes),
            ("mip_rel_gap", 0.0),
            ("mip_abs_gap", 0.999),  # costs are integers
        ):
            solver.setOptionValue(option, value)
        solver.passModel(self._model())
        solver.run()
        status = solver.getModelStatus()
        info = solver.getInfo()
        if status == highspy.HighsModelStatus.kInfeasible:
            return None, math.inf
        known = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
        values = list(solver.getSolution().col_value) if known else None
        if status == highspy.HighsModelStatus.kOptimal and values is not None:
            return values, float(info.objective_function_value)
        return values, float(info.mip_dual_bound)

    def _model(self) -> HighsLp:
        import highspy

        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = len(self.lower), len(self.least)
        model.col_cost_ = np.array(self.cost)
        model.col_lower_, model.col_upper_ = np.array(self.lower), np.array(self.upper)
        model.row_lower_ = np.array(self.least)
        model.row_upper_ = np.full(len(self.least), highspy.kHighsInf)
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = np.array([*self.starts, len(self.index)], np.int32)
        model.a_matrix_.index_ = np.array(self.index, np.int32)
        model.a_matrix_.value_ = np.array(self.value)
        model.integrality_ = [highspy.HighsVarType.kInteger] * len(self.lower)
        return model


def solve_layout(
    problem: Problem, best: Offsets, max_nodes: int = MAX_SOLVER_NODES
) -> tuple[Offsets, int]:
    """The best layout found, `best` to begin with, and a bound that no layout is below."""
    count = len(problem.tops)
    pairs = [(i, j) for i in range(count) for j in problem.rivals[i] if i < j]
    if len(pairs) > MAX_PAIRS:
        return best, problem.bound
    unit = math.gcd(
        *problem.alignments,
        *problem.tops,
        *(problem.apart[i][j] for i in range(count) for j in problem.rivals[i]),
    )
    known = problem.peak(best)
    limit = known // unit - 1  # only better layouts are of interest; in units from here on
    bound = -(-problem.bound // unit)
    if limit < bound:
        return best, known
    program = IntegerProgram()
    peak = program.column(bound, limit, 1.0)
    steps = [alignment // unit for alignment in problem.alignments]
    tops = [top // unit for top in problem.tops]
    x = [program.column(0, (limit - top) // k) for top, k in zip(tops, steps, strict=True)]
    for i in range(count):
        program.at_least(tops[i], {peak: 1.0, x[i]: -float(steps[i])})
    for i, j in pairs:
        _separate(program, problem, (x[i], x[j]), (i, j), limit, unit)
    values, least = program.solve(max_nodes)
    if least == math.inf:
        return best, known
    if values is not None:
        found = tuple(round(values[x[i]]) * steps[i] * unit for i in range(count))
        if problem.sound(found) and problem.peak(found) < known:
            best = found
    reached = max(bound, math.ceil(least - 1e-6)) if math.isfinite(least) else bound
    return best, min(problem.peak(best), reached * unit)


def _separate(
    program: IntegerProgram,
    problem: Problem,
    columns: tuple[int, int],
    pair: tuple[int, int],
    limit: int,
    unit: int,
) -> None:
    """Keeps a pair apart, one way round or the other."""
    (xi, xj), (i, j) = columns, pair
    ki, kj = problem.alignments[i] // unit, problem.alignments[j] // unit
    over, under = problem.apart[i][j] // unit, problem.apart[j][i] // unit
    # offsets lie in [0, limit - top]: the differences that can be at all
    most_over = limit - problem.tops[i] // unit
    most_under = limit - problem.tops[j] // unit
    if over > most_over:
        program.at_least(under, {xj: kj, xi: -ki})
    elif under > most_under:
        program.at_least(over, {xi: ki, xj: -kj})
    else:
        b = program.column(0, 1)
        slack_over, slack_under = max(0, over + most_under), max(0, under + most_over)
        program.at_least(over - slack_over, {xi: ki, xj: -kj, b: -slack_over})
        program.at_least(under, {xj: kj, xi: -ki, b: slack_under})
