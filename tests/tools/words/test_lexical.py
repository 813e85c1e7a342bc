from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from finllm.tools.data.factors import FACTOR_IDS, FactorId
from finllm.tools.words.lexical import Mention, balance, read_factors, stands_still

EQ, CR, RT, OIL, USD, AU, VIX = FACTOR_IDS

READINGS: list[tuple[str, dict[FactorId, str]]] = [
    # one factor, one verb
    ("Crude jumped five percent in Asian trading.", {OIL: "up"}),
    ("Brent futures tumbled on Monday.", {OIL: "down"}),
    ("The S&P 500 slid for a third day.", {EQ: "down"}),
    ("Wall Street rallied into the close.", {EQ: "up"}),
    ("Shares were little changed.", {EQ: "none"}),
    ("Credit spreads widened sharply.", {CR: "up"}),
    ("Corporate bond spreads narrowed for a second week.", {CR: "down"}),
    ("High-yield spreads blew out to levels not seen since the crisis.", {CR: "up"}),
    ("The ten-year yield climbed.", {RT: "up"}),
    ("Bond yields eased.", {RT: "down"}),
    ("The dollar firmed.", {USD: "up"}),
    ("The greenback lost ground.", {USD: "down"}),
    ("Bullion hit a record high.", {AU: "up"}),
    ("Spot gold slipped in thin trade.", {AU: "down"}),
    ("The VIX spiked above its range.", {VIX: "up"}),
    ("Volatility subsided.", {VIX: "down"}),
    # several factors in one sentence
    ("Stocks fell and oil rose.", {EQ: "down", OIL: "up"}),
    ("Stocks and oil fell.", {EQ: "down", OIL: "down"}),
    ("Stocks, oil and bond yields all fell.", {EQ: "down", OIL: "down", RT: "down"}),
    ("Oil surged while equities slumped and gold gained.", {OIL: "up", EQ: "down", AU: "up"}),
    ("Stocks tumbled, the dollar strengthened and Treasury yields dropped.", {EQ: "down", USD: "up", RT: "down"}),
    ("As yields rose, stocks fell.", {RT: "up", EQ: "down"}),
    ("Gold and the dollar rose even as crude sank.", {AU: "up", USD: "up", OIL: "down"}),
    ("Oil up, stocks down.", {OIL: "up", EQ: "down"}),
    # causes that push
    ("The blockade sent crude sharply higher.", {OIL: "up"}),
    ("The news pushed up Treasury yields and weighed on stocks.", {RT: "up", EQ: "down"}),
    ("Fresh tariffs hit equities.", {EQ: "down"}),
    ("The decision lifted the dollar.", {USD: "up"}),
    ("Stocks were battered by the news.", {EQ: "down"}),
    ("Gold was supported by the tension.", {AU: "up"}),
    ("The default widened credit spreads.", {CR: "up"}),
    ("Investors dumped shares.", {EQ: "down"}),
    ("Treasuries dragged down by London.", {RT: "up"}),
    # adjectives and nouns
    ("Higher oil prices feed into inflation.", {OIL: "up"}),
    ("A weaker dollar helped exporters.", {USD: "down"}),
    ("Falling yields did the rest.", {RT: "down"}),
    ("The jump in crude was the largest this year.", {OIL: "up"}),
    ("A sell-off in equities followed.", {EQ: "down"}),
    ("The oil rally lost no steam.", {OIL: "up"}),
    ("Gold is at its highest since the spring.", {AU: "up"}),
    # prices of bonds against their yields
    ("Treasuries rallied.", {RT: "down"}),
    ("Treasury prices fell.", {RT: "up"}),
    ("Investors sought safety in Treasuries.", {RT: "down"}),
    ("Investors sought safety in gold.", {AU: "up"}),
    ("Money fled to Treasuries and gold.", {RT: "down", AU: "up"}),
    ("A sell-off in government bonds deepened.", {RT: "up"}),
    ("Junk bonds slumped.", {CR: "up"}),
    ("The yen fell against the dollar.", {USD: "up"}),
    ("The dollar fell against the yen.", {USD: "down"}),
    # nothing moved
    ("Oil prices held steady.", {OIL: "none"}),
    ("Stocks, oil and gold were unchanged.", {EQ: "none", OIL: "none", AU: "none"}),
    ("The VIX barely moved.", {VIX: "none"}),
    ("Yields did not react.", {RT: "none"}),
    # denied
    ("Oil did not rise.", {OIL: "none"}),
    ("Stocks failed to rally.", {EQ: "none"}),
    ("There was no jump in gold.", {AU: "none"}),
    ("Neither stocks nor gold fell.", {EQ: "none", AU: "none"}),
    ("The dollar hasn't weakened.", {USD: "none"}),
    ("Oil rose not only in London.", {OIL: "up"}),
    # gains given back
    ("Stocks gave up their early gains.", {EQ: "down"}),
    ("Crude pared losses late in the day.", {OIL: "up"}),
    # expected and supposed
    ("If the strait closes, oil would jump.", {OIL: "up"}),
    ("Equities could fall further, the bank said.", {EQ: "down"}),
    ("Stocks may fall, but so far they rose: shares gained on Monday.", {EQ: "up"}),
    ("If oil rises, the central bank will act.", {OIL: "none"}),
    ("Whether gold falls is an open question.", {AU: "none"}),
    ("Brokers cut their forecasts and stocks slid.", {EQ: "down"}),
    ("Gold did not rise and oil fell.", {AU: "none", OIL: "down"}),
    ("We expect stocks and gold to fall.", {EQ: "down", AU: "down"}),
    # words that belong to one factor, and words on one side only
    ("Credit spreads tightened.", {CR: "down"}),
    ("The volatility in shares rises.", {VIX: "up"}),
    ("Hang Seng down, gold busy.", {}),
    ("Spreads are wider and gold is bid.", {CR: "up", AU: "up"}),
    ("Savers move into government bonds, the dollar and gold.", {RT: "down", USD: "up", AU: "up"}),
    ("Weaker demand holds crude roughly where it was.", {OIL: "none"}),
    # mixed
    ("Oil rose at the open. Later crude fell.", {OIL: "mixed"}),
]

