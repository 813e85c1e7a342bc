"""A history of one instrument or driver, and the part of it that was known on a day."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np
import pandas as pd

from finllm.tools.data.market.bars import Bars

SeriesUnit = Literal["price", "percent", "bp", "points"]
Frequency = Literal["daily", "weekly", "monthly", "quarterly"]

STALE_AFTER: dict[Frequency, int] = {"daily": 7, "weekly": 21, "monthly": 62, "quarterly": 184}
"""Calendar days after which the last observation of a series no longer counts as current."""

NO_DAYS = pd.DatetimeIndex([])


@dataclass(frozen=True)
class Step:
    """A change of level at `day` that is no move: a split, or where another source goes on.

    From `day` on, what is before it counts `ratio` times as much. `used`: whether the move across is then a move like
    any other; where it is not known how the two sides compare, it is not used.
    """

    day: pd.Timestamp
    ratio: float = 1.0
    used: bool = True


@dataclass(frozen=True)
class Series:
    """One instrument's or driver's history: a sorted, unique DatetimeIndex and float64 values without NaN.

    `unit`: `price` in USD, `percent` a yield, `bp` a spread, `points` an index level. `sha256` is that of the file's
    bytes, whose name is `uri`. `steps`: known changes of level. `since`: the first day that is of a user's file, None
    where nothing is; those days are checked before they are used. `notes`: how it was put together. `also`: other
    names that it is found by, such as that of its column. `averaged`: each value is the mean of its period's days, not
    that of the last one. `bars`: high, low and volume of those of its days whose file has them; read them by the
    store, which cuts them at `as_of`.
    """

    name: str
    values: pd.Series
    unit: SeriesUnit
    frequency: Frequency
    uri: str
    sha256: str
    steps: tuple[Step, ...] = ()
    since: pd.Timestamp | None = None
    notes: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    averaged: bool = False
    bars: Bars | None = None

    @property
    def first(self) -> dt.date:
        return day_of(self.values.index[0])

    @property
    def last(self) -> dt.date:
        return day_of(self.values.index[-1])

    def known(self, as_of: dt.date) -> int:
        """How many rows were known after the close of `as_of`; a month's or quarter's once that period is over."""
        if self.frequency in ("daily", "weekly"):
            return self.upto(as_of)
        month = as_of.month - (as_of.month - 1) % 3 if self.frequency == "quarterly" else as_of.month
        return self.upto(as_of.replace(month=month, day=1) - dt.timedelta(days=1))

    def upto(self, day: dt.date) -> int:
        """How many rows are stamped with `day` or an earlier one."""
        return int(self.values.index.to_numpy().searchsorted(np.datetime64(day), side="right"))

    def visible(self, as_of: dt.date) -> pd.Series:
        """A copy of the rows that were known after the close of `as_of`, earlier ones scaled by the steps in them."""
        values = self.values.iloc[: self.known(as_of)].copy()
        for step in self.steps:
            if step.ratio != 1.0 and len(values) and values.index[-1] >= step.day:
                values[values.index < step.day] *= step.ratio
        return values


@dataclass(frozen=True)
class Observed:
    """A series as it was known at `as_of`: `series` is cut there, `last` is its last observation.

    `breaks`: days whose move from the observation before is not used. `findings`: what is odd about the user's days.
    """

    series: Series
    as_of: dt.date
    last: dt.date
    age_days: int
    stale: bool
    breaks: pd.DatetimeIndex = field(default_factory=lambda: NO_DAYS)
    findings: tuple[Finding, ...] = ()

    @property
    def values(self) -> pd.Series:
        return self.series.values

    def positive(self) -> tuple[pd.Series, pd.DatetimeIndex]:
        """The values that a return can be taken of, and the breaks: a level of zero or less is left out, and the move
        across it is not used."""
        values = self.values
        below = (values <= 0).to_numpy()
        if not below.any():
            return values, self.breaks
        after = np.flatnonzero(~below[1:] & below[:-1]) + 1
        days = self.breaks.union(pd.DatetimeIndex(values.index[after]))
        return pd.Series(values[~below]), pd.DatetimeIndex(days)


FindingKind = Literal["gap", "split", "halt", "zone", "weekend", "duplicate", "outlier", "stale", "negative"]


@dataclass(frozen=True)
class Finding:
    """Something odd about a series, in `words` that name it; `first` and `last` day of it."""

    kind: FindingKind
    first: dt.date
    last: dt.date
    words: str


def crosses(index: pd.Index, breaks: pd.DatetimeIndex, steps: int = 1) -> np.ndarray:
    """Which moves over `steps` observations, (n − steps,), span a break: their start is before one, their end not."""
    if not len(breaks):
        return np.zeros(max(0, len(index) - steps), dtype=bool)
    passed = breaks.searchsorted(pd.DatetimeIndex(index), side="right")
    return passed[steps:] != passed[:-steps]


def stamp_of(entry: object) -> pd.Timestamp:
    """An entry of an index of days, or a day, as a time stamp."""
    return cast("pd.Timestamp", pd.Timestamp(str(entry)))


def day_of(stamp: object) -> dt.date:
    """The day of an index entry."""
    return dt.date.fromisoformat(str(stamp)[:10])


def span(index: pd.Index) -> str:
    """A window in words: `2020-07-01 to 2022-06-30, 504 observations`."""
    return f"{day_of(index[0])} to {day_of(index[-1])}, {len(index)} observations"
