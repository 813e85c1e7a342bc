"""The smallest shock that loses X: a convex programme where the loss is one, else a local search from many starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from finllm.errors import InputError
from finllm.tools.pnl.propagate import Covariance

TOLERANCE = 1e-10
"""Of the interior-point solver, relative; and the eigenvalue below which a curvature counts as negative."""

Gains = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""P&L in USD of moves (K,), and its gradient (K,)."""
Watch = Callable[[int, int], None]
"""Told how many of how many starts were tried."""
MISSES = 1
"""Of the searches that do not lose X, how many are kept."""
STEPS = np.geomspace(0.25, 64, 33).reshape(3, 11)
"""How far along a ray a start is sought, in σ: eleven scenarios of every ray at once."""


@dataclass(frozen=True)
class Solution:
    """Moves (K,) in the factors' units; `distance` √(mᵀΣ⁻¹m); `price`: ∂(½·distance²)/∂X per USD, None if local."""

    moves: np.ndarray
    distance: float
    price: float | None


@dataclass(frozen=True)
class Local:
    """What a local search found: answers, the nearest first, and the moves (K,) of those that came nearest to losing X
    without doing so."""

    answers: list[Solution]
    misses: list[np.ndarray]


@dataclass(frozen=True)
class Problem:
    """min ½·mᵀΣ⁻¹m subject to g·m + ½·mᵀHm ≤ −loss, lower ≤ m ≤ upper and m = fixed, in the factors' units.

    `gradient` (K,) USD per unit, `hessian` (K, K), `lower` and `upper` (K,), infinite where there is no bound.
    """

    covariance: Covariance
    gradient: np.ndarray
    hessian: np.ndarray
    loss: float
    lower: np.ndarray
    upper: np.ndarray
    fixed: Mapping[str, float]

    @property
    def scale(self) -> np.ndarray:
        return np.sqrt(np.diag(self.covariance.matrix))

    @property
    def root(self) -> np.ndarray:
        """L with m = L·z and mᵀΣ⁻¹m = zᵀz, (K, K). Errors: InputError for a singular covariance."""
        correlation = self.covariance.matrix / np.outer(self.scale, self.scale)
        try:
            return self.scale[:, None] * np.linalg.cholesky(correlation)
        except np.linalg.LinAlgError as error:
            raise InputError("the covariance of the factors is singular, so a shock has no distance",
                             fix="leave out one of the factors that move together") from error  # fmt: skip

    @property
    def convex(self) -> bool:
        """Whether the P&L is convex in the moves (linear or long gamma), so that losing X is a convex set."""
        scaled = self.hessian * np.outer(self.scale, self.scale)
        size = float(np.abs(scaled).max(initial=0.0))
        return size == 0.0 or float(np.linalg.eigvalsh(scaled)[0]) >= -TOLERANCE * size


