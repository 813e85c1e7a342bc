"""How factors move together: σ of their own, pairs on all that both have, short histories, averages, near a shock."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.tools.data.market import MarketStore, Series, packaged_series
from finllm.tools.pnl.factorset import Driver, FactorSet
from finllm.tools.pnl.joint import Joint, _joined
from finllm.tools.pnl.outcome import beyond
from finllm.tools.pnl.propagate import propagate
from finllm.tools.pnl.sizes import FactorView

AS_OF = dt.date(2018, 12, 31)
MARKET = MarketStore()
FACTORS = FactorSet.default(MARKET)
VIEW = FactorView(FACTORS, MARKET, AS_OF)


def given_move(joint: Joint, shocked: str, move: float, other: str, *, near: bool = False) -> float:
    found = propagate({shocked: move}, joint.near({shocked: move})[0] if near else joint.covariance)
    return float(found.means[found.others.index(other)])


def store(**levels: pd.Series) -> FactorView:
    """A market of the packaged index and of these daily levels, each a factor of its name."""
    made = [Series(name, values, "points", "daily", "file:test", "0" * 64) for name, values in levels.items()]
    market = MarketStore.of([*made, packaged_series()["SP500"]])
    drivers = {name: Driver(name, name, "points", name, kind="named") for name in levels}
    return FactorView(FactorSet(drivers | {"EQUITY_US": FACTORS["EQUITY_US"]}), market, AS_OF)


def test_two_daily_series_of_one_length_have_the_covariance_of_their_moves_over_the_horizon() -> None:
    random = np.random.default_rng(1)
    days = pd.bdate_range("2000-01-03", periods=3000)
    steps = random.multivariate_normal([0, 0], [[1.0, 0.6], [0.6, 2.0]], len(days)).cumsum(axis=0)
    joint = Joint(store(A=pd.Series(steps[:, 0], days), B=pd.Series(steps[:, 1], days)), ["A", "B"], 20)
    moves = steps[20:] - steps[:-20]
    assert joint.covariance.matrix == pytest.approx(np.cov(moves, rowvar=False), rel=1e-3)
    assert joint.covariance.repaired == 0


def test_a_short_history_answers_by_its_slope_on_the_longer_one() -> None:
    """Where only calm years of one are known, its σ in the long run is what the slope and the long years make of it."""
    random = np.random.default_rng(2)
    days = pd.bdate_range("1995-01-02", periods=6000)
    size = np.where(np.arange(6000) < 4500, 2.0, 1.0)  # twice as wild before the short one begins
    first = (random.normal(size=6000) * size).cumsum()
    second = 0.8 * first + random.normal(size=6000).cumsum() * 0.5
    joint = Joint(store(A=pd.Series(first, days), B=pd.Series(second[4500:], days[4500:])), ["A", "B"], 20)
    assert given_move(joint, "A", 10.0, "B") == pytest.approx(8.0, rel=0.15)
    known = float(np.std(second[4520:] - second[4500:-20]))
    assert joint.covariance.sigma("B") > 1.3 * known


def test_a_fall_of_equities_widens_credit_and_lifts_volatility_as_past_falls_did() -> None:
    """By hand: months' averages of the S&P 500 and of BAA over AAA correlate by −0.38; −20 % gave about +24 bp."""
    joint = Joint(VIEW, ["EQUITY_US", "CREDIT_BAA_AAA", "OIL_WTI", "VIX"], 20)
    assert given_move(joint, "EQUITY_US", -0.2, "CREDIT_BAA_AAA") == pytest.approx(24, abs=3)
    assert given_move(joint, "EQUITY_US", -0.2, "CREDIT_BAA_AAA", near=True) > 24
    assert 12 < given_move(joint, "EQUITY_US", -0.13, "VIX", near=True) < 25
    assert "monthly moves of CREDIT_BAA_AAA with EQUITY_US, OIL_WTI, VIX at the mean of each" in joint.rule


@pytest.mark.parametrize(("horizon", "vix", "credit"), [(60, 5.6, 23.4), (250, 6.4, 47.9)])
def test_what_returns_to_its_mean_does_not_grow_with_the_root_of_time(
    horizon: int, vix: float, credit: float
) -> None:  # fmt: skip
    assert VIEW.size("VIX", horizon).sigma is not None
    joint = Joint(VIEW, ["VIX", "CREDIT_BAA_AAA"], horizon)
    assert joint.covariance.sigma("VIX") == pytest.approx(vix, abs=0.2)
    periods = round(horizon / 21)
    assert joint.covariance.sigma("CREDIT_BAA_AAA") == pytest.approx(
        credit * np.sqrt(periods / (periods - 1 / 3)), rel=0.02
    )


