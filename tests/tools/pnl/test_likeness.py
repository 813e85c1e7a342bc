"""Past events are near by what the factors did, the kind of event, its region and severity; words count for nothing."""

from __future__ import annotations

import datetime as dt
import math

import pytest

from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.likeness import Likeness, Moves, apart, grade_of
from finllm.tools.pnl.sizes import FactorView

FALL = Likeness({"EQUITY_US": -2.0, "OIL_WTI": 3.0}, {})


def test_the_distance_is_the_root_mean_square_of_the_gaps() -> None:
    past = Likeness({"EQUITY_US": -1.0, "OIL_WTI": 1.0, "GOLD": 9.0}, {})
    assert apart(FALL, past) == pytest.approx(math.sqrt((1 + 4) / 2))
    assert apart(FALL, FALL) == 0.0
    assert apart(FALL, Likeness({"VIX": 1.0}, {})) == math.inf


def test_a_direction_without_a_size_is_as_large_as_what_it_is_held_against() -> None:
    assert apart(FALL, Likeness({}, {"EQUITY_US": "down", "OIL_WTI": "up"})) == 0.0
    assert apart(FALL, Likeness({}, {"EQUITY_US": "up"})) == pytest.approx(4.0)
    assert apart(Likeness({"EQUITY_US": 0.0}, {}), Likeness({}, {"EQUITY_US": "down"})) == pytest.approx(1.0)


def test_another_kind_region_and_severity_are_farther() -> None:
    def named(kind: str, region: str, grade: int) -> Likeness:
        return Likeness(FALL.sizes, {}, frozenset({kind}), frozenset({region}), grade)

    war = named("war", "mideast", 2)
    assert apart(war, named("war", "mideast", 2)) == 0.0
    assert apart(war, named("default", "mideast", 2)) == pytest.approx(1.5)
    assert apart(war, named("war", "us", 2)) == pytest.approx(0.5)
    assert apart(war, named("war", "mideast", 0)) == pytest.approx(0.5)
    assert [grade_of({"A": size}) for size in (0.5, -1.5, 2.5, -4.0)] == [0, 1, 2, 3]


def test_sizes_are_those_of_the_market_over_the_window_and_none_without_data() -> None:
    market = MarketStore()
    moves = Moves(FactorView(FactorSet.default(market), market, dt.date(2022, 6, 30)))
    window = dt.date(2008, 9, 12), dt.date(2008, 11, 20)
    found = moves.over(window, ("EQUITY_US", "OIL_WTI", "GOLD"))
    values = market.read("SP500", dt.date(2022, 6, 30)).values
    start, end = values.index.get_loc("2008-09-12"), values.index.get_loc("2008-11-20")
    steps = int(end) - int(start)  # type: ignore[arg-type]
    sigma = float((values / values.shift(steps) - 1).dropna().std(ddof=1))
    assert found["EQUITY_US"] == pytest.approx((values["2008-11-20"] / values["2008-09-12"] - 1) / sigma, rel=1e-9)
    assert set(found) == {"EQUITY_US", "OIL_WTI"}
    early = Moves(FactorView(FactorSet.default(market), market, dt.date(2008, 10, 10)))
    assert early.over(window, ("EQUITY_US",)) == {}
