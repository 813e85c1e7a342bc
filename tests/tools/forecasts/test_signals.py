"""Market signals: the formulas, the regime in known weeks, and None for what cannot be seen."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from finllm.errors import InputError
from finllm.tools.data.market import MarketStore
from finllm.tools.forecasts.signals import MarketSignals, drawdown, market_signals, realised_volatility, regime

D = dt.date
MARKET = MarketStore()


def test_realised_volatility_is_annualised_by_the_root_of_252() -> None:
    prices = pd.Series(100 * np.exp(np.cumsum([0.0, *([0.01, -0.01] * 10)])))
    assert realised_volatility(prices) == pytest.approx(np.std([0.01, -0.01] * 10, ddof=1) * np.sqrt(252))
    with pytest.raises(InputError, match="needs 21 prices, and there are 20"):
        realised_volatility(prices.iloc[:20])


def test_drawdown_is_measured_from_the_highest_price() -> None:
    assert drawdown(pd.Series([100.0, 120.0, 90.0])) == pytest.approx(-0.25)
    assert drawdown(pd.Series([100.0, 120.0])) == 0.0
    fall = MARKET.window("SP500", D(2020, 2, 19), D(2020, 3, 23), as_of=D(2020, 3, 23))
    assert drawdown(fall) == pytest.approx(-0.3392, abs=1e-4)


@pytest.mark.parametrize(
    ("day", "label"),
    [
        (D(2017, 6, 1), "calm"),
        (D(2007, 8, 20), "uneasy"),
        (D(2011, 8, 10), "stressed"),
        (D(2022, 6, 30), "stressed"),
        (D(2008, 10, 15), "crisis"),
        (D(2020, 3, 20), "crisis"),
    ],
)
def test_the_regime_of_known_weeks(day: dt.date, label: str) -> None:
    assert regime(MARKET.read("SP500", day).values) == label
    assert market_signals(MARKET, day).regime == label


def test_a_regime_needs_a_year() -> None:
    with pytest.raises(InputError, match="a regime needs 252 prices"):
        regime(MARKET.read("SP500", D(2022, 6, 30)).values.tail(251))


def test_what_is_not_visible_is_none_and_what_is_stale_says_so() -> None:
    early = market_signals(MARKET, D(2008, 10, 15))
    assert {name for name, signal in early.factors.items() if signal is None} == {
        "RATE_US_10Y",
        "GOLD",
        "VIX",
    }
    late = market_signals(MARKET, D(2022, 6, 30))
    oil = late.factors["OIL_WTI"]
    assert oil is not None
    assert (oil.stale, oil.last) == (True, D(2019, 1, 3))
    assert "OIL_WTI: WTI ended on 2019-01-03, 1274 days before 2022-06-30" in late.notes
    assert MarketSignals.model_validate_json(late.model_dump_json()) == late


def test_the_regime_says_what_it_is_made_of_and_the_stress_index_stands_beside_it() -> None:
    signals = market_signals(MARKET, D(2008, 11, 20))
    assert signals.state is not None
    assert signals.state.label == signals.regime
    assert signals.state.confirmed
    assert signals.stress is not None
    assert signals.stress_index == signals.stress.value
    assert signals.stress.value > 1.5
    calm = market_signals(MARKET, D(2005, 7, 29))
    assert calm.stress_index is not None
    assert calm.stress_index < 0


def test_before_there_is_a_stress_index_a_note_says_why() -> None:
    signals = market_signals(MARKET, D(1990, 12, 31))
    assert signals.stress_index is None
    assert any(note.startswith("no stress index: ") for note in signals.notes)


def test_a_stale_index_gives_no_regime() -> None:
    signals = market_signals(MARKET, D(2023, 6, 30))
    assert (signals.regime, signals.volatility, signals.drawdown) == (None, None, None)
    assert any(note.startswith("EQUITY_US: SP500 ended on 2022-12-28") for note in signals.notes)
