"""The user's price files: any table of daily, monthly or quarterly figures as series, and what was decided about it."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.market.bars import Bars, read_bars
from finllm.tools.data.market.layouts import Cells, Layout, below_preamble, layout_of, name_of_file, stated_percent
from finllm.tools.data.market.names import KnownName, known_as, scale_of, typical_ratio
from finllm.tools.data.market.series import Frequency, Series, SeriesUnit, Step, stamp_of
from finllm.tools.data.tables.cells import as_text, blank
from finllm.tools.data.tables.dates import Order, read_dates
from finllm.tools.data.tables.numbers import MARKS, Mark, decimal_mark, marks_of, read_numbers
from finllm.tools.data.tables.reader import read_table
from finllm.tools.data.tables.table import Cell, Table

SHOWN = 3
"""Problems of one kind that an error names."""
FAR_FROM_TYPICAL = math.log(3)
"""How far, as a logarithm, a price may be from the typical one of the series whose name it bears."""
_MONTH = re.compile(r"(\d{4})[-/M ]?(\d{2})")
_SLASHED = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})")
_NO_DATA = frozenset(("nd", "nc", "#n/a n/a"))


@dataclass(frozen=True)
class ReadOptions:
    """What the user says about a file. `names`: of its series, by those in the file; None names the only one.

    `splits`: by series, days and how many times as many shares there are from then on.
    """

    names: Mapping[str | None, str] = field(default_factory=dict)
    unit: SeriesUnit | None = None
    dates: Order | None = None
    decimal: str | None = None
    zone: str | None = None
    sheet: str | None = None
    splits: Mapping[str, tuple[tuple[dt.date, float], ...]] = field(default_factory=dict)

    @property
    def mark(self) -> Mark | None:
        return None if self.decimal is None else MARKS[self.decimal]


@dataclass(frozen=True)
class FileRead:
    """The series of a file, the rule by which it was read, and its digest."""

    series: list[Series]
    rule: str
    sha256: str
    notes: tuple[str, ...]


def read_price_file(path: Path, options: ReadOptions | None = None) -> FileRead:
    """The series of a table of people, as `docs/data.md` describes the forms that are known.

    Days may run either way; an empty cell is a day without a figure. Names that the table `names.yaml` knows are kept
    under the name of the series, in its unit. Errors: InputError that names the row, or both readings of what is
    ambiguous and the option that settles it.
    """
    options = options or ReadOptions()
    whole = read_table(path, what="price file", sheet=options.sheet)
    table = below_preamble(whole)
    if options.unit is None and stated_percent(whole):
        options = replace(options, unit="percent")
        table = replace(table, notes=(*table.notes, "figures are per cent, as the file says"))
    layout = layout_of(table)
    days, said = _days(table, layout, options)
    notes = [f"{path.name}: {one}" for one in (*table.notes, *layout.notes, *said)]
    mark = _mark(table, layout, options)
    if mark == "," and options.decimal is None:
        notes.append(f"{path.name}: figures have a decimal comma")
    series, bad, empty = _all(table, layout, days, mark, options)
    if bad:
        raise InputError(_listed(path, bad), fix="correct the file; a day without a figure has an empty cell")
    if not series:
        raise InputError(f"{path}: column {', '.join(map(repr, empty))} holds no price", fix="add prices")
    if empty:
        notes.append(f"{path.name}: no figure at all in {', '.join(empty)}")
    _check_names(path, series, options, layout)
    told = [replace(one, notes=(*notes, *one.notes)) for one in series]
    return FileRead(told, layout.rule, table.sha256, tuple(notes))


def _all(
    table: Table, layout: Layout, days: Mapping[int, pd.DatetimeIndex], mark: Mark, options: ReadOptions
) -> tuple[list[Series], list[str], list[str]]:
    """The series, what is wrong with cells, and the names of series without any figure."""
    found: list[Series] = []
    problems: list[str] = []
    empty: list[str] = []
    for cells in layout.series:
        name, about = _name(cells, table.path, options, len(layout.series))
        values, bad = _values(cells, name, mark)
        problems += bad
        if bad:
            continue
        one = pd.Series(values, index=days[id(cells.days)], dtype="float64", name=name).dropna()
        if one.empty:
            empty.append(name)
        else:
            made = _series(one, cells, name, about, table, options, values)
            found.append(_with_bars(made, cells, days[id(cells.days)], mark))
    return found, problems, empty


def _series(
    values: pd.Series, cells: Cells, name: str, about: str, table: Table, options: ReadOptions, whole: Sequence[float]
) -> Series:
    """One series with its unit, frequency and splits. Errors: InputError."""
    notes = [about] if about else []
    where = f"{table.path}: {name!r}"
    values, said = _ordered(values, where)
    notes += [f"{name!r}: {one}" for one in said]
    frequency = _frequency(values, where)
    if frequency != "daily":
        values = values if frequency == "weekly" else _periods(values, frequency, where)
        notes.append(f"{name!r}: {frequency}")
    known = known_as(cells.given or name) or known_as(name)
    if known is not None and known.series != name:
        known = None
    values, unit, said = _in_unit(values, known, options.unit, where)
    notes += [f"{name!r}: {one}" for one in said]
    if unit == "price" and len(zero := pd.Series(values[values == 0])):
        more = f" and {len(zero) - 1} more days" if len(zero) > 1 else ""
        raise InputError(f"{where} is 0 on {_day(zero.index[0])}{more}",
                         fix="leave the cell empty where there is no price")  # fmt: skip
    first, last = np.flatnonzero(~np.isnan(whole))[[0, -1]]
    if gaps := int(np.isnan(whole[first : last + 1]).sum()):
        notes.append(f"{name!r}: {gaps} days without a figure are taken for holidays")
    there = set(pd.DatetimeIndex(values.index)[1:])
    absent = [str(day) for day, _ in options.splits.get(name, ()) if stamp_of(day) not in there]
    if absent:
        raise InputError(f"{where} has no move on {', '.join(absent)}, where --splits says that it was split",
                         fix="name the first day of the new price")  # fmt: skip
    steps = tuple(Step(stamp_of(day), 1 / times) for day, times in options.splits.get(name, ()))
    also = (cells.given,) if cells.given and cells.given != name else ()
    return Series(name, values, unit, frequency, table.path.resolve().as_uri(), table.sha256, steps,
                  stamp_of(values.index[0]), tuple(notes), also)  # fmt: skip


def _with_bars(series: Series, cells: Cells, days: pd.DatetimeIndex, mark: Mark) -> Series:
    """A daily series with the highs, lows and volumes that its file has, and what is kept of them in its notes."""
    if not cells.beside or series.frequency != "daily":
        return series
    frame, said = read_bars(cells.beside, days, mark)
    frame = pd.DataFrame(frame[~frame.index.duplicated()]).reindex(series.values.index).dropna(how="all")
    bars = None if frame.empty else Bars(frame, series.uri, series.sha256)
    return replace(series, bars=bars, notes=(*series.notes, f"{series.name!r}: {said}"))


def _name(cells: Cells, path: Path, options: ReadOptions, count: int) -> tuple[str, str]:
    """The name that a series is kept under, and where it is from where that is to be said."""
    asked = options.names.get(cells.given, options.names.get(None) if count == 1 else None)
    if asked is not None:
        known = known_as(asked)
        if known is not None and known.series != asked:
            return known.series, f"{asked!r} is kept as {known.series}, {known.about.what}"
        return asked, ""
    if options.names.get(None) is not None:
        raise InputError(f"{path}: holds {count} series, and --as gives one name",
                         fix="write --as COLUMN=NAME for each that is to have another")  # fmt: skip
    name = cells.given or name_of_file(path.stem)
    known = known_as(name)
    source = "" if cells.given else f"the name {name!r} is from the file's; --as NAME gives another"
    if known is None or known.series == name:
        return name, source
    about = f"{name!r} is kept as {known.series}, {known.about.what}"
    return known.series, f"{source}; {about}" if source else about


def _check_names(path: Path, found: Sequence[Series], options: ReadOptions, layout: Layout) -> None:
    """Errors: InputError for two series of one name, and for names of columns and splits that are not there."""
    for at, one in enumerate(found):
        twin = next((other for other in found[:at] if other.name == one.name), None)
        if twin is not None:
            names = " and ".join(repr((side.also or (side.name,))[0]) for side in (twin, one))
            raise InputError(f"{path}: columns {names} are both {one.name}",
                             fix="leave one of them out, or name it with --as")  # fmt: skip
    given = [one.given for one in layout.series]
    unknown = [name for name in options.names if name is not None and name not in given]
    unknown += [name for name in options.splits if name not in {one.name for one in found}]
    if unknown:
        raise InputError(f"{path}: has no column {', '.join(map(repr, unknown))}",
                         fix=f"name one of {', '.join(str(one) for one in given if one)}")  # fmt: skip


def _days(
    table: Table, layout: Layout, options: ReadOptions
) -> tuple[dict[int, pd.DatetimeIndex], list[str]]:  # fmt: skip
    """The days of each list of cells, by its identity. Errors: InputError for a cell that is no day."""
    whole = list(dict.fromkeys(id(one.days) for one in layout.series))
    lists = {id(one.days): one for one in layout.series}
    cells = [cell for key in whole for cell in lists[key].days]
    rows = [row for key in whole for row in lists[key].rows]
    shaped = [_shaped(cell, options.zone) for cell in cells]
    read = read_dates(shaped, where=str(table.path), order=options.dates, epoch=table.epoch)
    bad = [f"row {rows[at]}: {text}" for at, text in read.bad.items()]
    bad += [f"row {rows[at]}: no date" for at, cell in enumerate(shaped) if blank(cell)]
    if bad:
        raise InputError(_listed(table.path, bad), fix="write days as 2022-06-30, or leave the row out")
    notes = [one.removeprefix(f"{table.path}: ") for one in read.notes]
    if options.zone is None and (zoned := next((one for one in cells if _has_zone(one)), None)) is not None:
        notes.append(
            f"times such as {as_text(zoned)!r} are of a zone: days are taken as written; --zone takes them elsewhere"
        )
    found: dict[int, pd.DatetimeIndex] = {}
    at = 0
    for key in whole:
        count = len(lists[key].days)
        found[key] = pd.DatetimeIndex(pd.to_datetime(read.values[at : at + count]).as_unit("ns"))
        at += count
    return found, notes


def _shaped(cell: Cell, zone: str | None) -> Cell:
    """A cell in a form that `read_dates` knows: months alone, and days of one figure, are written out."""
    if zone is not None:
        cell = _in_zone(cell, zone)
    if isinstance(cell, str):
        if match := _MONTH.fullmatch(cell):
            return f"{match[1]}-{match[2]}-01"
        if match := _SLASHED.fullmatch(cell):
            return f"{match[1]}-{int(match[3]):02}-{int(match[4]):02}"
    return cell


def _has_zone(cell: Cell) -> bool:
    if isinstance(cell, dt.datetime):
        return cell.tzinfo is not None and (cell.hour, cell.minute) != (0, 0)
    match = isinstance(cell, str) and re.search(r"[T ](\d{2}:\d{2})[\d:.]*(Z|[+-]\d{2}:?\d{2}| ?UTC)$", cell)
    return bool(match) and match[1] != "00:00"


def _in_zone(cell: Cell, zone: str) -> Cell:
    """The day of a moment in a zone; a moment without one is of UTC, and a day without a time stays."""
    try:
        there = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(f"unknown zone {zone!r}", fix="name one such as America/New_York or Europe/London") from error
    moment: dt.datetime | None = cell if isinstance(cell, dt.datetime) else None
    if isinstance(cell, str) and re.search(r"\d[T ]\d{2}:\d{2}", cell):
        try:
            moment = dt.datetime.fromisoformat(cell)
        except ValueError:
            return cell
    if moment is None or (moment.tzinfo is None and moment.time() == dt.time()):
        return cell
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(there).date()


def _mark(table: Table, layout: Layout, options: ReadOptions) -> Mark:
    """The decimal mark of all series of the file: one vendor wrote them."""
    total = marks_of(cell for one in layout.series for cell in one.values)
    return decimal_mark(total, total, options.mark, str(table.path))


def _values(cells: Cells, name: str, mark: Mark) -> tuple[list[float], list[str]]:
    wanted = [None if isinstance(one, str) and one.lower() in _NO_DATA else one for one in cells.values]
    read = read_numbers(wanted, mark)
    return read.values, [f"row {cells.rows[at]}, column {name!r}: {text}" for at, text in read.bad.items()]


def _ordered(values: pd.Series, where: str) -> tuple[pd.Series, list[str]]:
    """Oldest first and each day once. Errors: InputError for days in no order, or two figures for one day."""
    notes: list[str] = []
    days = pd.DatetimeIndex(values.index)
    if not days.is_monotonic_increasing and days.is_monotonic_decreasing:
        values = values.iloc[::-1]
        notes.append("the newest day came first: turned round")
    elif not days.is_monotonic_increasing:
        at = int(np.flatnonzero(np.diff(days.to_numpy()).astype("int64") < 0)[0])
        raise InputError(f"{where}: {_day(days[at + 1])} comes after {_day(days[at])}",
                         fix="sort the rows by date; if day and month are swapped, give --dates")  # fmt: skip
    twice = values.index.duplicated(keep=False)
    if twice.any():
        again = pd.Series(values[twice])
        for day in again.index.unique():
            two = pd.Series(again[again.index == day]).unique()
            if len(two) > 1:
                raise InputError(f"{where}: {_day(day)} appears twice, with {two[0]:g} and {two[1]:g}",
                                 fix="keep one row for each day")  # fmt: skip
        notes.append(f"{int(values.index.duplicated().sum())} rows repeat a day with the same figure, the first "
                     f"{_day(again.index[0])}: left out")  # fmt: skip
        values = pd.Series(values[~values.index.duplicated()])
    return pd.Series(values), notes


def _frequency(values: pd.Series, where: str) -> Frequency:
    """By the typical number of days between rows; a handful of rows counts as daily. Errors: InputError for others."""
    if len(values) < 4:
        return "daily"
    typical = float(np.median(np.diff(values.index.to_numpy()).astype("timedelta64[D]").astype(int)))
    if typical <= 4:
        return "daily"
    if 6 <= typical <= 8:
        return "weekly"
    if 26 <= typical <= 33:
        return "monthly"
    if 85 <= typical <= 95:
        return "quarterly"
    raise InputError(f"{where}: rows are typically {typical:g} days apart",
                     fix="give daily figures, or those of every week, month or quarter")  # fmt: skip


def _periods(values: pd.Series, frequency: Frequency, where: str) -> pd.Series:
    """Stamped with the first day of the month or quarter."""
    periods = pd.DatetimeIndex(values.index).to_period("M" if frequency == "monthly" else "Q").to_timestamp()
    found = pd.Series(values.to_numpy(), index=pd.DatetimeIndex(periods).as_unit("ns"), name=values.name)
    if found.index.has_duplicates:
        day = found.index[found.index.duplicated().argmax()]
        raise InputError(f"{where}: two figures in the month or quarter of {_day(day)}", fix="keep one of them")
    return found


def _in_unit(
    values: pd.Series, known: KnownName | None, asked: SeriesUnit | None, where: str
) -> tuple[pd.Series, SeriesUnit, list[str]]:
    """The figures in the unit of the series that the name is of, or in that asked for, and what was done."""
    if known is None:
        return values, asked or "price", []
    unit = known.about.unit
    if asked is not None and asked != unit:
        if (asked, unit) == ("bp", "percent"):
            return values / 100, unit, ["basis points: divided by a hundred"]
        raise InputError(f"{where} is {known.about.what}, which is in {unit}, not in {asked}",
                         fix="leave out --unit, or give it another name with --as")  # fmt: skip
    scale, why = (1.0, "") if asked is not None else scale_of(known, values)
    typical = known.about.typical
    if unit == "price" and typical and abs(math.log(max(typical_ratio(known, values), 1e-9))) > FAR_FROM_TYPICAL:
        raise InputError(f"{where} is {values.iloc[-1]:g} on {_day(values.index[-1])}: too far from {known.about.what}",
                         fix="give it another name, with --as or in the file's header")  # fmt: skip
    said = [f"{known.about.what}, in {unit}"] if unit != "price" else []
    return values * scale, unit, [*said, *([why] if why else [])]


def _listed(path: Path, problems: Sequence[str]) -> str:
    """The first problems, a line each, and how many more there are."""
    lines = [f"{path}: {text}" for text in problems[:SHOWN]]
    return "\n".join([*lines, *([f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])])


def _day(stamp: object) -> str:
    return str(stamp)[:10]
