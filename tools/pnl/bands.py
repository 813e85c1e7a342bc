"""Bands around a stressed P&L: the factors' residuals given the shocks, and the positions' own, both simulated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pandas as pd

from finllm.tools.data.books.book import Book
from finllm.tools.data.market import span
from finllm.tools.pnl.betas import Regression
from finllm.tools.pnl.kernel import Sensitivities, totals
from finllm.tools.pnl.outcome import Interval, usd

DRAWS = 4000
MIN_DAYS = 60


@dataclass(frozen=True)
class Residual:
    """What the shocks leave open.

    `factors` (n, K): draws of moves about their means, in the factors' units, over `horizon` trading days; `daily`
    (n_days,): the book's own daily P&L beyond its betas, USD.
    """

    factors: np.ndarray
    daily: np.ndarray
    horizon: int
    words: str


def gaussian_draws(covariance: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Draws (n, k) from N(0, Σ); Σ may be singular. Antithetic pairs make their mean exactly zero."""
    values, vectors = np.linalg.eigh(covariance) if covariance.size else (np.zeros(0), np.zeros((0, 0)))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    half = np.random.default_rng(seed).standard_normal((draws // 2, len(covariance))) @ root.T
    return np.concatenate([half, -half])


def own_residuals(book: Book, regressions: Mapping[str, Regression]) -> tuple[np.ndarray, str]:
    """The book's daily P&L beyond its betas, USD (n_days,), on the days that its regressed holdings share.

    Where they share fewer than 60 days, a name without one adds nothing on it, which is said.
    """
    found = {
        holding.id: holding.market_value * regressions[holding.series].residuals
        for holding in book.holdings
        if holding.series
        and holding.series in regressions
        and holding.beta is None
        and len(regressions[holding.series].residuals)
    }
    without = len(book.holdings) - len(found)
    apart = f"; {without} positions without a regression add none of their own" if without else ""
    if not found:
        return np.zeros(0), "no position has a regression: no risk of their own is drawn"
    table = pd.DataFrame(found)
    shared = table.dropna()
    if len(shared) >= MIN_DAYS:
        return shared.sum(axis="columns").to_numpy(), f"own risk on {span(shared.index)}{apart}"
    filled = table.fillna(0.0)
    words = f"own risk on {span(filled.index)}, none on the days that a position lacks{apart}"
    return filled.sum(axis="columns").to_numpy(), words


def own_sums(daily: np.ndarray, horizon: int, draws: int, seed: int) -> np.ndarray:
    """Draws (n,) of overlapping sums over the horizon; blocks take at most a quarter of the days, then √time."""
    if not len(daily):
        return np.zeros(draws)
    block = min(horizon, max(1, len(daily) // 4))
    sums = np.convolve(daily, np.ones(block), mode="valid") * math.sqrt(horizon / block)
    return np.random.default_rng(seed + 1).choice(sums - sums.mean(), size=draws)


def simulate(
    arrays: Sensitivities, moves: np.ndarray, residual: Residual, total: Decimal, *, level: float, seed: int
) -> Interval:
    """The interval that holds the P&L with probability `level` given the shocks, USD.

    Each draw adds the factors' residual moves, revalues the book in full, and adds the positions' own P&L; the ends are
    quantiles of the differences from the point, which always lies inside.
    """
    drawn = len(residual.factors)
    gains = np.zeros(drawn)
    if residual.factors.any():
        gains += totals(arrays, moves + residual.factors) - totals(arrays, moves[None, :])[0]
    gains += own_sums(residual.daily, residual.horizon, drawn, seed)
    low, high = np.quantile(gains, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        lower=total + usd(min(low, 0.0)), upper=total + usd(max(high, 0.0)), level=level,
        method=f"{level:.0%} of {drawn} draws, seed {seed}, given the shocks: {residual.words}",
    )  # fmt: skip
