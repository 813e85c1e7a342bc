"""Contracts in a book, revalued in full: right values, what cannot be lost, cuts to the cent, and many at once."""

import datetime as dt
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import MoveUnit, parse_user_shock
from finllm.tools.data.market import MarketStore
from finllm.tools.instruments.bonds import flows
from finllm.tools.instruments.options import price
from finllm.tools.pnl.engine import Engine, run_engine
from finllm.tools.pnl.kernel import position_gains, revalue, totals
from finllm.tools.pnl.outcome import EngineResult
from finllm.tools.pnl.reverse import reverse

AS_OF = dt.date(2022, 6, 30)
MARKET = MarketStore()
SPOT = float(MARKET.read("SP500", AS_OF).values.iloc[-1])
THREE_MONTHS = AS_OF + dt.timedelta(91)
UNITS: dict[str, MoveUnit] = {
    "EQUITY_US": "return",
    "OIL_WTI": "return",
    "VIX": "points",
    "RATE_US_10Y": "bp",
    "CREDIT_BAA_AAA": "bp",
}


def option(id: str = "OPTION", **more: object) -> Position:
    terms = {"underlying": "SP500", "expiry": THREE_MONTHS, "strike": SPOT, "option_type": "call", "volatility": 0.22}
    return Position.model_validate({"id": id, "asset_class": "option", "currency": "USD"} | terms | more)


def bond(id: str = "BOND", **more: object) -> Position:
    terms = {"coupon": 0.04, "maturity": dt.date(2052, 6, 30), "yield_": 0.04, "sector": "Treasury"}
    return Position.model_validate({"id": id, "asset_class": "bond", "currency": "USD"} | terms | more)


def portfolio(*positions: Position) -> Portfolio:
    return Portfolio(name="test", uri="file:test", sha256="0" * 64, positions=positions)


def stressed(*positions: Position, propagate: bool = False, **moves: str) -> EngineResult:
    shocks = [parse_user_shock(name, move, UNITS) for name, move in moves.items()]
    return run_engine(portfolio(*positions), MARKET, AS_OF, 20, shocks, propagate=propagate)


PUT = option(option_type="put", strike=0.9 * SPOT, market_value=1e6)
CALL = option(market_value=1e6)
SHORT = option(option_type="put", strike=0.9 * SPOT, market_value=-1e6)


@pytest.mark.parametrize(
    ("position", "equity", "vix", "millions"),
    [
        (PUT, "+30%", "-8points", -1.00),
        (PUT, "+20%", "-6points", -1.00),
        (CALL, "-30%", "+30points", -0.81),
        (SHORT, "-30%", "+30points", -22.2),
    ],
)
def test_an_option_is_revalued_on_spot_and_volatility(
    position: Position, equity: str, vix: str, millions: float
) -> None:
    result = stressed(position, EQUITY_US=equity, VIX=vix)
    assert float(result.total) / 1e6 == pytest.approx(millions, abs=max(0.005, abs(millions) / 200))
    assert any("no time passes" in note for note in result.notes)


def test_an_option_gains_what_two_prices_of_quantlib_are_apart() -> None:
    result = stressed(option(quantity=20, multiplier=100, exercise="European"), EQUITY_US="-12%", VIX="+11points",
                      RATE_US_10Y="+75bp")  # fmt: skip
    years = 91 / 365
    before, after = (price(True, spot, SPOT, years, volatility, rate, 0.0)
                     for spot, volatility, rate in ((SPOT, 0.22, 0.0), (0.88 * SPOT, 0.33, 0.0075)))  # fmt: skip
    assert float(result.total) == pytest.approx(2000 * (after - before), abs=0.02)
    assert float(result.book_value) == pytest.approx(2000 * before, abs=0.02)


