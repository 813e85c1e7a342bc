"""The ensemble: statsforecast's models side by side, cross-validated weights, and the scores behind its intervals."""

from __future__ import annotations

import datetime as dt
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from finllm.tools.data.market import day_of
from finllm.tools.forecasts.single_thread import steady
from finllm.tools.forecasts.volatility import MIN_GARCH, Garch, blended_sigma, fit_garch

MemberName = Literal["AutoARIMA", "AutoETS", "AutoTheta", "SeasonalNaive", "GARCH"]
Pace = Literal["daily", "weekly", "monthly", "quarterly"]
LEVEL_MEMBERS: tuple[MemberName, ...] = ("AutoARIMA", "AutoETS", "AutoTheta", "SeasonalNaive")

FIT: dict[Pace, int] = {"daily": 504, "weekly": 520, "monthly": 120, "quarterly": 80}
"""Observations that a member is fitted on."""
MIN_FIT: dict[Pace, int] = {"daily": 252, "weekly": 104, "monthly": 60, "quarterly": 40}
SEASON: dict[Pace, int] = {"daily": 1, "weekly": 1, "monthly": 12, "quarterly": 4}
"""Season of the seasonal-naive floor; a season of one, where the calendar gives none, is the last value."""
SCORED: dict[Pace, int] = {"daily": 2016, "weekly": 260, "monthly": 240, "quarterly": 80}
"""Observations before the calibration that weights and scores come from: eight, five, twenty and twenty years."""
STRIDE: dict[Pace, int] = {"daily": 4, "weekly": 1, "monthly": 1, "quarterly": 1}
"""Every how many observations a score is taken; four is coprime with the five days of a week."""
BLOCK_YEARS: dict[Pace, int] = {"daily": 2, "weekly": 1, "monthly": 5, "quarterly": 5}
"""Calendar years for which the held-out members keep the parameters that were fitted before them."""
MIN_SCORES = 40
SHRINK = 0.1
"""Pull towards equal weights, in units of the mean squared error of all members."""
GRID = np.arange(1, 200) / 200
"""Probabilities at which quantiles of scores are kept: the tails of every whole percentage are among them."""


class MemberOrders(BaseModel):
    """What each automatic member chose: ARIMA's (p, d, q) and constant, ETS's components, Theta's kind."""

    model_config = ConfigDict(frozen=True)

    arima: tuple[int, int, int]
    constant: Literal["none", "drift", "mean"]
    ets: str
    damped: bool
    theta: str

    def words(self, member: MemberName) -> str:
        """The member with what it chose, such as `AutoARIMA(0,1,0)`."""
        p, d, q = self.arima
        chosen = {
            "AutoARIMA": f"({p},{d},{q}{'' if self.constant == 'none' else f', {self.constant}'})",
            "AutoETS": f"({self.ets}{', damped' if self.damped else ''})",
            "AutoTheta": f"({self.theta})",
        }
        return member + chosen.get(member, "")


class Calibration(BaseModel):
    """What a month's forecasts of one series over `steps` share; it knows nothing after `cut`, an observation's day.

    `quantiles` are those of the signed scores (error over volatility) at `GRID`, from `scored` held-out origins.
    """

    model_config = ConfigDict(frozen=True)

    cut: dt.date
    steps: int
    order: MemberOrders
    weights: dict[MemberName, float]
    garch: Garch | None
    quantiles: tuple[float, ...]
    scored: int
    since: dt.date

    def ends(self, level: int) -> tuple[float, float]:
        """Lower and upper score that hold `level` %, a whole number from 1 to 99, with equal tails."""
        return self.quantiles[99 - level], self.quantiles[99 + level]


class _Model(Protocol):
    def fit(self, y: np.ndarray) -> object: ...
    def forward(self, y: np.ndarray, h: int) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True)
