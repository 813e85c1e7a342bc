"""What the positions do beyond their loads: volatility as it is at the day, the season of results, errors of loads."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.books.book import Book
from finllm.tools.data.factors import LONGEST_HORIZON
from finllm.tools.data.market import span
from finllm.tools.pnl.betas import Regression
from finllm.tools.pnl.contract_rows import is_contract
from finllm.tools.pnl.damping import DAMPED, damped
from finllm.tools.pnl.history import one_step
from finllm.tools.pnl.kernel import Sensitivities
from finllm.tools.pnl.sizes import FactorView

NORMAL = NormalDist()
MIN_DAYS = 60
DECAY = 0.97
"""Weight of a day's square to that of the next in the volatility at the day (RiskMetrics 1996, for a month)."""
HALF_LIFE = 63
"""Trading days after which half of what the volatility is above that of the window is gone: a quarter of a year."""
RESULTS, OTHERS = 1.25, 0.875
"""Variance of shares' own returns in the months in which most of them report (January, April, July, October) and in
the others, over that of all: 20 shares, 1990 to 1993 (docs/design/0033)."""
BLOCK = 63
"""Days of the blocks whose loads are told apart: a quarter of a year."""
LEAST_FREEDOM, MOST_FREEDOM = 4.0, 30.0
"""Degrees of freedom of a draw: the moves of the horizon in the window that do not overlap, less one; within these."""


@dataclass(frozen=True)
class OwnRisk:
    """What a book gains beyond its loads, in its currency.

    `variance` (250,): of its sum over 1, 2, … trading days from `as_of`. `loads`: variance of the error of the book's
    load, by factor, per squared unit. `days`: how many trading days they are from, 0 where nothing has a regression.
    """

    variance: np.ndarray
    loads: Mapping[str, float]
    days: int
    words: str

    @property
    def known(self) -> bool:
        return self.days > 0

    def draws(self, horizon: int, moves: np.ndarray, columns: Mapping[str, int], seed: int) -> tuple[np.ndarray, ...]:
        """Draws (n,) of the own sums over `horizon` days, and of what errors of loads make of `moves` (n, K).

        Both are Student's t by as many degrees of freedom as the window tells of moves over the horizon, with the
        spread as scale. Every quantile is drawn once, in an order of the seed's, so that seeds differ in little.
        """
        count = len(moves)
        own, wrong = np.zeros(count), np.zeros(count)
        if not self.known:
            return own, wrong
        rng = np.random.default_rng(seed + 1)
        free = self.freedom(horizon)
        even = student(count, free)
        own += math.sqrt(self.variance[horizon - 1]) * rng.permutation(even)
        for name, variance in self.loads.items():
            felt = damped(moves[:, columns[name]]) if name in DAMPED else moves[:, columns[name]]
            wrong += math.sqrt(variance) * rng.permutation(even) * felt
        return own, wrong

    def freedom(self, horizon: int) -> float:
        """Degrees of freedom of the draws over `horizon` trading days."""
        return float(np.clip(self.days / horizon - 1, LEAST_FREEDOM, MOST_FREEDOM))


@cache
def _normal(count: int) -> np.ndarray:
    """`count` quantiles of a normal, evenly spread; without scipy, which takes as long to load as all the rest."""
    return np.array([NORMAL.inv_cdf((at + 0.5) / count) for at in range(count)])


def student(count: int, freedom: float) -> np.ndarray:
    """`count` quantiles of Student's t, evenly spread; Fisher and Cornish 1960 (Abramowitz and Stegun 26.7.5)."""
    z = _normal(count)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom ** (at + 1) for at, term in enumerate(terms))


