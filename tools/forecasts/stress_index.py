"""The PCA-APT stress index: how much of the stocks' variance a few factors absorb, and how far the rest is spread."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.tools.data.market import MarketStore, day_of

FACTOR_SHARE = 5
"""One statistical factor per five stocks (Kritzman, Li, Page and Rigobon 2011, section 2)."""
HALF_LIFE = 60
"""Days after which a return counts half in the covariance."""
WARM_UP = 120
"""Returns before the first covariance."""
RECENT = 20
"""Days over which the factors' residuals are pooled."""
STEP = 5
"""Days between two values of the history, counted from its first return."""
MIN_HISTORY = 50
"""Values before the first standardised one: about a year."""
MIN_NAMES = 10


class StressIndex(BaseModel):
    """The index on `last`: the mean of two scores, each in standard deviations from its mean up to that day.

    `absorption` (0 to 1) is the share of variance in the first N/5 principal components; `dispersion` the root mean
    square of the residuals of the last 20 days beside these, annualised, decimal. `percentile`: share of the index's
    own past at or below it. `names`: the stocks in it.
    """

    model_config = ConfigDict(frozen=True)

    value: float
    percentile: float
    absorption: float
    absorption_score: float
    dispersion: float
    dispersion_score: float
    last: dt.date
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def index_by_day(prices: pd.DataFrame) -> dict[dt.date, float]:
    """The index where it has a value, by day; as `stress_history`, and with its errors."""
    values = stress_history(prices)["index"].dropna()
    return {day_of(day): float(value) for day, value in values.items()}


def stress_history(prices: pd.DataFrame) -> pd.DataFrame:
    """Columns `absorption`, `dispersion`, their scores and `index`, every fifth day and on the last one.

    Each row is a function of the prices up to its day. The covariance is exponentially weighted (half-life 60 days,
    mean zero); `absorption` is its first ⌈N/5⌉ eigenvalues over its trace; residuals are what these eigenvectors leave
    of the last 20 days' log returns. `dispersion` is scored by its logarithm. Scores use the mean and standard
    deviation of the values so far, at least 50; before that they are NaN. Errors: InputError for fewer than 10 stocks,
    fewer than 121 days, days out of order or twice, or prices that are missing or not positive.
    """
    index, count = prices.index, prices.shape[1]
    if not (index.is_monotonic_increasing and index.is_unique):
        raise InputError("prices are not in order of their days, each once", fix="sort them and drop the repeated days")
    values = prices.to_numpy(dtype="float64")
    if not (np.isfinite(values) & (values > 0)).all():
        raise InputError("prices are missing or not positive", fix="keep the days on which every stock has a price")
    if count < MIN_NAMES or len(values) <= WARM_UP:
        raise InputError(f"a stress index needs {MIN_NAMES} stocks and {WARM_UP + 1} shared days, and there are {count}"
                         f" and {len(values)}", fix="use a later 'as_of' or add prices")  # fmt: skip
    returns = np.diff(np.log(values), axis=0)
    at, covariances = _covariances(returns)
    eigenvalues, vectors = np.linalg.eigh(covariances)  # ascending; (n, N), (n, N, N)
    factors = -(-count // FACTOR_SHARE)
    total = np.maximum(eigenvalues.sum(axis=1), np.finfo(float).tiny)
    absorption = eigenvalues[:, -factors:].sum(axis=1) / total
    rest = vectors[:, :, :-factors]
    recent = np.array([returns[one - RECENT + 1 : one + 1] for one in at])  # (n, 20, N)
    dispersion = np.sqrt(252 * np.square(recent @ rest).sum(axis=(1, 2)) / (RECENT * count))
    found = pd.DataFrame({"absorption": absorption, "dispersion": dispersion}, index=index[at + 1])
    for name, values in (("absorption", absorption), ("dispersion", np.log(np.maximum(dispersion, 1e-12)))):
        found[f"{name}_score"] = _expanding_score(pd.Series(values, index=found.index))
    found["index"] = (found["absorption_score"] + found["dispersion_score"]) / 2
    return found


def _covariances(returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the returns, and the weighted covariance of those up to each."""
    decay = 0.5 ** (1 / HALF_LIFE)
    kept, at = [], []
    sums, weight = np.zeros((returns.shape[1],) * 2), 0.0
    for day, own in enumerate(returns):
        sums = decay * sums + np.outer(own, own)
        weight = decay * weight + 1
        if day + 1 >= WARM_UP and ((day + 1 - WARM_UP) % STEP == 0 or day == len(returns) - 1):
            at.append(day)
            kept.append(sums / weight)
    return np.array(at), np.array(kept)


def _expanding_score(values: pd.Series) -> pd.Series:
    seen = values.expanding(min_periods=MIN_HISTORY)
    return (values - seen.mean()) / seen.std().where(lambda one: one > 0)


def shared_prices(market: MarketStore, names: Sequence[str], as_of: dt.date) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Prices of these stocks on the days that all have, up to `as_of`, and notes on what was left out.

    A stock that is stale, or has fewer than half the days of the longest, is left out; days that some of the others
    lack are dropped, so that a return spans them.
    """
    notes: list[str] = []
    seen: dict[str, pd.Series] = {}
    for name in names:
        try:
            read = market.read(name, as_of)
        except InputError:
            notes.append(f"{name}: nothing is visible at {as_of}")
            continue
        if read.stale:
            notes.append(f"{name}: ended on {read.last}")
        else:
            seen[name] = read.values
    longest = max((len(one) for one in seen.values()), default=0)
    for name in [name for name, one in seen.items() if len(one) < longest / 2]:
        notes.append(f"{name}: {len(seen.pop(name))} days, fewer than half of the longest")
    table = pd.DataFrame(seen)
    shared = table.dropna()
    if len(shared) < len(table):
        notes.append(f"{len(table) - len(shared)} days that some stock lacks are bridged")
    return shared, tuple(notes)


def stress_index(market: MarketStore, as_of: dt.date, names: Sequence[str] | None = None) -> StressIndex:
    """The index after the close of `as_of`, of these stocks or the packaged ones. InputError where it has none yet."""
    prices, notes = shared_prices(market, market.stock_names() if names is None else names, as_of)
    history = stress_history(prices)
    last = history.iloc[-1]
    if not np.isfinite(last["index"]):
        raise InputError(f"the stress index has no value yet at {as_of}: it is standardised on a year of its own past",
                         fix="use a later 'as_of'")  # fmt: skip
    known = history["index"].dropna()
    return StressIndex(
        value=float(last["index"]), percentile=float((known <= last["index"]).mean()),
        absorption=float(last["absorption"]), absorption_score=float(last["absorption_score"]),
        dispersion=float(last["dispersion"]), dispersion_score=float(last["dispersion_score"]),
        last=day_of(history.index[-1]), names=tuple(prices.columns), notes=notes,
    )  # fmt: skip
