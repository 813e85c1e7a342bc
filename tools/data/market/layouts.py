"""Which cells of a table are which series: wide and long tables, and the forms of Yahoo, Stooq, FRED, ECB, Treasury."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.tools.data.market.bars import BARS, Bar
from finllm.tools.data.tables.cells import as_text, blank, is_value
from finllm.tools.data.tables.table import Cell, Table

Field = Literal["adjusted", "close", "other"]
HEADINGS_PATH = Path(__file__).with_name("headings.yaml")
_FIGURE = re.compile(r"[-+]?\d+[.,]\d+")
_HAS_DIGIT = re.compile(r"[0-9]")
_NAMED_DAY = re.compile(r"[A-Za-z]{3,9}\.? [0-9]{1,2},? [0-9]{4}|[0-9]{1,2}[ -][A-Za-z]{3,9}\.?[ -][0-9]{2,4}")
_NUMBERED = re.compile(r"[0-9]{1,2}[.)] +(?=[A-Za-z])")
"""As in `1. open`, in the header."""
_PERIOD = re.compile(r"(?:19|20)[0-9]{2}(?:[-M /.]?(?:0[1-9]|1[0-2]|Q[1-4])(?:-[0-3][0-9])?)?")
MANY_PERIODS = 4
"""Headings that are days, months, quarters or years from which on a table is one that stands on its side."""
_CODE = re.compile(r"[A-Z]{3}")
_DIMENSION = re.compile(r"D[0-9]+")
"""A column that says which series a row is of, in the cubes of the Swiss National Bank."""
_BLOOMBERG = re.compile(r"(\S+)(?: [A-Z]{2})? (?:Equity|Index|Curncy|Comdty|Corp|Govt)")
_RIC = re.compile(r"([A-Z]+)\.(?:OQ|O|N|A|K|P)")
"""A RIC of an exchange of the United States, whose first part is the ticker."""
_FIELD_AT_END = re.compile(r"(.+?)[ ._:](adj(?:usted)?[ ._]?close|adjusted|open|high|low|close|volume)", re.IGNORECASE)


class Headings(BaseModel):
    """The table of headings; see there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adjusted: frozenset[str]
    close: frozenset[str]
    other: frozenset[str]
    bars: frozenset[str]
    high: frozenset[str]
    low: frozenset[str]
    volume: frozenset[str]
    dates: frozenset[str]
    names: frozenset[str]
    noise: frozenset[str]

    def field(self, heading: str) -> Field | None:
        """Which of one instrument's figures a column holds; None where its heading is none of them."""
        key = _key(heading)
        return next((kind for kind in get_args(Field) if key in getattr(self, kind)), None)

    def bar(self, heading: str) -> Bar | None:
        """Which of a day's high, low and volume a column holds; None where its heading is none of them."""
        key = _key(heading)
        return next((kind for kind in BARS if key in getattr(self, kind)), None)


