"""The digest of what was visible changes with it, and not with what came later."""

from __future__ import annotations

import datetime as dt

from finllm.tools.data.market import MarketStore
from finllm.tools.forecasts.seen import content_of, tools_digest
from finllm.tools.forecasts.signals import market_signals, series_of

DAY = dt.date(2022, 6, 30)


def cut(last: dt.date) -> MarketStore:
    """The packaged market as somebody has it who got it on that day."""
    whole = MarketStore()
    kept = (whole.cut(name, last) for name in series_of(whole))
    return MarketStore.of(one for one in kept if one is not None)


def test_what_comes_later_changes_nothing_and_what_was_there_does() -> None:
    market = MarketStore()
    names = series_of(market)
    about = content_of(market, names, DAY)
    assert content_of(cut(DAY), names, DAY) == about
    assert content_of(cut(dt.date(2022, 6, 29)), names, DAY) != about
    assert content_of(market, names, dt.date(2022, 7, 1)) != about
    assert content_of(market, names[:-1], DAY) != about
    assert tools_digest() == tools_digest()


def test_the_signals_read_no_other_series_than_they_are_said_to() -> None:
    assert market_signals(cut(DAY), DAY) == market_signals(MarketStore(), DAY)
