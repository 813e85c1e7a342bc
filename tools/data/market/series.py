"""A history of one instrument or driver, and the part of it that was known on a day."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

SeriesUnit = Literal["price", "percent", "bp", "points"]
Frequency = Literal["daily", "monthly", "quarterly"]

STALE_AFTER: dict[Frequency, int] = {"daily": 7, "monthly": 62, "quarterly": 184}
"""Calendar days after which the last observation of a series no longer counts as current."""


@dataclass(frozen=True)
class Series:
    """One instrument's or driver's history: a sorted, unique DatetimeIndex and float64 values without NaN.

    `unit`: `price` in USD, `percent` a yield, `bp` a spread, `points` an index level. `sha256` is that of the file's
    bytes, whose name is `uri`.
    """

    name: str
    values: pd.Series
    unit: SeriesUnit
    frequency: Frequency
    uri: str
    sha256: str

    def known(self, as_of: dt.date) -> int:
        """How many rows were known after the close of `as_of`; a month's or quarter's once that period is over."""
        if self.frequency == "daily":
            return self.upto(as_of)
        month = as_of.month - (as_of.month - 1) % 3 if self.frequency == "quarterly" else as_of.month
        return self.upto(as_of.replace(month=month, day=1) - dt.timedelta(days=1))

    def upto(self, day: dt.date) -> int:
        """How many rows are stamped with `day` or an earlier one."""
        return int(self.values.index.to_numpy().searchsorted(np.datetime64(day), side="right"))

    def visible(self, as_of: dt.date) -> pd.Series:
        """A copy of the rows that were known after the close of `as_of`."""
        return self.values.iloc[: self.known(as_of)].copy()


@dataclass(frozen=True)
class Observed:
    """A series as it was known at `as_of`: `series` is cut there, `last` is its last observation."""

    series: Series
    as_of: dt.date
    last: dt.date
    age_days: int
    stale: bool

    @property
    def values(self) -> pd.Series:
        return self.series.values


def day_of(stamp: object) -> dt.date:
    """The day of an index entry."""
    return dt.date.fromisoformat(str(stamp)[:10])


def span(index: pd.Index) -> str:
    """A window in words: `2020-07-01 to 2022-06-30, 504 observations`."""
    return f"{day_of(index[0])} to {day_of(index[-1])}, {len(index)} observations"
