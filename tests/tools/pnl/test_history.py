"""Histories side by side, and factor sets: the alignment rule, what is left out, and the factors users add."""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finllm.errors import InputError
from finllm.tools.data.market import MarketStore, Series
from finllm.tools.pnl.factorset import Driver, FactorSet, sector_drivers
from finllm.tools.pnl.history import history

D = dt.date
AS_OF = D(2018, 12, 31)
MARKET = MarketStore()
FACTORS = FactorSet.default(MARKET)


def series(name: str, values: list[float], start: str = "2015-01-02", freq: str = "B", **more: str) -> Series:
    index = pd.date_range(start, periods=len(values), freq=freq)
    known = {"unit": "price", "frequency": "daily", "uri": "file:test", "sha256": "0" * 64} | more
    return Series(name, pd.Series(values, index=index, dtype="float64"), **known)  # pyright: ignore[reportArgumentType]


def without(values: pd.Series, start: int, end: int) -> pd.Series:
    return pd.Series(pd.concat([values.iloc[:start], values.iloc[end:]]))


def test_mixed_frequencies_meet_at_the_coarsest_and_the_rule_says_how() -> None:
    found = history([FACTORS[name] for name in ("EQUITY_US", "CREDIT_BAA_AAA", "GOLD")], MARKET, AS_OF)
    assert found.frequency == "monthly"
    assert found.rule.startswith("monthly moves, 1990-02-01 to 2018-11-01")
    assert "EQUITY_US sampled at the last observation of the month" in found.rule
    assert "left out: GOLD" in found.rule
    assert found.missing == {"GOLD": "it has no history"}
    closes = MARKET.read("SP500", AS_OF).values
    october, november = (pd.Series(closes[f"2018-{month}"]).iloc[-1] for month in ("10", "11"))
    assert found.moves["EQUITY_US"].iloc[-1] == pytest.approx(november / october - 1)
    assert str(found.moves.index[-1])[:7] == "2018-11"  # December's spread is not visible in December


def test_unequal_calendars_use_the_days_that_all_share() -> None:
    one = series("ONE", list(range(100, 160)))
    two = series("TWO", list(range(200, 260)))
    holed = Series("TWO", without(two.values, 10, 11), "price", "daily", "file:test", "0" * 64)
    market = MarketStore.of([one, holed])
    factors = FactorSet({}).with_series(market, ["ONE", "TWO"])
    found = history(list(factors.drivers.values()), market, D(2016, 1, 1))
    assert len(found.moves) == 58  # the missing day is bridged by one move of both
    assert found.moves["ONE"].iloc[9] == pytest.approx(111 / 109 - 1)


def test_a_move_across_a_gap_is_dropped_and_counted() -> None:
    values = series("ONE", list(range(100, 200)))
    cut = without(values.values, 40, 60)
    market = MarketStore.of([Series("ONE", cut, "price", "daily", "file:test", "0" * 64)])
    found = history([Driver("ONE", "one", "return", "ONE")], market, D(2016, 1, 1))
    assert len(found.moves) == 78
    assert "1 moves across gaps dropped" in found.rule


def test_a_delisted_name_shortens_the_window_and_a_too_short_one_is_left_out() -> None:
    long, gone = series("LONG", list(range(100, 400))), series("GONE", list(range(100, 110)))
    market = MarketStore.of([long, gone])
    factors = FactorSet({}).with_series(market, ["LONG", "GONE"])
    found = history(list(factors.drivers.values()), market, D(2017, 1, 1))
    assert found.names == ("LONG",)
    assert found.missing["GONE"].startswith("with it 9 daily moves are shared")


def test_an_old_window_says_how_old_it_is() -> None:
    found = history([FACTORS["OIL_WTI"]], MARKET, D(2022, 6, 30))
    assert "its last move is 1274 days old" in found.rule


def test_no_return_is_taken_from_or_to_a_level_below_zero_and_a_move_in_points_is() -> None:
    market = MarketStore.of([series("OIL", [*range(10, 60), -37, 12])])
    returns = history([Driver("OIL", "oil", "return", "OIL")], market, D(2016, 1, 1)).moves["OIL"]
    assert len(returns) == 49
    assert returns.min() > 0
    points = history([Driver("OIL", "oil", "points", "OIL")], market, D(2016, 1, 1)).moves["OIL"]
    assert points.tolist()[-2:] == [-96.0, 49.0]


def test_a_spare_factor_may_not_halve_the_window() -> None:
    names = ("EQUITY_US", "CREDIT_BAA_AAA", "VIX")
    found = history([FACTORS[name] for name in names], MARKET, AS_OF, optional=["VIX"])
    assert found.names == ("EQUITY_US", "CREDIT_BAA_AAA")
    assert "would cut the shared window" in found.missing["VIX"]
    assert "VIX" in history([FACTORS[name] for name in names], MARKET, AS_OF).names


def test_no_history_at_all_is_said() -> None:
    found = history([FACTORS["GOLD"]], MARKET, AS_OF)
    assert found.names == ()
    assert "no factor has a history" in found.rule


def test_a_users_series_becomes_a_factor(tmp_path: Path) -> None:
    days = pd.bdate_range("2015-01-02", periods=300)
    pd.DataFrame({"COBALT": np.linspace(100, 130, 300)}, index=days).to_parquet(tmp_path / "prices.parquet")
    market = MarketStore([tmp_path / "prices.parquet"])
    factors = FactorSet.default(market).with_series(market, ["COBALT"])
    assert factors["COBALT"].unit == "return"
    assert factors.parse("COBALT", "-20%").amount == -0.2
    with pytest.raises(InputError, match="'COBALT' does not move in 'bp'"):
        factors.parse("COBALT", "-20bp")
    with pytest.raises(InputError, match="unknown factor 'TIN'"):
        factors.parse("TIN", "-20%")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"EQUITY_US": "AAPL"}, "factor 'EQUITY_US' is already in the set"),
        ({"TECH": "NOPE"}, "no series 'NOPE' for factor 'TECH'"),
        ({"a b": "AAPL"}, "'a b' cannot name a factor"),
    ],
)
def test_a_bad_factor_is_refused(names: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        FACTORS.with_series(MARKET, names)


def test_a_sector_factor_needs_three_names_and_sees_no_future() -> None:
    sectors = {"CVX": "Energy", "XOM": "Energy", "RRC": "Energy", "GE": "Industrials"}
    (energy,) = sector_drivers(sectors, MARKET, AS_OF)
    assert energy.id == "SECTOR_ENERGY"
    assert energy.levels is not None
    assert str(energy.levels.index[-1])[:10] <= str(AS_OF)
