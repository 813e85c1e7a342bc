"""No tool reads past `as_of`: with the future poisoned, or absent, every answer stays the same."""

import datetime as dt
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import FACTOR_IDS, parse_user_shock
from finllm.tools.data.market import MarketStore, Series, day_of, packaged_series
from finllm.tools.forecasts.forecast import forecast
from finllm.tools.forecasts.signals import market_signals
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.shocks import JudgedShock, replayed

D = dt.date
PORTFOLIO = Portfolio(
    name="test",
    uri="file:test",
    sha256="0" * 64,
    positions=(
        *(Position(id=name, currency="USD", asset_class="equity", quantity=100.0) for name in ("AAPL", "JPM", "XOM")),
        Position(id="WTI", currency="USD", asset_class="commodity", quantity=50.0),
        Position(id="SAP", currency="EUR", asset_class="equity", market_value=1e5, beta=1.1),
        Position(id="GBPJPY", currency="USD", asset_class="fx", market_value=5e4),
        Position(id="CORP", currency="USD", asset_class="bond", market_value=1e5, duration=7.0, convexity=60.0),
    ),
)


def unknown_at(series: Series, as_of: dt.date) -> pd.Series:
    """Which rows nobody could know after the close of `as_of`, said in other words than the store says it."""
    days = [day_of(stamp) for stamp in series.values.index]
    if series.frequency == "monthly":
        this_month = as_of.year * 12 + as_of.month
        return pd.Series([day.year * 12 + day.month >= this_month for day in days], index=series.values.index)
    return pd.Series([day > as_of for day in days], index=series.values.index)


def poisoned(as_of: dt.date, *names: str) -> MarketStore:
    """The packaged series, or those named, with every value after `as_of` multiplied out of all recognition."""
    return MarketStore.of(
        replace(series, values=series.values.where(~unknown_at(series, as_of), series.values * 17 + 1000))
        for name, series in packaged_series().items()
        if not names or name in names
    )


def ended(as_of: dt.date) -> MarketStore:
    """The packaged series as they stood at `as_of`, without those that had not begun."""
    cut = [
        replace(series, values=pd.Series(series.values[~unknown_at(series, as_of)]))
        for series in packaged_series().values()
    ]
    return MarketStore.of(series for series in cut if not series.values.empty)


def everything(market: MarketStore, as_of: dt.date) -> list[object]:
    """What every instrument says at `as_of`, but for the forecasts."""
    book = value_portfolio(PORTFOLIO, market, as_of)
    engine = Engine(book, market, as_of)
    window = (as_of - dt.timedelta(days=60), as_of)
    plans = [
        engine.plan(20, user=[parse_user_shock("EQUITY_US", "-2sigma")]),
        engine.plan(20, judged=[JudgedShock(factor, "down", "large") for factor in FACTOR_IDS]),
        engine.plan(20, replay=window),
    ]
    results = [engine.stress(plan, propagate=on) for plan in plans for on in (False, True)]
    return [book, engine.sens.how, plans, replayed(engine.view, window), results, market_signals(market, as_of)]


@settings(max_examples=12, deadline=None)
@given(as_of=st.dates(D(1997, 1, 2), D(2022, 12, 28)))
def test_no_instrument_notices_a_poisoned_future(as_of: dt.date) -> None:
    assert everything(MarketStore(), as_of) == everything(poisoned(as_of), as_of)


@settings(max_examples=200, deadline=None)
@given(as_of=st.dates(D(1990, 1, 2), D(2023, 12, 31)), name=st.sampled_from(sorted(packaged_series())))
def test_what_is_read_is_what_was_known(as_of: dt.date, name: str) -> None:
    series = packaged_series()[name]
    known = pd.Series(series.values[~unknown_at(series, as_of)])
    seen = series.visible(as_of)
    assert seen.index.equals(known.index)
    assert (seen.index <= pd.Timestamp(as_of)).all()


@settings(max_examples=60, deadline=None)
@given(
    as_of=st.dates(D(2014, 6, 2), D(2018, 12, 31)),
    days=st.integers(40, 100),
    name=st.sampled_from(["SP500", "WTI", "VIX", "BAA_AAA", "AAPL"]),
)
def test_a_window_holds_nothing_that_was_unknown(as_of: dt.date, days: int, name: str) -> None:
    start = as_of - dt.timedelta(days=days)
    seen = MarketStore().window(name, start, as_of, as_of)
    assert seen.equals(poisoned(as_of, name).window(name, start, as_of, as_of))


@pytest.mark.parametrize("name", ["SP500", "WTI", "BAA_AAA"])
def test_no_forecast_notices_a_poisoned_future(name: str) -> None:
    as_of = D(2015, 8, 25)
    answers = [forecast(market.read(name, as_of), 5) for market in (MarketStore(), poisoned(as_of), ended(as_of))]
    assert answers[0] == answers[1] == answers[2]


def test_a_future_that_does_not_exist_yet_changes_nothing() -> None:
    as_of = D(2015, 8, 25)
    assert everything(MarketStore(), as_of) == everything(ended(as_of), as_of)
