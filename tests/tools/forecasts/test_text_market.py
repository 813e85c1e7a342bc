"""Text against the market: verdicts, causes and stale context on made-up markets, and no look at what comes later."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from finllm.tools.data.factors import Direction, MoveUnit
from finllm.tools.data.market import NO_DAYS, Bars, Frequency
from finllm.tools.forecasts.text_market import AgainstMarket, Told, against_market
from finllm.tools.pnl.factorset import Levels

DAYS = pd.bdate_range("2020-01-01", "2021-12-31")
AS_OF = dt.date(2021, 6, 30)  # a Wednesday
NEWS = dt.date(2021, 6, 21)  # a Monday: the last close before it is Friday's
EVE = pd.Timestamp("2021-06-18")


def market(
    *, before: float = 0.0, since: float = 0.0, once: float = 0.0, frequency: Frequency = "daily", seed: int = 3
) -> Levels:
    """A price that wanders by 1 % a day to the eve, with drifts a day in the ten days before it and since."""
    steps = np.random.default_rng(seed).choice([-0.01, 0.01], size=len(DAYS))
    eve = int(np.searchsorted(DAYS.to_numpy(), EVE.to_numpy()))
    steps[eve - 9 : eve + 1] = 0.001 * np.resize([1, -1], 10) + before
    steps[eve + 1 :] = 0.001 * np.resize([1, -1], len(DAYS) - eve - 1) + since
    steps[eve + 3] += once
    values = pd.Series(100 * np.exp(np.cumsum(steps)), index=DAYS)
    return Levels(pd.Series(values[values.index <= pd.Timestamp(AS_OF)]), frequency, NO_DAYS)


def held(
    levels: Levels | str, way: Direction = "down", *, days: tuple[dt.date, ...] = (NEWS,), as_of: dt.date = AS_OF,
    unit: MoveUnit = "return", volumes: pd.DataFrame | None = None,
) -> AgainstMarket:  # fmt: skip
    bars = {} if volumes is None else {"EQUITY_US": Bars(volumes, "file:///made.csv", "0" * 64)}
    told = [Told(id=f"source-{at}", day=day) for at, day in enumerate(days)]
    return against_market({"EQUITY_US": way, "GOLD": "none"}, {"EQUITY_US": levels}, {"EQUITY_US": unit}, told, as_of,
                          bars)  # fmt: skip


def test_a_market_that_falls_as_told_bears_the_text_out() -> None:
    found = held(market(since=-0.02))
    (row,) = found.days[0].tests
    assert (found.verdict, found.factors, found.cause) == ("aligned", {"EQUITY_US": "moving as told"}, "none")
    assert (row.start, row.end) == (EVE.date(), AS_OF)
    assert row.move == pytest.approx(np.exp(8 * -0.02) - 1, abs=1e-9)  # eight trading days; the wiggle cancels
    assert row.sigma == pytest.approx(row_sigma(market()), rel=1e-9)
    assert row.surprise == pytest.approx(8 * -0.02 / row_sigma(market()), rel=1e-9)


def row_sigma(levels: Levels) -> float:
    """σ over eight days by RiskMetrics' recursion, of the moves up to the eve."""
    moves = np.diff(np.log(np.asarray(levels.values[levels.values.index <= EVE])))
    variance, total = 0.0, 0.0
    for move in moves:
        variance, total = 0.94 * variance + move**2, 0.94 * total + 1
    return float(np.sqrt(variance / total * 8))


@pytest.mark.parametrize(
    ("drifts", "verdict", "cause"),
    [
        ({"since": 0.02}, "the opposite", "lagging"),
        ({"before": -0.03}, "already before the news", "priced"),
        ({"before": -0.03, "since": 0.03}, "the opposite", "lagging"),
        ({"once": 0.12}, "the opposite", "single"),
    ],
)
def test_a_market_that_does_not_diverges_with_its_cause(drifts: dict[str, float], verdict: str, cause: str) -> None:
    found = held(market(before=drifts.get("before", 0.0), since=drifts.get("since", 0.0), once=drifts.get("once", 0.0)))
    assert (found.verdict, found.factors["EQUITY_US"], found.cause) == ("diverged", verdict, cause)


def test_a_market_that_has_not_moved_is_not_called_diverged() -> None:
    still, moved = market(), market(since=0.02)
    quiet = held(still)
    assert (quiet.verdict, quiet.factors["EQUITY_US"], quiet.cause) == ("not yet", "not yet", "none")
    both = against_market(
        {"EQUITY_US": "down", "OIL_WTI": "down"}, {"EQUITY_US": still, "OIL_WTI": still},
        {"EQUITY_US": "return", "OIL_WTI": "return"}, [Told(id="A", day=quiet.days[0].day)], AS_OF,
    )  # fmt: skip
    assert both.verdict == "not yet"
    one = against_market(
        {"EQUITY_US": "down", "OIL_WTI": "down"}, {"EQUITY_US": still, "OIL_WTI": moved},
        {"EQUITY_US": "return", "OIL_WTI": "return"}, [Told(id="A", day=quiet.days[0].day)], AS_OF,
    )  # fmt: skip
    assert one.verdict == "diverged"


