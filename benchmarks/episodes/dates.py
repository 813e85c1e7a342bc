"""The days of the dated episodes: a shock has just begun, or nothing has, by what was known on that day alone."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from finllm.tools.data.market import INDEX, MarketStore, day_of
from finllm.tools.pnl.episodes import EPISODES
from finllm.tools.pnl.history import one_step

LATEST = dt.date(2022, 12, 28)
"""The last packaged close of the index."""
HORIZON = 20
"""Trading days that an episode is forecast over: no two share one, nor one with the back-test's windows."""
FIRST = 504
"""Closes of the index before the first episode: the two years that loads on it need."""
STEP, WINDOW = 5, 252
"""Days of a move, and moves before it by whose deviation it is measured."""
MONTHS = 60
"""The same for a monthly yield, whose move is of one month and known once that is over."""
LIMITS: Mapping[str, float] = {INDEX: 3.0, "WTI": 3.0, "BAA": 2.5, "BAA_AAA": 2.5}
"""Deviations from which a move is a shock, by series."""
CALM = 1.0
"""Deviations that no series may have reached in the last `HORIZON` days for a drawn day to be a quiet one."""
DRAWN, SEED = 1 / 100, 20261130
"""Share of days that are drawn without a look at any price, and by which seed; those that turn out quiet are taken."""


@dataclass(frozen=True)
class Dated:
    """A day after whose close an account is written, and the rule that chose it."""

    as_of: dt.date
    rule: str


def dated(market: MarketStore, latest: dt.date = LATEST) -> tuple[Dated, ...]:
    """The episodes' days, in order, by one walk through the closes of the index.

    A day is taken where a series' move reaches its limit for the first time in `HORIZON` days, or where the seed drew
    it and all have been calm so long; unless an episode before it, or a window of the back-test, is not `HORIZON` days
    away. Nothing after a day's close decides whether it is taken, but for those eight windows, which are scored apart.
    """
    days = pd.DatetimeIndex(market.read(INDEX, latest).values.index)
    scores = {name: _scores(market, name, days, latest) for name in LIMITS}
    last = len(days) - 1 - HORIZON
    near = _near_windows(days)
    found: list[Dated] = []
    free = FIRST
    for at in range(FIRST, last + 1):
        if at < free or at in near:
            continue
        rule = _shock(scores, at) or (_quiet(scores, at) if _drawn(days[at]) else None)
        if rule is not None:
            found.append(Dated(day_of(days[at]), rule))
            free = at + HORIZON + 1
    return tuple(found)


def _drawn(day: pd.Timestamp) -> bool:
    """By the seed and the day alone, so that no day's draw depends on how long the history is."""
    return random.Random(f"{SEED} {day.date()}").random() < DRAWN


def _scores(market: MarketStore, name: str, days: pd.DatetimeIndex, latest: dt.date) -> np.ndarray:
    """The move up to each day over the deviation of those before it, NaN where there is none: shape (n_days,).

    A monthly figure's stands on the first day of the index in the next month, and on no other.
    """
    seen = market.read(name, latest)
    values = seen.values.astype(float)
    monthly = seen.series.frequency == "monthly"
    if monthly:
        known = [days.searchsorted(month + pd.offsets.MonthBegin(1)) for month in values.index]
        moves = pd.Series(one_step(values.to_numpy(), "bp"), index=known[1:])
        scale = moves.rolling(MONTHS).std().shift(1)
    else:
        moves = pd.Series(one_step(values.to_numpy(), "return", STEP), index=days.searchsorted(values.index[STEP:]))
        moves = moves[values.index[STEP:].isin(days)]
        scale = moves.rolling(WINDOW).std().shift(STEP)
    scores = np.full(len(days), np.nan)
    for at, score in (moves / scale).items():
        if 0 < int(str(at)) < len(days):
            scores[int(str(at))] = score
    return scores


def _shock(scores: Mapping[str, np.ndarray], at: int) -> str | None:
    """The series that reaches its limit today and has not in the days before, the one furthest beyond it."""
    fresh = {
        name: abs(score[at]) / LIMITS[name]
        for name, score in scores.items()
        if abs(score[at]) >= LIMITS[name] and not (np.abs(score[at - HORIZON : at]) >= LIMITS[name]).any()
    }
    if not fresh:
        return None
    name = max(fresh, key=fresh.__getitem__)
    return f"{name} {'up' if scores[name][at] > 0 else 'down'}"


def _quiet(scores: Mapping[str, np.ndarray], at: int) -> str | None:
    calm = all(not (np.abs(score[at - HORIZON : at + 1]) >= LIMITS[name]).any() for name, score in scores.items())
    return "quiet" if calm and not (np.abs(scores[INDEX][at - STEP : at + 1]) >= CALM).any() else None


def _near_windows(days: pd.DatetimeIndex) -> set[int]:
    """Days from which, or up to which, a window of the back-test is at most `HORIZON` days away."""
    found: set[int] = set()
    for one in EPISODES.values():
        start, end = (int(days.searchsorted(pd.Timestamp(day))) for day in (one.start, one.end))
        found.update(range(start - HORIZON, end + HORIZON + 1))
    return found
