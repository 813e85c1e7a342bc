"""What a plan leaves open, put together for its band; and the P&L with its band on each day up to the horizon."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal

import numpy as np

from finllm.tools.data.books.book import Book, Holding
from finllm.tools.pnl.ageing import Aged
from finllm.tools.pnl.attribution import total_of
from finllm.tools.pnl.bands import Spread, ends
from finllm.tools.pnl.completion import Completion
from finllm.tools.pnl.joint import Joint
from finllm.tools.pnl.kernel import Sensitivities
from finllm.tools.pnl.outcome import HorizonRow, Interval, usd
from finllm.tools.pnl.own_risk import OwnRisk
from finllm.tools.pnl.shocks import BOUNDS, Plan
from finllm.tools.pnl.sizes import FactorView

HORIZONS = (1, 5, 10, 20, 60, 120, 250)
"""Rows of the table by horizon, trading days: those up to the scenario's, and its own."""
MOST_REVALUED, LEAST_DRAWS = 25_000_000, 500
"""Positions × draws that a band revalues at most, and the draws below which it does not go: of 50,000 positions."""
FEWER, ON_PATH = 4, 500
"""Every how many of these draws the bands of shorter horizons take at least, and how many at most."""
MOST_ON_PATH = 1_500_000
"""Positions × draws × days above which a path has the days of `HORIZONS` alone."""
ALONE = "drawn by itself, by its reviewed σ: it has no history"


