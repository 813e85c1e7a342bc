"""Days as people write them: ISO, European, American, with names of months, as Excel's serial numbers."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from finllm.errors import InputError
from finllm.tools.data.tables.cells import as_text, blank
from finllm.tools.data.tables.table import Cell, Epoch

Order = Literal["day-first", "month-first"]
SERIALS = (10_000, 90_000)
"""Serial numbers that are taken for days: of 1927 to 2146, counted from 1900."""
PIVOT = 70
"""Two digits below this are a year of this century."""

_ISO = re.compile(r"(\d{4})[-/.]?(\d{2})[-/.]?(\d{2})(?:[T ]\d{1,2}:\d{2}.*)?", re.ASCII)
_NUMERIC = re.compile(r"(\d{1,2})([-/. ])(\d{1,2})\2(\d{4}|\d{2})(?:,? \d{1,2}:\d{2}.*)?", re.ASCII)
_NAMED = re.compile(
    r"(?:[^\W\d_]+\.?,? )?(\d{1,2})(?:st|nd|rd|th)?[-. /]{0,2}([^\W\d_]{3,})\.?,?[-. /]?'?(\d{4}|\d{2})"
)
_MONTH_FIRST = re.compile(r"(?:[^\W\d_]+\.?,? )?([^\W\d_]{3,})\.?[- ](\d{1,2})(?:st|nd|rd|th)?,?[- ](\d{4}|\d{2})")
_YEAR_NAMED = re.compile(r"(\d{4})[- ]([^\W\d_]{3,})\.?[- ](\d{1,2})")
_SERIAL = re.compile(r"\d{5}(?:\.\d+)?", re.ASCII)
_MONTHS = {
    name: month
    for month, names in enumerate((
        "jan january januar jän jänner janv janvier", "feb february februar fév fev févr fevr février fevrier",
        "mar march mär mrz märz maerz mars", "apr april avr avril", "may mai", "jun june juni juin",
        "jul july juli juil juillet", "aug august aoû aout août", "sep sept september septembre",
        "oct october okt oktober octobre", "nov november novembre", "dec december dez dezember déc décembre decembre",
    ), start=1)
    for name in names.split()
}  # fmt: skip


@dataclass(frozen=True)
class Dates:
    """`values`: None where a cell is empty or no day. `bad`: what is wrong at that place. `notes`: how it was read."""

    values: list[dt.date | None]
    bad: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_dates(cells: Sequence[Cell], *, where: str, order: Order | None = None, epoch: Epoch = 1900) -> Dates:
    """Each cell as a day; a time of day is left off. `epoch` is what serial numbers count from.

    `order` holds for days in figures alone, such as 01.02.2026; without it a cell such as 13.02.2026 tells.
    Errors: InputError, beginning with `where`, where two cells contradict each other or none tells.
    """
    texts = {as_text(cell): cell for cell in cells if not blank(cell)}
    said = order or _order_of([text for text, cell in texts.items() if isinstance(cell, str)], where)
    read = {text: _day(cell, said, epoch) for text, cell in texts.items()}
    values: list[dt.date | None] = []
    bad: dict[int, str] = {}
    for at, cell in enumerate(cells):
        values.append(None if blank(cell) else read[as_text(cell)])
        if values[-1] is None and not blank(cell):
            bad[at] = f"{as_text(cell)!r} is not a date; write it as 2022-06-30"
    notes: list[str] = []
    if said is not None and any(isinstance(cell, str) and _NUMERIC.fullmatch(cell) for cell in texts.values()):
        notes.append(f"{where}: days are read {said}")
    if any(read[text] and _is_serial(cell) for text, cell in texts.items()):
        notes.append(f"{where}: serial numbers are read as days, counted from {epoch}")
    return Dates(values, bad, tuple(notes))


def _order_of(texts: Sequence[str], where: str) -> Order | None:
    """Which comes first, by the cells in which only one reading is a day; None where there is no question."""
    witnesses: dict[Order, str] = {}
    either: tuple[str, dt.date, dt.date] | None = None
    for text in texts:
        by_day, by_month = _numeric(text, "day-first"), _numeric(text, "month-first")
        if by_day and by_month and by_day != by_month:
            either = either or (text, by_day, by_month)
        elif by_day and not by_month:
            witnesses.setdefault("day-first", text)
        elif by_month and not by_day:
            witnesses.setdefault("month-first", text)
    if len(witnesses) > 1:
        day, month = witnesses["day-first"], witnesses["month-first"]
        raise InputError(f"{where}: {day} has the day first, and {month} the month",
                         fix="write them alike, such as 2022-06-30")  # fmt: skip
    if witnesses:
        return next(iter(witnesses))
    if either:
        text, by_day, by_month = either
        readings = " or ".join(f"{one.day} {one:%B}" for one in (by_day, by_month))
        raise InputError(f"{where}: {text} may be {readings}", fix="give --dates day-first, or --dates month-first")
    return None


def _day(cell: Cell, order: Order | None, epoch: Epoch) -> dt.date | None:
    if isinstance(cell, dt.datetime):
        return cell.date()
    if isinstance(cell, dt.date):
        return cell
    if isinstance(cell, (bool, dt.time)) or cell is None:
        return None
    if isinstance(cell, str) and not _SERIAL.fullmatch(cell):
        return _iso(cell) or _numeric(cell, order or "day-first") or _named(cell)
    value = float(cell)
    if SERIALS[0] <= value <= SERIALS[1]:
        start = dt.date(1904, 1, 1) if epoch == 1904 else dt.date(1899, 12, 30)
        return start + dt.timedelta(days=int(value))
    return _iso(str(int(value))) if value.is_integer() else None


def _is_serial(cell: Cell) -> bool:
    number = isinstance(cell, (int, float)) and SERIALS[0] <= cell <= SERIALS[1]
    return number or (isinstance(cell, str) and _SERIAL.fullmatch(cell) is not None)


def _iso(text: str) -> dt.date | None:
    match = _ISO.fullmatch(text)
    return match and _made(int(match[1]), int(match[2]), int(match[3]))


def _numeric(text: str, order: Order) -> dt.date | None:
    match = _NUMERIC.fullmatch(text)
    if match is None:
        return None
    first, second = int(match[1]), int(match[3])
    day, month = (first, second) if order == "day-first" else (second, first)
    return _made(_year(match[4]), month, day)


def _named(text: str) -> dt.date | None:
    if match := _NAMED.fullmatch(text):
        day, name, year = match[1], match[2], match[3]
    elif match := _MONTH_FIRST.fullmatch(text):
        name, day, year = match[1], match[2], match[3]
    elif match := _YEAR_NAMED.fullmatch(text):
        year, name, day = match[1], match[2], match[3]
    else:
        return None
    month = _MONTHS.get(name.lower())
    return _made(_year(year), month, int(day)) if month else None


def _year(text: str) -> int:
    short = int(text)
    return short if len(text) == 4 else short + (2000 if short < PIVOT else 1900)


def _made(year: int, month: int, day: int) -> dt.date | None:
    try:
        return dt.date(year, month, day)
    except ValueError:
        return None
