"""The stress index: bounds and monotone answers, no look-ahead, and what is left out or refused."""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.tools.data.market import STOCKS, MarketStore, Series, day_of
from finllm.tools.forecasts.stress_index import shared_prices, stress_history, stress_index

D = dt.date
Change = Callable[[pd.DataFrame], pd.DataFrame]
MARKET = MarketStore()
DAYS = pd.bdate_range("2015-01-01", periods=500)


def market(common: float, own: float, seed: int = 3, names: int = 20) -> pd.DataFrame:
    """Stocks with one common factor of daily volatility `common`, and residuals of volatility `own`."""
    rng = np.random.default_rng(seed)
    returns = common * rng.standard_normal((len(DAYS), 1)) + own * rng.standard_normal((len(DAYS), names))
    return pd.DataFrame(
        100 * np.exp(returns.cumsum(axis=0)), index=DAYS, columns=pd.Index([f"S{one}" for one in range(names)])
    )


def last(prices: pd.DataFrame) -> pd.Series:
    return stress_history(prices).iloc[-1]


@settings(max_examples=15, deadline=None)
@given(st.floats(0.008, 0.03), st.floats(0.004, 0.02), st.floats(1.5, 3), st.integers(0, 100))
def test_more_common_risk_is_absorbed_and_more_of_its_own_is_dispersed(
    common: float, own: float, more: float, seed: int
) -> None:
    base = last(market(common, own, seed))
    assert 4 / 20 <= base["absorption"] <= 1
    assert last(market(common * more, own, seed))["absorption"] > base["absorption"]
    noisier = last(market(common, own * more, seed))
    assert noisier["absorption"] < base["absorption"]
    assert noisier["dispersion"] > base["dispersion"]


def test_absorption_does_not_depend_on_the_scale_and_dispersion_is_in_proportion_to_it() -> None:
    prices = market(0.01, 0.01)
    doubled = prices**2
    one, two = last(prices), last(doubled)
    assert two["absorption"] == pytest.approx(one["absorption"])
    assert two["dispersion"] == pytest.approx(2 * one["dispersion"])
    assert two["index"] == pytest.approx(one["index"], abs=1e-9)


def test_stocks_that_move_as_one_are_absorbed_whole() -> None:
    assert last(market(0.01, 0.0))["absorption"] == pytest.approx(1)


def test_dispersion_of_residuals_is_their_annualised_volatility_outside_the_factors() -> None:
    found = stress_history(market(0.02, 0.01))["dispersion"].median()
    assert 0.7 < found / (0.01 * np.sqrt(252)) < 1


def test_the_history_does_not_notice_a_poisoned_future() -> None:
    prices, _ = shared_prices(MARKET, STOCKS, D(2003, 12, 31))
    cut = pd.Timestamp(2002, 7, 23)
    short, whole = stress_history(pd.DataFrame(prices[:cut])), stress_history(prices)
    both = short.index.intersection(whole.index)
    assert len(both) >= len(short) - 1
    pd.testing.assert_frame_equal(short.loc[both], whole.loc[both], check_exact=True)


@pytest.mark.parametrize(
    ("quiet", "crisis"),
    [
        (D(1998, 6, 30), D(1998, 10, 8)),
        (D(2008, 6, 30), D(2008, 11, 20)),
        (D(2011, 6, 30), D(2011, 10, 4)),
        (D(2020, 1, 31), D(2020, 3, 23)),
    ],
)
def test_it_rises_into_crises(quiet: D, crisis: D) -> None:
    before, during = stress_index(MARKET, quiet), stress_index(MARKET, crisis)
    assert during.value > before.value + 0.5
    assert during.percentile > 0.8


def test_before_a_year_of_its_own_past_it_has_no_value() -> None:
    with pytest.raises(InputError, match="no value yet at 1990-12-31"):
        stress_index(MARKET, D(1990, 12, 31))


def test_stale_young_and_gapped_stocks_are_left_out_or_bridged_and_named() -> None:
    table = market(0.01, 0.01, names=13)
    series = [Series(str(name), pd.Series(table[name]), "price", "daily", "file:x", "0" * 64) for name in table]
    series[0] = replace(series[0], values=series[0].values.iloc[:300])
    series[1] = replace(series[1], values=series[1].values.iloc[400:])
    series[2] = replace(series[2], values=pd.Series(series[2].values[series[2].values.index != DAYS[200]]))
    prices, notes = shared_prices(MarketStore.of(series), [*(one.name for one in series)], day_of(DAYS[-1]))
    assert prices.shape == (499, 11)
    assert notes == (
        f"S0: ended on {day_of(DAYS[299])}",
        "S1: 100 days, fewer than half of the longest",
        "1 days that some stock lacks are bridged",
    )
    made = stress_index(MarketStore.of(series), day_of(DAYS[-1]), [one.name for one in series])
    assert (len(made.names), made.notes) == (11, notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.iloc[:, :9], "10 stocks and 121 shared days, and there are 9 and 500"),
        (lambda one: one.iloc[:120], "there are 20 and 120"),
        (lambda one: one.iloc[::-1], "not in order"),
        (lambda one: one.mask(one > one.iloc[7, 0], np.nan), "missing or not positive"),
        (lambda one: one - 1000, "missing or not positive"),
    ],
)
def test_prices_that_have_no_index_are_refused(change: Change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        stress_history(change(market(0.01, 0.01)))
