"""The market store: every series by name, read up to a day and no further."""

from __future__ import annotations

import datetime as dt
from collections import ChainMap
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pandas as pd

from finllm.errors import InputError, LookAheadError
from finllm.tools.data.market.bars import Bars
from finllm.tools.data.market.checks import Checked, breaks_of, check, halts
from finllm.tools.data.market.extension import extend
from finllm.tools.data.market.names import known_as, looks_like
from finllm.tools.data.market.packaged import INDEX, STOCKS, packaged_series, spread_of
from finllm.tools.data.market.series import STALE_AFTER, Observed, Series, SeriesUnit, day_of, stamp_of
from finllm.tools.data.market.user_files import read_price_file
from finllm.tools.evidence import Source


class MarketStore:
    """Every series by name: the packaged ones and those of the user's price files. Reads nothing past `as_of`."""

    def __init__(self, user_files: Sequence[Path] = (), extra: Iterable[Series] = ()) -> None:
        """`extra` are series read elsewhere, such as those of `finllm.tools.data.fed.load_fed`.

        A series of a name that is there already extends it. Errors: InputError for a file that cannot be read, or days
        in common that disagree (see `extend`).
        """
        packaged = cast("MutableMapping[str, Series]", packaged_series())  # only the first map is written to
        self._series: MutableMapping[str, Series] = ChainMap({}, packaged)
        self._also: dict[str, str] = {}
        self._checked: dict[tuple[str, dt.date], Checked] = {}
        own: list[Series] = []
        for series in (*extra, *(one for path in user_files for one in read_price_file(path).series)):
            self._add(series)
            if series.since is not None:
                own.append(series)
        self._find_index(own)
        self._spread()

    def _add(self, series: Series) -> None:
        self._also |= dict.fromkeys(series.also, series.name)
        old = self._series.get(series.name)
        stands_in = any(known.stands_in for name in series.also if (known := known_as(name)) is not None)
        self._series[series.name] = extend(old, series, stands_in=stands_in) if old else series

    def _find_index(self, own: Sequence[Series]) -> None:
        """A user's series with a name like the S&P 500's extends it, where nothing of that very name does."""
        index = self._series.get(INDEX)
        if index is None or index.since is not None:
            return
        for series in own:
            if not looks_like(INDEX, series.name):
                continue
            try:
                found = extend(index, series)
            except InputError:
                continue
            said = f"{series.name!r} is taken for the S&P 500: its name and its levels say so"
            self._series[INDEX] = replace(found, notes=(*found.notes, said))
            return

    def _spread(self) -> None:
        """The spread of BAA over AAA follows what they were extended by."""
        parts = [self._series.get(name) for name in ("AAA", "BAA")]
        aaa, baa = parts
        if aaa is not None and baa is not None and (aaa.since is not None or baa.since is not None):
            self._series["BAA_AAA"] = spread_of(aaa, baa)

    @classmethod
    def of(cls, series: Iterable[Series]) -> MarketStore:
        """A store with exactly these series, without the packaged ones."""
        store = cls.__new__(cls)
        store._series = {one.name: one for one in series}
        store._also = {}
        store._checked = {}
        return store

    def names(self) -> list[str]:
        return sorted(self._series)

    def visible(self, name: str, as_of: dt.date) -> bool:
        """Whether anything of the series was known at `as_of`; False for an unknown one."""
        return name in self and self._known(name).known(as_of) > 0

    def stock_names(self) -> list[str]:
        """The packaged stocks in this store, by ticker."""
        return [name for name in STOCKS if name in self]

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str) or name in self._series:
            return isinstance(name, str)
        known = known_as(name)
        kept = self._also.get(name) or (known.series if known else None)
        return kept is not None and kept in self._series

    def extended(self, name: str) -> bool:
        """Whether anything of the series is the user's."""
        own = (
            self._series.maps[0] if isinstance(self._series, ChainMap) else self._series
        )  # rates are not read for this
        found = own.get(self._resolved(name))
        return found is not None and found.since is not None

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
        cut = replace(series, values=values, bars=None)
        found = self._check(cut, as_of)
        for step in found.steps:
            if step.ratio != 1.0:
                values[values.index < step.day] *= step.ratio
        passed = tuple(step for step in series.steps if step.day <= stamp_of(values.index[-1]))
        return Observed(cut, as_of, last, age, age > STALE_AFTER[series.frequency], breaks_of((*passed, *found.steps)),
                        found.findings)  # fmt: skip

    def _check(self, cut: Series, as_of: dt.date) -> Checked:
        if cut.since is None or cut.since > stamp_of(cut.values.index[-1]):
            return Checked()
        key = cut.name, as_of
        if key not in self._checked:
            self._checked[key] = check(cut, self.index_for(cut.name, as_of))
        return self._checked[key]

    def whole(self, name: str) -> Series:
        """A series with all of its days, for a look at what is there. Errors: InputError if it is unknown."""
        return self._known(name)

    def cut(self, name: str, as_of: dt.date) -> Series | None:
        """A series with the days known at `as_of`; None where there are none."""
        values = self._known(name).visible(as_of)
        return replace(self._known(name), values=values, bars=None) if len(values) else None

    def bars(self, name: str, as_of: dt.date) -> Bars | None:
        """High, low and volume of the days known at `as_of`, for today's number of shares; None where no file that the
        series is of has them."""
        series = self._known(name)
        if series.bars is None or not series.known(as_of):
            return None
        seen = self.read(name, as_of)
        found = series.bars.upto(seen.last)
        for step in {*series.steps, *self._check(seen.series, as_of).steps}:
            if step.ratio != 1.0 and step.day <= stamp_of(seen.last):
                found = found.split(step.day, step.ratio)
        return None if found.frame.empty else found

    def index_for(self, name: str, as_of: dt.date) -> pd.Series | None:
        """The S&P 500's levels known at `as_of`, by which another series is checked; None for itself."""
        index = self._series.get(INDEX)
        return None if index is None or name == INDEX else index.visible(as_of)

    def halted_since(self, name: str, as_of: dt.date) -> dt.date | None:
        """The first of the unchanged closes up to the last one known, where these are enough to call it halted."""
        if not self.visible(name, as_of) or self._known(name).unit != "price":
            return None
        values = self.read(name, as_of).values
        run = next((one for one in halts(values.to_numpy()) if one[1] == len(values) - 1), None)
        return day_of(values.index[run[0]]) if run else None

    def remarks(self, names: Iterable[str], as_of: dt.date) -> list[str]:
        """What is odd about the user's days of these series, and how they were put together, as notes of a report."""
        found: list[str] = []
        for name in dict.fromkeys(names):
            if not self.extended(name) or not self.visible(name, as_of):
                continue
            seen = self.read(name, as_of)
            found += [*seen.series.notes, *(f"{name!r}: {one.words}" for one in seen.findings)]
        return list(dict.fromkeys(found))

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
        seen = self.read(name, as_of)
        window = seen.values.iloc[began - 1 : upto].copy()
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
        ends = window.iloc[[0, -1]]
        if series.unit == "price" and (ends <= 0).any():
            raise InputError(f"series {name!r} is {ends.min():g} at an end of {start} to {end}: no return is told of a "
                             "level of zero or less", fix="use a window with other ends")  # fmt: skip
        joined = [one.day for one in series.steps if not one.used and window.index[0] < one.day <= window.index[-1]]
        if joined:
            raise InputError(f"series {name!r} is put together on {day_of(joined[0])} from two that share no day",
                             fix="use a window on one side of that day, or add prices that reach across")  # fmt: skip
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
        return len(self._known(name).visible(as_of).index.intersection(self._known(other).visible(as_of).index))

    def _resolved(self, name: str) -> str:
        """The name that a series is kept under, of one that it is also known by."""
        if name in self._series:
            return name
        known = known_as(name)
        return self._also.get(name) or (known.series if known else name)

    def _known(self, name: str) -> Series:
        if (kept := self._resolved(name)) in self._series:
            return self._series[kept]
        raise InputError(f"no series {name!r}", fix=f"use one of {', '.join(self.names())}, or add a price file")