def solve_convex(problem: Problem) -> Solution | None:
    """The global minimum of a convex problem by Clarabel (interior point); None where nothing within bounds loses X.

    In z with m = L·z the distance is |z|, and ½|Bz|² ≤ t is the second-order cone |(Bz, t − ½)| ≤ t + ½. The solver is
    given z in the distance at which the slope alone loses X: its tolerances do not suit thousandths of a σ.
    """
    from scipy import sparse

    clarabel: Any = import_module("clarabel")  # it carries no types
    steep = float(np.linalg.norm(problem.root.T @ problem.gradient))
    unit = min(1.0, problem.loss / steep) if steep else 1.0
    root = problem.root * unit
    names = problem.covariance.names
    slope = root.T @ problem.gradient / problem.loss
    curve = root.T @ problem.hessian @ root / problem.loss
    rows: list[np.ndarray] = []
    right: list[float] = []
    cones: list[object] = []
    held = [names.index(name) for name in problem.fixed]
    for at in held:
        rows.append(root[at] / problem.scale[at])
        right.append(problem.fixed[names[at]] / problem.scale[at])
    if held:
        cones.append(clarabel.ZeroConeT(len(held)))
    bounded = 0
    for at in (one for one in range(len(names)) if one not in held):
        for bound, sign in ((problem.upper[at], 1.0), (problem.lower[at], -1.0)):
            if math.isfinite(bound):
                rows.append(sign * root[at] / problem.scale[at])
                right.append(sign * bound / problem.scale[at])
                bounded += 1
    linear = not np.abs(curve).max(initial=0.0) > 0
    half = np.zeros((0, len(names)))  # B (r, K)
    if linear:
        rows.append(slope)
        right.append(-1.0)
        bounded += 1
    if bounded:
        cones.append(clarabel.NonnegativeConeT(bounded))
    if not linear:
        values, vectors = np.linalg.eigh((curve + curve.T) / 2)
        kept = values > TOLERANCE * values.max()
        half = np.sqrt(values[kept])[:, None] * vectors[:, kept].T
        rows += [slope, *(-half), slope]
        right += [-0.5, *([0.0] * len(half)), -1.5]  # t = −1 − slope·z
        cones.append(clarabel.SecondOrderConeT(len(half) + 2))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = TOLERANCE
    solver = clarabel.DefaultSolver(
        sparse.csc_matrix(np.eye(len(names))), np.zeros(len(names)), sparse.csc_matrix(np.array(rows)),
        np.array(right), cones, settings,
    )  # fmt: skip
    answer = solver.solve()
    if str(answer.status) not in ("Solved", "AlmostSolved"):
        return None
    whitened, dual = np.array(answer.x), np.array(answer.z)
    price = dual[-1] if linear else dual[-1] + dual[-2 - len(half)]
    return Solution(root @ whitened, unit * float(np.linalg.norm(whitened)), unit**2 * float(price) / problem.loss)


def solve_quadratic(problem: Problem) -> Solution | None:
    """The smallest shock of a quadratic P&L of any curvature, without fixed factors, if it lies within the bounds.

    One quadratic constraint has no duality gap (S-lemma; Boyd and Vandenberghe 2004, appendix B.1): z(λ) solves
    z + λ(a + Hz) = 0 with I + λH positive definite, and λ is where the loss is met. None in the hard case, where the
    gradient vanishes along the most negative curvature, or where a bound is broken.
    """
    if problem.fixed:
        return None
    from scipy.optimize import brentq

    root = problem.root
    slope = root.T @ problem.gradient / problem.loss
    values, vectors = np.linalg.eigh(root.T @ problem.hessian @ root / problem.loss)
    turned = vectors.T @ slope

    def excess(price: float) -> float:
        z = -price * turned / (1.0 + price * values)
        return float(turned @ z + 0.5 * values @ z**2) + 1.0

    ceiling = -1.0 / values[0] if values[0] < 0 else 1e12
    high = ceiling * (1.0 - 1e-9)
    if not math.isfinite(excess(high)) or excess(high) > 0:
        return None
    price = brentq(excess, 0.0, high, xtol=1e-15 * ceiling)
    assert isinstance(price, float)
    whitened = vectors @ (-price * turned / (1.0 + price * values))
    moves = root @ whitened
    if (moves < problem.lower).any() or (moves > problem.upper).any():
        return None
    return Solution(moves, float(np.linalg.norm(whitened)), price / problem.loss)


