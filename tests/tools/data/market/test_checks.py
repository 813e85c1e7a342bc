"""What is found in a series of the user's, and what is then not used."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.market import (
    MarketStore,
    ReadOptions,
    Series,
    Step,
    check,
    day_of,
    packaged_series,
    read_price_file,
    stamp_of,
)
from finllm.tools.pnl.engine import run_engine
from finllm.tools.pnl.factorset import FactorSet

from .made import SHARED, column, series

D = dt.date
AS_OF = D(2022, 6, 30)
INDEX = packaged_series()["SP500"].values.loc["2020-07-01":"2022-06-30"]


def own(values: pd.Series, name: str = "ACME", **how: object) -> Series:
    made = Series(
        name, values.rename(name), "price", "daily", "file:///mine.csv", "f" * 64, (), stamp_of(values.index[0])
    )
    return replace(made, **how)  # type: ignore[arg-type]


def with_index(beta: float = 0.8, seed: int = 1, size: float = 0.008) -> pd.Series:
    """Prices that go with the index, and noise."""
    noise = np.random.default_rng(seed).normal(0, size, len(INDEX))
    return pd.Series(100 * (1 + beta * INDEX.pct_change().fillna(0) + noise).cumprod(), name="ACME")


def kinds(values: pd.Series, index: pd.Series | None = INDEX) -> list[str]:
    return [one.kind for one in check(own(values), index).findings]


def changed(at: int, how: Callable[[pd.Series], pd.Series]) -> pd.Series:
    values = with_index()
    return pd.concat([values.iloc[:at], how(values.iloc[at:])])


def test_ordinary_prices_are_found_ordinary() -> None:
    assert kinds(with_index()) == []
    assert check(replace(own(with_index()), since=None), INDEX).findings == ()


@pytest.mark.parametrize(
    ("factor", "name"), [(1 / 4, "4:1"), (1 / 2, "2:1"), (2 / 3, "3:2"), (10, "1:10"), (1 / 20, "20:1")]
)
def test_a_split_on_a_calm_day_is_asked_about_and_its_day_is_not_used(factor: float, name: str) -> None:
    values = changed(300, lambda late: late * factor)
    (found,) = check(own(values), INDEX).findings
    day = str(values.index[300])[:10]
    assert found.kind == "split"
    assert found.words.startswith(f"{name} split on {day}? The price went from")
    assert "the index moved" in found.words
    assert "give adjusted prices or --splits; the day is not used meanwhile" in found.words
    seen = MarketStore((), [own(values)]).read("ACME", AS_OF)
    assert list(seen.breaks) == [values.index[300]]
    assert seen.values.pct_change().abs().max() < 0.1
    assert seen.values.iloc[-1] == values.iloc[-1]


def test_a_fall_that_the_index_shares_is_no_split() -> None:
    crash = INDEX.copy()
    crash.iloc[300:] *= 0.5
    assert "split" not in kinds(changed(300, lambda late: late * 0.5), crash)


def test_a_split_that_was_explained_is_used() -> None:
    values = changed(300, lambda late: late / 4)
    told = own(values, steps=(Step(stamp_of(values.index[300]), 0.25),))
    assert check(told, INDEX).findings == ()
    seen = MarketStore((), [told]).read("ACME", AS_OF)
    assert not len(seen.breaks)
    assert seen.values.pct_change().abs().max() < 0.1
    before = MarketStore((), [told]).read("ACME", day_of(values.index[299]))
    assert before.values.iloc[-1] == values.iloc[299]


def test_a_split_in_the_prices_changes_neither_beta_nor_risk_beyond_its_day() -> None:
    whole, split = with_index(), changed(300, lambda late: late / 4)
    results = [
        run_engine(
            Portfolio(name="t", uri="file:t", sha256="0" * 64,
                      positions=(Position(id="ACME", asset_class="equity", market_value=1e6),)),
            MarketStore((), [own(values)]), AS_OF, 20, [FactorSet.default(MarketStore()).parse("EQUITY_US", "-10%")],
        )
        for values in (whole, split)
    ]  # fmt: skip
    for name in ("total", "var_975_1d", "es_975_1d"):
        plain, other = (getattr(one, name) for one in results)
        plain, other = (float(getattr(one, "loss", one)) for one in (plain, other))
        assert other == pytest.approx(plain, rel=0.03)
    assert any("4:1 split on" in note for note in results[1].notes)
    assert not any("split" in note for note in results[0].notes)


def test_gaps_halts_outliers_and_negative_prices_are_found() -> None:
    values = with_index()
    kept = (np.arange(len(values)) < 100) | (np.arange(len(values)) >= 120)
    assert kinds(pd.Series(values[kept])) == ["gap"]
    assert kinds(changed(400, lambda late: late * 0 + late.iloc[0])) == ["halt"]
    spike = values.copy()
    spike.iloc[200] *= 1.37
    (found,) = check(own(spike), INDEX).findings
    assert found.kind == "outlier"
    assert "and back the day after: a wrong value?" in found.words
    below = values.copy()
    below.iloc[300] = -37.63
    assert "negative" in kinds(below)
    late = check(own(values), INDEX, AS_OF + dt.timedelta(days=60)).findings
    assert [one.kind for one in late] == ["stale"]


@pytest.mark.parametrize("lag", [1, -1])
def test_days_of_another_zone_are_found_by_the_index(lag: int) -> None:
    values = with_index(size=0.004)
    moved = pd.Series(values.shift(lag).dropna())
    (found,) = check(own(moved), INDEX).findings
    assert found.kind == "zone"
    assert ("day before" if lag > 0 else "day after") in found.words
    sundays = pd.Series(values.to_numpy(), index=values.index - pd.Timedelta(days=1))
    assert "weekend" in kinds(sundays)


def test_a_halted_name_is_stood_in_for_in_the_same_way_everywhere() -> None:
    flat = pd.Series(1.0, index=INDEX.index)
    market = MarketStore((), [own(flat, "FLAT"), own(with_index(), "LIVE")])
    rows = [Position(id=name, asset_class="equity", quantity=1000.0) for name in ("FLAT", "LIVE")]
    factors = FactorSet.default(market)
    result = run_engine(Portfolio(name="t", uri="file:t", sha256="0" * 64, positions=tuple(rows)), market, AS_OF, 20,
                        [factors.parse("EQUITY_US", "-10%")])  # fmt: skip
    assert float(result.by_position["FLAT"]) == pytest.approx(-100.0)
    said = " ".join(result.notes)
    assert "'FLAT': halted since 2020-07-01: its closes tell no beta, and that of EQUITY_US itself stands in" in said
    assert result.var_975_1d is not None
    assert result.var_975_1d.loss > 0


def test_no_return_of_a_negative_price_is_used_and_the_day_itself_values_nothing(tmp_path: Path) -> None:
    values = with_index()
    values.iloc[300] = -37.63
    prices, breaks = MarketStore([column(tmp_path / "x.csv", values, "CLMAY")]).read("CLMAY", AS_OF).positive()
    assert (prices > 0).all()
    assert list(breaks) == [values.index[301]]


@settings(max_examples=40, deadline=None)
@given(as_of=st.dates(D(2021, 1, 4), D(2022, 6, 29)), at=st.integers(200, 500))
@example(as_of=D(2022, 5, 1), at=460)  # the index rose by 2.5 % that day, and the share with it
def test_nothing_is_found_before_it_happens(as_of: dt.date, at: int) -> None:
    values = with_index()
    later = values.copy()
    later.iloc[at:] /= 4
    seen = [MarketStore((), [own(one)]).read("ACME", as_of) for one in (values, later)]
    if day_of(values.index[at]) > as_of:
        assert seen[0].values.equals(seen[1].values)
        assert seen[1].findings == seen[0].findings
    else:
        assert [one.kind for one in seen[1].findings] == ["split"]


def test_the_shared_splits_and_flat_prices_are_found() -> None:
    path = SHARED / "cases" / "prices"
    if not path.is_dir():
        pytest.skip(f"{path} is not there")
    market = MarketStore([path / "split_prices.csv", path / "flat_prices.csv"])
    assert any(one.words.startswith("4:1 split on 2021-12-28?") for one in market.read("SPLT", AS_OF).findings)
    assert market.halted_since("FLAT", AS_OF) == D(2021, 6, 1)
    assert market.halted_since("ZLIV", AS_OF) is None


def test_a_split_is_given_by_the_day_of_the_new_price(tmp_path: Path) -> None:
    values = changed(300, lambda late: late / 4)
    day = day_of(values.index[300])
    read = read_price_file(column(tmp_path / "ACME.csv", values, "ACME"), ReadOptions(splits={"ACME": ((day, 4.0),)}))
    assert check(read.series[0], INDEX).findings == ()
    assert series(3).size == 3
