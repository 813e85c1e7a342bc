"""Sentences that tell of days after as_of are found by their dates; news of what is to come is not taken for them."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.guardrails.later_dates import later_dates
from finllm.guardrails.sanitise import sanitise
from finllm.tools.data.scenario import SourceText

AS_OF = dt.date(2022, 6, 30)


@pytest.mark.parametrize(("sentence", "dates"), [
    ("On 9 August 2022 copper had lost a tenth, and rose in September 2022.", ["9 August 2022", "September 2022"]),
    ("Updated 2 September 2022: banks gained a tenth in August.", ["2 September 2022"]),
    ("Updated 2 September 2022: banks will report next week.", ["2 September 2022"]),
    ("Last modified: Sept. 2, 2022", ["Sept. 2, 2022"]),
    ("Shares fell on 08/19/2022 by two percent.", ["08/19/2022"]),
    ("Shares fell on 19.08.2022 by two percent.", ["19.08.2022"]),
    ("Copper lost a tenth on 2022-08-09.", ["2022-08-09"]),
    ("Am 9. August 2022 fiel der Kupferpreis.", ["9. August 2022"]),
    ("Le cuivre a reculé le 9 août 2022.", ["9 août 2022"]),
    ("El cobre cayó el 9 de agosto de 2022.", ["9 de agosto de 2022"]),
    ("2022年8月9日、銅は急落した。", ["2022年8月9日"]),
    ("In Q4 2022 inflation fell.", ["Q4 2022"]),
])  # fmt: skip
def test_hindsight_is_found_by_its_dates(sentence: str, dates: list[str]) -> None:
    assert later_dates(sentence, AS_OF) == dates


@pytest.mark.parametrize("sentence", [
    "The committee will meet on 9 August 2022.", "The bond matures in 2031.", "Output rises until 31 December 2022.",
    "Analysts expect a recession in 2023.", "Futures for September 2022 fell.", "Copper fell on 29 June 2022.",
    "Copper fell on 30 June 2022.", "Shares rose in July.", "Copper lost a tenth in 2021.",
    "Copper fell on 06/07/2022.",
])  # fmt: skip
def test_news_of_the_day_and_of_what_is_to_come_stays(sentence: str) -> None:
    assert later_dates(sentence, AS_OF) == []


def source(text: str) -> SourceText:
    day = dt.datetime(2022, 6, 28, tzinfo=dt.UTC)
    return SourceText(id="a", publisher="Wire", published_at=day, url="https://example.com", text=text)


def test_the_sentence_is_cut_and_on_record_and_the_rest_stays() -> None:
    told = sanitise(source("Mines closed. On 9 August 2022 copper had lost a tenth. Ships waited."), AS_OF)
    assert told.text == "Mines closed. Ships waited."
    (cut,) = told.removed
    assert (cut.kind, cut.excerpt) == ("lookahead", "On 9 August 2022 copper had lost a tenth. ".strip())


FORMS = ["%d %B %Y", "%B %d, %Y", "%Y-%m-%d", "%d.%m.%Y"]


@given(st.dates(dt.date(1990, 1, 1), dt.date(2060, 12, 31)), st.sampled_from(FORMS))
def test_a_day_is_later_if_and_only_if_it_comes_after_as_of(day: dt.date, form: str) -> None:
    found = later_dates(f"Copper lost a tenth on {day.strftime(form)} in London.", AS_OF)
    swapped = day.replace(month=day.day, day=day.month) if form == "%d.%m.%Y" and day.day <= 12 else day
    assert bool(found) is (min(day, swapped) > AS_OF)
