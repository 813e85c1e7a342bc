"""The story of a reverse answer names events that are near it, and every figure in it is a row's."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from scipy.stats import chi2, norm

from finllm.scenarios import PORTFOLIOS_DIR
from finllm.sessions.inputs import read_inputs
from finllm.sessions.reverse import ReverseQuestion, answer_reverse
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.engine import run_engine
from finllm.tools.pnl.factorset import FactorSet


def test_a_fall_is_told_by_falls_and_its_figures_are_rows() -> None:
    inputs = read_inputs(as_of=dt.date(2022, 6, 30))
    found = answer_reverse(inputs, ReverseQuestion(loss="10%"))
    assert len(found.stories) == len(found.result.answers)
    story, answer = found.stories[0], found.result.answers[0]
    assert "EQUITY_US down" in story.text
    assert story.chance == pytest.approx(float(norm.sf(answer.distance)))
    for row in story.events:
        assert "EQUITY_US" in row.same
        assert row.end <= "2022-06-30"
        assert row.title in story.text
    rows = [row for row in (*story.events, story.episode) if row is not None]
    named = {text for row in rows for text in (row.title, row.start, row.end, f"{row.distance:.1f}")}
    rest = story.text
    for text in sorted(named, key=len, reverse=True):
        rest = rest.replace(text, "")
    assert re.findall(r"\d[\d.]*", re.sub(r"has .* under the factor model", "", rest.replace("10Y", ""))) == []


def test_an_answer_far_beyond_the_past_is_not_told_to_be_near_it() -> None:
    """Ranked with extreme moves all alike, an event was told as 1.4 σ away from an answer of 19 σ."""
    inputs = read_inputs(as_of=dt.date(2022, 6, 30))
    found = answer_reverse(inputs, ReverseQuestion(loss="60%", answers=1))
    answer, story = found.result.answers[0], found.stories[0]
    assert story.episode is not None
    largest = max(abs(one.sigma) for one in answer.moves)
    assert largest > 6
    apart = [row.distance for row in (*story.events, story.episode)]
    assert min(apart) > (largest - 6) / len(answer.moves) ** 0.5


def test_the_chance_of_shocks_is_that_of_a_gaussian_beyond_their_distance() -> None:
    market = MarketStore()
    factors = FactorSet.default(market)
    shocks = [factors.parse("EQUITY_US", "-10%"), factors.parse("OIL_WTI", "-20%")]
    book = load_portfolio(PORTFOLIOS_DIR / "default.csv")
    joint = run_engine(book, market, dt.date(2018, 11, 30), 20, shocks).joint
    assert joint is not None
    assert joint.factors == 2
    assert joint.chance == pytest.approx(float(chi2.sf(joint.distance**2, 2)))
    assert "under the factor model" in joint.words
