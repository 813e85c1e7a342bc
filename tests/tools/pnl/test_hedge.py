"""Hedges against closed forms, brute force over all lots, Black–Scholes by hand, and a book with the trades in it."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.scenarios import PORTFOLIOS_DIR
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.hedges.instruments import DEFAULT, Instrument, load_instruments
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.engine import run_engine
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.hedge import Hedger, Target
from finllm.tools.pnl.programme import Costs, Floor, TailFloor, cheapest, cost_of
from finllm.tools.pnl.risk import expected_shortfall, value_at_risk
from finllm.tools.pnl.trades import Asked

DAY = dt.date(2022, 6, 30)
MARKET = MarketStore()
BOOK = load_portfolio(PORTFOLIOS_DIR / "default.csv")
SPOT = float(MARKET.read("SP500", DAY).values.iloc[-1])
LISTED = load_instruments(DEFAULT, MARKET, DAY)
FALL = (FactorSet.default(MARKET).parse("EQUITY_US", "-20%"),)


def hedger(*ids: str, shocks: tuple = FALL) -> Hedger:
    chosen: tuple[Instrument, ...] = tuple(one for one in LISTED if not ids or one.position.id in ids)
    return Hedger(BOOK, Asked(MARKET, DAY, 20, shocks), chosen)


def test_futures_alone_are_as_many_as_arithmetic_says() -> None:
    loss = -float(run_engine(BOOK, MARKET, DAY, 20, FALL).total)
    found = hedger("SPX_FUTURE").solve([Target("total_loss", 1_000_000)])
    lots = math.ceil((loss - 1_000_000) / (50 * SPOT * 0.20))
    (trade,) = found.trades
    assert trade.lots == -lots
    assert found.reached
    assert float(trade.cost) == pytest.approx(lots * 50 * SPOT * 0.0001, abs=0.01)
    assert float(found.total_after) == pytest.approx(-loss + lots * 50 * SPOT * 0.20, abs=0.05)


def test_trades_out_of_proportion_to_the_book_are_called_so() -> None:
    """A VaR of one dollar was answered with 12 billion of futures for a book of 21 million, without a word."""
    wild = hedger().solve([Target("var_975_1d", 1.0)])
    sane = hedger("SPX_FUTURE").solve([Target("total_loss", 1_000_000)])
    assert not any("times the book" in note for note in sane.notes)
    (note,) = [note for note in wild.notes if "times the book" in note]
    times = sum(abs(float(one.notional)) for one in wild.trades) / float(
        run_engine(BOOK, MARKET, DAY, 20, FALL).gross_value or 0
    )
    assert f"come to {times:,.0f} times the book" in note


def test_the_book_with_its_trades_is_what_any_other_command_makes_of_it(tmp_path: Path) -> None:
    found = hedger("SPX_FUTURE").solve([Target("total_loss", 1_200_000), Target("var_975_1d", 200_000)])
    (trade,) = found.trades
    text = (PORTFOLIOS_DIR / "default.csv").read_text("utf-8").rstrip().splitlines()
    file = tmp_path / "hedged.csv"
    header = text[0] + ",underlying,multiplier"
    rows = [f"{line},," for line in text[1:]] + [f"ES,{trade.lots},,USD,future,future,,,,,SP500,50"]
    file.write_text("\n".join([header, *rows]) + "\n")
    result = run_engine(load_portfolio(file), MARKET, DAY, 20, FALL)
    assert float(found.total_after) == pytest.approx(float(result.total), abs=0.05)
    assert result.var_975_1d is not None
    assert float(found.var_975_1d_after or 0) == pytest.approx(float(result.var_975_1d.loss), abs=0.02)
    assert result.var_975_1d.loss <= 200_000
    whole, tail = found.targets
    assert whole.kept
    assert tail.met
    assert tail.unchecked == "it covers 66 % of the book, without WTI_FRONT, BAA_CORP_7Y"
    assert found.open


def test_a_calm_month_takes_from_a_put_what_black_and_scholes_say() -> None:
    lots = hedger("SPX_PUT_95").lots
    position = lots.instruments[0].position
    assert position.strike is not None
    assert position.volatility is not None
    assert position.strike == pytest.approx(0.95 * SPOT, abs=0.01)

    def put(days: int) -> float:
        years, vol, strike = days / 365, position.volatility or 0.0, position.strike or 0.0
        d1 = (math.log(SPOT / strike) + vol**2 / 2 * years) / (vol * math.sqrt(years))
        normal = lambda x: 0.5 * math.erfc(-x / math.sqrt(2))  # noqa: E731
        return strike * normal(vol * math.sqrt(years) - d1) - SPOT * normal(-d1)

    assert lots.calm[0] == pytest.approx(100 * (put(63) - put(91)), rel=1e-9)
    assert lots.cost[0] == pytest.approx(0.05 * 100 * put(91), rel=1e-9)


def test_a_factor_is_brought_under_its_limit_and_no_further_than_one_lot() -> None:
    found = hedger("SPX_FUTURE", "WTI_FUTURE").solve([Target("loss_by_factor", 900_000, "EQUITY_US")])
    (target,) = found.targets
    assert target.met
    assert 900_000 - 50 * SPOT * 0.2 < float(target.after) <= 900_000
    assert [one.id for one in found.trades] == ["SPX_FUTURE"]


def test_what_cannot_be_reached_is_said_with_the_nearest() -> None:
    few = tuple(Instrument(one.position, one.cost, one.cost_share, one.carry, "buy", 3, one.note) for one in LISTED
                if one.position.id == "SPX_PUT_95")  # fmt: skip
    found = Hedger(BOOK, Asked(MARKET, DAY, 20, FALL), few).solve([Target("total_loss", 500_000)])
    assert not found.reached
    assert [(one.id, one.lots) for one in found.trades] == [("SPX_PUT_95", 3)]
    assert found.targets[0].before > found.targets[0].after > 500_000
    assert [kept for _, kept in found.alone] == [False]


def test_a_put_is_never_sold_for_its_carry() -> None:
    both = tuple(Instrument(one.position, one.cost, one.cost_share, one.carry, "both", 500, one.note) for one in LISTED)
    found = Hedger(BOOK, Asked(MARKET, DAY, 20, FALL), both).solve([Target("total_loss", 1_500_000)])
    assert all(one.id != "SPX_PUT_95" or one.lots > 0 for one in found.trades)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_whole_lots_are_cheaper(data: st.DataObject) -> None:
    amount = st.floats(-50, 50).map(lambda x: round(x, 1))
    each = np.array([[data.draw(amount), data.draw(amount)] for _ in range(2)])
    bought, sold = (np.array([data.draw(st.floats(0.1, 9)) for _ in range(2)]) for _ in range(2))
    costs = Costs(bought, sold, np.array([8.0, 8.0]), np.array([8.0, 0.0]))
    floors = [Floor(data.draw(st.floats(-300, -10)), row, data.draw(st.floats(5, 150))) for row in each]

    def missing(lots: np.ndarray) -> float:
        return sum(max(0.0, -(one.base + float(one.each @ lots)) - one.limit) for one in floors)

    every = [np.array(lots) for lots in itertools.product(range(-8, 9), range(9))]
    least = min(missing(lots) for lots in every)
    best = min(cost_of(costs, lots) for lots in every if missing(lots) <= least + 1e-3)
    found = cheapest(costs, floors, ())
    assert missing(found.lots) <= least + 1e-3
    assert cost_of(costs, found.lots) <= best + 1e-3


@pytest.mark.parametrize("shortfall", [True, False])
def test_a_tail_is_kept_by_as_few_lots_as_do(shortfall: bool) -> None:
    random = np.random.default_rng(3)
    index = random.standard_t(4, 504) * 0.01
    base, each = 1e6 * (1.1 * index + random.normal(0, 0.002, 504)), -40_000 * index
    measure = expected_shortfall if shortfall else value_at_risk
    limit = 0.4 * measure(base)
    fewest = next(lots for lots in range(60) if measure(base + lots * each) <= limit)
    costs = Costs(np.array([10.0]), np.array([10.0]), np.array([60.0]), np.array([60.0]))
    found = cheapest(costs, (), (TailFloor(base, each[:, None], limit, shortfall),))
    assert found.lots.tolist() == [fewest]
    assert found.missing == pytest.approx(0.0, abs=1e-6)


def test_lists_are_read_from_tables_too_and_bad_ones_refused(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("id,quantity,currency,asset_class,underlying,multiplier,cost,sides,most\n"
                     "MES,1,USD,future,SP500,5,2.5,sell,40\n")  # fmt: skip
    (one,) = load_instruments(table, MARKET, DAY)
    assert (one.position.multiplier, one.cost, one.side, one.most) == (5.0, 2.5, "sell", 40)
    table.write_text("id,quantity,currency,asset_class,underlying,multiplier,cost\nMES,1,USD,future,SP500,5,cheap\n")
    with pytest.raises(InputError, match=r"'MES'.*neither an amount nor a share"):
        load_instruments(table, MARKET, DAY)
    file = tmp_path / "mine.yaml"
    file.write_text("instruments: [{id: A, asset_class: future, underlying: SP500, multiplier: 5, cots: 3}]\n")
    with pytest.raises(InputError, match="cots"):
        load_instruments(file, MARKET, DAY)
    file.write_text("instruments: [{id: AAPL, asset_class: equity}]\n")
    with pytest.raises(InputError, match="is a position of the book and an instrument"):
        Hedger(BOOK, Asked(MARKET, DAY, 20, FALL), load_instruments(file, MARKET, DAY))
