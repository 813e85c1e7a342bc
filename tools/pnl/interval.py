"""How wide the interval of a book's P&L is, given the user's shocks and what was judged of other factors' moves."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from finllm.tools.data.factors import UserShock
from finllm.tools.data.market import MarketStore
from finllm.tools.data.portfolio import Portfolio, value_portfolio
from finllm.tools.forecasts.conditioned import KEPT_SPREAD
from finllm.tools.pnl.bands import DRAWS, Residual, gaussian_draws, own_residuals, simulate
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.history import history
from finllm.tools.pnl.propagate import covariance_of, propagate
from finllm.tools.pnl.sensitivity import book_sensitivities
from finllm.tools.pnl.shocks import BOUNDS
from finllm.tools.pnl.sizes import direct_shocks


@dataclass(frozen=True)
class JudgedMove:
    """A factor's move as judged, in its own unit, with the measured probability (0 to 1) of the judgement."""

    move: float
    probability: float


def interval_widths(
    portfolio: Portfolio,
    market: MarketStore,
    as_of: dt.date,
    horizon: int,
    shocks: Sequence[UserShock],
    judged: Sequence[Mapping[str, JudgedMove]],
    *,
    level: float = 0.9,
    seed: int = 0,
) -> tuple[float, ...]:
    """Width of the P&L's interval, USD, once for each set of judgements: they differ in nothing else.

    All factors that the book loads on move, jointly normal about their means given the user's shocks; a judged one is
    the mixture of `conditioned.condition` in its own unit, so its spread is stretched by √(1 − p + p·κ² + p·(1−p)·(j −
    m)²/s²), κ = 0.75. Draws are the same for every set, so that widths compare. A factor without a history, or one that
    the user shocks, is not stretched. Reads nothing past `as_of`. Errors: as `engine.run_engine`.
    """
    book = value_portfolio(portfolio, market, as_of)
    known = FactorSet.default(market)
    sens = book_sensitivities(book, known, market, as_of, regressors=("EQUITY_US",))
    direct, _notes = direct_shocks(known, market, as_of, horizon, user=shocks)
    loaded = set(sens.arrays.loaded())
    spare = [name for name in direct if name not in loaded] if loaded & set(direct) else []
    past = history([known[name] for name in known.drivers if name in direct or name in loaded], market, as_of,
                   optional=spare)  # fmt: skip
    covariance = covariance_of(past, horizon)
    shocked = {name: one.move for name, one in direct.items()}
    given = propagate({name: move for name, move in shocked.items() if name in covariance.names}, covariance)
    free = gaussian_draws(given.residual, DRAWS, seed)
    daily, words = own_residuals(book, sens.regressions)
    widths: list[float] = []
    for calls in judged:
        means, draws = given.means.copy(), free.copy()
        for at, name in enumerate(given.others):
            if name in calls:
                means[at], stretch = _mixed(calls[name], float(means[at]), float(np.std(draws[:, at])))
                draws[:, at] *= stretch
            if known[name].unit == "return":
                draws[:, at] = np.maximum(draws[:, at], BOUNDS["return"][0] - means[at])
        moves = shocked | dict(zip(given.others, means.tolist(), strict=True))
        spread = np.zeros((DRAWS, len(sens.arrays.factors)))
        for at, name in enumerate(given.others):
            spread[:, sens.arrays.factors.index(name)] = draws[:, at]
        point = np.array([moves.get(name, 0.0) for name in sens.arrays.factors])
        band = simulate(sens.arrays, point, Residual(spread, daily, horizon, words), Decimal(0), level=level, seed=seed)
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