def own_risk(book: Book, arrays: Sensitivities, regressions: Mapping[str, Regression], view: FactorView) -> OwnRisk:
    """Own risk from the residuals of the regressions, on the days that the book's series share, at today's holdings.

    Variance by day: an exponential average of the squares, the season taken out, that returns to the window's mean and
    takes the season of the days to come; a mean of zero is known as well as the window tells it. Shares move together
    beyond their loads as they did on those days: the sums are of the whole book. Where they share fewer than 60 days, a
    series without one adds nothing on it, which is said. A contract's is that of its underlying, by its delta. A return
    of n trading days has n times the variance of a day's (`_by_step`).
    """
    held, without = _held(book, arrays, regressions)
    apart = f"; {without} positions without a regression add none of their own" if without else ""
    if not held:
        return OwnRisk(np.zeros(LONGEST_HORIZON), {}, 0, f"no position has a regression: none of their own{apart}")
    table, spans = _by_step({name: amount * regressions[name].residuals for name, amount in held.items()},
                            {name: regressions[name].steps for name in held})  # fmt: skip
    shared = table.dropna()
    short = len(shared) < MIN_DAYS
    kept = table.fillna(0.0) if short else shared
    daily, days = kept.sum(axis="columns").to_numpy(), pd.DatetimeIndex(kept.index)
    steps = spans.loc[kept.index].max(axis="columns").to_numpy(dtype=int)
    variance = _ahead(daily, days, steps, view.as_of)
    loads = {name: found for name in _factors(held, regressions)
             if (found := _error_of_load(daily, _daily(view, name, days, steps))) > 0}  # fmt: skip
    words = f"own risk on {span(days)}, at the volatility of {view.as_of}"
    typical = int(np.median(steps))
    words += f", from returns of {typical} days, each × √(1/{typical})" if typical > 1 else ""
    words += ", none on the days that a position lacks" if short else ""
    return OwnRisk(variance, loads, int(steps.sum()), f"{words}{apart}")


