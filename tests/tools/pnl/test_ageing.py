"""Ageing on request: contracts at the horizon's end against QuantLib used directly, what expires, and the default."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from finllm.errors import InputError
from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import MoveUnit, parse_user_shock
from finllm.tools.data.hedges.instruments import Instrument
from finllm.tools.data.market import MarketStore
from finllm.tools.data.scenario import Scenario
from finllm.tools.instruments.options import quantlib
from finllm.tools.pnl.ageing import day_after
from finllm.tools.pnl.engine import Engine, run_engine
from finllm.tools.pnl.hedge import Hedger, Target
from finllm.tools.pnl.outcome import TIME, EngineResult
from finllm.tools.pnl.paths import Step, walk
from finllm.tools.pnl.reverse import reverse
from finllm.tools.pnl.trades import Asked

ql: Any = quantlib()
AS_OF, UNTIL = dt.date(2022, 6, 30), dt.date(2022, 7, 28)
MARKET = MarketStore()
SPOT = float(MARKET.read("SP500", AS_OF).values.iloc[-1])
UNITS: dict[str, MoveUnit] = {"EQUITY_US": "return", "VIX": "points", "RATE_US_10Y": "bp", "FX_EURUSD": "return"}
EXPIRY = AS_OF + dt.timedelta(91)


def option(id: str = "OPTION", **more: object) -> Position:
    terms = {"underlying": "SP500", "expiry": EXPIRY, "strike": SPOT, "option_type": "call", "volatility": 0.22,
             "quantity": 100, "multiplier": 10, "sector": "Options"}  # fmt: skip
    return Position.model_validate({"id": id, "asset_class": "option", "currency": "USD"} | terms | more)


def bond(id: str = "BOND", **more: object) -> Position:
    terms = {"coupon": 0.04, "maturity": dt.date(2032, 7, 15), "yield_": 0.035, "sector": "Treasury", "quantity": 1e6}
    return Position.model_validate({"id": id, "asset_class": "bond", "currency": "USD"} | terms | more)


def portfolio(*positions: Position) -> Portfolio:
    return Portfolio(name="test", uri="file:test", sha256="0" * 64, positions=positions)


def stressed(*positions: Position, age: bool = True, currency: str = "USD", **moves: str) -> EngineResult:
    shocks = [parse_user_shock(name, move, UNITS) for name, move in moves.items()]
    return run_engine(portfolio(*positions), MARKET, AS_OF, 20, shocks, propagate=False, age=age, currency=currency)


def on(day: dt.date) -> Any:
    return ql.Date(day.day, day.month, day.year)


def worth(day: dt.date, spot: float, volatility: float, *, call: bool = True, strike: float = SPOT,
          expiry: dt.date = EXPIRY, american: bool = False, dividend: float = 0.0) -> float:  # fmt: skip
    """One option by QuantLib on a day, at a rate of zero."""
    with ql.SavedSettings():
        today, count = on(day), ql.Actual365Fixed()
        ql.Settings.instance().evaluationDate = today
        ql.Settings.instance().includeReferenceDateEvents = True
        process = ql.BlackScholesMertonProcess(
            ql.QuoteHandle(ql.SimpleQuote(spot)),
            ql.YieldTermStructureHandle(ql.FlatForward(today, dividend, count)),
            ql.YieldTermStructureHandle(ql.FlatForward(today, 0.0, count)),
            ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), volatility, count)),
        )  # fmt: skip
        exercise = ql.AmericanExercise(today, on(expiry)) if american else ql.EuropeanExercise(on(expiry))
        one = ql.VanillaOption(ql.PlainVanillaPayoff(ql.Option.Call if call else ql.Option.Put, strike), exercise)
        one.setPricingEngine(ql.FdBlackScholesVanillaEngine(process, 2000, 2000) if american
                             else ql.AnalyticEuropeanEngine(process))  # fmt: skip
        return float(one.NPV())


def test_the_day_that_is_reached_is_so_many_weekdays_on() -> None:
    assert day_after(AS_OF, 20) == UNTIL
    assert day_after(dt.date(2022, 7, 2), 1) == dt.date(2022, 7, 4)  # a Saturday counts from the Friday before


@pytest.mark.parametrize("call", [True, False])
@pytest.mark.parametrize(("equity", "vix"), [("-12%", "+11points"), ("+0%", "+0points"), ("+8%", "-4points")])
def test_an_option_at_the_horizon_is_worth_what_quantlib_says_that_day(call: bool, equity: str, vix: str) -> None:
    result = stressed(option(option_type="call" if call else "put"), EQUITY_US=equity, VIX=vix)
    spot, volatility = SPOT * (1 + float(equity[:-1]) / 100), 0.22 + float(vix[:-6]) / 100
    now, then = worth(AS_OF, SPOT, 0.22, call=call), worth(UNTIL, spot, volatility, call=call)
    assert float(result.total) == pytest.approx(1000 * (then - now), rel=1e-8, abs=0.01)
    time = worth(UNTIL, SPOT, 0.22, call=call) - now
    assert float(result.by_factor[TIME]) == pytest.approx(1000 * time, abs=0.01)
    assert sum(result.by_factor.values()) == result.total == sum(result.by_position.values())


def test_an_american_option_ages_too() -> None:
    terms = {"exercise": "American", "yield_": 0.05}
    result = stressed(option(**terms), EQUITY_US="+5%")
    then, now = (worth(day, spot, 0.22, american=True, dividend=0.05)
                 for day, spot in ((UNTIL, SPOT * 1.05), (AS_OF, SPOT)))  # fmt: skip
    assert float(result.total) == pytest.approx(1000 * (then - now), rel=2e-3)


def dirty(day: dt.date, yield_: float, maturity: dt.date = dt.date(2032, 7, 15)) -> float:
    """A bond's price with accrued interest by QuantLib, per 100."""
    schedule = ql.Schedule(ql.Date(15, 1, 2020), on(maturity), ql.Period(ql.Semiannual), ql.NullCalendar(),
                           ql.Unadjusted, ql.Unadjusted, ql.DateGeneration.Backward, False)  # fmt: skip
    count = ql.Thirty360(ql.Thirty360.BondBasis)
    one = ql.FixedRateBond(0, 100.0, schedule, [0.04], count)
    rate = ql.InterestRate(yield_, count, ql.Compounded, ql.Semiannual)
    with ql.SavedSettings():
        ql.Settings.instance().evaluationDate = on(day)
        return float(ql.BondFunctions.cleanPrice(one, rate, on(day)) + one.accruedAmount(on(day)))


