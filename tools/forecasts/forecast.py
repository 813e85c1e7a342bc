"""Forecasts of a series over a horizon: the ensemble's change, and conformal intervals scaled by volatility."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.tools.data.factors import MoveUnit
from finllm.tools.data.market import Frequency, Observed, Series, day_of, span
from finllm.tools.forecasts.calibrations import Calibrations
from finllm.tools.forecasts.ensemble import LEVEL_MEMBERS, Calibration, Fitted, MemberName, fit, project

MIN_OBSERVATIONS = 60
HALTED = 10
"""Equal daily prices in a row, up to the last, after which an instrument counts as halted."""
GAP: dict[Frequency, int] = {"daily": 10, "weekly": 17, "monthly": 45, "quarterly": 130}
"""Calendar days between observations beyond which a note says that the move across them was taken for one step."""
DAYS: dict[Frequency, int] = {"daily": 1, "weekly": 5, "monthly": 21, "quarterly": 63}
"""Trading days that a step stands for."""
MEMORY = Calibrations()
"""Where calibrations are kept when no folder is given: for the life of the process."""


class Band(BaseModel):
    """The interval that holds the change with probability `level` (0.80 is 80 %), in the forecast's unit."""

    model_config = ConfigDict(frozen=True)

    level: float
    lower: float
    upper: float


class MemberForecast(BaseModel):
    """One model of the ensemble: the change it forecasts, in the forecast's unit, and its weight (0 to 1)."""

    model_config = ConfigDict(frozen=True)

    name: MemberName
    model: str
    weight: float
    point: float


