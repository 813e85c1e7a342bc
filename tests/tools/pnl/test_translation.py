"""Books in several currencies: against sums by hand, in other base currencies, the kernel against single positions."""

import datetime as dt
import math
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.market import MarketStore, Series
from finllm.tools.pnl.engine import Engine, run_engine
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.kernel import local_gains, own_terms, position_gains, revalue, totals
from finllm.tools.pnl.outcome import EngineResult
from finllm.tools.pnl.translation import Translation
from tests.tools.pnl.test_kernel import a_book

D = dt.date
AS_OF = D(2022, 6, 30)
MARKET = MarketStore()
RATE = {"EUR": 1.0387, "GBP": 1.0387 / 0.8582, "JPY": 1.0387 / 141.54, "USD": 1.0}
"""USD for one unit, from the ECB's rates of 30 June 2022: 1.0387 dollars, 0.8582 pounds and 141.54 yen for a euro."""


def held(id: str, asset_class: str, currency: str, **more: object) -> Position:
    return Position.model_validate({"id": id, "currency": currency, "asset_class": asset_class, **more})


def book(*positions: Position, base: str | None = None) -> Portfolio:
    return Portfolio(name="test", uri="file:test", sha256="0" * 64, base_currency=base, positions=positions)


MIXED = book(
    held("US", "equity", "USD", market_value=1e6, beta=1.2),
    held("SAP", "equity", "EUR", market_value=2e6, beta=0.9),
    held("VOD", "equity", "GBX", market_value=5e7, beta=0.8),
    held("JGB", "bond", "JPY", market_value=3e8, duration=8.0, convexity=80.0, sector="Government"),
    held("SHORT", "equity", "EUR", market_value=-4e5, beta=2.0),
    held("CASH", "cash", "GBP", quantity=2.5e5),
)


def run(
    portfolio: Portfolio, *shocks: str, currency: str = "USD", as_of: dt.date = AS_OF, propagate: bool = False, **more
) -> EngineResult:
    """Worked out by hand below, so nothing moves that was not told to."""
    factors = FactorSet.of(MARKET, (), [one.partition("=")[0] for one in shocks])
    parsed = [factors.parse(*one.split("=")) for one in shocks]
    return run_engine(portfolio, MARKET, as_of, 20, parsed, factors=factors, currency=currency, propagate=propagate,
                      **more)  # fmt: skip


@pytest.mark.parametrize("base", ["USD", "EUR", "JPY"])
def test_a_book_in_several_currencies_is_the_sum_of_its_parts_converted_by_hand(base: str) -> None:
    result = run(MIXED, "EQUITY_US=-10%", "RATE_US_10Y=+50bp", "FX_EURUSD=-5%", "FX_JPYUSD=+3%", currency=base)
    after = {"USD": 1.0, "EUR": RATE["EUR"] * 0.95, "GBP": RATE["GBP"], "JPY": RATE["JPY"] * 1.03}
    bond = math.exp(-8.0 * 0.005 + 0.5 * (80.0 - 8.0**2) * 0.005**2) - 1
    parts = {  # the value in its own currency, and its return there
        "US": ("USD", 1e6, -0.12), "SAP": ("EUR", 2e6, -0.09), "VOD": ("GBP", 5e5, -0.08), "JGB": ("JPY", 3e8, bond),
        "SHORT": ("EUR", -4e5, -0.2), "CASH": ("GBP", 2.5e5, 0.0),
    }  # fmt: skip
    gains = {
        id: value * ((1 + own) * after[code] / after[base] - RATE[code] / RATE[base])
        for id, (code, value, own) in parts.items()
    }
    assert result.currency == base
    assert float(result.book_value) == pytest.approx(
        sum(value * RATE[code] / RATE[base] for code, value, _ in parts.values()), rel=1e-8
    )
    assert {id: float(gain) for id, gain in result.by_position.items()} == pytest.approx(gains, rel=1e-8, abs=0.02)
    assert float(result.total) == pytest.approx(sum(gains.values()), abs=0.1)  # cells of whole cents
    for cut in (result.by_position, result.by_factor, result.by_sector, result.by_direction):
        assert sum(cut.values(), Decimal(0)) == result.total


