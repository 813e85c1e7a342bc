"""The dated episodes: days by a rule that looks back only, and accounts that tell nothing of what came after."""

import datetime as dt
import re

import numpy as np
import pandas as pd
import pytest
from benchmarks.episodes.accounts import Account, accounts
from benchmarks.episodes.dates import HORIZON, LATEST, dated

from finllm.guardrails.later_dates import later_dates
from finllm.tools.data.market import INDEX, MarketStore, day_of
from finllm.tools.pnl.episodes import EPISODES

MARKET = MarketStore()
DAYS = [day_of(day) for day in MARKET.read(INDEX, LATEST).values.index]
ACCOUNTS = accounts()
HINDSIGHT = re.compile(
    r"\b(hindsight|in retrospect|turned out|as it happened|would (?:later|prove|turn|become|go on)|went on to|"
    r"subsequent\w*|afterwards?|thereafter|(?:days|weeks|months|years) later|in the (?:end|event)|the following|"
    r"eventually|ultimately|to this day|came to be)\b",
    re.IGNORECASE,
)
"""Words by which a text tells what came after."""


def test_at_least_sixty_days_and_each_is_what_the_rule_says() -> None:
    assert [(one.as_of, one.rule) for one in ACCOUNTS] == [(one.as_of, one.rule) for one in dated(MARKET)]
    assert len(ACCOUNTS) >= 60


@pytest.mark.parametrize("latest", [dt.date(1999, 6, 30), dt.date(2008, 3, 31), dt.date(2015, 1, 30)])
def test_nothing_after_a_day_decides_whether_it_is_taken(latest: dt.date) -> None:
    known = [day for day in DAYS if day <= latest][:-HORIZON]
    assert dated(MARKET, latest) == tuple(one for one in dated(MARKET) if one.as_of <= known[-1])


def test_no_two_episodes_share_a_day_and_the_windows_of_the_backtest_are_apart() -> None:
    at = [DAYS.index(one.as_of) for one in ACCOUNTS]
    assert min(np.diff(at)) > HORIZON
    for window in EPISODES.values():
        start, end = DAYS.index(window.start), DAYS.index(window.end)
        assert all(one + HORIZON < start or one > end + HORIZON for one in at), window.id


def test_a_shock_is_one_and_a_quiet_day_is_none() -> None:
    """The moves of the index worked out again, for the days that it chose and for the quiet ones."""
    index = MARKET.read(INDEX, LATEST).values
    moves = pd.Series(index.pct_change(5))
    for one in ACCOUNTS:
        before = np.asarray(moves[moves.index <= pd.Timestamp(one.as_of)])
        score = before[-1] / before[-257:-5].std(ddof=1)
        if one.rule.startswith(INDEX):
            assert (score >= 3) if one.rule.endswith("up") else (score <= -3), one.as_of
        elif one.rule == "quiet":
            assert abs(score) < 1, one.as_of


@pytest.mark.parametrize("one", ACCOUNTS, ids=lambda one: str(one.as_of))
def test_an_account_is_a_paragraph_that_knows_nothing_later(one: Account) -> None:
    assert 80 <= len(one.account.split()) <= 150
    assert "\n" not in one.account
    sentences = re.split(r"(?<=[.!?;]) ", f"{one.title}. {one.account}")
    assert not [found for sentence in sentences if (found := later_dates(sentence, one.as_of))]
    assert not [year for year in re.findall(r"\b(?:19|20)\d\d\b", one.account) if int(year) > one.as_of.year]
    assert HINDSIGHT.search(one.account) is None


def test_a_run_is_given_the_account_and_no_shock() -> None:
    scenario = ACCOUNTS[0].scenario()
    assert scenario.narrative == ACCOUNTS[0].account
    assert (scenario.as_of, scenario.horizon) == (ACCOUNTS[0].as_of, 20)
    assert not scenario.shocks
    assert not scenario.sources
