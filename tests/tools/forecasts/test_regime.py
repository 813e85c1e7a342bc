"""The regime: Markov switching, no look-ahead, and the check for a break in variance."""

import datetime as dt
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from finllm.errors import InputError
from finllm.tools.data.market import MarketStore
from finllm.tools.forecasts.regime import REGIMES, regime, regime_state, switching, variance_break
from finllm.tools.forecasts.volatility import log_returns

MARKET = MarketStore()
Change = Callable[[pd.Series], pd.Series]


def prices(*volatilities: float, days: int = 252, seed: int = 4) -> pd.Series:
    """Prices whose daily volatility changes after every `days`."""
    rng = np.random.default_rng(seed)
    returns = np.concatenate([rng.standard_normal(days) * one for one in volatilities])
    return pd.Series(100 * np.exp(np.cumsum(returns)), index=pd.bdate_range("2010-01-01", periods=len(returns)))


def returns(*volatilities: float, days: int = 126) -> pd.Series:
    return log_returns(prices(*volatilities, days=days))


def test_probabilities_are_of_three_states_in_order_of_their_volatility() -> None:
    state = regime_state(MARKET.read("SP500", dt.date(2008, 10, 15)).values)
    assert state.probabilities is not None
    assert state.volatilities is not None
    assert sum(state.probabilities) == pytest.approx(1)
    assert list(state.volatilities) == sorted(state.volatilities)
    assert (state.label, state.confirmed) == ("crisis", True)
    assert state.probabilities[2] > 0.99


def test_the_regime_does_not_notice_a_poisoned_future() -> None:
    whole = MARKET.read("SP500", dt.date(2015, 12, 31)).values
    cut = pd.Timestamp(2015, 8, 25)
    assert regime_state(pd.Series(whole[:cut])) == regime_state(MARKET.read("SP500", dt.date(2015, 8, 25)).values)


def test_the_estimate_is_that_of_the_years_before_and_so_the_same_all_year() -> None:
    volatilities = {
        regime_state(MARKET.read("SP500", day).values).volatilities
        for day in (dt.date(2015, 1, 20), dt.date(2015, 8, 25), dt.date(2015, 12, 31))
    }
    assert len(volatilities) == 1


def test_the_states_of_a_known_process_are_found() -> None:
    known = log_returns(prices(0.005, 0.01, 0.03, 0.01, 0.005, 0.03))
    found = switching(tuple(known)).volatilities
    assert found == pytest.approx(np.array([0.005, 0.01, 0.03]) * np.sqrt(252), rel=0.15)
    assert switching(tuple(known)) == switching(tuple(known))


def test_a_short_history_is_graded_by_the_percentile_of_its_volatility() -> None:
    state = regime_state(prices(0.01, days=400))
    assert state.probabilities is None
    assert state.label in REGIMES


def test_a_rise_in_variance_is_dated_and_a_constant_one_has_no_break() -> None:
    found = variance_break(returns(0.01, 0.03))
    assert found is not None
    assert abs((found.day - dt.date(2010, 6, 28)).days) <= 21
    assert found.ratio == pytest.approx(3, rel=0.3)
    fallen = variance_break(returns(0.03, 0.01))
    assert fallen is not None
    assert fallen.ratio < 1
    assert variance_break(returns(0.01, 0.01)) is None
    assert variance_break(pd.Series(np.zeros(100), index=pd.bdate_range("2010-01-01", periods=100))) is None


def test_fat_tails_alone_are_seldom_a_break() -> None:
    rng = np.random.default_rng(11)
    days = pd.bdate_range("2010-01-01", periods=252)
    found = [variance_break(pd.Series(rng.standard_t(5, 252) * 0.01, index=days)) for _ in range(200)]
    assert np.mean([one is not None for one in found]) <= 0.08


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one * 0 + 100, "prices that move"),
        (lambda one: one.iloc[::-1], "not in order"),
        (lambda one: one.where(one.index != one.index[5]), "missing or not positive"),
        (lambda one: one.tail(251), "a regime needs 252 prices, and there are 251"),
    ],
)
def test_prices_that_have_no_regime_are_refused(change: Change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        regime(change(prices(0.01, days=300)))
