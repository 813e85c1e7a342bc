"""How wide the interval of a book's P&L is, given the user's shocks and what was judged of other factors' moves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from finllm.tools.forecasts.conditioned import KEPT_SPREAD
from finllm.tools.pnl.bands import DRAWS, Spread, gaussian_draws, simulate
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.left_open import draws_for, least_moves
from finllm.tools.pnl.propagate import propagate
from finllm.tools.pnl.shocks import BOUNDS, Plan

WIDTHS = 3_000_000
"""Positions × draws that a width revalues at most: widths are compared with each other, by the same draws."""


@dataclass(frozen=True)
class JudgedMove:
    """A factor's move as judged, in its own unit, with the measured probability (0 to 1) of the judgement."""

    move: float
    probability: float


def interval_widths(
    engine: Engine, plan: Plan, judged: Sequence[Mapping[str, JudgedMove]], *, level: float = 0.9, seed: int = 0
) -> tuple[float, ...]:
    """Width of the P&L's interval, USD, once for each set of judgements: they differ in nothing else.

    All factors that the book loads on move, jointly normal about their means given the plan's shocks, which are the
    user's; a judged one is the mixture of `conditioned.condition` in its own unit, so its spread is stretched by √(1 −
    p + p·κ² + p·(1−p)·(j − m)²/s²), κ = 0.75. Draws are the same for every set, so that widths compare. A factor
    without a history, or one that the user shocks, is not stretched. Errors: see `propagate`.
    """
    known, arrays = engine.view.factors, engine.arrays
    joint = engine.joint(plan)
    shocked = {name: one.move for name, one in plan.shocks.items()}
    inside = {name: move for name, move in shocked.items() if name in joint.names}
    given = propagate(inside, joint.near(inside)[0])
    draws_made = draws_for(arrays, DRAWS, WIDTHS) // 2 * 2  # in pairs
    free = gaussian_draws(given.residual, draws_made, seed)
    least = least_moves(engine.view, arrays.factors)
    widths: list[float] = []
    for at_set, calls in enumerate(judged):
        if (same := judged.index(calls)) < at_set:
            widths.append(widths[same])
            continue
        means, draws = given.means.copy(), free.copy()
        for at, name in enumerate(given.others):
            if name in calls:
                means[at], stretch = _mixed(calls[name], float(means[at]), float(np.std(draws[:, at])))
                draws[:, at] *= stretch
            if known[name].unit == "return":
                draws[:, at] = np.maximum(draws[:, at], BOUNDS["return"][0] - means[at])
        moves = shocked | dict(zip(given.others, means.tolist(), strict=True))
        spread = np.zeros((draws_made, len(arrays.factors)))
        for at, name in enumerate(given.others):
            spread[:, arrays.factors.index(name)] = draws[:, at]
        point = np.array([moves.get(name, 0.0) for name in arrays.factors])
        left = Spread({"other factors": spread}, engine.own, least, plan.days, draws_made, "as judged")
        band = simulate(arrays, point, left, Decimal(0), level=level, seed=seed)
        widths.append(float(band.upper - band.lower))
    return tuple(widths)


def _mixed(judged: JudgedMove, mean: float, spread: float) -> tuple[float, float]:
    """The mixture's mean, and its spread over the factor's own."""
    chance, apart = judged.probability, judged.move - mean
    if spread <= 0:
        return mean, 1.0
    variance = 1 - chance + chance * KEPT_SPREAD**2 + chance * (1 - chance) * (apart / spread) ** 2
    return mean + chance * apart, math.sqrt(variance)


def narrower(without: float, with_it: float) -> float:
    """ln(width without / width with): above 0 where the interval is narrower with it. 0 where one has no width."""
    return math.log(without / with_it) if without > 0 and with_it > 0 else 0.0