@pytest.mark.parametrize("move", ["+0bp", "+125bp"])
def test_a_bond_rolls_to_the_horizon_and_its_coupon_counts(move: str) -> None:
    result = stressed(bond(), RATE_US_10Y=move)
    then = dirty(UNTIL, 0.035 + float(move[:-2]) / 1e4) + 2.0  # the coupon of 15 July
    assert float(result.total) == pytest.approx(1e4 * (then - dirty(AS_OF, 0.035)), abs=0.01)


def test_a_bond_that_is_repaid_gives_its_money_whatever_yields_do() -> None:
    due = dt.date(2022, 7, 15)
    found = [stressed(bond(maturity=due), RATE_US_10Y=move) for move in ("+0bp", "+300bp")]
    paid = 1e4 * (102.0 - dirty(AS_OF, 0.035, due))
    assert [float(one.total) for one in found] == pytest.approx([paid, paid], abs=0.01)
    assert any("repaid by 2022-07-28: BOND" in note for note in found[0].notes)


@pytest.mark.parametrize(("expiry", "equity"), [(dt.date(2022, 7, 15), -0.1), (UNTIL, -0.1), (UNTIL, 0.1)])
def test_an_option_that_expires_pays_out_at_the_shocked_price(expiry: dt.date, equity: float) -> None:
    result = stressed(option(option_type="put", expiry=expiry), EQUITY_US=f"{equity:+.0%}", VIX="+20points")
    now = worth(AS_OF, SPOT, 0.22, call=False, expiry=expiry)
    assert float(result.total) == pytest.approx(1000 * (max(-equity * SPOT, 0.0) - now), abs=0.01)
    assert any("expire by 2022-07-28, and pay out" in note for note in result.notes)


def test_a_forward_is_worth_what_is_left_of_its_time_and_a_future_stands() -> None:
    terms: dict[str, Any] = {"asset_class": "fx", "underlying": "EURUSD", "strike": 1.05, "quantity": 1e6,
                             "currency": "USD", "expiry": dt.date(2022, 7, 8), "yield_": 0.0}  # fmt: skip
    forward = Position.model_validate({"id": "FORWARD"} | terms)
    future = Position.model_validate({"id": "ESU2", "asset_class": "future", "currency": "USD", "quantity": -4,
                                      "multiplier": 50, "underlying": "SP500"})  # fmt: skip
    result = stressed(forward, future, FX_EURUSD="-5%", EQUITY_US="-10%")
    still = stressed(forward, future, age=False, FX_EURUSD="-5%", EQUITY_US="-10%")
    assert result.by_position["ESU2"] == still.by_position["ESU2"] > 0
    assert float(result.by_position["FORWARD"]) == pytest.approx(float(still.by_position["FORWARD"]), abs=0.01)


