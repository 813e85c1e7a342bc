"""What a plan leaves open, put together for its band; and the P&L with its band on each day up to the horizon."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import numpy as np

from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.factors import GIVEN
from finllm.tools.pnl.ageing import Aged
from finllm.tools.pnl.attribution import total_of
from finllm.tools.pnl.bands import RUN_DAYS, RUNS_UNTESTED, Spread, ends
from finllm.tools.pnl.completion import Completion
from finllm.tools.pnl.joint import Joint
from finllm.tools.pnl.kernel import Sensitivities
from finllm.tools.pnl.outcome import BandPart, HorizonRow, Interval, usd
from finllm.tools.pnl.own_risk import OwnRisk
from finllm.tools.pnl.readings import HEEDED, ReadFactor, draw_readings, least_moves, sigma_of
from finllm.tools.pnl.shocks import Plan
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


def left_open(
    view: FactorView, arrays: Sensitivities, plan: Plan, completion: Completion, joint: Joint, own: OwnRisk, *,
    reads: Sequence[ReadFactor] = (), on: bool, still: Sequence[str] = (), draws: int, seed: int, untested: str = "",
) -> Spread:  # fmt: skip
    """All that may come otherwise than the point: what was read, how far it goes, what nobody shocked, and the own.

    Shocks that are given (by a person, or by history) stay; where nothing was read, that is the only reading there is,
    which the words say. Factors without a history that the book loads on move by their reviewed σ alone, unless they
    are held or `still`. Unless `on`, a factor without a shock stands still but for the draws in which it is read to
    move.
    """
    column = {name: at for at, name in enumerate(arrays.factors)}
    used = set(arrays.loaded()) | set(plan.shocks)
    reads = [one for one in reads if one.factor in used]
    factors: dict[BandPart, np.ndarray] = {}
    given = {name: one.move for name, one in plan.shocks.items() if one.origin in GIVEN}
    if reads:
        near, held = completion.near_covariance, frozenset[str]()
        if not on:
            held = frozenset(view.factors.drivers) - plan.shocks.keys()
        shocked = given | {name: one.move for name, one in plan.shocks.items()
                           if name not in {read.factor for read in reads}}  # fmt: skip
        drawn = draw_readings(view, joint, near, shocked, reads, draws=draws, seed=seed,
                              held=held)  # fmt: skip
        point = np.array([completion.moves.get(name, 0.0) for name in arrays.factors])
        factors["other readings"] = drawn.called - point
        factors["sizes"] = drawn.sized - drawn.called
        factors["other factors"] = drawn.whole - drawn.sized
        read = [one.factor for one in reads]
        free = ", ".join(one for one in drawn.factors if one not in read) or "no other factor"
        words = (
            f"readings of {', '.join(read)} by their probability, of which the market heeds {HEEDED:.0%} beyond chance,"
            f" and their sizes; {free}, and what is not heeded, by covariance"
        )
        return Spread(factors, own, least_moves(view, arrays.factors), plan.days, draws, words,
                      untested or ("" if RUN_DAYS[0] <= plan.days <= RUN_DAYS[1] else RUNS_UNTESTED))  # fmt: skip
    rest = np.zeros((draws, len(arrays.factors)))
    for at, name in enumerate(completion.others):
        rest[:, column[name]] = completion.draws[:, at]
    alone = [name for name in joint.missing if on and name in used and name not in plan.shocks and name not in still
             and sigma_of(view, name, plan.days) > 0]  # fmt: skip
    rng = np.random.default_rng(seed + 3)
    for name in alone:
        half = rng.standard_normal((draws + 1) // 2) * sigma_of(view, name, plan.days)
        rest[:, column[name]] = np.column_stack([half, -half]).ravel()[:draws]
    factors["other factors"] = rest
    words = ("given the shocks, of which no other reading is drawn: " if plan.shocks else "") + completion.words
    words += f"; {', '.join(alone)} {ALONE}" if alone else ""
    return Spread(factors, own, least_moves(view, arrays.factors), plan.days, draws, words, untested)


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
