"""Components of VaR and ES: they sum to the whole and are its derivatives by size; and what trades change."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.scenarios import PORTFOLIOS_DIR
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.components import MOST_POSITIONS, OTHERS, components
from finllm.tools.pnl.engine import Engine, run_engine
from finllm.tools.pnl.outcome import Components, EngineResult
from finllm.tools.pnl.risk import daily_gains
from finllm.tools.pnl.trades import ALL, Asked, increments, parse_trades, scaled, traded

DAY = dt.date(2022, 12, 28)
MARKET = MarketStore()
BOOK = load_portfolio(PORTFOLIOS_DIR / "default.csv")
PUT = Position(id="PUT", asset_class="option", underlying="SP500", option_type="put", strike=3600, multiplier=100,
               quantity=5, expiry=dt.date(2023, 3, 28), volatility=0.25)  # fmt: skip
EURO = Position(id="EURO_SHARE", asset_class="equity", market_value=400_000, currency="EUR", beta=1.1)


def book_of(*positions: Position) -> Portfolio:
    return BOOK.model_copy(update={"positions": positions})


def engine_of(portfolio: Portfolio) -> Engine:
    asked = Asked(MARKET, DAY, 20)
    return asked.engine(asked.book(portfolio))


def found(portfolio: Portfolio) -> tuple[Components, float, float]:
    engine = engine_of(portfolio)
    parts = components(engine.book, engine.arrays, engine.view, engine.days)
    still = np.zeros(len(engine.arrays.factors))
    days = daily_gains(engine.book, engine.arrays, still, engine.view.factors, MARKET, DAY)
    assert parts is not None
    assert days is not None
    var, _, shortfall, _ = days.measures()
    return parts, float(var.loss), float(shortfall.loss)


@settings(max_examples=12, deadline=None)
@given(sizes=st.lists(st.floats(-5000, 5000).filter(lambda x: abs(x) > 1), min_size=1, max_size=6), euro=st.booleans(),
       put=st.sampled_from([0, 20, -20]))  # fmt: skip
def test_parts_sum_to_var_and_es_whatever_is_held(sizes: list[float], euro: bool, put: int) -> None:
    shares = [Position(id=id, asset_class="equity", quantity=size)
              for id, size in zip(("AAPL", "XOM", "JPM", "KO", "RRC", "GE"), sizes, strict=False)]  # fmt: skip
    more = ([EURO] if euro else []) + ([PUT.model_copy(update={"quantity": put})] if put else [])
    parts, var, shortfall = found(book_of(*shares, *more))
    for by_var, by_es in ((parts.var_by_position, parts.es_by_position), (parts.var_by_factor, parts.es_by_factor)):
        assert float(sum(by_var.values())) == pytest.approx(var, abs=0.011)
        assert float(sum(by_es.values())) == pytest.approx(shortfall, abs=0.011)


def test_a_part_is_what_the_es_grows_by_as_the_position_does() -> None:
    parts, _, shortfall = found(BOOK)
    for id in ("AAPL", "CVX", "KO"):
        more = tuple(scaled(one, 1.001) if one.id == id else one for one in BOOK.positions)
        _, _, grown = found(book_of(*more))
        assert (grown - shortfall) / 0.001 == pytest.approx(float(parts.es_by_position[id]), rel=0.02)


def test_what_hedges_takes_from_the_risk_and_what_has_no_history_has_no_part() -> None:
    parts, _, _ = found(book_of(*BOOK.positions, PUT))
    assert parts.es_by_position["PUT"] < 0
    assert parts.var_by_position["PUT"] < 0
    assert "WTI_FRONT" not in parts.es_by_position


def test_of_many_positions_the_largest_are_named_and_the_rest_is_one_row() -> None:
    many = [Position(id=f"P{at}", asset_class="equity", market_value=1000.0 + at, beta=1.0) for at in range(150)]
    parts, var, _ = found(book_of(*many))
    assert len(parts.var_by_position) == MOST_POSITIONS + 1
    assert parts.var_by_position[OTHERS] > 0
    assert float(sum(parts.var_by_position.values())) == pytest.approx(var, abs=0.011)


def test_an_increment_is_the_difference_of_two_books(tmp_path: Path) -> None:
    trades = parse_trades(["AAPL=-100", "KO=+200", "WTI_FRONT=-500000"])
    shock = engine_of(BOOK).view.factors.parse("EQUITY_US", "-10%")
    rows = increments(BOOK, trades, Asked(MARKET, DAY, 20, (shock,)))
    assert [row.trade for row in rows] == ["AAPL=-100", "KO=+200", "WTI_FRONT=-500,000", ALL]
    text = (PORTFOLIOS_DIR / "default.csv").read_text("utf-8")
    for old, new in (("AAPL,8100", "AAPL,8000"), ("KO,9800", "KO,10000"), ("WTI_FRONT,,2000000", "WTI_FRONT,,1500000")):
        text = text.replace(old, new)
    file = tmp_path / "after.csv"
    file.write_text(text)
    before, after = (run_engine(one, MARKET, DAY, 20, (shock,)) for one in (BOOK, load_portfolio(file)))
    assert before.var_975_1d is not None
    assert after.var_975_1d is not None
    assert float(rows[-1].total) == pytest.approx(float(after.total - before.total), abs=0.05)
    assert float(rows[-1].var_975_1d or 0) == pytest.approx(
        float(after.var_975_1d.loss - before.var_975_1d.loss), abs=0.02
    )


def test_a_trade_that_cannot_be_is_refused() -> None:
    for text in ("AAPL", "AAPL=", "=5", "AAPL=0", "AAPL=nan", "AAPL=x"):
        with pytest.raises(InputError, match="is not ID=QUANTITY"):
            parse_trades([text])
    with pytest.raises(InputError, match="cannot be traded"):
        traded(BOOK, parse_trades(["NOBODY=5"]), Asked(MARKET, DAY, 20))


def test_the_loads_of_what_stays_are_not_moved_by_a_trade() -> None:
    shock = engine_of(BOOK).view.factors.parse("EQUITY_US", "-10%")
    asked = Asked(MARKET, DAY, 20, (shock,))
    (row,) = increments(BOOK, parse_trades(["AAPL=-8100"]), asked)
    whole = run_engine(BOOK, MARKET, DAY, 20, (shock,))
    assert float(row.total) == pytest.approx(-float(whole.by_position["AAPL"]), abs=0.02)


def test_a_result_survives_its_json_with_its_components_and_without() -> None:
    shocks = [
        engine_of(BOOK).view.factors.parse(name, move) for name, move in (("EQUITY_US", "-10%"), ("OIL_WTI", "+40%"))
    ]
    for parts in (True, False):
        result = run_engine(BOOK, MARKET, DAY, 20, shocks, propagate=True, parts=parts)
        assert EngineResult.model_validate_json(result.model_dump_json()) == result