def test_a_bond_gains_what_two_prices_at_its_yield_are_apart() -> None:
    known = flows(AS_OF, dt.date(2034, 11, 15), 0.0425, 2, "ACT/ACT")
    terms = {"coupon": 0.0425, "maturity": dt.date(2034, 11, 15), "day_count": "ACT/ACT"}
    position = bond(**terms, quantity=250_000, price=100.2, yield_=None)
    result = stressed(position, RATE_US_10Y="+120bp", CREDIT_BAA_AAA="+100bp")  # a Treasury has no credit spread
    dirty = 100.2 + known.accrued
    rate = known.yield_at(dirty)
    assert rate is not None
    assert float(result.book_value) == pytest.approx(2500 * dirty, abs=0.01)
    assert float(result.total) == pytest.approx(2500 * (known.dirty(rate + 0.012) - dirty), abs=0.01)


def test_a_future_of_market_value_zero_gains_by_its_notional() -> None:
    future = Position(id="ESU2", asset_class="future", quantity=-4, multiplier=50, price=3800.0, market_value=0.0)
    result = stressed(future, EQUITY_US="-10%")
    assert result.total == Decimal("76000.00")
    assert (result.book_value, result.by_direction["short"]) == (Decimal("0.00"), result.total)


def test_a_futures_market_value_that_is_its_notional_is_not_worth_it_again() -> None:
    future = Position(id="CLQ2", asset_class="future", quantity=5, multiplier=1000, price=71.2, market_value=356_000.0)
    result = stressed(future, CALL.model_copy(update={"id": "C"}), OIL_WTI="-20%")
    assert result.by_position["CLQ2"] == Decimal("-71200.00")
    assert float(result.book_value) == pytest.approx(1e6)
    assert any("its market value is its notional" in note for note in result.notes)


def test_an_option_on_a_holding_moves_with_it_and_at_its_price() -> None:
    share = Position(id="ACME", asset_class="equity", market_value=50_000.0, quantity=None, beta=1.4, price=250.0)
    call = option(underlying="ACME", strike=260.0, quantity=10, multiplier=100, price=9.5, volatility=None)
    result = stressed(share, call, EQUITY_US="-10%")
    lower = stressed(share, call, EQUITY_US="-14%")
    assert result.by_position["ACME"] == Decimal("-7000.00")
    assert Decimal("-9500.00") < lower.by_position["OPTION"] < result.by_position["OPTION"] < 0


@pytest.mark.parametrize(
    ("position", "says"),
    [
        (option(underlying="NOWHERE", market_value=1e6), "its underlying 'NOWHERE' is no position, series or factor"),
        (option(expiry=dt.date(2022, 6, 17), market_value=1e6), "it expired on 2022-06-17"),
        (option(volatility=None, market_value=1e6), "neither a volatility nor a price"),
        (option(volatility=None, quantity=1, price=9e4), "no volatility gives its price of 90000"),
        (option(strike=None, market_value=1e6), "needs option_type, strike and expiry, or else a delta"),
        (option(underlying="NKY", beta=0.8, market_value=1e6), "no price of its underlying 'NKY' is known"),
        (bond(maturity=dt.date(2020, 1, 1), market_value=1e6), "it was repaid on 2020-01-01"),
        (bond(coupon=None, market_value=1e6), "coupon, maturity and a yield or price, or else a duration"),
        (Position(id="X", asset_class="future", quantity=3, market_value=0.0), "it names no underlying"),
    ],
)
def test_what_cannot_be_revalued_is_left_out_with_its_reason(position: Position, says: str) -> None:
    book = value_portfolio(portfolio(CALL.model_copy(update={"id": "C"}), position), MARKET, AS_OF)
    assert [one.id for one in book.exclusions] == [position.id]
    assert says in book.exclusions[0].reason


def test_without_a_price_of_the_underlying_price_and_volatility_tell_it() -> None:
    position = option(underlying="NKY", beta=0.8, quantity=2, price=310.0, strike=27_000.0)
    result = stressed(position, EQUITY_US="-40%")
    assert any("its underlying's price" in note and "follows from its own price" in note for note in result.notes)
    assert Decimal("-620.00") <= result.total < Decimal("-500.00")