def solve_local(
    problem: Problem,
    gains: Gains,
    starts: Sequence[np.ndarray],
    tolerance: float = 1e-12,
    watch: Watch | None = None,
    most: int = 200,
) -> Local:
    """Local minima under the full revaluation `gains`, from each start (K,) in the factors' units.

    Sequential quadratic programming (SLSQP) in whitened coordinates, at most so many iterations; repeats are dropped.
    `tolerance` on half the squared distance: a gradient from differences cannot meet the finest. No proof that any is
    the smallest.
    """
    from scipy.optimize import minimize

    root = problem.root
    names = problem.covariance.names
    free = [at for at, name in enumerate(names) if name not in problem.fixed]
    lower, upper = problem.lower / problem.scale, problem.upper / problem.scale
    low, high = ([at for at in free if math.isfinite(bound[at])] for bound in (lower, upper))
    held = [names.index(name) for name in problem.fixed]
    unit = root / problem.scale[:, None]
    target = np.array([problem.fixed[names[at]] / problem.scale[at] for at in held])

    def lost(z: np.ndarray) -> float:
        return -gains(root @ z)[0] / problem.loss - 1.0

    def slope(z: np.ndarray) -> np.ndarray:
        return -(root.T @ gains(root @ z)[1]) / problem.loss

    limits = [{"type": "ineq", "fun": lost, "jac": slope}]
    if held:
        limits.append({"type": "eq", "fun": lambda z: unit[held] @ z - target, "jac": lambda z: unit[held]})
    if low or high:
        sides = np.concatenate([unit[low], -unit[high]])
        ends = np.concatenate([lower[low], -upper[high]])
        limits.append({"type": "ineq", "fun": lambda z: sides @ z - ends, "jac": lambda z: sides})
    found: list[Solution] = []
    short: list[tuple[float, np.ndarray]] = []
    for tried, start in enumerate(starts):
        if watch:
            watch(tried, len(starts))
        answer = minimize(lambda z: 0.5 * float(z @ z), np.linalg.solve(root, start), jac=lambda z: z, method="SLSQP",
                          constraints=limits, options={"maxiter": most, "ftol": tolerance})  # fmt: skip
        one = Solution(root @ answer.x, float(np.linalg.norm(answer.x)), None)
        within = (one.moves >= problem.lower - 1e-6 * problem.scale) & (
            one.moves <= problem.upper + 1e-6 * problem.scale
        )
        if not within[free].all() or np.abs(unit[held] @ answer.x - target).max(initial=0.0) > 1e-6:
            continue
        missed = -lost(answer.x)
        if missed > 1e-6:
            short.append((missed, one.moves))
        elif all(_apart(one, other, root) for other in found):
            found.append(one)
    nearest = sorted(short, key=lambda pair: pair[0])[:MISSES]
    return Local(sorted(found, key=lambda one: one.distance), [moves for _, moves in nearest])


def starts_for(
    problem: Problem, gains: Gains, totals: Callable[[np.ndarray], np.ndarray], seed: int,
    extra: Sequence[np.ndarray] = (),
) -> list[np.ndarray]:  # fmt: skip
    """Starting moves that lose X where their ray does: steepest losses, axes of the covariance, seeded directions.

    `totals` gives the P&L (S,) of scenarios (S, K).
    """
    root = problem.root
    rays = [*extra, *(sign * column for column in root.T[:6] for sign in (1.0, -1.0))]
    steepest = -problem.covariance.matrix @ gains(np.zeros(len(root)))[1]
    rays.insert(0, steepest)
    rays += [root @ one for one in np.random.default_rng(seed).standard_normal((8, len(root)))]
    whole = np.array(rays)
    length = np.linalg.norm(np.linalg.solve(root, whole.T), axis=0)
    unit = whole[length > 0] / length[length > 0, None]  # (R, K)
    reach, open_ = np.full(len(unit), 3.0), np.arange(len(unit))
    for steps in STEPS:
        scenarios = (unit[open_, None, :] * steps[:, None]).reshape(-1, len(root))
        lost = -totals(scenarios).reshape(len(open_), len(steps)) >= problem.loss
        there = lost.any(axis=1)
        reach[open_[there]] = steps[lost.argmax(axis=1)[there]]
        open_ = open_[~there]
    return list(unit * reach[:, None])


def _apart(one: Solution, other: Solution, root: np.ndarray) -> bool:
    """Whether two answers point elsewhere: a cosine below 0.98 in whitened coordinates, or another distance."""
    first, second = np.linalg.solve(root, one.moves), np.linalg.solve(root, other.moves)
    cosine = float(first @ second) / max(1e-300, one.distance * other.distance)
    return cosine < 0.98