class Fitted:
    """Members with parameters; they go forward over `levels[start:t]` for any later t without another fit."""

    models: tuple[_Model, ...]
    start: int
    season: int

    def changes(self, levels: np.ndarray, horizons: Sequence[int]) -> np.ndarray:
        """Forecast changes from the last level, shape (n_horizons, n_members), from these levels alone."""
        own, longest = levels[self.start :], max(horizons)
        with steady():
            paths = [np.asarray(model.forward(own, longest)["mean"], dtype="float64") for model in self.models]
        paths.append(np.resize(own[-self.season :], longest))
        at = [steps - 1 for steps in horizons]
        return np.array([path[at] - own[-1] for path in paths]).T


def select(levels: np.ndarray) -> tuple[MemberOrders, tuple[_Model, ...]]:
    """Let each automatic member choose on these levels; its choice, and the fitted models in `LEVEL_MEMBERS` order."""
    from statsforecast.models import AutoARIMA, AutoETS, AutoTheta

    models = (
        AutoARIMA(season_length=1, max_p=2, max_q=2, start_p=0, start_q=0, approximation=True),
        AutoETS(season_length=1, model="AZN"),
        AutoTheta(season_length=1),
    )
    with steady():
        for model in models:
            model.fit(y=levels)
    chosen: list[Any] = [model.model_ for model in models]
    arima, ets, theta = chosen
    p, q, _, _, _, d, _ = arima["arma"]
    named = set(arima["coef"])
    constant = "drift" if "drift" in named else "mean" if "intercept" in named else "none"
    components = str(ets["components"])
    order = MemberOrders(arima=(p, d, q), constant=constant, ets=components[:3], damped=components[3:] == "D",
                  theta=str(theta["modeltype"]))  # fmt: skip
    return order, models


def fit(levels: np.ndarray, order: MemberOrders, pace: Pace) -> Fitted:
    """Members of a known order, fitted on the last `FIT` levels."""
    from statsforecast.models import ARIMA, AutoETS, AutoTheta

    start = max(0, len(levels) - FIT[pace])
    models = (
        ARIMA(order=order.arima, include_mean=order.constant == "mean", include_drift=order.constant == "drift"),
        AutoETS(season_length=1, model=order.ets, damped=order.damped),
        AutoTheta(season_length=1, model=order.theta),
    )
    with steady():
        for model in models:
            model.fit(y=levels[start:])
    return Fitted(models, start, SEASON[pace])


@dataclass(frozen=True)
class HeldOut:
    """What members fitted before a block forecast inside it, in order of time.

    `at` are the positions of the origins in the levels, `changes` (n, n_horizons, n_members), `sigma` (n, n_horizons).
    """

    at: np.ndarray
    changes: np.ndarray
    sigma: np.ndarray


Blocks = MutableMapping[tuple[int, int], HeldOut]
"""Blocks already computed on one series, by first position and end; the caller keeps one mapping per series."""


def held_out(
    levels: pd.Series, pace: Pace, horizons: Sequence[int], blocks: Blocks | None = None, scored: int | None = None
) -> HeldOut:
    """Forecasts at past origins by members fitted before each block of calendar years, over the last `scored` steps.

    Nothing is left of a block that begins with fewer than `MIN_FIT` observations.
    """
    values = levels.to_numpy(dtype="float64")
    years = levels.index.to_numpy().astype("datetime64[Y]").astype(int) + 1970
    group = years // BLOCK_YEARS[pace]
    since = max(len(values) - (scored or SCORED[pace]), 0)
    found: list[HeldOut] = []
    for block in np.unique(group[since:]):
        first, end = (int(np.searchsorted(group, one)) for one in (block, block + 1))
        if first < MIN_FIT[pace]:
            continue
        known = blocks.get((first, end)) if blocks is not None else None
        made = known or _block(values, first, end, pace, horizons)
        if blocks is not None and end < len(values):
            blocks[first, end] = made
        found.append(made)
    if not found:
        return HeldOut(np.zeros(0, int), np.zeros((0, len(horizons), len(LEVEL_MEMBERS))), np.zeros((0, len(horizons))))
    every = HeldOut(*(np.concatenate([getattr(one, part) for one in found]) for part in ("at", "changes", "sigma")))
    recent = every.at >= since
    return HeldOut(every.at[recent], every.changes[recent], every.sigma[recent])


