"""Forecasts: intervals that nest, a stated simpler model for short histories, and time."""

import datetime as dt
import subprocess
import sys

import pandas as pd
import pytest

from finllm.errors import InputError
from finllm.tools.evidence import sha256_of
from finllm.tools.forecast import Forecast, forecast
from finllm.tools.market import MarketStore, Series

AS_OF = dt.date(2022, 6, 30)
MARKET = MarketStore()


def short(observations: int) -> MarketStore:
    values = MARKET.read("AAPL", AS_OF).values.tail(observations)
    return MarketStore.of([Series("ACME", pd.Series(values), "price", "daily", "file:x", sha256_of("x"))])


@pytest.mark.parametrize(("name", "unit"), [("SP500", "return"), ("VIX", "points"), ("BAA_AAA", "bp"), ("BAA", "bp")])
def test_the_change_over_the_horizon_is_inside_nested_intervals(name: str, unit: str) -> None:
    made = forecast(MARKET.read(name, AS_OF), horizon=20)
    inner, outer = made.bands
    assert (made.unit, inner.level, outer.level) == (unit, 0.80, 0.95)
    assert outer.lower < inner.lower < made.point < inner.upper < outer.upper
    assert made.model.startswith("ensemble: ")
    assert "observations" in made.window
    assert Forecast.model_validate_json(made.model_dump_json()) == made


def test_a_longer_horizon_has_wider_intervals() -> None:
    widths = [forecast(MARKET.read("SP500", AS_OF), horizon).bands[0] for horizon in (1, 5, 20)]
    assert [band.upper - band.lower for band in widths] == sorted(band.upper - band.lower for band in widths)


def test_the_same_question_has_the_same_answer() -> None:
    assert forecast(MARKET.read("KO", AS_OF), 5) == forecast(MARKET.read("KO", AS_OF), 5)


def test_a_short_history_gets_the_simpler_model_and_says_so() -> None:
    made = forecast(short(120).read("ACME", AS_OF), horizon=20)
    assert made.model.startswith("random walk")
    assert made.point == 0.0
    assert made.bands[0].lower <= 0.0 <= made.bands[0].upper


@pytest.mark.parametrize(("observations", "horizon"), [(59, 1), (120, 60)])
def test_too_few_observations_are_refused(observations: int, horizon: int) -> None:
    with pytest.raises(InputError, match=f"'ACME' has {observations} observations by 2022-06-30"):
        forecast(short(observations).read("ACME", AS_OF), horizon)


def test_a_stale_series_is_marked() -> None:
    assert forecast(MARKET.read("WTI", AS_OF), 20).stale


@pytest.mark.slow
def test_three_forecasts_are_made_within_ten_seconds_from_cold() -> None:
    code = (
        "import datetime as dt\n"
        "from finllm.tools.forecast import forecast\n"
        "from finllm.tools.market import MarketStore\n"
        "for name in ('SP500', 'WTI', 'VIX'):\n"
        "    forecast(MarketStore().read(name, dt.date(2022, 6, 30)), 20)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=10)