def test_within_a_sigma_all_past_moves_count_alike_and_beyond_it_those_of_the_shocks_way_count_more() -> None:
    joint = Joint(VIEW, ["EQUITY_US", "CREDIT_BAA_AAA"], 20)
    assert joint.near({"EQUITY_US": -0.01})[1] == "past moves alike"
    assert joint.near({"EQUITY_US": -0.2})[1] == "past moves weighed by how far they went this way, by 25%"
    down = given_move(joint, "EQUITY_US", -0.15, "CREDIT_BAA_AAA", near=True)
    up = given_move(joint, "EQUITY_US", 0.15, "CREDIT_BAA_AAA", near=True)
    assert down > -up > 0  # spreads widen in falls by more than they narrow in rises


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 8))
def test_what_is_put_together_by_pairs_has_no_negative_eigenvalue(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    length = np.minimum.outer(*(random.integers(10, 400, count),) * 2).astype(float)
    square = random.uniform(0.2, 3.0, (count, count))
    cross = random.normal(size=(count, count))
    cross = (cross + cross.T) / 2
    found, repaired = _joined(cross, square, length)
    assert np.linalg.eigvalsh(found)[0] >= -1e-9
    assert found == pytest.approx(found.T)
    assert repaired >= 0


def test_what_has_no_history_of_its_own_is_named_and_left_out() -> None:
    flat = pd.Series(7.0, index=pd.bdate_range("2010-01-01", "2018-12-31"))
    joint = Joint(VIEW, ["EQUITY_US", "GOLD", "RATE_US_10Y"], 20)
    assert joint.names == ("EQUITY_US",)
    assert joint.missing == dict.fromkeys(("GOLD", "RATE_US_10Y"), "it has no history")
    assert Joint(store(FLAT=flat), ["FLAT"], 20).missing == {"FLAT": "it did not move in its window"}
    assert Joint(VIEW, [], 20).rule == "no factor has a history: nothing is completed"
    with pytest.raises(InputError, match="horizon of 0 trading days"):
        Joint(VIEW, ["EQUITY_US"], 0)


def test_one_short_history_cuts_no_other_pair() -> None:
    wide = Joint(VIEW, ["EQUITY_US", "OIL_WTI"], 20).covariance
    with_vix = Joint(VIEW, ["EQUITY_US", "OIL_WTI", "VIX"], 20).covariance
    assert with_vix.sub(["EQUITY_US", "OIL_WTI"]) == pytest.approx(wide.matrix, rel=0.02)


def test_how_far_past_moves_went_together_is_measured_on_all_that_the_factors_share() -> None:
    random = np.random.default_rng(3)
    days = pd.bdate_range("2000-01-03", periods=3000)
    steps = random.multivariate_normal([0, 0], [[1.0, 0.6], [0.6, 2.0]], len(days)).cumsum(axis=0)
    joint = Joint(store(A=pd.Series(steps[:, 0], days), B=pd.Series(steps[1000:, 1], days[1000:])), ["A", "B"], 20)
    found, words = joint.distances(["A", "B"])
    both = steps[1020:] - steps[1000:-20]
    alone = [(steps[20:, 0] - steps[:-20, 0]).std(), both[:, 1].std()]
    z, block = both / alone, joint.covariance.matrix / np.outer(*[np.sqrt(np.diag(joint.covariance.matrix))] * 2)
    assert found == pytest.approx(np.sqrt([row @ np.linalg.inv(block) @ row for row in z]), rel=1e-6)
    assert words == "20-day moves of these factors, 2003 to 2011"
    assert len(joint.distances(["A"])[0]) == 2980


@pytest.mark.parametrize("degrees", range(1, 12))
@pytest.mark.parametrize("distance", [0.0, 0.1, 1.0, 3.0, 8.0])
def test_the_tail_of_chi_squared_is_scipys(degrees: int, distance: float) -> None:
    from scipy.stats import chi2

    assert beyond(distance**2, degrees) == pytest.approx(float(chi2.sf(distance**2, degrees)), rel=1e-9)
