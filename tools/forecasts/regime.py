"""The regime of an index: a Markov-switching volatility, its drawdown, and a check for a break in variance."""

from __future__ import annotations

import datetime as dt
import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.tools.data.market import day_of
from finllm.tools.forecasts.single_thread import steady
from finllm.tools.forecasts.volatility import log_returns

Regime = Literal["calm", "uneasy", "stressed", "crisis"]
REGIMES: tuple[Regime, ...] = ("calm", "uneasy", "stressed", "crisis")

YEAR = 252
"""Trading days a year, for annualising and for the peak from which the drawdown is measured."""
VOLATILITY_GRADES = (0.60, 0.85, 0.95)
"""Percentiles of 20-day realised volatility at which its grade becomes 1, 2 and 3, for a short history."""
DRAWDOWN_GRADES = (0.05, 0.10, 0.20)
"""Falls from the 252-day peak at which the drawdown's grade becomes 1, 2 and 3."""
NEAR = 0.05
"""How far below a whole grade the mean may stay and still count as it: no probability is exactly one."""
MIN_FIT = 504
"""Returns before the calendar year that a Markov switching is estimated on, at least."""
EM_STEPS = 20
"""Steps of expectation-maximisation; on the S&P 500 they end within 0.2 of the greatest log likelihood."""
START = ((0.985, 0.012, 0.003), (0.012, 0.976, 0.012), (0.003, 0.012, 0.985))
"""Probabilities to stay and to change, from each state (column) to each (row), where the estimation starts."""
START_SHARES = ((0.0, 0.45), (0.45, 0.85), (0.85, 1.0))
"""Between which percentiles of the 20-day mean square the three variances start."""
EDGE = 5
"""Days at either end of the window in which no break is looked for."""
CRITICAL = 1.358
"""5 % critical value of the largest distance of a Brownian bridge from zero."""


class Break(BaseModel):
    """The likeliest day on which the variance of the last 252 returns changed; `ratio` of volatility after to before.

    `statistic` is above 1.358 for a break at 5 %. `day` is the last before the change.
    """

    model_config = ConfigDict(frozen=True)

    day: dt.date
    ratio: float
    statistic: float


class RegimeState(BaseModel):
    """The regime and what it is made of.

    `probabilities` of the three volatility states, the quietest first, given returns up to the day; `volatilities`
    theirs, annualised, decimal; both None where the history is too short and the percentile of realised volatility
    gave the grade. `drawdown` decimal, from the peak of 252 days. `change` is the last year's break in variance, and
    `confirmed` says whether it speaks for the label: a rise of volatility under `stressed` and `crisis`, none or a fall
    under `calm`; None where it has no say.
    """

    model_config = ConfigDict(frozen=True)

    label: Regime
    grade: float
    probabilities: tuple[float, float, float] | None
    volatilities: tuple[float, float, float] | None
    drawdown: float
    change: Break | None
    confirmed: bool | None


def regime(prices: pd.Series) -> Regime:
    """The label of `regime_state`."""
    return regime_state(prices).label


def regime_state(prices: pd.Series) -> RegimeState:
    """The regime after the last of these daily prices, from nothing later.

    Three states of volatility (Hamilton 1989, zero mean), estimated on the years before that of the last price and
    filtered to it, grade from 0 to 3: 1.5·P(middle) + 3·P(high). With fewer than 504 such returns: by the percentile of
    20-day volatility (`VOLATILITY_GRADES`). The drawdown grades by `DRAWDOWN_GRADES`. The label is `REGIMES` at the
    mean of the two, rounded down but for `NEAR`. Errors: InputError for fewer than 252 prices, or as `log_returns`.
    """
    if len(prices) < YEAR:
        raise InputError(f"a regime needs {YEAR} prices, and there are {len(prices)}", fix="use a later 'as_of'")
    returns = log_returns(prices)
    if float(returns.std()) == 0:
        raise InputError("a regime needs prices that move", fix="use another series")
    years = np.array([day_of(stamp).year for stamp in returns.index])
    first = int(np.searchsorted(years, years[-1]))
    probabilities = volatilities = None
    if first >= MIN_FIT:
        states = switching(tuple(returns.iloc[:first]))
        probabilities, volatilities = states.filter(returns.to_numpy()), states.volatilities
        grade = 1.5 * probabilities[1] + 3 * probabilities[2]
    else:
        grade = float(sum(volatility_percentile(prices) >= step for step in VOLATILITY_GRADES))
    fallen = drawdown(prices.iloc[-YEAR:])
    label = REGIMES[int((grade + sum(-fallen >= step for step in DRAWDOWN_GRADES)) / 2 + NEAR)]
    change = variance_break(returns.iloc[-YEAR:])
    return RegimeState(label=label, grade=grade, probabilities=probabilities, volatilities=volatilities,
                       drawdown=fallen, change=change, confirmed=_confirmed(label, change))  # fmt: skip


