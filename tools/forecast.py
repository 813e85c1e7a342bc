"""Forecasts of a series over a horizon, with intervals, by statsforecast."""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.tools.exposure import span
from finllm.tools.factors import MoveUnit
from finllm.tools.market import Observed

MIN_OBSERVATIONS = 60
MIN_TRAIN = 252
MAX_WINDOWS = 32
"""Held-out windows behind a conformal interval: more cost time, fewer leave its tail empty."""
MIN_WINDOWS = 20
"""With fewer errors than this, the 95 % interval would be their largest: the simpler model is used."""


class Band(BaseModel):
    """The interval that holds the change with probability `level` (0.80 is 80 %), in the forecast's unit."""

    model_config = ConfigDict(frozen=True)

    level: float
    lower: float
    upper: float


class Forecast(BaseModel):
    """The cumulative change of a series from its last observation over `horizon` steps of `frequency`.

    `point` and `bands` in `unit`: a decimal return for a price, a change in level for bp, points and yields (in bp).
    `window` is what the model was fitted on; `last` its last day, and `stale` says that it is old.
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


def forecast(observed: Observed, horizon: int, level: Sequence[int] = (80, 95)) -> Forecast:
    """The change over `horizon` trading days: exponential smoothing with conformal intervals.

    AutoETS with additive errors (Hyndman et al. 2002) on log prices or on levels; intervals from the errors over
    held-out windows of the same length (Stankevičiūtė et al. 2021). With fewer than 20 such windows: a random walk with
    the quantiles of its overlapping past changes. A monthly series takes round(horizon/21) steps, at least one.
    Errors: InputError for fewer than 60 observations or a horizon as long as a third of the history.
    """
    series = observed.series
    steps = max(1, round(horizon / 21)) if series.frequency == "monthly" else horizon
    values = series.values
    if len(values) < max(MIN_OBSERVATIONS, 3 * steps):
        raise InputError(
            f"{series.name!r} has {len(values)} observations by {observed.as_of}, and a forecast over {steps} needs"
            f" {max(MIN_OBSERVATIONS, 3 * steps)}",
            fix="shorten the horizon, use a later 'as_of' or a longer series",
        )
    in_logs = series.unit == "price"
    scale = 100.0 if series.unit == "percent" else 1.0
    windows = min(MAX_WINDOWS, (len(values) - MIN_TRAIN) // steps)
    if windows >= MIN_WINDOWS:
        values = values.tail(MIN_TRAIN + windows * steps)
    levels = values.to_numpy(dtype="float64")
    levels = np.log(levels) if in_logs else levels * scale
    if windows >= MIN_WINDOWS:
        point, ends = _smoothed(levels, steps, windows, level)
        model = f"AutoETS (additive errors) with conformal intervals from {windows} windows"
    else:
        point, ends = 0.0, _quantiles(levels[steps:] - levels[:-steps], level)
        model = "random walk with the quantiles of its overlapping past changes (too short for conformal intervals)"
    if in_logs:
        point, ends = float(np.expm1(point)), {one: tuple(np.expm1(pair)) for one, pair in ends.items()}
    unit: MoveUnit = "return" if in_logs else "points" if series.unit == "points" else "bp"
    return Forecast(
        name=series.name, horizon=horizon, steps=steps, unit=unit, point=point,
        bands=tuple(Band(level=one / 100, lower=float(low), upper=float(high)) for one, (low, high) in ends.items()),
        model=model, window=span(values.index), last=observed.last, stale=observed.stale,
    )  # fmt: skip


def _smoothed(
    levels: np.ndarray, steps: int, windows: int, level: Sequence[int]
) -> tuple[float, dict[int, tuple[float, float]]]:
    """Change to the last step, and its intervals by level."""
    from statsforecast.models import AutoETS
    from statsforecast.utils import ConformalIntervals

    model = AutoETS(season_length=1, model="AZN", prediction_intervals=ConformalIntervals(h=steps, n_windows=windows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optimiser chatter on one candidate model; the chosen one is what counts
        fitted = model.forecast(y=levels, h=steps, level=list(level))
    start = levels[-1]
    ends = {one: (fitted[f"lo-{one}"][-1] - start, fitted[f"hi-{one}"][-1] - start) for one in level}
    return float(fitted["mean"][-1] - start), ends


def _quantiles(changes: np.ndarray, level: Sequence[int]) -> dict[int, tuple[float, float]]:
    tails = {one: (100 - one) / 200 for one in level}
    return {
        one: (min(float(np.quantile(changes, tail)), 0.0), max(float(np.quantile(changes, 1 - tail)), 0.0))
        for one, tail in tails.items()
    }