class Forecast(BaseModel):
    """The cumulative change of a series from its last observation over `horizon` steps of `frequency`.

    `point` and `bands` in `unit`: a decimal return for a price, a change in level for bp, points and yields (in bp).
    `sigma` is the volatility of the change, in the unit, but of the log return for a price. `window` is what the models
    were fitted on; `last` the series' last day, and `stale` says that it is old. `notes` are the repairs.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    horizon: int
    steps: int
    unit: MoveUnit
    point: float
    bands: tuple[Band, ...]
    model: str
    window: str
    last: dt.date
    stale: bool
    members: tuple[MemberForecast, ...] = ()
    sigma: float | None = None
    notes: tuple[str, ...] = ()


def forecast(
    observed: Observed, horizon: int, level: Sequence[int] = (80, 95), calibrations: Calibrations | None = None
) -> Forecast:
    """The change over `horizon` trading days; see `forecasts`."""
    return forecasts(observed, (horizon,), level, calibrations)[horizon]


def forecasts(
    observed: Observed,
    horizons: Sequence[int],
    level: Sequence[int] = (80, 95),
    calibrations: Calibrations | None = None,
) -> dict[int, Forecast]:
    """The change over each horizon in trading days: statsforecast's models, weighted, with conformal intervals.

    On log prices or on levels. Weights, chosen orders and scores are of the last observation before the month of the
    last one (`calibrations` keeps them); the models go forward from there. An interval is point + volatility of the
    change × quantile of the signed scores, error over volatility, of held-out forecasts (Papadopoulos et al. 2002,
    normalised conformal). Where these are fewer than 40: no change, with the quantiles of the overlapping past
    changes. A weekly series takes round(horizon/5) steps, a monthly one round(horizon/21), a quarterly one
    round(horizon/63), at least one; `level` in whole percent, 1 to 99.
    Errors: InputError for fewer than 60 observations, a horizon as long as a third of the history, or values that are
    missing, out of order, not positive (a price) or halted.
    """
    if not horizons or any(one < 1 for one in horizons) or any(not 1 <= one <= 99 or one != int(one) for one in level):
        raise InputError(f"horizons {list(horizons)!r} at levels {list(level)!r} cannot be forecast",
                         fix="use horizons of at least one day, and whole levels from 1 to 99")  # fmt: skip
    series = observed.series
    notes = check_series(series)
    steps = {one: max(1, round(one / DAYS[series.frequency])) for one in horizons}
    values = series.values
    needed = max(MIN_OBSERVATIONS, 3 * max(steps.values()))
    if len(values) < needed:
        raise InputError(
            f"{series.name!r} has {len(values)} observations by {observed.as_of}, and a forecast over"
            f" {max(steps.values())} needs {needed}",
            fix="shorten the horizon, use a later 'as_of' or a longer series",
        )
    levels = to_levels(series)
    month = observed.last.replace(day=1)
    before = pd.DatetimeIndex(levels.index) < pd.Timestamp(month)
    known = pd.Series(levels[before]) if series.frequency == "daily" else levels
    kept = (calibrations or MEMORY).get(series.name, known, series.frequency, sorted(set(steps.values())))
    order = next((one.order for one in kept.values()), None)
    fitted = fit(known.to_numpy(), order, series.frequency) if order else None
    return {
        one: _calibrated(observed, one, levels, fitted, kept[steps[one]], level, notes)
        if fitted and steps[one] in kept
        else _short(observed, one, steps[one], levels, level, notes)
        for one in horizons
    }


def check_series(series: Series) -> tuple[str, ...]:
    """Refuse values that no forecast can be made of, and say which gaps were bridged."""
    values, index = series.values.to_numpy(dtype="float64"), pd.DatetimeIndex(series.values.index)
    if not (index.is_monotonic_increasing and index.is_unique):
        raise InputError(f"{series.name!r}: its days are out of order or appear twice", fix="sort them, each day once")
    if not np.isfinite(values).all():
        day = day_of(index[~np.isfinite(values)][0])
        raise InputError(f"{series.name!r} has no value on {day}", fix="drop or fill the missing days")
    if series.unit == "price" and (values <= 0).any():
        raise InputError(f"{series.name!r} is not positive on {day_of(index[values <= 0][0])}", fix="correct the price")
    tail = values[-HALTED - 1 :]
    if series.unit == "price" and series.frequency == "daily" and len(tail) > HALTED and (tail == tail[-1]).all():
        raise InputError(
            f"{series.name!r} has not moved for {HALTED} days up to {day_of(index[-1])}: halted or delisted",
            fix="leave it out, or use an 'as_of' before the halt",
        )
    days = np.diff(index.to_numpy()).astype("timedelta64[D]").astype(int)
    gaps = np.flatnonzero(days > GAP[series.frequency])
    return tuple(
        f"{series.name}: no observation between {day_of(index[at])} and {day_of(index[at + 1])};"
        " the move across was taken for one step"
        for at in gaps
    )


def to_levels(series: Series) -> pd.Series:
    """What the models see: log prices, yields in bp, or the values as they are."""
    if series.unit == "price":
        return pd.Series(np.log(series.values.to_numpy()), index=series.values.index)
    return series.values * (100.0 if series.unit == "percent" else 1.0)


def unit_of(series: Series) -> MoveUnit:
    return "return" if series.unit == "price" else "points" if series.unit == "points" else "bp"


def _calibrated(
    observed: Observed,
    horizon: int,
    levels: pd.Series,
    fitted: Fitted,
    calibration: Calibration,
    level: Sequence[int],
    notes: tuple[str, ...],
) -> Forecast:
    point, changes, sigma = project(levels.to_numpy(), fitted, calibration)
    members = tuple(
        MemberForecast(name=name, model=calibration.order.words(name), weight=calibration.weights[name],
                       point=_in_unit(float(change), observed.series))
        for name, change in zip(LEVEL_MEMBERS, changes, strict=True)
    )  # fmt: skip
    ends = {one: tuple(point + sigma * score for score in calibration.ends(one)) for one in level}
    weighted = " + ".join(f"{one.weight:.2f} {one.model}" for one in members if one.weight >= 0.005)
    return _made(
        observed, horizon, calibration.steps, point, ends, members=members, sigma=sigma, notes=notes,
        model=f"ensemble: {weighted}; conformal intervals scaled by {'EWMA and GARCH' if calibration.garch else 'EWMA'}"
        f" volatility, from {calibration.scored} held-out forecasts since {calibration.since}",
        window=span(pd.Series(levels[: pd.Timestamp(calibration.cut)]).iloc[fitted.start :].index),
    )  # fmt: skip


def _short(
    observed: Observed, horizon: int, steps: int, levels: pd.Series, level: Sequence[int], notes: tuple[str, ...]
) -> Forecast:
    values = levels.to_numpy()
    changes = values[steps:] - values[:-steps]
    ends = {
        one: tuple(float(np.quantile(changes, tail)) for tail in ((100 - one) / 200, (100 + one) / 200))
        for one in level
    }
    return _made(
        observed, horizon, steps, 0.0, ends, members=(), sigma=float(changes.std(ddof=1)), notes=notes,
        model="random walk with the quantiles of its overlapping past changes (too short for conformal intervals)",
        window=span(levels.index),
    )  # fmt: skip


def _made(
    observed: Observed,
    horizon: int,
    steps: int,
    point: float,
    ends: dict[int, tuple[float, ...]],
    *,
    members: tuple[MemberForecast, ...],
    sigma: float,
    notes: tuple[str, ...],
    model: str,
    window: str,
) -> Forecast:
    series = observed.series
    return Forecast(
        name=series.name, horizon=horizon, steps=steps, unit=unit_of(series), point=_in_unit(point, series),
        bands=tuple(
            Band(level=one / 100, lower=_in_unit(min(low, point), series), upper=_in_unit(max(high, point), series))
            for one, (low, high) in ends.items()
        ),
        model=model, window=window, last=observed.last, stale=observed.stale, members=members, sigma=sigma, notes=notes,
    )  # fmt: skip


def _in_unit(change: float, series: Series) -> float:
    return float(np.expm1(change)) if series.unit == "price" else change
