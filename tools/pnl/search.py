"""The search behind reverse stress: the convex programme where it holds, else local answers of the book revalued."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finllm.tools.pnl.episodes import EPISODES
from finllm.tools.pnl.kernel import Sensitivities, totals
from finllm.tools.pnl.outcome import Method
from finllm.tools.pnl.propagate import Covariance
from finllm.tools.pnl.shocks import replayed
from finllm.tools.pnl.sizes import FactorView
from finllm.tools.pnl.solve import (
    Gains,
    Problem,
    Solution,
    Watch,
    solve_convex,
    solve_local,
    solve_quadratic,
    starts_for,
)

SHORTFALL = 1e-6
"""Share of the target by which a full revaluation may fall short of it, for rounding."""
CONTRACT_TOLERANCE = 1e-9
"""Of local answers with contracts, whose slopes are differences of their revaluation."""
SPARE = 3
"""The nearest answers of a book with European options, so many more than are wanted, are where that with American ones
is searched from."""
POLISH_STEPS = 50
"""Iterations of each such search: ten do, where there is an answer."""
FARTHER = 1.3
"""Where none of them leads anywhere, by how much farther away the nearest is searched from again."""
MOST_STEPS = 30
"""Of the convex programme, where the P&L is convex and no quadratic."""


def solve(
    problem: Problem, arrays: Sensitivities, view: FactorView, seed: int, wanted: int, watch: Watch | None
) -> tuple[list[Solution], Method]:
    """The convex answer where it holds under full revaluation, else up to `wanted` local ones, the nearest first."""
    gains = _Gains(arrays, problem.covariance)
    contracts = arrays.contracts
    if problem.convex and (contracts is None or contracts.convex):
        solution = solve_convex(problem)
        if solution is not None and (contracts or arrays.felt):
            solution = _refined(problem, arrays, gains, solution)
        if solution is None:
            return [], "convex"
        smallest = _smallest(problem, arrays, solution)
        if smallest and -gains(solution.moves)[0] >= problem.loss * (1 - SHORTFALL):
            return [solution], "convex"
    quadratic = solve_quadratic(problem)
    if contracts or arrays.felt:
        return _with_contracts(problem, arrays, gains, view, seed, wanted, quadratic, watch)[:wanted], "local"
    starts = starts_for(problem, gains, gains.totals, seed, _past(problem.covariance, view))
    if quadratic is None or -gains(quadratic.moves)[0] < problem.loss * (1 - SHORTFALL):
        return solve_local(problem, gains, starts, watch=watch).answers[:wanted], "local"
    if wanted == 1:
        return [quadratic], "local"
    others = solve_local(problem, gains, [quadratic.moves, *starts], watch=watch).answers
    return others[:wanted] or [quadratic], "local"


def _with_contracts(
    problem: Problem, arrays: Sensitivities, gains: _Gains, view: FactorView, seed: int, wanted: int,
    quadratic: Solution | None, watch: Watch | None,
) -> list[Solution]:  # fmt: skip
    """Local answers of a book with contracts or damped loads.

    American options are first taken as European, whose prices cost a hundredth: the answers of that book are where the
    search of the whole one starts, or what comes nearest where it has none.
    """
    near = [quadratic.moves] if quadratic else []
    past = _past(problem.covariance, view)
    if arrays.contracts is None or not arrays.contracts.american:
        starts = [*near, *starts_for(problem, gains, gains.totals, seed, past)]
        return solve_local(problem, gains, starts, CONTRACT_TOLERANCE, watch).answers
    quick = _Gains(replace(arrays, contracts=arrays.contracts.european()), problem.covariance)
    starts = [*near, *starts_for(problem, quick, quick.totals, seed, past)]
    rough = solve_local(problem, quick, starts, CONTRACT_TOLERANCE, watch)
    near = [one.moves for one in rough.answers[: wanted + SPARE]]
    found = solve_local(problem, gains, near, CONTRACT_TOLERANCE, watch, POLISH_STEPS).answers
    if found:
        return found
    farther = [*(FARTHER * one for one in near[:1]), *rough.misses]
    return solve_local(problem, gains, farther, CONTRACT_TOLERANCE, watch, POLISH_STEPS).answers


def _refined(problem: Problem, arrays: Sensitivities, gains: Gains, solution: Solution) -> Solution | None:
    """The answer of a convex P&L that is no quadratic: the programme again at its own slope and curvature, until it
    loses the target. None where a step finds nothing within the bounds."""
    at = [arrays.factors.index(name) for name in problem.covariance.names]
    for _ in range(MOST_STEPS):
        moves = solution.moves
        gain, slope = gains(moves)
        if abs(gain + problem.loss) <= 0.01 * SHORTFALL * problem.loss:
            break
        curve = arrays.hessian(whole(arrays, problem.covariance, moves))[np.ix_(at, at)]
        loss = problem.loss + gain - slope @ moves + 0.5 * moves @ curve @ moves
        if not loss > 0:
            break
        found = solve_convex(replace(problem, gradient=slope - curve @ moves, hessian=curve, loss=float(loss)))
        if found is None:
            return None
        solution = found
    return solution


def _smallest(problem: Problem, arrays: Sensitivities, solution: Solution) -> bool:
    """Whether an answer is the smallest although what shares feel of a factor is damped.

    What is felt of a fall by one who loses by it is convex in the move, and the rest of the book is. On the other side
    the share gains: with that gain left out the programme is convex again, and no answer there may be nearer.
    """
    names = problem.covariance.names
    net = arrays.linear[:, len(arrays.factors) :].sum(axis=0)
    curved = arrays.direction[arrays.curved][:, len(arrays.factors) :].any()
    left = {arrays.factors[at]: float(load) for at, load in zip(arrays.felt, net, strict=True)}
    left = {name: load for name, load in left.items() if name in names and name not in problem.fixed and load}
    if curved or len(left) > 1:
        return False
    for name, load in left.items():
        at = names.index(name)
        if load * solution.moves[at] > 0:
            return False
        gradient, lower, upper = problem.gradient.copy(), problem.lower.copy(), problem.upper.copy()
        gradient[at] -= load
        (lower if load > 0 else upper)[at] = 0.0
        other = solve_convex(replace(problem, gradient=gradient, lower=lower, upper=upper))
        return other is None or other.distance >= solution.distance * (1 - SHORTFALL)
    return True


class _Gains:
    """Full revaluation of the book: P&L, and its gradient where no floor holds. What was asked last is kept, since a
    search asks for both one after the other."""

    def __init__(self, arrays: Sensitivities, covariance: Covariance) -> None:
        self._arrays = arrays
        self._at = [arrays.factors.index(name) for name in covariance.names]
        self._asked: np.ndarray | None = None
        self._answer = 0.0, np.zeros(0)

    def __call__(self, moves: np.ndarray) -> tuple[float, np.ndarray]:
        if self._asked is None or not np.array_equal(moves, self._asked):
            full = self._whole(moves[None, :])
            self._answer = float(totals(self._arrays, full)[0]), self._arrays.gradient(full[0])[self._at]
            self._asked = moves.copy()
        return self._answer

    def totals(self, moves: np.ndarray) -> np.ndarray:
        """P&L (S,) of scenarios (S, K)."""
        return totals(self._arrays, self._whole(moves))

    def _whole(self, moves: np.ndarray) -> np.ndarray:
        full = np.zeros((len(moves), len(self._arrays.factors)))
        full[:, self._at] = moves
        return full


def whole(arrays: Sensitivities, covariance: Covariance, moves: np.ndarray) -> np.ndarray:
    full = np.zeros(len(arrays.factors))
    full[[arrays.factors.index(name) for name in covariance.names]] = moves
    return full


def _past(covariance: Covariance, view: FactorView) -> list[np.ndarray]:
    """The moves of the episodes over by `as_of`, as directions to start from."""
    found: list[np.ndarray] = []
    for one in EPISODES.values():
        if one.end <= view.as_of:
            moves = {shock.factor: shock.move for shock in replayed(view, (one.start, one.end))[0]}
            found.append(np.array([moves.get(name, 0.0) for name in covariance.names]))
    return [one for one in found if one.any()]