@cache
def headings() -> Headings:
    """The table of headings, read once, on first use."""
    import yaml

    rows = yaml.load(HEADINGS_PATH.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return Headings.model_validate({name: frozenset(map(str, words)) for name, words in rows.items()})


@dataclass(frozen=True)
class Cells:
    """One series as the file has it: its name there (None where the file gives it none), and for each value its day's
    cell, its own and its row in the file. `beside`: the cells of its high, low and volume, of those that it has."""

    given: str | None
    days: list[Cell]
    values: list[Cell]
    rows: list[int]
    beside: Mapping[Bar, list[Cell]] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """How a table was understood: `rule` in words, its series, and what else to say."""

    rule: str
    series: list[Cells]
    notes: list[str] = field(default_factory=list)


def below_preamble(table: Table) -> Table:
    """The table with its header in the row above the first that begins with a day, where rows of texts stand above it,
    as in the Federal Reserve Board's own files."""
    at = next((at for at, row in enumerate(table.rows) if row and _is_day(row[0])), 0)
    above = table.rows[at - 1] if at else []
    if not at or any(_HAS_DIGIT.search(as_text(row[0])) for row in table.rows[:at]):
        return table
    if sum(not blank(cell) for cell in above) < 2 or any(map(is_value, above)):
        told = ", ".join(repr(as_text(row[0])[:40]) for row in table.rows[:at])
        notes = (*table.notes, f"rows above the first day are no figures and are left out: {told}")
        return replace(table, rows=table.rows[at:], numbers=table.numbers[at:], notes=notes)
    header = tuple(as_text(cell) for cell in above)
    if (
        at == 1
        and len(header) == len(table.header)
        and all(map(headings().field, header[1:]))
        and all(table.header[1:])
    ):
        both = tuple(f"{name} {what}".strip() for name, what in zip(table.header, header, strict=True))
        return replace(
            table, header=both, levels=(table.header, header), rows=table.rows[1:], numbers=table.numbers[1:]
        )
    notes = (*table.notes, f"the header is in row {table.numbers[at - 1]}, and {at} rows above it are not read")
    return replace(
        table, header=header, levels=(header,), rows=table.rows[at:], numbers=table.numbers[at:], notes=notes
    )


def stated_percent(table: Table) -> bool:
    """Whether a row above the first day says that the unit is per cent, as in the Bundesbank's files."""
    for row in table.rows[:MANY_PERIODS]:
        if as_text(row[0]).strip().casefold() in ("unit", "einheit"):
            return any("%" in as_text(cell) for cell in row[1:])
    return False


def _is_day(cell: Cell) -> bool:
    """Whether a first cell may be a day: a figure, or one with the name of a month."""
    return is_value(cell) or bool(_NAMED_DAY.fullmatch(as_text(cell)))


def layout_of(table: Table) -> Layout:
    """The series of a table. Errors: InputError for one without a column of days or of values."""
    names, fields = _columns(table)
    date = _date_column(table, names)
    if is_value(names[date]) or any(map(_FIGURE.fullmatch, names)):
        raise InputError(f"{table.path}: row {table.header_row} holds figures and is no header",
                         fix="add a row above it that names the columns")  # fmt: skip
    if sum(bool(_PERIOD.fullmatch(name)) for name in names) >= MANY_PERIODS:
        raise InputError(f"{table.path}: days stand in the header, and each row is a series",
                         fix="turn the table round (transpose it), so that each row is a day")  # fmt: skip
    _refuse_blocks(table, names)
    filled = [
        at for at in range(len(names))
        if at != date and not _key(names[at]).endswith("flags") and any(not blank(row[at]) for row in table.rows)
    ]  # fmt: skip
    return _with_empty(_laid_out(table, names, fields, date, filled), names, (date, *filled))


def _refuse_blocks(table: Table, names: Sequence[str]) -> None:
    """Errors: InputError for instruments side by side of which each has days of its own, as where several calls of
    Bloomberg's BDH stand beside each other."""
    days = [at for at, name in enumerate(names) if _key(name) in ("date", "dates")]
    if len(days) > 1:
        where = ", ".join(str(at + 1) for at in days)
        raise InputError(
            f"{table.path}: {len(days)} blocks stand side by side, each with days of its own: columns {where}",
            fix="give each block a file of its own, with --as NAME, or export one block with one column of days, as"
            " =BDH(all tickers; PX_LAST; start; end)",
        )


def _with_empty(layout: Layout, names: Sequence[str], read: Sequence[int]) -> Layout:
    """The layout, with the names of columns without any figure said."""
    empty = [name for at, name in enumerate(names) if at not in read and name]
    return replace(layout, notes=[*layout.notes, f"no figure at all in {', '.join(empty)}"]) if empty else layout


def _laid_out(
    table: Table, names: Sequence[str], fields: Sequence[Field | None], date: int, others: Sequence[int]
) -> Layout:
    if not others:
        raise InputError(f"{table.path}: no instrument", fix="write the date first, then one column per instrument")
    cube = [at for at in others if _DIMENSION.fullmatch(names[at])]
    if cube and [_key(names[at]) for at in others if at not in cube] == ["value"]:
        return _cube(table, date, cube, next(at for at in others if at not in cube))
    name_at = next((at for at in others if _key(names[at]) in headings().names and fields[at] is None), None)
    valued = [at for at in others if at != name_at and fields[at] in ("adjusted", "close")]
    if name_at is not None and valued:
        return _long(table, names, fields, date, name_at, valued)
    if len(table.levels) == 1:
        keys = {_key(names[at]) for at in others}
        alone = len(others) == 1 and fields[others[0]] == "close"
        if valued and (keys & headings().bars or alone):
            at, notes = _chosen(names, fields, others, "one instrument")
            series = _cells(table, None, table.column(date), at, _beside({names[at]: at for at in others}))
            return Layout("one instrument", [series], notes)
        if others and all(fields[at] == "other" for at in others) and len(keys & headings().bars) > 1:
            raise InputError(f"{table.path}: columns {', '.join(names[at] for at in others)} hold no close",
                             fix="export the close, or the adjusted close")  # fmt: skip
    grouped = _by_instrument(table, names, fields, others)
    if grouped is not None:
        return _bars(table, date, grouped)
    return _wide(table, names, date, others)


def _columns(table: Table) -> tuple[list[str], list[Field | None]]:
    """The names of the columns, and which of one instrument's figures each holds by its heading."""
    width = len(table.rows[0])  # a line that ends in a separator has a heading more
    names = [_NUMBERED.sub("", name.strip("<> ")) for name in table.header[:width]]
    return names, [headings().field(name) for name in names]


def _date_column(table: Table, names: Sequence[str]) -> int:
    """The column of days: by its heading, in any of the header's lines; else the first."""
    for at in range(len(names)):
        if any(_key(level[at]) in headings().dates for level in table.levels):
            return at
    return 0


def _by_instrument(
    table: Table, names: Sequence[str], fields: Sequence[Field | None], others: Sequence[int]
) -> dict[str, dict[str, int]] | None:
    """Columns by instrument and heading, where the header's two lines or every name tell both; else None."""
    found: dict[str, dict[str, int]] = {}
    if len(table.levels) > 1:
        lines = [[level[at] for at in others] for level in table.levels]
        figures = next((line for line in lines if all(headings().field(one) for one in line)), None)
        tickers = next((line for line in lines if line is not figures and all(line)), None)
        if figures is None or tickers is None:
            return None
        for at, ticker, heading in zip(others, tickers, figures, strict=True):
            found.setdefault(ticker, {})[heading] = at
        return found
    for at in others:
        match = _FIELD_AT_END.fullmatch(names[at])
        if match is None:
            return None
        found.setdefault(match[1], {})[match[2]] = at
    return found


def _bars(table: Table, date: int, grouped: dict[str, dict[str, int]]) -> Layout:
    """Several instruments with open, high, low, close and so on each."""
    series: list[Cells] = []
    notes: list[str] = []
    days = table.column(date)
    for ticker, columns in grouped.items():
        lines = list(columns)
        try:
            at, said = _chosen(lines, [headings().field(one) for one in lines], range(len(lines)), "")
        except InputError as error:
            raise InputError(f"{table.path}: {ticker!r} {error.message}", fix=error.fix) from error
        short = _BLOOMBERG.fullmatch(ticker)
        name = short[1] if short else ticker
        series.append(_cells(table, name, days, columns[lines[at]], _beside(columns)))
        notes += [one for one in said if one not in notes]
    return Layout(f"{len(series)} instruments with several columns each", series, notes)


def _chosen(
    names: Sequence[str], fields: Sequence[Field | None], among: Sequence[int], what: str
) -> tuple[int, list[str]]:
    """The adjusted close where there is one, else the close; and which columns are not read, in words."""
    for wanted in ("adjusted", "close"):
        at = next((at for at in among if fields[at] == wanted), None)
        if at is not None:
            rest = list(dict.fromkeys(names[one] for one in among if one != at))
            said = f"{names[at]!r} is read" + (f", not {', '.join(rest)}" if rest else "")
            return at, [f"{what}: {said}" if what else said] if rest else []
    raise InputError("has no close", fix="export the close, or the adjusted close")


def _long(
    table: Table, names: Sequence[str], fields: Sequence[Field | None], date: int, name_at: int, valued: Sequence[int]
) -> Layout:
    """One row for a day and an instrument."""
    among = [at for at in range(len(names)) if at not in (date, name_at) and fields[at] is not None]
    at, notes = _chosen(names, fields, among or valued, "")
    beside = _beside({names[at]: at for at in among})
    found: dict[str, Cells] = {}
    stooq, rics = any("<" in name for name in table.header), _key(names[name_at]) in ("ric", "instrument")
    for row, number in zip(table.rows, table.numbers, strict=True):
        name = as_text(row[name_at])
        if not name:
            raise InputError(f"{table.path}: row {number} names no instrument in column {names[name_at]!r}",
                             fix="name it, or leave the row out")  # fmt: skip
        if stooq:
            name = name.removesuffix(".US")
        elif rics and (ric := _RIC.fullmatch(name)):
            name = ric[1]
        one = found.setdefault(name, Cells(name, [], [], [], {bar: [] for bar in beside}))
        one.days.append(row[date])
        one.values.append(row[at])
        one.rows.append(number)
        for bar, column in beside.items():
            one.beside[bar].append(row[column])
    return Layout(f"long: one row for a day and {names[name_at]!r}", list(found.values()), notes)


def _cube(table: Table, date: int, cube: Sequence[int], value: int) -> Layout:
    """One row for a day and a value of each dimension: a series is named by the dimensions that vary."""
    varies = [at for at in cube if len({as_text(row[at]) for row in table.rows}) > 1] or cube[-1:]
    found: dict[str, Cells] = {}
    for row, number in zip(table.rows, table.numbers, strict=True):
        one = found.setdefault(name := "_".join(as_text(row[at]) for at in varies), Cells(name, [], [], []))
        one.days.append(row[date])
        one.values.append(row[value])
        one.rows.append(number)
    named = ", ".join(table.header[at] for at in varies)
    return Layout(f"a cube: one row for a day and {named}", list(found.values()), [f"series are named by {named}"])


def _wide(table: Table, names: Sequence[str], date: int, others: Sequence[int]) -> Layout:
    """One column per series."""
    problems = [f"column {at + 1} has no name" for at in others if not names[at]]
    problems += [f"column {name!r} appears twice" for name in sorted({names[at] for at in others if names[at]})
                 if sum(names[at] == name for at in others) > 1]  # fmt: skip
    if problems:
        raise InputError("\n".join(f"{table.path}: {one}" for one in problems), fix="name every column once")
    days = table.column(date)
    codes = [at for at in others if _CODE.fullmatch(names[at])]
    if len(others) >= 2 and len(codes) == len(others) and any(names[at] == "EUR" for at in others):
        raise InputError(f"{table.path}: columns {', '.join(names[at] for at in others)} are one thing in several "
                         "currencies, and nothing says which thing",
                         fix="keep the column that is wanted, and name it with --as NAME")  # fmt: skip
    if len(others) >= 3 and len(codes) == len(others) and {"USD", "JPY", "GBP"} & {names[at] for at in others}:
        series = [_cells(table, f"EUR{names[at]}", days, at) for at in others]
        return Layout(
            "euro reference rates", series, ["columns are units of each currency for one euro: EURUSD and so on"]
        )
    return Layout("wide: one column per series", [_cells(table, names[at], days, at) for at in others])


def _beside(columns: Mapping[str, int]) -> dict[Bar, int]:
    """Which columns, by heading, are a day's high, low and volume: the first of each."""
    found: dict[Bar, int] = {}
    for name, at in columns.items():
        if (bar := headings().bar(name)) is not None:
            found.setdefault(bar, at)
    return found


def _cells(table: Table, name: str | None, days: list[Cell], at: int, beside: Mapping[Bar, int] | None = None) -> Cells:
    bars: dict[Bar, list[Cell]] = {bar: table.column(column) for bar, column in (beside or {}).items()}
    return Cells(name, days, table.column(at), table.numbers, bars)


def name_of_file(stem: str) -> str:
    """An instrument's name by its file's: `yahoo_AAPL` and `aapl_us_d` are AAPL; the stem where nothing is left."""
    parts = [part for part in re.split(r"[_\s\-()]+", stem) if part]
    kept = [part for part in parts if part.lower() not in headings().noise and not part.isdigit()]
    return (kept[0].upper() if kept[0].islower() else kept[0]) if len(kept) == 1 else "_".join(kept) or stem


def _key(text: str) -> str:
    """A heading without accents, marks, blanks and case."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(one for one in plain if one.isalnum() and one.isascii())
