"""The grounding guard: no number gets out that no evidence row carries."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.errors import GroundingError
from finllm.guardrails.grounding import NAMES, cited, ground
from finllm.tools.evidence import EvidenceTable, Unit


def table(*values: tuple[float | str, Unit]) -> EvidenceTable:
    rows = EvidenceTable()
    for value, unit in values:
        rows.add(value, unit, entity="book", what="P&L", period="20 days", as_of=dt.date(2022, 6, 30), formula="given")
    return rows


ROWS = table((-1_234_567.0, "usd"), (-0.0789, "return"), ("Hormuz is [[E1]] closed", "text"))


def test_references_are_filled_in_from_the_rows() -> None:
    assert ground("The book loses [[E1]], [[E2]] of its value.", ROWS) == (
        "The book loses -1,234,567 USD, -7.89 % of its value."
    )


def test_what_a_row_or_a_quote_says_is_shown_and_not_filled_in_again() -> None:
    assert ground("Said: [[E3]].", ROWS) == "Said: Hormuz is [[E1]] closed."
    assert ground("«[[title]]»", ROWS, {"title": "Crash of 1987 [[E1]]"}) == "«Crash of 1987 [[E1]]»"


@pytest.mark.parametrize(
    "sentence",
    [
        "The book loses 5 %.",
        "The book loses [[E2]] or 1,000 USD.",
        "It loses ٥ per cent.",
        "It loses ½ of its value.",
        "It loses 10² USD.",
        "It happened in Ⅷ.",
        "It loses 五 per cent.",
        "[[E1]]5",
        "S&P 5000",
        "a 110-year loss",
        "S&P [[E2]]500",
        "S&P[[E2]] 500",
        "S&P S&P 500500",
        "[[E1",
        "E1",
        "[[1E]]",
        "[[E1 ]]",
    ],
)
def test_a_number_outside_a_reference_does_not_get_out(sentence: str) -> None:
    with pytest.raises(GroundingError, match="carries a number that no evidence row carries") as stop:
        ground(sentence, ROWS, {"title": "t"})
    assert repr(sentence) in stop.value.message


@pytest.mark.parametrize("name", ["E4", "E01", "E0", "title", "e1"])
def test_a_reference_to_nothing_stops_the_run_and_names_it(name: str) -> None:
    with pytest.raises(GroundingError, match=f"refers to '{name}', which no evidence row is"):
        ground(f"The book loses [[{name}]].", ROWS)


@pytest.mark.parametrize("name", NAMES)
def test_names_with_digits_that_are_allowed_pass(name: str) -> None:
    sentence = f"The {name} moves, and {name} again."
    assert ground(sentence, ROWS) == sentence


@given(st.text(max_size=60))
def test_no_digit_passes_that_the_allow_list_does_not_name(text: str) -> None:
    try:
        shown = ground(text, EvidenceTable())
    except GroundingError:
        return
    for name in NAMES:
        shown = shown.replace(name, " ")
    assert not any(character.isnumeric() for character in shown)


def test_the_ids_a_sentence_cites_are_told_in_order() -> None:
    assert cited("[[E7]] and [[title]] and [[E12]] and [[E7]], not [[E0]]") == ["E7", "E12", "E7"]
