"""Exchange rates of a long book: each currency's series is read once, however many positions are in it."""

import datetime as dt

import pytest

from finllm.tools.data.fx import Rate, Rates
from finllm.tools.data.market import MarketStore


def test_a_currency_s_rate_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    market, read = MarketStore(), list[str]()
    whole = market.read
    monkeypatch.setattr(market, "read", lambda name, as_of: read.append(name) or whole(name, as_of))
    rates = Rates(market, dt.date(2022, 6, 30))
    found = [rates.of("GBP") for _ in range(100)]
    assert all(isinstance(one, Rate) and one == found[0] for one in found)
    assert read.count("FX_GBPUSD") == 1