def test_greeks_without_terms_lose_no_more_than_the_premium_and_say_that_they_are_an_approximation() -> None:
    put = Position(id="PUT", asset_class="index", market_value=1e6, beta=-20.0, gamma=150.0, vega=60_000.0)
    assert stressed(put, EQUITY_US="+5%", VIX="-8points").total == Decimal("-1000000.00")  # −1 + 0.19 − 0.48 m
    result = stressed(
        put.model_copy(update={"market_value": -1e6, "vega": -60_000.0}), EQUITY_US="+13%", VIX="-8points"
    )
    assert result.total == Decimal("1000000.00")
    assert any("an approximation beyond ±10% of its factor" in note for note in result.notes)


KINDS = st.one_of(
    st.builds(
        lambda size, call, strike, days, volatility, american: option(
            market_value=size, option_type="call" if call else "put", strike=strike * SPOT, volatility=volatility,
            expiry=AS_OF + dt.timedelta(days), exercise="American" if american else "European",
        ),
        st.sampled_from([-1e6, 1e6]), st.booleans(), st.floats(0.8, 1.25), st.integers(60, 700), st.floats(0.2, 0.8),
        st.booleans(),
    ),
    st.builds(
        lambda size, coupon, years, rate, sector: bond(
            market_value=size, coupon=coupon, maturity=dt.date(2022 + years, 12, 31), sector=sector, yield_=rate
        ),
        st.sampled_from([-1e6, 1e6]), st.floats(0, 0.1), st.integers(0, 40), st.floats(-0.01, 0.15),
        st.sampled_from(["Treasury", "Credit"]),
    ),
    st.builds(
        lambda size, duration, convexity: bond(market_value=size, coupon=None, duration=duration, convexity=convexity),
        st.sampled_from([-1e6, 1e6]), st.floats(0, 30), st.floats(0, 1000),
    ),
    st.builds(
        lambda quantity: Position(id="F", asset_class="future", underlying="CL", quantity=quantity, multiplier=1000.0,
                                  price=105.0),
        st.integers(-50, 50).filter(bool),
    ),
)  # fmt: skip
BOOKS = st.lists(KINDS, min_size=1, max_size=6).map(
    lambda found: [one.model_copy(update={"id": f"P{at}"}) for at, one in enumerate(found)]
)


@settings(max_examples=60, deadline=None)
@given(
    book=BOOKS, equity=st.integers(-90, 90), vix=st.integers(-20, 60), rate=st.integers(-300, 900),
    oil=st.integers(-95, 100),
)  # fmt: skip
def test_cuts_add_up_to_the_cent_and_nothing_bought_loses_more_than_it_cost(
    book: list[Position], equity: int, vix: int, rate: int, oil: int
) -> None:
    valued = value_portfolio(portfolio(*book), MARKET, AS_OF)
    engine = Engine(valued, MARKET, AS_OF)
    shocks = {
        "EQUITY_US": f"{equity:+d}%",
        "VIX": f"{vix:+d}points",
        "RATE_US_10Y": f"{rate:+d}bp",
        "OIL_WTI": f"{oil:+d}%",
    }
    cuts = engine.revalue(engine.plan(20, user=[parse_user_shock(name, move, UNITS) for name, move in shocks.items()]))
    for cut in (cuts.by_position, cuts.by_factor, cuts.by_sector, cuts.by_direction):
        assert sum(cut.values(), Decimal(0)) == cuts.total
    for holding in valued.holdings:
        if holding.asset_class != "future":
            gain, value = float(cuts.by_position[holding.id]), holding.market_value
            assert gain >= -value - 0.05 if value > 0 else gain <= -value + 0.05  # a cell of every factor is rounded