def test_a_rate_has_the_row_of_its_factor_alone_and_the_cross_term_is_interaction() -> None:
    result = run(book(held("SAP", "equity", "EUR", market_value=1e6, beta=1.0)), "EQUITY_US=-10%", "FX_EURUSD=-5%")
    value = 1e6 * 1.0387
    assert {name: float(gain) for name, gain in result.by_factor.items()} == pytest.approx(
        {"EQUITY_US": -0.1 * value, "FX_EURUSD": -0.05 * value, "interaction": 0.005 * value}
    )


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.tuples(st.sampled_from(["USD", "EUR", "GBP", "JPY", "CHF"]), st.floats(-1e8, 1e8)),
                    min_size=1, max_size=6),
    equity=st.floats(-0.6, 0.6), rate=st.floats(-200, 200), base=st.sampled_from(["EUR", "GBP", "JPY"]),
)  # fmt: skip
def test_with_rates_held_still_p_and_l_in_one_currency_is_that_in_another_converted(
    values: list[tuple[str, float]], equity: float, rate: float, base: str
) -> None:
    positions = [
        held(f"P{at}", "equity", code, market_value=value, beta=1.0) for at, (code, value) in enumerate(values)
    ]
    positions += [held("B", "bond", "EUR", market_value=1e6, duration=7.0, convexity=60.0)]
    shocks = (f"EQUITY_US={equity * 100:.3f}%", f"RATE_US_10Y={rate:.1f}bp")
    dollars, other = run(book(*positions), *shocks), run(book(*positions), *shocks, currency=base)
    pence = 0.02 * len(positions)  # every cell is rounded
    assert float(other.total) == pytest.approx(
        float(dollars.total) / RATE.get(base, 1), rel=1e-9, abs=pence / RATE[base]
    )
    assert float(other.book_value) == pytest.approx(
        float(dollars.book_value) / RATE[base], rel=1e-9, abs=pence / RATE[base]
    )


@pytest.mark.parametrize(
    ("id", "gain"),
    [("EURUSD", -0.05), ("EUR", -0.05), ("USDJPY", -0.03), ("EURJPY", -0.08), ("USDCHF", 0.0), ("BASKET", 0.02)],
)
def test_a_currency_position_moves_with_its_own_pair(id: str, gain: float) -> None:
    shocks = ("FX_EURUSD=-5%", "FX_JPYUSD=+3%", "USD_BROAD=+2%")
    result = run(book(held(id, "fx", "USD", market_value=1e6)), *shocks)
    assert float(result.total) == pytest.approx(gain * 1e6)
    in_euro = run(book(held(id, "fx", "USD", market_value=1e6)), *shocks, currency="EUR")
    if id not in ("EUR", "BASKET"):  # a pair's gain is in dollars; EUR alone is held against the base, so it has none
        assert float(in_euro.total) == pytest.approx(gain * 1e6 / RATE["EUR"] / 0.95, rel=1e-6)


def test_contracts_gain_in_their_own_currency_and_only_what_they_are_worth_is_translated() -> None:
    level = float(MARKET.read("SP500", AS_OF).values.iloc[-1])
    future = held("FUTURE", "future", "EUR", quantity=10.0, multiplier=50.0, underlying="SP500")
    terms = {"underlying": "SP500", "option_type": "put", "strike": level, "expiry": "2022-09-30", "volatility": 0.25}
    option = held("PUT", "option", "EUR", quantity=100.0, multiplier=10.0, price=200.0, **terms)
    shocks = ("EQUITY_US=-10%", "FX_EURUSD=-5%")
    both, still = run(book(future, option), *shocks), run(book(future, option), shocks[0])
    assert float(still.by_position["FUTURE"]) == pytest.approx(-0.1 * 500 * level * RATE["EUR"])
    assert float(both.by_position["FUTURE"]) == pytest.approx(-0.1 * 500 * level * RATE["EUR"] * 0.95)
    premium, gain = 100 * 10 * 200 * RATE["EUR"], float(still.by_position["PUT"])
    assert float(both.book_value) == pytest.approx(premium)
    assert float(both.by_position["PUT"]) == pytest.approx((premium + gain) * 0.95 - premium, rel=1e-6)
    assert sum(both.by_factor.values(), Decimal(0)) == both.total


