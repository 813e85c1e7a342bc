"""The user's days go on where a packaged series ends, if they agree with it; nobody knows of them before."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import factor_table
from finllm.tools.data.market import MarketStore, Series, day_of, extend, packaged_series, read_price_file, stamp_of
from finllm.tools.data.market.checks import breaks_of
from finllm.tools.pnl.factorset import FactorSet, series_of

from .made import SHARED, column, days, series, walk

D = dt.date
OLD = packaged_series()["AAPL"]
END = OLD.values.index[-1]


def later(values: pd.Series, name: str = "AAPL", **how: object) -> Series:
    made = Series(
        name, values.rename(name), "price", "daily", "file:///mine.csv", "f" * 64, (), stamp_of(values.index[0])
    )
    return replace(made, **how)  # type: ignore[arg-type]


def overlapping(factor: float | np.ndarray = 1.0, shared: int = 250, new: int = 100) -> pd.Series:
    """The packaged prices of the last `shared` days times a factor, and as many new days after them."""
    old = OLD.values.iloc[-shared:] * factor
    after = pd.Series(walk(new, seed=3, start=float(old.iloc[-1])), index=days(new, "2022-12-29"))
    return pd.concat([old, after])


def test_new_days_follow_the_packaged_ones_where_the_levels_agree() -> None:
    found = extend(OLD, later(overlapping()))
    assert len(found.values) == len(OLD.values) + 100
    assert found.since == pd.Timestamp("2022-12-29")
    assert not len(breaks_of(found.steps))
    assert "250 days in common agree within 0.5%" in found.notes[0]


def test_a_constant_ratio_is_another_basis_and_rescales_what_was_before_only_once_it_is_known() -> None:
    found = extend(OLD, later(overlapping(0.97)))
    assert "0.97 times as high" in found.notes[0]
    assert found.visible(D(2022, 12, 28)).iloc[-1] == OLD.values.iloc[-1]
    after = found.visible(D(2022, 12, 30))
    assert after.loc[END] == pytest.approx(0.97 * OLD.values.iloc[-1])
    assert abs(after.pct_change().iloc[-2]) < 0.05


def test_prices_without_dividends_agree_by_their_returns() -> None:
    paid = np.where(np.arange(250) < 120, 1.02, 1.0)
    found = extend(OLD, later(overlapping(paid)))
    assert "248 of 249 daily returns agree" in found.notes[0]


@pytest.mark.parametrize("at", [0, 100, 249])
def test_a_day_that_disagrees_is_named_with_both_values(at: int) -> None:
    wrong = np.ones(250)
    wrong[at] = 1.2
    values = overlapping(wrong)
    with pytest.raises(InputError) as refused:
        extend(OLD, later(values))
    day = str(values.index[at])[:10]
    assert f"is {values.iloc[at]:g} on {day}" in refused.value.message
    assert f"is {OLD.values.loc[values.index[at]]:g}" in refused.value.message
    assert "--as" in (refused.value.fix or "")


def test_without_a_day_in_common_the_move_across_is_not_used() -> None:
    found = extend(OLD, later(series(100, "2023-01-02", start=124.0)))
    assert list(breaks_of(found.steps)) == [pd.Timestamp("2023-01-02")]
    assert "without a day in common: the move from 2022-12-28 to 2023-01-02 is not used" in found.notes[0]
    with pytest.raises(InputError, match="these are not one series"):
        extend(OLD, later(series(100, "2023-01-02", start=900.0)))
    with pytest.raises(InputError, match="put together on 2023-01-02 from two that share no day"):
        MarketStore((), [later(series(100, "2023-01-02", start=124.0))]).window(
            "AAPL", D(2022, 12, 1), D(2023, 2, 1), D(2023, 3, 1)
        )


def test_days_before_a_packaged_series_begins_are_taken_too() -> None:
    vix = packaged_series()["VIX"]
    early = pd.Series(walk(300, start=15.0), index=pd.bdate_range(end="2014-01-02", periods=300))
    values = pd.concat([early, vix.values.iloc[:100]])
    found = extend(vix, later(values, "VIX", unit="points"))
    assert found.values.index[0] == early.index[0]
    assert len(found.values) == len(vix.values) + 300


def test_a_stand_in_must_go_closely_and_is_said_to_be_one(tmp_path: Path) -> None:
    wti = packaged_series()["WTI"].values
    near = wti.iloc[-500:] * np.where(np.arange(500) % 50 == 0, 1.04, 1.003)
    path = column(tmp_path / "x.csv", near[near.index <= "2018-12-31"], "CL=F")
    store = MarketStore([path])
    assert "CL=F" in store
    assert any("'CL=F' is kept as WTI" in note for note in read_price_file(path).series[0].notes)
    with pytest.raises(InputError, match="too far apart to stand in for it"):
        MarketStore([column(tmp_path / "far.csv", near * 1.2, "CL=F")])


def test_an_index_is_found_by_its_common_names_and_by_a_part_of_an_own_one(tmp_path: Path) -> None:
    index = packaged_series()["SP500"].values
    values = pd.concat([index.iloc[-50:], pd.Series(walk(200, start=3800.0), index=days(200, "2022-12-29"))])
    for name in ("^GSPC", "SPX", "S&P 500", "SPX_MINE"):
        store = MarketStore([column(tmp_path / "x.csv", values, name)])
        assert store.read("SP500", D(2023, 12, 31)).last > D(2023, 6, 1)
        assert name in store
    other = MarketStore([column(tmp_path / "x.csv", series(300, "2022-11-01", start=3900.0), "SPX_MINE")])
    assert other.read("SP500", D(2023, 12, 31)).last == D(2022, 12, 28)
    assert "^GSPC" in MarketStore()


def test_prices_that_the_index_does_not_reach_ask_for_it(tmp_path: Path) -> None:
    market = MarketStore([column(tmp_path / "x.csv", series(300, "2023-06-01"), "ACME")])
    rows = (
        Position(id="ACME", asset_class="equity", quantity=10.0),
        Position(id="C", asset_class="cash", market_value=1.0),
    )
    book = value_portfolio(Portfolio(name="t", uri="file:t", sha256="0" * 64, positions=rows), market, D(2024, 6, 28))
    (left_out,) = book.exclusions
    assert "share no day with the S&P 500, whose own end on 2022-12-28" in left_out.reason
    assert "--as COLUMN=SP500" in left_out.reason


def test_a_price_below_zero_values_nothing(tmp_path: Path) -> None:
    values = pd.Series([19.9, 18.3, -37.6], index=days(3, "2020-04-16"))
    market = MarketStore([column(tmp_path / "x.csv", values, "CLMAY")])
    rows = (
        Position(id="CLMAY", asset_class="commodity", quantity=10.0),
        Position(id="C", asset_class="cash", market_value=1.0),
    )
    book = value_portfolio(Portfolio(name="t", uri="file:t", sha256="0" * 64, positions=rows), market, D(2020, 4, 20))
    (left_out,) = book.exclusions
    assert "is -37.6: no return of it is told" in left_out.reason


def test_the_spread_follows_the_yields_it_is_of(tmp_path: Path) -> None:
    months = pd.date_range("2018-06-01", periods=60, freq="MS")
    old = {name: packaged_series()[name].values for name in ("AAA", "BAA")}
    paths = []
    for name, level in (("AAA", 4.0), ("BAA", 5.5)):
        values = pd.Series(level, index=months)
        values.update(old[name])
        paths.append(column(tmp_path / f"{name}.csv", values, name))
    seen = MarketStore(paths).read("BAA_AAA", D(2023, 12, 31))
    assert str(seen.values.index[-1])[:7] == "2023-05"
    assert seen.values.iloc[-1] == pytest.approx(150.0)


@settings(max_examples=60, deadline=None)
@given(as_of=st.dates(D(2021, 1, 4), D(2023, 6, 30)), factor=st.sampled_from([1.0, 0.97]))
def test_no_day_of_the_users_is_known_before_it(as_of: dt.date, factor: float) -> None:
    values = overlapping(factor)
    poisoned = values.where(values.index <= max(pd.Timestamp(as_of), END), values * 9 + 50)
    seen = [MarketStore((), [later(one)]).read("AAPL", as_of).values for one in (values, poisoned)]
    assert seen[0].equals(seen[1])
    if as_of <= day_of(END):
        assert seen[0].equals(MarketStore().read("AAPL", as_of).values)


def test_a_series_that_was_added_becomes_the_factors_history() -> None:
    rate = Series(
        "DGS10", series(300, start=4.0), "percent", "daily", "file:///x.csv", "0" * 64, (), stamp_of(days(1)[0])
    )
    fed = Series("FED_UST_10Y", rate.values, "percent", "quarterly", "file:///fed", "0" * 64)
    row = factor_table()["RATE_US_10Y"]
    assert series_of(row, MarketStore((), [fed])) == "FED_UST_10Y"
    assert series_of(row, MarketStore((), [fed, rate])) == "DGS10"
    assert "RATE_US_2Y" not in FactorSet.default(MarketStore())
    assert "RATE_US_2Y" in FactorSet.default(MarketStore((), [replace(rate, name="DGS2")]))


SHARED_FILES = {
    "fred_DGS10.csv": ("DGS10", "percent", "RATE_US_10Y"), "fred_DGS2.csv": ("DGS2", "percent", "RATE_US_2Y"),
    "fred_DGS30.csv": ("DGS30", "percent", "RATE_US_30Y"), "fred_DGS5_to_2021.csv": ("DGS5", "percent", "RATE_US_5Y"),
    "fred_DTWEXBGS.csv": ("DTWEXBGS", "price", "USD_BROAD"), "datasets_gold_monthly.csv": ("GOLD", "price", "GOLD"),
    "datasets_wti_daily.csv": ("WTI", "price", "OIL_WTI"), "datasets_brent_daily.csv": ("BRENT", "price", "OIL_BRENT"),
    "datasets_natgas_daily.csv": ("NATGAS", "price", "GAS_US"),
}  # fmt: skip


@pytest.mark.parametrize("file", SHARED_FILES)
def test_published_histories_become_the_factors_they_are_of(file: str) -> None:
    path = SHARED / "prices" / file
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    name, unit, factor = SHARED_FILES[file]
    (found,) = read_price_file(path).series
    market = MarketStore((), [found])
    assert (found.name, found.unit) == (name, unit)
    assert FactorSet.default(market)[factor].series == name
    levels = FactorSet.default(market)[factor].levelled(market, D(2026, 10, 30))
    assert len(levels.values) > 1000
