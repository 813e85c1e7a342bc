"""Sensitivities: the beta of each equity, and the factor that every holding loads on, with how much."""

from __future__ import annotations

import datetime as dt
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.tools.data.factors import FactorId
from finllm.tools.data.market import MarketStore, day_of
from finllm.tools.data.portfolio import MIN_HISTORY, Book, Holding

INDEX = "SP500"
GOVERNMENT = ("government", "sovereign", "treasury")
"""Sectors of bonds that carry no credit spread."""


class Beta(BaseModel):
    """A beta to the S&P 500. `n` returns in `window`, or 0 where it was not estimated."""

    model_config = ConfigDict(frozen=True)

    value: float
    n: int
    window: str
    origin: Literal["regression", "user", "definition"]


class Exposure(BaseModel):
    """What a holding gains in USD when one factor moves by m, in the factor's unit: linear·m + ½·quadratic·m².

    `how` says it in words. The two factors of a bond share `quadratic`, also for their cross term.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    factor: FactorId
    linear: float
    quadratic: float = 0.0
    how: str


def daily_returns(market: MarketStore, name: str, as_of: dt.date, window: int) -> pd.DataFrame:
    """Simple daily returns of a series (`own`) and of the S&P 500 (`index`) on their last `window` shared days.

    Shape (n ≤ window, 2). A return spans two days that both have observed, so a day missing from one is bridged.
    """
    prices = pd.DataFrame({"own": market.read(name, as_of).values, "index": market.read(INDEX, as_of).values}).dropna()
    return prices.pct_change().iloc[1:].tail(window)


def estimate_betas(book: Book, market: MarketStore, as_of: dt.date, window: int = 504) -> dict[str, Beta]:
    """Beta of every equity and index holding: ordinary least squares with intercept on the S&P 500's daily returns.

    A beta given in the portfolio wins; the S&P 500 has 1 by definition. Errors: InputError if a holding has fewer than
    60 returns on shared days and no beta of its own (`value_portfolio` leaves such positions out).
    """
    return {
        holding.id: _beta(holding, market, as_of, window)
        for holding in book.holdings
        if holding.asset_class in ("equity", "index")
    }


def _beta(holding: Holding, market: MarketStore, as_of: dt.date, window: int) -> Beta:
    if holding.beta is not None:
        return Beta(value=holding.beta, n=0, window="given in the portfolio", origin="user")
    if holding.id == INDEX:
        return Beta(value=1.0, n=0, window="the index itself", origin="definition")
    returns = daily_returns(market, holding.id, as_of, window)
    if len(returns) < MIN_HISTORY - 1:
        raise InputError(
            f"{holding.id!r} has {len(returns)} returns on days shared with the S&P 500, too few for a beta",
            fix="give its beta in the portfolio",
        )
    own, index = returns["own"].to_numpy(), returns["index"].to_numpy()
    deviation = index - index.mean()
    return Beta(
        value=float(deviation @ own / (deviation @ deviation)),
        n=len(returns),
        window=span(returns.index),
        origin="regression",
    )


def exposures(book: Book, betas: dict[str, Beta]) -> tuple[Exposure, ...]:
    """What every holding loads on, in the order of the book. A `vega` adds VIX, in USD per point.

    Equities and indices: EQUITY_US by beta, and gamma on the index's own return. Bonds: RATE_US_10Y, and
    CREDIT_BAA_AAA unless the sector is one of `GOVERNMENT`, by duration and convexity. Commodities: OIL_WTI;
    fx: USD_BROAD; gold: GOLD, each by delta (1 unless given) and gamma. Volatility: VIX, by delta in USD per point and
    gamma in USD per point².
    """
    return tuple(one for holding in book.holdings for one in (*_exposures_of(holding, betas), *_vega_of(holding)))


def _vega_of(holding: Holding) -> tuple[Exposure, ...]:
    if not holding.vega or holding.asset_class in ("bond", "volatility"):
        return ()
    return (Exposure(id=holding.id, factor="VIX", linear=holding.vega, how=f"vega {holding.vega:g} USD per point"),)


def _exposures_of(holding: Holding, betas: dict[str, Beta]) -> tuple[Exposure, ...]:
    value, gamma = holding.market_value, holding.gamma or 0.0
    match holding.asset_class:
        case "equity" | "index":
            beta = betas[holding.id]
            how = f"beta {beta.value:.2f} ({beta.origin}, {beta.window})"
            curve = value * gamma
            return (Exposure(id=holding.id, factor="EQUITY_US", linear=value * beta.value, quadratic=curve, how=how),)
        case "bond":
            years, convexity = holding.duration or 0.0, holding.convexity or 0.0
            factors: tuple[FactorId, ...] = ("RATE_US_10Y", "CREDIT_BAA_AAA")
            if holding.sector.lower() in GOVERNMENT:
                factors = factors[:1]
            return tuple(
                Exposure(
                    id=holding.id, factor=factor, linear=-value * years / 1e4, quadratic=value * convexity / 1e8,
                    how=f"duration {years:g} years, convexity {convexity:g}",
                )
                for factor in factors
            )  # fmt: skip
        case "volatility":
            delta = holding.delta or 0.0
            how = f"{delta:g} USD per point"
            return (Exposure(id=holding.id, factor="VIX", linear=delta, quadratic=gamma, how=how),)
        case "commodity" | "fx" | "gold":
            by_class: dict[str, FactorId] = {"commodity": "OIL_WTI", "fx": "USD_BROAD", "gold": "GOLD"}
            delta = 1.0 if holding.delta is None else holding.delta
            how = f"delta {delta:g}" + (" (not given)" if holding.delta is None else "")
            factor = by_class[holding.asset_class]
            return (Exposure(id=holding.id, factor=factor, linear=value * delta, quadratic=value * gamma, how=how),)


def span(index: pd.Index) -> str:
    """A window in words: `2020-07-01 to 2022-06-30, 504 observations`."""
    return f"{day_of(index[0])} to {day_of(index[-1])}, {len(index)} observations"