SILENT = [
    "Oil supply fell.",
    "Crude inventories rose last week.",
    "The oil minister rose to speak.",
    "Gold miners jumped.",
    "Olive oil prices surged.",
    "The Australian dollar fell.",
    "A million dollar fine was raised.",
    "Dollar-denominated debt grew.",
    "Gilt yields surged.",
    "Yields on thirty-year British bonds rose.",
    "The bonds of the hotels have been hit.",
    "The central bank tightened policy and stocks traded.",
    "The discount rate on shares rises.",
    "Japanese shares fell.",
    "Oil shares rose.",
    "The stock exchange fell silent.",
    "The virus spreads, cases rise.",
    "Goldman jumped ahead of rivals.",
    "Employment rose and inflation fell.",
    "The committee met on oil and gold.",
    "The parks department opened a flower show.",
    "",
]


@pytest.mark.parametrize(("text", "expected"), READINGS, ids=[text for text, _ in READINGS])
def test_a_sentence_is_read_as_a_person_would(text: str, expected: dict[FactorId, str]) -> None:
    assert {factor: balance(mentions) for factor, mentions in read_factors(text).items()} == expected


@pytest.mark.parametrize("text", SILENT)
def test_what_is_about_something_else_says_nothing(text: str) -> None:
    assert read_factors(text) == {}


def only(text: str, factor: FactorId) -> Mention:
    mentions = read_factors(text)[factor]
    assert len(mentions) == 1
    return mentions[0]


def test_a_denied_move_is_marked_as_denied() -> None:
    mention = only("Oil did not rise.", "OIL_WTI")
    assert (mention.negated, mention.direction) == (True, "none")


def test_an_unchanged_price_is_not_a_denial() -> None:
    mention = only("Oil was unchanged.", "OIL_WTI")
    assert (mention.negated, mention.direction) == (False, "none")


@pytest.mark.parametrize(
    ("text", "mood"),
    [
        ("Oil rose.", "stated"),
        ("Oil could rise.", "expected"),
        ("Oil is expected to rise.", "expected"),
        ("If oil rises, rates follow.", "supposed"),
    ],
)
def test_the_mood_is_kept(text: str, mood: str) -> None:
    assert only(text, "OIL_WTI").mood == mood


def test_expected_moves_count_only_where_none_is_stated() -> None:
    text = "Oil may fall next year. On Monday crude rose."
    assert balance(read_factors(text)["OIL_WTI"]) == "up"


def test_balance_of_nothing_is_none() -> None:
    assert balance(()) == "none"


@pytest.mark.parametrize(
    ("text", "still"),
    [
        ("Crude moved in a narrow range.", True),
        ("Oil was flat. Crude ended unchanged.", True),
        ("Oil was flat on Monday. Crude jumped on Tuesday.", False),
        ("Should the strait close, oil would jump.", False),
    ],
)
def test_what_is_only_said_to_be_flat_stands_still(text: str, still: bool) -> None:
    assert stands_still(read_factors(text)["OIL_WTI"]) is still
    assert not stands_still(())


def test_factors_come_in_their_usual_order() -> None:
    assert list(read_factors("Gold rose. Oil rose. Stocks fell.")) == ["EQUITY_US", "OIL_WTI", "GOLD"]


@pytest.mark.parametrize("piece", ["oil ", "oil rose, ", "up down ", "oil and "])
def test_an_endless_sentence_is_read_in_reasonable_time(piece: str) -> None:
    started = time.perf_counter()
    read_factors((piece * 10_000)[:20_000])
    assert time.perf_counter() - started < 20


@given(st.lists(st.sampled_from([text for text, _ in READINGS] + SILENT) | st.text(max_size=30), max_size=8))
@hypothesis_settings(max_examples=150, deadline=None)
def test_every_span_is_where_it_says_it_is(pieces: list[str]) -> None:
    text = " ".join(pieces)
    for mentions in read_factors(text).values():
        for mention in mentions:
            assert mention.span
            assert text[mention.start : mention.end] == mention.span
