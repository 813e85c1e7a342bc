"""The cells of a portfolio's columns as texts, numbers and days, in the units that a position has."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from finllm.errors import InputError
from finllm.tools.data.books.columns import Column, by_field
from finllm.tools.data.books.fields import FIELDS, OWN, Field
from finllm.tools.data.books.mapping import Map
from finllm.tools.data.tables.cells import as_text
from finllm.tools.data.tables.dates import read_dates
from finllm.tools.data.tables.numbers import Marks, Numbers, decimal_mark, marks_of, read_numbers
from finllm.tools.data.tables.table import Cell, Table

T = TypeVar("T")
SCALED_CONVEXITY = 0.1
"""Where convexity is typically less than this share of duration², it is a hundredth of what it should be, as Bloomberg
shows it: a bullet's convexity is about duration² + duration (Fabozzi, Bond Markets, 2016, chapter 4)."""


@dataclass
class Values:
    """By field, one value a row. `numbers` are NaN and `days` None where a cell is empty or wrong; `problems` tell by
    row what is wrong. `unit` is the currency that the column of market values states, `signs` those beside figures.
    """

    texts: dict[str, list[str]] = field(default_factory=dict)
    numbers: dict[str, list[float]] = field(default_factory=dict)
    days: dict[str, list[dt.date | None]] = field(default_factory=dict)
    problems: dict[int, list[str]] = field(default_factory=dict)
    signs: dict[int, str] = field(default_factory=dict)
    unit: str | None = None
    base: str | None = None
    notes: list[str] = field(default_factory=list)


def read_values(table: Table, columns: Sequence[Column], mapping: Map) -> Values:
    """Read every column that is a field. Errors: InputError for numbers and days that may be read in two ways, and for
    two columns of one field that differ.
    """
    values = Values()
    groups = _apart(by_field(columns), values)
    cells = {column.at: table.column(column.at) for group in groups.values() for column in group}
    marks = {at: marks_of(cells[at], _fits(FIELDS[name])) for name, group in groups.items() for at in _ats(group)
             if FIELDS[name].kind == "number"}  # fmt: skip
    for name, group in groups.items():
        kind = FIELDS[name].kind
        if kind == "text":
            values.texts[name] = _merged(table, group, [[as_text(one) for one in cells[c.at]] for c in group], _empty)
        elif kind == "day":
            lists = [_days(table, column, cells[column.at], mapping, values) for column in group]
            values.days[name] = _merged(table, group, lists, lambda day: day is None)
        else:
            lists = [_numbers(table, column, cells[column.at], marks, mapping, values) for column in group]
            values.numbers[name] = _merged(table, group, lists, math.isnan)
    values.notes += [
        f"column {column.name!r}: a rate is taken as what one unit of the row's currency is worth in the base currency"
        for column in groups.get("fx", ()) if "base" not in column.name.lower() and column.name not in OWN
    ]  # fmt: skip
    if all(column.name not in OWN for column in groups.get("convexity", ())):
        _scale_convexity(values)
    return values


def _apart(groups: dict[str, list[Column]], values: Values) -> dict[str, list[Column]]:
    """Of several columns of market values, those whose names state a currency are in the base currency."""
    both = groups.get("market_value", [])
    stated = [column for column in both if column.unit]
    if stated and len(stated) < len(both):
        worth = [*groups.get("value_base", []), *(replace(column, field="value_base") for column in stated)]
        groups = {**groups, "market_value": [column for column in both if not column.unit], "value_base": worth}
    values.unit = next((one.unit for one in groups.get("market_value", []) if one.unit), None)
    values.base = next((one.unit for one in groups.get("value_base", []) if one.unit), None)
    return groups


def _ats(group: Iterable[Column]) -> list[int]:
    return [column.at for column in group]


def _fits(about: Field) -> Callable[[float], bool]:
    return lambda value: about.low <= value <= about.high


def _empty(text: str) -> bool:
    return not text


def _merged(table: Table, group: Sequence[Column], lists: Sequence[list[T]], empty: Callable[[T], bool]) -> list[T]:
    """In each row the value of the first column that has one.

    Errors: InputError where two have values that differ, but for identifiers and the like, of which the first counts.
    """
    found = lists[0]
    for column, others in zip(group[1:], lists[1:], strict=True):
        for at, other in enumerate(others):
            if empty(other):
                continue
            if empty(found[at]):
                found[at] = other
            elif found[at] != other and not FIELDS[column.field or ""].many:
                raise InputError(
                    f"{table.path}: columns {group[0].name!r} and {column.name!r} may both be the {column.field}, and "
                    f"differ in row {table.numbers[at]}",
                    fix=f"say which by a map, such as columns: {{{column.name!r}: null}}, and "
                        "'finllm portfolio check FILE --map MAP.yaml --save-map'",
                )  # fmt: skip
    return found


