"""Aligns the histories of several factors: their moves at one frequency over one window."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.factors import MoveUnit
from finllm.tools.data.market import STALE_AFTER, Frequency, MarketStore, crosses, day_of, span
from finllm.tools.pnl.factorset import STEP_DAYS, Driver

LOOKBACK_YEARS = 30
"""Years before `as_of` beyond which no move is looked at."""
MIN_ROWS = 36
"""Shared moves below which no covariance is estimated; a factor that leaves fewer is left out, on record."""
_PERIOD: dict[Frequency, str] = {"daily": "D", "weekly": "W", "monthly": "M", "quarterly": "Q"}
_LONGEST: dict[Frequency, int] = {"daily": 7, "weekly": 1, "monthly": 1, "quarterly": 1}
"""Longest step kept: calendar days for daily series, periods for the others."""


@dataclass(frozen=True)
class History:
    """One-step moves of factors, each in its own unit: shape (n_moves, n_factors), no NaN, one column per factor.

    `rule` says in words how they were aligned; `missing` names every factor that has no column, with the reason.
    """

    moves: pd.DataFrame
    frequency: Frequency
    rule: str
    missing: dict[str, str]

    @property
    def step_days(self) -> int:
        """Trading days in one step."""
        return STEP_DAYS[self.frequency]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.moves.columns)


def one_step(values: np.ndarray, unit: MoveUnit, steps: int = 1) -> np.ndarray:
    """Overlapping moves over `steps` observations of levels of shape (n,): decimal returns, or differences."""
    start, end = values[:-steps], values[steps:]
    return end / start - 1 if unit == "return" else end - start


def history(
    drivers: Sequence[Driver],
    market: MarketStore,
    as_of: dt.date,
    *,
    years: int = LOOKBACK_YEARS,
    optional: Sequence[str] = (),
) -> History:
    """Moves of the drivers that have a history, aligned at the coarsest of their frequencies.

    Rule: each level is sampled at its last observation in the period; only periods that every factor has are used; a
    move that spans more than one period (for daily series, seven calendar days) is dropped and counted; the window is
    the last `years` years. A factor that would leave fewer than 36 moves is left out, the shortest history first.
    So are the `optional` factors together, if they would more than halve the number of moves. Nothing is filled,
    interpolated or read past `as_of`.
    """
    whole = _history(drivers, market, as_of, years, {})
    if not set(optional) & set(whole.names):
        return whole
    fewer = _history([one for one in drivers if one.id not in optional], market, as_of, years, {})
    if len(whole.moves) * whole.step_days * 2 >= len(fewer.moves) * fewer.step_days:
        return whole
    why = f"it would cut the shared window from {len(fewer.moves)} to {len(whole.moves)} moves"
    return _history([one for one in drivers if one.id not in optional], market, as_of, years,
                    dict.fromkeys((one.id for one in drivers if one.id in optional), why))  # fmt: skip


def _history(
    drivers: Sequence[Driver], market: MarketStore, as_of: dt.date, years: int, missing: dict[str, str]
) -> History:
    levels: dict[str, pd.Series] = {}
    frequencies: dict[str, Frequency] = {}
    breaks: dict[str, pd.DatetimeIndex] = {}
    units: dict[str, MoveUnit] = {driver.id: driver.unit for driver in drivers}
    since = pd.Timestamp(year=as_of.year - years, month=as_of.month, day=1)
    for driver in drivers:
        if not driver.has_history:
            missing[driver.id] = "it has no history"
            continue
        try:
            seen = driver.levelled(market, as_of)
        except InputError as error:
            missing[driver.id] = error.message
            continue
        values, frequencies[driver.id], breaks[driver.id] = seen.values, seen.frequency, seen.breaks
        levels[driver.id] = pd.Series(values[values.index >= since])
    while levels:
        frequency: Frequency = max((frequencies[name] for name in levels), key=STEP_DAYS.__getitem__)
        moves, dropped = _aligned(levels, units, frequency, breaks)
        if len(moves) >= MIN_ROWS:
            return History(moves, frequency, _rule(moves, frequencies, frequency, dropped, missing, as_of), missing)
        shortest = min(levels, key=lambda name: len(levels[name]) * STEP_DAYS[frequencies[name]])
        missing[shortest] = f"with it {len(moves)} {frequency} moves are shared, and {MIN_ROWS} are needed"
        del levels[shortest]
    empty = pd.DataFrame(index=pd.DatetimeIndex([]))
    return History(empty, "daily", "no factor has a history: nothing is propagated", missing)


def _aligned(
    levels: dict[str, pd.Series],
    units: dict[str, MoveUnit],
    frequency: Frequency,
    breaks: Mapping[str, pd.DatetimeIndex],
) -> tuple[pd.DataFrame, int]:
    """The moves, and how many were dropped because they span more than one step, or a break of one of the series."""
    sampled: dict[str, pd.Series] = {}
    for name, values in levels.items():
        periods = pd.DatetimeIndex(values.index).to_period(_PERIOD[frequency])
        sampled[name] = values.groupby(periods).last()
    table = pd.DataFrame(sampled).dropna()
    if len(table) < 2:
        return pd.DataFrame(columns=pd.Index(list(levels))), 0
    moves = pd.DataFrame(
        {name: one_step(table[name].to_numpy(), units[name]) for name in levels}, index=table.index[1:]
    )
    ordinals = np.array([period.ordinal for period in table.index], dtype="int64")
    kept = ordinals[1:] - ordinals[:-1] <= _LONGEST[frequency]
    for name in levels:
        if len(breaks[name]):
            periods = pd.DatetimeIndex(breaks[name]).to_period(_PERIOD[frequency]).to_timestamp()
            kept &= ~crosses(pd.PeriodIndex(table.index).to_timestamp(), pd.DatetimeIndex(periods))
    moves = moves.loc[kept]
    moves.index = pd.PeriodIndex(moves.index).to_timestamp()
    return moves, int((~kept).sum())


def _rule(
    moves: pd.DataFrame,
    frequencies: dict[str, Frequency],
    frequency: Frequency,
    dropped: int,
    missing: dict[str, str],
    as_of: dt.date,
) -> str:
    finer = [str(name) for name in moves.columns if frequencies[str(name)] != frequency]
    parts = [f"{frequency} moves, {span(moves.index)}, on the periods that {', '.join(map(str, moves.columns))} share"]
    if finer:
        period = frequency.removesuffix("ly")
        parts.append(f"{', '.join(finer)} sampled at the last observation of the {period}, the others as published")
    if (age := (as_of - day_of(moves.index[-1])).days) > 2 * STALE_AFTER[frequency]:
        parts.append(f"its last move is {age} days old")
    if dropped:
        parts.append(f"{dropped} moves across gaps dropped")
    if missing:
        parts.append("left out: " + ", ".join(missing))
    return "; ".join(parts)


def days_between(start: dt.date, end: dt.date) -> int:
    """Trading days (Monday to Friday) from one close to another, at least one."""
    return max(1, int(np.busday_count(start, end)))
