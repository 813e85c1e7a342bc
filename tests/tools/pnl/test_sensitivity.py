"""Sensitivities: multi-factor betas against least squares, shrinkage by hand, halted names, parametric positions."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from finllm.errors import InputError
from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.market import MarketStore, Series, packaged_series
from finllm.tools.pnl.factorset import Driver, FactorSet
from finllm.tools.pnl.sensitivity import book_sensitivities, regress

AS_OF = dt.date(2018, 12, 31)
MARKET = MarketStore()
FACTORS = FactorSet.default(MARKET)
NAMES = ["AAPL", "BAC", "CVX", "JNJ", "KO", "XOM"]


def test_several_betas_are_the_least_squares_slopes() -> None:
    drivers = [FACTORS["EQUITY_US"], FACTORS["OIL_WTI"], FACTORS["VIX"]]
    found = regress(["XOM"], drivers, MARKET, AS_OF)["XOM"]
    table = pd.DataFrame({name: MARKET.read(name, AS_OF).values for name in ("XOM", "SP500", "WTI", "VIX")}).dropna()
    moves = table.pct_change()
    moves["VIX"] = table["VIX"].diff()
    rows = moves.iloc[1:].tail(504).to_numpy()
    slopes = np.linalg.lstsq(np.column_stack([rows[:, 1:], np.ones(504)]), rows[:, 0], rcond=None)[0][:3]
    assert [found.betas[driver.id] for driver in drivers] == pytest.approx(slopes, abs=1e-10)
    assert found.n == 504
    assert found.window.endswith("504 observations, not shrunk")


def test_betas_shrink_towards_their_mean_by_vasicek() -> None:
    driver = [FACTORS["EQUITY_US"]]
    plain = regress(NAMES, driver, MARKET, AS_OF, shrinkage="none")
    shrunk = regress(NAMES, driver, MARKET, AS_OF)
    estimate = np.array([plain[name].betas["EQUITY_US"] for name in NAMES])
    error = np.array([plain[name].errors["EQUITY_US"] for name in NAMES])
    spread = estimate.var(ddof=1) - (error**2).mean()
    expected = (estimate / error**2 + estimate.mean() / spread) / (1 / error**2 + 1 / spread)  # precision-weighted
    assert [shrunk[name].betas["EQUITY_US"] for name in NAMES] == pytest.approx(expected)
    assert "shrunk towards the mean of 6 names" in shrunk["KO"].window
    assert abs(shrunk["AAPL"].residuals.mean()) < 1e-12


def test_fewer_than_five_names_are_not_shrunk() -> None:
    found = regress(NAMES[:4], [FACTORS["EQUITY_US"]], MARKET, AS_OF)
    assert all(one.betas == one.estimated for one in found.values())


def test_a_halted_name_loses_its_unchanged_closes_and_says_so() -> None:
    known = packaged_series()
    values = known["KO"].values.copy()
    values.loc["2018-06-01":"2018-06-29"] = values["2018-06-01"]
    market = MarketStore.of([replace(known["KO"], values=values), known["SP500"]])
    found = regress(["KO"], [FACTORS["EQUITY_US"]], market, AS_OF)["KO"]
    assert found.notes == ("20 returns of 5 or more unchanged closes in a row are left out (halted)",)
    assert found.n == 504


def test_a_delisted_name_keeps_its_last_window_and_says_when_it_ended() -> None:
    known = packaged_series()
    gone = Series("GONE", pd.Series(known["KO"].values[:"2018-06-29"]), "price", "daily", "file:test", "0" * 64)
    found = regress(["GONE"], [FACTORS["EQUITY_US"]], MarketStore.of([gone, known["SP500"]]), AS_OF)["GONE"]
    assert found.notes == ("its history ended on 2018-06-29, 185 days before 2018-12-31",)


def test_collinear_monthly_and_short_regressors_are_refused() -> None:
    twin = Driver("TWIN", "the index again", "return", "SP500")
    with pytest.raises(InputError, match="regressors EQUITY_US, TWIN are collinear"):
        regress(["KO"], [FACTORS["EQUITY_US"], twin], MARKET, AS_OF)
    with pytest.raises(InputError, match="'CREDIT_BAA_AAA' is monthly"):
        regress(["KO"], [FACTORS["CREDIT_BAA_AAA"]], MARKET, AS_OF)
    with pytest.raises(InputError, match="'KO' has 38 returns"):
        regress(["KO"], [FACTORS["EQUITY_US"], FACTORS["VIX"]], MARKET, dt.date(2014, 2, 28))


def test_parametric_positions_have_their_greeks() -> None:
    def held(id: str, asset_class: str, value: float, **more: object) -> Holding:
        return Holding.model_validate(
            {"id": id, "asset_class": asset_class, "sector": asset_class, "market_value": value, **more}
        )

    book = Book(
        name="test", as_of=AS_OF, sha256="0" * 64, exclusions=(), notes=(),
        holdings=(
            held("B", "bond", 1e6, duration=7.0, convexity=60.0),
            held("T", "bond", 1e6, duration=8.0, sector="Treasury"),
            held("CALL", "equity", 1e4, beta=2.0, gamma=10.0, vega=50.0),
            held("CRUDE", "commodity", 1e5, delta=1.5, gamma=3.0),
            held("V", "volatility", 0.0, delta=1000.0, gamma=-5.0),
        ),
    )  # fmt: skip
    arrays = book_sensitivities(book, FACTORS, MARKET, AS_OF).arrays
    at = {name: column for column, name in enumerate(arrays.factors)}
    assert arrays.contracts is not None
    slopes, curves = arrays.contracts.slopes(np.zeros(len(arrays.factors)))
    assert slopes[0, [at["RATE_US_10Y"], at["CREDIT_BAA_AAA"]]] == pytest.approx(
        [-700.0, -700.0], rel=1e-5
    )  # USD per bp
    assert curves[0] == pytest.approx(60e6, rel=1e-4)
    assert slopes[1, at["CREDIT_BAA_AAA"]] == 0
    assert arrays.linear[2, [at["EQUITY_US"], at["VIX"]]] == pytest.approx([2e4, 50.0])
    assert arrays.linear[3, at["OIL_WTI"]] == pytest.approx(1.5e5)
    assert arrays.linear[4, at["VIX"]] == pytest.approx(1000.0)
    assert arrays.curvature == pytest.approx([0.0, 0.0, 1e5, 3e5, -5.0])
    assert arrays.floored.tolist() == [False, False, True, True, False]  # a premium is all that one can lose
