# pyright: reportArgumentType=false
# scipy's stubs take a number where an array is meant.
"""The cheapest trades that keep sums of P&L above a floor: a mixed-integer linear programme, in two steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finllm.tools.pnl.risk import VAR_LEVEL

LONGEST = 20.0
"""s that one programme may take; then its best answer so far counts."""
GAP = 1e-6
ROUNDS = 8
"""How often the days that a VaR may leave out are chosen again."""
SLACK = 1e-6
"""Share of what is asked for that counts as reached."""


@dataclass(frozen=True)
class Costs:
    """What a lot of each of n instruments costs bought and sold, (n,), never negative, and how many of each side."""

    bought: np.ndarray
    sold: np.ndarray
    most_bought: np.ndarray
    most_sold: np.ndarray


@dataclass(frozen=True)
class Floor:
    """`base` + `each`·q ≥ −`limit`: the P&L of a scenario, of which a lot of each of n instruments adds `each` (n,)."""

    base: float
    each: np.ndarray
    limit: float


@dataclass(frozen=True)
class TailFloor:
    """Days: `base` (d,) is the book's P&L, `each` (d, n) a lot's; the VaR, or the ES, is to be at most `limit`."""

    base: np.ndarray
    each: np.ndarray
    limit: float
    shortfall: bool


@dataclass(frozen=True)
class Solved:
    """Lots of each instrument (n,), negative sold. `missing`: by how much the floors are missed in all, 0 where met."""

    lots: np.ndarray
    missing: float


def cheapest(costs: Costs, floors: Sequence[Floor], tails: Sequence[TailFloor]) -> Solved:
    """The cheapest whole lots that keep every floor; where none do, the cheapest of those that miss it by least.

    An ES is held exactly (Rockafellar and Uryasev 2002). A VaR may leave its worst days out: those of the answer so
    far, chosen again until that makes nothing cheaper, so that a cheaper answer may exist.
    """
    tail_days = [_left_out(one, np.zeros(len(costs.bought))) for one in tails]
    best: Solved | None = None
    for _ in range(ROUNDS if any(not one.shortfall for one in tails) else 1):
        found = _solve(costs, floors, tails, tail_days)
        missing = _missing(found, floors, tails)
        found = Solved(found.lots, missing)
        if best is not None and not _better(found, best, costs):
            break
        best = found
        tail_days = [_left_out(one, found.lots) for one in tails]
    assert best is not None
    return best


def cost_of(costs: Costs, lots: np.ndarray) -> float:
    return float(costs.bought @ np.maximum(lots, 0) + costs.sold @ np.maximum(-lots, 0))


def _better(one: Solved, other: Solved, costs: Costs) -> bool:
    scale = max(1.0, abs(other.missing))
    if abs(one.missing - other.missing) > SLACK * scale:
        return one.missing < other.missing
    return cost_of(costs, one.lots) < cost_of(costs, other.lots) * (1 - 1e-9)


def _left_out(tail: TailFloor, lots: np.ndarray) -> np.ndarray:
    """The days that lose more than a VaR: the worst floor((1 − level)·d) of them."""
    total = tail.base + tail.each @ lots
    beyond = (1 - VAR_LEVEL) * len(total)
    count = math.floor(beyond + 4 * np.finfo(float).eps * len(total))
    return np.argsort(total, kind="stable")[:count]


def _missing(found: Solved, floors: Sequence[Floor], tails: Sequence[TailFloor]) -> float:
    from finllm.tools.pnl.risk import expected_shortfall, value_at_risk

    over = [max(0.0, -(one.base + float(one.each @ found.lots)) - one.limit) for one in floors]
    for one in tails:
        measure = expected_shortfall if one.shortfall else value_at_risk
        over.append(max(0.0, measure(one.base + one.each @ found.lots) - one.limit))
    return math.fsum(over)


def _solve(costs: Costs, floors: Sequence[Floor], tails: Sequence[TailFloor], left_out: Sequence[np.ndarray]) -> Solved:
    """Variables: lots bought, lots sold, what is missed of each limit, then of each ES its VaR and the days beyond."""
    n, limits = len(costs.bought), len(floors) + len(tails)
    width = 2 * n + limits + sum(1 + len(one.base) for one in tails if one.shortfall)
    rows: list[np.ndarray] = []
    least: list[np.ndarray] = []
    for at, one in enumerate(floors):
        row = np.zeros(width)
        row[:n], row[n : 2 * n], row[2 * n + at] = one.each, -one.each, 1.0
        rows.append(row[None, :])
        least.append(np.array([-one.limit - one.base]))
    free = 2 * n + limits
    lower = np.zeros(width)
    for at, (one, out) in enumerate(zip(tails, left_out, strict=True), start=len(floors)):
        d = len(one.base)
        days = np.zeros((d, width))
        days[:, :n], days[:, n : 2 * n] = one.each, -one.each
        if not one.shortfall:
            days[:, 2 * n + at] = 1.0
            kept = np.setdiff1d(np.arange(d), out)
            rows.append(days[kept])
            least.append(-one.limit - one.base[kept])
            continue
        lower[free] = -np.inf
        days[:, free] = 1.0
        days[np.arange(d), free + 1 + np.arange(d)] = 1.0
        rows.append(days)
        least.append(-one.base)
        mean = np.zeros(width)
        mean[free], mean[free + 1 : free + 1 + d] = -1.0, -1.0 / ((1 - VAR_LEVEL) * d)
        mean[2 * n + at] = 1.0
        rows.append(mean[None, :])
        least.append(np.array([-one.limit]))
        free += 1 + d
    return _two_steps(costs, np.vstack(rows), np.concatenate(least), lower, limits)


def _two_steps(costs: Costs, matrix: np.ndarray, least: np.ndarray, lower: np.ndarray, limits: int) -> Solved:
    """First what is missed is made as small as it can be, then what it costs."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    n, width = len(costs.bought), matrix.shape[1]
    unit = max(1.0, float(np.abs(least).max(initial=0.0)))  # so that tolerances are shares of what is asked for
    upper = np.concatenate([costs.most_bought, costs.most_sold, np.full(width - 2 * n, np.inf)])
    scaled = matrix.copy()
    scaled[:, : 2 * n] /= unit
    whole = np.concatenate([np.ones(2 * n), np.zeros(width - 2 * n)])
    held = LinearConstraint(scaled, least / unit, np.inf)
    slack = np.zeros(width)
    slack[2 * n : 2 * n + limits] = 1.0
    bounds = Bounds(lower, upper)
    options = {"time_limit": LONGEST, "mip_rel_gap": GAP}
    first = milp(slack, constraints=[held], bounds=bounds, integrality=whole, options=options)
    if first.x is None:
        return Solved(np.zeros(n), math.inf)
    missed = float(slack @ first.x)
    price = np.concatenate([costs.bought, costs.sold, np.zeros(width - 2 * n)])
    price /= max(1e-12, float(price.max(initial=0.0)))
    within = LinearConstraint(slack[None, :], -np.inf, missed * (1 + SLACK) + 1e-9)
    second = milp(price, constraints=[held, within], bounds=bounds, integrality=whole, options=options)
    answer = first.x if second.x is None else second.x
    return Solved(np.round(answer[:n]) - np.round(answer[n : 2 * n]), missed * unit)
