"""Next week's realised volatility of a price: the ensemble on weekly log volatility, GARCH among its members."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.tools.data.market import Observed, day_of
from finllm.tools.forecasts.ensemble import (
    FIT,
    GRID,
    LEVEL_MEMBERS,
    MIN_SCORES,
    SCORED,
    MemberName,
    combine,
    fit,
    held_out,
    select,
)
from finllm.tools.forecasts.forecast import Band, MemberForecast, check_series
from finllm.tools.forecasts.volatility import fit_garch, garch_variance, log_returns, over_horizon, weekly_volatility

MEMBERS: tuple[MemberName, ...] = (*LEVEL_MEMBERS, "GARCH")
WEEK = 5


class VolatilityForecast(BaseModel):
    """Realised volatility, annualised and decimal, of the calendar week after `last_week`."""

    model_config = ConfigDict(frozen=True)

    name: str
    last_week: dt.date
    point: float
    bands: tuple[Band, ...]
    members: tuple[MemberForecast, ...]
    model: str


@dataclass(frozen=True)
class PastVolatility:
    """Held-out forecasts of weekly log volatility: origins `at` in `weeks`, `forecasts` (n, n_members) of the next."""

    weeks: pd.Series
    at: np.ndarray
    forecasts: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """Of the week after each origin, shape (n, n_members)."""
        return self.weeks.to_numpy()[self.at + 1][:, None] - self.forecasts


def past_volatility(prices: pd.Series, weeks_scored: int = SCORED["weekly"]) -> PastVolatility:
    """Forecasts of each of the last weeks by members fitted before its calendar year."""
    weeks = weekly_volatility(prices)
    values, years = weeks.to_numpy(), np.array([day_of(stamp).year for stamp in weeks.index])
    past = held_out(weeks, "weekly", (1,), scored=weeks_scored)
    garch = np.empty(len(past.at))
    returns = log_returns(prices)
    for year in np.unique(years[past.at + 1]):
        inside = years[past.at + 1] == year
        garch[inside] = _garch_weeks(returns, weeks, int(np.searchsorted(years, year)))[past.at[inside]]
    return PastVolatility(weeks, past.at, np.column_stack([values[past.at, None] + past.changes[:, 0], garch]))


def _garch_weeks(returns: pd.Series, weeks: pd.Series, first: int) -> np.ndarray:
    """GARCH's forecast of the week after each, on the parameters known before week `first`, without its past bias."""
    after = np.searchsorted(returns.index.to_numpy(), weeks.index.to_numpy(), side="right")
    values = returns.to_numpy()
    garch = fit_garch(values[: after[first - 1]])
    expected = over_horizon(garch_variance(values, garch), garch, WEEK)[after]
    logs = 0.5 * np.log(252 / WEEK * expected)
    since = max(1, first - FIT["weekly"])
    bias = np.mean(weeks.to_numpy()[since:first] - logs[since - 1 : first - 1])
    return logs + bias


def forecast_volatility(observed: Observed, level: tuple[int, ...] = (80, 95)) -> VolatilityForecast:
    """Volatility of the week after the last complete one, by weights and scores of the last five years.

    A point is the exponential of the combined log forecast: a median. Errors: InputError for less than two years, or
    fewer than 40 held-out weeks, and as `forecast`.
    """
    series = observed.series
    check_series(series)
    if series.unit != "price" or series.frequency != "daily":
        raise InputError(f"{series.name!r} has no weekly volatility", fix="use a series of daily prices")
    past = past_volatility(series.values)
    errors = past.errors
    if len(errors) < MIN_SCORES:
        raise InputError(
            f"{series.name!r} has {len(errors)} held-out weeks by {observed.as_of}, and a forecast needs {MIN_SCORES}",
            fix="use a later 'as_of' or a longer series",
        )
    weights = combine(errors)
    values = past.weeks.to_numpy()
    order, _ = select(values[-FIT["weekly"] :])
    levels = values[-1] + fit(values, order, "weekly").changes(values, (1,))[0]
    points = np.append(levels, _garch_weeks(log_returns(series.values), past.weeks, len(values))[-1])
    point = float(points @ weights)
    scores = np.quantile(errors @ weights, GRID, method="weibull")
    return VolatilityForecast(
        name=series.name, last_week=day_of(past.weeks.index[-1]), point=float(np.exp(point)),
        bands=tuple(
            Band(level=one / 100, lower=float(np.exp(point + scores[99 - one])),
                 upper=float(np.exp(point + scores[99 + one])))
            for one in level
        ),
        members=tuple(
            MemberForecast(name=name, model=order.words(name), weight=float(weight), point=float(np.exp(own)))
            for name, weight, own in zip(MEMBERS, weights, points, strict=True)
        ),
        model=f"ensemble on weekly log volatility; conformal intervals from {len(errors)} held-out weeks",
    )  # fmt: skip