def _block(values: np.ndarray, first: int, end: int, pace: Pace, horizons: Sequence[int]) -> HeldOut:
    """Origins from the last observation before the block to the last but one inside it."""
    start = max(0, first - FIT[pace])
    _, models = select(values[start:first])
    fitted = Fitted(models, start, SEASON[pace])
    at = np.arange(first - 1, end - 1)
    at = at[at % STRIDE[pace] == 0]
    changes = np.array([fitted.changes(values[: origin + 1], horizons) for origin in at])
    garch = fit_garch_or_none(np.diff(values[:first]))
    moves = np.diff(values[:end])
    sigma = np.array([blended_sigma(moves, garch, steps)[at] for steps in horizons]).T
    return HeldOut(at, changes.reshape(len(at), len(horizons), -1), sigma.reshape(len(at), len(horizons)))


def fit_garch_or_none(moves: np.ndarray) -> Garch | None:
    """The GARCH, or None where there are too few moves for one."""
    return fit_garch(moves) if len(moves) >= MIN_GARCH else None


def calibrate_ensemble(
    levels: pd.Series, pace: Pace, horizons: Sequence[int], blocks: Blocks | None = None
) -> dict[int, Calibration]:
    """Weights, orders, GARCH and scores from these levels (logs of prices, or levels), by horizon in steps.

    A horizon with fewer than 40 held-out changes is missing from the answer.
    """
    values = levels.to_numpy(dtype="float64")
    past = held_out(levels, pace, horizons, blocks)
    if not len(past.at):
        return {}
    order, _ = select(values[-FIT[pace] :])
    garch = fit_garch_or_none(np.diff(values))
    found: dict[int, Calibration] = {}
    for column, steps in enumerate(horizons):
        over = past.at + steps < len(values)
        if over.sum() < MIN_SCORES:
            continue
        at, sigma = past.at[over], past.sigma[over, column]
        errors = (values[at + steps] - values[at])[:, None] - past.changes[over, column]
        scaled = errors / sigma[:, None]
        weights = combine(scaled)
        quantiles = np.quantile(scaled @ weights, GRID, method="weibull")
        found[steps] = Calibration(
            cut=day_of(levels.index[-1]), steps=steps, order=order, garch=garch,
            weights=dict(zip(LEVEL_MEMBERS, weights.tolist(), strict=True)),
            quantiles=tuple(quantiles.tolist()), scored=int(over.sum()), since=day_of(levels.index[at[0]]),
        )  # fmt: skip
    return found


def combine(errors: np.ndarray, shrink: float = SHRINK) -> np.ndarray:
    """Weights of the members, at least 0 and of sum 1, from their held-out errors, shape (n, n_members).

    Least squares of the combined error on the simplex (Granger and Ramanathan 1984, constrained), plus `shrink` times
    the mean squared error times the squared distance from equal weights (Diebold and Shin 2019's ridge to equality).
    """
    from scipy.optimize import nnls

    count = errors.shape[1]
    mean = float((errors**2).mean())
    if mean == 0:
        return np.full(count, 1 / count)
    ridge = np.sqrt(shrink * mean) * np.eye(count)
    sums = 1e3 * np.sqrt(mean) * np.ones((1, count))
    left = np.vstack([errors / np.sqrt(len(errors)), ridge, sums])
    right = np.concatenate([np.zeros(len(errors)), ridge.sum(axis=1) / count, sums[0, :1]])
    weights, _ = nnls(left, right)
    return weights / weights.sum()


def project(levels: np.ndarray, fitted: Fitted, calibration: Calibration) -> tuple[float, np.ndarray, float]:
    """Combined change over the calibration's steps, each member's, and the volatility of that change."""
    changes = fitted.changes(levels, (calibration.steps,))[0]
    weights = np.array([calibration.weights[name] for name in LEVEL_MEMBERS])
    sigma = float(blended_sigma(np.diff(levels), calibration.garch, calibration.steps)[-1])
    return float(changes @ weights), changes, sigma
