"""Tail measures against skfolio, the same after a shock, and the liquidity cascade by hand."""

import datetime as dt
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skfolio.measures import cvar
from skfolio.measures import value_at_risk as skfolio_var

from finllm.errors import InputError
from finllm.scenarios import PORTFOLIOS_DIR
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.history import history
from finllm.tools.pnl.kernel import Sensitivities
from finllm.tools.pnl.risk import daily_gains, expected_shortfall, liquidity, value_at_risk
from finllm.tools.pnl.sensitivity import book_sensitivities

MARKET = MarketStore()
FACTORS = FactorSet.default(MARKET)


@settings(max_examples=300, deadline=None)
@given(
    gains=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=600),
    level=st.sampled_from([0.5, 0.9, 0.95, 0.975, 0.99]),
)
def test_tail_measures_are_those_of_skfolio(gains: list[float], level: float) -> None:
    values = np.array(gains)
    size = np.abs(values).max() + 1e-300
    assert value_at_risk(values, level) / size == pytest.approx(skfolio_var(values, beta=level) / size, abs=1e-12)
    assert expected_shortfall(values, level) / size == pytest.approx(cvar(values, beta=level) / size, abs=1e-12)


def test_daily_gains_of_a_book_are_those_of_its_positions_added_up() -> None:
    day = dt.date(2022, 12, 28)
    book = value_portfolio(load_portfolio(PORTFOLIOS_DIR / "default.csv"), MARKET, day)
    arrays = book_sensitivities(book, FACTORS, MARKET, day).arrays
    moves = np.full(len(arrays.factors), -0.05)
    whole = daily_gains(book, arrays, moves, FACTORS, MARKET, day)
    assert whole is not None
    single = [
        daily_gains(book.model_copy(update={"holdings": (one,)}), arrays.rows([row]), moves, FACTORS, MARKET, day)
        for row, one in enumerate(book.holdings)
    ]
    np.testing.assert_allclose(sum(one.before for one in single if one), whole.before, atol=1e-6)
    np.testing.assert_allclose(sum(one.after for one in single if one), whole.after, atol=1e-6)
    assert whole.missing == tuple(one.id for one, found in zip(book.holdings, single, strict=True) if found is None)


def test_tail_measures_of_the_index_are_those_of_skfolio() -> None:
    returns = MARKET.read("SP500", dt.date(2022, 12, 28)).values.pct_change().dropna().to_numpy()[-504:]
    assert value_at_risk(returns) == pytest.approx(skfolio_var(returns, beta=0.975), abs=1e-12)
    assert expected_shortfall(returns) == pytest.approx(cvar(returns, beta=0.975), abs=1e-12)


@pytest.mark.parametrize("gains", [[], [1.0, math.nan], [math.inf]])
def test_gains_that_are_none_are_refused(gains: list[float]) -> None:
    for measure in (value_at_risk, expected_shortfall):
        with pytest.raises(InputError, match="needs gains, all of them finite"):
            measure(np.array(gains))


def test_the_liquidity_cascade_adds_squares_of_scaled_shortfalls() -> None:
    as_of = dt.date(2018, 12, 31)
    names = ("EQUITY_US", "OIL_WTI", "CREDIT_BAA_AAA")
    past = history([FACTORS[name] for name in names], MARKET, as_of)
    slopes = np.array([[1e6, 5e5, -700.0]])
    book = Sensitivities(
        ("A",), names, ("x",), np.zeros(1, int), np.ones(1), slopes, np.zeros((1, 3)), np.zeros(1), np.zeros(1, bool)
    )
    found = liquidity(book, FACTORS, past)
    assert found is not None
    moves = past.moves.to_numpy() * math.sqrt(10 / 21) * slopes[0]
    ten, twenty, forty = (cvar(moves[:, at:].sum(axis=1), beta=0.975) for at in range(3))  # horizons 10, 20 and 40 days
    expected = math.sqrt(ten**2 + twenty**2 * (20 - 10) / 10 + forty**2 * (40 - 20) / 10)
    assert float(found.total) == pytest.approx(expected, abs=0.01)
    assert [row.days for row in found.rows] == [10, 20, 40, 60, 120]
    assert [len(row.factors) for row in found.rows] == [3, 2, 1, 0, 0]
