"""Volatility: filters against their recursions, GARCH's guard, calendar weeks, and prices that are refused."""

import datetime as dt
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.tools.data.market import MarketStore, day_of
from finllm.tools.forecasts.volatility import (
    STATED,
    Garch,
    blended_sigma,
    ewma_variance,
    fit_garch,
    garch_variance,
    log_returns,
    over_horizon,
    weekly_volatility,
)

Change = Callable[[pd.Series], pd.Series]
RETURNS = np.random.default_rng(7).standard_t(5, 1500) * 0.01
GARCH = Garch(2e-6, 0.08, 0.90, "fitted")


def test_the_filters_are_their_recursions() -> None:
    variance = garch_variance(RETURNS, GARCH)
    flat = ewma_variance(RETURNS, 0.94)
    assert len(variance) == len(flat) == len(RETURNS) + 1
    for day in (0, 700, 1499):
        assert variance[day + 1] == pytest.approx(2e-6 + 0.08 * RETURNS[day] ** 2 + 0.90 * variance[day])
        assert flat[day + 1] == pytest.approx(0.06 * RETURNS[day] ** 2 + 0.94 * flat[day])


def test_the_variance_over_a_horizon_is_the_sum_of_its_steps() -> None:
    mean, step, sum_ = GARCH.omega / (1 - 0.98), np.array([3e-4]), 0.0
    for _ in range(20):
        sum_ += float(step[0])
        step = GARCH.omega + 0.98 * step
    assert over_horizon(np.array([3e-4]), GARCH, 20)[0] == pytest.approx(sum_)
    assert over_horizon(np.array([mean]), GARCH, 20)[0] == pytest.approx(20 * mean)


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(300, 1499), poison=st.floats(-0.5, 0.5))
def test_no_volatility_sees_a_later_return(cut: int, poison: float) -> None:
    other = np.concatenate([RETURNS[:cut], np.full(len(RETURNS) - cut, poison)])
    for garch in (None, GARCH):
        assert np.array_equal(blended_sigma(RETURNS, garch, 5)[: cut + 1], blended_sigma(other, garch, 5)[: cut + 1])


def test_a_garch_is_stationary_deterministic_and_leaves_the_global_generator_alone() -> None:
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    first = fit_garch(RETURNS)
    assert np.random.rand() == expected
    assert first == fit_garch(RETURNS)
    assert first.alpha + first.beta < 1


def test_the_garch_of_a_known_process_is_found() -> None:
    rng = np.random.default_rng(2)
    returns, variance = np.empty(4000), 1e-4
    for day in range(4000):
        returns[day] = np.sqrt(variance) * rng.standard_normal()
        variance = 4e-6 + 0.10 * returns[day] ** 2 + 0.86 * variance
    found = fit_garch(returns)
    assert found.origin == "fitted"
    assert (found.alpha, found.beta) == (pytest.approx(0.10, abs=0.05), pytest.approx(0.86, abs=0.08))


@pytest.mark.parametrize("stopped", [(2.8, 0.0001, 0.0006), (0.1, 0.7, 0.7), (float("nan"), 0.1, 0.8)])
def test_an_optimiser_that_stops_far_from_the_maximum_is_not_believed(
    stopped: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = MarketStore().read("AAPL", dt.date(2014, 12, 31)).values
    monkeypatch.setattr("statsforecast.garch.garch_model", lambda *_: {"coeff": np.array(stopped)})
    found = fit_garch(log_returns(prices).to_numpy())
    assert found.origin == "stated"
    assert (found.alpha, found.beta) in STATED


@pytest.mark.parametrize("returns", [np.zeros(300), RETURNS[:249], np.append(RETURNS, np.nan)])
def test_a_garch_of_a_halted_short_or_broken_series_is_refused(returns: np.ndarray) -> None:
    with pytest.raises(InputError, match="a GARCH needs"):
        fit_garch(returns)


def test_weekly_volatility_is_of_complete_calendar_weeks() -> None:
    days = pd.bdate_range("2022-01-03", "2022-01-26")  # Monday to the Wednesday of the fourth week
    move = np.array([0.0, *[0.01, -0.02] * 9])[: len(days)]
    prices = pd.Series(100 * np.exp(np.cumsum(move)), index=days)
    weeks = weekly_volatility(prices)
    assert [str(day_of(day)) for day in weeks.index] == ["2022-01-07", "2022-01-14", "2022-01-21"]
    assert weeks.iloc[1] == pytest.approx(0.5 * np.log(252 * np.mean(move[5:10] ** 2)))
    without_friday = prices.drop(pd.Timestamp("2022-01-14"))
    assert "2022-01-13" in [str(day_of(day)) for day in weekly_volatility(without_friday).index]


def test_a_halted_week_is_left_out() -> None:
    days = pd.bdate_range("2022-01-03", "2022-02-04")
    prices = pd.Series(100 * np.exp(np.cumsum(np.resize([0.01, -0.02], len(days)))), index=days)
    prices["2022-01-07":"2022-01-14"] = float(prices["2022-01-07"])
    assert "2022-01-14" not in [str(day_of(day)) for day in weekly_volatility(prices).index]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda prices: prices.iloc[::-1], "not in order of their days"),
        (lambda prices: pd.concat([prices, prices.tail(1)]), "not in order of their days"),
        (
            lambda prices: prices.where(prices.index != prices.index[9]),
            "not positive, the first on 2022-01-14",
        ),
        (lambda prices: prices.where(prices.index != prices.index[9], -1.0), "missing or not positive"),
    ],
)
def test_prices_that_cannot_be_returns_are_refused(change: Change, message: str) -> None:
    prices = pd.Series(np.linspace(100, 120, 30), index=pd.bdate_range("2022-01-03", periods=30))
    with pytest.raises(InputError, match=message):
        log_returns(change(prices))
