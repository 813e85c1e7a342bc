"""A series opened at the window that a row of evidence stands on: its rows, its file, and the value found again."""

from __future__ import annotations

import datetime as dt
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.tools.data.market import Day, MarketStore, days_of
from finllm.tools.evidence import Evidence
from finllm.tools.forecasts.signals import RECENT
from finllm.tools.pnl.factorset import Driver

MOST = 260
"""Rows of a window that are shown: the newest, about a year of days."""
_DAY = r"\d{4}-\d{2}-\d{2}"
_POINTER = re.compile(rf"(?P<name>.+?) (?:(?:(?P<start>{_DAY}) )?to (?P<end>{_DAY})|close of (?P<on>{_DAY})|"
                      rf"last by (?P<by>{_DAY}))(?:, .*)?")  # fmt: skip
_WINDOW = re.compile(rf"(?P<start>{_DAY}) to (?P<end>{_DAY})")


class Point(BaseModel):
    """An observation of a series, in its own unit."""

    model_config = ConfigDict(frozen=True)

    day: dt.date
    value: float


class SeriesWindow(BaseModel):
    """The part of a series that a row stands on, `first` to `last`; `points` are the newest of its `observations`.

    `unit`: `price`, `percent` (a yield), `bp` or `points`. `unchanged`: the file that it is read from has the digest
    that the row names, None where the row names none. `missing`: why there are no rows.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    unit: str | None = None
    frequency: str | None = None
    uri: str = ""
    sha256: str = ""
    first: dt.date | None = None
    last: dt.date | None = None
    observations: int = 0
    points: tuple[Point, ...] = ()
    unchanged: bool | None = None
    missing: str | None = None

    @property
    def left_out(self) -> int:
        """Observations of the window that are not among `points`."""
        return self.observations - len(self.points)


@dataclass(frozen=True)
class FoundAgain:
    """What a row's value is by its series alone, and how that was found."""

    value: float
    how: str


def named_series(row: Evidence, market: MarketStore, factors: Iterable[Driver]) -> list[str]:
    """The series that a row stands on: the one its source points into, else that of its entity and of the factor that
    it names, of the run's `factors`: it may be another's, that stands in; empty where it stands on none of its own."""
    if row.source is not None and (place := _POINTER.fullmatch(row.source.pointer)) is not None:
        return [place["name"]]
    if row.source is not None:
        return []
    names = [one.series for one in factors if row.entity == one.label or f" {row.what}".endswith(f" {one.id}")]
    return [name for name in dict.fromkeys((row.entity, *names)) if name is not None and name in market]


def series_window(name: str, row: Evidence, market: MarketStore) -> SeriesWindow:
    """A series as the run saw it: in the window that the row's source, its period or its formula names, else to its
    `as_of`. Nothing after `as_of` is read."""
    start, end = _window(row)
    digest = row.source.sha256 if row.source is not None else None
    try:
        whole = market.whole(name)
        days = _days(market, name, row.as_of, end or row.as_of)
    except InputError as error:
        return SeriesWindow(name=name, missing=error.message, unchanged=None if digest is None else False)
    if start is not None:
        days = days[bisect_left(days, start, key=lambda one: one.day) :]
    return SeriesWindow(
        name=name, unit=whole.unit, frequency=whole.frequency, uri=whole.uri, sha256=whole.sha256,
        first=days[0].day if days else None, last=days[-1].day if days else None, observations=len(days),
        points=tuple(Point(day=one.day, value=one.value) for one in days[-MOST:]),
        unchanged=None if digest is None else digest == whole.sha256,
    )  # fmt: skip


def found_again(row: Evidence, market: MarketStore) -> FoundAgain | None:
    """The value of a row that is read straight off a series: a close, a rate, or a move over a window.

    None for a row that is worked out by more than that. Errors: InputError where the series does not reach.
    """
    if row.source is None or (place := _POINTER.fullmatch(row.source.pointer)) is None or row.unit == "text":
        return None
    name, as_of = place["name"], row.as_of
    if row.formula is not None or name not in market:
        return None
    if on := place["on"] or place["by"]:
        return FoundAgain(_days(market, name, as_of, dt.date.fromisoformat(on))[-1].value, f"{name} on {on}")
    days = _days(market, name, as_of, dt.date.fromisoformat(place["end"]))
    if place["start"]:
        start = dt.date.fromisoformat(place["start"])
        before = days[bisect_right(days, start, key=lambda one: one.day) - 1].value
    else:
        before = days[-1 - RECENT[market.whole(name).frequency]].value
    last = days[-1].value
    if row.unit == "return":
        return FoundAgain(last / before - 1, f"{last:g} / {before:g} − 1")
    times = 100.0 if row.unit == "bp" and market.unit_of(name) == "percent" else 1.0
    return FoundAgain((last - before) * times, f"{last:g} − {before:g}" + (" in bp" if times != 1 else ""))


def _days(market: MarketStore, name: str, as_of: dt.date, last: dt.date) -> list[Day]:
    """What was known of a series on `as_of`, to the day `last`: a month is stamped before it is known."""
    days = days_of(market, name, as_of)
    return days[: bisect_right(days, last, key=lambda one: one.day)]


def same(found: float, value: float) -> bool:
    """Whether two figures are one, but for the last digits of a machine."""
    return math.isclose(found, value, rel_tol=1e-9, abs_tol=1e-12)


def _window(row: Evidence) -> tuple[dt.date | None, dt.date | None]:
    """The first and last day that a row names; the first is None where it names only the last."""
    if row.source is not None and (place := _POINTER.fullmatch(row.source.pointer)) is not None:
        end = place["end"] or place["on"] or place["by"]
        start = place["start"]
        return (dt.date.fromisoformat(start) if start else None), dt.date.fromisoformat(end)
    for told in (row.formula or "", row.period):
        if match := _WINDOW.search(told):
            return dt.date.fromisoformat(match["start"]), dt.date.fromisoformat(match["end"])
    return None, None
