"""Numbers and days as people write them: read where they are clear, refused with both readings where they are not."""

from __future__ import annotations

import datetime as dt
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.tools.data.tables.dates import Order, read_dates
from finllm.tools.data.tables.numbers import Mark, Marks, decimal_mark, marks_of, read_numbers
from finllm.tools.data.tables.table import Cell

D = dt.date


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1500", 1500), ("-12.5", -12.5), ("+3", 3), ("1,234,567.5", 1234567.5), ("12,34,567.00", 1234567), (".5", 0.5),
        ("1 234 567.5", 1234567.5), ("1\u202f234.5", 1234.5), ("1'234.50", 1234.5), ("1’234.50", 1234.5),
        ("−12.5", -12.5), ("–12", -12), ("(12.5)", -12.5), ("($1,000)", -1000), ("12.5-", -12.5), ("4.25%", 0.0425),
        ("$1,000.50", 1000.5), ("€ 12", 12), ("12 EUR", 12), ("USD 12", 12), ("-$5", -5), ("$-5", -5), ("US$7", 7),
        ("1.5e6", 1_500_000), ("1E-3", 0.001),
    ],
)  # fmt: skip
def test_a_number_with_a_point_is_read(text: str, value: float) -> None:
    assert read_numbers([text]).values == [pytest.approx(value)]


@pytest.mark.parametrize(
    ("text", "value"), [("1.234.567,5", 1234567.5), ("100,5", 100.5), ("1 234,5", 1234.5), ("-0,5 %", -0.005),
                        ("(1.000)", -1000), ("1,5E6", 1_500_000)]
)  # fmt: skip
def test_a_number_with_a_comma_is_read(text: str, value: float) -> None:
    assert read_numbers([text], ",").values == [pytest.approx(value)]


@pytest.mark.parametrize("text", ["ten", "1,23,4", "--5", "(-5)", "-5-", "1_000", "0x10", "1.2.3", "12 34", "5 USD EUR",
                                  "1,0000", "#REF!", "٣", "1/2"])  # fmt: skip
def test_what_is_no_number_is_told_and_never_guessed(text: str) -> None:
    found = read_numbers([text])
    assert math.isnan(found.values[0])
    assert found.bad == {0: f"{text!r} is not a number"}


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e999", math.inf])
def test_an_endless_number_is_told(cell: Cell) -> None:
    assert "is not a finite number" in read_numbers([cell]).bad[0]


@pytest.mark.parametrize("cell", [None, "n/a", "--", "-", "NaN", "#N/A N/A", "."])
def test_a_word_for_nothing_is_no_number_and_no_mistake(cell: Cell) -> None:
    found = read_numbers([cell])
    assert math.isnan(found.values[0])
    assert not found.bad


def test_typed_cells_are_taken_as_they_are_and_days_are_no_numbers() -> None:
    found = read_numbers([5, 2.5, True, dt.datetime(2026, 1, 2)])  # noqa: DTZ001
    assert found.values[:2] == [5, 2.5]
    assert set(found.bad) == {2, 3}


@pytest.mark.parametrize(
    ("cells", "mark"),
    [(["1.5", "1.234"], "."), (["1,5", "1.234"], ","), (["1.234.567", "1.234"], ","), (["0.875"], "."),
     (["1,234.5"], "."), (["1234,567"], ","), (["5", 2.5], "."), ([], ".")],
)  # fmt: skip
def test_the_cells_of_a_column_tell_its_decimal_mark(cells: list[Cell], mark: Mark) -> None:
    assert decimal_mark(marks_of(cells), Marks(), None, "column 'x'") == mark


def test_three_digits_after_the_mark_everywhere_are_ambiguous() -> None:
    with pytest.raises(InputError, match=r"column 'x': '1\.234' may be 1\.234 or 1234") as refused:
        decimal_mark(marks_of(["1.234", "5.678", "12"]), Marks(), None, "column 'x'")
    assert refused.value.fix == "say which: --decimal point or --decimal comma"
    assert decimal_mark(marks_of(["1.234"]), marks_of(["12,5"]), None, "column 'x'") == ","
    assert decimal_mark(marks_of(["1.234"]), Marks(), ",", "column 'x'") == ","


def test_a_reading_that_is_impossible_is_none() -> None:
    assert marks_of(["1.125"], lambda beta: abs(beta) < 20) == Marks(point="1.125")