def _numbers(
    table: Table, column: Column, cells: list[Cell], marks: dict[int, Marks], mapping: Map, values: Values
) -> list[float]:
    assert column.field is not None
    about = FIELDS[column.field]
    others = sum((other for at, other in marks.items() if at != column.at), Marks())
    where = f"{table.path}: column {column.name!r}"
    mark = decimal_mark(marks[column.at], others, mapping.mark, where)
    read = read_numbers(cells, mark)
    if mark == "," and (marks[column.at].comma or marks[column.at].either):
        values.notes.append(f"column {column.name!r}: the comma is the decimal mark")
    elif mark == "." and marks[column.at].either and not marks[column.at].point and mapping.mark is None:
        values.notes.append(f"column {column.name!r}: the point is the decimal mark, as in the other columns")
    for at, wrong in read.bad.items():
        values.problems.setdefault(at, []).append(f"column {column.name!r}: {wrong}; write 1234.5")
    for at, cell in enumerate(cells):
        if cell is not None and math.isnan(read.values[at]) and str(cell).lower() == "nan":  # meant to be a number
            values.problems.setdefault(at, []).append(
                f"column {column.name!r}: {cell!r} is not a finite number; correct it or leave it empty")  # fmt: skip
    if column.field in ("price", "market_value"):
        values.signs |= read.signs
    found = _in_unit(table, column, about, read, values)
    for at, value in enumerate(found):
        if not math.isnan(value) and not about.low <= value <= about.high:
            wrong = f"{as_text(cells[at])} is not between {about.low:g} and {about.high:g}; correct it"
            values.problems.setdefault(at, []).append(f"column {column.name!r}: {wrong}")
            found[at] = math.nan
    return found


def _in_unit(table: Table, column: Column, about: Field, read: Numbers, values: Values) -> list[float]:
    """Thousands and percent as the field has them. Figures without a percent sign have one unit, told by their median.

    Errors: InputError where that may be either.
    """
    if column.scale != 1:
        return [value * column.scale for value in read.values]
    if about.percent_from is None:
        if read.percents:
            for at in read.percents:
                values.problems.setdefault(at, []).append(
                    f"column {column.name!r}: a percentage; give the figure itself"
                )
            return [math.nan if at in set(read.percents) else one for at, one in enumerate(read.values)]
        return read.values
    signed = set(read.percents)
    bare = sorted(abs(one) for at, one in enumerate(read.values) if one and at not in signed and not math.isnan(one))
    typical = bare[len(bare) // 2] if bare else 0.0
    if not bare or (typical < about.percent_from / 2 and not column.percent):
        return read.values
    if typical < about.percent_from and not column.percent:
        raise InputError(f"{table.path}: column {column.name!r}: {typical:g} may be {typical:g} % or {typical:.0%}",
                         fix=f"write percent signs, or name the column '{column.name} %'")  # fmt: skip
    values.notes.append(f"column {column.name!r}: its figures are read as percent")
    found = [one if at in signed else round(one / 100, 12) for at, one in enumerate(read.values)]
    for at, one in enumerate(read.values):
        if at not in signed and 0 < abs(one) < about.percent_from / 3 and not column.percent:
            either = f"{one:g} among percentages may be {one:.4g} % or {one:.4%}; write a percent sign"
            values.problems.setdefault(at, []).append(f"column {column.name!r}: {either}")
    return found


def _days(
    table: Table, column: Column, cells: list[Cell], mapping: Map, values: Values
) -> list[dt.date | None]:  # fmt: skip
    where = f"column {column.name!r}"
    try:
        read = read_dates(cells, where=where, order=mapping.dates, epoch=table.epoch)
    except InputError as error:
        raise InputError(f"{table.path}: {error.message}", fix=error.fix) from error
    for at, wrong in read.bad.items():
        values.problems.setdefault(at, []).append(f"{where}: {wrong}")
    values.notes += read.notes
    return read.values


def fill_constants(table: Table, mapping: Map, values: Values) -> None:
    """Put what the map says for all rows where the file has nothing. Errors: InputError for a value of another kind."""
    for name, text in mapping.constants.items():
        _constant(table, name, text, values)


def _constant(table: Table, name: str, text: str, values: Values) -> None:
    """A value that the map gives for all rows, where the file has none."""
    count = len(table.rows)
    kind = FIELDS[name].kind
    if kind == "text":
        held = values.texts.setdefault(name, [""] * count)
        values.texts[name] = [one or text for one in held]
    elif kind == "number":
        value = read_numbers([text]).values[0]
        held_numbers = values.numbers.setdefault(name, [math.nan] * count)
        values.numbers[name] = [value if math.isnan(one) else one for one in held_numbers]
    else:
        day = read_dates([text], where=f"the map's {name!r}").values[0]
        held_days = values.days.setdefault(name, [None] * count)
        values.days[name] = [one or day for one in held_days]
    if kind != "text" and (math.isnan(values.numbers[name][0]) if kind == "number" else values.days[name][0] is None):
        raise InputError(f"{table.path}: the map's {name!r}, {text!r}, is no {kind}", fix="correct the map")
    values.notes.append(f"{name} is {text!r} by the map where the file has none")


def _scale_convexity(values: Values) -> None:
    convexity, duration = values.numbers.get("convexity"), values.numbers.get("duration")
    if not convexity or not duration:
        return
    shares = sorted(c / (d * d) for c, d in zip(convexity, duration, strict=True) if c > 0 and d >= 2)
    if shares and shares[len(shares) // 2] < SCALED_CONVEXITY:
        values.numbers["convexity"] = [round(one * 100, 9) for one in convexity]
        values.notes.append("convexity is far below duration², so its figures are read as hundredths, as Bloomberg "
                            "shows them")  # fmt: skip