class Switching(BaseModel):
    """An estimated three-state model: statsmodels' parameters, reordered by volatility only when it is read."""

    model_config = ConfigDict(frozen=True)

    parameters: tuple[float, ...]

    @property
    def _order(self) -> np.ndarray:
        return np.argsort(self.parameters[-3:])

    @property
    def volatilities(self) -> tuple[float, float, float]:
        """Annualised, decimal, the quietest state first."""
        low, middle, high = (math.sqrt(YEAR * self.parameters[-3:][one]) / 100 for one in self._order)
        return low, middle, high

    def filter(self, returns: np.ndarray) -> tuple[float, float, float]:
        """Probabilities of the states on the last day given returns up to it, the quietest first."""
        found = _model(returns).filter(np.array(self.parameters)).filtered_marginal_probabilities[-1]
        low, middle, high = (float(min(max(found[one], 0.0), 1.0)) for one in self._order)
        return low, middle, high


@lru_cache(maxsize=64)
def switching(returns: tuple[float, ...]) -> Switching:
    """Three states of volatility, zero mean, by 20 steps of expectation-maximisation from a stated start."""
    own = np.array(returns)
    square = np.convolve((100 * own) ** 2, np.full(20, 1 / 20), mode="valid")
    bounds = [(np.quantile(square, low), np.quantile(square, high)) for low, high in START_SHARES]
    starts = [float(square[(square >= low) & (square <= high)].mean()) for low, high in bounds]
    stay, model = np.array(START), _model(own)
    with steady():  # a step's probabilities are rescaled to sum to one with a warning, which is what is wanted
        fitted = model.fit(start_params=np.concatenate([stay[:, 0], stay[:, 1], starts]), em_iter=EM_STEPS,
                                 maxiter=0, disp=False, cov_type="none")  # fmt: skip
    return Switching(parameters=tuple(float(one) for one in fitted.params))


def _model(returns: np.ndarray) -> Any:
    from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression

    return MarkovRegression(100 * returns, k_regimes=3, trend="n", switching_variance=True)


def variance_break(returns: pd.Series) -> Break | None:
    """The break in variance by cumulative sums of squares, or None where there is none at 5 %.

    κ₂ of Sansó, Aragó and Carrion (2004): Inclán and Tiao's (1994) with the squares' long-run variance by Bartlett
    weights over 4·(n/100)^(2/9) lags, so that fat tails and short clusters alone do not count as a break.
    """
    squares = returns.to_numpy() ** 2
    count = len(squares)
    centred = squares - squares.mean()
    lags = int(4 * (count / 100) ** (2 / 9))
    spectrum = float(centred @ centred) / count
    spectrum += sum(2 * (1 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag]) / count
                    for lag in range(1, lags + 1))  # fmt: skip
    if spectrum <= 0:
        return None
    sums = np.abs(np.cumsum(centred)) / math.sqrt(count * spectrum)
    at = EDGE + int(np.argmax(sums[EDGE:-EDGE]))
    if sums[at] <= CRITICAL:
        return None
    before, after = squares[: at + 1].mean(), squares[at + 1 :].mean()
    if before <= 0:
        return None
    return Break(day=day_of(returns.index[at]), ratio=float(math.sqrt(after / before)), statistic=float(sums[at]))


def _confirmed(label: Regime, change: Break | None) -> bool | None:
    if label in ("stressed", "crisis"):
        return change is not None and change.ratio > 1
    if label == "calm":
        return change is None or change.ratio < 1
    return None


def drawdown(prices: pd.Series) -> float:
    """Return from the highest of these prices to the last, decimal and at most 0."""
    return float(prices.iloc[-1] / prices.max() - 1)


def volatility_percentile(prices: pd.Series, days: int = 20) -> float:
    """Share of all `days`-day realised volatilities in these prices that are at or below the last one."""
    rolling = pd.Series(np.log(prices.to_numpy())).diff().rolling(days).std().dropna()
    return float((rolling <= rolling.iloc[-1]).mean())