@settings(max_examples=40, deadline=None)
@given(book=BOOKS, seed=st.integers(0, 2**31), size=st.floats(0.02, 1.0))
def test_many_scenarios_at_once_are_each_of_them(book: list[Position], seed: int, size: float) -> None:
    """A batch of 200 reads bonds from a polynomial; one scenario discounts their flows."""
    arrays = Engine(value_portfolio(portfolio(*book), MARKET, AS_OF), MARKET, AS_OF).arrays
    scale = np.array([{"bp": 150.0, "points": 8.0}.get(UNITS.get(name, "return"), 0.15) for name in arrays.factors])
    moves = np.maximum(
        size * scale * np.random.default_rng(seed).standard_normal((200, len(scale))), -0.9 / size * scale
    )
    batch = revalue(arrays, moves, tail=0.05)
    each = np.stack([position_gains(arrays, one[None, :])[:, 0] for one in moves])  # (S, P)
    largest = 1e6 * len(book)
    assert totals(arrays, moves) == pytest.approx(each.sum(axis=1), abs=1e-8 * largest * 100)
    assert batch.total == pytest.approx(each.sum(axis=1), abs=1e-8 * largest * 100)
    assert batch.by_factor.sum(axis=1) + batch.interaction == pytest.approx(batch.total, abs=1e-4)
    parts = [arrays.rows([row]) for row in range(len(book))]
    assert sum(totals(one, moves) for one in parts) == pytest.approx(batch.total, abs=1e-8 * largest * 100)


def test_slopes_are_delta_and_gamma() -> None:
    arrays = Engine(value_portfolio(portfolio(CALL), MARKET, AS_OF), MARKET, AS_OF).arrays
    spread = 0.22 * math.sqrt(91 / 365)
    delta = 0.5 * (1 + math.erf(spread / 2 / math.sqrt(2)))
    units = 1e6 / price(True, SPOT, SPOT, 91 / 365, 0.22, 0.0, 0.0)
    assert arrays.gradient()[arrays.factors.index("EQUITY_US")] == pytest.approx(units * delta * SPOT, rel=1e-6)
    gamma = math.exp(-(spread**2) / 8) / math.sqrt(2 * math.pi) / spread  # of a spot of one
    at = arrays.factors.index("EQUITY_US")
    assert arrays.hessian()[at, at] == pytest.approx(units * gamma * SPOT, rel=1e-4)


@pytest.mark.parametrize("count", [1, 60])
def test_slopes_of_american_options_are_smooth(count: int) -> None:
    """One option's boundary is its own, those of many are read from polynomials."""
    terms = {"exercise": "American", "yield_": 0.03, "quantity": 1, "multiplier": 100}
    volatilities = [0.22 + 0.003 * at for at in range(count)]
    chain = [option(id=f"O{at}", **terms | {"volatility": one}) for at, one in enumerate(volatilities)]
    arrays = Engine(value_portfolio(portfolio(*chain), MARKET, AS_OF), MARKET, AS_OF).arrays
    at, step = arrays.factors.index("EQUITY_US"), 0.01
    low, middle, high = (
        100 * sum(price(True, SPOT * spot, SPOT, 91 / 365, one, 0.0, 0.03, is_american=True) for one in volatilities)
        for spot in (1 - step, 1, 1 + step)
    )
    assert arrays.gradient()[at] == pytest.approx((high - low) / (2 * step), rel=2e-3)
    assert arrays.hessian()[at, at] == pytest.approx((high - 2 * middle + low) / step**2, rel=1e-2)


@settings(max_examples=30, deadline=None)
@given(book=BOOKS, equity=st.floats(-0.4, 0.4), vix=st.floats(-5, 40), rate=st.floats(-100, 400))
def test_the_gradient_after_a_move_is_that_of_the_revaluation(
    book: list[Position], equity: float, vix: float, rate: float
) -> None:
    arrays = Engine(value_portfolio(portfolio(*book), MARKET, AS_OF), MARKET, AS_OF).arrays
    at = {name: arrays.factors.index(name) for name in ("EQUITY_US", "VIX", "RATE_US_10Y")}
    moves = np.zeros(len(arrays.factors))
    moves[list(at.values())] = equity, vix, rate
    for name, step in (("EQUITY_US", 1e-3), ("VIX", 0.05), ("RATE_US_10Y", 1.0)):
        two = np.stack([moves, moves])
        two[:, at[name]] += step, -step
        up, down = position_gains(arrays, two).T
        capped = np.isclose(up, -arrays.value) | np.isclose(down, -arrays.value)
        if not capped.any():
            slope = float((up - down).sum()) / (2 * step)
            assert arrays.gradient(moves)[at[name]] * step == pytest.approx(slope * step, rel=2e-3, abs=5.0)


