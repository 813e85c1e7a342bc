"""Volatility: EWMA and GARCH(1,1) filters of returns, their variance over a horizon, and weekly realised volatility."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.market import day_of
from finllm.tools.forecasts.single_thread import steady

DECAY = 0.94
"""EWMA decay for daily returns (RiskMetrics technical document, 1996)."""
GARCH_RETURNS = 2520
"""Returns that a GARCH is fitted on, at most: ten years."""
MIN_GARCH = 250
STATED = ((0.05, 0.93), (0.08, 0.90), (0.12, 0.85))
"""(α, β) that are tried beside the optimiser's answer, which is at times far from the maximum."""
MIN_WEEK_DAYS = 3
FLOOR = 1e-12
"""Least variance of one step, so that a halted instrument divides nothing by zero."""


@dataclass(frozen=True)
class Garch:
    """σ²(t+1) = omega + alpha·r²(t) + beta·σ²(t) (Bollerslev 1986), in the squared unit of the returns."""

    omega: float
    alpha: float
    beta: float
    origin: Literal["fitted", "stated"]

    @property
    def persistence(self) -> float:
        return min(self.alpha + self.beta, 0.9999)


def fit_garch(returns: np.ndarray) -> Garch:
    """GARCH(1,1) by statsforecast on the last 2,520 returns; numpy's global generator is left as it was.

    The optimiser stops far from the maximum on some series, so the result must beat, in Gaussian likelihood, three
    stated pairs (α, β) whose ω matches the sample variance; else the best of these is used (`origin` says so).
    Errors: InputError for fewer than 250 returns, or returns that are not finite or never move.
    """
    from statsforecast.garch import garch_model

    own = np.asarray(returns, dtype="float64")[-GARCH_RETURNS:]
    if len(own) < MIN_GARCH:
        raise InputError(f"a GARCH needs {MIN_GARCH} returns, and there are {len(own)}", fix="use a longer series")
    scale = float(own.std())
    if not math.isfinite(scale) or scale <= 0:
        raise InputError("a GARCH needs finite returns that move", fix="drop the missing or halted days")
    unit = own / scale
    kept = np.random.get_state()  # statsforecast seeds the global generator
    try:
        with steady():  # its answer is judged below
            omega, alpha, beta = (max(float(one), 0.0) for one in garch_model(unit, 1, 1)["coeff"])
    finally:
        np.random.set_state(kept)
    candidates = [Garch(1 - a - b, a, b, "stated") for a, b in STATED]
    if math.isfinite(omega + alpha + beta) and alpha + beta < 1 and omega > 0:
        candidates.insert(0, Garch(omega, alpha, beta, "fitted"))
    best = max(candidates, key=lambda one: _likelihood(one, unit))
    return Garch(best.omega * scale**2, best.alpha, best.beta, best.origin)


def _likelihood(garch: Garch, returns: np.ndarray) -> float:
    variance = garch_variance(returns, garch)[:-1]
    return float(-(np.log(variance) + returns**2 / variance).sum())


def garch_variance(returns: np.ndarray, garch: Garch) -> np.ndarray:
    """One-step variances, shape (n + 1,): entry t is the forecast of return t from those before it.

    It starts at the variance of the first 250 returns, which colours the first months only.
    """
    start = max(float(np.mean(returns[:MIN_GARCH] ** 2)), FLOOR)
    return np.maximum(_filter(returns, start, garch.omega, garch.alpha, garch.beta), FLOOR)


def ewma_variance(returns: np.ndarray, decay: float = DECAY) -> np.ndarray:
    """One-step variances, shape (n + 1,), as in `garch_variance`; starts at the mean square of the first 60."""
    start = max(float(np.mean(returns[:60] ** 2)), FLOOR)
    return np.maximum(_filter(returns, start, 0.0, 1 - decay, decay), FLOOR)


def _filter(returns: np.ndarray, start: float, omega: float, alpha: float, beta: float) -> np.ndarray:
    from scipy.signal import lfilter

    drive = omega + alpha * np.asarray(returns, dtype="float64") ** 2
    tail, _ = lfilter([1.0], [1.0, -beta], drive, zi=[beta * start])
    return np.concatenate([[start], tail])


def over_horizon(variance: np.ndarray, garch: Garch, steps: int) -> np.ndarray:
    """Expected variance of the sum of the next `steps` returns, from one-step variances; it reverts to the mean.

    Σₖ v̄ + (v − v̄)(α+β)ᵏ, k = 0 … steps−1 (Bollerslev 1986, eq. 25), with v̄ = ω/(1−α−β).
    """
    persistence = garch.persistence
    mean = garch.omega / (1 - persistence)
    return steps * mean + (variance - mean) * (1 - persistence**steps) / (1 - persistence)


def blended_sigma(returns: np.ndarray, garch: Garch | None, steps: int) -> np.ndarray:
    """Volatility of the sum of the next `steps` returns, shape (n + 1,): geometric mean of EWMA's and GARCH's.

    Entry t uses returns before t only. Without a GARCH (short series) EWMA's alone.
    """
    flat = ewma_variance(returns) * steps
    if garch is None:
        return np.sqrt(flat)
    return (flat * over_horizon(garch_variance(returns, garch), garch, steps)) ** 0.25


def log_returns(prices: pd.Series) -> pd.Series:
    """Daily log returns. InputError for prices that are missing or not positive, or days out of order or twice."""
    index = prices.index
    if not (index.is_monotonic_increasing and index.is_unique):
        raise InputError("prices are not in order of their days, each once", fix="sort them and drop the repeated days")
    values = prices.to_numpy(dtype="float64")
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        raise InputError(
            f"{bad.sum()} prices are missing or not positive, the first on {day_of(prices.index[int(np.argmax(bad))])}",
            fix="correct or drop them",
        )
    return pd.Series(np.diff(np.log(values)), index=index[1:])


def weekly_volatility(prices: pd.Series) -> pd.Series:
    """Log of annualised realised volatility by calendar week (Monday to Friday), stamped with its last trading day.

    ½·ln(252 × mean squared daily log return). Weeks with fewer than three returns (a first or last part, a halt) or
    without any move are left out; the last week of the data is kept only if it is over (its Friday, or a later day,
    is in the data).
    """
    returns = log_returns(prices)
    days = returns.index.to_numpy().astype("datetime64[D]")
    fridays = days + (4 - (days.astype(int) + 3) % 7) % 7  # day 0, 1970-01-01, was a Thursday
    ends = np.flatnonzero(np.append(fridays[1:] != fridays[:-1], True))
    starts = np.append(0, ends[:-1] + 1)
    count = ends - starts + 1
    squares = np.add.reduceat(returns.to_numpy() ** 2, starts) / count
    kept = (count >= MIN_WEEK_DAYS) & (squares > FLOOR) & (fridays[ends] <= days[-1])
    return pd.Series(0.5 * np.log(252 * squares[kept]), index=pd.DatetimeIndex(days[ends[kept]]))