def test_a_point_and_a_comma_in_one_column_are_refused_with_both_cells() -> None:
    with pytest.raises(InputError, match=r"'1\.5' has a decimal point, and '2,5' a decimal comma"):
        decimal_mark(marks_of(["1.5", "2,5"]), Marks(), None, "column 'x'")


@given(st.lists(st.floats(-1e12, 1e12).map(lambda value: round(value, 2)), min_size=1), st.booleans())
def test_a_written_number_is_read_back_in_either_style(values: list[float], german: bool) -> None:
    swap = str.maketrans(",.", ".,")
    texts: list[Cell] = [f"{value:,.2f}".translate(swap) if german else f"{value:,.2f}" for value in values]
    mark = decimal_mark(marks_of(texts), Marks(), None, "column 'x'")
    assert read_numbers(texts, mark).values == pytest.approx(values)


@given(st.lists(st.one_of(st.text("0123456789.,-+()%$ eE'", max_size=9), st.text(max_size=6)), max_size=6))
def test_no_text_breaks_the_reading(texts: list[str]) -> None:
    cells: list[Cell] = list(texts)
    try:
        mark = decimal_mark(marks_of(cells), Marks(), None, "column 'x'")
    except InputError:
        return
    found = read_numbers(cells, mark)
    assert all(math.isfinite(value) or math.isnan(value) for value in found.values)


@pytest.mark.parametrize(
    "text",
    ["2026-11-27", "2026/11/27", "20261127", "2026-11-27T15:30:00+01:00", "27.11.2026", "27/11/2026", "11/27/2026",
     "27.11.26", "27-Nov-2026", "27 Nov 26", "Nov 27, 2026", "November 27 2026", "27. November 2026", "27NOV2026",
     "27 novembre 2026", "Fri, 27 Nov 2026", "46353", "27/11/2026 15:30"],
)  # fmt: skip
def test_a_day_is_read_in_every_usual_form(text: str) -> None:
    assert read_dates([text], where="column 'd'").values == [D(2026, 11, 27)]


def test_serial_numbers_follow_the_workbook_and_are_said() -> None:
    assert read_dates([46353], where="column 'd'").values == [D(2026, 11, 27)]
    found = read_dates([44891.5], where="column 'd'", epoch=1904)
    assert found.values == [D(2026, 11, 27)]
    assert found.notes == ("column 'd': serial numbers are read as days, counted from 1904",)


def test_one_cell_that_is_clear_decides_the_others() -> None:
    found = read_dates(["01.02.2026", "13.02.2026", None], where="column 'd'")
    assert found.values == [D(2026, 2, 1), D(2026, 2, 13), None]
    assert found.notes == ("column 'd': days are read day-first",)


@pytest.mark.parametrize(("order", "day"), [("day-first", D(2026, 2, 1)), ("month-first", D(2026, 1, 2))])
def test_days_that_may_be_two_are_refused_in_one_line_until_it_is_said(order: Order, day: dt.date) -> None:
    with pytest.raises(InputError, match=r"01\.02\.2026 may be 1 February or 2 January") as refused:
        read_dates(["01.02.2026", "03.04.2026"], where="column 'd'")
    assert "--dates day-first" in refused.value.fix
    assert read_dates(["01.02.2026"], where="column 'd'", order=order).values == [day]


def test_days_that_contradict_each_other_are_refused_with_both() -> None:
    with pytest.raises(InputError, match=r"13\.02\.2026 has the day first, and 02\.13\.2026 the month"):
        read_dates(["13.02.2026", "02.13.2026"], where="column 'd'")


def test_what_is_no_day_is_told() -> None:
    found = read_dates(["30.02.2026", "Monday", 5, True], where="column 'd'")
    assert found.values == [None] * 4
    assert found.bad[1] == "'Monday' is not a date; write it as 2022-06-30"


@given(st.lists(st.dates(D(1950, 1, 1), D(2090, 1, 1)), min_size=1), st.sampled_from(["%d.%m.%Y", "%m/%d/%Y"]))
def test_written_days_are_read_back_or_called_ambiguous(days: list[dt.date], form: str) -> None:
    texts: list[Cell] = [f"{day:{form}}" for day in days]
    try:
        found = read_dates(texts, where="column 'd'")
    except InputError:
        assert all(day.day <= 12 for day in days)
        return
    assert found.values == days