def test_the_default_lets_no_time_pass_and_is_as_it_was() -> None:
    plain = stressed(option(), bond(), age=False, EQUITY_US="-12%", VIX="+11points")
    assert plain.aged is None
    assert TIME not in plain.by_factor
    assert any("no time passes" in note for note in plain.notes)
    older = stressed(option(), bond(), EQUITY_US="-12%", VIX="+11points")
    drawn = run_engine(portfolio(option(), bond()), MARKET, AS_OF, 20, [parse_user_shock("EQUITY_US", "-9%", UNITS)],
                       age=True)  # fmt: skip
    assert older.aged == UNTIL
    assert "aged to 2022-07-28" in older.over
    assert "2022-07-28" in older.first[0]
    assert not any("no time passes" in note for note in older.notes)
    assert drawn.interval is not None
    assert drawn.interval.untested
    assert drawn.interval.lower < drawn.total < drawn.interval.upper


def test_in_another_currency_what_time_gains_is_converted_at_the_shocked_rate() -> None:
    own = bond(currency="EUR")
    plain, moved = (stressed(own, RATE_US_10Y="+50bp", FX_EURUSD=rate) for rate in ("+0%", "-5%"))
    book = value_portfolio(portfolio(own), MARKET, AS_OF)
    whole = float(plain.total) + book.value
    assert float(moved.total) == pytest.approx(whole * 0.95 - book.value, abs=0.02)


def test_the_days_on_the_way_age_the_book_by_as_many_days() -> None:
    result = stressed(option(), EQUITY_US="+0%")
    after = {row.horizon: float(row.total) for row in result.by_day}
    for days in (1, 5, 19):
        time = worth(day_after(AS_OF, days), SPOT, 0.22) - worth(AS_OF, SPOT, 0.22)
        assert after[days] == pytest.approx(1000 * time, abs=0.01)
    assert after[20] == float(result.total)


def test_each_step_of_a_path_is_at_its_own_day_beyond_the_longest_horizon_too() -> None:
    engine = Engine(value_portfolio(portfolio(bond()), MARKET, AS_OF), MARKET, AS_OF, age=True)
    walked = walk(engine, [Step("a", 63, ()), Step("b", 567, ())], propagate=False)
    for row, days in zip(walked.rows, (63, 567), strict=True):
        day = day_after(AS_OF, days)
        paid = 2.0 * sum(AS_OF < dt.date(year, month, 15) <= day for year in range(2022, 2026) for month in (1, 7))
        assert float(row.total) == pytest.approx(1e4 * (dirty(day, 0.035) + paid - dirty(AS_OF, 0.035)), abs=0.01)


def test_reverse_counts_what_time_loses_and_refuses_where_that_is_all() -> None:
    book = portfolio(option(), Position.model_validate({"id": "CASH", "asset_class": "cash", "currency": "USD",
                                                        "market_value": 1e6}))  # fmt: skip
    decay = 1000 * (worth(AS_OF, SPOT, 0.22) - worth(UNTIL, SPOT, 0.22))

    def sought(loss: float, *, age: bool) -> Any:
        return reverse(book, MARKET, AS_OF, 20, loss, answers=1, age=age)

    nearer, farther = (sought(decay * 2, age=age).answers[0] for age in (True, False))
    assert nearer.distance < farther.distance
    assert float(nearer.loss) == pytest.approx(2 * decay, rel=1e-4)
    assert float(nearer.by_factor[TIME]) == pytest.approx(-decay, abs=0.01)
    with pytest.raises(InputError, match="time alone loses"):
        sought(decay * 0.9, age=True)


def test_a_hedge_is_held_against_the_aged_loss() -> None:
    made: Callable[[bool], Hedger] = lambda age: Hedger(  # noqa: E731
        portfolio(option()),
        Asked(MARKET, AS_OF, 20, [parse_user_shock("EQUITY_US", "-5%", UNITS)], propagate=False, age=age),
        [Instrument(position=Position.model_validate({"id": "F", "asset_class": "future", "currency": "USD",
                                                      "quantity": 1, "underlying": "SP500"}), cost=1.0,
                    cost_share=0.0, carry=0.0, most=5000, side="both")],
    )  # fmt: skip
    results = [made(age).solve([Target("total_loss", 1000.0)]) for age in (True, False)]
    assert all(one.reached for one in results)
    assert float(results[0].total_before) < float(results[1].total_before)


def test_a_scenario_says_so_and_one_that_does_not_is_written_as_before() -> None:
    terms = {"title": "t", "narrative": "n", "horizon": 20, "as_of": AS_OF}
    assert "age" not in Scenario.model_validate(terms).model_dump()
    assert Scenario.model_validate({**terms, "age": True}).model_dump()["age"] is True
