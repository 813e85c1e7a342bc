"""Sensitivities: multi-factor betas against least squares, shrinkage by hand, halted names, parametric positions."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from finllm.errors import InputError
from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.market import MarketStore, Series, packaged_series
from finllm.tools.pnl.betas import default_regressors, regress
from finllm.tools.pnl.factorset import Driver, FactorSet
from finllm.tools.pnl.sensitivity import book_sensitivities

AS_OF = dt.date(2018, 12, 31)
MARKET = MarketStore()
FACTORS = FactorSet.default(MARKET)
NAMES = ["AAPL", "BAC", "CVX", "JNJ", "KO", "XOM"]


def test_on_one_window_the_steps_are_least_squares_on_all_factors_at_once() -> None:
    drivers = [FACTORS["EQUITY_US"], FACTORS["OIL_WTI"], FACTORS["VIX"]]
    table = pd.DataFrame({name: MARKET.read(name, AS_OF).values for name in ("XOM", "SP500", "WTI", "VIX")}).dropna()
    series = [replace(packaged_series()[name], values=pd.Series(table[name])) for name in table]
    found = regress(["XOM"], drivers, MarketStore.of(series), AS_OF, further_window=504)["XOM"]
    moves = table.pct_change()
    moves["VIX"] = table["VIX"].diff()
    moves["WTI"] = np.sign(moves["WTI"]) * np.log(1 + moves["WTI"].abs())  # what shares feel of it
    rows = moves.iloc[1:].tail(504).to_numpy()
    slopes = np.linalg.lstsq(np.column_stack([rows[:, 1:], np.ones(504)]), rows[:, 0], rcond=None)[0][:3]
    assert [found.betas[driver.id] for driver in drivers] == pytest.approx(slopes, abs=1e-10)
    rest = rows[:, 0] - rows[:, 1:] @ slopes
    assert found.residuals.to_numpy() == pytest.approx(rest - rest.mean(), abs=1e-10)
    assert found.n == 504
    assert "504 observations, not shrunk" in found.window


def test_betas_shrink_towards_their_mean_by_vasicek() -> None:
    driver = [FACTORS["EQUITY_US"]]
    plain = regress(NAMES, driver, MARKET, AS_OF, shrinkage="none")
    shrunk = regress(NAMES, driver, MARKET, AS_OF)
    estimate = np.array([plain[name].betas["EQUITY_US"] for name in NAMES])
    square = np.array([plain[name].errors["EQUITY_US"] for name in NAMES]) ** 2
    weight = 1 / square
    about = estimate - weight @ estimate / weight.sum()
    spread = (weight @ about**2 - 5) / (weight.sum() - weight @ weight / weight.sum())  # DerSimonian and Laird, eq. 8
    mean = np.average(estimate, weights=1 / (square + spread))
    expected = (estimate / square + mean / spread) / (1 / square + 1 / spread)  # precision-weighted
    assert [shrunk[name].betas["EQUITY_US"] for name in NAMES] == pytest.approx(expected)
    assert "shrunk towards the mean of 6 names" in shrunk["KO"].window
    assert abs(shrunk["AAPL"].residuals.mean()) < 1e-12


def test_one_noisy_name_does_not_shrink_the_others_to_one_beta() -> None:
    """In 1991 one stock that was hardly traded had a beta of any size; the variance of the others is still seen."""
    names = ["AAPL", "BAC", "CVX", "JNJ", "KO", "RRC", "XOM"]
    found = regress(names, [FACTORS["EQUITY_US"]], MARKET, dt.date(1991, 12, 31))
    assert found["XOM"].betas["EQUITY_US"] < 0.7 * found["KO"].betas["EQUITY_US"]
    assert found["RRC"].errors["EQUITY_US"] > 10 * found["XOM"].errors["EQUITY_US"]


def test_what_oil_does_beyond_the_index_is_shrunk_within_a_sector() -> None:
    sectors: dict[str, str] = dict.fromkeys(("CVX", "RRC", "XOM"), "Energy")
    sectors |= dict.fromkeys(("AAPL", "BAC", "KO"), "Other")
    drivers = default_regressors(FACTORS, MARKET, AS_OF)
    assert [one.id for one in drivers] == ["EQUITY_US", "OIL_WTI", "USD_BROAD"]
    found = regress(list(sectors), drivers, MARKET, AS_OF, sectors=sectors)
    raw = regress(list(sectors), drivers, MARKET, AS_OF, shrinkage="none")
    oil = {name: one.betas["OIL_WTI"] for name, one in found.items()}
    assert min(oil[name] for name in ("CVX", "RRC", "XOM")) > 0.1
    assert oil["KO"] < 0.05
    energy = [raw[name].betas["OIL_WTI"] for name in ("CVX", "RRC", "XOM")]
    assert min(energy) < oil["RRC"] < raw["RRC"].betas["OIL_WTI"] == max(energy)
    assert "1260 observations, shrunk towards the mean of 3 names of 'Energy'" in found["XOM"].window


def test_a_factor_that_ends_before_the_series_is_measured_where_both_are_and_shortens_no_other() -> None:
    late = dt.date(2022, 6, 30)
    found = regress(["XOM"], default_regressors(FACTORS, MARKET, late), MARKET, late)["XOM"]
    alone = regress(["XOM"], [FACTORS["EQUITY_US"]], MARKET, late)["XOM"]
    assert found.estimated["EQUITY_US"] == alone.betas["EQUITY_US"]
    assert "OIL_WTI 2013-12-26 to 2019-01-03" in found.window
    assert found.n == 504


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


def test_a_factor_that_is_an_earlier_one_by_another_name_gets_no_load() -> None:
    twin = Driver("TWIN", "the index again", "return", "SP500")
    found = regress(["KO"], [FACTORS["EQUITY_US"], twin], MARKET, AS_OF)["KO"]
    assert list(found.betas) == ["EQUITY_US"]


def test_monthly_and_short_regressors_are_refused() -> None:
    with pytest.raises(InputError, match="'CREDIT_BAA_AAA' is monthly"):
        regress(["KO"], [FACTORS["CREDIT_BAA_AAA"]], MARKET, AS_OF)
    with pytest.raises(InputError, match="'KO' has 39 returns"):
        regress(["KO"], [FACTORS["EQUITY_US"]], MARKET, dt.date(1990, 2, 27))


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