def test_without_data_after_publication_nothing_is_aligned() -> None:
    assert held("it has no history").verdict == "not testable"
    late = held(market(), days=(dt.date(2021, 7, 5),), as_of=dt.date(2021, 7, 5))
    assert (late.verdict, late.cause) == ("not testable", "lagging")
    assert "no observation after publication" in late.reason
    old = held(market(since=-0.02), as_of=dt.date(2022, 6, 30))
    assert old.verdict == "not testable"
    assert "ended on 2021-06-30" in old.reason
    nothing = against_market({"EQUITY_US": "none"}, {}, {"EQUITY_US": "return"}, [], AS_OF)
    assert (nothing.verdict, nothing.reason) == ("not testable", "the reading names no factor that moves")
    alone = against_market({"EQUITY_US": "down"}, {"EQUITY_US": market()}, {"EQUITY_US": "return"}, [], AS_OF)
    assert alone.verdict == "not testable"


def test_a_source_older_than_half_of_the_move_is_stale_context() -> None:
    early = held(market(since=-0.02))
    assert early.days[0].later == pytest.approx(6 / 8, abs=0.02)  # two days of eight were its first
    assert early.days[0].stale
    fresh = held(market(since=-0.02), days=(dt.date(2021, 6, 29),))
    assert fresh.days[0].later in (None, 0.0)
    assert not fresh.days[0].stale


def test_a_feed_that_repeats_itself_is_bad_data() -> None:
    levels = market()
    values = levels.values.copy()
    values.iloc[-8:] = values.iloc[-9]
    found = held(Levels(values, "daily", NO_DAYS))
    assert (found.verdict, found.cause) == ("not yet", "data")


def test_moves_that_follow_each_other_tell_of_few_who_trade() -> None:
    levels = market()
    values = levels.values.copy()
    values.iloc[-23:] = values.iloc[-24] * np.exp(0.002 * np.sin(np.arange(23) / 4))
    found = held(Levels(values, "daily", NO_DAYS))
    assert (found.factors["EQUITY_US"], found.cause) == ("not yet", "drain")
    assert found.reason == "EQUITY_US: by its autocorrelation, which is all that can be measured"
    assert found.untested == ("not testable: no volume, no daily range (EQUITY_US)",)
    as_usual = pd.DataFrame({"volume": np.resize([900.0, 1100.0], len(values))}, index=values.index)
    other = held(Levels(values, "daily", NO_DAYS), volumes=as_usual)
    assert (other.cause, other.untested) == ("none", ("not testable: no daily range (EQUITY_US)",))
    assert [(one.measure, one.thin) for one in other.liquidity] == [("volume", False), ("autocorrelation", True)]
    few = as_usual.copy()
    few.iloc[-20:] *= 0.5
    drained = held(Levels(values, "daily", NO_DAYS), volumes=few)
    assert (drained.cause, drained.reason) == ("drain", "EQUITY_US: by 2 of 2 measures, volume, autocorrelation")


def test_liquidity_is_measured_where_text_and_market_differ_and_nowhere_else() -> None:
    assert not held(market(since=-0.02)).liquidity
    late = held(market(), days=(dt.date(2021, 7, 5),), as_of=dt.date(2021, 7, 5))
    assert (late.liquidity, late.untested) == ((), ())
    priced = held(market(before=-0.03))
    assert (priced.cause, [one.measure for one in priced.liquidity]) == ("priced", ["autocorrelation"])


def test_a_month_counts_once_it_is_over_and_begins_after_the_news() -> None:
    months = pd.date_range("2015-01-01", "2021-06-01", freq="MS")
    steps = np.resize([5.0, -5.0], len(months))
    steps[-1] = 60.0
    levels = Levels(pd.Series(200 + np.cumsum(steps), index=months), "monthly", NO_DAYS, averaged=True)
    within = held(levels, "up", unit="bp", days=(dt.date(2021, 6, 10),), as_of=dt.date(2021, 7, 2))
    assert within.verdict == "not testable"  # June holds days before the news
    after = held(levels, "up", unit="bp", days=(dt.date(2021, 5, 20),), as_of=dt.date(2021, 7, 2))
    assert (after.verdict, after.days[0].tests[0].start) == ("aligned", dt.date(2021, 4, 1))


def test_what_comes_after_publication_changes_no_forecast_and_what_comes_after_as_of_nothing() -> None:
    calm, wild = held(market()).days[0].tests[0], held(market(since=-0.05)).days[0].tests[0]
    assert (calm.sigma, calm.before) == (wild.sigma, wild.before)
    later = Told(id="later", day=AS_OF + dt.timedelta(days=1))
    told = [Told(id="source-0", day=NEWS), later]
    levels = market(since=-0.02)
    found = against_market({"EQUITY_US": "down"}, {"EQUITY_US": levels}, {"EQUITY_US": "return"}, told, AS_OF)
    assert [day.day for day in found.days] == [NEWS]


def test_of_many_days_of_publication_the_first_and_the_last_are_looked_at() -> None:
    days = tuple(stamp.date() for stamp in pd.bdate_range("2021-06-01", "2021-06-30"))
    found = held(market(since=-0.02), days=days)
    assert [day.day for day in found.days] == [*days[:4], *days[-4:]]
    assert found.skipped == len(days) - 8
