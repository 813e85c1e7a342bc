"""Market signals: the index's volatility, drawdown and regime, the stress index, and each factor's recent state."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.tools.data.factors import FACTORS, Factor, FactorId, MoveUnit
from finllm.tools.data.market import INDEX, MarketStore
from finllm.tools.forecasts.regime import (
    YEAR,
    Regime,
    RegimeState,
    drawdown,
    regime,
    regime_state,
    volatility_percentile,
)
from finllm.tools.forecasts.stress_index import StressIndex, stress_index

RECENT = {"daily": 20, "weekly": 4, "monthly": 1, "quarterly": 1}
"""Observations over which a factor's recent change is taken."""
__all__ = ["FactorSignal", "MarketSignals", "drawdown", "market_signals", "realised_volatility", "regime",
           "series_of", "volatility_percentile"]  # fmt: skip


class FactorSignal(BaseModel):
    """A factor's state. `level` in the series' unit, `change` over 20 days (one month if monthly) in the factor's unit.

    `volatility`: annualised realised volatility, decimal, of a factor that moves by returns. `stale`: the series ended
    more than a week (or two months) before `as_of`.
    """

    model_config = ConfigDict(frozen=True)

    series: str
    level: float
    change: float
    unit: MoveUnit
    volatility: float | None
    last: dt.date
    age_days: int
    stale: bool


class MarketSignals(BaseModel):
    """What the market said at `as_of`. None stands for what is not visible then.

    `volatility` (annualised, decimal), its `percentile` in the visible history (0 to 1) and `drawdown` (decimal, from
    the peak of the last 252 days) are of the S&P 500, whose `regime` is by Markov switching and drawdown (`state` has
    the probabilities and the check for a break). `stress` is the PCA-APT index of the stocks, `stress_index` its value.
    """

    model_config = ConfigDict(frozen=True)

    as_of: dt.date
    regime: Regime | None
    volatility: float | None
    percentile: float | None
    drawdown: float | None
    factors: dict[FactorId, FactorSignal | None]
    notes: tuple[str, ...]
    state: RegimeState | None = None
    stress_index: float | None = None
    stress: StressIndex | None = None


def realised_volatility(prices: pd.Series, days: int = 20) -> float:
    """Standard deviation of the last `days` daily log returns, annualised by √252. InputError if there are fewer."""
    if len(prices) <= days:
        raise InputError(f"realised volatility over {days} days needs {days + 1} prices, and there are {len(prices)}",
                         fix="use a later 'as_of' or a longer series")  # fmt: skip
    return float(np.diff(np.log(prices.to_numpy()[-days - 1 :])).std(ddof=1) * math.sqrt(YEAR))


def series_of(market: MarketStore) -> list[str]:
    """The series that `market_signals` reads: those of the factors, the index, and the stocks of the stress index."""
    return [*(one.series for one in FACTORS.values() if one.series is not None), INDEX, *market.stock_names()]


def market_signals(market: MarketStore, as_of: dt.date) -> MarketSignals:
    """Every factor's state and the S&P 500's regime, from what was visible at `as_of`.

    A stale series keeps its last values, marked `stale` and named in `notes` with its age, but gives no regime.
    """
    factors: dict[FactorId, FactorSignal | None] = {
        id: _factor_signal(one, market, as_of) for id, one in FACTORS.items()
    }
    notes = [f"{name}: nothing is visible at {as_of}" for name, signal in factors.items() if signal is None]
    notes += [
        f"{name}: {signal.series} ended on {signal.last}, {signal.age_days} days before {as_of}"
        for name, signal in factors.items()
        if signal and signal.stale
    ]
    equity = factors["EQUITY_US"]
    prices = market.read(INDEX, as_of).values if equity and not equity.stale else pd.Series(dtype="float64")
    enough = len(prices) >= YEAR
    state = regime_state(prices) if enough else None
    try:
        stress = stress_index(market, as_of)
        notes += [f"stress index: {note}" for note in stress.notes]
    except InputError as error:
        stress = None
        notes.append(f"no stress index: {error.message}")
    return MarketSignals(
        as_of=as_of,
        regime=state.label if state else None,
        volatility=realised_volatility(prices) if enough else None,
        percentile=volatility_percentile(prices) if enough else None,
        drawdown=state.drawdown if state else None,
        factors=factors,
        notes=tuple(notes),
        state=state,
        stress_index=stress.value if stress else None,
        stress=stress,
    )


def _factor_signal(factor: Factor, market: MarketStore, as_of: dt.date) -> FactorSignal | None:
    if factor.series is None or factor.series not in market:
        return None
    try:
        seen = market.read(factor.series, as_of)
    except InputError:
        return None
    values, steps = seen.values, RECENT[seen.series.frequency]
    if len(values) <= steps:
        return None
    last, before = float(values.iloc[-1]), float(values.iloc[-1 - steps])
    returns = factor.unit == "return"
    return FactorSignal(
        series=factor.series, level=last, change=last / before - 1 if returns else last - before, unit=factor.unit,
        volatility=realised_volatility(values) if returns else None,
        last=seen.last, age_days=seen.age_days, stale=seen.stale,
    )  # fmt: skip