def draws_for(arrays: Sensitivities, most: int, revalued: int = MOST_REVALUED) -> int:
    """How many draws: `most`, but no more than revalue `revalued` positions in all."""
    return min(most, max(LEAST_DRAWS, revalued // max(1, len(arrays.positions))))


def beside(
    plan: Plan, made: Callable[..., Completion], names: Collection[str], still: Sequence[str], *, on: bool
) -> Completion:  # fmt: skip
    """The market beside what was read: `made` of the shocks that are given, near those that were read.

    No factor of `names` but the `still` ones stands still, whatever the text is silent of; unless `on`, those that were
    read move alone.
    """
    fixed = still if on else [name for name in names if name not in plan.read]
    return made(plan.given, on=on or bool(plan.read), still=fixed, read=plan.read)


def left_open(
    view: FactorView, arrays: Sensitivities, plan: Plan, completion: Completion, market: Completion, joint: Joint,
    own: OwnRisk, *, on: bool, still: Sequence[str] = (), draws: int, seed: int, untested: str = "",
) -> Spread:  # fmt: skip
    """All that may come otherwise than the point: what nobody set, and the positions' own.

    Shocks that are given (by a person, or by history) stay. Of those that were read the `market`, completed without
    them, knows nothing: over the dated episodes of docs/numbers.md the index went as it was read no more often than a
    coin falls. Factors without a history that the book loads on move by their reviewed σ alone, unless they are `still`
    or not `on`.
    """
    read = plan.read
    column = {name: at for at, name in enumerate(arrays.factors)}
    rest = np.zeros((draws, len(arrays.factors)))
    for name in completion.moves.keys() | market.moves:
        rest[:, column[name]] = market.moves.get(name, 0.0) - completion.moves.get(name, 0.0)
    for at, name in enumerate(market.others):
        rest[:, column[name]] += market.draws[:, at]
    used = set(arrays.loaded()) | set(read)
    alone = [name for name in joint.missing if name in used and (name in read or (on and name not in plan.shocks))
             and name not in still and sigma_of(view, name, plan.days) > 0]  # fmt: skip
    rng = np.random.default_rng(seed + 3)
    for name in alone:
        half = rng.standard_normal((draws + 1) // 2) * sigma_of(view, name, plan.days)
        rest[:, column[name]] += np.column_stack([half, -half]).ravel()[:draws]
    words = "given the shocks, of which no other reading is drawn: " if plan.given else ""
    words += f"whatever is read of {', '.join(read)}, which the market heeds by chance alone: " if read else ""
    words += market.words + (f"; {', '.join(alone)} {ALONE}" if alone else "")
    return Spread({"other factors": rest}, own, least_moves(view, arrays.factors), plan.days, draws, words, untested)


def over_time(
    view: FactorView, at: Callable[[int], Aged], book: Book, moves: np.ndarray, spread: Spread, total: Decimal,
    interval: Interval | None, realised: Mapping[str, float], seed: int,
) -> tuple[HorizonRow, ...]:  # fmt: skip
    """The P&L after each day up to the horizon, with its band, were the story to stop there at the same size in σ.

    Each factor's moves, and what is drawn about them, are those over the horizon times its σ over so many days over
    that over the horizon (between the `HORIZONS` along a power of time); own returns go with √time, own risk by its
    volatility day by day. `at`: the book after so many days. A large book has the `HORIZONS` alone.
    """
    every = max(FEWER, spread.draws // ON_PATH)
    cells = len(book.holdings) * (spread.draws // every) * spread.horizon
    days = range(1, spread.horizon) if cells <= MOST_ON_PATH else [one for one in HORIZONS if one < spread.horizon]
    growth = _growth(view, at(spread.horizon).arrays.factors, spread.horizon)
    rows: list[HorizonRow] = []
    for day in days:
        scale, there = growth[day - 1], at(day)
        own = {name: gain * math.sqrt(day / spread.horizon) for name, gain in realised.items()}
        whole = total_of(there.arrays, book.holdings, moves * scale, own, there.time)
        low = high = None
        if interval:
            below, above = ends(there.arrays, moves * scale, spread.scaled(scale, day, every), level=interval.level,
                                seed=seed)  # fmt: skip
            low, high = whole + usd(below), whole + usd(above)
        rows.append(HorizonRow(horizon=day, total=whole, lower=low, upper=high))
    last = HorizonRow(horizon=spread.horizon, total=total, lower=interval.lower if interval else None,
                      upper=interval.upper if interval else None)  # fmt: skip
    return (*rows, last)


def at_horizons(path: Sequence[HorizonRow]) -> tuple[HorizonRow, ...]:
    """The rows of the table: those of the path at the `HORIZONS`, and its last."""
    return (*(row for row in path[:-1] if row.horizon in HORIZONS), path[-1])


def _growth(view: FactorView, names: Sequence[str], horizon: int) -> np.ndarray:
    """σ of each factor's moves over 1, 2, … days over that of its moves over `horizon`, (horizon, K)."""
    knots = [*(one for one in HORIZONS if one < horizon), horizon]
    days = np.arange(1, horizon + 1)
    found = np.empty((horizon, len(names)))
    for at, name in enumerate(names):
        sizes = [sigma_of(view, name, one) for one in knots]
        if min(sizes) > 0:
            found[:, at] = np.exp(np.interp(np.log(days), np.log(knots), np.log(np.array(sizes) / sizes[-1])))
        else:
            found[:, at] = np.sqrt(days / horizon)
    return found


def covered_share(book: Book, own: OwnRisk) -> float:
    """The share of the book's gross value that are shares whose own risk is drawn, in dollars."""
    whole = sum(one.counts_for for one in book.holdings)
    mine = sum(one.counts_for for one in book.holdings if _is_share(one)) if own.known else 0.0
    return mine / whole if whole else 0.0


def _is_share(holding: Holding) -> bool:
    return holding.asset_class in ("equity", "index") and bool(holding.series) and holding.beta is None \
        and not (holding.gamma or holding.vega) and holding.fx_factor is None  # fmt: skip


def sigma_of(view: FactorView, name: str, horizon: int) -> float:
    """σ over the horizon, in the factor's unit; 0 where none is known."""
    found = view.size(name, horizon).sigma
    return found.value if found else 0.0


def least_moves(view: FactorView, ids: Sequence[str]) -> np.ndarray:
    """How far down each factor can go, (K,)."""
    return np.array([max(BOUNDS[view.factors[name].unit][0], view.least_move(name)[0]) for name in ids])
