"""A text from outside is read in time in proportion to its length, whatever stands in it: no run of signs stalls."""

from __future__ import annotations

import datetime as dt
import string
import time
from collections.abc import Callable

import pytest

from finllm.graphs.markdown import markdown_text
from finllm.guardrails.grounding import ungrounded
from finllm.guardrails.hearsay import hearsay
from finllm.guardrails.hidden import blobs, folded, shifted
from finllm.guardrails.injection import find_injections
from finllm.guardrails.languages import language_of
from finllm.guardrails.later_dates import later_dates
from finllm.guardrails.periods import find_periods
from finllm.guardrails.quantities import find_quantities
from finllm.guardrails.rumours import manner
from finllm.guardrails.sanitise import sanitise
from finllm.guardrails.subjects import find_directions, find_mentions, find_strangers
from finllm.models.injection import pieces
from finllm.plain_text import clean_lines, json_text
from finllm.review.page import linked_citations
from finllm.tools.data.scenario import SourceText
from finllm.tools.evidence import EvidenceTable
from finllm.tools.words.lexical import read_factors
from tests.soak import Soak

AS_OF = dt.date(2022, 6, 30)
EVIDENCE = EvidenceTable()
EVIDENCE.add(-1.0, "usd", entity="book", what="P&L", period="20 trading days", as_of=AS_OF, formula="given")
SHORT, LONG = 8 << 10, 64 << 10
ALLOWED = 2e-4
"""CPU seconds a character: five times the slowest reader's, a tenth of what one in the square takes at 8 KiB."""
UNITS = (
    *string.printable, "\u202e", "\u200b", "\u0301", "x\u0301", "\ufdfa", "一", "！", "é", "ß", "😀", "a ", "A ", "1 ",
    "1,", ". ", "A. ", "Mr. ", "<a ", "<!--", "&#", "&amp;", "[[", "[a](", "[E1]", "E1 ", "-1", "1.1", "99 ", "100 % ",
    "one ", "twenty-", "half of ", "ab\n", "\n\n", "\t \n", "= ", "not ", "oil ", "oil rose ", "Oil and ", "July ",
    "2022-", "3 July 2022 ", "###", "<|", "said ", '"a', "aA", "and ", "ignore ", "ignore the ",
    "your ", "sources say ", "a=", "Maschine ", "ihre Antwort ", "cher bot ", "lecteur automatique ", "si eres ",
    "AI请", "機械は", "робот ", "사용 AI ", "रोबोट ", "القارئ ", "okuyan sistem ", "{a ", "(a |",
)  # fmt: skip


def read(text: str) -> object:
    noon = dt.datetime(2022, 6, 30, 12, tzinfo=dt.UTC)
    source = SourceText.model_construct(
        id="a", publisher="Wire", published_at=noon, url="https://example.com", text=text
    )
    return sanitise(source, AS_OF)


READERS: dict[str, Callable[[str], object]] = {
    "sanitise": read, "injections": find_injections, "hearsay": hearsay, "folded": folded, "lexical": read_factors,
    "blobs": lambda text: list(blobs(text)), "shifted": lambda text: list(shifted(text)), "periods": find_periods,
    "later dates": lambda text: later_dates(text, AS_OF), "quantities": find_quantities, "strangers": find_strangers,
    "mentions": lambda text: find_mentions(text, ["book", "S&P 500"]), "directions": find_directions,
    "manner": manner, "pieces": pieces, "language": language_of,
    "grounding": lambda text: ungrounded(text, EVIDENCE), "markdown": markdown_text, "lines": clean_lines,
    "JSON": json_text, "citations": lambda text: linked_citations(text, frozenset(["E1"])),
}  # fmt: skip


def slow(reader: Callable[[str], object], length: int) -> list[tuple[str, float]]:
    """The units of which a run of this length takes too long, and how long, CPU s."""
    found: list[tuple[str, float]] = []
    for unit in UNITS:
        text = (unit * (length // len(unit) + 1))[:length]
        begun = time.process_time()
        reader(text)
        if (took := time.process_time() - begun) > ALLOWED * length:
            found.append((unit, took))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_run_of_any_sign_is_read_in_time_in_proportion(name: str) -> None:
    assert slow(READERS[name], SHORT) == []


@pytest.mark.soak
def test_a_run_of_64_kib_of_any_sign_is_read_in_time_in_proportion(soak: Soak) -> None:
    names = list(READERS)
    for seed in soak.rounds(len(names)):
        assert slow(READERS[names[seed % len(names)]], LONG) == []


def test_a_text_that_grows_when_its_signs_are_made_plain_is_refused_at_once_and_a_setting_raises_that() -> None:
    noon = dt.datetime(2022, 6, 30, 12, tzinfo=dt.UTC)
    bomb = SourceText(id="a", publisher="W", published_at=noon, url="https://example.com", text="\ufdfa" * 10_000)
    begun = time.process_time()
    told = sanitise(bomb, AS_OF)
    assert time.process_time() - begun < 1.0
    assert told.refused == "180000 characters once its signs are plain, and the setting text_longest allows 100000"
    assert sanitise(bomb, AS_OF, longest=200_000).refused is None