def test_bands_tail_risk_and_reverse_stress_revalue_contracts() -> None:
    result = stressed(CALL, bond(market_value=2e6), propagate=True, EQUITY_US="-10%")
    assert result.interval is not None
    assert result.interval.lower < result.total < result.interval.upper
    assert result.interval.lower >= -3_000_000
    assert result.var_975_1d is not None
    assert result.var_975_1d.missing == ("BOND",)  # no daily history of yields is packaged
    assert 0 < result.var_975_1d.loss < 1_000_000
    found = reverse(portfolio(CALL), MARKET, AS_OF, 20, 600_000.0, answers=1).answers[0]
    assert found.method == "local"
    assert float(found.loss) == pytest.approx(600_000, rel=1e-4)
    shares = Position(id="SP500", asset_class="index", market_value=1e6)
    convex = reverse(portfolio(shares, bond(market_value=5e6)), MARKET, AS_OF, 20, 900_000.0, answers=1).answers[0]
    assert (convex.method, float(convex.loss)) == ("convex", pytest.approx(900_000, rel=1e-6))


def test_a_file_with_terms_is_read_valued_and_revalued(tmp_path: Path) -> None:
    file = tmp_path / "book.csv"
    file.write_text(
        "id,currency,asset_class,market_value,underlying,option_type,exercise,strike,expiry,volatility,coupon,maturity,yield\n"
        f"O,USD,option,1000,SP500,put,American,{0.9 * SPOT},{THREE_MONTHS},22%,,,\n"
        "B,USD,bond,1000,,,,,,,0.04,2052-06-30,4%\n"
    )
    result = run_engine(load_portfolio(file), MARKET, AS_OF, 20, [parse_user_shock("EQUITY_US", "+30%", UNITS),
                        parse_user_shock("RATE_US_10Y", "+300bp", UNITS)], propagate=False)  # fmt: skip
    assert float(result.by_position["O"]) == pytest.approx(-1000, abs=2)
    assert float(result.by_position["B"]) == pytest.approx(-373.95, abs=0.3)


@settings(max_examples=15, deadline=None)
@given(
    coupons=st.lists(st.floats(0.0, 0.09), min_size=1, max_size=9), scenarios=st.sampled_from([1, 5, 60, 400]),
    size=st.floats(1e-4, 3.0), seed=st.integers(0, 99),
)  # fmt: skip
def test_bonds_that_move_alike_add_up_to_what_each_gains(
    coupons: list[float], scenarios: int, size: float, seed: int
) -> None:
    """Whatever the range: added up before they are read, they are the sum of what each gains, by owner."""
    held = [bond(f"B{at}", coupon=coupon, market_value=1e6 * (-1) ** at, sector="Treasury" if at % 3 else "Corporate",
                 maturity=dt.date(2024 + 3 * at, 6, 30)) for at, coupon in enumerate(coupons)]  # fmt: skip
    arrays = Engine(value_portfolio(portfolio(*held, CALL), MARKET, AS_OF), MARKET, AS_OF).arrays
    assert arrays.contracts is not None
    moves = arrays.wide(np.random.default_rng(seed).normal(0, size, (scenarios, len(arrays.factors))) * 0.01)
    owner = np.arange(len(arrays.contracts)) % 2
    found = arrays.contracts.summed(moves, owner, 2)
    each = arrays.contracts.gains(moves)
    wanted = np.stack([each[owner == one].sum(axis=0) for one in (0, 1)], axis=1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9 * 1e6 * len(each))
