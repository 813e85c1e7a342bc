"""The market store: every series by name, read up to a day and no further."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from finllm.errors import InputError, LookAheadError
from finllm.tools.data.market.packaged import STOCKS, packaged_series
from finllm.tools.data.market.series import STALE_AFTER, Observed, Series, SeriesUnit, day_of
from finllm.tools.data.market.user_files import read_price_file
from finllm.tools.evidence import Source


class MarketStore:
    """Every series by name: the packaged ones and those of the user's price files. Reads nothing past `as_of`."""

    def __init__(self, user_files: Sequence[Path] = (), extra: Iterable[Series] = ()) -> None:
        """`extra` are series read elsewhere, such as those of `finllm.tools.data.fed.load_fed`."""
        self._series = dict(packaged_series()) | {series.name: series for series in extra}
        for path in user_files:
            for series in read_price_file(path):
                if series.name in self._series:
                    raise InputError(
                        f"{path}: column {series.name!r} clashes with the series of that name from "
                        f"{self._series[series.name].uri!r}",
                        fix="rename the column, in the portfolio too",
                    )
                self._series[series.name] = series

    @classmethod
    def of(cls, series: Iterable[Series]) -> MarketStore:
        """A store with exactly these series, without the packaged ones."""
        store = cls.__new__(cls)
        store._series = {one.name: one for one in series}
        return store

    def names(self) -> list[str]:
        return sorted(self._series)

    def visible(self, name: str, as_of: dt.date) -> bool:
        """Whether anything of the series was known at `as_of`; False for an unknown one."""
        return name in self._series and self._series[name].known(as_of) > 0

    def stock_names(self) -> list[str]:
        """The packaged stocks in this store, by ticker."""
        return [name for name in STOCKS if name in self]

    def __contains__(self, name: object) -> bool:
        return name in self._series

    def read(self, name: str, as_of: dt.date) -> Observed:
        """The series up to `as_of`, after the close. InputError if it is unknown or has nothing visible by then."""
        series = self._known(name)
        values = series.visible(as_of)
        if values.empty:
            raise InputError(
                f"series {name!r} starts on {day_of(series.values.index[0])}: nothing of it is visible at {as_of}",
                fix="use a later 'as_of' or another series",
            )
        last = day_of(values.index[-1])
        age = (as_of - last).days
        cut = Series(series.name, values, series.unit, series.frequency, series.uri, series.sha256)
        return Observed(cut, as_of, last, age, stale=age > STALE_AFTER[series.frequency])

    def window(self, name: str, start: dt.date, end: dt.date, as_of: dt.date) -> pd.Series:
        """Values from the last observation at or before `start` to the last at or before `end`, both included.

        A monthly window starts with the last month that was over by `start`. Errors: LookAheadError if `end` is after
        `as_of`; InputError if the series starts after `start`, ends before `end`, or has one observation in between.
        """
        if end > as_of:
            raise LookAheadError(
                f"the window {start} to {end} of {name!r} reaches past as_of {as_of}",
                fix=f"set 'as_of' to {end} or later, or end the window by {as_of}",
            )
        if end <= start:
            raise InputError(
                f"the window {start} to {end} does not end after it starts", fix="swap or correct the days"
            )
        series = self._known(name)
        began = series.known(start)
        if not began:
            raise InputError(
                f"series {name!r} starts on {day_of(series.values.index[0])}, after {start}",
                fix="use a later window or another series",
            )
        upto = min(series.known(as_of), series.upto(end))
        window = series.values.iloc[began - 1 : upto].copy()
        for day, found in ((start, day_of(window.index[0])), (end, day_of(window.index[-1]))):
            if (day - found).days > STALE_AFTER[series.frequency]:
                raise InputError(
                    f"series {name!r} has no observation near {day}: the last before it is of {found}",
                    fix="use a window inside its history or add a series that covers it",
                )
        if len(window) < 2:
            raise InputError(
                f"series {name!r} has fewer than two observations from {start} to {end}", fix="use a longer window"
            )
        return window

    def unit_of(self, name: str) -> SeriesUnit:
        """The unit of a series. InputError if it is unknown."""
        return self._known(name).unit

    def source(self, name: str, pointer: str) -> Source:
        """Where the values of a series were read; `pointer` says which, such as a date or a window."""
        series = self._known(name)
        return Source(uri=series.uri, sha256=series.sha256, pointer=f"{name} {pointer}")

    def shared_days(self, name: str, other: str, as_of: dt.date) -> int:
        """Number of days on which both series were observed by `as_of`; 0 if either is unknown."""
        if name not in self or other not in self:
            return 0
        return len(self._series[name].visible(as_of).index.intersection(self._series[other].visible(as_of).index))

    def _known(self, name: str) -> Series:
        if name in self._series:
            return self._series[name]
        raise InputError(f"no series {name!r}", fix=f"use one of {', '.join(self.names())}, or add a price file")
