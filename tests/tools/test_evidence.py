"""The evidence table: every row says where its value comes from, and ids are never reused or left out."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finllm.tools.evidence import Evidence, EvidenceTable, Measure, Source, Unit, sha256_of, show

AS_OF = dt.date(2022, 6, 30)
SOURCE = Source(uri="https://example.org/a", sha256=sha256_of("a"), pointer="row 7")


def add(table: EvidenceTable, value: float | str = 1.0, unit: Unit = "ratio", **changes: Any) -> str:
    given: dict[str, Any] = {"entity": "book", "what": "P&L", "period": "20 days", "as_of": AS_OF, "formula": "given"}
    return table.add(value, unit, **{**given, **changes})


def test_ids_have_no_gaps_also_after_a_refused_row() -> None:
    table = EvidenceTable()
    assert [add(table) for _ in range(3)] == ["E1", "E2", "E3"]
    with pytest.raises(ValidationError):
        add(table, formula=None)
    assert add(table) == "E4"
    assert [row.id for row in table] == ["E1", "E2", "E3", "E4"]
    assert len(table) == 4
    assert "E4" in table
    assert "E5" not in table


def test_rows_out_of_order_are_refused() -> None:
    table = EvidenceTable()
    add(table)
    add(table)
    rows = table.to_json()
    for wrong in (rows[1:], rows[::-1], [rows[0], rows[0]]):
        with pytest.raises(ValueError, match="was expected"):
            EvidenceTable.from_json(wrong)


def test_a_row_needs_a_source_or_a_formula() -> None:
    table = EvidenceTable()
    with pytest.raises(ValidationError, match="'E1' has neither a source nor a formula"):
        add(table, formula=None)
    add(table, source=SOURCE, formula=None)
    add(table, source=SOURCE, formula="E1 × 2")


@pytest.mark.parametrize("unit", get_args(Measure))
def test_a_text_is_text_and_a_number_is_not(unit: Unit) -> None:
    table = EvidenceTable()
    right, wrong = ("a span", 1.0) if unit == "text" else (1.0, "a span")
    with pytest.raises(ValidationError, match="a text value has unit 'text' and a number has another"):
        add(table, wrong, unit)
    assert show(table[add(table, right, unit)].value, unit)


def test_a_row_cannot_be_changed() -> None:
    table = EvidenceTable()
    add(table)
    with pytest.raises(ValidationError, match="frozen"):
        table["E1"].value = 2.0
    with pytest.raises(ValidationError, match="E01"):
        Evidence.model_validate({**table.to_json()[0], "id": "E01"})


numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
values = st.tuples(numbers, st.sampled_from(sorted({"eur", *get_args(Measure)} - {"text"}))) | st.tuples(
    texts, st.just("text")
)


@given(st.lists(st.tuples(values, texts, st.booleans()), max_size=8))
def test_a_table_comes_back_from_json_as_it_was(rows: list[tuple[tuple[float | str, Any], str, bool]]) -> None:
    table = EvidenceTable()
    for (value, unit), words, derived in rows:
        add(table, value, unit, entity=words, formula=words if derived else None, source=None if derived else SOURCE)
    again = EvidenceTable.from_json(json.loads(json.dumps(table.to_json(), allow_nan=False)))
    assert list(again) == list(table)
    assert add(again) == f"E{len(rows) + 1}"


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (-0.39891, "return", "-39.89 %"),
        (75.0, "bp", "+75 bp"),
        (-12.5, "points", "-12.50 points"),
        (-1_234_567.4, "usd", "-1,234,567 USD"),
        (-1_234_567.4, "eur", "-1,234,567 EUR"),
        (2.14, "sigma", "+2.1 σ"),
        (0.9, "probability", "90 %"),
        (20.0, "days", "20 days"),
        (3.0, "count", "3"),
        (7.25, "years", "7.2 years"),
        (0.123456, "ratio", "0.123"),
        ("a span", "text", "a span"),
    ],
)
def test_a_value_is_shown_with_sign_and_unit(value: float | str, unit: Unit, shown: str) -> None:
    assert show(value, unit) == shown


def test_a_digest_is_of_the_text_as_utf_8() -> None:
    assert sha256_of("σ") == sha256_of("σ".encode())
    assert len(sha256_of("")) == 64