def _by_step(gains: Mapping[str, pd.Series], steps: Mapping[str, pd.Series]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Gains of one day by series, (n, P), and the trading days that each is from, (n, P); by the day on which they end.

    A gain over n trading days has the variance of n of one: it is divided by √n. Where a series has longer steps than
    a day, the others' gains are summed within the steps of the longest; where that leaves fewer than 60 rows, each day
    of a step takes its gain over √n, by which what series share on a day is missed.
    """
    typical = {name: float(one.median()) for name, one in steps.items()}
    longest, shortest = max(typical, key=typical.__getitem__), min(typical, key=typical.__getitem__)
    gains, steps = dict(gains), dict(steps)
    if typical[longest] == 1:
        spans = pd.DataFrame(steps)
        return pd.DataFrame(gains) / np.sqrt(spans), spans
    ends = pd.DatetimeIndex(steps[longest].index)
    table, spans = (
        pd.DataFrame({name: one if name == longest else _within(one, ends) for name, one in parts.items()})
        for parts in (gains, steps)
    )
    if len(table.dropna()) >= MIN_DAYS or typical[shortest] > 1:
        return table / np.sqrt(spans), spans
    days = steps[shortest].index
    table = pd.DataFrame({
        name: (one / np.sqrt(steps[name])).reindex(days, method="bfill", limit=max(1, int(typical[name]) - 1))
        if typical[name] > 1 else one for name, one in gains.items()
    })  # fmt: skip
    return table, pd.DataFrame(1, index=table.index, columns=table.columns)


def _within(values: pd.Series, ends: pd.DatetimeIndex) -> pd.Series:
    """Sums of what ends after each but the first of `ends`, up to the next."""
    at = ends.searchsorted(pd.DatetimeIndex(values.index))
    inside = (at > 0) & (at < len(ends))
    return pd.Series(pd.Series(values[inside]).groupby(ends[at[inside]]).sum())


def _held(
    book: Book, arrays: Sensitivities, regressions: Mapping[str, Regression]
) -> tuple[dict[str, float], int]:  # fmt: skip
    """What the book holds of each series that was regressed, and how many positions hold none."""
    found: dict[str, float] = {}
    without = 0
    deltas = _deltas(arrays)
    for row, holding in enumerate(book.holdings):
        series, amount = holding.series, holding.market_value
        if is_contract(holding):
            kind, _, name = (holding.exposure or "").partition(":")
            series, amount = (name, deltas.get(row, 0.0)) if kind == "series" else (None, 0.0)
        if not series or series not in regressions or holding.beta is not None \
                or not len(regressions[series].residuals):  # fmt: skip
            without += 1
            continue
        found[series] = found.get(series, 0.0) + amount
    return found, without


def _deltas(arrays: Sensitivities) -> dict[int, float]:
    if arrays.contracts is None:
        return {}
    return dict(zip(arrays.contracts.rows.tolist(), arrays.contracts.deltas().tolist(), strict=True))


def _factors(held: Mapping[str, float], regressions: Mapping[str, Regression]) -> list[str]:
    return list(dict.fromkeys(factor for name in held for factor in regressions[name].betas))


def _season(days: pd.DatetimeIndex) -> np.ndarray:
    return np.where(days.to_numpy().astype("datetime64[M]").astype(int) % 3 == 0, RESULTS, OTHERS)


def _ahead(daily: np.ndarray, days: pd.DatetimeIndex, steps: np.ndarray, as_of: dt.date) -> np.ndarray:
    """Variance of the sum over 1, 2, … days from `as_of`, (250,), from gains of a day that are each from `steps` days.

    An average follows a variance that wanders n times as far between its squares by √n times the weight of the newest.
    """
    count = int(steps.sum())
    squares = daily**2 / _season(days)
    newest = np.minimum((1 - DECAY) * np.sqrt(steps), 0.5)
    ages = np.where(steps == 1, 1.0, np.log(1 - newest) / math.log(DECAY))  # in days of DECAY
    weight = DECAY ** (np.cumsum(ages[::-1])[::-1] - ages)
    now, mean = float(weight @ squares / weight.sum()), float(squares.mean())
    ahead = np.arange(1, LONGEST_HORIZON + 1)
    coming = pd.bdate_range(as_of + dt.timedelta(days=1), periods=LONGEST_HORIZON)
    each = (mean + (now - mean) * 0.5 ** (ahead / HALF_LIFE)) * _season(coming)
    return np.cumsum(each) * (1.0 + ahead / count)


def _daily(view: FactorView, factor: str, days: pd.DatetimeIndex, steps: np.ndarray) -> np.ndarray:
    """The factor's moves over the `steps` days up to each of the days, × √(1/steps); NaN where it has none."""
    try:
        seen = view.factors[factor].levelled(view.market, view.as_of)
    except InputError:
        return np.full(len(days), np.nan)
    values, found = seen.values.to_numpy(dtype="float64"), np.full(len(days), np.nan)
    ends = pd.DatetimeIndex(seen.values.index).get_indexer(days)
    for step in np.unique(steps).tolist():
        at = np.flatnonzero((steps == step) & (ends >= step))
        if at.size:
            found[at] = one_step(values, view.factors[factor].unit, step)[ends[at] - step] / math.sqrt(step)
    return found


def _error_of_load(daily: np.ndarray, moves: np.ndarray) -> float:
    """Variance of the load of the coming days about the one used, per squared unit; 0 where nothing tells.

    That of the estimate on all days, and by how much more the loads of single quarters scatter than their estimates do
    (DerSimonian and Laird 1986, eq. 8).
    """
    known = np.isfinite(moves)
    if known.sum() < MIN_DAYS:
        return 0.0
    rest, about = daily[known], moves[known] - moves[known].mean()
    power = float(about @ about)
    if power <= 0:
        return 0.0
    whole = float(rest @ rest) / len(rest) / power
    blocks = np.array_split(np.arange(len(rest)), max(1, len(rest) // BLOCK))
    if len(blocks) < 3:
        return whole
    slopes, squares = _slopes(rest, moves[known], blocks)
    if not squares.all():
        return whole
    weight = 1 / squares
    spread = slopes - weight @ slopes / weight.sum()
    excess = float(weight @ spread**2) - (len(slopes) - 1)
    return whole + max(0.0, excess / float(weight.sum() - weight @ weight / weight.sum()))


def _slopes(rest: np.ndarray, moves: np.ndarray, blocks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The slope in each block and the square of its standard error."""
    slopes, squares = np.zeros(len(blocks)), np.zeros(len(blocks))
    for at, rows in enumerate(blocks):
        x, y = moves[rows] - moves[rows].mean(), rest[rows] - rest[rows].mean()
        power = float(x @ x)
        if power <= 0:
            continue
        slopes[at] = float(x @ y) / power
        left = y - slopes[at] * x
        squares[at] = float(left @ left) / max(1, len(rows) - 2) / power
    return slopes, squares
