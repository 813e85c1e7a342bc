"""Shocks: sizes from a factor's own history, the reviewed table where there is none, and history replayed."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from finllm.errors import InputError, LookAheadError
from finllm.tools.data.factors import (
    FACTOR_IDS,
    FACTORS,
    Direction,
    FactorId,
    Shock,
    Size,
    UserShock,
    factor_table,
    parse_user_shock,
)
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.shocks import QUANTILE, JudgedShock, judged_shock, replayed, user_shock
from finllm.tools.pnl.size_table import size_table
from finllm.tools.pnl.sizes import FactorView
from finllm.tools.pnl.sizes import Size as Known

D = dt.date
AS_OF = D(2022, 6, 30)
WITHOUT_HISTORY = ("RATE_US_10Y", "GOLD")


@pytest.fixture(scope="module")
def market() -> MarketStore:
    return MarketStore()


def seen(market: MarketStore, as_of: dt.date) -> FactorView:
    return FactorView(FactorSet.default(market), market, as_of)


def model_shock(
    factor: str, direction: Direction, size: Size, market: MarketStore, as_of: dt.date, horizon: int
) -> Shock:
    return judged_shock(JudgedShock(factor, direction, size), seen(market, as_of), horizon)


def resolve_user(user: UserShock, market: MarketStore, as_of: dt.date, horizon: int) -> Shock:
    return user_shock(user, seen(market, as_of), horizon)


def size_of(factor: str, market: MarketStore, as_of: dt.date, horizon: int) -> Known:
    return seen(market, as_of).size(factor, horizon)


@pytest.mark.parametrize("size", list(QUANTILE))
def test_a_judged_size_is_a_quantile_of_the_moves_of_that_sign(market: MarketStore, size: str) -> None:
    prices = pd.Series(market.read("SP500", AS_OF).values["1992-06-01":]).to_numpy()
    moves = prices[20:] / prices[:-20] - 1
    shock = model_shock("EQUITY_US", "down", size, market, AS_OF, 20)  # pyright: ignore[reportArgumentType]
    assert shock.move == pytest.approx(-np.quantile(-moves[moves < 0], QUANTILE[size]))  # pyright: ignore
    assert shock.sigma == pytest.approx(shock.move / moves.std(ddof=1))
    assert shock.origin == "model"
    assert "20-day moves of SP500, 1992-06-01 to 2022-06-30" in shock.window


@pytest.mark.parametrize("factor", ["EQUITY_US", "CREDIT_BAA_AAA", "OIL_WTI", "VIX", *WITHOUT_HISTORY])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_sizes_grow_with_their_name_and_keep_their_sign(market: MarketStore, factor: FactorId, direction: str) -> None:
    moves = [
        model_shock(factor, direction, size, market, AS_OF, 20).move  # pyright: ignore[reportArgumentType]
        for size in ("small", "medium", "large", "extreme")
    ]
    sign = 1 if direction == "up" else -1
    assert sorted(abs(move) for move in moves) == [abs(move) for move in moves]
    assert all(move * sign > 0 for move in moves)


def test_no_direction_is_no_move(market: MarketStore) -> None:
    for factor in FACTOR_IDS:
        shock = model_shock(factor, "none", "large", market, AS_OF, 20)
        assert (shock.move, shock.sigma) == (0.0, 0.0)


def test_a_window_that_ends_early_says_how_old_it_is(market: MarketStore) -> None:
    shock = model_shock("OIL_WTI", "up", "large", market, AS_OF, 20)
    assert shock.window.endswith("to 2019-01-03, 6684 observations, 1274 days old")


def test_monthly_moves_take_whole_months(market: MarketStore) -> None:
    def words(horizon: int) -> str:
        sigma = size_of("CREDIT_BAA_AAA", market, AS_OF, horizon).sigma
        return sigma.window if sigma else ""

    assert words(20).startswith("1-month moves of BAA_AAA")
    assert "√" not in words(20)
    assert words(63).startswith("3-month moves of BAA_AAA")


def test_a_horizon_far_within_one_step_takes_the_root_of_its_part(market: MarketStore) -> None:
    week, month = (size_of("CREDIT_BAA_AAA", market, AS_OF, horizon).sigma for horizon in (5, 20))
    assert week is not None
    assert month is not None
    assert week.value == pytest.approx(month.value * (5 / 21) ** 0.5)
    assert "× √(5/21)" in week.window


@pytest.mark.parametrize("factor", WITHOUT_HISTORY)
def test_a_factor_without_history_takes_the_reviewed_size(market: MarketStore, factor: FactorId) -> None:
    row = size_table().factors[factor]
    month, fortnight = (model_shock(factor, "up", "medium", market, AS_OF, horizon) for horizon in (20, 10))
    assert (month.move, month.origin) == (row.medium, "table")
    assert fortnight.move == pytest.approx(row.medium * 0.5**0.5)
    assert month.sigma == pytest.approx(row.medium / row.sigma)
    assert fortnight.sigma == pytest.approx(month.sigma)
    assert "size table" in month.window


def test_the_table_is_in_each_factors_unit() -> None:
    assert all(row.unit == factor_table()[factor].unit for factor, row in size_table().factors.items())


def test_less_than_ten_years_of_moves_tell_a_sigma_and_leave_the_named_sizes_to_the_table(market: MarketStore) -> None:
    known = size_of("VIX", market, AS_OF, 60)
    assert known.sigma is not None
    assert known.sigma.value == pytest.approx(5.6, abs=0.05)
    extreme = model_shock("VIX", "up", "extreme", market, AS_OF, 60)
    assert (extreme.origin, round(extreme.move)) == ("table", 52)
    assert extreme.sigma == pytest.approx(extreme.move / known.sigma.value)
    assert size_of("VIX", market, D(2008, 11, 20), 20).moves is None
    assert model_shock("VIX", "up", "large", market, D(2008, 11, 20), 20).origin == "table"
    assert size_of("EQUITY_US", market, AS_OF, 60).table is None


def test_a_users_shock_keeps_its_move_and_gets_its_sigma(market: MarketStore) -> None:
    shock = resolve_user(parse_user_shock("OIL_WTI", "+40%"), market, AS_OF, 20)
    sigma = size_of("OIL_WTI", market, AS_OF, 20).sigma
    assert sigma is not None
    assert (shock.move, shock.origin, shock.unit) == (0.40, "user", "return")
    assert shock.sigma == pytest.approx(0.40 / sigma.value)


def test_a_users_sigmas_become_a_move(market: MarketStore) -> None:
    shock = resolve_user(parse_user_shock("EQUITY_US", "-3sigma"), market, AS_OF, 20)
    sigma = size_of("EQUITY_US", market, AS_OF, 20).sigma
    assert sigma is not None
    assert shock.move == pytest.approx(-3 * sigma.value)
    assert shock.sigma == pytest.approx(-3.0)


@pytest.mark.parametrize(("factor", "move"), [("RATE_US_10Y", "+20000bp"), ("EQUITY_US", "-40σ")])
def test_an_impossible_user_shock_is_refused(market: MarketStore, factor: str, move: str) -> None:
    with pytest.raises(InputError, match=f"the shock of '{factor}' is"):
        resolve_user(parse_user_shock(factor, move), market, AS_OF, 20)


@pytest.mark.parametrize(("factor", "move", "says", "mend"), [
    ("VIX", "-60points", "takes it below zero: it stood at", "let it fall by at most"),
    ("CREDIT_BAA_AAA", "-900bp", "takes it below zero: it stood at", "let it fall by at most"),
    ("RATE_US_10Y", "-600bp", "takes it below -100 bp: it is taken to stand at 4.00 %", "at most 500 bp"),
    ("OIL_WTI", "-30sigma", "the shock of 'OIL_WTI' is -", "stay between -100.00 %"),
])  # fmt: skip
def test_a_move_that_no_market_can_make_is_refused_with_its_mend(
    market: MarketStore, factor: str, move: str, says: str, mend: str
) -> None:
    with pytest.raises(InputError, match=says) as refusal:
        user_shock(parse_user_shock(factor, move), seen(market, AS_OF), 20)
    assert mend in refusal.value.fix


def test_a_price_may_fall_by_all_of_it_and_a_yield_to_its_floor(market: MarketStore) -> None:
    view = seen(market, AS_OF)
    assert user_shock(parse_user_shock("OIL_WTI", "-100%"), view, 20).move == -1.0
    assert user_shock(parse_user_shock("RATE_US_10Y", "-500bp"), view, 20).move == -500.0


def test_the_level_that_decides_is_the_last_one_known(market: MarketStore) -> None:
    """In August 2015 the VIX stood at 40, and a fall by 30 points was possible; two years later it was not."""
    fall = parse_user_shock("VIX", "-30points")
    assert user_shock(fall, seen(market, D(2015, 8, 24)), 20).move == -30.0
    with pytest.raises(InputError, match="below zero"):
        user_shock(fall, seen(market, D(2017, 10, 31)), 20)


def test_history_is_replayed_where_there_is_some_and_the_others_are_named(market: MarketStore) -> None:
    shocks, missing = replayed(seen(market, AS_OF), (D(2008, 9, 12), D(2008, 11, 20)))
    moves = {shock.factor: shock.move for shock in shocks}
    assert moves["EQUITY_US"] * 100 == pytest.approx(-39.89, abs=0.01)
    assert moves["CREDIT_BAA_AAA"] == pytest.approx((9.21 - 6.12 - (7.15 - 5.64)) * 100)
    assert moves["OIL_WTI"] < -0.4
    assert all(shock.origin == "historical" for shock in shocks)
    assert set(missing) & set(FACTORS) == {"GOLD", "VIX"}
    assert moves["RATE_US_10Y"] == pytest.approx((6.12 - 5.64) * 100)  # by the yield of AAA bonds, which stands in
    assert "2014-01-03" in missing["VIX"]


def test_a_replay_past_as_of_is_refused(market: MarketStore) -> None:
    with pytest.raises(LookAheadError, match="set 'as_of' to 2008-11-20 or later"):
        replayed(seen(market, D(2008, 11, 19)), (D(2008, 9, 12), D(2008, 11, 20)))


def test_a_replay_backwards_is_refused(market: MarketStore) -> None:
    with pytest.raises(InputError, match="does not end after it starts"):
        replayed(seen(market, AS_OF), (D(2008, 11, 20), D(2008, 9, 12)))
