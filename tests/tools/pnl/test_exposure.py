"""Sensitivities: betas against a direct least-squares fit, and what each asset class loads on."""

import datetime as dt

import numpy as np
import pytest

from finllm.tools.data.market import MarketStore
from finllm.tools.data.portfolio import Book, Holding
from finllm.tools.pnl.exposure import Beta, estimate_betas, exposures

AS_OF = dt.date(2022, 6, 30)


def book_of(*holdings: Holding) -> Book:
    return Book(name="test", as_of=AS_OF, sha256="0" * 64, holdings=holdings, exclusions=(), notes=())


def equity(id: str, value: float = 1000.0, beta: float | None = None, series: bool = True) -> Holding:
    return Holding(
        id=id, asset_class="equity", sector="x", market_value=value, beta=beta, series=id if series else None
    )


@pytest.mark.parametrize("name", ["AAPL", "JPM", "XOM"])
def test_a_beta_is_the_least_squares_slope_with_intercept(name: str) -> None:
    market = MarketStore()
    beta = estimate_betas(book_of(equity(name)), market, AS_OF)[name]
    own = market.read(name, AS_OF).values.pct_change().iloc[-504:]
    index = market.read("SP500", AS_OF).values.pct_change().iloc[-504:]
    slope, _ = np.linalg.lstsq(np.column_stack([index, np.ones(504)]), own, rcond=None)[0]
    assert beta.value == pytest.approx(slope, abs=1e-12)
    assert (beta.n, beta.origin) == (504, "regression")
    assert beta.window == "2020-07-01 to 2022-06-30, 504 observations"


def test_a_given_beta_wins_and_the_index_has_one() -> None:
    index = Holding(id="SP500", asset_class="index", sector="index", market_value=1.0, series="SP500")
    betas = estimate_betas(book_of(equity("AAPL", beta=0.5), index), MarketStore(), AS_OF)
    assert (betas["AAPL"].value, betas["AAPL"].origin) == (0.5, "user")
    assert (betas["SP500"].value, betas["SP500"].origin) == (1.0, "definition")


def test_each_asset_class_loads_on_its_factor() -> None:
    book = book_of(
        equity("AAPL", 1000.0),
        Holding(id="B", asset_class="bond", sector="corporate", market_value=1e6, duration=7.0, convexity=60.0),
        Holding(id="T", asset_class="bond", sector="Treasury", market_value=1e6, duration=8.0),
        Holding(id="OIL", asset_class="commodity", sector="commodity", market_value=1000.0),
        Holding(id="EURUSD", asset_class="fx", sector="fx", market_value=1000.0, delta=-1.0),
        Holding(id="BARS", asset_class="gold", sector="gold", market_value=1000.0),
        Holding(id="CALLS", asset_class="volatility", sector="volatility", market_value=0.0, delta=1000.0),
    )
    betas = {"AAPL": Beta(value=1.2, n=504, window="w", origin="regression")}
    found = {(one.id, one.factor): one.linear for one in exposures(book, betas)}
    assert found == pytest.approx(
        {
            ("AAPL", "EQUITY_US"): 1200.0,  # USD per 100 %
            ("B", "RATE_US_10Y"): -700.0,  # USD per bp
            ("B", "CREDIT_BAA_AAA"): -700.0,
            ("T", "RATE_US_10Y"): -800.0,
            ("OIL", "OIL_WTI"): 1000.0,
            ("EURUSD", "USD_BROAD"): -1000.0,
            ("BARS", "GOLD"): 1000.0,
            ("CALLS", "VIX"): 1000.0,  # USD per point
        }
    )