def test_own_returns_of_a_replay_are_translated_at_the_rates_of_the_window() -> None:
    euro = book(held("AAPL", "equity", "EUR", market_value=1e6))
    result = run(euro, as_of=D(2022, 12, 28), replay="pandemic-2020")
    start, end = D(2020, 2, 19), D(2020, 3, 23)
    prices, rates = (MARKET.window(name, start, end, end) for name in ("AAPL", "FX_EURUSD"))
    own, move = (float(one.iloc[-1] / one.iloc[0] - 1) for one in (prices, rates))
    value = float(result.book_value)
    assert float(result.total) == pytest.approx(value * ((1 + own) * (1 + move) - 1))
    assert float(result.by_factor["FX_EURUSD"]) == pytest.approx(value * move, abs=0.01)
    assert float(result.by_factor["interaction"]) == pytest.approx(value * own * move, abs=0.01)


def test_risk_measures_hold_the_rates_own_days() -> None:
    """Cash in euro has no P&L but the rate's: its VaR is the fourteenth worst of 504 daily moves of the rate."""
    result = run(book(held("CASH", "cash", "EUR", market_value=1e6)), "FX_EURUSD=-10%")
    index = MARKET.read("SP500", AS_OF).values.index[-504:]
    moves = MARKET.read("FX_EURUSD", AS_OF).values.pct_change().reindex(index).fillna(0.0).to_numpy()
    worst = -np.sort(moves)[12] * float(result.book_value)
    assert result.var_975_1d is not None
    assert result.var_975_1d_after is not None
    assert float(result.var_975_1d.loss) == pytest.approx(worst, abs=0.01)
    gains = moves * float(result.book_value)  # after the shock 0.9 of them, each day at the volatility that it leaves
    squares = pd.Series([np.mean(gains**2), *gains**2]).ewm(alpha=0.06, adjust=False).mean().to_numpy()
    z = -0.1 * float(result.book_value) / np.sqrt(squares[-1] * 20)
    left = 0.9 * gains * np.sqrt(squares[-1] / squares[:-1] * (8 + z**2) / 9)
    assert float(result.var_975_1d_after.loss) == pytest.approx(-np.sort(left)[12], abs=0.01)


def test_a_shocked_dollar_that_leaves_a_rate_still_is_said_and_completion_moves_it() -> None:
    euro = book(held("CASH", "cash", "EUR", market_value=1e6))
    still = run(euro, "USD_BROAD=+5%")
    assert float(still.total) == 0
    assert any("FX_EURUSD is held still" in note and "USD_BROAD reaches it only" in note for note in still.notes)
    moved = run(euro, "USD_BROAD=+5%", propagate=True)
    assert -0.1 < float(moved.total) / float(moved.book_value) < -0.03


def test_a_rate_is_used_by_rule_and_every_one_is_said() -> None:
    def left_out(currency: str, as_of: dt.date) -> str:
        mixed = book(held("US", "cash", "USD", market_value=1), held("X", "cash", currency, market_value=1))
        return "; ".join(one.reason for one in value_portfolio(mixed, MARKET, as_of).exclusions)

    easter = value_portfolio(book(held("X", "cash", "EUR", market_value=100.0)), MARKET, D(2022, 4, 18))
    assert easter.value == pytest.approx(108.78)  # the rate of Maundy Thursday
    assert "1 EUR is 1.0878 USD by the ECB's reference rate of 2022-04-14" in easter.notes
    assert "the rates of RUB stopped on 2022-03-01" in left_out("RUB", D(2022, 6, 30))
    assert left_out("RUB", D(2022, 3, 4)) == ""
    assert left_out("HRK", D(2023, 6, 30)) == ""
    old = value_portfolio(book(held("X", "cash", "EUR", market_value=100.0)), MARKET, D(2026, 11, 27))
    assert any("of 2026-10-30, 28 days before 2026-11-27: the last there is" in note for note in old.notes)
    assert "is 243 days old (at most 92)" in left_out("EUR", D(2027, 6, 30))


