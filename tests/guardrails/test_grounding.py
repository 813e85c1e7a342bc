"""The grounding guard: no number gets out that no evidence row carries."""

from __future__ import annotations

import datetime as dt

import pytest
from benchmarks.grounding import BARS, measure
from benchmarks.narratives import FRESH, PHRASINGS, held_out
from hypothesis import given
from hypothesis import strategies as st

from finllm.errors import GroundingError
from finllm.guardrails.grounding import NAMES, ground, ungrounded
from finllm.guardrails.quantities import find_quantities
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


def told() -> EvidenceTable:
    """A loss of the book, its share, a gain through oil, a rate's shock, a value at risk and a forecast."""
    rows = EvidenceTable()
    day = dt.date(2022, 6, 30)

    def add(value: float, unit: Unit, entity: str, what: str, period: str, formula: str) -> None:
        rows.add(value, unit, entity=entity, what=what, period=period, as_of=day, formula=formula)

    add(-1_234_567.0, "usd", "book", "P&L", "20 trading days", "sum(E3, E4)")
    add(-0.12345670, "return", "book", "P&L over market value", "20 trading days", "E1 / E6")
    add(265_433.0, "usd", "XOM", "P&L", "20 trading days", "exposure × (E5)")
    add(-1_500_000.0, "usd", "3M", "P&L", "20 trading days", "exposure × (E5)")
    add(75.0, "bp", "US 10-year rate", "shock (user)", "stated", "given by the user")
    add(10_000_000.0, "usd", "book", "market value", "20 trading days", "sum of market values")
    add(88_000.0, "usd", "book", "one-day value at risk, before the event", "20 trading days", "historical simulation")
    add(0.034, "return", "crude oil (WTI)", "change over the last 20 days", "to 2022-06-30", "last / first − 1")
    return rows


@pytest.mark.parametrize(
    "sentence",
    [
        "The book loses 1,234,567 USD over 20 trading days.",
        "The portfolio would lose about $1.23 million, 12.3 % of its value, within twenty days.",
        "P&L of the book: −1.2 million USD [E1].",
        "XOM gains $265,433, and the 10-year yield rises 75 basis points.",
        "The 10-year rate is up 0.75 percentage points.",
        "The book's one-day VaR is 88,000 USD.",
        "Crude has gained 3.4 % over the past 20 days to 30 June 2022.",
        "«Crash of 1987, down 22 %» says the title.",
        "The book loses more than 1.2 million dollars.",
        "Nothing is said here.",
    ],
)
def test_a_true_sentence_passes(sentence: str) -> None:
    assert ungrounded(sentence, told()) == ()


@pytest.mark.parametrize(
    ("sentence", "fault"),
    [
        ("The book loses 1,234,568 USD.", "value"),
        ("The book loses 1.23 billion USD.", "value"),
        ("The book loses 12.3 bp [E2] of its value.", "unit"),
        ("The book loses 1,234,567 EUR.", "unit"),
        ("The book gains 1,234,567 USD.", "sign"),
        ("The book moves by 1,234,567 USD.", "sign"),
        ("P&L of the book: +1.23 million USD.", "sign"),
        ("The book does not lose 1.23 million USD.", "sign"),
        ("AAPL loses 1,234,567 USD.", "entity"),
        ("Copper loses 1,234,567 USD.", "entity"),
        ("The book loses 1,234,567 USD over 10 trading days.", "period"),
        ("Crude has gained 3.4 % to 30 June 2021.", "period"),
        ("XOM gains 1.23 million USD [E3].", "value"),
        ("The book loses one and a half of ½.", "value"),
        ("The book loses twelve per cent.", None),
        ("The book loses thirteen per cent.", "value"),
        ("The book loses a third of its value.", "value"),
        ("The loss is twice the limit.", "unit"),
    ],
)
def test_a_false_sentence_does_not_and_the_fault_is_named(sentence: str, fault: str | None) -> None:
    found = [one.fault for one in ungrounded(sentence, told())]
    assert found[:1] == ([] if fault is None else [fault])


def test_a_row_that_does_not_follow_from_its_formula_carries_nothing() -> None:
    rows = [row.model_copy(update={"value": -1_400_000.0}) if row.id == "E4" else row for row in told()]
    (found,) = ungrounded("The book loses 1,234,567 USD.", EvidenceTable(rows))
    assert (found.fault, "sum(E3, E4)" in found.why) == ("formula", True)


def test_a_template_that_words_a_row_against_its_sign_entity_or_formula_stops_the_run() -> None:
    for sentence in ("The book gains [[E1]].", "XOM loses [[E1]].", "The book loses [[E1]] over [[E8]]."):
        with pytest.raises(GroundingError, match="does not fit its evidence"):
            ground(sentence, told())
    assert ground("[[id]] loses [[E4]].", told(), {"id": "3M"}) == "3M loses -1,500,000 USD."
    assert ground("[[E3.entity]] gains [[E3]].", told()) == "XOM gains +265,433 USD."


@given(st.text(max_size=80))
def test_the_guard_reads_any_text_and_never_fails(text: str) -> None:
    ungrounded(text, told())


@pytest.mark.parametrize(
    "phrasings", [[p for p in PHRASINGS if held_out(p)], FRESH, None], ids=["held", "fresh", "report"]
)
def test_seven_mutations_are_caught_and_clean_narratives_pass(phrasings: list[str] | None) -> None:
    found = measure(phrasings, 40, 7, cited=True)
    assert found["clean"][0] <= 0.01 * found["clean"][1]
    for name, bar in BARS.items():
        hits, made = found[name]
        assert hits >= bar * made, name


@pytest.mark.parametrize(
    ("text", "unit"),
    [("-1,234 EUR", "eur"), ("€1,234", "eur"), ("1,234 euros", "eur"), ("-1,234 SEK", "sek"), ("-1,234 USD", "usd")],
)
def test_an_amount_is_held_by_a_row_in_its_own_currency_and_by_no_other(text: str, unit: str) -> None:
    (found,) = find_quantities(text)
    assert found.units == (unit,)