def test_a_files_own_rate_stands_in_and_is_held_against_the_markets() -> None:
    taiwan = book(held("X", "cash", "TWD", market_value=1e6, fx=0.0336), base="USD")
    found = value_portfolio(taiwan, MARKET, AS_OF)
    assert found.value == pytest.approx(33_600)
    assert "1 TWD is 0.0336 USD by the file's own rate of 2022-06-30" in found.notes
    assert value_portfolio(taiwan, MARKET, AS_OF, "EUR").value == pytest.approx(33_600 / 1.0387)
    apart = value_portfolio(book(held("X", "cash", "EUR", market_value=1e6, fx=1.06)), MARKET, AS_OF)
    assert apart.value == pytest.approx(1_038_700)
    assert any("the file's rate of EUR is 1.06 USD" in note and "+2.1% apart" in note for note in apart.notes)
    near = value_portfolio(book(held("X", "cash", "EUR", market_value=1e6, fx=1.045)), MARKET, AS_OF)
    assert not any("apart" in note for note in near.notes)
    late = book(held("X", "cash", "EUR", market_value=1e6, fx=1.15))
    assert value_portfolio(late, MARKET, D(2026, 11, 27)).value == pytest.approx(1_150_000)  # the ECB's is 28 days old


@pytest.mark.parametrize("currency", ["XYZ", "GBX", "DEM", "RUB", "eur"])
def test_a_book_cannot_be_in_what_is_no_currency_of_the_day(currency: str) -> None:
    with pytest.raises(InputError, match="cannot be a book's currency"):
        value_portfolio(MIXED, MARKET, AS_OF, currency)


def test_a_users_series_of_a_rate_is_a_factor_too() -> None:
    days = pd.bdate_range("2020-01-01", AS_OF)
    taiwan = Series(
        "FX_TWDUSD", pd.Series(np.linspace(0.033, 0.034, len(days)), index=days), "price", "daily", "f", "0"
    )
    market = MarketStore(extra=[taiwan])
    engine = Engine(value_portfolio(book(held("X", "cash", "TWD", market_value=1e6)), market, AS_OF), market, AS_OF)
    assert engine.book.value == pytest.approx(34_000)
    assert engine.view.factors["FX_TWDUSD"].has_history


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), base=st.sampled_from([-1, 3]))
def test_the_kernel_translates_a_batch_as_it_does_single_positions(seed: int, base: int) -> None:
    random = np.random.default_rng(seed)
    local = a_book(seed, felt=(1, 2))  # what shares feel of is no currency
    own, exposed = random.choice([-1, 3, 4, 5], 40), np.where(random.random(40) < 0.8, local.value, 0.0)
    arrays = replace(local, fx=Translation(own, base, exposed))
    moves = np.clip(0.3 * random.standard_normal((25, 6)), -0.8, 2.0)
    batch, gains = revalue(arrays, moves, tail=0.1), position_gains(arrays, moves)
    scale = np.abs(gains).sum() + 1.0
    for row in (0, 7, 39):
        for at in range(25):
            above = 1 + (moves[at, own[row]] if own[row] >= 0 else 0.0)
            rate = above / (1 + (moves[at, base] if base >= 0 else 0.0)) - 1
            alone = local_gains(arrays, moves[at : at + 1])[row, 0]
            assert gains[row, at] / scale == pytest.approx((alone + (exposed[row] + alone) * rate) / scale, abs=1e-12)
    assert batch.total / scale == pytest.approx(gains.sum(axis=0) / scale, abs=1e-12)
    assert batch.by_factor[7] / scale == pytest.approx(own_terms(arrays, moves[7]).sum(axis=0) / scale, abs=1e-12)
    assert batch.by_sector.sum(axis=1) / scale == pytest.approx(batch.total / scale, abs=1e-12)


@pytest.mark.parametrize("base", [-1, 3])
def test_slopes_and_curvature_hold_the_rates(base: int) -> None:
    local = a_book(4, felt=())
    own = np.random.default_rng(4).choice([-1, 3, 4, 5], 40)
    arrays = replace(local, fx=Translation(own, base, local.value))
    at, step = np.array([0.01, 0.02, -0.01, 0.03, -0.02, 0.01]), 1e-5
    above, below = (totals(arrays, at + sign * step * np.eye(6)) for sign in (1, -1))
    assert arrays.gradient(at) == pytest.approx((above - below) / 2 / step, rel=1e-6)
    curved = [(arrays.gradient(step * one) - arrays.gradient(-step * one)) / 2 / step for one in np.eye(6)]
    assert arrays.hessian() == pytest.approx(np.array(curved), rel=1e-6, abs=1e-3)
